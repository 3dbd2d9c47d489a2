"""What `shards.fsck` found, mended from the kept originals, on Ray, one task a broken shard.

    shards      intact samples of the damaged tar, all others cut again from their originals
    index       read off the tars, once all of these are whole
    metadata    made again from the sources' rows
    orphans     deleted

Nothing takes the place of a shard but the very bytes that the manifest names: what comes out otherwise is not written,
and is said. An index read off whole tars that has other bytes (another release of Arrow) becomes a new version.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayTaskError

from curation import forgotten, metadata
from curation.duplicates import DEFAULT_MAX_DISTANCE
from curation.folders import Folder
from curation.records import Row
from curation.sources import FilteredStore, PictureFolder, Source, duplicates_across
from pipelines import cutting
from pipelines.cluster import connected, each
from pipelines.cutting import CutUnit
from pipelines.recipes import ShardRecipe
from pipelines.shard import cut_units
from shards import entropy, fsck, index, manifest, parquet, removal, tar, tombstones
from shards.format import JSON_SUFFIX, from_json
from shards.fsck import Finding, Kind
from shards.index import Entry
from shards.manifest import FOLDER, Manifest, ManifestError, Part, Shard, Version
from shards.spool import sha256_of, spool
from shards.store import LocalStore, Store, StoreError

Watch = Callable[[int, int], None]

_OTHER_BYTES: Final = (
    "what comes of its originals has other bytes: they, the scores or the release that cut them changed"
)
_WHOLE: Final = frozenset({Kind.MISSING, Kind.TRUNCATED, Kind.ALTERED})


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairJob:
    """A set and where its pictures came from: the stores, then the folders, as in the command that made it."""

    store: Store
    stores: tuple[Store, ...]
    folders: tuple[Folder, ...]
    max_pixels: int

    @property
    def sources(self) -> list[Source]:
        """Raises ValueError for a folder that isn't there."""
        plain = (PictureFolder(folder=one, store=self.store, files=len(one.files())) for one in self.folders)
        return [*(FilteredStore(store=store) for store in self.stores), *plain]


@dataclass(frozen=True, kw_only=True, slots=True)
class Repaired:
    """`mended`: objects that are whole again, or orphans that are gone. `refused`: object -> why it is not mended."""

    mended: tuple[str, ...]
    refused: Mapping[str, str]
    left: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lent:
    """Pictures of one unit that a shard needs."""

    unit: CutUnit
    rows: tuple[Row, ...]


def repair(job: RepairJob, findings: Sequence[Finding], watch: Watch) -> Repaired:
    """Mends what can be. `watch(shards in all, shards done)` follows the broken ones.

    Raises ValueError for a folder that isn't there, StoreError where the store can't be used.
    """
    job.store.sweep()
    known = manifest.read_manifest(job.store)
    with connected():
        outcome = _mend_shards(job, known, findings, watch)
        outcome |= _mend_tables(job, known, findings, outcome)
    for name in {one.name for one in findings if one.kind is Kind.ORPHAN and one.sample is None}:
        job.store.delete(name)
        outcome[name] = ""
    mended = {name for name, why in outcome.items() if not why}
    return Repaired(
        mended=tuple(sorted(mended)),
        refused={name: why for name, why in outcome.items() if why},
        left=tuple(_left(job.store, known, findings, mended)),
    )


def _mend_tables(
    job: RepairJob, known: Manifest, findings: Sequence[Finding], shards: Mapping[str, str]
) -> dict[str, str]:
    """The same of the index, and of the metadata where it still disagrees then; `shards`: the outcome of those."""
    outcome: dict[str, str] = {}
    if any(one.name == FOLDER + known.index.name for one in findings):
        outcome[FOLDER + known.index.name] = _mend_index(job.store, known, shards)
        known = manifest.read_manifest(job.store)
    name = FOLDER + known.metadata.name
    broken = any(one.name == name and one.kind in _WHOLE for one in findings)
    if broken or any(one.name == name for one in fsck.check_tables(job.store, known)):
        outcome[name] = _mend_metadata(job, known)
    return outcome


