"""Pictures removed from a set on request, in an order that a kill at any moment leaves to be gone through again.

    requests    what is asked for, and the bytes behind asked links    forgotten.parquet
    set         tombstones, metadata without the pictures; with --purge the touched tars and the index, anew
    manifest    the new version, last: from now on no epoch yields them
    ledger      rows become FORGOTTEN; with --purge their originals and thumbnails go first

All of what was ever asked for is applied each time, so a second run does what a killed one left, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from curation import forgotten, ledger, originals, rejects
from curation.forgotten import Requests
from curation.records import Reason
from pipelines import cutting
from pipelines.cluster import connected, each
from shards import index, manifest, parquet, removal, tombstones
from shards.manifest import Manifest, Part, Version
from shards.store import Store

Watch = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgetJob:
    """What to forget in a store's set and ledger. `purge`: the bytes go too, also those of earlier requests."""

    store: Store
    asked: Requests
    purge: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Gone:
    """A picture of the set that goes, as its metadata has it."""

    key: str
    url: str
    sha256: str | None
    patches: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Forgot:
    """What it came to. `version`: of the set now, None where there is no set; `before`: of the set as it was."""

    gone: tuple[Gone, ...]
    before: int | None
    version: int | None
    purged: int  # shards written anew
    rows: int  # of the ledger that became FORGOTTEN
    originals: int  # files of kept originals and thumbnails that were deleted


@dataclass(frozen=True, kw_only=True, slots=True)
class _Marked:
    rows: int
    originals: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """A new version in the making. `touched`: numbers of shards to be purged."""

    known: Manifest
    gone: tuple[Gone, ...]
    removed: np.ndarray = field(repr=False)
    touched: tuple[int, ...]

    @property
    def versions(self) -> tuple[Version, ...]:
        one = Version(number=self.known.version + 1, shards=len(self.known.shards), tombstones=len(self.removed))
        return (*self.known.versions, one)


def forget(job: ForgetJob, watch: Watch) -> Forgot:
    """The whole flow. `watch(units in all, units done)` follows the ledger.

    Raises ValueError where the store has neither a set nor a ledger, or a shard to be purged is damaged.
    """
    store = job.store
    known = manifest.read_manifest(store) if store.exists(manifest.MANIFEST) else None
    units = list(ledger.units(store))
    if known is None and not units:
        raise ValueError(f"{store.root} has neither shards nor a ledger: name the store that has the pictures")
    store.sweep()
    cutting.clear(store)  # of a killed run: they may hold what is asked for
    with connected():
        asked = _with_bytes(job, known, units)
        forgotten.write(store, asked)
        gone, purged, now = _remove(job, known, asked) if known else ((), 0, None)
        sent = ray.put(asked)  # once, however many units there are
        calls = [(store, unit, sent, job.purge) for unit in units]
        marked: list[_Marked] = list(each(forget_unit, calls, watch))
    return Forgot(
        gone=gone,
        before=known.version if known else None,
        version=now.version if now else None,
        purged=purged,
        rows=sum(one.rows for one in marked),
        originals=sum(one.originals for one in marked),
    )


def _with_bytes(job: ForgetJob, known: Manifest | None, units: Sequence[str]) -> Requests:
    """All that was ever asked for, and the SHA-256 of the pictures behind the links that are asked for now."""
    before = forgotten.read(job.store)
    fresh = job.asked.keys - before.keys
    found = set[str]()
    if fresh:
        found = {one.sha256 for one in _described(job.store, known) if one.key in fresh and one.sha256}
        sent = ray.put(fresh)
        for digests in each(digests_of, [(job.store, unit, sent) for unit in units], lambda total, done: None):
            found |= digests
    return before | job.asked | Requests(sha256=frozenset(found))


