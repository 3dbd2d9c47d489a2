"""What the report says of a ledger, gathered in one pass over its rows, in memory that does not grow with them.

Counts, histograms of at most 4,096 bins, and the few rows of lowest rank. Nothing here depends on the order in
which rows come, up to 16,384 hosts: two passes over one store agree.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

from curation.judge import MetricThreshold, Thresholds
from curation.records import Reason, Row, Stage

EXAMPLES: Final = 10  # rows per reason
NEAR: Final = 12  # rows just beyond the thresholds
SLOW: Final = 10
PAIRS: Final = 12  # of a duplicate and the picture it repeats
PICTURES: Final = 48  # kept ones that are shown
PICTURE_UNITS: Final = 12  # chunks that they come from: each costs the reading of its tar

#: Lower ends, in pixels, of the classes of a picture's shorter side.
SIDES: Final = (1, 256, 512, 768, 1024, 1280, 1536, 2048, 3072, 4096, 6144, 8192)

_FINEST: Final = 2.0**-12  # a bin's width, before any doubling
_MOST_BINS: Final = 4096
_BARS: Final = 40
_MOST_SPANS: Final = 60
_MOST_HOSTS: Final = 1 << 14

Item = TypeVar("Item")


class Smallest(Generic[Item]):
    """The `limit` items of lowest rank among all offered. Ranks are tuples, no two alike."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ranked: list[tuple[tuple[Any, ...], Item]] = []

    def offer(self, rank: tuple[Any, ...], item: Item) -> None:
        if len(self._ranked) == self._limit and rank >= self._ranked[-1][0]:
            return
        insort(self._ranked, (rank, item), key=itemgetter(0))
        del self._ranked[self._limit :]

    @property
    def items(self) -> list[Item]:
        """Lowest rank first."""
        return [item for _, item in self._ranked]


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

    def add(self, score: float, kept: bool) -> None:
        if not math.isfinite(score):
            self.missing += 1
            return
        self._put(self._bin(score), int(kept), int(not kept))
        while len(self._bins) > _MOST_BINS:
            self._double()

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

    def _bin(self, score: float) -> int:
        """Bin 0 begins at the threshold. The score at the threshold itself goes to the side that passes."""
        distance = (score - self.threshold.bound) / self._width
        return math.ceil(distance) - 1 if self.threshold.lower_better else math.floor(distance)

    def _edge(self, at: int) -> float:
        return self.threshold.bound + at * self._width

    def _put(self, at: int, kept: int, others: int) -> None:
        before = self._bins.get(at, (0, 0))
        self._bins[at] = (before[0] + kept, before[1] + others)

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


@dataclass(kw_only=True, slots=True)
class Volume:
    """Rows and the bytes of their files."""

    rows: int = 0
    bytes: int = 0

    def add(self, bytes: int) -> None:
        self.rows += 1
        self.bytes += bytes


