"""The verdict: a pure function of a ledger row and the thresholds, so that thresholds can change without
a download and without scoring again.

Consensus, as in the DyNet paper (section 3.3 of its supplement names the three metrics and no thresholds):
an image stays when both sides reach `min_res` and *every* metric passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from curation.records import Link, Reason, Refusal, Row, Stage

JPEG_QUALITY: Final = "jpeg_quality"  # the metric that a picture's header gives, on libjpeg's scale
_DECLARED: Final = frozenset({Reason.DECLARED_TOO_SMALL, Reason.DECLARED_UNSAFE, Reason.DECLARED_WATERMARK})
_REOPENED: Final = frozenset({Reason.NOT_MEASURED, Reason.NOT_STORED})


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricThreshold:
    """One metric's bound. `lower_better`: a score passes at or under `bound`; else at or over it."""

    metric: str
    bound: float
    lower_better: bool

    def __post_init__(self) -> None:
        if not math.isfinite(self.bound):
            raise ValueError(f"the threshold of {self.metric} is {self.bound}: give a number")

    def passes(self, score: float) -> bool:
        """Whether `score` passes; NaN never does."""
        return score <= self.bound if self.lower_better else score >= self.bound

    def __str__(self) -> str:
        return f"{self.metric} {'<=' if self.lower_better else '>='} {self.bound:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """All that a verdict depends on beside the row."""

    min_res: int = 1024  # pixels, both sides
    max_punsafe: float = 0.5  # LAION's probability that a picture is unsafe
    max_pwatermark: float = 0.8  # LAION's probability of a watermark
    metrics: tuple[MetricThreshold, ...] = ()

    def __post_init__(self) -> None:
        if self.min_res < 1:
            raise ValueError(f"min_res is {self.min_res}: give at least 1 pixel")
        for name in ("max_punsafe", "max_pwatermark"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}: a probability lies between 0 and 1")
        if len({threshold.metric for threshold in self.metrics}) != len(self.metrics):
            raise ValueError("a metric has two thresholds: give each once")


def declared(thresholds: Thresholds, link: Link) -> Refusal | None:
    """Refuses by what the list itself says of a picture, before a byte is downloaded. Unsaid passes."""
    sides = [side for side in (link.declared_width, link.declared_height) if side is not None and side > 0]
    if sides and min(sides) < thresholds.min_res:
        said = f"{link.declared_width}x{link.declared_height}"
        return _listed(Reason.DECLARED_TOO_SMALL, f"{said} < {thresholds.min_res}")
    if link.punsafe is not None and link.punsafe > thresholds.max_punsafe:
        return _listed(Reason.DECLARED_UNSAFE, f"punsafe {link.punsafe:.3f} > {thresholds.max_punsafe:g}")
    if link.pwatermark is not None and link.pwatermark > thresholds.max_pwatermark:
        said = f"{link.pwatermark:.3f}"
        return _listed(Reason.DECLARED_WATERMARK, f"pwatermark {said} > {thresholds.max_pwatermark:g}")
    return None


def size(thresholds: Thresholds, width: int, height: int) -> Refusal | None:
    """Refuses by the measured size, upright, in pixels."""
    if min(width, height) < thresholds.min_res:
        return Refusal(reason=Reason.TOO_SMALL, stage=Stage.JUDGE, detail=f"{width}x{height} < {thresholds.min_res}")
    return None


def quality(thresholds: Thresholds, scores: Mapping[str, float]) -> Refusal | None:
    """Refuses when any of the metrics in `scores` votes against. The others' votes are not needed then.

    The detail names each that voted against, with its score, and each that was not computed.
    """
    against = [t for t in thresholds.metrics if t.metric in scores and not t.passes(scores[t.metric])]
    if not against:
        return None
    votes = "; ".join(f"{t.metric} {scores[t.metric]:.3f}, wanted {t}" for t in against)
    if rest := [t.metric for t in thresholds.metrics if t.metric not in scores]:
        votes += f"; not computed: {', '.join(rest)}"
    return Refusal(reason=Reason.LOW_QUALITY, stage=Stage.JUDGE, detail=votes)


def missing(row: Row, thresholds: Thresholds) -> tuple[str, ...]:
    """The metrics that vote and were never computed for this row."""
    return tuple(t.metric for t in thresholds.metrics if t.metric not in row.scores)


def is_unscored(row: Row) -> bool:
    """Whether a judged row waits for scores, and for nothing else."""
    return row.reason is Reason.NOT_MEASURED and row.stage is Stage.SCORE


def judge(row: Row, thresholds: Thresholds) -> Row:
    """The row with the verdict of `thresholds` (duplicates aside: see `curation.duplicates`).

    What happened to a URL at the list, in the download, in decoding or in scoring is a fact and stays; so is that it
    was forgotten. A row that today's thresholds let further than those of its run becomes NOT_MEASURED (never
    downloaded or scored) or NOT_STORED (passes, bytes not kept): `--retry-failed` does just those, and
    `judge --score` those that wait for scores of an original that was kept.
    """
    if is_fact(row.stage, row.reason):
        return row
    refusal = _verdict(row, thresholds)
    if refusal is None:
        return replace(row, reason=Reason.KEPT, stage=Stage.KEPT, detail="")
    return replace(row, reason=refusal.reason, stage=refusal.stage, detail=refusal.detail)


def is_fact(stage: Stage, reason: Reason) -> bool:
    """Whether a row that ended so does whatever the thresholds are."""
    if reason is Reason.FORGOTTEN:
        return True
    if stage is Stage.LIST:
        return reason not in _DECLARED
    return stage in (Stage.FETCH, Stage.DECODE, Stage.SCORE) and reason not in _REOPENED


def _verdict(row: Row, thresholds: Thresholds) -> Refusal | None:
    by_list = declared(thresholds, row.link)
    if by_list is not None:
        return by_list
    if row.width is None or row.height is None:
        return Refusal(reason=Reason.NOT_MEASURED, stage=Stage.FETCH, detail="never downloaded")
    by_size = size(thresholds, row.width, row.height)
    if by_size is not None:
        return by_size
    by_quality = quality(thresholds, row.scores)
    if by_quality is not None:
        return by_quality
    if rest := missing(row, thresholds):
        return Refusal(reason=Reason.NOT_MEASURED, stage=Stage.SCORE, detail=f"no {', '.join(rest)}")
    if not row.stored:
        return Refusal(reason=Reason.NOT_STORED, stage=Stage.JUDGE, detail="passes; its bytes were not kept")
    return None


def _listed(reason: Reason, detail: str) -> Refusal:
    return Refusal(reason=reason, stage=Stage.LIST, detail=detail)
