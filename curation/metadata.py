"""What a data set says of each picture: a row of `metadata.parquet`, taken from the ledger.

Link, size, hashes, scores, licence fields and source: what the paper promises with its data set, and what a person
needs who may not have the pictures themselves, or wants one of them removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa

from curation import ledger
from curation.records import METRIC_PREFIX, Link, Row

_LINK: Final = ("key", "url", "source", "caption", "license", "language", "similarity", "punsafe", "pwatermark")
_PICTURE: Final = ("width", "height", "bytes", "format", "sha256", "phash")
_UNIT: Final = pa.field("unit", pa.string(), nullable=False)
_PATCHES: Final = pa.field("patches", pa.int32(), nullable=False)


def table(rows: Sequence[Row], unit: str, patches: Mapping[str, int]) -> pa.Table:
    """The rows of one unit; `patches`: key -> how many were cut (absent: none)."""
    metrics = tuple(sorted({metric for row in rows for metric in row.scores}))
    columns = [*_LINK, *_PICTURE, *(METRIC_PREFIX + metric for metric in metrics)]
    described = ledger.table(rows, metrics).select(columns)
    described = described.append_column(_UNIT, pa.array([unit] * len(rows), _UNIT.type))
    counts = [patches.get(row.link.key, 0) for row in rows]
    return described.append_column(_PATCHES, pa.array(counts, _PATCHES.type))


def rows(described: pa.Table) -> list[tuple[str, Row]]:
    """(unit, row) of each picture, the row with all that its patches' descriptions are made of."""
    metrics = [name for name in described.column_names if name.startswith(METRIC_PREFIX)]
    found = []
    for entry in described.to_pylist():
        link = Link(position=0, key=entry["key"], url=entry["url"], source=entry["source"])
        scores = {name.removeprefix(METRIC_PREFIX): entry[name] for name in metrics if entry[name] is not None}
        found.append((entry["unit"], Row(link=link, **{name: entry[name] for name in _PICTURE}, scores=scores)))
    return found


def common_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The schema of all of them together: their columns, the metrics' last and sorted."""
    merged = pa.unify_schemas([schema.remove_metadata() for schema in schemas])
    scores = sorted(name for name in merged.names if name.startswith(METRIC_PREFIX))
    others = [name for name in merged.names if not name.startswith(METRIC_PREFIX)]
    return pa.schema([merged.field(name) for name in (*others, *scores)])


def conformed(described: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly these columns: those it lacks are null."""
    missing = [schema.field(name) for name in schema.names if name not in described.column_names]
    for column in missing:
        described = described.append_column(column, pa.nulls(described.num_rows, column.type))
    return described.select(schema.names)
