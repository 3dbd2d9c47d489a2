"""Luma, its normalisation by local deviation (MSCN) and the sums that NIQE's and BRISQUE's features are made of.

A row is filtered, normalised and summed while it is in the cache: memory beside the luma is a strip of 96 rows
for NIQE and two rows for BRISQUE. Luma costs 8 bytes a pixel, half of it again for the smaller scale.
"""

from __future__ import annotations

import math
from typing import Final

import numba
import numpy as np

SUMS: Final = 5  # negatives, positives, squares of negatives, squares of positives, absolute values
MAPS: Final = 5  # the normalised picture, and its products with its neighbours: left, up, up left, up right

_TAPS: Final = np.exp(-(np.arange(-3.0, 4.0) ** 2) / (2 * (7 / 6) ** 2))  # Mittal et al. 2012: 7 x 7, sigma 7/6
_EXACT: Final = _TAPS / _TAPS.sum()
#: pyiqa's 7 x 7 window is float32. Its sum misses 1 by some 1e-8, and a flat bright area squares that to a deviation.
WINDOW: Final = _EXACT * math.sqrt(np.outer(_EXACT, _EXACT).astype(np.float32).astype(np.float64).sum())
#: MATLAB's imresize to one half: Keys' cubic (a = -1/2), stretched over 8 pixels against aliasing.
_HALF: Final = np.array([-3, -9, 29, 111, 111, 29, -9, -3], dtype=np.float64) / 256


def _weighed() -> np.ndarray:
    """(3, 256) float32: each channel's share of Y (of YIQ, range [0, 1]) by grey level."""
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    return np.stack([levels * np.float32(weight) for weight in (0.299, 0.587, 0.114)])


_WEIGHED: Final = _weighed()


