"""A data set as batches for training: from a folder, a web server or S3, in an order that nothing but the data decides.

    stream = Stream("s3://bucket/million-ird", Plan(batch=256), rank=rank, world=world, workers=4)
    for epoch in range(epochs):
        for batch in stream:                           # this epoch's batches
            step(batch.pixels)                         # (256 / world, 3, 128, 128) uint8
            torch.save(stream.state_dict(), "state")   # at any step

Rank r of N takes the r-th N-th of each global batch (`shards.sequence`), and a worker whole batches in turn. So what a
global batch holds depends neither on ranks nor on workers, and a run that was stopped at step k goes on with others
where it was; how far it had come costs nothing. All ranks have equally many batches in an epoch.

A sample that can't be had (missing, damaged) is replaced by the next of its own global batch that can, the same one for
every layout; it is counted and named. Too many in a row stop the run: in a row of one rank's samples, since ranks don't
ask each other, so on many ranks a set may lose more before it is noticed.

At the beginning of an epoch the newest version of the set is taken up: shards that were added come, samples that were
removed don't. Which epoch has which version is in the state, so that an old run can be repeated exactly.
"""

from __future__ import annotations

import functools
import itertools
import logging
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch.utils.data import Dataset

from shards.ahead import ReadAhead
from shards.cache import Cache, default_cache
from shards.crops import DecodeError, decode_crop_into, decode_part_into
from shards.epochs import Epochs
from shards.errors import StreamError
from shards.loader import channels_first, feed
from shards.manifest import ManifestError, read_manifest
from shards.order import crop_box
from shards.reader import BadSample, Reader
from shards.sequence import EPOCH, SHARD, SLOT, Ask, Plan, Position
from shards.store import LocalStore, Store, StoreError, open_store

MOST_BAD_IN_A_ROW: Final = 100
#: (pixels (n, crop, crop, 3) uint8 RGB, samples, epochs) -> the same shape and type. A function of its arguments alone,
#: pickled to the workers. Where it changes `pixels` (turns them, say) the batch has them changed.
Derive = Callable[[np.ndarray, Sequence[str], Sequence[int]], np.ndarray]
_log = logging.getLogger(__name__)

Picks = list[list[int]]  # of a global batch, in plain numbers: one is asked for at a time

