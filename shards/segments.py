"""The restart segments of a JPEG scan: where each ends, and some of them put together as a scan of their own.

By numba, since no other way through the 54 KB of a patch is as short: some 600 bytes of them are 0xFF, and half of
those begin a marker. numpy took 30 us to find them and Python 11 to put together those under a crop; this takes 10
and 3. Importing numba costs a process 0.2 s, and these functions 0.4 s where they were compiled before, else 2 s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numba
import numpy as np

_EOI: Final = 0xD9
_RST0: Final = 0xD0
_LOWEST: Final = np.uint64(0x0101010101010101)
_HIGHEST: Final = np.uint64(0x8080808080808080)
_BYTES: Final = np.uint64(0x0001020304050607)  # times 256 ** n, n stands in the uppermost byte
_NONE, _ONE, _SEVEN, _EIGHT, _FIFTY_SIX = map(np.uint64, (0, 1, 7, 8, 56))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Kept on disk for the next process, where there is a place for that."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return numba.njit(nogil=True)(function)


def marker(segment: int, count: int) -> int:
    """The second byte of the marker that ends a segment: RST0 to RST7 over and over, and EOI."""
    return _EOI if segment == count - 1 else _RST0 + segment % 8


def ends(data: bytes, scan: int, count: int) -> np.ndarray:
    """The bytes at which the markers around the `count` segments of the scan begin, (count + 1,) int64.

    The first stands for what is before the scan, `scan` being its first byte. Fewer where a marker isn't the one that
    belongs there.
    """
    found = np.empty(count + 1, np.int64)
    return found[: 1 + find(np.frombuffer(data, np.uint8), scan, len(data), 0, count, count, found)]


def gather(
    data: bytes, ends: np.ndarray, across: int, rows: range, columns: range, head: bytes, out: np.ndarray
) -> int:
    """Writes a JPEG of these segments behind these headers into `out`, markers numbered anew; returns its length.

    `ends`: see there; `across`: segments in a row of the picture.
    """
    whole, begin = np.frombuffer(data, np.uint8), np.frombuffer(head, np.uint8)
    return gather_into(whole, ends, across, rows.start, rows.stop, columns.start, columns.stop, begin, out)


@compiled
def find(data: np.ndarray, start: int, stop: int, first: int, count: int, total: int, ends: np.ndarray) -> int:
    """Fills `ends` with the markers around `count` segments of a scan of `total`, from number `first` on.

    Those lie from byte `start` to `stop`; `ends[0]` stands for the marker before `start`. `ends` is (count + 1,) or
    longer. Returns how many markers were found.

    Words of eight bytes in which one may begin are put aside first, without a branch: one of twenty has one, and a
    wrong guess of the processor's costs as much as ten words.
    """
    ends[0] = start - 2
    found, last, base = 0, stop - 1, start // 8 * 8
    words = data[base : stop // 8 * 8].view(np.uint64)
    aside, held = np.empty(len(words) + 1, np.int32), 0
    for word in range(len(words)):
        aside[held] = word
        held += _candidates(words[word]) != _NONE
    aside[held] = len(words)  # the bytes behind the last word
    for i in range(held + 1):
        hits = _candidates(words[aside[i]]) if i < held else _HIGHEST
        while hits:
            hit = hits & (~hits + _ONE)
            hits ^= hit
            at = base + 8 * aside[i] + np.int64((hit >> _SEVEN) * _BYTES >> _FIFTY_SIX)
            if at < start or at >= last or data[at] != 0xFF or data[at + 1] == 0 or data[at + 1] == 0xFF:
                continue  # 0xFF before 0 is data, and 0xFF before 0xFF fills up
            if data[at + 1] != (_EOI if first + found == total - 1 else _RST0 + (first + found & 7)):
                return found
            found += 1
            ends[found] = at
            if found == count:
                return found
    return found


@compiled
def _candidates(word: np.uint64) -> np.uint64:
    """The highest bit of each byte that may begin a marker: 0xFF, and no zero behind it in this word.

    A borrow makes 0xFE behind 0xFF look like it, which is looked at again, and 0x01 behind zero like zero, which takes
    nothing away: 0xFF stands before neither.
    """
    inverse = ~word
    full, zero = (inverse - _LOWEST) & word & _HIGHEST, (word - _LOWEST) & inverse & _HIGHEST
    return full & ~(zero >> _EIGHT)


@compiled
def gather_into(
    data: np.ndarray,
    ends: np.ndarray,
    across: int,
    top: int,
    bottom: int,
    left: int,
    right: int,
    head: np.ndarray,
    out: np.ndarray,
) -> int:
    """See `gather`."""
    for i in range(len(head)):  # slices would take two seconds to compile
        out[i] = head[i]
    at, number = len(head), 0
    for row in range(top, bottom):
        for segment in range(row * across + left, row * across + right):
            start = ends[segment] + 2
            size = ends[segment + 1] - start
            for i in range(size):
                out[at + i] = data[start + i]
            at += size
            out[at], out[at + 1] = 0xFF, _RST0 + (number & 7)
            at, number = at + 2, number + 1
    out[at - 1] = _EOI
    return at