def luma(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB to (H, W) float64, whole numbers in [0, 255]: Y of YIQ, rounded.

    One colour in a thousand lies half way between two levels. pyiqa rounds a float32 there; so does this.
    """
    return _luma(pixels, _WEIGHED)


@numba.njit(cache=True)
def _luma(pixels: np.ndarray, weighed: np.ndarray) -> np.ndarray:
    height, width, _ = pixels.shape
    out = np.empty((height, width), np.float64)
    for i in range(height):
        for j in range(width):
            y = weighed[0, pixels[i, j, 0]] + weighed[1, pixels[i, j, 1]]
            out[i, j] = np.rint((y + weighed[2, pixels[i, j, 2]]) * np.float32(255))
    return out


def halved(image: np.ndarray) -> np.ndarray:
    """(H, W) to (ceil(H / 2), ceil(W / 2)), in the image's own precision; what lies beyond a border mirrors."""
    return _halved(image, _HALF.astype(image.dtype))


@numba.njit(cache=True)
def _halved(image: np.ndarray, taps: np.ndarray) -> np.ndarray:
    height, width = image.shape
    out = np.empty(((height + 1) // 2, (width + 1) // 2), image.dtype)
    row = np.zeros(width + 8, image.dtype)
    middle = row[4 : width + 4]
    for i in range(out.shape[0]):
        middle[:] = 0
        for k in range(8):
            y = 2 * i - 3 + k
            source = image[max(y, -y - 1) if y < height else 2 * height - 1 - y]
            for j in range(width):
                middle[j] += taps[k] * source[j]
        for k in range(4):
            row[3 - k] = row[4 + k]
            row[width + 4 + k] = row[width + 3 - k]
        for j in range(out.shape[1]):
            total = row[0] * 0
            for k in range(8):
                total += taps[k] * row[2 * j + 1 + k]
            out[i, j] = total
    return out


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"})
def _normalised_row(
    image: np.ndarray,
    i: int,
    height: int,
    width: int,
    taps: np.ndarray,
    repeat: bool,
    epsilon: float,
    scratch: np.ndarray,
    out: np.ndarray,
) -> None:
    """Row i of the MSCN of image[:height, :width]. Beyond the border: its pixel repeated, or zero.

    `scratch` is (2, width + 6): the row's local mean and mean square, filtered downwards.
    """
    mean, square = scratch[0], scratch[1]
    mean[:] = 0.0
    square[:] = 0.0
    inner, inner_square = mean[3 : width + 3], square[3 : width + 3]
    for k in range(7):
        y = i - 3 + k
        if repeat:
            y = min(max(y, 0), height - 1)
        if 0 <= y < height:
            source = image[y]
            for j in range(width):
                weighed = taps[k] * source[j]
                inner[j] += weighed
                inner_square[j] += weighed * source[j]
    if repeat:
        for k in range(3):
            mean[k], square[k] = inner[0], inner_square[0]
            mean[width + 3 + k], square[width + 3 + k] = inner[width - 1], inner_square[width - 1]
    t0, t1, t2, t3 = taps[0], taps[1], taps[2], taps[3]
    this = image[i]
    for j in range(width):
        mu = t0 * (mean[j] + mean[j + 6]) + t1 * (mean[j + 1] + mean[j + 5])
        mu += t2 * (mean[j + 2] + mean[j + 4]) + t3 * mean[j + 3]
        power = t0 * (square[j] + square[j + 6]) + t1 * (square[j + 1] + square[j + 5])
        power += t2 * (square[j + 2] + square[j + 4]) + t3 * square[j + 3]
        out[j] = (this[j] - mu) / (np.sqrt(abs(power - mu * mu) + epsilon) + 1.0)


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"})
def _add(one: np.ndarray, other: np.ndarray, sums: np.ndarray) -> None:
    """Adds the sums over one * other (one alone where they are the same array's ones) to `sums`."""
    negative = positive = below = above = absolute = 0.0
    for j in range(len(one)):
        product = one[j] * other[j]
        squared = product * product
        absolute += abs(product)
        below += squared if product < 0.0 else 0.0
        above += squared if product > 0.0 else 0.0
        negative += 1.0 if product < 0.0 else 0.0
        positive += 1.0 if product > 0.0 else 0.0
    sums[0] += negative
    sums[1] += positive
    sums[2] += below
    sums[3] += above
    sums[4] += absolute


@numba.njit(cache=True)
def _add_row(this: np.ndarray, above: np.ndarray, ones: np.ndarray, sums: np.ndarray) -> None:
    """One row's share of all maps. Rows are (n + 2,): their ends repeat the other end, so that neighbours wrap."""
    n = len(this) - 2
    own = this[1 : n + 1]
    _add(own, ones[:n], sums[0])
    _add(own, this[:n], sums[1])
    _add(own, above[1 : n + 1], sums[2])
    _add(own, above[:n], sums[3])
    _add(own, above[2 : n + 2], sums[4])


@numba.njit(cache=True)
def _wrap(row: np.ndarray) -> None:
    row[0] = row[-2]
    row[-1] = row[1]


@numba.njit(cache=True)
def block_sums(image: np.ndarray, block: int, taps: np.ndarray) -> np.ndarray:
    """(blocks, MAPS, SUMS) of an image of whole blocks; its border repeated, neighbours wrapped within a block.

    `image` is (rows * block, columns * block) float64, `taps` is WINDOW. Blocks go down a column first, as in MATLAB.
    """
    height, width = image.shape
    rows, columns = height // block, width // block
    out = np.zeros((rows * columns, MAPS, SUMS))
    scratch = np.empty((2, width + 6))
    strip = np.empty((block, width))
    this, above, ones = np.empty(block + 2), np.empty(block + 2), np.ones(block)
    for row in range(rows):
        for i in range(block):
            at = row * block + i
            _normalised_row(image, at, height, width, taps, True, np.finfo(np.float64).eps, scratch, strip[i])
        for column in range(columns):
            left = column * block
            above[1:-1] = strip[block - 1, left : left + block]
            _wrap(above)
            for i in range(block):
                this[1:-1] = strip[i, left : left + block]
                _wrap(this)
                _add_row(this, above, ones, out[column * rows + row])
                this, above = above, this
    return out


@numba.njit(cache=True)
def picture_sums(image: np.ndarray, taps: np.ndarray, epsilon: float) -> np.ndarray:
    """(MAPS, SUMS) over the picture: zero beyond its border, neighbours wrapped around it.

    `image` is (H, W) float64, `taps` is WINDOW, `epsilon` is added to the local variance.
    """
    height, width = image.shape
    out = np.zeros((MAPS, SUMS))
    scratch = np.empty((2, width + 6))
    this, above, ones = np.empty(width + 2), np.empty(width + 2), np.ones(width)
    _normalised_row(image, height - 1, height, width, taps, False, epsilon, scratch, above[1:-1])
    _wrap(above)
    for i in range(height):
        _normalised_row(image, i, height, width, taps, False, epsilon, scratch, this[1:-1])
        _wrap(this)
        _add_row(this, above, ones, out)
        this, above = above, this
    return out
