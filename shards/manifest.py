"""`shards/manifest.json` and `shards/index.parquet`: what a run made, written last.

The manifest is small (one entry a shard) and read whole; the index has a row a sample and is written and read in
row groups, so that the 8 M samples of the paper never lie in memory at once. The manifest names the index by
SHA-256: a reader that finds it has the whole run, one that doesn't has none.
"""

from __future__ import annotations

import io
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from shards.store import Store, Written

FORMAT: Final = "million-ird-shards"
SCHEMA_VERSION: Final = 1
MANIFEST: Final = "shards/manifest.json"
INDEX: Final = "shards/index.parquet"

_ROW_GROUP: Final = 1 << 15  # samples

INDEX_SCHEMA: Final = pa.schema(
    [
        pa.field("sample", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("suffix", pa.string(), nullable=False),
        pa.field("data_offset", pa.int64(), nullable=False),
        pa.field("data_size", pa.int64(), nullable=False),
        pa.field("json_offset", pa.int64(), nullable=False),
        pa.field("json_size", pa.int64(), nullable=False),
    ],
    metadata={"format": FORMAT, "schema_version": str(SCHEMA_VERSION)},
)


class ManifestError(ValueError):
    """There is no manifest, or none that this version reads; the message names the remedy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A tar: its name under `shards/`, bytes, SHA-256 in hex digits, samples in it."""

    name: str
    bytes: int
    sha256: str
    samples: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What one source gave: a line of the paper's Table S1, and what became of it."""

    pictures: int  # that were to be cut
    with_patches: int  # those of which at least one patch is here
    samples: int  # patches here
    flat: int  # patches dropped as flat


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A row of the index: where the sample's two members lie, in bytes from the start of shard number `shard`."""

    sample: str
    key: str
    source: str
    shard: int  # its place in Manifest.shards
    suffix: str  # of the data: "jpg" or "png"
    data_offset: int
    data_size: int
    json_offset: int
    json_size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a run made. `recipe` is the run's settings, as JSON has them."""

    recipe: dict[str, Any]
    shards: tuple[Shard, ...]
    sources: dict[str, Source] = field(default_factory=dict)
    index: Written | None = None  # set by `write`

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)


def write(store: Store, manifest: Manifest, index: Iterable[Entry]) -> Manifest:
    """Writes the index, then the manifest, and returns the manifest as written.

    Raises ValueError where the index has not the samples that the manifest counts; nothing is written then.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.parquet"
        rows = _write_index(path, index)
        if rows != manifest.samples:
            raise ValueError(f"the index has {rows} samples, the manifest's shards {manifest.samples}")
        written = store.write(INDEX, path)
    complete = Manifest(recipe=manifest.recipe, shards=manifest.shards, sources=manifest.sources, index=written)
    store.write(MANIFEST, _to_json(complete))
    return complete


def _write_index(path: Path, index: Iterable[Entry]) -> int:
    rows, entries = 0, iter(index)
    with pq.ParquetWriter(path, INDEX_SCHEMA, compression="zstd") as writer:
        while group := list(itertools.islice(entries, _ROW_GROUP)):
            columns = {name: [getattr(entry, name) for entry in group] for name in INDEX_SCHEMA.names}
            writer.write_table(pa.table(columns, schema=INDEX_SCHEMA))
            rows += len(group)
    return rows


def _to_json(manifest: Manifest) -> bytes:
    document = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "totals": {"shards": len(manifest.shards), "samples": manifest.samples, "bytes": manifest.bytes},
        **asdict(manifest),
    }
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def read_manifest(store: Store) -> Manifest:
    """The run's manifest. Raises ManifestError where there is none, a newer one, or something else."""
    try:
        data = store.read(MANIFEST)
    except FileNotFoundError as error:
        raise ManifestError(
            f"no {MANIFEST} in {store.root}: the run isn't finished there, give its command again"
        ) from error
    try:
        document = json.loads(data)
        version = document["schema_version"] if document["format"] == FORMAT else None
    except (ValueError, TypeError, KeyError, RecursionError):
        version = None
    if isinstance(version, bool) or not isinstance(version, int):
        raise _garbage(store)
    if version > SCHEMA_VERSION:
        raise ManifestError(
            f"{MANIFEST} in {store.root} has schema version {version}, this reads up to {SCHEMA_VERSION}: "
            "upgrade million-ird"
        )
    return _from_document(store, document)


def _from_document(store: Store, document: dict[str, Any]) -> Manifest:
    try:
        manifest = Manifest(
            recipe=dict(document["recipe"]),
            shards=tuple(Shard(**shard) for shard in document["shards"]),
            sources={name: Source(**source) for name, source in document["sources"].items()},
            index=Written(**document["index"]),
        )
        consistent = document["totals"]["samples"] == manifest.samples
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise _garbage(store) from error
    if not consistent:
        raise _garbage(store)
    return manifest


def _garbage(store: Store) -> ManifestError:
    return ManifestError(f"{MANIFEST} in {store.root} is no manifest of shards: delete it and run the job again")


def read_index(store: Store, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The index in the order of the shards, a row group at a time, all of `INDEX_SCHEMA` or these columns.

    Raises ManifestError where there is none or it is broken.
    """
    try:
        file = pa.PythonFile(_StoredFile(store, INDEX), mode="r")
        yield from pq.ParquetFile(file).iter_batches(batch_size=_ROW_GROUP, columns=columns)
    except FileNotFoundError as error:
        raise ManifestError(f"no {INDEX} in {store.root}: give the run's command again") from error
    except pa.ArrowInvalid as error:
        raise ManifestError(f"{INDEX} in {store.root} is broken ({error}): run the job again") from error


class _StoredFile(io.RawIOBase):
    """An object of a store as a seekable file: Parquet reads its footer and then the columns it is asked for."""

    def __init__(self, store: Store, name: str) -> None:
        super().__init__()
        self._store, self._name = store, name
        self._size, self._at = store.size(name), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        length = left if size is None or size < 0 else min(size, left)
        data = self._store.read(self._name, self._at, length) if length else b""
        self._at += len(data)
        return data
