"""Thresholds with evidence: from pictures known to be good or bad (or a ledger) to bounds, and what these let through.

All of it is arithmetic on scores that were computed before. Axes: n pictures, m metrics. A metric that gave no number
for a picture votes against it, as in the filter, so NaN counts as worse than any score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.stats import rankdata

from curation import ledger
from curation.judge import MetricThreshold
from shards.store import Store

DIGITS: Final = 3  # of a bound: more would say more than some hundred pictures know
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A name of the ledger's, and which way its scores point."""

    name: str
    lower_better: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Pictures by metrics. What a ledger can't tell is None: what is good, and what each metric took."""

    metrics: tuple[Metric, ...]  # m
    values: np.ndarray  # (n, m) float64, NaN where there is no number
    groups: np.ndarray  # (n,) of str: the folder, or the kind of degradation
    good: np.ndarray | None = None  # (n,) bool, what somebody said
    seconds: np.ndarray | None = None  # (n, m) float64, each metric's on one core
    megapixels: np.ndarray | None = None  # (n,) float64

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape != (len(self.groups), len(self.metrics)):
            raise ValueError(f"scores of shape {self.values.shape} are not pictures by {len(self.metrics)} metrics")

    @property
    def badness(self) -> np.ndarray:
        """(n, m) float64: higher is worse whatever the metric, infinite where there is no number."""
        signs = np.where([metric.lower_better for metric in self.metrics], 1.0, -1.0)
        return np.where(np.isnan(self.values), np.inf, self.values * signs)

    def of(self, metric: str) -> np.ndarray:
        """(n,) of one metric."""
        return self.values[:, [one.name for one in self.metrics].index(metric)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A group's line of the confusion table: pictures, how many pass each metric, and how many pass all."""

    group: str
    good: bool | None  # None: nobody said, it is a ledger
    pictures: int
    passing: dict[str, int]
    together: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerScores:
    """What a ledger knows: the rows with every metric, and how many it has in all."""

    scores: Scores
    rows: int
    partly: int  # some metrics, not all: the filter stopped at the first that voted against

    @property
    def unscored(self) -> int:
        """Rows that no metric saw: dead links, broken files, too small."""
        return self.rows - self.partly - len(self.scores.values)

    def line(self, thresholds: Sequence[MetricThreshold]) -> Line:
        """The ledger's line of the confusion table, of all its rows."""
        passes = passing(self.scores, thresholds)
        return Line(
            group="ledger",
            good=None,
            pictures=self.rows,
            passing={one.metric: int(n) for one, n in zip(thresholds, passes.sum(axis=0), strict=True)},
            together=int(passes.all(axis=1).sum()),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a metric costs and does, alone. Times are one core's."""

    metric: str
    per_megapixel: float  # seconds
    per_picture: float  # seconds, mean
    rejects: float  # share of all pictures

    @property
    def per_rejection(self) -> float:
        """Seconds for one picture less; infinite for a metric that refuses none."""
        return self.per_picture / self.rejects if self.rejects else math.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class Roc:
    """Shares that pass as the bound goes from strict to loose, both ascending from 0 to 1."""

    bad: np.ndarray  # (k,) float64
    good: np.ndarray  # (k,) float64


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """A metric's scores over some pictures."""

    quantiles: tuple[float, ...]  # at QUANTILES; NaN without a score
    scored: int
    missing: int  # pictures without a number


def check_share(share: float, what: str) -> None:
    """Raises ValueError for a share outside of (0, 1]; `what` is for the message."""
    if not 0.0 < share <= 1.0:
        raise ValueError(f"the {what} is {share:g}: give a share above 0 and at most 1")


def for_pass_rate(scores: Scores, share: float, held: Sequence[MetricThreshold] = ()) -> tuple[MetricThreshold, ...]:
    """Bounds that at least `share` of the good pictures pass, all metrics together; see `even_bounds`.

    `held` are bounds that stay as they are. Raises ValueError for a share outside of (0, 1], without good pictures,
    or where too few of them have all scores and pass what is held.
    """
    check_share(share, "pass rate")
    assert scores.good is not None, "somebody said which are good"
    if not scores.good.any():
        raise ValueError("no good picture could be scored: a pass rate needs some")
    wanted = math.ceil(share * int(scores.good.sum()) - 1e-9)
    return _bounds(scores, scores.good, wanted, held)


def for_yield(
    scores: Scores, share: float, rows: int, held: Sequence[MetricThreshold] = ()
) -> tuple[MetricThreshold, ...]:
    """Bounds that at least `share` of `rows` pass (what has no scores counts among them); see `for_pass_rate`.

    Raises ValueError for a share outside of (0, 1], or where fewer rows have all scores and pass what is held.
    """
    check_share(share, "yield")
    return _bounds(scores, np.ones(len(scores.values), bool), math.ceil(share * rows - 1e-9), held)


def _bounds(
    scores: Scores, among: np.ndarray, wanted: int, held: Sequence[MetricThreshold]
) -> tuple[MetricThreshold, ...]:
    """Those of all metrics, in their order; pictures that fail what is held can't be among those that pass."""
    fixed = {one.metric: one for one in held}
    free = [at for at, metric in enumerate(scores.metrics) if metric.name not in fixed]
    passes = passing(scores, held).all(axis=1) & among
    failing = np.full((int((among & ~passes).sum()), len(free)), np.inf)
    badness = np.concatenate([scores.badness[passes][:, free], failing])
    found = even_bounds(badness, [scores.metrics[at] for at in free], wanted) if free else ()
    fixed |= {one.metric: one for one in found}
    return tuple(fixed[metric.name] for metric in scores.metrics)


def even_bounds(badness: np.ndarray, metrics: Sequence[Metric], wanted: int) -> tuple[MetricThreshold, ...]:
    """The strictest even bounds that `wanted` of the pictures, (n, m), pass together.

    Even: no metric is stricter than another; each lets the same number k of pictures pass, were it alone (ties aside).
    Each metric ranks the pictures, best first, and a picture's worst rank is the k from which on it passes all
    metrics. So k is the `wanted`-th lowest of the worst ranks, and a bound the k-th best score of its metric,
    rounded to three digits to the side that lets more pass.
    Raises ValueError where fewer than `wanted` pictures have all scores.
    """
    able = int(np.isfinite(badness).all(axis=1).sum())
    if wanted > able:
        raise ValueError(f"{wanted} pictures should pass and {able} can: wish for less, or drop a metric")
    worst = np.max([rankdata(column, method="min") for column in badness.T], axis=0)
    k = int(np.sort(worst)[wanted - 1])
    bounds = []
    for metric, column in zip(metrics, badness.T, strict=True):
        finite = np.sort(column[np.isfinite(column)])
        loosest = rounded_up(float(finite[min(k, len(finite)) - 1]))
        bound = loosest if metric.lower_better else 0.0 - loosest  # no -0
        bounds.append(MetricThreshold(metric=metric.name, bound=bound, lower_better=metric.lower_better))
    return tuple(bounds)


def rounded_up(value: float) -> float:
    """The next number of three significant digits that is not below `value`."""
    if value == 0.0:
        return 0.0
    digits = DIGITS - 1 - math.floor(math.log10(abs(value)))
    near = round(value, digits)
    return near if near >= value else round(near + 10.0**-digits, digits)


def passing(scores: Scores, thresholds: Sequence[MetricThreshold]) -> np.ndarray:
    """(n, len(thresholds)) bool: whether each picture passes each."""
    columns = [
        scores.of(one.metric) <= one.bound if one.lower_better else scores.of(one.metric) >= one.bound
        for one in thresholds
    ]
    return np.stack(columns, axis=1) if columns else np.ones((len(scores.values), 0), bool)


def confusion(scores: Scores, thresholds: Sequence[MetricThreshold]) -> list[Line]:
    """A line for each group, the good ones first, each kind in the order in which it first comes."""
    assert scores.good is not None, "somebody said which are good"
    passes = passing(scores, thresholds)
    lines = []
    for good, group in sorted(
        dict.fromkeys(zip(scores.good, scores.groups, strict=True)), key=lambda pair: not pair[0]
    ):
        here = passes[(scores.groups == group) & (scores.good == good)]
        lines.append(
            Line(
                group=str(group),
                good=bool(good),
                pictures=len(here),
                passing={one.metric: int(n) for one, n in zip(thresholds, here.sum(axis=0), strict=True)},
                together=int(here.all(axis=1).sum()),
            )
        )
    return lines


def costs(scores: Scores, thresholds: Sequence[MetricThreshold]) -> list[Cost]:
    """What each metric costs, the cheapest rejection first: the order in which a cascade asks them.

    Metrics refuse much the same pictures, so a later one's true price is higher; its place is seldom another.
    """
    assert scores.seconds is not None and scores.megapixels is not None, "the pictures were timed"
    names = [metric.name for metric in scores.metrics]
    rejected = 1 - passing(scores, thresholds).mean(axis=0)
    found = [
        Cost(
            metric=one.metric,
            per_megapixel=float(seconds.sum() / scores.megapixels.sum()),
            per_picture=float(seconds.mean()),
            rejects=float(share),
        )
        for one, share in zip(thresholds, rejected, strict=True)
        for seconds in [scores.seconds[:, names.index(one.metric)]]
    ]
    return sorted(found, key=lambda cost: (cost.per_rejection, cost.per_picture))


def roc(good: np.ndarray, bad: np.ndarray) -> Roc:
    """The curve of two sets of badness, (n,) and (m,) float64, neither empty; `Scores.badness` makes such."""
    bounds = np.unique(np.concatenate([good, bad]))
    shares = [
        np.concatenate([[0.0], np.searchsorted(np.sort(side), bounds, side="right") / len(side)])
        for side in (good, bad)
    ]
    return Roc(good=shares[0], bad=shares[1])


def auc(good: np.ndarray, bad: np.ndarray) -> float:
    """The chance that a good picture has less badness than a bad one, ties counting half: the area under `roc`.

    Mann and Whitney's U over n m, from the ranks: 1 where the metric parts them, 0.5 where it sees nothing.
    """
    ranks = rankdata(np.concatenate([good, bad]))[len(good) :]
    return float((ranks.sum() - len(bad) * (len(bad) + 1) / 2) / (len(good) * len(bad)))


def areas(scores: Scores) -> dict[str, dict[str, float]]:
    """Group -> metric -> `auc` of the good pictures against this group of bad ones. Empty without good pictures.

    Of all bad pictures together an area says little: a detector is there for one group, and blind to the others.
    """
    assert scores.good is not None, "somebody said which are good"
    good, badness = scores.badness[scores.good], scores.badness
    if not len(good):
        return {}
    found = {}
    for group in dict.fromkeys(scores.groups[~scores.good]):
        bad = badness[(scores.groups == group) & ~scores.good]
        found[str(group)] = {one.name: auc(good[:, at], bad[:, at]) for at, one in enumerate(scores.metrics)}
    return found


def distribution(values: np.ndarray) -> Distribution:
    """Of a metric's scores (n,), NaN where there is none."""
    scored = values[~np.isnan(values)]
    quantiles = np.quantile(scored, QUANTILES) if len(scored) else np.full(len(QUANTILES), np.nan)
    return Distribution(
        quantiles=tuple(float(one) for one in quantiles), scored=len(scored), missing=len(values) - len(scored)
    )


def from_ledger(store: Store, metrics: Sequence[Metric]) -> LedgerScores:
    """A ledger's rows with a score, or a NaN, of every one of `metrics`. Raises ValueError where there is no ledger.

    Memory: 8 bytes a row and metric.
    """
    names = [metric.name for metric in metrics]
    parts: list[list[list[float]]] = []
    total = partly = 0
    for unit in ledger.units(store):
        rows = ledger.read(store, unit)
        whole = [row for row in rows if all(name in row.scores for name in names)]
        partly += sum(any(name in row.scores for name in names) for row in rows) - len(whole)
        parts.append([[row.scores[name] for name in names] for row in whole])
        total += len(rows)
    if not parts:
        raise ValueError(f"{store.root} has no ledger: run dynet-filter with --out {store.root} first")
    values = np.concatenate([np.array(part, np.float64).reshape(-1, len(names)) for part in parts])
    return LedgerScores(
        scores=Scores(metrics=tuple(metrics), values=values, groups=np.full(len(values), "ledger", dtype=object)),
        rows=total,
        partly=partly,
    )


def passes(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The confusion table as plain JSON values, for a recipe file. Good and bad pictures may share a group's name."""
    return [
        {"group": line.group, "good": line.good, "pictures": line.pictures, "all": line.together, **line.passing}
        for line in lines
    ]


def evidence(scores: Scores, found: Sequence[Cost]) -> dict[str, Any]:
    """What else such a file says of the pictures that set its thresholds."""
    return {
        "auc": {
            group: {metric: round(area, 4) for metric, area in by_metric.items()}
            for group, by_metric in areas(scores).items()
        },
        "milliseconds_per_megapixel": {cost.metric: round(1000 * cost.per_megapixel, 2) for cost in found},
    }
