"""Luma, its normalisation by local deviation (MSCN) and the sums that NIQE's and BRISQUE's features are made of.

Everything from the local mean on is float64: float32 sums move a fitted shape to the next entry of its table now and
then, which changed the NIQE of a picture of six blocks by 2e-3.

A row is filtered, normalised and summed while it is in the cache. Memory beside the luma, 1 byte a pixel, is a row of
normalised blocks for NIQE and two rows for BRISQUE; the picture at half size takes another 2 bytes a pixel.

Loops are short and read few arrays each: LLVM makes vector instructions of a loop only where at most eight checks
show that no written array overlaps a read one. A division that could raise would also prevent it (`error_model`).
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
_HALF: Final = (np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256).astype(np.float32)
#: Added to the local variance: float64's, as in pyiqa's NIQE. BRISQUE's in float32 is 1e-7: the scores agree to 1e-6.
_EPSILON: Final = float(np.finfo(np.float64).eps)

_WHITE, _RED, _GREEN, _BLUE = (np.float32(value) for value in (255, 0.299, 0.587, 0.114))
_TILE: Final = 2048  # columns that are filtered at a time
_PITCH: Final = _TILE + 16  # a tile, three columns on both sides, and what is padded beyond them

_FAST: Final = {"contract", "reassoc", "nsz"}  # not nnan, ninf: what is not finite stays so


def luma(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB to (H, W) uint8: Y of YIQ, rounded.

    One colour in a thousand lies half way between two levels. pyiqa rounds a float32 there; so does this.
    """
    return _luma(pixels)


@numba.njit(cache=True, error_model="numpy")
def _luma(pixels: np.ndarray) -> np.ndarray:
    out = np.empty(pixels.shape[:2], np.uint8)
    for i in range(len(pixels)):
        _luma_row(pixels[i].ravel(), out[i])
    return out


@numba.njit(cache=True, error_model="numpy")
def _luma_row(pixels: np.ndarray, out: np.ndarray) -> None:
    """(3 * W,) to (W,). Without `fastmath`: each operation rounds, as in pyiqa."""
    for j in range(len(out)):
        red, green, blue = np.float32(pixels[3 * j]), np.float32(pixels[3 * j + 1]), np.float32(pixels[3 * j + 2])
        y = red / _WHITE * _RED + green / _WHITE * _GREEN
        out[j] = np.int32(np.rint((y + blue / _WHITE * _BLUE) * _WHITE))


def halved(grey: np.ndarray, height: int, width: int, scale: float) -> np.ndarray:
    """grey[:height, :width] uint8 to (ceil(height / 2), ceil(width / 2)) float64 of the same range.

    pyiqa halves in float32 whatever comes in: NIQE grey / 255 (`scale` 255), BRISQUE grey as it is (`scale` 1). What
    lies beyond a border mirrors.
    """
    return _halved(grey, height, width, np.float32(scale), _HALF)


