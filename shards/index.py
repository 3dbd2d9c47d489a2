"""`shards/index.parquet`: where each sample lies, one row group a shard.

A row group can be read by itself, so whoever reads a shard needs its rows only, and the 8 M samples of the paper
never lie in memory at once. The footer says of which set it is: a set that was made anew uses its names again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from shards import parquet
from shards.manifest import FOLDER, FORMAT, SCHEMA_VERSION, Manifest, ManifestError, Part, Version, part_name
from shards.store import Store

SCHEMA: Final = pa.schema(
    [
        pa.field("sample", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("slot", pa.int32(), nullable=False),
        pa.field("suffix", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("data_offset", pa.int64(), nullable=False),
        pa.field("data_size", pa.int64(), nullable=False),
        pa.field("json_offset", pa.int64(), nullable=False),
        pa.field("json_size", pa.int64(), nullable=False),
    ],
    metadata={"format": FORMAT, "schema_version": str(SCHEMA_VERSION)},
)
_SET: Final = "set"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A row: where the sample's two members lie, in bytes from the start of shard number `shard`."""

    sample: str
    key: str
    source: str
    shard: int  # its place in Manifest.shards
    slot: int  # the sample's place among all that were ever in the shard
    suffix: str  # of the data: "jpg" or "png"
    digest: str  # of the data: `tar.digest`
    data_offset: int
    data_size: int
    json_offset: int
    json_size: int


def to_table(entries: Sequence[Entry]) -> pa.Table:
    """One shard's rows, ascending by slot."""
    return pa.table({name: [getattr(entry, name) for entry in entries] for name in SCHEMA.names}, schema=SCHEMA)


def from_table(table: pa.Table) -> list[Entry]:
    """The same rows as dataclasses."""
    return [Entry(**row) for row in table.to_pylist()]


def schema_of(set_id: str) -> pa.Schema:
    """`SCHEMA`, and in its metadata which set the rows are of."""
    return SCHEMA.with_metadata({**SCHEMA.metadata, _SET: set_id})


def write(store: Store, set_id: str, versions: tuple[Version, ...], tables: Iterable[pa.Table]) -> Part:
    """One table a shard, in the order of the shards. `set_id`, `versions`: of the manifest that will name it."""
    return parquet.write(store, part_name("index", versions), schema_of(set_id), tables)


def read(store: Store, manifest: Manifest, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The rows, a shard at a time in the order of the manifest's shards, all of `SCHEMA` or these columns.

    Raises ManifestError where it is missing, broken or another set's.
    """
    with _opened(store, manifest) as file:
        for number in range(len(manifest.shards)):
            yield parquet.group_of(store, manifest.index, file, number, columns)


def read_one(store: Store, manifest: Manifest, number: int, columns: list[str] | None = None) -> pa.Table:
    """The rows of shard `number`, all columns or these. Raises ManifestError where they can't be read."""
    with _opened(store, manifest) as file:
        return parquet.group_of(store, manifest.index, file, number, columns)


@contextmanager
def _opened(store: Store, manifest: Manifest) -> Iterator[pq.ParquetFile]:
    with parquet.opened(store, manifest.index) as file:
        said = (file.metadata.metadata or {}).get(_SET.encode())
        if said not in (None, manifest.set.encode()):  # None: written before the footer said it
            raise ManifestError(f"{FOLDER}{manifest.index.name} in {store.root} is of another set than the manifest")
        yield file
