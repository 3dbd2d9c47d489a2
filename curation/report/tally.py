"""What the report says of a ledger, gathered by columns in one pass over its parts, in memory that does not grow.

Counts, histograms of at most 4,096 bins, and the few rows of lowest rank. Nothing here depends on the order in
which rows come, or on who went over which, up to 16,384 hosts: two passes over one store agree.
"""

from __future__ import annotations

import hashlib
import math
from bisect import insort
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import ledger
from curation.judge import Thresholds
from curation.records import METRIC_PREFIX, Reason, Row, Stage
from curation.report.histogram import Histogram
from curation.report.timeline import Timeline

EXAMPLES: Final = 10  # rows per reason
NEAR: Final = 12  # rows just beyond the thresholds
SLOW: Final = 10
PAIRS: Final = 12  # of a duplicate and the picture it repeats
PICTURES: Final = 48  # kept ones that are shown
PICTURE_UNITS: Final = 12  # chunks that they come from: each costs the reading of its tar

#: Lower ends, in pixels, of the classes of a picture's shorter side.
SIDES: Final = (1, 256, 512, 768, 1024, 1280, 1536, 2048, 3072, 4096, 6144, 8192)

_MOST_HOSTS: Final = 1 << 14
_START: Final = r"^(?P<start>[^:/?#]+://[^/?#]*)"  # all of a link that decides its host, and many links share
_TICK: Final = 2.0**-20  # seconds, a microsecond

Item = TypeVar("Item")


class Smallest(Generic[Item]):
    """The `limit` items of lowest rank among all offered. Ranks are tuples, no two alike."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ranked: list[tuple[tuple[Any, ...], Item]] = []

    def offer(self, rank: tuple[Any, ...], item: Item) -> None:
        if self.takes(rank):
            insort(self._ranked, (rank, item), key=itemgetter(0))
            del self._ranked[self._limit :]

    def takes(self, rank: tuple[Any, ...]) -> bool:
        """Whether an item of this rank would be among them now."""
        return len(self._ranked) < self._limit or rank < self._ranked[-1][0]

    def merge(self, other: Smallest[Item]) -> None:
        """Items that were offered elsewhere."""
        for rank, item in other._ranked:
            self.offer(rank, item)

    @property
    def items(self) -> list[Item]:
        """Lowest rank first."""
        return [item for _, item in self._ranked]


@dataclass(kw_only=True, slots=True)
class Volume:
    """Rows and the bytes of their files."""

    rows: int = 0
    bytes: int = 0

    def merge(self, more: Volume) -> None:
        self.rows += more.rows
        self.bytes += more.bytes


@dataclass(kw_only=True, slots=True)
class Host:
    """What one host's rows cost: seconds of download, decoding and scoring."""

    rows: int = 0
    failed: int = 0  # ended in the download
    bytes_read: int = 0
    seconds: float = 0.0

    def merge(self, more: Host) -> None:
        self.rows += more.rows
        self.failed += more.failed
        self.bytes_read += more.bytes_read
        self.seconds += more.seconds


class Hosts:
    """The hosts that cost most time. Exact up to 16,384 hosts; of more, those that cost least are forgotten."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}

    def add(self, names: pa.Array, part: pa.Table) -> None:
        """The rows of a ledger part; `names` has each one's host."""
        columns = {
            "host": names,
            "failed": pc.equal(part["stage"], Stage.FETCH.value),
            "bytes_read": part["bytes_read"],
            "seconds": ticked(part["seconds"]),
        }
        sums = [("host", "count"), *((name, "sum") for name in ("failed", "bytes_read", "seconds"))]
        for one in pa.table(columns).group_by("host", use_threads=False).aggregate(sums).to_pylist():
            rows, failed, bytes_read = one["host_count"], one["failed_sum"], one["bytes_read_sum"]
            more = Host(rows=rows, failed=failed, bytes_read=bytes_read, seconds=one["seconds_sum"])
            self._put(one["host"], more)

    def merge(self, other: Hosts) -> None:
        """Hosts of rows that were counted elsewhere."""
        for name, host in other._hosts.items():
            self._put(name, host)

    def _put(self, name: str, more: Host) -> None:
        self._hosts.setdefault(name, Host()).merge(more)
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


