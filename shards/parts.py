"""The restart segments under a crop put together as a smaller JPEG, in one compiled call from the bytes to the part.

It takes what `shards.codec` writes and all that is like it: one pass of all components, sampling that TurboJPEG knows,
a whole number of restart segments in a row of MCUs. What isn't, or has anything wrong, it leaves to `shards.crops`,
which has the same rules in Python and says what is wrong. There the headers took 6 us and the part 11 where the decoder
took 102 (medians over 572 patches on a busy machine).

A patch that says how long its rows are (`shards.entropy`) is searched for markers, and can be read, only where the crop
lies. What it says is believed where the markers there bear it out.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

import numpy as np

from shards.entropy import ROWS
from shards.patches import Box
from shards.segments import compiled, find, gather_into

_MOST_SEGMENTS: Final = 1 << 12  # of a patch: 512 x 512 have 512 at most
_MOST_EXTENT: Final = 4096  # pixels a side, as in `shards.crops`
_HEAD: Final = 1024  # bytes that hold the headers of a patch
_WHOLE: Final = 1 << 62
_MARKER: Final = 2  # bytes
_APP: Final = 0xFFEF  # APP15
_BEYOND: Final = 1  # pixels that chroma upsampling reads on each side


class Part(NamedTuple):
    """A smaller JPEG in memory that is used again, and where in its pixels the crop begins.

    A tuple, since one is made a sample: a frozen dataclass takes 1 us more.
    """

    coded: np.ndarray
    height: int
    width: int
    top: int
    left: int


class Maker:
    """Makes parts in memory that is used again: for one thread, each part until the next is made."""

    def __init__(self, most: int) -> None:
        """`most`: bytes of a patch; longer ones are left to others."""
        self._coded, self._read = np.empty(most, np.uint8), np.empty(most, np.uint8)
        self._into = memoryview(self._read.data)
        self._ends = np.empty(_MOST_SEGMENTS + 1, np.int64)
        self._place = np.empty(4, np.int64)

    def part(self, data: bytes, box: Box) -> Part | None:
        """The part that has the pixels of `box`, or None: see the module."""
        if len(data) > len(self._coded):
            return None
        return self._made(np.frombuffer(data, np.uint8), box, _WHOLE)

    def part_of(self, file: int, offset: int, size: int, box: Box) -> Part | None:
        """The same of a JPEG in an open file, of which no more is read than its headers and the rows under the crop.

        None also where it doesn't say how long its rows are. Raises OSError.
        """
        if size > len(self._read):
            return None
        head = os.preadv(file, [self._into[: min(_HEAD, size)]], offset)
        start, stop = _wanted(self._read[:size], head, box.top, box.left, box.size)
        if not start or os.preadv(file, [self._into[start:stop]], offset + start) < stop - start:
            return None
        return self._made(self._read[:size], box, head)

    def _made(self, data: np.ndarray, box: Box, head: int) -> Part | None:
        size = _make(data, head, box.top, box.left, box.size, self._ends, self._place, self._coded)
        return Part(self._coded[:size], *self._place.tolist()) if size else None


@compiled
def _make(
    data: np.ndarray, head: int, top: int, left: int, size: int, ends: np.ndarray, place: np.ndarray, out: np.ndarray
) -> int:
    """Writes the part into `out` and `Part`'s numbers into `place`; returns its length, 0 for what is left to others.

    `head`: how many bytes of the beginning are there, if beyond them only those that `_wanted` says are; else `_WHOLE`.
    """
    frame, scan, interval, table = _headers(data, head)
    height, width, mcu_height, segment = _extent(data, frame, scan, interval)
    if not segment or not _has(height, width, top, left, size):
        return 0
    bottom, right = min(top + size + _BEYOND, height), min(left + size + _BEYOND, width)
    row, column = max(top - _BEYOND, 0) // mcu_height, max(left - _BEYOND, 0) // segment
    rows, columns = -(-bottom // mcu_height) - row, -(-right // segment) - column
    down, across = -(-height // mcu_height), width // segment
    if down * across >= len(ends):
        return 0
    skipped = row
    start, stop = _rows(data, head, table, scan, down, row, rows)
    if not start or not _lie(data, start, stop, row * across, rows * across, down * across, ends):
        skipped = 0
        if head != _WHOLE or find(data, scan, len(data), 0, down * across, down * across, ends) < down * across:
            return 0
    place[0], place[1] = bottom - row * mcu_height, columns * segment
    place[2], place[3] = top - row * mcu_height, left - column * segment
    row -= skipped
    length = gather_into(data, ends, across, row, row + rows, column, column + columns, data[:scan], out)
    for i in range(2):
        out[frame + 5 + 2 * i], out[frame + 6 + 2 * i] = place[i] >> 8, place[i] & 0xFF
    return length


@compiled
def _wanted(data: np.ndarray, head: int, top: int, left: int, size: int) -> tuple[int, int]:
    """From which byte to which `_make` wants the data beyond the `head` bytes that are there; zeros: it has no use."""
    frame, scan, interval, table = _headers(data, head)
    height, width, mcu_height, segment = _extent(data, frame, scan, interval)
    if not segment or not _has(height, width, top, left, size):
        return 0, 0
    row, last = max(top - _BEYOND, 0) // mcu_height, -(-min(top + size + _BEYOND, height) // mcu_height)
    start, stop = _rows(data, head, table, scan, -(-height // mcu_height), row, last - row)
    return (start - _MARKER, stop) if start else (0, 0)


@compiled
def _has(height: int, width: int, top: int, left: int, size: int) -> bool:
    return min(top, left, size - 1, height - top - size, width - left - size) >= 0


@compiled
def _rows(data: np.ndarray, head: int, table: int, scan: int, down: int, row: int, rows: int) -> tuple[int, int]:
    """Where these rows of MCUs begin and end by what the JPEG says; zeros where it says nothing, or what can't be."""
    if not table or _number(data, table + 2) != 2 + len(ROWS) + 2 * down:
        return 0, 0
    at, start, stop = scan, 0, 0
    for i in range(down):
        if i == row:
            start = at
        at += _number(data, table + 4 + len(ROWS) + 2 * i)
        if i == row + rows - 1:
            stop = at
    if at > len(data) or stop < start + _MARKER:
        return 0, 0
    there = data[at - 2] == 0xFF and data[at - 1] == 0xD9
    ended = there if head == _WHOLE else at == len(data)  # by the index, which says how long the member is
    return (start, stop) if ended else (0, 0)


