"""Which sample comes when: a pure function of seed, epoch and manifest, and nothing else.

The shards of an epoch are permuted and laid end to end; that line of places is cut into windows of fixed length, and
within each the places are shuffled. So a reader needs few shards at a time, and any part of the order can be computed
by itself: where an epoch is resumed costs nothing.

Removed samples keep their place in the line and are passed over, so that those that stay come in the order in which
they came before. How samples are split over ranks and workers comes afterwards (`shards.stream`) and changes nothing.

Randomness is that of NumPy's Philox: its raw stream is guaranteed not to change between releases, which that of
`Generator.permutation` is not (NEP 19). Keys are hashes of what is drawn.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.random.bit_generator import ISeedSequence

from shards import philox
from shards.patches import Box

_WORD: Final = np.dtype("<u8")
DEFAULT_WINDOW: Final = 1 << 15  # samples: some 2 GB of patches


@dataclass(frozen=True, eq=False)
class Order:
    """One epoch. `slots`: (shards,) int64, places in each, 0 in those that are not part of it.

    `removed`: (n, 2) int64 rows of shard and slot, each once.
    """

    slots: np.ndarray
    removed: np.ndarray
    seed: int
    epoch: int
    window: int

    @functools.cached_property
    def length(self) -> int:
        """Samples in the epoch."""
        return int(self.slots.sum()) - len(self.removed)

    def take(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, 2) int64: shard and slot of samples number `start` to `stop` of the epoch."""
        first, last = self.windows(start, stop)
        found = [self._window(number) for number in range(first, last)]
        behind = start - int(self._before[first])
        return np.concatenate([np.zeros((0, 2), np.int64), *found])[behind : behind + stop - start]

    def windows(self, start: int, stop: int) -> tuple[int, int]:
        """The windows, first and last + 1, that samples number `start` to `stop` lie in."""
        first = int(self._before.searchsorted(start, side="right")) - 1
        last = int(self._before.searchsorted(stop, side="left"))
        return max(0, first), max(last, 0)

    def shards_of(self, number: int) -> list[int]:
        """The shards that window `number` takes samples from, in the order of the line; none behind the last."""
        begin, end = number * self.window, min((number + 1) * self.window, int(self._ends[-1]))
        if begin >= end:
            return []
        first, last = np.searchsorted(self._ends, (begin, end - 1), side="right")
        return [int(shard) for shard in self._line[first : last + 1] if self.slots[shard]]

    @functools.cached_property
    def _line(self) -> np.ndarray:
        """(shards,): the shards in the order of this epoch."""
        return shuffled(len(self.slots), f"{self.seed}/{self.epoch}/shards")

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """(shards,): where in the line each shard of `_line` ends."""
        return np.cumsum(self.slots[self._line])

    @functools.cached_property
    def _gone(self) -> np.ndarray:
        """(n,) ascending: the places in the line of what is removed."""
        begins = np.empty(len(self.slots), np.int64)
        begins[self._line] = self._ends - self.slots[self._line]
        return np.sort(begins[self.removed[:, 0]] + self.removed[:, 1])

    @functools.cached_property
    def _before(self) -> np.ndarray:
        """(windows + 1,): samples that come before each window."""
        places = np.arange(0, int(self._ends[-1]) + self.window, self.window).clip(max=int(self._ends[-1]))
        return np.asarray(places - np.searchsorted(self._gone, places))

    def _window(self, number: int) -> np.ndarray:
        """(samples, 2): shard and slot of what is in the window, in the order of the epoch."""
        return _drawn(self, number)

    def _draw(self, number: int) -> np.ndarray:
        begin, end = number * self.window, min((number + 1) * self.window, int(self._ends[-1]))
        places = begin + shuffled(end - begin, f"{self.seed}/{self.epoch}/window/{number}")
        gone = self._gone[slice(*np.searchsorted(self._gone, (begin, end)))]
        if len(gone):
            places = places[~np.isin(places, gone)]
        which = np.searchsorted(self._ends, places, side="right")
        shards = self._line[which]
        return np.stack([shards, places - self._ends[which] + self.slots[shards]], axis=1)


@functools.lru_cache(maxsize=4)
def _drawn(order: Order, number: int) -> np.ndarray:
    return order._draw(number)


def shuffled(count: int, drawn: str) -> np.ndarray:
    """(count,) int64: 0 to count - 1 in an order that `drawn` alone decides."""
    return np.argsort(_philox(drawn).random_raw(count), kind="stable")


def crop_box(seed: int, epoch: int, sample: str, patch: int, size: int) -> Box:
    """Where this epoch's crop of `size` lies in a sample of `patch` pixels a side: any place, equally likely."""
    top, left = philox.first_two(_key(f"{seed}/{epoch}/crop/{sample}"))
    places = patch - size + 1
    return Box(top=top % places, left=left % places, size=size)


class _Key(ISeedSequence):
    """Gives Philox its key. Handed over as `key=` it takes three times as long: the system is asked for a seed too."""

    def __init__(self, drawn: str) -> None:
        self._words = _key(drawn)

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """Philox asks for its key, two words of 64 bits."""
        assert (n_words, np.dtype(dtype)) == (2, np.dtype(np.uint64)), "another NumPy asks for something else"
        return self._words


def _key(drawn: str) -> np.ndarray:
    """(2,) uint64."""
    return np.frombuffer(hashlib.sha256(drawn.encode()).digest(), _WORD, 2)


def _philox(drawn: str) -> np.random.Philox:
    key: Any = _Key(drawn)  # NumPy's types know of SeedSequence alone
    return np.random.Philox(key)
