"""The ledger: one Parquet part per chunk, one row per URL. A part is written last and *is* its chunk's commit.

A part is read and written whole (1,000 rows of it take about 250 KB in memory); nothing here ever holds
more than a few dozen of them at a time.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from curation.records import METRIC_PREFIX, SCHEMA_VERSION, Link, Reason, Row, Stage, ledger_schema
from shards.pool import pooled
from shards.store import Store

FOLDER: Final = "ledger/"
_VERSION: Final = b"million_ird.schema_version"
_ABOUT: Final = b"million_ird.about"
_LINK_COLUMNS: Final = tuple(f.name for f in fields(Link))
_ROW_COLUMNS: Final = tuple(f.name for f in fields(Row) if f.name not in ("link", "scores"))


def part_name(unit: str) -> str:
    """Where the ledger part of a unit (`chunk-00000123`) lives in the store."""
    return f"{FOLDER}{unit}.parquet"


def units(store: Store) -> Iterator[str]:
    """The units with a ledger part, in ascending order."""
    for name in store.list(FOLDER):
        if name.endswith(".parquet"):
            yield name.removeprefix(FOLDER).removesuffix(".parquet")


def encode(rows: Sequence[Row], metrics: tuple[str, ...], about: Mapping[str, Any]) -> bytes:
    """A part's bytes: `rows` in list order, `about` (recipe, weight hashes) as JSON in the Parquet metadata.

    One column for each of `metrics`, and for every other of which a row has a score: none is ever lost.
    """
    others = {metric for row in rows for metric in row.scores} - set(metrics)
    return encode_table(table(rows, (*metrics, *sorted(others))), about)


def encode_table(found: pa.Table, about: Mapping[str, Any]) -> bytes:
    """The same of rows as columns, those of `ledger_schema` in its order."""
    version = {_VERSION: str(SCHEMA_VERSION).encode(), _ABOUT: json.dumps(about, sort_keys=True).encode()}
    sink = io.BytesIO()
    pq.write_table(found.replace_schema_metadata(version), sink, compression="zstd")
    return sink.getvalue()


def table(rows: Sequence[Row], metrics: tuple[str, ...]) -> pa.Table:
    """The rows with the columns of `ledger_schema`, scores of `metrics` alone."""
    columns: dict[str, list[Any]] = {name: [getattr(row.link, name) for row in rows] for name in _LINK_COLUMNS}
    columns |= {name: [_plain(getattr(row, name)) for row in rows] for name in _ROW_COLUMNS}
    for metric in metrics:
        columns[METRIC_PREFIX + metric] = [row.scores.get(metric) for row in rows]
    return pa.table(columns, schema=ledger_schema(metrics))


def decode(data: bytes, name: str) -> list[Row]:
    """The rows of a part's bytes; `name` is for the message.

    Raises ValueError where it is no ledger part, or one of another schema version.
    """
    return rows_of(decode_table(data, name))


def decode_table(data: bytes, name: str) -> pa.Table:
    """The same as columns, without an object a row. Raises as `decode` does."""
    try:  # in this thread: see `shards.parquet`
        found = pq.ParquetFile(io.BytesIO(data), pre_buffer=False).read(use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{name} is no ledger part ({error}): remove it and run the filter again") from error
    missing = {field.name for field in ledger_schema(())} - set(found.column_names)
    version = (found.schema.metadata or {}).get(_VERSION, b"none").decode("ascii", "replace")
    if version == str(SCHEMA_VERSION) and missing:
        raise ValueError(f"{name} has no column {', '.join(sorted(missing))}: remove it and run the filter again")
    if version != str(SCHEMA_VERSION):
        raise ValueError(
            f"{name} has ledger schema {version}, this program reads {SCHEMA_VERSION}: "
            "use the release that wrote it, or filter into a new --out"
        )
    return found


def rows_of(found: pa.Table) -> list[Row]:
    """The rows of a part's columns: all of them, or at least those that a row can't do without."""
    metrics = [c.removeprefix(METRIC_PREFIX) for c in found.column_names if c.startswith(METRIC_PREFIX)]
    links = [name for name in _LINK_COLUMNS if name in found.column_names]
    facts = [name for name in _ROW_COLUMNS if name in found.column_names]
    return [_row(entry, links, facts, metrics) for entry in found.to_pylist()]


def bodies(store: Store, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Units, in the order given, with the bytes of their parts; read ahead. Raises FileNotFoundError."""
    return pooled(lambda unit: (unit, store.read(part_name(unit))), wanted)


