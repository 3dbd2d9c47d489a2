"""Whether a set is what its manifest says: every object by SHA-256, every sample by the index, tables by each other.

Each shard is read once, through a file on this machine's disk, one shard at a time: 1 GB of disk, and memory for one
sample and the names of all (32 bytes each: 260 MB for the paper's 8 M). Nothing is written to the store.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from shards import index, parquet, tar, tombstones
from shards.format import DATA_SUFFIXES, JSON_SUFFIX, FormatError, from_json, parse_name
from shards.index import Entry
from shards.manifest import FOLDER, Manifest, Part, Shard, read_manifest, unnamed
from shards.spool import spool
from shards.store import Store, StoreError, Written

Watch = Callable[[int, int], None]

_SAMPLE: Final = "S28"  # <16 hex digits>_00000_00000
_KEY: Final = "S16"
#: What a damaged Parquet file may raise, a text that is no UTF-8 among it.
UNREADABLE: Final = (pa.ArrowException, ValueError, TypeError, KeyError)


class Kind(str, Enum):
    """What can be wrong."""

    MISSING = "missing"  # an object that the manifest names
    TRUNCATED = "truncated"  # shorter than the manifest says
    ALTERED = "altered"  # other bytes than the manifest or the index says
    UNORDERED = "unordered"  # members that are not in the order of their names
    DUPLICATE = "duplicate"  # one name for two members, or for samples of two shards
    REFUSED = "refused"  # a member with a name that no shard has: a path, odd characters
    ORPHAN = "orphan"  # an object that the manifest doesn't name, or a sample that the index doesn't
    LOST = "lost"  # a row of the index without its sample
    DISAGREES = "disagrees"  # tables that say different things


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong with the object `name`: with it as a whole, or with one sample or picture in it."""

    kind: Kind
    name: str
    sample: str | None = None
    detail: str = ""

    def __str__(self) -> str:
        within = f" {self.sample}" if self.sample else ""
        return f"{self.kind.value}: {self.name}{within}{': ' + self.detail if self.detail else ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """A shard as read. `samples`: the names in it, as `_SAMPLE`; those of the index where it can't be read."""

    findings: tuple[Finding, ...]
    samples: np.ndarray = field(repr=False)


def check(store: Store, watch: Watch) -> list[Finding]:
    """All that is wrong with the store's set. `watch(shards in all, shards read)` follows.

    Raises ManifestError where there is no manifest that can be read, StoreError where the store can't be used.
    """
    known = read_manifest(store)
    findings = [_orphan(name) for name in unnamed(store, known)]
    for part in _parts(known):
        findings += check_part(store, part)
    samples = []
    for number in range(len(known.shards)):
        one = check_shard(store, known, number, entries_of(store, known, number))
        findings += one.findings
        samples.append(one.samples)
        watch(len(known.shards), number + 1)
    findings += _among(known.shards, samples)
    return findings + check_tables(store, known)


def check_part(store: Store, part: Part | Shard) -> list[Finding]:
    """Whether the object has the bytes that the manifest says."""
    with tempfile.TemporaryDirectory(prefix="million-ird-") as folder:
        try:
            written = spool(store, FOLDER + part.name, Path(folder) / "part")
        except FileNotFoundError:
            return [Finding(kind=Kind.MISSING, name=FOLDER + part.name, detail="the manifest names it")]
    return _as_a_whole(part, written)


