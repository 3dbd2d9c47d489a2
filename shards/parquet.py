"""The Parquet files beside the shards: written a table at a time, read a row group at a time.

Reading stays in the caller's thread, without Arrow's pre-buffering and threads. What they read are Python's bytes, and
a thread that lets go of these while Python ends aborts the process (1 of 9 commands whose last act was to read, with
threads and without pre-buffering; 0 of 16 without either).
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from shards.manifest import FOLDER, ManifestError, Part
from shards.store import Store

_GROUP_ROWS: Final = 8192
_READ_AT_ONCE: Final = 1 << 20  # bytes: the columns of a row group are neighbours, and a request costs more than bytes


def write(store: Store, name: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> Part:
    """Each table becomes a row group, so that one of them can be read without the others. Order is kept."""
    with tempfile.TemporaryDirectory(prefix="million-ird-") as folder:
        path = Path(folder) / name
        with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
            for table in tables:
                writer.write_table(table.select(schema.names).cast(schema), row_group_size=max(1, table.num_rows))
        written = store.write(FOLDER + name, path)
    return Part(name=name, bytes=written.size, sha256=written.sha256)


def regrouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of 8,192, the last one smaller, wherever one table ended and the next began.

    A row group costs its reader 2 KB of footer for 24 columns: as many as a large set has units would be 350 MB.
    """
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        while sum(one.num_rows for one in waiting) >= _GROUP_ROWS:
            rows = pa.concat_tables(waiting)
            yield rows.slice(0, _GROUP_ROWS).combine_chunks()
            waiting = [rows.slice(_GROUP_ROWS).combine_chunks()]
    if any(one.num_rows for one in waiting):
        yield pa.concat_tables(waiting).combine_chunks()


def read(store: Store, part: Part, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The row groups in order, all columns or these. Raises ManifestError where it is missing or broken."""
    with opened(store, part) as file:
        for group in range(file.num_row_groups):
            yield group_of(store, part, file, group, columns)


def group_of(store: Store, part: Part, file: pq.ParquetFile, group: int, columns: list[str] | None = None) -> pa.Table:
    """Row group number `group`. Raises ManifestError where it can't be read."""
    try:
        return file.read_row_group(group, columns=columns, use_threads=False)
    except (pa.ArrowInvalid, OSError, IndexError, KeyError) as error:
        raise _broken(store, part, error) from error


def opened(store: Store, part: Part) -> pq.ParquetFile:
    """The part, read piece by piece as it is asked for. Raises ManifestError where it is missing or broken."""
    try:
        stored = pa.PythonFile(stored_file(store, FOLDER + part.name), mode="r")
        return pq.ParquetFile(stored, pre_buffer=False, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise ManifestError(f"no {FOLDER}{part.name} in {store.root}: give the run's command again") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(store, part, error) from error


def schema_of(store: Store, part: Part) -> pa.Schema:
    """Its columns. Raises ManifestError where it is missing or broken."""
    with opened(store, part) as file:
        return file.schema_arrow


def stored_file(store: Store, name: str) -> io.BufferedReader:
    """Any object as a file of which only what is asked for is read. Raises FileNotFoundError."""
    return io.BufferedReader(_StoredFile(store, name), _READ_AT_ONCE)


def _broken(store: Store, part: Part, error: Exception) -> ManifestError:
    return ManifestError(f"{FOLDER}{part.name} in {store.root} is broken ({error}): run the job again")


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

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        length = min(len(buffer), max(0, self._size - self._at))
        data = self._store.read(self._name, self._at, length) if length else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