def read(store: Store, unit: str) -> list[Row]:
    """The rows of one unit, in list order. Raises FileNotFoundError, ValueError (see `decode`)."""
    name = part_name(unit)
    return decode(store.read(name), f"{store.root}/{name}")


def funnel(store: Store) -> Counter[tuple[Stage, Reason]]:
    """How many rows ended where, and why; two columns of each part. Raises ValueError for a broken part."""
    counts: Counter[tuple[Stage, Reason]] = Counter()
    for unit, data in bodies(store, units(store)):
        try:
            ends = pq.ParquetFile(io.BytesIO(data), pre_buffer=False).read(["stage", "reason"], use_threads=False)
            counts.update(ends_of(ends))
        except (pa.ArrowInvalid, OSError, KeyError, ValueError) as error:
            name = part_name(unit)
            raise ValueError(f"{store.root}/{name} is no ledger part ({error}): run the filter again") from error
    return counts


def ends_of(found: pa.Table) -> Counter[tuple[Stage, Reason]]:
    """How many of a part's rows ended where, and why. Raises ValueError for a word that is neither."""
    grouped = (
        found.select(["stage", "reason"])
        .group_by(["stage", "reason"], use_threads=False)
        .aggregate([([], "count_all")])
    )
    return Counter({(Stage(o["stage"]), Reason(o["reason"])): o["count_all"] for o in grouped.to_pylist()})


def about(store: Store, unit: str) -> dict[str, Any]:
    """What was written into the part's metadata beside the rows: recipe, metrics, weight hashes."""
    return about_of(store.read(part_name(unit)))


def about_of(data: bytes) -> dict[str, Any]:
    """The same, of a part's bytes."""
    return about_in(pq.read_schema(io.BytesIO(data)))


def about_in(schema: pa.Schema) -> dict[str, Any]:
    """The same, of a part's columns."""
    return dict(json.loads((schema.metadata or {}).get(_ABOUT, b"{}")))


def write(store: Store, unit: str, rows: Sequence[Row], metrics: tuple[str, ...], about: Mapping[str, Any]) -> None:
    """Puts one unit's rows there, atomically, replacing what was there."""
    store.write(part_name(unit), encode(rows, metrics, about))


def rewrite(store: Store, unit: str, rows: Sequence[Row]) -> None:
    """Puts other rows into a part that is there; its metrics, and what is written beside the rows, stay."""
    data = store.read(part_name(unit))
    names = pq.read_schema(io.BytesIO(data)).names
    metrics = tuple(name.removeprefix(METRIC_PREFIX) for name in names if name.startswith(METRIC_PREFIX))
    write(store, unit, rows, metrics, about_of(data))


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, (Reason, Stage)) else value


def _row(entry: Mapping[str, Any], links: Sequence[str], facts: Sequence[str], metrics: Sequence[str]) -> Row:
    scores = {metric: entry[METRIC_PREFIX + metric] for metric in metrics}
    measured = {name: entry[name] for name in facts}
    measured["reason"], measured["stage"] = Reason(entry["reason"]), Stage(entry["stage"])
    return Row(
        link=Link(**{name: entry[name] for name in links}),
        **measured,
        scores={metric: value for metric, value in scores.items() if value is not None},
    )
