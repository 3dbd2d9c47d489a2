"""A degraded crop has the shares of the paper to the pixel, and is a function of seed, epoch and name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from dynet import degrade as module
from dynet.degrade import Degradation, degrade, generator_of
from shards.order import crop_box

PAPER = Degradation()
SHAPES = [(128, 128), (64, 64), (100, 132), (17, 5), (1, 1), (31, 200)]
MARK = 7


def texture(height: int = 128, width: int = 128, seed: int = 0) -> np.ndarray:
    """Levels between 60 and 195: smooth enough for JPEG, no pixel masked or marked."""
    random = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return (60 + cv2.GaussianBlur(random, (0, 0), 1.0).astype(int) * 135 // 255).astype(np.uint8)


def marked(monkeypatch: pytest.MonkeyPatch, clean: np.ndarray, how: Degradation, seed: int = 0) -> np.ndarray:
    """(H, W): what each pixel is, 0 masked, 1 degraded, 2 as it was. Every kind of degradation is a mark instead."""
    monkeypatch.setattr(module, "KINDS", [lambda clean, where, *_: np.full((len(where), 3), MARK, np.uint8)] * 3)
    out = degrade(clean, np.random.default_rng(seed), how)
    what = np.select([(out == 0).all(2), (out == MARK).all(2), (out == clean).all(2)], [0, 1, 2], -1)
    assert what.min() >= 0
    return what


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize(
    ("degraded", "masked"), [(0.5, 0.3), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.1, 0.9)]
)
@pytest.mark.parametrize("cell", [16, 1, 7, 500])
def test_shares_of_the_area_are_exact(
    monkeypatch: pytest.MonkeyPatch, height: int, width: int, degraded: float, masked: float, cell: int
) -> None:
    how = Degradation(degraded=degraded, masked=masked, cell=cell)
    counts = np.bincount(marked(monkeypatch, texture(height, width), how).ravel(), minlength=3)
    area = height * width
    assert counts[1] == round(degraded * area)
    assert counts[0] + counts[1] == round((degraded + masked) * area)
    assert abs(counts[0] - masked * area) <= 1


def test_at_128_they_are_those_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(20):
        counts = np.bincount(marked(monkeypatch, texture(), PAPER, seed).ravel())
        assert counts.tolist() == [4915, 8192, 3277]


def test_cells_are_whole_but_for_the_one_on_a_border(monkeypatch: pytest.MonkeyPatch) -> None:
    what = marked(monkeypatch, texture(), PAPER)
    cells = what.reshape(8, 16, 8, 16).swapaxes(1, 2).reshape(64, 256)
    split = [cell for cell in cells if len(set(cell.tolist())) > 1]
    assert len(split) == 1  # half of 64 cells are whole; 0.8 of them are not
    changes = np.flatnonzero(np.diff(split[0]))
    assert len(changes) == 1  # row by row


def test_every_cell_is_as_likely_to_be_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = texture(64, 64)
    masked = sum((marked(monkeypatch, clean, PAPER, seed) == 0).astype(int) for seed in range(400))
    assert np.abs(masked - 120).max() < 5 * np.sqrt(400 * 0.3 * 0.7)


def test_regions_have_kinds_and_levels_of_their_own() -> None:
    grey = np.full((128, 128, 3), 128, np.uint8)  # JPEG leaves it alone, noise of different levels shows
    deviations = set()
    for seed in range(30):
        error = degrade(grey, np.random.default_rng(seed), replace(PAPER, masked=0)).astype(float) - 128
        cells = error.reshape(8, 16, 8, 16, 3).swapaxes(1, 2).reshape(64, -1).std(axis=1)
        levels = np.sort(cells[cells > 0])
        deviations.add(1 + int((np.diff(levels) > 0.12 * levels[1:]).sum()) if len(levels) else 0)
    assert max(deviations) >= 3  # several in one crop


def test_kinds_come_equally_often_and_levels_from_their_whole_range() -> None:
    """Told apart from outside: a JPEG is one of 66, Gaussian noise has a tail, uniform noise has none."""
    draws, side = 600, 32
    how = Degradation(degraded=1.0, masked=0.0, regions=1)
    picture, grey = texture(side, side), np.full((side, side, 3), 128, np.uint8)
    jpegs = {_jpeg(picture, quality).tobytes(): quality for quality in range(10, 76)}
    assert len(jpegs) == 66
    found: dict[str, list[float]] = {"jpeg": [], "gaussian": [], "random": []}
    for number in range(draws):
        spoiled, noise = (degrade(one, generator_of(0, 0, str(number)), how) for one in (picture, grey))
        error = noise.astype(float) - 128
        if quality := jpegs.get(spoiled.tobytes()):
            found["jpeg"].append(quality)
        elif np.abs(error).max() > 2.2 * error.std():
            found["gaussian"].append(error.std())
        else:
            found["random"].append(np.abs(error).max())
    assert all(abs(len(levels) - draws / 3) < 4 * np.sqrt(draws * 2 / 9) for levels in found.values())
    for kind, bounds in (("jpeg", how.jpeg_quality), ("gaussian", how.gaussian_sigma), ("random", how.random_reach)):
        low, high = bounds
        slack = 0.06 * (high - low)
        assert low - slack < min(found[kind]) < low + slack
        assert high - slack < max(found[kind]) < high + slack
        assert np.mean(found[kind]) == pytest.approx((low + high) / 2, rel=0.1)


def _jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    halved = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    coded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality, *halved])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].copy()


def test_what_is_degraded_differs_and_the_crop_itself_is_left_alone() -> None:
    clean = texture()
    before = clean.copy()
    for seed in range(10):
        out = degrade(clean, np.random.default_rng(seed), PAPER)
        assert (out.shape, out.dtype) == (clean.shape, np.uint8)
        changed = (out != clean).any(axis=2).sum()
        assert 0.9 * 13107 < changed <= 13107
        error = np.abs(out.astype(int) - clean).max(axis=2)[(out != 0).any(axis=2)]
        assert error.mean() > 2
    assert np.array_equal(clean, before)


def test_noise_is_clipped_and_not_wrapped() -> None:
    how = Degradation(degraded=1.0, masked=0.0)
    for level in (0, 255):
        flat = np.full((64, 64, 3), level, np.uint8)
        for seed in range(10):
            assert np.abs(degrade(flat, np.random.default_rng(seed), how).astype(int) - level).max() < 250


def test_it_is_a_function_of_seed_epoch_and_sample() -> None:
    clean = texture()

    def bytes_of(seed: int, epoch: int, sample: str) -> bytes:
        return degrade(clean, generator_of(seed, epoch, sample), PAPER).tobytes()

    turns = [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (0, 11, "a"), (1, 1, "a")]
    assert len({bytes_of(*turn) for turn in turns}) == len(turns)
    assert [bytes_of(*turn) for turn in turns] == [bytes_of(*turn) for turn in turns]


def test_its_draws_have_nothing_to_do_with_where_the_crop_lies() -> None:
    tops = np.array([crop_box(3, 2, str(number), 512, 128).top for number in range(2000)])
    drawn = np.array([generator_of(3, 2, str(number)).random() for number in range(2000)])
    assert abs(np.corrcoef(tops, drawn)[0, 1]) < 0.09  # four sigma
    assert np.abs(np.histogram(drawn, 10, (0, 1))[0] - 200).max() < 60


def test_it_writes_where_it_is_told() -> None:
    clean, batch = texture(), np.zeros((3, 128, 128, 3), np.uint8)
    out = degrade(clean, np.random.default_rng(1), PAPER, into=batch[1])
    assert np.shares_memory(out, batch)
    assert np.array_equal(batch[1], degrade(clean, np.random.default_rng(1), PAPER))
    assert not batch[[0, 2]].any()


@pytest.mark.parametrize(
    ("clean", "into", "sentence"),
    [
        (np.zeros((8, 8), np.uint8), None, "is no crop"),
        (np.zeros((8, 8, 3), np.float32), None, "is no crop"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8), "can't take a crop"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 3, 8), np.uint8).swapaxes(1, 2), "C-contiguous"),
    ],
)
def test_arrays_that_can_not_be_are_refused(clean: np.ndarray, into: np.ndarray | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        degrade(clean, np.random.default_rng(0), PAPER, into)


def test_a_crop_is_not_degraded_in_place() -> None:
    clean = texture()
    with pytest.raises(ValueError, match="in place"):
        degrade(clean, np.random.default_rng(0), PAPER, into=clean)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"degraded": -0.1}, "degraded is -0.1: give a share"),
        ({"masked": float("nan")}, "masked is nan"),
        ({"degraded": 0.6, "masked": 0.5}, "more than the area: lower one"),
        ({"cell": 0}, "cell is 0: give at least 1"),
        ({"regions": 0}, "regions is 0: give at least 1"),
        ({"jpeg_quality": (0, 50)}, "within 1 and 100"),
        ({"jpeg_quality": (50, 10)}, "the lowest and the highest"),
        ({"jpeg_quality": (10.5, 20)}, "give whole numbers"),
        ({"gaussian_sigma": (5.0, 256.0)}, "gaussian_sigma is"),
        ({"gaussian_sigma": (5.0,)}, "gaussian_sigma is"),
        ({"random_reach": (-1.0, 5.0)}, "random_reach is"),
    ],
)
def test_a_setting_that_can_not_be_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Degradation(**changes)
