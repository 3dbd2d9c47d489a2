"""How far a ledger is: its parts, read one by one, eight columns of each, in memory that does not grow with rows.

Up to 512 parts all are read. Of more, 256 that lie evenly over the list tell rows, bytes, retries and hosts, and the
last ones tell the pace: 256 of them, or four times as many as are being worked on, 2,048 at most. A list of 1.7e8 URLs
has 17,000 parts of 10,000 rows; a look at it costs some hundred requests, not 17,000.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation import ledger
from curation.records import TRANSIENT, Reason, Stage
from curation.report.tally import Hosts
from shards.store import Store

ALL: Final = 512  # parts that are all read
SPREAD: Final = 256
LAST: Final = 256
MOST_LAST: Final = 2048

_AT_ONCE: Final = 8  # requests; as many parts are in memory
_COLUMNS: Final = ["url", "stage", "reason", "stored", "bytes", "seconds", "bytes_read", "ended"]
_HOST: Final = r"^[^:/]+://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^:/?#]*)"
_OPEN: Final = pa.array([Reason.NOT_MEASURED.value, Reason.NOT_STORED.value])
_TRANSIENT: Final = pa.array(sorted(reason.value for reason in TRANSIENT))


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """One ledger part in numbers. Times are seconds since 1970, of its rows' ends: 0 where no row was looked at."""

    unit: str
    reasons: Mapping[Reason, int]
    kept_bytes: int
    bytes_read: int
    retry: int  # rows that --retry-failed would take
    began: float
    ended: float

    @property
    def rows(self) -> int:
        return sum(self.reasons.values())

    @property
    def kept(self) -> int:
        return self.reasons.get(Reason.KEPT, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The parts to read: those that tell the rows, and those that tell the pace. Both ascending."""

    spread: tuple[str, ...]
    last: tuple[str, ...]
    whole: bool  # both are all there is


@dataclass(kw_only=True, slots=True)
class Counts:
    """The sums over the parts that tell the rows."""

    parts: int = 0
    rows: int = 0
    reasons: Counter[Reason] = field(default_factory=Counter)
    kept_bytes: int = 0
    bytes_read: int = 0
    retry_rows: int = 0
    retry_parts: int = 0
    hosts: Hosts = field(default_factory=Hosts)

    def add(self, commit: Commit) -> None:
        self.parts += 1
        self.rows += commit.rows
        self.reasons.update(commit.reasons)
        self.kept_bytes += commit.kept_bytes
        self.bytes_read += commit.bytes_read
        self.retry_rows += commit.retry
        self.retry_parts += commit.retry > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What was read. `commits` holds each part read, `broken` the name of each that can't be, and why."""

    choice: Choice
    counts: Counts
    commits: tuple[Commit, ...]
    broken: Mapping[str, str]


def choose(units: Sequence[str], *, in_flight: int, full: bool) -> Choice:
    """Which of these committed units (ascending) to read. `in_flight`: how many are begun and not committed."""
    last = min(max(LAST, 4 * in_flight), MOST_LAST)
    if full or len(units) <= ALL:
        return Choice(spread=tuple(units), last=tuple(units), whole=True)
    step = (len(units) - 1) / (SPREAD - 1)
    return Choice(
        spread=tuple(units[round(number * step)] for number in range(SPREAD)),
        last=tuple(units[-last:]),
        whole=False,
    )


def read(store: Store, choice: Choice) -> Seen:
    """Reads the chosen parts. One that is broken is named and left out. Raises StoreError."""
    counts, commits, broken = Counts(), [], {}
    telling = set(choice.spread)
    for unit, data in _bodies(store, sorted({*choice.spread, *choice.last})):
        try:
            table = _columns(data)
            commit = _commit(unit, table)
        except (pa.ArrowInvalid, OSError, KeyError, ValueError) as error:
            broken[ledger.part_name(unit)] = " ".join(str(error).split())
            continue
        commits.append(commit)
        if unit in telling:
            counts.add(commit)
            _add_hosts(counts.hosts, table)
    return Seen(choice=choice, counts=counts, commits=tuple(commits), broken=broken)


def retryable(store: Store, units: Iterable[str]) -> Iterator[str]:
    """Those of the units that have a row which `--retry-failed` would take. Raises ValueError for a broken part."""
    for unit, data in ledger.bodies(store, units):
        try:
            table = pq.ParquetFile(io.BytesIO(data), pre_buffer=False).read(["reason", "stored"], use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            name = f"{store.root}/{ledger.part_name(unit)}"
            raise ValueError(f"{name} is no ledger part ({error}): remove it and run the filter again") from error
        if _sum(_again(table)):
            yield unit


def _again(table: pa.Table) -> pa.ChunkedArray:
    """(rows,) bool: what failed for a passing reason and has no original here."""
    return pc.and_(pc.is_in(table["reason"], _TRANSIENT), pc.invert(table["stored"]))


def _bodies(store: Store, units: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Whole parts: a part is small, and on S3 a second request costs more than the columns that it would spare."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ledger") as pool:
        for at in range(0, len(units), _AT_ONCE):
            batch = units[at : at + _AT_ONCE]
            yield from zip(batch, pool.map(store.read, map(ledger.part_name, batch)), strict=True)


def _columns(data: bytes) -> pa.Table:
    """Read in this thread: see `shards.parquet`. Raises KeyError for a part of another schema."""
    file = pq.ParquetFile(io.BytesIO(data), pre_buffer=False)
    return file.read(columns=_COLUMNS, use_threads=False).select(_COLUMNS)


def _commit(unit: str, table: pa.Table) -> Commit:
    looked_at = table["ended"].filter(pc.greater(table["ended"], 0.0))
    span = pc.min_max(looked_at).as_py() if len(looked_at) else {"min": 0.0, "max": 0.0}
    counted = {Reason(one["values"]): one["counts"] for one in pc.value_counts(table["reason"]).to_pylist()}
    kept = pc.equal(table["reason"], Reason.KEPT.value)
    return Commit(
        unit=unit,
        reasons=counted,
        kept_bytes=_sum(table["bytes"].filter(kept)),
        bytes_read=_sum(table["bytes_read"]),
        retry=_sum(_again(table)),
        began=span["min"],
        ended=span["max"],
    )


def _sum(column: pa.ChunkedArray) -> int:
    return int(pc.sum(column, min_count=0).as_py())


def _add_hosts(hosts: Hosts, table: pa.Table) -> None:
    """Rows that a download was tried for, by host."""
    tried = pc.and_(pc.not_equal(table["stage"], Stage.LIST.value), pc.invert(pc.is_in(table["reason"], _OPEN)))
    table = table.filter(tried)
    names = pc.struct_field(pc.extract_regex(table["url"], _HOST), "host")
    hosts.add(pc.utf8_lower(pc.fill_null(names, "none")), table)
