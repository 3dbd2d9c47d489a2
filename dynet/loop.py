"""The loop around the step: batches in, checkpoints, curve, validation and pictures out, for any number of ranks.

Goes on from the newest checkpoint in the run's store; what comes out is the same as without the stop. Rank 0 alone
writes. The order at a checkpoint: curve, checkpoint, its commit; so a kill at any moment loses steps and nothing else.

A run that is asked to stop does so after the step in hand, or at once where it waits for a batch, with an interim
checkpoint, whose place the next one takes.
The steps that the curve doesn't have yet lie in it: so the curve's pieces are those of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

import torch

from dynet import checkpoint, curve, pictures, validate
from dynet.board import Board
from dynet.data import pair
from dynet.progress import Meter, Progress
from dynet.train import Outcome, Trainer
from dynet.validate import Quality
from shards.store import Store
from shards.stream import Batch

STATE_VERSION: Final = 1
PICTURES: Final = "pictures/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Every:
    """After how many steps what is done; and at the end."""

    checkpoint: int = 5000
    keep: int = 3  # checkpoints
    validate: int = 5000
    pictures: int = 5000
    report: int = 10  # scalars and the progress line

    def __post_init__(self) -> None:
        for name in ("checkpoint", "keep", "validate", "pictures", "report"):
            if getattr(self, name) < 1:
                raise ValueError(f"every.{name} is {getattr(self, name)}: give at least 1")


class Batches(Protocol):
    """What `shards.stream.Stream` is: an epoch's batches at each iteration, and where it is."""

    def __iter__(self) -> Iterator[Batch]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Where a run writes, and when. `about`: the recipe and what else a checkpoint must tell, plain values.

    `held_out`: what rank 0 validates on; none: it doesn't. `board`: a folder for TensorBoard; none: it isn't written.
    """

    out: Store
    every: Every
    about: Mapping[str, Any]
    batch: int  # samples of a step, of all ranks
    rank: int = 0
    world: int = 1
    held_out: tuple[Batch, ...] = ()
    board: str = ""


Watch = Callable[[Progress], None]


class Woken(BaseException):
    """Where the run waited for a batch it was asked to stop. No mistake, so that nobody on its way takes it for one."""


class Stop:
    """Whether the run is asked to stop. Several ranks aren't: they would have to stop after the same step."""

    def __init__(self) -> None:
        self.asked = self._waits = False

    def ask(self) -> None:
        """What a signal's handler does, in the thread that trains. Raises Woken where that waits."""
        self.asked = True
        if self._waits:
            raise Woken

    @contextmanager
    def waking(self) -> Iterator[None]:
        """In here `ask` raises Woken, at any moment; one that came before does so at once."""
        self._waits = True
        try:
            if self.asked:
                raise Woken
            yield
        finally:
            self._waits = False


class Stopped(RuntimeError):
    """The run was asked to stop. The message says after which step it did; all is saved up to there."""

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"stopped after step {step} of {steps}, which is saved" if step else "stopped before step 1")


def train(trainer: Trainer, batches: Batches, run: Run, watch: Watch, stop: Stop) -> Progress:
    """Trains to the last step, from the newest checkpoint on; gives how it ended. `watch` is called on rank 0.

    Raises `Stopped`, `dynet.train.Diverged`, ValueError for a checkpoint of another network or recipe, what `batches`
    raises.
    """
    points = _resume(trainer, batches, run)
    loop = _Loop(trainer, batches, run, watch, stop, points)
    try:
        while trainer.step < trainer.settings.steps:
            loop.epoch()
    finally:
        loop.close()
    return loop.last


def _resume(trainer: Trainer, batches: Batches, run: Run) -> list[curve.Point]:
    """Gives the steps that the curve doesn't have yet: those in an interim checkpoint."""
    state = _newest(run)
    if state is not None:
        check_about(state, run.about, run.out.root)
        trainer.load_state_dict(state["trainer"])
        batches.load_state_dict(state["stream"])
    if run.rank == 0:
        curve.cut(run.out, trainer.step)
    return [curve.Point(**point) for point in state.get("points", ())] if state else []


def _newest(run: Run) -> dict[str, Any] | None:
    """What rank 0 finds; the others read the same one."""
    if run.world == 1:
        return checkpoint.newest(run.out)
    state = checkpoint.newest(run.out) if run.rank == 0 else None
    said = [None if state is None else int(state["trainer"]["step"])]
    torch.distributed.broadcast_object_list(said, src=0)
    if run.rank == 0 or said[0] is None:
        return state
    return checkpoint.load(run.out, said[0])


def check_about(state: Mapping[str, Any], about: Mapping[str, Any], where: str) -> None:
    """Raises ValueError where a checkpoint was made with other settings than these, naming those that differ."""
    if state.get("state_version") != STATE_VERSION:
        raise ValueError(
            f"a checkpoint in {where} has version {state.get('state_version')}, this reads {STATE_VERSION}"
        )
    theirs = state["about"]
    for name in sorted({*about, *theirs}):
        if about.get(name) != theirs.get(name):
            raise ValueError(
                f"the run in {where} was begun with {name} = {theirs.get(name)}, now it is {about.get(name)}: give the"
                " same, or another --out to begin anew"
            )


