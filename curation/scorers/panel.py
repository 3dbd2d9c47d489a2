"""All metrics of a recipe behind one interface, each computed by who does it best.

`engine="fused"`: NIQE and BRISQUE by this project's kernel, NIMA's network fed with batches. `engine="pyiqa"`: all by
pyiqa, one picture at a time: the oracle. Metrics that only pyiqa has are pyiqa's in both.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Final

import numpy as np

from curation.judge import JPEG_QUALITY
from curation.scorers import fused, nima
from curation.scorers.detectors import DETECTORS, DetectorScorer
from curation.scorers.fused import FusedScorer
from curation.scorers.nima import Nima
from curation.scorers.protocol import Measure, Scored, Scorer, always, in_turn
from curation.scorers.pyiqa_scorer import PyiqaScorer
from curation.scorers.weights import WeightFile

ENGINES: Final = ("fused", "pyiqa")

#: Metric -> what its network needs of a picture: small, so that those of many pictures can wait together.
Reduced = Mapping[str, np.ndarray]


class Panel(Scorer):
    """`weights` is what `resolve` found: metric to files, in the order of the scores.

    `device` is torch's name of where networks run, "cpu" or "cuda"; NIQE, BRISQUE and the detectors stay on the CPU.
    """

    def __init__(
        self, weights: Mapping[str, tuple[WeightFile, ...]], engine: str = "fused", device: str = "cpu"
    ) -> None:
        assert engine in ENGINES, engine
        left = {metric: files for metric, files in weights.items() if metric != JPEG_QUALITY}
        self._metrics = tuple(left)
        detectors = _taken(left, DETECTORS)
        ours = _taken(left, fused.METRICS) if engine == "fused" else {}
        batched = _taken(left, nima.METRICS) if engine == "fused" else {}
        self._parts: list[Scorer] = []
        if detectors:
            self._parts.append(DetectorScorer(tuple(detectors)))
        if ours:
            self._parts.append(FusedScorer(ours))
        if left:
            self._parts.append(PyiqaScorer(left, device))
        self._batched = {metric: Nima(metric, files, device) for metric, files in batched.items()}

    @property
    def metrics(self) -> tuple[str, ...]:
        return self._metrics

    def setup(self) -> None:
        """Builds all models. Raises ValueError as each part does."""
        for part in self._parts:
            part.setup()
        for network in self._batched.values():
            network.setup()

    def measure(self, pixels: np.ndarray, sure: Sequence[str]) -> Measure:
        """What measures (H, W, 3) uint8 RGB; what only one part needs is computed when it is first asked."""
        begun: dict[int, Measure] = {}

        def by(metric: str) -> float:
            if metric in self._batched:
                return self._batched[metric].score([self._batched[metric].reduced(pixels)])[0]
            at = next(i for i, part in enumerate(self._parts) if metric in part.metrics)
            if at not in begun:
                begun[at] = self._parts[at].measure(pixels, sure)
            return begun[at](metric)

        return by

    def one_by_one(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Those of `wanted` that are scored picture by picture, in their order."""
        return tuple(metric for metric in wanted if metric in self._metrics and metric not in self._batched)

    def reduced(self, pixels: np.ndarray, wanted: Sequence[str]) -> Reduced | None:
        """What the metrics of `wanted` that work in batches need of this picture; None where there are none."""
        small = {metric: self._batched[metric].reduced(pixels) for metric in wanted if metric in self._batched}
        return small or None

    def score_reduced(self, many: Sequence[Reduced]) -> list[Scored]:
        """The scores of reduced pictures by the metrics that they were reduced for: all of a metric's in one go."""
        found: list[dict[str, float]] = [{} for _ in many]
        for metric, network in self._batched.items():
            those = [at for at, one in enumerate(many) if metric in one]
            if those:
                for at, score in zip(those, network.score([many[at][metric] for at in those]), strict=True):
                    found[at][metric] = score
        return [in_turn(scores.__getitem__, tuple(scores), always) for scores in found]


def _taken(left: dict[str, tuple[WeightFile, ...]], metrics: Container[str]) -> dict[str, tuple[WeightFile, ...]]:
    """Those of `metrics` in `left`, which loses them."""
    return {metric: left.pop(metric) for metric in tuple(left) if metric in metrics}
