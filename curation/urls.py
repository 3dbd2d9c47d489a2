"""URL lists: Parquet or CSV with LAION-HR's columns, cut into chunks of fixed size with fixed numbers.

Two passes over the lists. The first reads the URL column alone and finds repeats: 8 bytes a row in a temporary file
and 5 in memory (1.4 and 0.8 GB for LAION-HR's 170 M rows); the second reads batch by batch, so the rest of the list
never sits in memory.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from curation.addresses import is_private_host
from curation.judge import Thresholds, declared
from curation.records import KEY_DIGITS, Link, Reason, Refusal, Row, Stage, url_key

BATCH_ROWS: Final = 8192
_PARTS: Final = 16  # by the first four bits of a key
_AT_A_TIME: Final = 1 << 22  # keys
MAX_URL_CHARACTERS: Final = 4096

#: field of `Link` -> the column's name in a list, in any case
COLUMNS: Final = {
    "url": "url",
    "caption": "text",
    "declared_width": "width",
    "declared_height": "height",
    "similarity": "similarity",
    "hash": "hash",
    "language": "language",
    "punsafe": "punsafe",
    "pwatermark": "pwatermark",
    "license": "license",
}
_TEXTS: Final = ("caption", "language", "license")
_INTEGERS: Final = {"declared_width": 31, "declared_height": 31, "hash": 63}  # bits without the sign
_FLOATS: Final = ("similarity", "punsafe", "pwatermark")


def check_list(path: Path) -> None:
    """Raises ValueError when `path` can't be read as a URL list, before any work starts."""
    if not path.is_file():
        raise ValueError(f"{path}: no such list; --urls takes Parquet or CSV files")
    names = _schema(path).names
    if "url" not in {name.lower() for name in names}:
        raise ValueError(f"{path} has no URL column (it has {', '.join(names) or 'none'}): name one 'URL'")
    if not any(len(batch) for batch in _batches(path, ["url"])):
        raise ValueError(f"{path}: no rows; give a list with at least one URL")


def first_occurrences(paths: Sequence[Path]) -> np.ndarray:
    """(rows of all lists,) bool: False where an earlier row has the same URL. Keys are 64-bit (`url_key`).

    The keys lie in a temporary file, and are sorted a sixteenth at a time.
    """
    with tempfile.TemporaryFile(prefix="million-ird-") as file:
        rows = sum(file.write(keys) for keys in _url_keys(paths)) // 8
        first = np.zeros(rows, dtype=bool)
        if rows:
            keys = np.memmap(file, np.uint64, "r", shape=(rows,))
            for part in range(_PARTS):
                mine = np.concatenate([_of_part(keys, part, at) for at in range(0, rows, _AT_A_TIME)])
                first[mine[np.unique(keys[mine], return_index=True)[1]]] = True
    return first


def _of_part(keys: np.ndarray, part: int, at: int) -> np.ndarray:
    """The numbers of the keys, of so many from `at` on, that begin with these four bits."""
    return np.flatnonzero(keys[at : at + _AT_A_TIME] >> np.uint64(60) == part).astype(np.uint32) + np.uint32(at)


def read_links(paths: Sequence[Path], source: str) -> Iterator[Link]:
    """Every line of the lists, in order, numbered from 0."""
    return links_of((batch for path in paths for batch in _batches(path, list(COLUMNS.values()))), source, 0)


def links_of(batches: Iterable[pa.RecordBatch], source: str, position: int) -> Iterator[Link]:
    """The lines of these batches of a list, numbered from `position`."""
    for batch in batches:
        columns = _columns(batch)
        for values in zip(*columns.values(), strict=True):
            yield _link(position, source, dict(zip(columns, values, strict=True)))
            position += 1


def cut(paths: Sequence[Path], size: int) -> Iterator[list[pa.RecordBatch]]:
    """The lines of all lists in pieces of `size`, the last one shorter; two lists may share one."""
    piece: list[pa.RecordBatch] = []
    missing = size
    for path in paths:
        for batch in _batches(path, list(COLUMNS.values())):
            while len(batch) >= missing:
                yield [*piece, batch.slice(0, missing)]
                batch, piece, missing = batch.slice(missing), [], size
            if len(batch):
                piece.append(batch)
                missing -= len(batch)
    if piece:
        yield piece


def rows_at(paths: Sequence[Path], positions: np.ndarray) -> pa.Table:
    """The lines at `positions` (ascending) of the lists, as they stand there: a list of its own, of texts and numbers.

    Only the columns of `COLUMNS`. Lists that have a column as another type than the first agree on text.
    """
    tables, start = [], 0
    for path in paths:
        for batch in _batches(path, list(COLUMNS.values())):
            inside = positions[np.searchsorted(positions, start) : np.searchsorted(positions, start + len(batch))]
            if len(inside):
                tables.append(pa.Table.from_batches([batch]).take(pa.array(inside - start)))
            start += len(batch)
    return _joined(tables)


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowTypeError:
        as_text = [pa.table({name: one[name].cast(pa.string()) for name in one.column_names}) for one in tables]
        return pa.concat_tables(as_text, promote_options="default")