class _Loop:
    """What lasts from one step to the next."""

    def __init__(
        self, trainer: Trainer, batches: Batches, run: Run, watch: Watch, stop: Stop, points: list[curve.Point]
    ) -> None:
        self._trainer, self._batches, self._run, self._watch, self._stop = trainer, batches, run, watch, stop
        self._points = points  # since the curve's last piece
        self._saved, self._place = trainer.step, batches.state_dict()  # where the stream is, after the last step
        self._meter = Meter(run.batch, trainer.settings.depths)
        self._board = Board(run.board, trainer.step) if run.board and run.rank == 0 else None
        self.last = self._meter.progress(trainer, {})

    def epoch(self) -> None:
        """What is left of an epoch, or of the run."""
        begun = time.perf_counter()
        batches = iter(self._batches)
        while (batch := self._next(batches)) is not None:
            fetched = time.perf_counter()
            outcome = self._trainer.take_step(pair(batch, self._trainer.device))
            self._place = self._batches.state_dict()
            samples = self._digest(batch)
            self._meter.count(outcome, time.perf_counter() - begun, fetched - begun, len(batch.skipped))
            self._take_down(outcome, samples)
            begun = time.perf_counter()
            if self._trainer.step == self._trainer.settings.steps:
                return

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        """None where the epoch ends. Raises Stopped where the run is asked to stop while a store doesn't answer.

        Woken may come up in a library that makes another exception of it, or none: what came of that is not used.
        """
        try:
            with self._stop.waking():
                batch = next(batches, None)
        except (Woken, Exception):
            self._heed()
            raise
        self._heed()
        return batch

    def _heed(self) -> None:
        """Between two steps: raises Stopped where the run is asked to stop, with its steps saved."""
        step, steps = self._trainer.step, self._trainer.settings.steps
        if step == steps or not self._stop.asked:
            return
        if step != self._saved:
            self._save()
        raise Stopped(step, steps)

    def close(self) -> None:
        """What TensorBoard hasn't got yet, also where a run ends badly."""
        if self._board is not None:
            self._board.close()

    def _take_down(self, outcome: Outcome, samples: int) -> None:
        if self._run.rank:
            return
        self._points.append(curve.Point(**asdict(outcome), samples=samples))
        every = self._run.every
        qualities = self._validated() if self._due(every.validate) and self._run.held_out else {}
        if self._due(every.pictures) and self._run.held_out:
            self._draw()
        if qualities or self._due(every.report):
            self.last = self._meter.progress(self._trainer, qualities)
            self._watch(self.last)
            if self._board is not None:
                self._board.scalars(self.last)
        if self._due(every.checkpoint):
            curve.write(self._run.out, self._points)
            self._points = []
            self._save()

    def _due(self, interval: int) -> bool:
        step = self._trainer.step
        return step % interval == 0 or step == self._trainer.settings.steps

    def _save(self) -> None:
        """Steps that the curve lacks make it an interim checkpoint."""
        state = {
            "state_version": STATE_VERSION,
            "about": dict(self._run.about),
            "config": self._trainer.model.config.to_dict(),
            "trainer": self._trainer.state_dict(),
            "stream": self._place,
            "points": [asdict(point) for point in self._points],
        }
        self._saved = self._trainer.step
        checkpoint.save(self._run.out, self._saved, state, self._run.every.keep, interim=bool(self._points))

    def _validated(self) -> dict[str, Quality]:
        trainer = self._trainer
        return validate.qualities(
            trainer.best, self._run.held_out, trainer.settings.depths, trainer.device, trainer.autocast
        )

    def _draw(self) -> None:
        trainer = self._trainer
        columns = validate.shown(
            trainer.best, self._run.held_out, trainer.settings.depths, trainer.device, trainer.autocast
        )
        grid = pictures.grid(columns)
        self._run.out.write(f"{PICTURES}step-{trainer.step:09d}.png", pictures.png(grid))
        if self._board is not None:
            self._board.picture(grid, trainer.step)

    def _digest(self, batch: Batch) -> int:
        """The same for the same global batch, however ranks share it."""
        mine = digest(batch, self._run.rank)
        if self._run.world == 1:
            return mine
        total = torch.tensor(mine, device=self._trainer.device)
        torch.distributed.all_reduce(total)
        return int(total)


def digest(batch: Batch, rank: int) -> int:
    """One rank's share of a sum of hashes of epoch, name and place in the global batch; an int64, which wraps."""
    told = zip(batch.epochs, batch.samples, _places(batch, rank), strict=True)
    texts = (f"{epoch}/{sample}/{part}/{place}" for epoch, sample, (part, place) in told)
    total = sum(int.from_bytes(hashlib.blake2b(one.encode(), digest_size=8).digest(), "little") for one in texts)
    total %= 1 << 64
    return total - ((total >> 63) << 64)


def _places(batch: Batch, rank: int) -> Iterator[tuple[int, int]]:
    """Of each sample: the number of its stream, and its place in that one's share of the global batch."""
    for part, count in enumerate(batch.parts or (len(batch.samples),)):
        yield from ((part, rank * count + row) for row in range(count))
