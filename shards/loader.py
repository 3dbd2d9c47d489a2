"""What feeds a trainer, whatever its samples come from: one item for each question, in the order of the questions.

    loader, asks = feed(dataset, workers=4)
    asks.begin = lambda: iter(questions)            # before each round
    for made in loader: ...                         # dataset[question]

Workers are forked once and stay. They take questions in turn and answer in order. SIGTERM from anyone but the trainer
is nothing to them: a scheduler sends it to all processes at once, and the trainer has a step to finish. Where one dies
(the kernel needs its memory, a library breaks down) others take their place and are asked again what was not answered:
the answers are the same, since they depend on the questions alone.
"""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any, Final

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from shards.errors import StreamError

_PREFETCH: Final = 4  # batches that a worker has ready
_MOST_DEATHS: Final = 3  # of workers, and not one answer between them
_SHOWS: Final = 1.0  # seconds until a death shows, after what it does to others
_PIPE: Final = 1 << 20  # bytes: a worker that dies while it waits to write the rest of an answer blocks all others
_LOOKS: Final = 5.0  # seconds after which a worker looks whether its trainer is there
_log = logging.getLogger(__name__)


class Asks(Sampler[Any]):
    """What DataLoader hands to its workers, a question at a time. `open`: those that were asked and not answered."""

    def __init__(self) -> None:
        self.begin: Callable[[], Iterator[Any]] = lambda: iter(())
        self.open: deque[Any] = deque()
        self._rest: Iterator[Any] = iter(())

    def new_round(self) -> None:
        self.open.clear()
        self._rest = self.begin()

    def __iter__(self) -> Iterator[Any]:
        yield from tuple(self.open)
        for one in self._rest:
            self.open.append(one)
            yield one


class _Here:
    """What DataLoader does in this process, without what it notes for torch's profiler: 100 us a batch."""

    def __init__(self, dataset: Dataset[Any], asks: Asks) -> None:
        self._dataset, self._asks = dataset, asks

    def __iter__(self) -> Iterator[Any]:
        return (self._dataset[one] for one in self._asks.begin())


class _Workers:
    """The processes of a DataLoader, and others in their place where one dies."""

    def __init__(self, make: Callable[[], DataLoader[Any]], asks: Asks) -> None:
        self._make, self._asks = make, asks
        self._loader = make()
        self._processes: frozenset[BaseProcess] = frozenset()

    def __iter__(self) -> Iterator[Any]:
        """Raises StreamError where workers die again and again."""
        self._asks.new_round()
        deaths = 0
        while True:
            try:
                for made in self._begun():
                    self._asks.open.popleft()
                    deaths = 0
                    yield made
                return
            except (RuntimeError, OSError, EOFError) as error:  # what a death does to who fetches the dead one's answer
                if not self._has_lost_one():
                    raise
                deaths += 1
                if deaths == _MOST_DEATHS:
                    raise StreamError(
                        f"a worker died, and so did those in its place, {deaths} times without one batch: give fewer "
                        f"workers if memory is short ({error})"
                    ) from error
                _log.warning("a worker died, others take its place: %s", error)
            self._loader = self._make()  # the last reference to the old ones goes, and they end
            self._processes = frozenset()

    def _begun(self) -> Iterator[Any]:
        """Workers begin with SIGTERM blocked: it would end them before they have a say.

        A death is to be noticed where an answer is awaited. DataLoader's handler of SIGCHLD raises wherever the trainer
        happens to be, so it goes.
        """
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        handler, others = signal.getsignal(signal.SIGCHLD), frozenset(multiprocessing.active_children())
        try:
            answers = iter(self._loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            self._processes = self._processes or frozenset(multiprocessing.active_children()) - others
            if handler is not None and signal.getsignal(signal.SIGCHLD) is not handler:  # None: not Python's
                signal.signal(signal.SIGCHLD, handler)
        if self._loader.num_workers:
            _widen(answers)
        return answers

    def _has_lost_one(self) -> bool:
        ends = time.monotonic() + _SHOWS
        while time.monotonic() < ends:
            if not all(one.is_alive() for one in self._processes):
                return True
            time.sleep(0.01)
        return False


def feed(dataset: Dataset[Any], workers: int, *, pin_memory: bool | None = None) -> tuple[Iterable[Any], Asks]:
    """A loader on `workers` processes, 0: none, and what asks it. `pin_memory`: by default where there is a GPU."""
    asks = Asks()
    pins = torch.cuda.is_available() if pin_memory is None else pin_memory
    if not workers and not pins:
        return _Here(dataset, asks), asks

    def make() -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=asks,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pins,
            prefetch_factor=_PREFETCH if workers else None,
            persistent_workers=workers > 0,
            worker_init_fn=_heed_the_trainer_alone,
            generator=torch.Generator(),  # or it would draw from the trainer's, which a resumed run restores
        )

    return _Workers(make, asks), asks


def _widen(answers: Any) -> None:
    """Room in the workers' pipe for all answers that may wait: DataLoader leaves it the system's 64 KiB."""
    with suppress(OSError):  # the user's share of such memory is used up
        fcntl.fcntl(answers._worker_result_queue._writer.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)


def channels_first(pixels: np.ndarray) -> torch.Tensor:
    """(n, H, W, 3) as (n, 3, H, W), the same memory."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _heed_the_trainer_alone(_worker: int) -> None:
    """A worker that is stuck gets SIGTERM from DataLoader; one whose trainer was killed gets none, and ends too."""
    trainer = multiprocessing.parent_process()  # os.getppid() is another's where the trainer is gone already
    assert trainer is not None and trainer.pid is not None, "a worker is a process of multiprocessing"
    threading.Thread(target=_await_the_end, args=(trainer.pid,), name="end", daemon=True).start()


def _await_the_end(trainer: int) -> None:
    while os.getppid() == trainer:
        asked = signal.sigtimedwait({signal.SIGTERM}, _LOOKS)
        if asked is not None and asked.si_pid == trainer:
            break
    os._exit(0)


def _as_it_is(made: Any) -> Any:
    return made
