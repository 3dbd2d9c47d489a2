"""Pictures of any size and type, whole and in tiles, and the tile that the memory allows."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dynet
from dynet import tiles, weights
from dynet.model import DyNet, ModelConfig
from dynet.restore import Restorer, bytes_needed, fitting_tile

CONFIG = ModelConfig(width=8, refinement=1)
SHALLOW = (1, 1, 1, 1)


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    torch.manual_seed(0)
    return Restorer(DyNet(CONFIG), device=torch.device("cpu"))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) float32 in [0, 1]."""
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 8), (24, 32)])
def test_any_size_and_type_comes_out_as_it_went_in(restorer: Restorer, kind: type, size: tuple[int, int]) -> None:
    top = np.iinfo(kind).max if kind is not np.float32 else 1
    given = (picture(*size) * top).astype(kind)
    before = given.copy()
    found = restorer.restore(given, SHALLOW)
    assert (found.shape, found.dtype) == (given.shape, given.dtype)
    assert np.array_equal(given, before)
    assert found.max() <= top


def test_sixteen_bits_keep_their_levels(restorer: Restorer) -> None:
    given = (picture(16, 16) * 65535).astype(np.uint16)
    exact = restorer.floats(given.astype(np.float32) / np.float32(65535), SHALLOW).clip(0, 1) * 65535
    assert np.abs(restorer.restore(given, SHALLOW) - exact).max() <= 0.51
    assert len(np.unique(restorer.restore(given, SHALLOW))) > 256


def test_floats_are_the_networks_own_and_not_clipped(restorer: Restorer) -> None:
    given = picture(16, 24)
    with torch.inference_mode():
        own = restorer.model(torch.from_numpy(given).permute(2, 0, 1)[None], SHALLOW)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(restorer.floats(given, SHALLOW), own)
    assert own.max() > 1


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((8, 8), np.uint8), "shape"),
        (np.zeros((8, 8, 4), np.uint8), "shape"),
        (np.zeros((1, 8, 8, 3), np.uint8), "shape"),
        (np.zeros((0, 8, 3), np.uint8), "shape"),
        (np.zeros((8, 8, 3), np.float64), "float64"),
        (np.zeros((8, 8, 3), np.int32), "int32"),
    ],
)
def test_other_arrays_are_refused(restorer: Restorer, image: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        restorer.restore(image, SHALLOW)


def test_load_takes_what_was_written_and_restores(tmp_path: Path, restorer: Restorer) -> None:
    torch.save(weights.written(CONFIG, restorer.model.state_dict()), tmp_path / "dynet.pt")
    loaded = dynet.load(tmp_path / "dynet.pt", device="cpu")
    given = (picture(9, 11) * 255).astype(np.uint8)
    for depth in (SHALLOW, "S"):
        assert np.array_equal(loaded.restore(given, depth), restorer.restore(given, depth))


def test_a_file_of_another_version_is_said(tmp_path: Path) -> None:
    torch.save({"format": "dynet-weights-9", "config": {}, "weights": {}}, tmp_path / "dynet.pt")
    with pytest.raises(ValueError, match="dynet-weights-9"):
        dynet.load(tmp_path / "dynet.pt")


def test_half_precision_is_near(restorer: Restorer) -> None:
    lower = Restorer(restorer.model, device=torch.device("cpu"), precision="bf16")
    given = picture(16, 16)
    difference = np.abs(lower.floats(given, SHALLOW) - restorer.floats(given, SHALLOW))
    assert 0 < difference.max() < 0.05
    with pytest.raises(ValueError, match="precision is 'int8'"):
        Restorer(restorer.model, device=torch.device("cpu"), precision="int8")


# ---------------------------------------------------------------- tiles


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    side=st.integers(4, 20).map(lambda number: 8 * number),
)
def test_weights_sum_to_one_exactly_and_tiles_are_where_the_network_wants_them(
    height: int, width: int, side: int
) -> None:
    total = np.zeros((height, width, 1), np.float32)
    for tile in tiles.tiles(height, width, side):
        assert tile.rows.start % 8 == tile.columns.start % 8 == 0
        assert tile.rows.stop - tile.rows.start <= side
        assert tile.columns.stop - tile.columns.start <= side
        assert tile.weights.min() >= 0
        total[tile.where] += tile.weights
    assert (total == 1).all()


def test_weights_go_over_smoothly() -> None:
    wide = tiles.tiles(64, 1000, 128)
    assert len(wide) > 8
    for tile in wide:
        assert np.abs(np.diff(tile.columns.weights)).max() < 1.6 / tiles.overlap(128)
    shared = [one.columns.stop - two.columns.start for one, two in pairwise(wide)]
    assert min(shared) >= tiles.overlap(128)


def test_tiles_that_agree_give_what_they_agree_on(restorer: Restorer) -> None:
    """A network that changes nothing: blending adds nothing of its own."""
    model = DyNet(CONFIG)
    with torch.no_grad():
        model.restore.weight.zero_()
    given = picture(100, 75)
    found = Restorer(model, device=torch.device("cpu")).floats(given, SHALLOW, 32)
    assert np.abs(found - given).max() <= 2e-7


def test_tiles_are_near_the_whole_and_told_of(restorer: Restorer) -> None:
    given = picture(80, 90)
    told: list[tuple[int, int]] = []
    tiled = restorer.floats(given, SHALLOW, 64, lambda done, total: told.append((done, total)))
    whole = restorer.floats(given, SHALLOW)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert 0 < np.abs(tiled - whole).mean() < 0.1 * np.abs(whole - given).mean()


def test_a_picture_that_fits_into_one_tile_is_the_whole(restorer: Restorer) -> None:
    given = picture(63, 50)
    assert np.array_equal(restorer.floats(given, SHALLOW, 64), restorer.floats(given, SHALLOW))


@pytest.mark.parametrize("side", [0, 24, 33, -64])
def test_sides_that_cant_be_are_said(restorer: Restorer, side: int) -> None:
    with pytest.raises(ValueError, match="multiple of 8 of at least 32"):
        restorer.floats(picture(8, 8), SHALLOW, side)


# ---------------------------------------------------------------- memory


def test_the_largest_tile_that_fits_is_taken() -> None:
    assert fitting_tile((500, 600), 48, 16 << 30) is None
    free = 4 << 30
    side = fitting_tile((4000, 6000), 48, free)
    assert side is not None and side % 8 == 0
    assert (
        bytes_needed((side, side), 48) <= 0.8 * free < bytes_needed((side + 64, side + 64), 48) + 40 * 4000 * 6000 * 2
    )
    narrow = fitting_tile((4000, 6000), 8, free)
    assert narrow is not None and narrow > 2 * side


def test_too_little_memory_is_said() -> None:
    with pytest.raises(ValueError, match=r"too few for a picture of 6000x4000 pixels"):
        fitting_tile((4000, 6000), 48, 100 << 20)


def test_the_free_memory_of_this_machine_is_asked(restorer: Restorer) -> None:
    assert restorer.fitting_tile(64, 64) is None