def first_row(link: Link, is_first: bool, thresholds: Thresholds, allow_private: bool) -> Row:
    """The ledger row a link starts with: refused by the list itself, or NOT_MEASURED, to be downloaded."""
    refusal = refuse_url(link.url, allow_private)
    if refusal is None and not is_first:
        refusal = _refusal(Reason.URL_REPEATED, "an earlier row has it")
    if refusal is None:
        refusal = declared(thresholds, link)
    if refusal is None:
        return Row(link=link, reason=Reason.NOT_MEASURED, stage=Stage.FETCH, detail="never downloaded")
    return Row(link=link, reason=refusal.reason, stage=refusal.stage, detail=refusal.detail)


def refuse_url(url: str, allow_private: bool) -> Refusal | None:
    """Refuses what can't or must not be asked for, judged by the URL's text alone (no DNS)."""
    parts = _split(url)
    if parts is None:
        return _refusal(Reason.URL_MALFORMED, _shown(url))
    if parts.scheme.lower() not in ("http", "https"):
        return _refusal(Reason.URL_NOT_HTTP, parts.scheme[:20] or "no scheme")
    if not parts.hostname:
        return _refusal(Reason.URL_MALFORMED, "no host")
    if not allow_private and is_private_host(parts.hostname):
        return _refusal(Reason.PRIVATE_ADDRESS, parts.hostname[:100])
    return None


def _split(url: str) -> SplitResult | None:
    # of what is printable only the plain space is a space
    if not url or len(url) > MAX_URL_CHARACTERS or " " in url or not url.isprintable():
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number in range
    except ValueError:
        return None
    return parts


def _schema(path: Path) -> pa.Schema:
    try:
        if _is_csv(path):
            with pyarrow.csv.open_csv(path) as reader:
                return reader.schema
        return pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} can't be read ({error}): give Parquet, or CSV named *.csv") from error


def _is_csv(path: Path) -> bool:
    return path.name.lower().endswith((".csv", ".csv.gz"))


def _batches(path: Path, wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Batches with the wanted columns that are there, under lower-case names."""
    present = {name.lower(): name for name in reversed(_schema(path).names)}
    columns = {low: present[low] for low in wanted if low in present}
    names = list(columns.values())
    if _is_csv(path):
        options = pyarrow.csv.ConvertOptions(include_columns=names, column_types={columns["url"]: pa.string()})
        with pyarrow.csv.open_csv(path, convert_options=options) as reader:
            for batch in reader:
                yield batch.rename_columns(list(columns))
        return
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
            yield batch.select(names).rename_columns(list(columns))


def _columns(batch: pa.RecordBatch) -> dict[str, list[Any]]:
    present = {field: name for field, name in COLUMNS.items() if name in batch.schema.names}
    return {field: _values(batch.column(name)) for field, name in present.items()}


def _values(column: pa.Array) -> list[Any]:
    """Texts come as bytes: a stranger's string column may hold what is no UTF-8."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.cast(pa.large_binary()).to_pylist()
    return column.to_pylist()


def _url_keys(paths: Sequence[Path]) -> Iterator[bytes]:
    """The keys of each batch's URLs, 8 bytes each."""
    for path in paths:
        for batch in _batches(path, ["url"]):
            texts = (_text(url).encode("utf-8", "surrogatepass") for url in _values(batch.column("url")))
            digests = b"".join(hashlib.sha256(text).digest()[:8] for text in texts)
            yield np.frombuffer(digests, ">u8").astype(np.uint64).tobytes()


def _link(position: int, source: str, values: dict[str, Any]) -> Link:
    url = _text(values["url"])
    said: dict[str, Any] = {name: _text(values[name]) for name in _TEXTS if values.get(name) is not None}
    said |= {name: _integer(values.get(name), bits) for name, bits in _INTEGERS.items()}
    said |= {name: _number(values.get(name)) for name in _FLOATS}
    return Link(position=position, key=url_key(url), url=url, source=source, **said)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _integer(value: Any, bits: int) -> int | None:
    """The number, whole and within its column; a list's float (2048.0) counts, nonsense does not."""
    whole = value if isinstance(value, int) else _number(value)
    return int(whole) if whole is not None and abs(whole) < 2**bits else None


def _shown(url: str) -> str:
    return repr(url[:80]) if url else "empty"


def _refusal(reason: Reason, detail: str) -> Refusal:
    return Refusal(reason=reason, stage=Stage.LIST, detail=detail)


assert KEY_DIGITS == 16, "first_occurrences holds a key in 64 bits"