@ray.remote(num_cpus=1, max_retries=20)
def digests_of(store: Store, unit: str, keys: frozenset[str]) -> set[str]:
    """The SHA-256 of those of a ledger part's files that these links gave."""
    return {row.sha256 for row in ledger.read(store, unit) if row.link.key in keys and row.sha256}


def _described(store: Store, known: Manifest | None) -> Iterator[Gone]:
    for table in parquet.read(store, known.metadata, ["key", "url", "sha256", "patches"]) if known else ():
        yield from (Gone(**row) for row in table.to_pylist())


def _remove(job: ForgetJob, known: Manifest, asked: Requests) -> tuple[tuple[Gone, ...], int, Manifest]:
    """Commits a new version where there is anything to remove. What goes, how many shards were purged, the set."""
    gone = tuple(one for one in _described(job.store, known) if asked.cover(one.url, one.sha256))
    removed = tombstones.read(job.store, known)
    if gone:
        keys = {one.key for one in gone}
        removed = removal.places_of(job.store, known, keys, removed, known.version + 1)
    touched = tuple(removal.unpurged(job.store, known, removed)) if job.purge else ()
    made = known
    if gone or touched:
        made = _next_version(job.store, _Plan(known=known, gone=gone, removed=removed, touched=touched))
        manifest.commit(job.store, made)
    manifest.tidy(job.store, made)
    return gone, len(touched), made


def _next_version(store: Store, plan: _Plan) -> Manifest:
    """Writes all files of the new version; its manifest, to be committed."""
    known, versions = plan.known, plan.versions
    shards, tables = list(known.shards), dict[int, pa.Table]()
    sent, removed = ray.put(known), ray.put(plan.removed)
    calls = [(store, sent, number, removed, versions[-1].number) for number in plan.touched]
    for number, (shard, table) in zip(plan.touched, each(purge_shard, calls, lambda total, done: None), strict=True):
        shards[number], tables[number] = shard, table
    rows = (tables.get(number, table) for number, table in enumerate(index.read(store, known)))
    return replace(
        known,
        shards=tuple(shards),
        index=index.write(store, known.set, versions, rows) if tables else known.index,
        metadata=_without(store, plan) if plan.gone else known.metadata,
        tombstones=tombstones.write(store, versions, plan.removed) if len(plan.removed) else None,
        versions=versions,
    )


@ray.remote(num_cpus=1, max_retries=20)
def purge_shard(
    store: Store, known: Manifest, number: int, removed: np.ndarray, version: int
) -> tuple[manifest.Shard, pa.Table]:
    """See `shards.removal.purge`."""
    return removal.purge(store, known, number, removed, version)


def _without(store: Store, plan: _Plan) -> Part:
    """The metadata without the pictures that go."""
    part, keys = plan.known.metadata, pa.array(sorted(one.key for one in plan.gone))
    stay = (table.filter(pc.invert(pc.is_in(table["key"], keys))) for table in parquet.read(store, part))
    name = manifest.part_name("metadata", plan.versions)
    return parquet.write(store, name, parquet.schema_of(store, part), parquet.regrouped(stay))


@ray.remote(num_cpus=1, max_retries=20)
def forget_unit(store: Store, unit: str, asked: Requests, purge: bool) -> _Marked:
    """Marks the rows of a ledger part; with `purge` after their originals and thumbnails are gone."""
    before = ledger.read(store, unit)
    rows = [forgotten.marked(row, asked) for row in before]
    fresh = sum(new is not old for new, old in zip(rows, before, strict=True))
    deleted = 0
    if purge:
        keys = {row.link.key for row in rows if row.reason is Reason.FORGOTTEN}
        deleted = originals.remove(store, unit, keys) // 2 + rejects.remove(store, unit, keys)
        rows = [replace(row, stored=False) if row.link.key in keys and row.stored else row for row in rows]
    if any(new is not old for new, old in zip(rows, before, strict=True)):
        ledger.rewrite(store, unit, rows)
    return _Marked(rows=fresh, originals=deleted)
