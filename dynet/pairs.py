"""Pairs to fine-tune on, from pictures in folders: an order and crops that nothing but seed and names decide.

The same interface, and the same promises, as a stream of shards (`shards.stream`): rank r of N takes the r-th N-th of
each global batch, and a stopped run goes on where it was with any ranks and workers. Every source comes `repeats`
times an epoch, each time with a crop, a turn and a noise of its own. A tail shorter than a batch begins the next epoch.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from torch.utils.data import Dataset

from dynet import rgb
from dynet.data import turned
from dynet.folders import NOISE, Source
from dynet.noise import noisy
from dynet.randomness import generator
from shards.errors import StreamError
from shards.loader import channels_first, feed
from shards.order import Order
from shards.sequence import EPOCH, SLOT, Ask, Position, ask, epoch_of
from shards.stream import Batch

STATE_VERSION: Final = 1
_NONE: Final = np.zeros((0, 2), np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairPlan:
    """All that decides the sequence, beside the pictures."""

    batch: int  # pairs of a global batch, all ranks together
    seed: int = 0
    crop: int = 128  # pixels a side


class PairStream:
    """One of `world` equal ranks, with `workers` processes of its own. `sources` are in the same order on every rank.
    `pin_memory`: as of a stream of shards.

    Raises ValueError for a batch that can't be split over the ranks, or for no source at all.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        repeats: Mapping[str, int],
        plan: PairPlan,
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        pin_memory: bool | None = None,
    ) -> None:
        if plan.batch % world:
            raise ValueError(f"a global batch of {plan.batch} can't be split over {world} ranks: give a multiple")
        self._plan = plan
        self._turns = _turns(sources, repeats)
        if not len(self._turns):
            raise ValueError("no picture to train on: give repeats of at least 1")
        self._told = _digest(sources, self._turns)
        self._position = Position()
        part = plan.batch // world
        pairs = _Pairs(sources=tuple(sources), turns=self._turns, plan=plan, mine=range(part * rank, part * (rank + 1)))
        self._loader, self._asks = feed(pairs, workers, pin_memory=pin_memory)

    @property
    def length(self) -> int:
        """Pairs of an epoch."""
        return len(self._turns)

    def __iter__(self) -> Iterator[Batch]:
        """What is left of the epoch. `pixels` are clean, `derived` degraded. Raises StreamError."""
        self._asks.begin = functools.partial(self._ask_on, self._position)
        for made, after in self._loader:
            if isinstance(made, str):
                raise StreamError(made)
            self._position = after
            yield made

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is: plain values, the same on every rank."""
        position = [self._position.epoch, self._position.taken]
        return {
            "state_version": STATE_VERSION,
            "pictures": self._told,
            "plan": asdict(self._plan),
            "position": position,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from there. Raises ValueError for the state of other pictures or another plan."""
        if state.get("state_version") != STATE_VERSION or state.get("pictures") != self._told:
            raise ValueError("the run was begun with other pictures: give the same, or another --out to begin anew")
        if state["plan"] != asdict(self._plan):
            raise ValueError(f"the run's pairs were made with {state['plan']}: give the same, or begin anew")
        epoch, taken = state["position"]
        self._position = Position(epoch=epoch, taken=taken)

    def close(self) -> None:
        """As of a stream of shards; here nothing is read ahead."""

    def _ask_on(self, position: Position) -> Iterator[Ask]:
        """The global batches from there to the end of the epoch to which the first of them counts."""
        order = functools.partial(_order, self.length, self._plan.seed)
        epoch = epoch_of(position, self._plan.batch, order)
        while epoch_of(position, self._plan.batch, order) == epoch:
            one = ask(position, self._plan.batch, order)
            yield one
            position = one.after


@functools.lru_cache(maxsize=4)
def _order(length: int, seed: int, epoch: int) -> Order:
    """All turns are shuffled together: the order of a set with one shard and one window."""
    return Order(slots=np.array([length]), removed=_NONE, seed=seed, epoch=epoch, window=length)


def _turns(sources: Sequence[Source], repeats: Mapping[str, int]) -> np.ndarray:
    """(turns, 2) int32 rows of the source's number and of which of its repetitions it is."""
    times = np.array([repeats[one.de_type] for one in sources], np.int64)
    numbers = np.repeat(np.arange(len(sources)), times)
    return np.stack([numbers, np.arange(len(numbers)) - np.repeat(np.cumsum(times) - times, times)], axis=1, dtype="i4")


def _digest(sources: Sequence[Source], turns: np.ndarray) -> str:
    """Of what the turns are, by name: the folder may lie elsewhere when a run goes on."""
    names = "\n".join(f"{one.de_type} {one.name}" for one in sources)
    return hashlib.sha256(names.encode() + turns.tobytes()).hexdigest()


# ---------------------------------------------------------------- one pair


@dataclass(kw_only=True)
class _Pairs(Dataset[Any]):
    """Global batches to this rank's pairs: what a worker does."""

    sources: tuple[Source, ...]
    turns: np.ndarray
    plan: PairPlan
    mine: range  # of a global batch

    def __getitem__(self, one: Ask) -> tuple[Batch | str, Position]:
        try:
            return self._batch(one.picks[self.mine.start : self.mine.stop]), one.after
        except ValueError as error:  # it could be read before training began
            return str(error), one.after

    def _batch(self, picks: np.ndarray) -> Batch:
        shape = (len(picks), self.plan.crop, self.plan.crop, 3)
        clean, degraded = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        names = []
        for row, (epoch, slot) in enumerate(picks[:, [EPOCH, SLOT]].tolist()):
            number, turn = self.turns[slot].tolist()
            source = self.sources[number]
            names.append(f"{source.de_type}/{source.name}/{turn}")
            draw = generator(f"{self.plan.seed}/{epoch}/pair/{names[-1]}")
            clean[row], degraded[row] = pair_of(source, self.plan.crop, draw)
        return Batch(
            pixels=channels_first(clean),
            derived=channels_first(degraded),
            samples=tuple(names),
            epochs=tuple(picks[:, EPOCH].tolist()),
        )


def pair_of(source: Source, crop: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Clean and degraded, (crop, crop, 3) uint8 each: a random crop in one of its eight turns and flips."""
    clean = rgb.read(source.clean)
    height, width = clean.shape[:2]
    top, left = int(draw.integers(height - crop + 1)), int(draw.integers(width - crop + 1))
    turn = int(draw.integers(8))
    box = (slice(top, top + crop), slice(left, left + crop))
    target = turned(clean[box], turn)
    if source.degraded is None:
        return target, noisy(target, NOISE[source.de_type], draw)
    return target, turned(rgb.read(source.degraded)[box], turn)