def ticked(seconds: pa.ChunkedArray) -> np.ndarray:
    """(rows,) float64: rounded to 2⁻²⁰ s. Such numbers add up exactly, in any order, to 272 years."""
    return np.rint(np.asarray(seconds, np.float64) / _TICK) * _TICK


def host_names(part: pa.Table) -> pa.Array:
    """Each row's host, "none" where its link has none."""
    starts = pc.struct_field(pc.extract_regex(part["url"], _START), "start")
    return pa.array(map(_host, pc.coalesce(starts, part["url"]).to_pylist()), pa.string())


@lru_cache(maxsize=_MOST_HOSTS)
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

    def add(self, unit: str, part: pa.Table) -> None:
        """One ledger part. Only rows that may be shown become objects."""
        self.units += 1
        kept = part.filter(pc.equal(part["reason"], Reason.KEPT.value))
        self._count(part)
        self._measure(part)
        self._keep(kept)
        self._rank(unit, part)
        rank = (hashlib.sha256(unit.encode()).hexdigest(), unit)
        if kept.num_rows and self._shown.takes(rank):
            first = kept.sort_by([("key", "ascending"), ("position", "ascending")]).slice(0, PICTURES)
            self._shown.offer(rank, (unit, ledger.rows_of(first)))

    def merge(self, other: Tally) -> None:
        """Other parts, gathered elsewhere by the same thresholds: as if they had been added here."""
        self.units += other.units
        self.rows.update(other.rows)
        self.links.update(other.links)
        self.sides.update(other.sides)
        self.decoded += other.decoded
        self.bytes_read += other.bytes_read
        self.seconds += other.seconds
        self.by_header.merge(other.by_header)
        self.downloaded.merge(other.downloaded)
        self.kept.merge(other.kept)
        _merge(self.formats, other.formats)
        _merge(self.kept_of, other.kept_of)
        self.hosts.merge(other.hosts)
        self.timeline.merge(other.timeline)
        for metric, histogram in self.histograms.items():
            histogram.merge(other.histograms[metric])
        for reason, rows in self.examples.items():
            rows.merge(other.examples[reason])
        self.near.merge(other.near)
        self.slow.merge(other.slow)
        self.duplicates.merge(other.duplicates)
        self._shown.merge(other._shown)

    def shown(self) -> list[tuple[str, list[Row]]]:
        """Unit -> its kept rows to show: at most 48 from 12 units, as even as can be, drawn by hash."""
        units = self._shown.items
        turns = [(turn, unit, row) for unit, rows in units for turn, row in enumerate(rows)]
        turns.sort(key=lambda one: (one[0], one[1]))
        chosen = {(unit, row.link.key) for _, unit, row in turns[:PICTURES]}
        return [(unit, [row for row in rows if (unit, row.link.key) in chosen]) for unit, rows in units]

    def _count(self, part: pa.Table) -> None:
        self.rows.update(ledger.ends_of(part))
        self.links.update(part["source"].to_pylist())
        self.decoded += part.num_rows - part["phash"].null_count
        self.bytes_read += _sum(part["bytes_read"])
        self.seconds += float(ticked(part["seconds"]).sum())
        whole, by_header = part["bytes"].drop_null(), part.filter(_is_by_header(part))["bytes_spared"]
        self.downloaded.merge(Volume(rows=len(whole), bytes=_sum(whole)))
        self.by_header.merge(Volume(rows=len(by_header), bytes=_sum(by_header)))

    def _measure(self, part: pa.Table) -> None:
        """Hosts, times and scores."""
        asked = part.filter(pc.not_equal(part["stage"], Stage.LIST.value))
        self.hosts.add(host_names(asked), asked)
        self.timeline.add(part.filter(pc.not_equal(part["ended"], 0.0)))
        for metric, histogram in self.histograms.items():
            if METRIC_PREFIX + metric in part.column_names:
                scored = part.filter(pc.is_valid(part[METRIC_PREFIX + metric]))
                kept = np.asarray(pc.equal(scored["reason"], Reason.KEPT.value))
                histogram.add(np.asarray(scored[METRIC_PREFIX + metric], np.float64), kept)

    def _keep(self, kept: pa.Table) -> None:
        self.kept.merge(Volume(rows=kept.num_rows, bytes=_sum(kept["bytes"])))
        _merge(self.formats, _volumes(pc.fill_null(kept["format"], "unknown"), kept["bytes"]))
        _merge(self.kept_of, _volumes(kept["source"], kept["bytes"]))
        width, height = (np.asarray(pc.fill_null(kept[side], 0)) for side in ("width", "height"))
        classes = np.searchsorted(SIDES, np.minimum(width, height), side="right") - 1
        self.sides.update(np.maximum(classes, 0).tolist())

    def _rank(self, unit: str, part: pa.Table) -> None:
        offers = [(ranked, rank, at) for ranked, rank, at in self._offers(part) if ranked.takes(rank)]
        wanted = sorted({at for _, _, at in offers})
        rows = dict(zip(wanted, ledger.rows_of(part.take(pa.array(wanted, pa.int64()))), strict=True))
        for ranked, rank, at in offers:
            ranked.offer(rank, (unit, rows[at]) if ranked is self.duplicates else rows[at])

    def _offers(self, part: pa.Table) -> Iterator[tuple[Smallest[Any], tuple[Any, ...], int]]:
        """(the list that may take it, its rank there, the row's place in the part)."""
        ties = list(zip(part["key"].to_pylist(), part["position"].to_pylist(), strict=True))
        ends = zip(part["stage"].to_pylist(), part["reason"].to_pylist(), part["seconds"].to_pylist(), strict=True)
        for at, (tie, (stage, reason, seconds)) in enumerate(zip(ties, ends, strict=True)):
            yield self.slow, (-seconds, *tie), at
            if reason != Reason.KEPT.value:
                yield self.examples[Reason(reason)], tie, at
            if stage == Stage.DUPLICATES.value:
                yield self.duplicates, tie, at
        for at, beyond in self._beyond(part):
            yield self.near, (beyond, *ties[at]), at

    def _beyond(self, part: pa.Table) -> Iterator[tuple[int, float]]:
        """Of each row refused by finite scores alone: its place in the part, and its `overshoot`."""
        low = np.flatnonzero(np.asarray(pc.equal(part["reason"], Reason.LOW_QUALITY.value)))
        refused = part.take(pa.array(low))
        computed = [metric for metric in self.histograms if METRIC_PREFIX + metric in part.column_names]
        scores = {metric: refused[METRIC_PREFIX + metric].to_pylist() for metric in computed}
        for place, at in enumerate(low.tolist()):
            known = {metric: column[place] for metric, column in scores.items() if column[place] is not None}
            if math.isfinite(beyond := overshoot(self.thresholds, known)):
                yield at, beyond


