"""What feeds a trainer, whatever its samples come from: one item for each question, in the order of the questions.

    loader, asks = feed(dataset, workers=4)
    asks.begin = lambda: iter(questions)            # before each round
    for made in loader: ...                         # dataset[question]

Workers are forked once and stay. They take questions in turn and answer in order. SIGTERM from anyone but the trainer
is nothing to them: a scheduler sends it to all processes at once, and the trainer has a step to finish.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

_PREFETCH: Final = 4  # batches that a worker has ready


class Asks(Sampler[Any]):
    """What DataLoader hands to its workers, a question at a time."""

    def __init__(self) -> None:
        self.begin: Callable[[], Iterator[Any]] = lambda: iter(())

    def __iter__(self) -> Iterator[Any]:
        return self.begin()


class _Here:
    """What DataLoader does in this process, without what it notes for torch's profiler: 100 us a batch."""

    def __init__(self, dataset: Dataset[Any], asks: Asks) -> None:
        self._dataset, self._asks = dataset, asks

    def __iter__(self) -> Iterator[Any]:
        return (self._dataset[one] for one in self._asks)


class _Workers:
    """Has the processes of a DataLoader begin with SIGTERM blocked: it would end them before they have a say."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            return iter(self._loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def feed(dataset: Dataset[Any], workers: int) -> tuple[Iterable[Any], Asks]:
    """A loader on `workers` processes, 0: none, and what asks it."""
    asks = Asks()
    if not workers and not torch.cuda.is_available():  # else DataLoader pins the memory
        return _Here(dataset, asks), asks
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,
        sampler=asks,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=_PREFETCH if workers else None,
        persistent_workers=workers > 0,
        worker_init_fn=_heed_the_trainer_alone,
        generator=torch.Generator(),  # or it would draw from the trainer's, which a resumed run restores
    )
    return _Workers(loader), asks


def channels_first(pixels: np.ndarray) -> torch.Tensor:
    """(n, H, W, 3) as (n, 3, H, W), the same memory."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _heed_the_trainer_alone(_worker: int) -> None:
    """A worker that is stuck gets SIGTERM from DataLoader."""
    threading.Thread(target=_await_the_end, name="end", daemon=True).start()


def _await_the_end() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _as_it_is(made: Any) -> Any:
    return made
