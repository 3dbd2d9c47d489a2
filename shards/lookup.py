"""Where a picture's patches lie and what is known of each: from a name to its rows, a row group at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from shards import index, parquet, tombstones
from shards.format import Description, from_json
from shards.index import Entry
from shards.manifest import FOLDER, Manifest, Part, Shard
from shards.store import Store

_NAME = re.compile(r"(?P<key>[0-9a-f]{16})(_[0-9]{5}_[0-9]{5})?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A patch: its row of the index, its shard, what its JSON says. `removed`: since which version, None: it is not."""

    entry: Entry
    shard: Shard
    description: Description
    removed: int | None


def key_of(name: str) -> str:
    """The picture's key in a patch's name, or itself. Raises ValueError for any other text."""
    match = _NAME.fullmatch(name)
    if not match:
        raise ValueError(f"'{name}' is no key: give <16 hex digits>_<top>_<left> of a patch, or a picture's 16 digits")
    return match["key"]


def patches(store: Store, known: Manifest, name: str) -> Iterator[Place]:
    """The patch of that name, or all of the picture with that key. Raises ManifestError, FormatError."""
    removed = {(shard, slot): version for shard, slot, version in tombstones.read(store, known).tolist()}
    for row in _rows(store, known.index, key_of(name)):
        one = Entry(**{column: row[column] for column in index.SCHEMA.names})
        if name in (one.sample, one.key):
            shard = known.shards[one.shard]
            said = from_json(store.read(FOLDER + shard.name, one.json_offset, one.json_size))
            yield Place(entry=one, shard=shard, description=said, removed=removed.get((one.shard, one.slot)))


def picture(store: Store, known: Manifest, key: str) -> dict[str, Any] | None:
    """The row of the metadata, None where it has none (any more). Raises ManifestError."""
    return next(_rows(store, known.metadata, key), None)


def _rows(store: Store, part: Part, key: str) -> Iterator[dict[str, Any]]:
    """The rows with that key; of a row group whose keys can't be it nothing is read, of others first that column."""
    with parquet.opened(store, part) as file:
        for group in range(file.num_row_groups):
            if _may_have(file, group, key) and key in _keys(store, part, file, group):
                yield from (row for row in parquet.group_of(store, part, file, group).to_pylist() if row["key"] == key)


def _may_have(file: pq.ParquetFile, group: int, key: str) -> bool:
    column = file.metadata.row_group(group).column(file.schema_arrow.get_field_index("key"))
    known = column.statistics
    return known is None or not known.has_min_max or known.min <= key <= known.max


def _keys(store: Store, part: Part, file: pq.ParquetFile, group: int) -> set[str]:
    return set(parquet.group_of(store, part, file, group, ["key"])["key"].to_pylist())
