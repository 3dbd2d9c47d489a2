"""The metrics a recipe may name: pyiqa's, and a few of this project's own that need no weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from curation.judge import JPEG_QUALITY
from curation.scorers import pyiqa_build
from curation.scorers.detectors import DETECTORS

#: Own metric -> whether a lower score is better.
OWN: Final = {JPEG_QUALITY: False, **{name: one.lower_better for name, one in DETECTORS.items()}}


def known_metrics() -> tuple[str, ...]:
    """Every metric that scores one picture without a reference, sorted."""
    return tuple(sorted((*OWN, *pyiqa_build.known_metrics())))


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise ValueError unless each name is one of `known_metrics`, and is there once."""
    theirs = [metric for metric in metrics if metric not in OWN]
    if theirs or not metrics:
        pyiqa_build.check_metrics(theirs, others=tuple(OWN))
    if len(set(metrics)) < len(metrics):
        raise ValueError(f"a metric is named twice in {', '.join(metrics)}: name each once")


def lower_better(metric: str) -> bool:
    """Whether a lower score is better; of pyiqa's from its table. Raises ValueError as `check_metrics` does."""
    check_metrics([metric])
    return OWN[metric] if metric in OWN else pyiqa_build.lower_better(metric)