class Timeline:
    """Work done over time, in spans of equal length: one second at first, doubling until there are few enough."""

    def __init__(self) -> None:
        self.width = 1.0  # seconds
        self._spans: dict[int, tuple[int, int, int]] = {}  # span since 1970 -> rows, kept, bytes read

    def add(self, ended: float, kept: bool, bytes_read: int) -> None:
        self._put(math.floor(ended / self.width), (1, int(kept), bytes_read))
        while max(self._spans) - min(self._spans) >= _MOST_SPANS:
            old, self._spans = self._spans, {}
            self.width *= 2
            for at, counts in old.items():
                self._put(at // 2, counts)

    def _put(self, at: int, counts: tuple[int, int, int]) -> None:
        before = self._spans.get(at, (0, 0, 0))
        self._spans[at] = (before[0] + counts[0], before[1] + counts[1], before[2] + counts[2])

    @property
    def spans(self) -> list[Span]:
        """Every span from the first to the last, those without work too."""
        if not self._spans:
            return []
        between = range(min(self._spans), max(self._spans) + 1)
        found = ((at, self._spans.get(at, (0, 0, 0))) for at in between)
        return [Span(start=at * self.width, rows=r, kept=k, bytes_read=b) for at, (r, k, b) in found]


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """What ended within one span of time that began at `start`, seconds since 1970."""

    start: float
    rows: int
    kept: int
    bytes_read: int


@dataclass(kw_only=True, slots=True)
class Host:
    """What one host's rows cost: seconds of download, decoding and scoring."""

    rows: int = 0
    failed: int = 0  # ended in the download
    bytes_read: int = 0
    seconds: float = 0.0


class Hosts:
    """The hosts that cost most time. Exact up to 16,384 hosts; of more, those that cost least are forgotten."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}

    def add(self, row: Row) -> None:
        failed = int(row.stage is Stage.FETCH)
        self.merge(_host(row.link.url), Host(rows=1, failed=failed, bytes_read=row.bytes_read, seconds=row.seconds))

    def merge(self, name: str, more: Host) -> None:
        """Rows of one host, summed elsewhere."""
        host = self._hosts.setdefault(name, Host())
        host.rows += more.rows
        host.failed += more.failed
        host.bytes_read += more.bytes_read
        host.seconds += more.seconds
        if len(self._hosts) > 2 * _MOST_HOSTS:
            self._hosts = dict(self._ranked()[:_MOST_HOSTS])

    def slowest(self, count: int) -> list[tuple[str, Host]]:
        return self._ranked()[:count]

    def most_failed(self, count: int) -> list[tuple[str, Host]]:
        """Of those not forgotten, the hosts with most failed rows, where there are any."""
        failing = [item for item in self._hosts.items() if item[1].failed]
        return sorted(failing, key=lambda item: (-item[1].failed, item[0]))[:count]

    def _ranked(self) -> list[tuple[str, Host]]:
        return sorted(self._hosts.items(), key=lambda item: (-item[1].seconds, item[0]))


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "none"
    except ValueError:
        return "none"


class Tally:
    """Everything the report needs of the rows."""

    def __init__(self, thresholds: Thresholds) -> None:
        self.rows: Counter[tuple[Stage, Reason]] = Counter()
        self.histograms = {threshold.metric: Histogram(threshold) for threshold in thresholds.metrics}
        self.examples: dict[Reason, Smallest[Row]] = {reason: Smallest(EXAMPLES) for reason in Reason}
        self.near: Smallest[Row] = Smallest(NEAR)
        self.slow: Smallest[Row] = Smallest(SLOW)
        self.duplicates: Smallest[tuple[str, Row]] = Smallest(PAIRS)
        self.hosts = Hosts()
        self.timeline = Timeline()
        self.decoded = 0  # rows whose picture was looked at
        self.by_header = Volume()  # rows refused by the first bytes of a file, and the bytes not read for it
        self.bytes_read = 0
        self.downloaded = Volume()  # whole files
        self.kept = Volume()
        self.sides: Counter[int] = Counter()  # kept pictures: index into SIDES -> rows
        self.formats: dict[str, Volume] = {}  # kept pictures
        self.links: Counter[str] = Counter()  # source -> rows
        self.kept_of: dict[str, Volume] = {}  # source -> kept rows
        self.seconds = 0.0
        self.units = 0
        self.thresholds = thresholds
        self._shown: Smallest[tuple[str, list[Row]]] = Smallest(PICTURE_UNITS)

    @property
    def total(self) -> int:
        return sum(self.rows.values())

    @property
    def answered(self) -> int:
        """Rows whose download brought a file, or as much of one as it took to refuse it."""
        return sum(count for (stage, _), count in self.rows.items() if stage not in (Stage.LIST, Stage.FETCH))

    def add(self, unit: str, rows: Sequence[Row]) -> None:
        """One ledger part."""
        self.units += 1
        shown: Smallest[Row] = Smallest(PICTURES)
        for row in rows:
            self._count(row)
            self._rank(row)
            if row.stage is Stage.DUPLICATES:
                self.duplicates.offer((row.link.key, row.link.position), (unit, row))
            if row.reason is Reason.KEPT:
                self._keep(row)
                shown.offer((row.link.key, row.link.position), row)
        if shown.items:
            rank = hashlib.sha256(unit.encode()).hexdigest()
            self._shown.offer((rank, unit), (unit, shown.items))

    def shown(self) -> list[tuple[str, list[Row]]]:
        """Unit -> its kept rows to show: at most 48 from 12 units, as even as can be, drawn by hash."""
        units = self._shown.items
        turns = [(turn, unit, row) for unit, rows in units for turn, row in enumerate(rows)]
        turns.sort(key=lambda one: (one[0], one[1]))
        chosen = {(unit, row.link.key) for _, unit, row in turns[:PICTURES]}
        return [(unit, [row for row in rows if (unit, row.link.key) in chosen]) for unit, rows in units]

    def _count(self, row: Row) -> None:
        self.rows[row.stage, row.reason] += 1
        self.links[row.link.source] += 1
        self.seconds += row.seconds
        self.bytes_read += row.bytes_read
        self.decoded += row.phash is not None
        if _is_by_header(row):
            self.by_header.add(row.bytes_spared)
        if row.stage is not Stage.LIST:
            self.hosts.add(row)
        if row.ended:
            self.timeline.add(row.ended, row.reason is Reason.KEPT, row.bytes_read)
        if row.bytes is not None:
            self.downloaded.add(row.bytes)
        for metric, histogram in self.histograms.items():
            if metric in row.scores:
                histogram.add(row.scores[metric], row.reason is Reason.KEPT)

    def _keep(self, row: Row) -> None:
        size = row.bytes or 0
        self.kept.add(size)
        self.formats.setdefault(row.format or "unknown", Volume()).add(size)
        self.kept_of.setdefault(row.link.source, Volume()).add(size)
        self.sides[max(0, bisect_right(SIDES, min(row.width or 0, row.height or 0)) - 1)] += 1

    def _rank(self, row: Row) -> None:
        tie = (row.link.key, row.link.position)
        self.slow.offer((-row.seconds, *tie), row)
        if row.reason is not Reason.KEPT:
            self.examples[row.reason].offer(tie, row)
        if row.reason is Reason.LOW_QUALITY and math.isfinite(beyond := overshoot(self.thresholds, row)):
            self.near.offer((beyond, *tie), row)


def _is_by_header(row: Row) -> bool:
    """Whether no more than a file's first bytes were looked at. Where its length was not declared, none are spared."""
    return row.bytes is None and (row.width is not None or row.stage is Stage.DECODE)


def overshoot(thresholds: Thresholds, row: Row) -> float:
    """How far the worst of the metrics that voted against lies beyond its threshold, as a share of it; 0.1 is 10 %.

    A threshold of 0 has no shares: there it is the plain distance. Infinite where a metric gave no number, or where
    none voted against.
    """
    scores = [(one, row.scores[one.metric]) for one in thresholds.metrics if one.metric in row.scores]
    if not all(math.isfinite(score) for _, score in scores):
        return math.inf
    beyond = [abs(score - one.bound) / (abs(one.bound) or 1.0) for one, score in scores if not one.passes(score)]
    return max(beyond, default=math.inf)
