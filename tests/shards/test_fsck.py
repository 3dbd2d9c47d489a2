"""Each kind of damage has its finding, on a local disk and on S3, and a whole set has none."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shards import index, manifest, parquet, removal, tar, tombstones
from shards.fsck import Finding, Kind, check
from shards.manifest import FOLDER, Manifest, Version
from shards.store import Store, open_store
from tests.sets import write_set

TAR = FOLDER + "train-000001.tar"


def found(store: Store) -> list[Finding]:
    return check(store, lambda total, done: None)


def kinds(store: Store) -> set[tuple[Kind, str]]:
    return {(one.kind, one.name.removeprefix(FOLDER)) for one in found(store)}


def rewrite(store: Store, made: Manifest, members: Sequence[tuple[str, bytes]], scratch: Path) -> None:
    """Shard 1 with these members, under a manifest that agrees."""
    tar.write(scratch / "x.tar", members)
    written = store.write(TAR, scratch / "x.tar")
    shard = replace(made.shards[1], bytes=written.size, sha256=written.sha256)
    manifest.commit(store, replace(made, shards=(made.shards[0], shard, *made.shards[2:])))


def members(store: Store) -> list[tuple[str, bytes]]:
    return [(one.name, one.data) for one in tar.members(store.read(TAR))]


def test_a_whole_set_has_no_findings_and_progress_ends_at_its_last_shard(store: Store) -> None:
    first = write_set(store, [3, 4])
    manifest.tidy(store, write_set(store, [2], base=first))
    seen: list[tuple[int, int]] = []
    assert check(store, lambda total, done: seen.append((total, done))) == []
    assert seen == [(3, 1), (3, 2), (3, 3)]


@dataclass(frozen=True)
class Damage:
    """What is done to the bytes of an object, and what is to be said."""

    name: str
    spoil: Callable[[bytes], bytes | None]  # None: the object goes
    kind: Kind


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES = {
    "a shard is gone": Damage("train-000001.tar", lambda data: None, Kind.MISSING),
    "a shard is cut short": Damage("train-000001.tar", lambda data: data[: len(data) // 2], Kind.TRUNCATED),
    "a shard is empty": Damage("train-000001.tar", lambda data: b"", Kind.TRUNCATED),
    "a byte of a picture": Damage("train-000001.tar", flipped(700), Kind.ALTERED),
    "a byte of a header": Damage("train-000001.tar", flipped(3), Kind.ALTERED),
    "a byte of the padding": Damage("train-000001.tar", flipped(-1), Kind.ALTERED),
    "bytes behind the end": Damage("train-000001.tar", lambda data: data + bytes(512), Kind.ALTERED),
    "the index is gone": Damage("index.parquet", lambda data: None, Kind.MISSING),
    "the index is cut short": Damage("index.parquet", lambda data: data[:-9], Kind.TRUNCATED),
    "a byte of the index": Damage("index.parquet", flipped(40), Kind.ALTERED),
    "the metadata is gone": Damage("metadata.parquet", lambda data: None, Kind.MISSING),
    "a byte of the metadata": Damage("metadata.parquet", flipped(40), Kind.ALTERED),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_to_an_object_is_found_and_named(store: Store, damage: Damage) -> None:
    write_set(store, [3, 4])
    data = damage.spoil(store.read(FOLDER + damage.name))
    if data is None:
        store.delete(FOLDER + damage.name)
    else:
        store.write(FOLDER + damage.name, data)
    assert (damage.kind, damage.name) in kinds(store)
    others = {name for _, name in kinds(store)} - {damage.name}
    assert not {name for name in others if name.endswith(".tar")}


def test_of_an_altered_shard_the_samples_are_named_that_have_other_bytes(store: Store) -> None:
    made = write_set(store, [3, 4])
    entries = index.from_table(index.read_one(store, made, 1))
    data = bytearray(store.read(TAR))
    data[entries[1].data_offset + 100] ^= 1
    data[entries[3].json_offset] = ord("[")
    store.write(TAR, bytes(data))
    assert {one.sample for one in found(store)} == {None, entries[1].sample, entries[3].sample}
    assert {one.name for one in found(store)} == {TAR}


def test_of_a_truncated_shard_it_says_how_many_samples_are_gone(store: Store) -> None:
    made = write_set(store, [3, 4])
    second = index.from_table(index.read_one(store, made, 1))[1]
    store.write(TAR, store.read(TAR, 0, second.data_offset))
    assert any("3 of 4 samples lie beyond its end" in one.detail for one in found(store))


def test_a_json_that_describes_another_patch_is_altered(store: Store, tmp_path: Path) -> None:
    made = write_set(store, [3, 4])
    pairs = members(store)
    name, text = pairs[1]
    pairs[1] = (name, json.dumps({**json.loads(text), "top": 9}, sort_keys=True, separators=(",", ":")).encode())
    rewrite(store, made, pairs, tmp_path)
    [one] = [one for one in found(store) if one.sample]
    assert (one.kind, one.sample) == (Kind.ALTERED, name.partition(".")[0])
    assert "at (9, 0)" in one.detail


def test_members_out_of_order_are_named(store: Store, tmp_path: Path) -> None:
    made = write_set(store, [3, 4])
    pairs = members(store)
    rewrite(store, made, [*pairs[2:4], *pairs[:2], *pairs[4:]], tmp_path)
    [one] = [one for one in found(store) if one.kind is Kind.UNORDERED]
    assert (one.name, one.sample) == (TAR, pairs[0][0].partition(".")[0])


def test_a_sample_that_two_shards_have_is_named_with_both(store: Store) -> None:
    made = write_set(store, [3, 4])
    tables = [index.read_one(store, made, number) for number in (0, 1)]
    again = tables[0].set_column(3, "shard", pa.array([2] * 3, pa.int32()))
    store.write(FOLDER + "train-000002.tar", store.read(FOLDER + "train-000000.tar"))
    twice = replace(made.shards[0], name="train-000002.tar")
    part = index.write(store, made.set, made.versions, [*tables, again])
    versions = (Version(number=1, shards=3, tombstones=0),)
    manifest.commit(store, replace(made, shards=(*made.shards, twice), index=part, versions=versions))
    doubles = [one for one in found(store) if one.kind is Kind.DUPLICATE]
    assert [one.sample for one in doubles] == tables[0]["sample"].to_pylist()
    assert {(one.name, one.detail) for one in doubles} == {(FOLDER + "train-000002.tar", "train-000000.tar has it too")}


def test_a_member_that_comes_twice_is_named(store: Store, tmp_path: Path) -> None:
    made = write_set(store, [3, 4])
    pairs = members(store)
    body = store.read(TAR, 0, tar.stored_size(len(pairs[0][1])))
    store.write(TAR, body + store.read(TAR))
    assert (Kind.DUPLICATE, "train-000001.tar") in kinds(store)
    assert made.shards[1].name == "train-000001.tar"


@pytest.mark.parametrize("name", ["../../x.jpg", "/etc/passwd", "x.jpg", "0123456789abcdef_00000_00000.exe"])
def test_a_member_with_a_name_that_no_shard_has_is_refused_by_name(store: Store, name: str) -> None:
    write_set(store, [3, 4])
    data = bytearray(store.read(TAR))
    data[:100] = name.encode().ljust(100, b"\0")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    store.write(TAR, bytes(data))
    refused = [one for one in found(store) if one.kind is Kind.REFUSED]
    assert [one.name for one in refused] == [TAR]
    assert repr(name) in refused[0].detail


def test_objects_and_samples_that_nobody_names_are_orphans(store: Store) -> None:
    made = write_set(store, [3, 4])
    store.write(FOLDER + "train-000009.tar", b"of a killed run")
    tables = [index.read_one(store, made, number) for number in (0, 1)]
    index.write(store, made.set, made.versions, [tables[0], tables[1].slice(1)])
    orphans = [one for one in found(store) if one.kind is Kind.ORPHAN]
    assert {(one.name, one.sample) for one in orphans} == {
        (FOLDER + "train-000009.tar", None),
        (FOLDER + "index.parquet", tables[1]["sample"][0].as_py()),
    }


def test_a_row_without_its_sample_is_lost(store: Store, tmp_path: Path) -> None:
    made = write_set(store, [3, 4])
    pairs = members(store)
    rewrite(store, made, pairs[:-2], tmp_path)
    lost = [one for one in found(store) if one.kind is Kind.LOST]
    assert [(one.name, one.sample) for one in lost] == [(FOLDER + "index.parquet", pairs[-1][0].partition(".")[0])]
    rewrite(store, made, pairs[:-1], tmp_path)
    assert any("one of its two members" in one.detail for one in found(store) if one.kind is Kind.LOST)


def test_pictures_that_only_the_index_or_only_the_metadata_has_are_named(store: Store) -> None:
    made = write_set(store, [3, 4])
    [described] = parquet.read(store, made.metadata)
    keys = described["key"].to_pylist()
    wrong = described.set_column(described.column_names.index("patches"), "patches", [[5, *[1] * 6]]).slice(0, 6)
    part = parquet.write(store, "metadata.parquet", described.schema, [wrong, described.slice(1, 1)])
    manifest.commit(store, replace(made, metadata=part))
    said = {one.sample: one.detail for one in found(store)}
    assert set(said) == {keys[0], keys[1], keys[6]}
    assert "5 patches, the index has 1" in said[keys[0]]
    assert "more than one row" in said[keys[1]]
    assert "no row" in said[keys[6]]


def without(store: Store, made: Manifest, dead: list[list[int]], purge: bool) -> Manifest:
    """The set with tombstones, metadata to match, and the touched tars anew where they are purged."""
    removed = np.array(dead, np.int64)
    versions = (*made.versions, Version(number=2, shards=len(made.shards), tombstones=len(dead)))
    tables = [index.read_one(store, made, number) for number in range(len(made.shards))]
    gone = {tables[shard]["key"][slot].as_py() for shard, slot, _ in dead}
    shards = list(made.shards)
    for number in {shard for shard, _, _ in dead} if purge else ():
        shards[number], tables[number] = removal.purge(store, made, number, removed, 2)
    [described] = parquet.read(store, made.metadata)
    stay = described.filter([key not in gone for key in described["key"].to_pylist()])
    after = replace(
        made,
        shards=tuple(shards),
        index=index.write(store, made.set, versions, tables) if purge else made.index,
        metadata=parquet.write(store, manifest.part_name("metadata", versions), described.schema, [stay]),
        tombstones=tombstones.write(store, versions, removed),
        versions=versions,
    )
    manifest.commit(store, after)
    manifest.tidy(store, after)
    return after


@pytest.mark.parametrize("purge", [False, True])
def test_a_set_with_removed_samples_is_whole(store: Store, purge: bool) -> None:
    made = without(store, write_set(store, [3, 4]), [[0, 1, 2], [1, 0, 2], [1, 3, 2]], purge)
    assert found(store) == []
    assert [shard.samples for shard in made.shards] == ([2, 2] if purge else [3, 4])
    assert made.tombstones is not None
    store.delete(FOLDER + made.tombstones.name)
    assert kinds(store) == {(Kind.MISSING, "tombstones-v2.parquet")}


def test_tombstones_of_places_that_no_shard_has_disagree(store: Store) -> None:
    made = write_set(store, [3, 4])
    versions = (*made.versions, Version(number=2, shards=2, tombstones=2))
    part = tombstones.write(store, versions, np.array([[0, 7, 2], [5, 0, 2]]))
    manifest.commit(store, replace(made, tombstones=part, versions=versions))
    assert kinds(store) == {(Kind.DISAGREES, "tombstones-v2.parquet")}


@pytest.mark.slow
def test_any_damaged_bytes_are_findings_and_never_a_fault_of_the_program(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    made = write_set(store, [3, 4])
    generator = np.random.default_rng(5)
    for part in (made.index, made.metadata, made.shards[0]):
        whole = store.read(FOLDER + part.name)
        for at in generator.integers(0, len(whole), 80):
            data = bytearray(whole)
            data[at : at + 8] = generator.bytes(8)
            store.write(FOLDER + part.name, bytes(data[: len(whole)]))
            assert (Kind.ALTERED, part.name) in kinds(store), at
        store.write(FOLDER + part.name, whole)
    assert found(store) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_a_shard(tmp_path: Path) -> None:
    peaks, sizes = [], []
    for count in (600, 1000):
        store = open_store(str(tmp_path / str(count)))
        made = write_set(store, [count], size=192, suffix="png")
        tracemalloc.start()
        assert found(store) == []
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(made.bytes)
    assert peaks[1] - peaks[0] < (sizes[1] - sizes[0]) / 4, (peaks, sizes)