def check_shard(store: Store, known: Manifest, number: int, entries: Sequence[Entry] | None) -> Checked:
    """Shard `number` as a whole, as a tar, and sample by sample; `entries` None: the index can't be read."""
    shard, rows = known.shards[number], entries or ()
    with tempfile.TemporaryDirectory(prefix="million-ird-") as folder:
        path = Path(folder) / "shard.tar"
        try:
            written = spool(store, FOLDER + shard.name, path)
        except FileNotFoundError:
            missing = Finding(kind=Kind.MISSING, name=FOLDER + shard.name, detail="the manifest names it")
            return Checked(findings=(missing,), samples=np.array([one.sample for one in rows], _SAMPLE))
        findings = _as_a_whole(shard, written)
        guilty = FOLDER + (shard.name if findings else known.index.name)
        listing = _listing(path, FOLDER + shard.name)
        findings += listing.findings
        if entries is not None:
            findings += [*_rows(known, number, entries), *_against(entries, listing, guilty)]
            findings += _by_sample(path, entries, guilty)
    names = listing.samples if listing.is_whole else {*listing.samples, *(one.sample for one in rows)}
    return Checked(findings=tuple(findings), samples=np.array(sorted(names), _SAMPLE))


def entries_of(store: Store, known: Manifest, number: int) -> list[Entry] | None:
    """The rows of shard `number`, None where the index, damaged, doesn't give them."""
    try:
        return index.from_table(index.read_one(store, known, number).select(index.SCHEMA.names).cast(index.SCHEMA))
    except StoreError:
        raise
    except UNREADABLE:
        return None


def fault_of(path: Path, entry: Entry) -> str:
    """What is wrong with a sample's bytes at their place in the file; empty where nothing is."""
    if not _lies_within(entry, path.stat().st_size):
        return "it lies beyond the end"
    with path.open("rb") as file:
        file.seek(entry.data_offset)
        if tar.digest(file.read(entry.data_size)) != entry.digest:
            return f"its {entry.suffix} has other bytes than the index says"
        file.seek(entry.json_offset)
        text = file.read(entry.json_size)
    return _misdescribed(text, entry.sample)


def check_tables(store: Store, known: Manifest) -> list[Finding]:
    """Index, metadata and tombstones against each other; nothing where one of them can't be read."""
    try:
        dead = tombstones.read(store, known)
        keys, counts = _alive(store, known, dead)
        described, patches = _described(store, known)
    except StoreError:
        raise
    except UNREADABLE:
        return []  # `check_part` says so
    name = FOLDER + known.metadata.name
    findings = [
        _picture(name, key, "it has more than one row") for key in described[1:][described[1:] == described[:-1]]
    ]
    said = np.zeros(len(keys), np.int64)
    there = np.isin(keys, described)
    said[there] = patches[np.searchsorted(described, keys[there])]
    findings += [_picture(name, key, "the index has its patches, and it has no row") for key in keys[~there]]
    odd = there & (said != counts)
    findings += [
        _picture(name, key, f"it says {a} patches, the index has {b}")
        for key, a, b in zip(keys[odd], said[odd], counts[odd], strict=True)
    ]
    alone = (patches > 0) & ~np.isin(described, keys)
    findings += [_picture(name, key, "it says patches, the index has none") for key in described[alone]]
    return [*findings, *_removed(known, dead)]


def _parts(known: Manifest) -> tuple[Part, ...]:
    return (known.index, known.metadata, *((known.tombstones,) if known.tombstones else ()))


def _orphan(name: str) -> Finding:
    return Finding(kind=Kind.ORPHAN, name=name, detail="the manifest doesn't name it")


def _as_a_whole(part: Part | Shard, written: Written) -> list[Finding]:
    name = FOLDER + part.name
    if written.size < part.bytes:
        return [Finding(kind=Kind.TRUNCATED, name=name, detail=f"{written.size} of {part.bytes} bytes are there")]
    if (written.size, written.sha256) != (part.bytes, part.sha256):
        said = "" if written.size == part.bytes else f"; it has {written.size} bytes instead of {part.bytes}"
        return [Finding(kind=Kind.ALTERED, name=name, detail=f"its SHA-256 is not the manifest's{said}")]
    return []


@dataclass(frozen=True, kw_only=True, slots=True)
class _Listing:
    """A tar's members as far as they can be read: name -> where the data begins."""

    offsets: dict[str, int]
    samples: set[str]
    findings: list[Finding]
    is_whole: bool


