"""How far a training run is, and at what pace: means over its last steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import psutil
import torch

from dynet.train import BETWEEN, Outcome, Trainer
from dynet.validate import Quality

_RECENT: Final = 50  # steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A line of a run. `losses`: per depth that was asked for, those between them as one. `waits`: share of the time
    without a batch."""

    step: int
    steps: int
    losses: Mapping[str, float]
    norm: float  # of the last gradient
    per_second: float  # samples, of all ranks
    waits: float
    memory: int  # bytes: of the GPU where there is one, else of this process
    skipped: int  # steps that changed nothing
    batch: int  # samples of a step, of all ranks
    missing: int = 0  # samples that others stood in for: of this rank, since it was started
    qualities: Mapping[str, Quality] = field(default_factory=dict)  # where the step was validated

    @property
    def seconds_left(self) -> float:
        """At the pace of the last steps."""
        return (self.steps - self.step) * self.batch / self.per_second if self.per_second else 0.0


class Meter:
    """Takes every step down and tells `Progress`. `depths`: those that were asked for, by name."""

    def __init__(self, batch: int, depths: Sequence[str]) -> None:
        self._batch, self._depths = batch, depths
        self._losses: dict[str, deque[float]] = {}
        self._times: deque[tuple[float, float]] = deque(maxlen=_RECENT)
        self._norm = 0.0
        self._missing = 0

    def count(self, outcome: Outcome, seconds: float, waited: float, missing: int) -> None:
        """A step that took this long, and of it waited for its batch; others stood in for `missing` samples."""
        self._missing += missing
        self._times.append((seconds, waited))
        self._norm = outcome.norm
        if outcome.taken:
            depth = outcome.depth if outcome.depth in self._depths else BETWEEN
            self._losses.setdefault(depth, deque(maxlen=_RECENT)).append(outcome.loss)

    def progress(self, trainer: Trainer, qualities: Mapping[str, Quality]) -> Progress:
        """Now."""
        seconds = sum(one for one, _ in self._times)
        return Progress(
            step=trainer.step,
            steps=trainer.settings.steps,
            losses={depth: sum(last) / len(last) for depth, last in sorted(self._losses.items())},
            norm=self._norm,
            per_second=len(self._times) * self._batch / seconds if seconds else 0.0,
            waits=sum(waited for _, waited in self._times) / seconds if seconds else 0.0,
            memory=_memory(trainer.device),
            skipped=trainer.skipped,
            batch=self._batch,
            missing=self._missing,
            qualities=qualities,
        )


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)
