"""The restart segments under a crop put together as a smaller JPEG, in one compiled call from the bytes to the part.

It takes what `shards.codec` writes and all that is like it: one pass of all components, sampling that TurboJPEG knows,
a whole number of restart segments in a row of MCUs. What isn't, or has anything wrong, it leaves to `shards.crops`,
which has the same rules in Python and says what is wrong. In Python the way through the headers takes 9 us and the rest
around the search 7: together a fifth of what the decoder takes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from shards.patches import Box
from shards.segments import compiled, find, gather_into

_MOST_SEGMENTS: Final = 1 << 12  # of a patch: 512 x 512 have 512 at most
_MOST_EXTENT: Final = 4096  # pixels a side, as in `shards.crops`
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
        self._coded = np.empty(most, np.uint8)
        self._ends = np.empty(_MOST_SEGMENTS + 1, np.int64)
        self._place = np.empty(4, np.int64)

    def part(self, data: bytes, box: Box) -> Part | None:
        """The part that has the pixels of `box`, or None: see the module."""
        if len(data) > len(self._coded):
            return None
        whole = np.frombuffer(data, np.uint8)
        size = _make(whole, box.top, box.left, box.size, self._ends, self._place, self._coded)
        return Part(self._coded[:size], *self._place.tolist()) if size else None


@compiled
def _make(
    data: np.ndarray, top: int, left: int, size: int, ends: np.ndarray, place: np.ndarray, out: np.ndarray
) -> int:
    """Writes the part into `out` and `Part`'s numbers into `place`; returns its length, 0 for what is left to others."""
    frame, scan, interval = _headers(data)
    if not scan:
        return 0
    height, width, mcu_height, mcu_width = _extent(data, frame, scan)
    if not mcu_height or width % (mcu_width * interval):
        return 0
    if min(top, left, size - 1, height - top - size, width - left - size) < 0:
        return 0
    down, across = -(-height // mcu_height), width // (mcu_width * interval)
    if down * across >= len(ends) or find(data, scan, down * across, ends) < down * across:
        return 0
    bottom, right = min(top + size + _BEYOND, height), min(left + size + _BEYOND, width)
    first_row, first_column = max(top - _BEYOND, 0) // mcu_height, max(left - _BEYOND, 0) // (mcu_width * interval)
    last_row, last_column = -(-bottom // mcu_height), -(-right // (mcu_width * interval))
    place[0], place[1] = bottom - first_row * mcu_height, (last_column - first_column) * mcu_width * interval
    place[2], place[3] = top - first_row * mcu_height, left - first_column * mcu_width * interval
    length = gather_into(data, ends, across, first_row, last_row, first_column, last_column, data[:scan], out)
    out[frame + 5], out[frame + 6] = place[0] >> 8, place[0] & 0xFF
    out[frame + 7], out[frame + 8] = place[1] >> 8, place[1] & 0xFF
    return length


@compiled
def _headers(data: np.ndarray) -> tuple[int, int, int]:
    """Where the frame header and the coded data begin, and MCUs between markers; zeros where something is odd."""
    frame, interval, at, size = 0, 0, 2, len(data)
    if size < 4 or data[0] != 0xFF or data[1] != 0xD8:
        return 0, 0, 0
    while at + 4 <= size:
        marker, length = _number(data, at), _number(data, at + 2)
        end = at + 2 + length
        if marker < 0xFFC0 or length < 2 or end > size:
            return 0, 0, 0
        if marker == 0xFFDA:
            known = frame > 0 and interval > 0 and length > 2 and data[at + 4] == data[frame + 9]
            return (frame, end, interval) if known else (0, 0, 0)
        if marker == 0xFFDD:
            if length != 4:
                return 0, 0, 0
            interval = _number(data, at + 4)
        elif marker <= 0xFFCF and marker != 0xFFC4 and marker != 0xFFC8 and marker != 0xFFCC:
            if frame or marker > 0xFFC1 or length < 11:  # one frame, of one sequential pass
                return 0, 0, 0
            frame = at
        at = end
    return 0, 0, 0


@compiled
def _extent(data: np.ndarray, frame: int, scan: int) -> tuple[int, int, int, int]:
    """Height and width of the picture and of an MCU, in pixels; zeros where something is odd."""
    length, height, width, components = (
        _number(data, frame + 2),
        _number(data, frame + 5),
        _number(data, frame + 7),
        data[frame + 9],
    )
    if data[frame + 4] != 8 or not (components == 1 or components == 3) or length != 8 + 3 * components:
        return 0, 0, 0, 0
    if not (1 <= height <= _MOST_EXTENT and 1 <= width <= _MOST_EXTENT):
        return 0, 0, 0, 0
    factors = np.int64(data[frame + 11])
    across, down = factors >> 4, factors & 15
    if components == 1:
        known = factors == 0x11
    else:
        plain = data[frame + 14] == 0x11 and data[frame + 17] == 0x11
        known = plain and (down == 1 and (across == 1 or across == 2 or across == 4) or down == 2 and across <= 2 and across > 0)
    return (height, width, 8 * down, 8 * across) if known else (0, 0, 0, 0)


@compiled
def _number(data: np.ndarray, at: int) -> int:
    """Two bytes, the upper one first."""
    return np.int64(data[at]) << 8 | np.int64(data[at + 1])