@numba.njit(cache=True, error_model="numpy")
def _halved(grey: np.ndarray, height: int, width: int, scale: np.float32, taps: np.ndarray) -> np.ndarray:
    out = np.empty(((height + 1) // 2, (width + 1) // 2), np.float64)
    scaled = np.empty((8, width), np.float32)  # the last eight rows, row y at y % 8
    row = np.empty(width + 8, np.float32)
    done = 0
    for i in range(out.shape[0]):
        while done < min(2 * i + 5, height):
            _scale(grey[done], scale, scaled[done % 8])
            done += 1
        row[:] = 0
        for k in range(8):
            y = 2 * i - 3 + k
            y = max(y, -y - 1) if y < height else 2 * height - 1 - y
            _add_weighed(scaled[y % 8], taps[k], row[4 : width + 4])
        for k in range(4):
            row[3 - k] = row[4 + k]
            row[width + 4 + k] = row[width + 3 - k]
        _halve_row(row, taps, scale, out[i])
    return out


@numba.njit(cache=True, error_model="numpy")
def _scale(levels: np.ndarray, scale: np.float32, out: np.ndarray) -> None:
    for j in range(len(out)):
        out[j] = np.float32(levels[j]) / scale


@numba.njit(cache=True)
def _add_weighed(values: np.ndarray, weight: np.float32, total: np.ndarray) -> None:
    for j in range(len(total)):
        total[j] += weight * values[j]


@numba.njit(cache=True)
def _halve_row(row: np.ndarray, taps: np.ndarray, scale: np.float32, out: np.ndarray) -> None:
    for j in range(len(out)):
        total = np.float32(0)
        for k in range(8):
            total += taps[k] * row[2 * j + 1 + k]
        out[j] = np.float64(total) * np.float64(scale)


@numba.njit(cache=True)
def _window(image: np.ndarray, i: int, height: int, repeat: bool, out: np.ndarray) -> None:
    """Rows i - 3 to i + 3 of image[:height] to `out`. Beyond the border: its row repeated, or zero."""
    for k in range(7):
        y = i - 3 + k
        if repeat or 0 <= y < height:
            out[k] = image[min(max(y, 0), height - 1)]
        else:
            out[k] = 0


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _filter_down(rows: np.ndarray, start: int, stop: int, taps: np.ndarray, filtered: np.ndarray) -> None:
    """Columns start to stop of seven rows to their weighed mean, and mean square `_PITCH` farther on."""
    t0, t1, t2, t3 = taps[0], taps[1], taps[2], taps[3]
    a, b, c, d = rows[0, start:stop], rows[1, start:stop], rows[2, start:stop], rows[3, start:stop]
    e, f, g = rows[4, start:stop], rows[5, start:stop], rows[6, start:stop]
    for j in range(stop - start):
        y0, y1, y2, y3 = np.float64(a[j]), np.float64(b[j]), np.float64(c[j]), np.float64(d[j])
        y4, y5, y6 = np.float64(e[j]), np.float64(f[j]), np.float64(g[j])
        filtered[j] = t0 * (y0 + y6) + t1 * (y1 + y5) + t2 * (y2 + y4) + t3 * y3
        square = t0 * (y0 * y0 + y6 * y6) + t1 * (y1 * y1 + y5 * y5)
        filtered[j + _PITCH] = square + t2 * (y2 * y2 + y4 * y4) + t3 * (y3 * y3)


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _normalise(row: np.ndarray, taps: np.ndarray, filtered: np.ndarray, out: np.ndarray) -> None:
    """(y - mu) / (sigma + 1) of a row's pixels (Mittal et al. 2012, eq. 1); `filtered` has three more on each side."""
    t0, t1, t2, t3 = taps[0], taps[1], taps[2], taps[3]
    for j in range(len(row)):
        mu = t0 * (filtered[j] + filtered[j + 6]) + t1 * (filtered[j + 1] + filtered[j + 5])
        mu += t2 * (filtered[j + 2] + filtered[j + 4]) + t3 * filtered[j + 3]
        k = j + _PITCH
        power = t0 * (filtered[k] + filtered[k + 6]) + t1 * (filtered[k + 1] + filtered[k + 5])
        power += t2 * (filtered[k + 2] + filtered[k + 4]) + t3 * filtered[k + 3]
        out[j] = (np.float64(row[j]) - mu) / (np.sqrt(abs(power - mu * mu) + _EPSILON) + 1.0)


@numba.njit(cache=True)
def _pad(filtered: np.ndarray, edge: int, step: int, repeat: bool) -> None:
    """The three columns beyond `edge`, in the direction of `step`."""
    for plane in (0, _PITCH):
        for k in range(1, 4):
            filtered[plane + edge + step * k] = filtered[plane + edge] if repeat else 0.0


@numba.njit(cache=True)
def _normalised(
    image: np.ndarray,
    i: int,
    height: int,
    columns: tuple[int, int, int],
    taps: np.ndarray,
    repeat: bool,
    scratch: tuple[np.ndarray, np.ndarray],
    out: np.ndarray,
) -> None:
    """Columns start to stop of row i of the MSCN of image[:height, :width]; `columns` is (start, stop, width).

    Beyond the border: its pixel repeated, or zero.
    """
    first, last, width = columns
    window, filtered = scratch
    rows = window
    if 3 <= i < height - 3:
        rows = image[i - 3 : i + 4]
    else:
        _window(image, i, height, repeat, window)
    for start in range(first, last, _TILE):
        stop = min(start + _TILE, last)
        left, right = max(start - 3, 0), min(stop + 3, width)
        _filter_down(rows, left, right, taps, filtered[left - start + 3 :])
        if start < 3:
            _pad(filtered, 3 - start, -1, repeat)
        if stop > width - 3:
            _pad(filtered, width - start + 2, 1, repeat)
        _normalise(image[i, start:stop], taps, filtered, out[start - first : stop - first])


@numba.njit(cache=True, fastmath=_FAST)
def _add(one: np.ndarray, other: np.ndarray, sums: np.ndarray) -> None:
    """Adds the sums over one * other (one alone where `other` is ones) to `sums`."""
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
def _add_maps(this: np.ndarray, above: np.ndarray, ones: np.ndarray, sums: np.ndarray) -> None:
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
def _spread(row: np.ndarray, i: int, blocks: np.ndarray) -> None:
    """A normalised row to row i of (columns, block, block + 1), whose last column stays zero."""
    columns, block, _ = blocks.shape
    for column in range(columns):
        for j in range(block):
            blocks[column, i, j] = row[column * block + j]


@numba.njit(cache=True)
def _add_block(values: np.ndarray, ones: np.ndarray, sums: np.ndarray) -> None:
    """All maps of one block, (block, block + 1), neighbours wrapped within it.

    It is one long row: the zeros between its rows are nobody's neighbours. Those across the block follow apart.
    """
    block, pitch = values.shape
    flat = values.ravel()
    n = len(flat)
    _add(flat, ones[:n], sums[0])
    _add(flat[1:], flat[: n - 1], sums[1])
    _add(flat[pitch:], flat[: n - pitch], sums[2])
    _add(flat[pitch + 1 :], flat[: n - pitch - 1], sums[3])
    _add(flat[pitch - 1 :], flat[: n - pitch + 1], sums[4])
    top, bottom = values[0, :block], values[block - 1, :block]
    left, right = values[:, 0].copy(), values[:, block - 1].copy()
    _add(left, right, sums[1])
    _add(top, bottom, sums[2])
    _add(top[1:], bottom[:-1], sums[3])
    _add(left[1:], right[:-1], sums[3])
    _add(left[:1], right[-1:], sums[3])
    _add(top[:-1], bottom[1:], sums[4])
    _add(right[1:], left[:-1], sums[4])
    _add(right[:1], left[-1:], sums[4])


@numba.njit(cache=True)
def _add_blocks(blocks: np.ndarray, ones: np.ndarray, row: int, rows: int, out: np.ndarray) -> None:
    """One row of blocks to its places in (rows * columns, MAPS, SUMS): down a column first."""
    for column in range(len(blocks)):
        _add_block(blocks[column], ones, out[column * rows + row])


@numba.njit(cache=True)
def _scratch(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A window of seven rows, and the two planes of `_filter_down`."""
    return np.empty((7, image.shape[1]), image.dtype), np.empty(2 * _PITCH)


@numba.njit(cache=True)
def block_sums(image: np.ndarray, height: int, width: int, block: int, taps: np.ndarray) -> np.ndarray:
    """(blocks, MAPS, SUMS) of image[:height, :width]; its border repeated, neighbours wrapped within a block.

    `image` is (H, W) uint8 or float64 in [0, 255], `height` and `width` are multiples of `block`, `taps` is WINDOW.
    Blocks go down a column first, as in MATLAB.
    """
    rows, columns = height // block, width // block
    out = np.zeros((rows * columns, MAPS, SUMS))
    blocks, ones, line = np.zeros((columns, block, block + 1)), np.ones(block * (block + 1)), np.empty(width)
    scratch = _scratch(image)
    for row in range(rows):
        for i in range(block):
            _normalised(image, row * block + i, height, (0, width, width), taps, True, scratch, line)
            _spread(line, i, blocks)
        _add_blocks(blocks, ones, row, rows, out)
    return out


@numba.njit(cache=True)
def picture_sums(image: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """(MAPS, SUMS) over the picture: zero beyond its border, neighbours wrapped around it.

    `image` is (H, W) uint8 or float64 in [0, 255], `taps` is WINDOW.
    """
    height, width = image.shape
    out = np.zeros((MAPS, SUMS))
    this, above, ones = np.empty(width + 2), np.empty(width + 2), np.ones(width)
    scratch = _scratch(image)
    _normalised(image, height - 1, height, (0, width, width), taps, False, scratch, above[1:-1])
    _wrap(above)
    for i in range(height):
        _normalised(image, i, height, (0, width, width), taps, False, scratch, this[1:-1])
        _wrap(this)
        _add_maps(this, above, ones, out)
        this, above = above, this
    return out


@numba.njit(cache=True)
def shared_sums(
    image: np.ndarray, height: int, width: int, block: int, taps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`block_sums` and `picture_sums` of one picture, normalised once.

    The two differ in the three pixels along the border of image[:height, :width]: those are normalised twice.
    """
    rows, columns = height // block, width // block
    out, whole = np.zeros((rows * columns, MAPS, SUMS)), np.zeros((MAPS, SUMS))
    blocks, block_ones, line = np.zeros((columns, block, block + 1)), np.ones(block * (block + 1)), np.empty(width)
    full = image.shape[1]
    this, above, ones = np.empty(full + 2), np.empty(full + 2), np.ones(full)
    scratch = _scratch(image)
    _normalised(image, len(image) - 1, len(image), (0, full, full), taps, False, scratch, above[1:-1])
    _wrap(above)
    for i in range(len(image)):
        _normalised(image, i, len(image), (0, full, full), taps, False, scratch, this[1:-1])
        _wrap(this)
        _add_maps(this, above, ones, whole)
        if i < height:
            inner = 3 if 3 <= i < height - 3 else width
            line[:] = this[1 : width + 1]
            _normalised(image, i, height, (0, inner, width), taps, True, scratch, line[:inner])
            _normalised(image, i, height, (width - inner, width, width), taps, True, scratch, line[width - inner :])
            _spread(line, i % block, blocks)
            if i % block == block - 1:
                _add_blocks(blocks, block_ones, i // block, rows, out)
        this, above = above, this
    return out, whole