def _left(store: Store, known: Manifest, findings: Sequence[Finding], mended: set[str]) -> list[Finding]:
    """What is still wrong. How tables agree is asked anew: what seemed one's fault may have been another's."""
    tables = {FOLDER + part.name for part in (known.metadata, known.tombstones) if part is not None}
    left = [one for one in findings if one.name not in mended and not (one.name in tables and one.kind not in _WHOLE)]
    disagree = fsck.check_tables(store, manifest.read_manifest(store))
    return [*left, *(one for one in disagree if one not in left)]


def _mend_shards(job: RepairJob, known: Manifest, findings: Sequence[Finding], watch: Watch) -> dict[str, str]:
    """Object -> why it is not mended, empty where it is."""
    names = {one.name for one in findings if one.kind in _WHOLE and one.sample is None}
    broken = [number for number, shard in enumerate(known.shards) if FOLDER + shard.name in names]
    read = {number: fsck.entries_of(job.store, known, number) for number in broken}
    entries = {number: rows for number, rows in read.items() if rows is not None}
    outcome = {FOLDER + known.shards[number].name: "the index can't be read" for number in broken}
    if entries:
        lent = _lent(job, known, entries)
        calls = [(job.store, _damaged(job, known, number, entries[number], lent[number])) for number in entries]
        reasons = each(rebuild_shard, calls, watch)
        outcome |= {FOLDER + known.shards[number].name: why for number, why in zip(entries, reasons, strict=True)}
    return outcome


def _damaged(job: RepairJob, known: Manifest, number: int, entries: Sequence[Entry], lent: Sequence[Lent]) -> Damaged:
    return Damaged(
        shard=known.shards[number],
        entries=tuple(entries),
        lent=tuple(lent),
        recipe=_recipe(known),
        max_pixels=job.max_pixels,
    )


def _recipe(known: Manifest) -> ShardRecipe:
    try:
        return ShardRecipe(**{one.name: known.recipe[one.name] for one in fields(ShardRecipe)})
    except KeyError as error:
        raise ValueError(f"the manifest does not say how the set was cut ({error} is not in its recipe)") from error


def _lent(job: RepairJob, known: Manifest, entries: Mapping[int, Sequence[Entry]]) -> dict[int, list[Lent]]:
    """Shard -> the pictures it was made of, as far as the metadata and the sources have them."""
    units = {unit.name: unit for unit in cut_units(job.sources, {})}
    keys = {number: {one.key for one in rows} for number, rows in entries.items()}
    wanted = set[str]().union(*keys.values())
    rows = _described(job.store, known, wanted)
    if lost := wanted - rows.keys():  # forgotten pictures in a tar that was not purged, or broken metadata
        rows |= {
            row.link.key: (unit.name, row)
            for unit in units.values()
            for row in unit.source.rows(unit.unit)
            if row.was_kept and row.link.key in lost
        }
    return {number: _by_unit(units, [rows[key] for key in sorted(of & rows.keys())]) for number, of in keys.items()}


def _described(store: Store, known: Manifest, keys: set[str]) -> dict[str, tuple[str, Row]]:
    try:
        tables = parquet.read(store, known.metadata)
        return {row.link.key: (unit, row) for one in tables for unit, row in metadata.rows(one) if row.link.key in keys}
    except StoreError:
        raise
    except fsck.UNREADABLE:
        return {}


def _by_unit(units: Mapping[str, CutUnit], rows: Sequence[tuple[str, Row]]) -> list[Lent]:
    grouped: dict[str, list[Row]] = {}
    for name, row in rows:
        grouped.setdefault(name, []).append(row)
    return [Lent(unit=units[name], rows=tuple(some)) for name, some in grouped.items() if name in units]


@dataclass(frozen=True, kw_only=True, slots=True)
class Damaged:
    """A shard to be rebuilt, by what the index and the sources have of it."""

    shard: Shard
    entries: tuple[Entry, ...]
    lent: tuple[Lent, ...]
    recipe: ShardRecipe
    max_pixels: int