def _sum(column: pa.ChunkedArray) -> int:
    return int(pc.sum(column, min_count=0).as_py())


def _volumes(names: pa.ChunkedArray, sizes: pa.ChunkedArray) -> dict[str, Volume]:
    """Name -> its rows and their bytes."""
    grouped = pa.table({"name": names, "bytes": pc.fill_null(sizes, 0)}).group_by("name", use_threads=False)
    found = grouped.aggregate([("bytes", "count"), ("bytes", "sum")]).to_pylist()
    return {one["name"]: Volume(rows=one["bytes_count"], bytes=one["bytes_sum"]) for one in found}


def _merge(volumes: dict[str, Volume], more: Mapping[str, Volume]) -> None:
    for name, volume in more.items():
        volumes.setdefault(name, Volume()).merge(volume)


def _is_by_header(part: pa.Table) -> pa.ChunkedArray:
    """Of which rows no more than a file's first bytes were looked at.

    Where its length was not declared, none are spared.
    """
    looked_at = pc.or_(pc.is_valid(part["width"]), pc.equal(part["stage"], Stage.DECODE.value))
    return pc.and_(pc.is_null(part["bytes"]), looked_at)


def overshoot(thresholds: Thresholds, known: Mapping[str, float]) -> float:
    """How far the worst of the metrics that voted against lies beyond its threshold, as a share of it; 0.1 is 10 %.

    A threshold of 0 has no shares: there it is the plain distance. Infinite where a metric gave no number, or where
    none voted against.
    """
    scores = [(one, known[one.metric]) for one in thresholds.metrics if one.metric in known]
    if not all(math.isfinite(score) for _, score in scores):
        return math.inf
    beyond = [abs(score - one.bound) / (abs(one.bound) or 1.0) for one, score in scores if not one.passes(score)]
    return max(beyond, default=math.inf)
