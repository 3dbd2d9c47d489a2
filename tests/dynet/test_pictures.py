"""Grids and curves show what they were given, whole, with a label to each."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dynet.pictures import curves, grid, png

RANDOM = np.random.default_rng(0)


def samples(count: int = 3, side: int = 128) -> np.ndarray:
    return RANDOM.integers(0, 200, (count, side, side, 3)).astype(np.uint8)


def test_a_grid_has_every_pixel_in_its_row_and_column() -> None:
    columns = {"clean": samples(), "degraded": samples(), "S": samples(), "L": samples()}
    sheet = grid(columns)
    assert (sheet.ndim, sheet.dtype) == (3, np.uint8)
    tops, lefts = [24 + 132 * row for row in range(3)], [4 + 132 * column for column in range(4)]
    for left, pixels in zip(lefts, columns.values(), strict=True):
        for top, one in zip(tops, pixels, strict=True):
            assert np.array_equal(sheet[top : top + 128, left : left + 128], one)
    assert sheet.shape == (tops[-1] + 132, lefts[-1] + 132, 3)


@pytest.mark.parametrize("side", [32, 128])
def test_labels_stand_above_their_columns_and_none_runs_into_the_next(side: int) -> None:
    names = ["clean", "degraded, a long name for such a column", "S"]
    sheet = grid({name: samples(1, side) for name in names})
    dark = (sheet[:24] < 128).all(axis=2).any(axis=0)
    pitch = (sheet.shape[1] - 4) // 3
    for left in (4 + pitch * column for column in range(3)):
        assert not dark[left - 3 : left].any()
        assert dark[left : left + 12].any()
    assert not dark[-4:].any()
    assert (sheet[0] == 255).all()  # nothing cut off above


def test_small_pictures_are_enlarged_by_whole_numbers() -> None:
    one = samples(2, 48)
    sheet = grid({"clean": one})
    assert np.array_equal(sheet[24 : 24 + 144 : 3, 4 : 4 + 144 : 3], one[0])


@pytest.mark.parametrize(
    "columns",
    [{}, {"a": samples(0)}, {"a": samples(2), "b": samples(3)}, {"a": samples()[..., :2]}, {"a": samples()[0]}],
)
def test_columns_that_do_not_fit_are_refused(columns: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="columns of one size"):
        grid(columns)
    with pytest.raises(ValueError, match="give uint8"):
        grid({"a": samples() / 255})


def falling(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    steps = np.sort(random.choice(2 * count, count, replace=False))
    return steps, (0.3 / (1 + steps / count * 30) + 0.03) * np.exp(random.normal(0, 0.2, count))


@pytest.mark.parametrize("count", [1, 2, 80, 100_000])
def test_curves_are_drawn_for_any_number_of_steps(count: int) -> None:
    picture = curves({"S": falling(count, 0), "L": falling(count, 1)})
    assert (picture.shape, picture.dtype) == ((500, 900, 3), np.uint8)
    for border in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (border == 255).all()  # nothing runs out of the picture
    for colour in ((31, 119, 180), (255, 127, 14)):  # the first two of matplotlib's
        assert (np.abs(picture.astype(int) - colour).max(axis=2) < 3).sum() > 20


def test_many_depths_share_a_line() -> None:
    many = {str(number): falling(50, number) for number in range(40)}
    assert curves(many).shape == curves({"S": falling(50, 0)}).shape


def test_what_can_not_be_drawn_is_left_out() -> None:
    steps, losses = falling(50, 0)
    spoilt = losses.copy()
    spoilt[[3, 9]] = np.nan, 0.0
    whole = np.isfinite(spoilt) & (spoilt > 0)
    assert np.array_equal(curves({"S": (steps, spoilt)}), curves({"S": (steps[whole], spoilt[whole])}))
    with pytest.raises(ValueError, match="there is no loss to draw"):
        curves({"S": (steps[:0], losses[:0])})


def test_a_png_holds_the_same_pixels() -> None:
    sheet = grid({"clean": samples(1)})
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(sheet)))), sheet)
