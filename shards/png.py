"""Pixels to a PNG in strips that can be decoded by themselves (`shards.strips`).

Filters are chosen row by row for the least sum of absolute differences, as libpng does (PNG specification, "Filter
selection"), of None, Sub and Up; of None and Sub in the first row of a strip.

On 35 patches of photographs, 512 x 512, at zlib level 4: 23 ms and 314 KB a patch on one core of an AMD EPYC, Pillow
31 ms and 305 KB.
"""

from __future__ import annotations

import zlib
from typing import Final

import numba
import numpy as np

from shards import strips

_CHANNELS: Final = strips.CHANNELS
_RAW: Final = -zlib.MAX_WBITS  # deflate without zlib's header
_MOST_MEMORY: Final = 9  # of zlib's memory levels
_NONE, _SUB, _UP = strips.NONE, strips.SUB, strips.UP


def encode(pixels: np.ndarray, level: int) -> bytes:
    """The PNG of (H, W, 3) uint8 RGB pixels, its bytes a function of the arguments and of zlib. `level` is zlib's.

    Raises ValueError for other arrays.
    """
    if pixels.ndim != 3 or pixels.shape[2] != _CHANNELS or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(f"{pixels.dtype} pixels of shape {pixels.shape}: can write (height, width, 3) uint8 only")
    height, width, _ = pixels.shape
    rows = _filtered(np.ascontiguousarray(pixels).reshape(height, -1), strips.ROWS).data
    deflate = zlib.compressobj(level, zlib.DEFLATED, _RAW, _MOST_MEMORY, zlib.Z_FILTERED)
    coded = [
        deflate.compress(rows[top : top + strips.ROWS]) + deflate.flush(zlib.Z_FULL_FLUSH)
        for top in range(0, height, strips.ROWS)
    ]
    return strips.joined(height, width, coded, zlib.adler32(rows))


@numba.njit(cache=True, nogil=True)
def _filtered(rows: np.ndarray, strip: int) -> np.ndarray:
    """(H, 3 W) uint8 to (H, 1 + 3 W): each row's filter and what it leaves."""
    height, width = rows.shape
    filtered = np.empty((height, 1 + width), np.uint8)
    tried = np.empty((3, width), np.uint8)
    for y in range(height):
        tried[_NONE] = rows[y]
        tried[_SUB, :_CHANNELS] = rows[y, :_CHANNELS]
        tried[_SUB, _CHANNELS:] = rows[y, _CHANNELS:] - rows[y, :-_CHANNELS]
        best = _SUB if _magnitude(tried[_SUB]) < _magnitude(tried[_NONE]) else _NONE
        if y % strip:
            tried[_UP] = rows[y] - rows[y - 1]
            best = _UP if _magnitude(tried[_UP]) < _magnitude(tried[best]) else best
        filtered[y, 0] = best
        filtered[y, 1:] = tried[best]
    return filtered


@numba.njit(cache=True, nogil=True)
def _magnitude(row: np.ndarray) -> int:
    """The sum of absolute values, bytes taken as signed."""
    total = np.int64(0)
    for value in row:
        total += min(np.int64(value), 256 - np.int64(value))
    return total
