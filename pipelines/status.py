"""How far a run is, told from its store alone: no Ray, no driver, nothing is written.

What is counted: chunks planned and committed, patches cut, shards (all from listings, exact). What is read: ledger
parts (`curation.progress`: of more than 512 a sample; then rows, bytes and retries are estimates).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from curation import chunks, ledger, pace, progress
from curation.pace import Outlook, Pace
from curation.progress import Counts, Seen
from curation.records import Reason
from curation.report.tally import Host
from pipelines import claims, cutting
from shards import manifest
from shards.publish import CARD
from shards.store import Store

HOSTS: Final = 5  # by seconds, and as many by failures


class Step(str, Enum):
    """Where a run stands, as far as a store shows it."""

    PLANNING = "planning"
    DOWNLOADING = "downloading and scoring"
    SETTLING = "settling"  # or ended there: settling leaves no mark
    CUTTING = "cutting"
    SHARDING = "sharding"
    SHARDED = "sharded"
    PUBLISHED = "published"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """What the committed rows came to; estimates where not every part was read, but for `committed`."""

    committed: int
    reasons: Mapping[Reason, int]
    kept_bytes: int
    bytes_read: int
    retry_rows: int
    retry_chunks: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """`units` cut and waiting for their shards, `shards` that are there, `samples` of the set's manifest if it has one.

    `unnamed` shards are in no manifest yet.
    """

    units: int
    shards: int
    unnamed: int
    version: int | None
    samples: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """What `dynet-filter status` says. `planned` and `rows_planned` are None where there is no plan (any more)."""

    store: str
    step: Step
    at: float  # seconds since 1970
    planned: int | None
    rows_planned: int | None
    chunks_written: int  # of the list, while it is planned
    committed: int
    read: int  # ledger parts
    sampled: bool
    rows: Rows
    recent: Pace | None
    overall: Pace | None
    outlook: Outlook
    hosts: Mapping[str, Host]
    cut: Cut
    broken: Mapping[str, str]


def status(store: Store, *, full: bool = False, now: float | None = None) -> Status:
    """Looks at a store. `full`: reads every ledger part. `now`: seconds since 1970.

    Raises ValueError for what is no store of dynet-filter or dynet-shard, StoreError where it can't be read.
    """
    at = time.time() if now is None else now
    plan = chunks.read_plan(store)
    units = _committed(store, plan)
    cut = _cut(store)
    if plan is None and not units and cut.version is None and not store.exists(claims.CLAIM):
        raise ValueError(f"{store.root} is no store of dynet-filter (no recipe, no ledger): give what its --out was")
    seen = progress.read(store, progress.choose(units, in_flight=_in_flight(units) if plan else 0, full=full))
    left = max(0, plan.chunks - len(units)) if plan else 0
    rows = _rows(seen.counts, _committed_rows(plan, units, seen.counts))
    wanted = set(seen.choice.last)
    last = [one for one in seen.commits if one.unit in wanted]
    recent = pace.recent(last, whole=seen.choice.whole)
    return Status(
        store=store.root,
        step=_step(store, plan, units, cut),
        at=at,
        planned=plan.chunks if plan else None,
        rows_planned=plan.rows if plan else None,
        chunks_written=0 if plan else sum(1 for _ in store.list(chunks.FOLDER)),
        committed=len(units),
        read=len(seen.commits),
        sampled=not seen.choice.whole,
        rows=rows,
        recent=recent,
        overall=_overall(seen, rows, len(units)),
        outlook=pace.outlook(last, recent, left, at),
        hosts=_worst(seen.counts),
        cut=cut,
        broken=seen.broken,
    )


def _committed(store: Store, plan: chunks.Plan | None) -> list[str]:
    """The units with a ledger part, ascending: of a plan, those that it has."""
    planned = set(plan.units()) if plan else None
    return [unit for unit in ledger.units(store) if planned is None or unit in planned]


def _in_flight(units: Sequence[str]) -> int:
    """Chunks are begun in order: those missing before the last committed one are being worked on."""
    return int(units[-1].rpartition("-")[2]) + 1 - len(units) if units else 0


def _committed_rows(plan: chunks.Plan | None, units: Sequence[str], counts: Counts) -> int:
    if plan is None:
        return counts.rows * len(units) // max(1, counts.parts)
    last = chunks.unit_name(plan.chunks - 1)
    missing = plan.chunks * plan.chunk_size - plan.rows if units and units[-1] == last else 0
    return len(units) * plan.chunk_size - missing


def _rows(counts: Counts, committed: int) -> Rows:
    """The sums, or (of a sample, or beside broken parts) what they would be for all committed rows."""
    scale = committed / counts.rows if counts.rows else 0.0
    return Rows(
        committed=committed,
        reasons={reason: round(count * scale) for reason, count in counts.reasons.items()},
        kept_bytes=round(counts.kept_bytes * scale),
        bytes_read=round(counts.bytes_read * scale),
        retry_rows=round(counts.retry_rows * scale),
        retry_chunks=round(counts.retry_parts * scale),
    )


def _overall(seen: Seen, rows: Rows, committed: int) -> Pace | None:
    """From the first row's end to the last commit, whatever pauses lie between."""
    dated = [one for one in seen.commits if one.ended]
    if len(dated) < pace.FEWEST:
        return None
    return Pace(
        seconds=max(one.ended for one in dated) - min(one.began for one in dated),
        chunks=committed,
        rows=rows.committed,
        kept=rows.reasons.get(Reason.KEPT, 0),
        bytes_read=rows.bytes_read,
    )


def _worst(counts: Counts) -> dict[str, Host]:
    """The hosts of the parts that were read, not scaled: what took most seconds, then what failed most."""
    return dict([*counts.hosts.slowest(HOSTS), *counts.hosts.most_failed(HOSTS)])


def _cut(store: Store) -> Cut:
    known = manifest.read_manifest(store) if store.exists(manifest.MANIFEST) else None
    named = {one.name for one in known.shards} if known else set()
    tars = {name.removeprefix(manifest.FOLDER) for name in store.list(manifest.FOLDER) if name.endswith(".tar")}
    return Cut(
        units=sum(1 for name in store.list(cutting.FOLDER) if _is_index(name)),
        shards=len(tars),
        unnamed=len(tars - named),
        version=known.version if known else None,
        samples=known.samples if known else None,
    )


def _is_index(name: str) -> bool:
    """A unit's index is its commit; its metadata lies beside it."""
    return name.endswith(".parquet") and not name.endswith(".metadata.parquet")


def _step(store: Store, plan: chunks.Plan | None, units: Sequence[str], cut: Cut) -> Step:
    if plan is None and not units:
        if cut.version is None:
            return Step.PLANNING
        return Step.PUBLISHED if store.exists(CARD) else Step.SHARDED
    if plan is not None and len(units) < plan.chunks:
        return Step.DOWNLOADING
    if cut.units:
        return Step.SHARDING if cut.unnamed else Step.CUTTING
    return Step.SETTLING if cut.version is None else Step.SHARDED