@ray.remote(num_cpus=1, max_retries=20)
def rebuild_shard(store: Store, damaged: Damaged) -> str:
    """Writes the shard if its very bytes come out; else says why not."""
    name = FOLDER + damaged.shard.name
    with tempfile.TemporaryDirectory(prefix="million-ird-") as folder:
        old, new = Path(folder) / "old.tar", Path(folder) / "new.tar"
        intact = _intact(store, damaged, old)
        why = _rebuilt(damaged, intact, old, new)
        if why == _OTHER_BYTES and intact:  # a description has no digest: it may be altered and still be read
            why = _rebuilt(damaged, set(), old, new)
        if not why:
            store.write(name, new)
    return why


def _intact(store: Store, damaged: Damaged, old: Path) -> set[str]:
    """The samples that the damaged tar still has, as the index describes them."""
    try:
        spool(store, FOLDER + damaged.shard.name, old)
    except FileNotFoundError:
        return set()
    return {one.sample for one in damaged.entries if not fsck.fault_of(old, one)}


def _rebuilt(damaged: Damaged, intact: set[str], old: Path, new: Path) -> str:
    """Writes the file `new`; why it is not the shard, empty where it is."""
    broken = {one.sample for one in damaged.entries} - intact
    with tempfile.TemporaryDirectory(prefix="million-ird-", dir=new.parent) as folder:
        faults = [fault for lent in damaged.lent for fault in _cut(damaged, lent, broken, Path(folder))]
        if lost := sorted(sample for sample in broken if not (Path(folder) / f"{sample}.{JSON_SUFFIX}").exists()):
            said = (
                "; ".join(faults) or "no source given has their pictures: give those of the command that made the set"
            )
            return f"{len(lost)} samples can't be had (the first: {lost[0]}): {said}"
        tar.write(new, _members(damaged.entries, broken, old, Path(folder)))
    return "" if sha256_of(new) == damaged.shard.sha256 else _OTHER_BYTES


def _cut(damaged: Damaged, lent: Lent, broken: set[str], folder: Path) -> Iterator[str]:
    """Puts the broken samples' members into `folder`; what went wrong."""
    keys = {sample.partition("_")[0] for sample in broken}
    digests = {f"{one.sample}.{one.suffix}": one.digest for one in damaged.entries}
    rows = [row for row in lent.rows if row.link.key in keys]
    try:
        for row, body in lent.unit.source.bodies(lent.unit.unit, rows) if rows else ():
            cut = cutting.patches_of(row, body, damaged.recipe, damaged.max_pixels)
            for name, data in cutting.members_of(row, cut):
                if name.partition(".")[0] in broken:
                    (folder / name).write_bytes(_as_cut(data, digests.get(name)))
    except StoreError:
        raise
    except ValueError as error:
        yield str(error)


def _as_cut(data: bytes, digest: str | None) -> bytes:
    """A patch in the form that the index names: those of earlier releases don't say how long their rows are."""
    older = entropy.without_rows(data)
    return older if tar.digest(older) == digest else data


def _members(entries: Sequence[Entry], broken: set[str], old: Path, folder: Path) -> Iterator[tuple[str, bytes]]:
    for one in entries:
        if one.sample in broken:
            for suffix in sorted((one.suffix, JSON_SUFFIX)):
                yield f"{one.sample}.{suffix}", (folder / f"{one.sample}.{suffix}").read_bytes()
        else:
            yield from removal.members_at(old, [one])


