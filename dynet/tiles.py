"""A picture in overlapping tiles, and how what became of them is blended.

Each axis is cut by itself: as few tiles as overlap by a quarter, evenly spread, each beginning at a multiple of 8 so
that the network halves it where it would halve the whole picture. Over the overlap's middle one tile's weight falls
as the next one's rises; what lies near a tile's border, where a convolution sees zeros, counts for little. Weights are
multiples of 1/1024, so that those of both axes multiply and sum to one exactly, in float32 too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from dynet.model import MULTIPLE

SMALLEST: Final = 32  # pixels a side: below, a tile is little but overlap
_STEPS: Final = 1024  # of a weight between 0 and 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Of an axis, the pixels from `start` to before `stop`."""

    start: int
    stop: int
    #: (stop - start,) float32 in [0, 1]; those of all spans sum to one at every pixel.
    weights: np.ndarray

    @property
    def where(self) -> slice:
        return slice(self.start, self.stop)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """A rectangle of a picture."""

    rows: Span
    columns: Span

    @property
    def where(self) -> tuple[slice, slice]:
        return self.rows.where, self.columns.where

    @property
    def weights(self) -> np.ndarray:
        """(height, width, 1) float32 in [0, 1]."""
        return self.rows.weights[:, None, None] * self.columns.weights[None, :, None]


def tiles(height: int, width: int, side: int) -> list[Tile]:
    """What a picture is cut into, row by row. Raises ValueError for a side that is no multiple of 8 or too small."""
    check(side)
    columns = list(_spans(width, side))
    return [Tile(rows=rows, columns=one) for rows in _spans(height, side) for one in columns]


def check(side: int) -> None:
    """Raises ValueError for a side that is no multiple of 8 or too small."""
    if side < SMALLEST or side % MULTIPLE:
        raise ValueError(f"tiles of {side} pixels a side: give a multiple of {MULTIPLE} of at least {SMALLEST}")


def overlap(side: int) -> int:
    """Pixels that two neighbours share at the least, and over which one goes over into the other."""
    return side // 4 // MULTIPLE * MULTIPLE


def _spans(length: int, side: int) -> Iterator[Span]:
    starts = _starts(length, side)
    place = np.arange(length)
    middles = [(one + side + other) // 2 for one, other in pairwise(starts)]
    rises = [np.ones(length), *(_rise(place, middle, overlap(side)) for middle in middles), np.zeros(length)]
    for start, (begins, ends) in zip(starts, pairwise(rises), strict=True):
        stop = min(start + side, length)
        yield Span(start=start, stop=stop, weights=(begins - ends)[start:stop].astype(np.float32))


def _starts(length: int, side: int) -> list[int]:
    """The last tile ends with the picture, or up to 7 pixels behind: the network extends it as it would the whole."""
    whole = -(-length // MULTIPLE) * MULTIPLE
    if whole <= side:
        return [0]
    shared = overlap(side)
    count = -(-(whole - shared) // (side - shared))
    return [MULTIPLE * round(number * (whole - side) / (count - 1) / MULTIPLE) for number in range(count)]


def _rise(place: np.ndarray, middle: int, length: int) -> np.ndarray:
    """From 0 to 1 over `length` pixels about `middle`, level at both ends."""
    t = ((place + 0.5 - middle) / length + 0.5).clip(0, 1)
    return np.rint(_STEPS * t * t * (3 - 2 * t)) / _STEPS
