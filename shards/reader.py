"""One sample's bytes by its shard and slot: from the cache where its shard is there, else from where the set lies.

Each is checked against the index's digest. What fails that once is asked for again, from the source; what fails twice
is a bad sample, and the caller decides what to do without it.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from shards import index, tar
from shards.cache import Cache
from shards.manifest import FOLDER, Manifest, ManifestError, read_manifest
from shards.s3 import Broken
from shards.store import LocalStore, Store, StoreError

_COLUMNS: Final = ["sample", "slot", "suffix", "digest", "data_offset", "data_size"]
_ROWS_HELD: Final = 1 << 17  # rows of the index that are kept, of whole shards: some 30 MB
_MISSING_FOR: Final = 30.0  # seconds until a missing shard is looked for again
_AT_ONCE: Final = 8  # requests on their way, to where the set lies


class BadSample(Exception):
    """The sample can't be had: its message says which and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """`data` is a file, by its `suffix` a JPEG ("jpg") or a PNG ("png")."""

    name: str
    suffix: str
    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """A shard's rows of the index, ascending by slot; plain lists, since one element is asked for at a time."""

    slots: np.ndarray
    names: list[str]
    suffixes: list[str]
    digests: list[str]
    offsets: list[int]
    sizes: list[int]

    @staticmethod
    def of(table: pa.Table) -> _Rows:
        names, suffixes, digests, offsets, sizes = (table[c].to_pylist() for c in _COLUMNS if c != "slot")
        slots = table["slot"].to_numpy()
        return _Rows(slots=slots, names=names, suffixes=suffixes, digests=digests, offsets=offsets, sizes=sizes)


class Reader:
    """Reads samples of one set. Not for several threads at once."""

    def __init__(self, store: Store, manifest: Manifest, cache: Cache | None) -> None:
        self._store, self._manifest, self._cache = store, manifest, cache
        self._rows: OrderedDict[int, _Rows] = OrderedDict()
        self._missing: dict[int, tuple[float, str]] = {}
        self._fetched: dict[tuple[int, int], bytes] = {}
        self._threads = None if isinstance(store, LocalStore) else ThreadPoolExecutor(_AT_ONCE)

    def fetch(self, places: Sequence[tuple[int, int]]) -> None:
        """Asks for these (shard, slot) together where they have to be asked for over a network, for `sample`."""
        self._fetched.clear()
        if self._threads is None:
            return
        wanted: list[tuple[tuple[int, int], str, int, int]] = []
        for shard, slot in places:
            with suppress(BadSample, FileNotFoundError, IndexError, ManifestError):  # `sample` says it
                rows, row = self._row(shard, slot)
                if self._cached(shard) is None:
                    wanted.append(((shard, slot), self._name(shard), rows.offsets[row], rows.sizes[row]))
        for (place, *_), data in zip(wanted, self._threads.map(self._tried, wanted), strict=True):
            if data is not None:
                self._fetched[place] = data

    def sample(self, shard: int, slot: int) -> Sample:
        """The sample in this place. Raises BadSample; StoreError where the store can't be used at all."""
        since, cause = self._missing.get(shard, (0.0, ""))
        if cause and time.monotonic() - since < _MISSING_FOR:
            raise BadSample(cause)
        try:
            return self._found(shard, slot)
        except (FileNotFoundError, IndexError, ManifestError):
            self._look_again()
        try:
            return self._found(shard, slot)
        except (FileNotFoundError, IndexError, ManifestError) as error:
            self._missing[shard] = (time.monotonic(), f"{self._store.root}: {error}")
            raise BadSample(f"{self._store.root}: {error}") from error

    def _found(self, shard: int, slot: int) -> Sample:
        rows, row = self._row(shard, slot)
        offset, size = rows.offsets[row], rows.sizes[row]
        data = self._fetched.pop((shard, slot), None) or self._near(shard, offset, size)
        if data is None or tar.digest(data) != rows.digests[row]:
            try:
                data = self._store.read(self._name(shard), offset, size)
            except Broken as error:
                raise BadSample(f"{rows.names[row]}: {error}") from error
            if tar.digest(data) != rows.digests[row]:
                told = f"{rows.names[row]} in {self._manifest.shards[shard].name}"
                raise BadSample(f"{told}: {len(data)} of {size} bytes came, not those of the index")
        return Sample(name=rows.names[row], suffix=rows.suffixes[row], data=data)

    def _name(self, shard: int) -> str:
        return FOLDER + self._manifest.shards[shard].name

    def _row(self, shard: int, slot: int) -> tuple[_Rows, int]:
        rows = self._rows_of(shard)
        row = int(rows.slots.searchsorted(slot))
        if row == len(rows.slots) or rows.slots[row] != slot:
            raise BadSample(f"sample number {slot} of {self._manifest.shards[shard].name} was taken out for good")
        return rows, row

    def _rows_of(self, shard: int) -> _Rows:
        if shard in self._rows:
            self._rows.move_to_end(shard)
            return self._rows[shard]
        if shard >= len(self._manifest.shards):
            raise IndexError(f"the set has no shard number {shard}")  # known here: a newer version may
        rows = _Rows.of(index.read_one(self._store, self._manifest, shard, _COLUMNS))
        self._rows[shard] = rows
        while len(self._rows) > 1 and sum(len(one.slots) for one in self._rows.values()) > _ROWS_HELD:
            self._rows.popitem(last=False)
        return rows

    def _cached(self, shard: int) -> str | None:
        """A file on this machine that is the shard."""
        if isinstance(self._store, LocalStore) and self._cache is None:
            return f"{self._store.root}/{self._name(shard)}"
        path = self._cache.find(self._manifest.shards[shard]) if self._cache else None
        return str(path) if path else None

    def _near(self, shard: int, offset: int, size: int) -> bytes | None:
        """From this machine; None where it isn't here, or no more: another process may have made room."""
        path = self._cached(shard)
        if path is None:
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)

    def _tried(self, wanted: tuple[tuple[int, int], str, int, int]) -> bytes | None:
        _, name, offset, size = wanted
        try:
            return self._store.read(name, offset, size)
        except (FileNotFoundError, StoreError):
            return None  # `sample` asks again, and says it

    def _look_again(self) -> None:
        """Takes up a newer manifest: what was moved has another name there."""
        newer = read_manifest(self._store)
        if newer.set != self._manifest.set:
            raise BadSample(f"the set in {self._store.root} was made anew")
        self._manifest = newer
        self._rows.clear()