def _listing(path: Path, name: str) -> _Listing:
    offsets: dict[str, int] = {}
    findings: list[Finding] = []
    fault: tar.TarError | None = None
    try:
        with path.open("rb") as file:
            for member in tar.members(file):
                offsets[member.name] = member.offset
    except tar.TarError as error:
        fault = error
        findings.append(Finding(kind=_kind_of(error), name=name, detail=str(error)))
    samples = set[str]()
    previous = ""
    for member_name in offsets:
        try:
            samples.add(parse_name(member_name).sample)
        except FormatError as error:
            findings.append(Finding(kind=Kind.REFUSED, name=name, detail=str(error)))
        if member_name < previous:
            said = f"{member_name} comes behind {previous}"
            findings.append(Finding(kind=Kind.UNORDERED, name=name, sample=member_name.partition(".")[0], detail=said))
        previous = member_name
    findings += [
        Finding(kind=Kind.LOST, name=name, sample=sample, detail="one of its two members isn't there")
        for sample in sorted(samples)
        if fault is None and not _is_pair(sample, offsets)
    ]
    return _Listing(offsets=offsets, samples=samples, findings=findings, is_whole=fault is None)


def _kind_of(error: tar.TarError) -> Kind:
    if isinstance(error, tar.NameRefused):
        return Kind.REFUSED
    return Kind.DUPLICATE if isinstance(error, tar.RepeatedMember) else Kind.ALTERED


def _is_pair(sample: str, offsets: dict[str, int]) -> bool:
    data = sum(f"{sample}.{suffix}" in offsets for suffix in DATA_SUFFIXES)
    return data == 1 and f"{sample}.{JSON_SUFFIX}" in offsets


def _rows(known: Manifest, number: int, entries: Sequence[Entry]) -> Iterator[Finding]:
    """The rows by themselves: as many as the manifest says, of this shard, ascending."""
    shard, wrong = known.shards[number], Finding(kind=Kind.DISAGREES, name=FOLDER + known.index.name)
    if len(entries) != shard.samples:
        yield replace(wrong, detail=f"{len(entries)} rows for {shard.name}, the manifest says {shard.samples}")
    if any(one.shard != number for one in entries):
        yield replace(wrong, detail=f"rows of another shard among those of {shard.name}")
    slots = [one.slot for one in entries]
    if slots != sorted(set(slots)) or not all(0 <= slot < shard.slots for slot in slots):
        yield replace(wrong, detail=f"the slots of {shard.name} do not ascend from 0 to {shard.slots - 1}")
    names = [one.sample for one in entries]
    for sample in sorted({name for name, after in itertools.pairwise(names) if name == after}):
        yield replace(wrong, kind=Kind.DUPLICATE, sample=sample, detail=f"it has two rows for {shard.name}")


def _against(entries: Sequence[Entry], listing: _Listing, guilty: str) -> Iterator[Finding]:
    """The rows against the tar's members, as far as those could be listed."""
    indexed = {one.sample for one in entries}
    wrong = Finding(kind=Kind.LOST, name=guilty)
    for sample in sorted(listing.samples - indexed):
        yield replace(wrong, kind=Kind.ORPHAN, sample=sample, detail="the tar has it, the index has not")
    for one in entries if listing.is_whole else ():
        if one.sample not in listing.samples:
            yield replace(wrong, sample=one.sample, detail="the index has it, the tar has not")
        elif listing.offsets.get(f"{one.sample}.{one.suffix}") != one.data_offset:
            yield replace(wrong, kind=Kind.ALTERED, sample=one.sample, detail="it lies elsewhere in the tar")


