"""A metric's scores as counts, in memory that does not grow with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from curation.judge import MetricThreshold

_FINEST: Final = 2.0**-12  # a bin's width, before any doubling
_MOST_BINS: Final = 4096
_BARS: Final = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """Scores from `low` to `high`: of rows that were kept, and of all others."""

    low: float
    high: float
    kept: int
    others: int


class Histogram:
    """A metric's scores in bins of one width, laid so that the threshold is an edge between two of them.

    The range need not be known: the width starts at 2⁻¹² and doubles whenever more than 4,096 bins are in use.
    """

    def __init__(self, threshold: MetricThreshold) -> None:
        self.threshold = threshold
        self.missing = 0  # rows where the metric gave no number
        self._width = _FINEST
        self._bins: dict[int, tuple[int, int]] = {}  # bin -> rows kept, others

    def add(self, scores: np.ndarray, kept: np.ndarray) -> None:
        """`scores`: (rows,) float64; `kept`: (rows,) bool."""
        finite = np.isfinite(scores)
        self.missing += len(scores) - int(finite.sum())
        bins, which = np.unique(self._bin(scores[finite]), return_inverse=True)
        every = np.bincount(which, minlength=len(bins))
        of_kept = np.bincount(which[kept[finite]], minlength=len(bins))
        for at, both, among in zip(bins.tolist(), every.tolist(), of_kept.tolist(), strict=True):
            self._put(int(at), among, both - among)
        self._bound()

    def merge(self, other: Histogram) -> None:
        """Scores against the same threshold, counted elsewhere."""
        self.missing += other.missing
        while self._width < other._width:
            self._double()
        finer = int(self._width / other._width)
        for at, (kept, others) in other._bins.items():
            self._put(at // finer, kept, others)
        self._bound()

    @property
    def total(self) -> int:
        """Rows with a score."""
        return sum(kept + others for kept, others in self._bins.values())

    @property
    def passing(self) -> int:
        """Rows whose score passes, exactly."""
        return sum(sum(both) for at, both in self._bins.items() if (at < 0) == self.threshold.lower_better)

    def quantile(self, share: float) -> float:
        """The score that `share` of all lie at or under, to within a bin."""
        return self._edge(self._quantile_bin(share)) + self._width / 2

    def bars(self) -> list[Bar]:
        """At most about 40 bars; the two outermost also hold what lies beyond them. Needs a score."""
        low, high = self._span()
        step = -(-(high - low + 1) // _BARS)
        first, last = low // step, high // step
        counts = dict.fromkeys(range(first, last + 1), (0, 0))
        for at, (kept, others) in self._bins.items():
            slot = min(max(at // step, first), last)
            counts[slot] = (counts[slot][0] + kept, counts[slot][1] + others)
        return [
            Bar(low=self._edge(at * step), high=self._edge((at + 1) * step), kept=kept, others=others)
            for at, (kept, others) in counts.items()
        ]

    def _span(self) -> tuple[int, int]:
        """First and last bin to show: both sides of the threshold, and no outlier that would squeeze the rest."""
        middle, spread = self._quantile_bin(0.5), self._quantile_bin(0.9) - self._quantile_bin(0.1) + 1
        low = max(self._quantile_bin(0.005), middle - 4 * spread)
        high = min(self._quantile_bin(0.995), middle + 4 * spread)
        return min(low, -1 - spread // 4), max(high, spread // 4)

    def _bin(self, scores: np.ndarray) -> np.ndarray:
        """Bin 0 begins at the threshold. The score at the threshold itself goes to the side that passes.

        (rows,) float64: a bin may lie further out than an int64 goes.
        """
        distance = (scores - self.threshold.bound) / self._width
        return np.ceil(distance) - 1 if self.threshold.lower_better else np.floor(distance)

    def _edge(self, at: int) -> float:
        return self.threshold.bound + at * self._width

    def _put(self, at: int, kept: int, others: int) -> None:
        before = self._bins.get(at, (0, 0))
        self._bins[at] = (before[0] + kept, before[1] + others)

    def _bound(self) -> None:
        while len(self._bins) > _MOST_BINS:
            self._double()

    def _double(self) -> None:
        old, self._bins = self._bins, {}
        self._width *= 2
        for at, (kept, others) in old.items():
            self._put(at // 2, kept, others)

    def _quantile_bin(self, share: float) -> int:
        wanted, seen = share * self.total, 0
        ordered = sorted(self._bins)
        for at in ordered:
            seen += sum(self._bins[at])
            if seen >= wanted:
                return at
        return ordered[-1]
