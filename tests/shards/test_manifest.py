"""The manifest is written last, says what is there at each version, and is refused with a remedy if it is not one."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shards import index, parquet, tombstones
from shards.index import Entry
from shards.manifest import (
    FOLDER,
    MANIFEST,
    Manifest,
    ManifestError,
    OutdatedManifest,
    Part,
    Shard,
    Version,
    at_version,
    commit,
    read_manifest,
    tidy,
    to_json,
)
from shards.store import LocalStore, Store, open_store
from tests.sets import write_set


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def entries(shard: int, count: int) -> list[Entry]:
    return [
        Entry(
            sample=f"{number:016x}_00000_00512",
            key=f"{number:016x}",
            source="laion",
            shard=shard,
            slot=number,
            suffix="jpg",
            digest=f"{number:016x}",
            data_offset=512 + number,
            data_size=1000,
            json_offset=2048 + number,
            json_size=300,
        )
        for number in range(count)
    ]


def test_it_goes_there_and_back(store: Store) -> None:
    written = write_set(store, [5, 3])
    assert read_manifest(store) == written
    assert (written.samples, written.version) == (8, 1)


def test_the_manifest_holds_the_totals_and_its_files_by_hash(store: Store) -> None:
    made = write_set(store, [7])
    document = json.loads(store.read(MANIFEST))
    assert document["totals"] == {"shards": 1, "samples": 7, "bytes": made.shards[0].bytes}
    for name in ("index", "metadata"):
        part = document[name]
        data = store.read(FOLDER + part["name"])
        assert (part["bytes"], part["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    stores = [LocalStore(tmp_path / name) for name in "ab"]
    for each in stores:
        write_set(each, [20, 10])
    names = [list(each.list("")) for each in stores]
    assert names[0] == names[1]
    assert all(stores[0].read(name) == stores[1].read(name) for name in names[0])


def test_the_index_has_a_row_group_a_shard_in_their_order(store: Store) -> None:
    made = write_set(store, [4, 1, 3])
    tables = list(index.read(store, made))
    assert [table.num_rows for table in tables] == [4, 1, 3]
    assert [set(table["shard"].to_pylist()) for table in tables] == [{0}, {1}, {2}]
    again = index.to_table(index.from_table(tables[2]))
    assert again.equals(tables[2].cast(again.schema))
    assert next(index.read(store, made, ["slot"])).column_names == ["slot"]


def test_an_entry_points_at_its_bytes(store: Store) -> None:
    made = write_set(store, [3])
    for one in index.from_table(next(index.read(store, made))):
        data = store.read(FOLDER + made.shards[0].name, one.data_offset, one.data_size)
        assert hashlib.sha256(data).hexdigest()[:16] == one.digest
        text = store.read(FOLDER + made.shards[0].name, one.json_offset, one.json_size)
        assert json.loads(text)["key"] == one.key


def test_a_version_is_the_beginning_of_a_later_one(store: Store) -> None:
    first = write_set(store, [4, 2])
    second = write_set(store, [3], base=first)
    assert (second.version, second.samples, second.index.name) == (2, 9, "index-v2.parquet")
    then = at_version(read_manifest(store), 1)
    assert (then.version, then.samples, then.shards) == (1, 6, first.shards)
    assert [one.num_rows for one in index.read(store, then)] == [4, 2]
    assert at_version(second, 2) == second
    with pytest.raises(ManifestError, match="no version 3, only 1 to 2"):
        at_version(second, 3)


def test_removed_samples_count_from_their_version_on(store: Store) -> None:
    made = write_set(store, [4, 2])
    removed = np.array([[0, 3, 2], [1, 0, 2], [0, 1, 3]])
    versions = (*made.versions, Version(number=2, shards=2, tombstones=2), Version(number=3, shards=2, tombstones=3))
    part = tombstones.write(store, versions, removed)
    commit(store, replace(made, tombstones=part, versions=versions))
    now = read_manifest(store)
    assert [at_version(now, number).samples for number in (1, 2, 3)] == [6, 4, 3]
    assert [len(tombstones.read(store, at_version(now, number))) for number in (1, 2, 3)] == [0, 2, 3]
    assert np.array_equal(tombstones.read(store, now), removed)


def test_what_no_manifest_names_is_tidied_away(store: Store) -> None:
    first = write_set(store, [2])
    second = write_set(store, [2], base=first)
    store.write(FOLDER + "train-000009.tar", b"of a killed run")
    store.write("images/chunk-00000000.tar", b"none of its business")
    tidy(store, second)
    kept = {MANIFEST, "images/chunk-00000000.tar", *(FOLDER + one.name for one in second.files)}
    assert set(store.list("")) == kept


def test_without_a_manifest_there_is_no_set(store: Store) -> None:
    with pytest.raises(ManifestError, match="isn't finished"):
        read_manifest(store)


def test_a_newer_manifest_asks_for_an_upgrade_and_an_older_one_for_a_run(store: Store) -> None:
    write_set(store, [1])
    document = json.loads(store.read(MANIFEST))
    store.write(MANIFEST, json.dumps({**document, "schema_version": 3}).encode())
    with pytest.raises(ManifestError, match="upgrade"):
        read_manifest(store)
    store.write(MANIFEST, json.dumps({**document, "schema_version": 1}).encode())
    with pytest.raises(OutdatedManifest, match="run dynet-shard there again"):
        read_manifest(store)


@pytest.mark.parametrize(
    "changes",
    [
        {"shards": 1},
        {"shards": [{}]},
        {"totals": {"samples": 9}},
        {"index": None},
        {"format": "x"},
        {"versions": []},
        {"versions": [{"number": 1, "shards": 5, "tombstones": 0}]},
        {"index": {"name": "../../etc/passwd", "bytes": 1, "sha256": "ab" * 32}},
        {"metadata": {"name": "metadata.parquet", "bytes": 1, "sha256": "short"}},
        {"metadata": {"name": "metadata.parquet", "bytes": -5, "sha256": "ab" * 32}},
        {"metadata": {"name": "metadata.parquet", "bytes": "x", "sha256": "ab" * 32}},
        {"versions": [{"number": "1", "shards": 1, "tombstones": 0}]},
        {"versions": [{"number": 1, "shards": 1, "tombstones": -3}]},
        {"shards": [{"name": "a.tar", "bytes": 1, "sha256": "ab" * 32, "samples": 1, "slots": 2**62}]},
    ],
)
def test_a_manifest_with_odd_entries_is_refused(store: Store, changes: dict[str, object]) -> None:
    write_set(store, [1])
    store.write(MANIFEST, json.dumps({**json.loads(store.read(MANIFEST)), **changes}).encode())
    with pytest.raises(ManifestError, match="no manifest"):
        read_manifest(store)


@pytest.mark.parametrize("name", ["../x.tar", "/x.tar", "a/b.tar", "", ".hidden", "x\0.tar"])
def test_a_shard_with_a_path_for_a_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no shard"):
        Shard(name=name, bytes=1, sha256="ab" * 32, samples=1, slots=1)
    with pytest.raises(ValueError, match="is no part"):
        Part(name=name, bytes=1, sha256="ab" * 32)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff", b"<html>", b"[" * 100_000])
def test_garbage_is_refused(store: Store, data: bytes) -> None:
    made = write_set(store, [1])
    store.write(MANIFEST, data)
    store.write(FOLDER + made.index.name, data)
    with pytest.raises(ManifestError, match="no manifest"):
        read_manifest(store)
    with pytest.raises(ManifestError, match="broken"):
        list(index.read(store, made))


def test_a_missing_index_says_so(store: Store) -> None:
    made = write_set(store, [1])
    store.delete(FOLDER + made.index.name)
    with pytest.raises(ManifestError, match=r"no shards/index\.parquet"):
        list(index.read(store, made))


def test_an_index_that_says_it_is_another_sets_is_refused_and_one_that_says_nothing_is_read(store: Store) -> None:
    made = write_set(store, [2, 3])
    tables = list(index.read(store, made))
    silent = parquet.write(store, made.index.name, index.SCHEMA, tables)
    assert list(index.read(store, replace(made, index=silent))) == tables
    other = replace(made, index=index.write(store, "0" * 16, made.versions, tables))
    with pytest.raises(ManifestError, match=r"shards/index\.parquet in .* is of another set than the manifest"):
        list(index.read(store, other))
    with pytest.raises(ManifestError, match="is of another set"):
        index.read_one(store, other, 1)


def test_the_manifest_is_a_function_of_what_it_says() -> None:
    part = Part(name="index.parquet", bytes=1, sha256="ab" * 32)
    other = Part(name="metadata.parquet", bytes=1, sha256="ab" * 32)
    version = Version(number=1, shards=0, tombstones=0)
    one = Manifest(set="0" * 16, recipe={"b": 1, "a": 2}, shards=(), index=part, metadata=other, versions=(version,))
    assert to_json(one) == to_json(replace(one, recipe={"a": 2, "b": 1}))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_index(store: Store) -> None:
    peaks = []
    version = (Version(number=1, shards=0, tombstones=0),)

    def tables(count: int) -> Iterator[pa.Table]:
        return (index.to_table(entries(shard, 10_000)) for shard in range(count))

    for count in (5, 15):
        tracemalloc.start()
        index.write(store, "0" * 16, version, tables(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