@compiled
def _lie(data: np.ndarray, start: int, stop: int, first: int, count: int, total: int, ends: np.ndarray) -> bool:
    """Whether these segments, and no others, lie there: that is all that is believed of a JPEG's word for it."""
    if first and (data[start - 2] != 0xFF or data[start - 1] != 0xD0 + (first - 1 & 7)):
        return False
    return find(data, start, stop, first, count, total, ends) == count and ends[count] == stop - _MARKER


@compiled
def _headers(data: np.ndarray, head: int) -> tuple[int, int, int, int]:
    """Where the frame header and the coded data begin, MCUs between markers, where lengths of rows stand (0: nowhere).

    Zeros where something is odd.
    """
    frame, interval, table, at, size = 0, 0, 0, 2, min(head, len(data))
    if size < 4 or data[0] != 0xFF or data[1] != 0xD8:
        return 0, 0, 0, 0
    while at + 4 <= size:
        marker, length = _number(data, at), _number(data, at + 2)
        end = at + 2 + length
        if marker < 0xFFC0 or length < 2 or end > size:
            return 0, 0, 0, 0
        if marker == 0xFFDA:
            known = frame > 0 and interval > 0 and length > 2 and data[at + 4] == data[frame + 9]
            return (frame, end, interval, table) if known else (0, 0, 0, 0)
        if marker == 0xFFDD:
            if length != 4:
                return 0, 0, 0, 0
            interval = _number(data, at + 4)
        elif marker == _APP and _is_rows(data, at, length):
            table = at
        elif marker <= 0xFFCF and marker != 0xFFC4 and marker != 0xFFC8 and marker != 0xFFCC:
            if frame or marker > 0xFFC1 or length < 11:  # one frame, of one sequential pass
                return 0, 0, 0, 0
            frame = at
        at = end
    return 0, 0, 0, 0


@compiled
def _is_rows(data: np.ndarray, at: int, length: int) -> bool:
    same = length >= 2 + len(ROWS)
    for i in range(len(ROWS) if same else 0):  # `all` would have to be compiled with a generator
        same = same and data[at + 4 + i] == ROWS[i]
    return same


@compiled
def _extent(data: np.ndarray, frame: int, scan: int, interval: int) -> tuple[int, int, int, int]:
    """Pixels: height and width of the picture, height of an MCU, width of a segment. Zeros where something is odd."""
    if not scan:
        return 0, 0, 0, 0
    height, width, components = _number(data, frame + 5), _number(data, frame + 7), data[frame + 9]
    if data[frame + 4] != 8 or _number(data, frame + 2) != 8 + 3 * components:
        return 0, 0, 0, 0
    if not (1 <= height <= _MOST_EXTENT and 1 <= width <= _MOST_EXTENT):
        return 0, 0, 0, 0
    factors = np.int64(data[frame + 11])
    if components == 3:
        known = data[frame + 14] == 0x11 and data[frame + 17] == 0x11 and _is_known(factors)
    else:
        known = components == 1 and factors == 0x11
    segment = 8 * (factors >> 4) * interval
    return (height, width, 8 * (factors & 15), segment) if known and not width % segment else (0, 0, 0, 0)


@compiled
def _is_known(factors: int) -> bool:
    """Sampling that TurboJPEG decodes; 0x11 is 4:4:4."""
    return factors == 0x11 or factors == 0x21 or factors == 0x22 or factors == 0x12 or factors == 0x41


@compiled
def _number(data: np.ndarray, at: int) -> int:
    """Two bytes, the upper one first."""
    return np.int64(data[at]) << 8 | np.int64(data[at + 1])
