"""All metrics of a recipe behind one interface, each computed by who does it best.

`engine="fused"`: NIQE and BRISQUE by this project's kernel, NIMA's network fed with batches. `engine="pyiqa"`: all by
pyiqa, one picture at a time: the oracle. Metrics that only pyiqa has are pyiqa's in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from curation.judge import JPEG_QUALITY
from curation.scorers import fused
from curation.scorers.fused import FusedScorer
from curation.scorers.protocol import Measure, Scored, Scorer, always, in_turn
from curation.scorers.pyiqa_scorer import PyiqaScorer
from curation.scorers.weights import WeightFile

ENGINES: Final = ("fused", "pyiqa")

#: Metric -> what its network needs of a picture: small, so that those of many pictures can wait together.
Reduced = Mapping[str, np.ndarray]


class Panel(Scorer):
    """`weights` is what `resolve` found: metric to files, in the order of the scores."""

    def __init__(self, weights: Mapping[str, tuple[WeightFile, ...]], engine: str = "fused") -> None:
        assert engine in ENGINES, engine
        pixels = {metric: files for metric, files in weights.items() if metric != JPEG_QUALITY}
        ours = {metric: files for metric, files in pixels.items() if engine == "fused" and metric in fused.METRICS}
        theirs = {metric: files for metric, files in pixels.items() if metric not in ours}
        self._metrics = tuple(pixels)
        self._parts: list[Scorer] = []
        if ours:
            self._parts.append(FusedScorer(ours))
        if theirs:
            self._parts.append(PyiqaScorer(theirs))
        self._batched: dict[str, NimaBatch] = {}

    @property
    def metrics(self) -> tuple[str, ...]:
        return self._metrics

    def setup(self) -> None:
        for part in self._parts:
            part.setup()

    def measure(self, pixels: np.ndarray, sure: Sequence[str]) -> Measure:
        """What measures (H, W, 3) uint8 RGB; what only one part needs is computed when it is first asked."""
        begun: dict[int, Measure] = {}

        def by(metric: str) -> float:
            at = next(i for i, part in enumerate(self._parts) if metric in part.metrics)
            if at not in begun:
                begun[at] = self._parts[at].measure(pixels, sure)
            return begun[at](metric)

        return by

    def one_by_one(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Those of `wanted` that are scored picture by picture, in their order."""
        return tuple(metric for metric in wanted if metric in self._metrics)

    def reduced(self, pixels: np.ndarray, wanted: Sequence[str]) -> Reduced | None:
        """What the metrics of `wanted` that work in batches need of this picture; None where there are none."""
        small = {metric: self._batched[metric].reduced(pixels) for metric in wanted if metric in self._batched}
        return small or None

    def score_reduced(self, many: Sequence[Reduced]) -> list[Scored]:
        """The scores by the batched metrics of pictures that all were reduced for the same ones, in one go."""
        if not many:
            return []
        columns = {metric: self._batched[metric].score([one[metric] for one in many]) for metric in many[0]}
        return [
            in_turn(dict(zip(columns, row, strict=True)).__getitem__, tuple(columns), always)
            for row in zip(*columns.values(), strict=True)
        ]
