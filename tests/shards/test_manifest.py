"""The manifest is written last, says what is there, and is refused with a remedy where it is not one."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.manifest import (
    INDEX,
    INDEX_SCHEMA,
    MANIFEST,
    Entry,
    Manifest,
    ManifestError,
    Shard,
    Source,
    read_index,
    read_manifest,
    write,
)
from shards.store import LocalStore, Store, open_store


def entries(count: int) -> Iterator[Entry]:
    for number in range(count):
        key = hashlib.sha256(str(number).encode()).hexdigest()[:16]
        yield Entry(
            sample=f"{key}_00000_00512",
            key=key,
            source="laion",
            shard=number // 1000,
            suffix="jpg",
            data_offset=512 + number,
            data_size=1000,
            json_offset=2048 + number,
            json_size=300,
        )


def manifest(samples: int) -> Manifest:
    shards = (Shard(name="shards/train-000000.tar", bytes=10_240, sha256="ab" * 32, samples=samples),)
    return Manifest(
        recipe={"min_res": 1024, "niqe": 5.5},
        shards=shards,
        sources={"laion": Source(pictures=2, with_patches=2, samples=samples, flat=1)},
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def test_it_goes_there_and_back(store: Store) -> None:
    written = write(store, manifest(2500), entries(2500))
    assert read_manifest(store) == written
    rows = [row for batch in read_index(store) for row in batch.to_pylist()]
    assert [Entry(**row) for row in rows] == list(entries(2500))


def test_the_manifest_holds_the_totals_and_the_index_by_hash(store: Store) -> None:
    write(store, manifest(7), entries(7))
    document = json.loads(store.read(MANIFEST))
    assert document["totals"] == {"shards": 1, "samples": 7, "bytes": 10_240}
    assert document["index"]["sha256"] == hashlib.sha256(store.read(INDEX)).hexdigest()


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    stores = [LocalStore(tmp_path / name) for name in "ab"]
    for each in stores:
        write(each, manifest(3000), entries(3000))
    assert stores[0].read(MANIFEST) == stores[1].read(MANIFEST)
    assert stores[0].read(INDEX) == stores[1].read(INDEX)


def test_the_manifest_comes_last(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / MANIFEST).mkdir(parents=True)  # where nothing can be written
    with pytest.raises(OSError, match="directory"):
        write(store, manifest(1), entries(1))
    assert store.exists(INDEX)


def test_an_index_that_lacks_samples_is_not_written(store: Store) -> None:
    with pytest.raises(ValueError, match="index has 4 samples"):
        write(store, manifest(5), entries(4))
    assert not list(store.list(""))


def test_without_a_manifest_there_is_no_run(store: Store) -> None:
    with pytest.raises(ManifestError, match="isn't finished"):
        read_manifest(store)
    with pytest.raises(ManifestError, match="run's command again"):
        list(read_index(store))


def test_a_newer_manifest_asks_for_an_upgrade(store: Store) -> None:
    write(store, manifest(1), entries(1))
    document = json.loads(store.read(MANIFEST))
    store.write(MANIFEST, json.dumps({**document, "schema_version": 2}).encode())
    with pytest.raises(ManifestError, match="upgrade"):
        read_manifest(store)


@pytest.mark.parametrize(
    "changes", [{"shards": 1}, {"shards": [{}]}, {"totals": {"samples": 9}}, {"index": None}, {"format": "x"}]
)
def test_a_manifest_with_odd_entries_is_refused(store: Store, changes: dict[str, object]) -> None:
    write(store, manifest(1), entries(1))
    store.write(MANIFEST, json.dumps({**json.loads(store.read(MANIFEST)), **changes}).encode())
    with pytest.raises(ManifestError, match="no manifest"):
        read_manifest(store)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff", b"<html>", b"[" * 100_000])
def test_garbage_is_refused(store: Store, data: bytes) -> None:
    store.write(MANIFEST, data)
    store.write(INDEX, data)
    with pytest.raises(ManifestError, match="no manifest"):
        read_manifest(store)
    with pytest.raises(ManifestError, match="broken"):
        list(read_index(store))


def test_a_column_is_read_without_the_others(store: Store) -> None:
    write(store, manifest(10), entries(10))
    (batch,) = read_index(store, ["shard"])
    assert batch.schema.names == ["shard"]
    assert set(INDEX_SCHEMA.names) > {"shard"}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_index(store: Store) -> None:
    peaks = []
    for count in (70_000, 210_000):
        tracemalloc.start()
        write(store, manifest(count), entries(count))
        assert sum(batch.num_rows for batch in read_index(store, ["shard"])) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
