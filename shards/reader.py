"""One sample's bytes by its shard and slot: from the cache where its shard is there, else from where the set lies.

Each is checked against the index's digest. What fails that once is asked for again, from the source; what fails twice
is a bad sample, and the caller decides what to do without it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from shards import parquet, tar
from shards.cache import Cache
from shards.manifest import FOLDER, Manifest, ManifestError, read_manifest
from shards.store import Store

_COLUMNS: Final = ["sample", "slot", "suffix", "digest", "data_offset", "data_size"]
_SHARDS_HELD: Final = 64  # whose rows of the index are kept: a shard of 15,000 samples takes 1 MB
_MISSING_FOR: Final = 30.0  # seconds until a missing shard is looked for again


class BadSample(Exception):
    """The sample can't be had: its message says which and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """`data` is a file, by its `suffix` a JPEG ("jpg") or a PNG ("png")."""

    name: str
    suffix: str
    data: bytes


class Reader:
    """Reads samples of one set. Not for several threads at once."""

    def __init__(self, store: Store, manifest: Manifest, cache: Cache | None) -> None:
        self._store, self._manifest, self._cache = store, manifest, cache
        self._rows: OrderedDict[int, pa.Table] = OrderedDict()
        self._missing: dict[int, tuple[float, str]] = {}

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
        rows = self._rows_of(shard)
        name = self._manifest.shards[shard].name
        row = int(np.searchsorted(rows["slot"].to_numpy(), slot))
        if row == rows.num_rows or rows["slot"][row].as_py() != slot:
            raise BadSample(f"sample number {slot} of {name} was taken out for good")
        sample, suffix, digest, offset, size = (rows[column][row].as_py() for column in _COLUMNS if column != "slot")
        for from_cache in (True, False):
            data = self._read(shard, offset, size, from_cache)
            if tar.digest(data) == digest:
                return Sample(name=sample, suffix=suffix, data=data)
        raise BadSample(f"{sample} in {name}: {len(data)} of {size} bytes came, not those of the index")

    def _rows_of(self, shard: int) -> pa.Table:
        if shard in self._rows:
            self._rows.move_to_end(shard)
            return self._rows[shard]
        if shard >= len(self._manifest.shards):
            raise IndexError(shard)  # of a version newer than what is known here
        rows = parquet.row_group(self._store, self._manifest.index, shard, _COLUMNS).combine_chunks()
        self._rows[shard] = rows
        if len(self._rows) > _SHARDS_HELD:
            self._rows.popitem(last=False)
        return rows

    def _read(self, shard: int, offset: int, size: int, from_cache: bool) -> bytes:
        one = self._manifest.shards[shard]
        path = self._cache.find(one) if self._cache and from_cache else None
        if path is not None:
            try:
                with path.open("rb") as file:
                    file.seek(offset)
                    return file.read(size)
            except FileNotFoundError:  # another process made room
                pass
        return self._store.read(FOLDER + one.name, offset, size)

    def _look_again(self) -> None:
        """Takes up a newer manifest: what was moved has another name there."""
        newer = read_manifest(self._store)
        if newer.set != self._manifest.set:
            raise BadSample(f"the set in {self._store.root} was made anew")
        self._manifest = newer
        self._rows.clear()