def _mend_metadata(job: RepairJob, known: Manifest) -> str:
    """Makes it again from the sources' rows and the index; why that is not it, empty where it is."""
    sources = job.sources
    asked = forgotten.read(job.store)
    try:
        counts = Counter(key for one in index.read(job.store, known, ["key"]) for key in one["key"].to_pylist())
    except StoreError:
        raise
    except fsck.UNREADABLE:
        return "the index can't be read"
    units = cut_units(sources, duplicates_across(sources, DEFAULT_MAX_DISTANCE))[: known.recipe.get("units", 0)]

    def tables() -> Iterator[pa.Table]:
        for unit in units:
            rows = cutting.remaining(cutting.wanted(unit, _recipe(known)), asked)
            yield metadata.table(rows, unit.name, counts)

    schema = metadata.common_schema([table.schema for table in tables()]) if units else pa.schema([])
    conformed = (metadata.conformed(table, schema) for table in tables())
    return _put_if_same(job.store, known.metadata, schema, parquet.regrouped(conformed))


def _put_if_same(store: Store, part: Part, schema: pa.Schema, tables: Iterator[pa.Table]) -> str:
    with tempfile.TemporaryDirectory(prefix="million-ird-") as folder:
        made = parquet.write(LocalStore(Path(folder)), part.name, schema, tables)
        if made != part:
            return "what comes of the sources has other bytes: give those of the command that made the set"
        store.write(FOLDER + part.name, Path(folder) / FOLDER / part.name)
    return ""


def _mend_index(store: Store, known: Manifest, outcome: Mapping[str, str]) -> str:
    """Reads it off the tars; why that can't be, empty where it is done."""
    if broken := [shard.name for shard in known.shards if outcome.get(FOLDER + shard.name)]:
        return f"{broken[0]} is not whole"
    try:
        removed = tombstones.read(store, known)
    except ManifestError as error:
        return str(error)
    sent, dead = ray.put(known), ray.put(removed)
    calls = [(store, sent, number, dead) for number in range(len(known.shards))]
    with tempfile.TemporaryDirectory(prefix="million-ird-") as folder:
        local = LocalStore(Path(folder))
        tables = each(read_off, calls, lambda total, done: None)
        try:
            made = parquet.write(local, known.index.name, index.schema_of(known.set), tables)
        except StoreError:
            raise
        except ValueError as error:
            return str(error.cause if isinstance(error, RayTaskError) else error)
        file = Path(folder) / FOLDER / made.name
        if made == known.index:
            store.write(FOLDER + made.name, file)
        else:
            _commit_index(store, known, file)
    return ""


def _commit_index(store: Store, known: Manifest, file: Path) -> None:
    last = known.versions[-1]
    versions = (*known.versions, Version(number=last.number + 1, shards=last.shards, tombstones=last.tombstones))
    name = manifest.part_name("index", versions)
    written = store.write(FOLDER + name, file)
    part = Part(name=name, bytes=written.size, sha256=written.sha256)
    made = replace(known, index=part, versions=versions)
    manifest.commit(store, made)
    manifest.tidy(store, made)


@ray.remote(num_cpus=1, max_retries=20)
def read_off(store: Store, known: Manifest, number: int, removed: np.ndarray) -> pa.Table:
    """The rows of the index that a whole tar gives. Raises TarError where its members are no samples."""
    shard = known.shards[number]
    with tempfile.TemporaryDirectory(prefix="million-ird-") as folder:
        path = Path(folder) / "shard.tar"
        spool(store, FOLDER + shard.name, path)
        slots = removal.slots_left(shard, number, removed)
        with path.open("rb") as file:
            members = tar.members(file)
            entries = [
                _entry(number, slot, one, other)
                for slot, (one, other) in zip(slots, zip(members, members, strict=True), strict=True)
            ]
    return index.to_table(entries)


def _entry(number: int, slot: int, one: tar.Member, other: tar.Member) -> Entry:
    data, text = (one, other) if other.name.endswith(f".{JSON_SUFFIX}") else (other, one)
    sample, _, suffix = data.name.partition(".")
    said = from_json(text.data)
    return Entry(
        sample=sample,
        key=said.key,
        source=said.source,
        shard=number,
        slot=slot,
        suffix=suffix,
        digest=tar.digest(data.data),
        data_offset=data.offset,
        data_size=len(data.data),
        json_offset=text.offset,
        json_size=len(text.data),
    )