def _by_sample(path: Path, entries: Sequence[Entry], guilty: str) -> Iterator[Finding]:
    """The bytes of each sample; of those beyond the end of a truncated shard just how many there are."""
    size = path.stat().st_size
    within = [one for one in entries if _lies_within(one, size)]
    if len(within) < len(entries):
        said = f"{len(entries) - len(within)} of {len(entries)} samples lie beyond its end"
        yield Finding(kind=Kind.TRUNCATED, name=guilty, detail=said)
    for one in within:
        if said := fault_of(path, one):
            yield Finding(kind=Kind.ALTERED, name=guilty, sample=one.sample, detail=said)


def _lies_within(one: Entry, size: int) -> bool:
    windows = ((one.data_offset, one.data_size), (one.json_offset, one.json_size))
    return all(offset >= 0 and length >= 0 and offset + length <= size for offset, length in windows)


def _misdescribed(text: bytes, sample: str) -> str:
    try:
        said, name = from_json(text), parse_name(f"{sample}.{JSON_SUFFIX}")
    except FormatError as error:
        return str(error)
    if (said.key, said.top, said.left) != (name.key, name.top, name.left):
        return f"its JSON is of {said.key[:40]!r} at ({said.top}, {said.left})"
    return ""


def _among(shards: Sequence[Shard], samples: Sequence[np.ndarray]) -> list[Finding]:
    """Samples that two shards have."""
    names = np.concatenate([np.zeros(0, _SAMPLE), *samples])
    places = np.repeat(np.arange(len(samples)), [len(one) for one in samples])
    order = np.argsort(names, kind="stable")
    names, places = names[order], places[order]
    return [
        Finding(
            kind=Kind.DUPLICATE,
            name=FOLDER + shards[places[at + 1]].name,
            sample=names[at].decode(),
            detail=f"{shards[places[at]].name} has it too",
        )
        for at in np.flatnonzero(names[1:] == names[:-1])
    ]


def _alive(store: Store, known: Manifest, dead: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys of pictures with samples that are not removed, ascending, and how many of these each has."""
    keys = [np.zeros(0, _KEY)]
    for number, table in enumerate(index.read(store, known, ["key", "slot"])):
        stays = ~np.isin(table["slot"].to_numpy(), dead[dead[:, 0] == number, 1])
        keys.append(np.array(table["key"].to_pylist(), _KEY)[stays])
    return np.unique(np.concatenate(keys), return_counts=True)


def _described(store: Store, known: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """Keys of the pictures that the metadata has, ascending, and the patches it says each has."""
    keys, patches = [np.zeros(0, _KEY)], [np.zeros(0, np.int64)]
    for table in parquet.read(store, known.metadata, ["key", "patches"]):
        keys.append(np.array(table["key"].to_pylist(), _KEY))
        patches.append(table["patches"].to_numpy())
    names = np.concatenate(keys)
    order = np.argsort(names, kind="stable")
    return names[order], np.concatenate(patches)[order]


def _picture(name: str, key: bytes, said: str) -> Finding:
    return Finding(kind=Kind.DISAGREES, name=name, sample=key.decode(), detail=said)


def _removed(known: Manifest, dead: np.ndarray) -> Iterator[Finding]:
    """The tombstones by themselves: each a place that there is, once, and all samples that are gone have one."""
    wrong = Finding(kind=Kind.DISAGREES, name=FOLDER + (known.tombstones or known.index).name)
    places = {(int(shard), int(slot)) for shard, slot, _ in dead}
    if len(places) != known.versions[-1].tombstones:
        yield replace(wrong, detail=f"{len(places)} places, the manifest says {known.versions[-1].tombstones}")
    slots = [shard.slots for shard in known.shards]
    if any(not (0 <= shard < len(slots) and 0 <= slot < slots[shard]) for shard, slot in places):
        yield replace(wrong, detail="it names places that no shard has")
    for number, shard in enumerate(known.shards):
        if (gone := shard.slots - shard.samples) > int(np.sum(dead[:, 0] == number)):
            yield replace(wrong, detail=f"{shard.name} lacks {gone} samples, fewer are removed")