__all__ = ["Batch", "Cache", "Derive", "Plan", "Skipped", "Stream", "StreamError"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A sample that could not be had: its name, or its shard and slot where not even that is known, and why.

    `row`: of the batch, where another stands in for it.
    """

    row: int
    sample: str
    cause: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One rank's part of a global batch.

    `pixels`: (batch / world, 3, crop, crop) uint8 RGB, channels last in memory. `samples`: their names. `epochs`: the
    epoch of each, by which its crop was drawn. `skipped`: what others stand in for. `derived`: what the stream's
    `derive` made of the pixels, in the same shape; None without one. `parts`: how many samples are from each stream,
    where several were put together; else empty.
    """

    pixels: torch.Tensor
    samples: tuple[str, ...]
    epochs: tuple[int, ...]
    skipped: tuple[Skipped, ...] = ()
    derived: torch.Tensor | None = None
    parts: tuple[int, ...] = ()

    def pin_memory(self) -> Batch:
        """For DataLoader: a copy that a GPU can take while the CPU goes on."""
        derived = None if self.derived is None else self.derived.pin_memory()
        return replace(self, pixels=self.pixels.pin_memory(), derived=derived)


class Stream:
    """See the module. One of `world` equal ranks, with `workers` processes of its own (0: none).

    `root`: a folder, http(s)://… or s3://bucket/prefix. `cache`: where shards are kept on this machine's disk; by
    default a folder of the user's for what comes over a network, nothing for what lies in a folder.
    `follow`: whether an epoch takes up the newest version of the set; else the state's versions go on.
    `derive`: what else is to be made of each batch, in the workers: `Batch.derived`.
    `pin_memory`: whether batches lie where a GPU can fetch them; by default where there is one.
    `skipped`: how many samples could not be had, by cause.

    Raises ValueError for settings that can't be, ManifestError where there is no set, StoreError.
    """

    def __init__(
        self,
        root: str,
        plan: Plan,
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        cache: Cache | None = None,
        endpoint_url: str | None = None,
        follow: bool = True,
        derive: Derive | None = None,
        pin_memory: bool | None = None,
    ) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank is {rank} of {world}: ranks count from 0")
        if plan.batch % world:
            raise ValueError(f"a global batch of {plan.batch} can't be split over {world} ranks: give a multiple")
        self._store = open_store(root, endpoint_url)
        self._epochs = Epochs(self._store, plan)
        self._world, self._follow = world, follow
        self._cache = cache or (None if isinstance(self._store, LocalStore) else default_cache())
        part = plan.batch // world
        crops = _Crops(
            store=self._store,
            plan=plan,
            patch=self._epochs.patch,
            mine=range(part * rank, part * (rank + 1)),
            cache=self._cache,
            derive=derive,
        )
        self._position = Position()
        self._bad_in_a_row = 0
        self.skipped: Counter[str] = Counter()
        self._ahead: ReadAhead | None = None
        self._looked = (-1, -1)  # epoch and window for which was read ahead
        self._loader, self._asks = feed(crops, workers, pin_memory=pin_memory)

    @property
    def position(self) -> Position:
        """Where the next global batch begins."""
        return self._position

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the epoch that the next one belongs to, or what is left of them.

        Raises StreamError where it can't go on.
        """
        self._admit()
        self._asks.begin = functools.partial(self._epochs.asks, self._position)
        for batch, after in self._loader:  # forks the workers, at the first time: before there are threads
            if isinstance(batch, str):
                raise StreamError(batch)
            self._count(batch)
            self._look_ahead()
            self._position = after
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, after the last batch that it gave: plain values, the same on every rank."""
        return {**self._epochs.state_dict(), "position": [self._position.epoch, self._position.taken]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from there, whatever the ranks and workers were.

        Raises ValueError for the state of another set or plan, or of no run; OtherSet (a StoreError) where the set was
        made anew, ManifestError where it has lost a version.
        """
        epoch, taken = state["position"]
        position = Position(epoch=epoch, taken=taken)
        self._epochs.load_state_dict(state, position)
        self._position = position

    def close(self) -> None:
        """Stops reading ahead, until the next batch is asked for; workers end with the stream."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead, self._looked = None, (-1, -1)

    def _admit(self) -> None:
        """Takes up the set's newest version for the first epoch of which nothing was drawn yet, when it begins."""
        at = self._position
        first = at.epoch + (at.taken > 0)
        if self._epochs.decided(first) or (self._epochs.begun and not self._follow):
            return
        if self._epochs.begun and at.taken and self._epochs.epoch_of(at) == at.epoch:
            return  # an epoch is to be finished first
        seen, cause = self._newest()
        version, trouble = _agreed((seen, cause), self._world)
        if cause or trouble:
            raise StreamError(cause or trouble)
        if version > seen:  # committed after this rank had looked
            self._epochs.newest()
        self._epochs.admit(first, version)

    def _newest(self) -> tuple[int, str]:
        """The set's newest version, or why it can't be had."""
        try:
            return self._epochs.newest(), ""
        except (StoreError, ManifestError) as error:
            return 0, str(error)

    def _count(self, batch: Batch) -> None:
        bad = {one.row: one for one in batch.skipped}
        for row in range(len(batch.samples)):
            self._bad_in_a_row = self._bad_in_a_row + 1 if row in bad else 0
            if row not in bad:
                continue
            one = bad[row]
            self.skipped[one.cause] += 1
            _log.warning("skipped %s: %s", one.sample, one.cause)
            if self._bad_in_a_row > MOST_BAD_IN_A_ROW:
                raise StreamError(
                    f"{self._bad_in_a_row} samples in a row could not be had, the last {one.sample}: {one.cause}"
                )

    def _look_ahead(self) -> None:
        """Asks for the shards of the window that is read now, and of the next."""
        if self._cache is None:
            return
        if self._ahead is None:
            self._ahead = ReadAhead(self._store, self._cache)
            weakref.finalize(self, self._ahead.close)
        at = (self._position.epoch, self._epochs.window_at(self._position))
        if at != self._looked:
            self._looked = at
            self._ahead.want(self._epochs.shards_at(*at))


def _agreed(seen: tuple[int, str], world: int) -> tuple[int, str]:
    """What rank 0 has seen, where the ranks can talk: the set may have changed between one's look and another's."""
    if world == 1 or not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return seen
    said = [seen]
    torch.distributed.broadcast_object_list(said, src=0)
    return said[0]


@dataclass(kw_only=True)
class _Crops(Dataset[Any]):
    """Global batches to this rank's crops: what a worker does."""

    store: Store
    plan: Plan
    patch: int  # pixels a side
    mine: range  # of a global batch
    cache: Cache | None
    derive: Derive | None
    reader: Reader | None = None

    def __getitem__(self, one: Ask) -> tuple[Batch | str, Position]:
        try:
            return self._batch(one.picks.tolist()), one.after
        except (BadSample, StoreError, ManifestError, OSError) as error:
            return str(error), one.after

    def _batch(self, picks: Picks) -> Batch:
        if self.reader is None:
            self.reader = Reader(self.store, read_manifest(self.store), self.cache)
        self.reader.fetch([(picks[place][SHARD], picks[place][SLOT]) for place in self.mine])
        pixels = np.empty((len(self.mine), self.plan.crop, self.plan.crop, 3), np.uint8)
        samples, epochs = [], []
        bad: dict[int, BadSample] = {}
        try:
            for row, place in enumerate(self.mine):
                sample, at = self._quickly(picks[place], pixels[row]), place
                if sample is None:
                    sample, at = self._first_good(picks, place, bad, pixels[row])
                samples.append(sample)
                epochs.append(picks[at][EPOCH])
        finally:
            self.reader.release()
        return Batch(
            pixels=channels_first(pixels),
            derived=None if self.derive is None else channels_first(self.derive(pixels, samples, epochs)),
            samples=tuple(samples),
            epochs=tuple(epochs),
            skipped=tuple(
                Skipped(row=row, sample=bad[place].sample, cause=str(bad[place]))
                for row, place in enumerate(self.mine)
                if place in bad
            ),
        )

    def _quickly(self, pick: list[int], into: np.ndarray) -> str | None:
        """The sample's name, where no more of it had to be read than the crop needs; else None, and nothing is lost."""
        assert self.reader is not None, "set before the first sample"
        near = self.reader.near(pick[SHARD], pick[SLOT])
        if near is None or near.suffix != "jpg":
            return None
        box = crop_box(self.plan.seed, pick[EPOCH], near.name, self.patch, self.plan.crop)
        return near.name if decode_part_into(into, near.file, near.offset, near.size, box) else None

    def _first_good(self, picks: Picks, place: int, bad: dict[int, BadSample], into: np.ndarray) -> tuple[str, int]:
        """The sample at `place` of the global batch, or the next there that can be had: its name and place."""
        for at in itertools.chain(range(place, len(picks)), range(place)):
            if at not in bad:
                try:
                    return self._crop(picks[at], into), at
                except BadSample as error:
                    error.sample = error.sample or f"shard {picks[at][SHARD]}, slot {picks[at][SLOT]}"
                    bad[at] = error
        last = bad[(place - 1) % len(picks)]
        raise BadSample(f"not one sample of a whole global batch could be had, the last {last.sample}: {last}")

    def _crop(self, pick: list[int], into: np.ndarray) -> str:
        assert self.reader is not None, "set before the first sample"
        shard = pick[SHARD]
        sample = self.reader.sample(shard, pick[SLOT])
        box = crop_box(self.plan.seed, pick[EPOCH], sample.name, self.patch, self.plan.crop)
        try:
            decode_crop_into(into, sample.data, sample.suffix, box)
        except DecodeError as error:
            if self.reader.doubt(shard):
                return self._crop(pick, into)
            raise BadSample(str(error), sample.name) from error
        return sample.name
