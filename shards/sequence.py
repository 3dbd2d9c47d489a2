"""The sequence of global batches: the epochs' orders laid end to end, cut every `batch` samples.

Every sample comes exactly once an epoch. A tail shorter than a global batch is not dropped: it begins the next
epoch's first batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from shards.order import DEFAULT_WINDOW, Order

EPOCH, SHARD, SLOT = range(3)  # columns of picks
#: What is trained on, or what is held out of that.
SetPart = Literal["train", "valid"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All that decides the sequence, beside the set."""

    batch: int  # samples of a global batch, all ranks together
    seed: int = 0
    window: int = DEFAULT_WINDOW  # samples among which is shuffled
    crop: int = 128  # pixels a side
    held_out: tuple[int, ...] = ()  # numbers of shards, ascending: `shards.held_out`
    part: SetPart = "train"  # "train": without what is held out; "valid": that alone

    def __post_init__(self) -> None:
        for name in ("batch", "window", "crop"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")
        if list(self.held_out) != sorted({number for number in self.held_out if number >= 0}):
            raise ValueError(f"held_out is {self.held_out}: give the numbers of shards, ascending, from 0")
        if self.part not in get_args(SetPart):
            raise ValueError(f"part is '{self.part}': give {' or '.join(get_args(SetPart))}")
        if self.part == "valid" and not self.held_out:
            raise ValueError("part is 'valid' and nothing is held out: give held_out=(number of a shard,)")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return {**asdict(self), "held_out": list(self.held_out)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where a global batch begins: sample number `taken` of `epoch`."""

    epoch: int = 0
    taken: int = 0


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A global batch: `picks` (batch, 3) int64 rows of epoch, shard, slot; and where the next one begins."""

    picks: np.ndarray
    after: Position


def ask(position: Position, batch: int, order: Callable[[int], Order]) -> Ask:
    """The global batch that begins at `position`. `order` gives an epoch's order."""
    picks: list[np.ndarray] = []
    need, epoch, taken = batch, position.epoch, position.taken
    while need:
        here = min(need, order(epoch).length - taken)
        found = order(epoch).take(taken, taken + here)
        picks.append(np.column_stack([np.full(here, epoch), found]))
        need, taken = need - here, taken + here
        if need:
            epoch, taken = epoch + 1, 0
    return Ask(picks=np.concatenate(picks), after=Position(epoch=epoch, taken=taken))


def epoch_of(position: Position, batch: int, order: Callable[[int], Order]) -> int:
    """The epoch that the global batch which begins at `position` ends in, and is counted to."""
    need, epoch, taken = batch, position.epoch, position.taken
    while need > order(epoch).length - taken:
        need -= order(epoch).length - taken
        epoch, taken = epoch + 1, 0
    return epoch
