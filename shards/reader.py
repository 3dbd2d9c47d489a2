"""One sample's bytes by its shard and slot: from the cache where its shard is there, else from where the set lies.

Each is checked against the index's digest, but for what the cache has checked as a whole shard. What fails that once is
asked for again, from the source; what fails twice is a bad sample, and the caller decides what to do without it.
"""

from __future__ import annotations

import bisect
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

import pyarrow as pa

from shards import index, tar
from shards.cache import Cache, is_checked
from shards.manifest import FOLDER, Manifest, ManifestError, Shard, read_again
from shards.s3 import Broken
from shards.store import LocalStore, Store, StoreError

_COLUMNS: Final = ["sample", "slot", "suffix", "digest", "data_offset", "data_size"]
_ROWS_HELD: Final = 1 << 17  # rows of the index that are kept, of whole shards: some 30 MB
_MISSING_FOR: Final = 30.0  # seconds until a missing shard is looked for again
_AT_ONCE: Final = 8  # requests on their way, to where the set lies


class BadSample(Exception):
    """The sample can't be had: its message says why, and `sample` which it is, where that is known."""

    def __init__(self, cause: str, sample: str = "") -> None:
        super().__init__(cause)
        self.sample = sample


class Sample(NamedTuple):
    """`data` is a file, by its `suffix` a JPEG ("jpg") or a PNG ("png")."""

    name: str
    suffix: str
    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """A shard's rows of the index, ascending by slot; plain lists, since one element is asked for at a time."""

    slots: list[int]
    names: list[str]
    suffixes: list[str]
    digests: list[str]
    offsets: list[int]
    sizes: list[int]

    @staticmethod
    def of(table: pa.Table, shard: Shard) -> _Rows:
        """Raises ManifestError for rows that can't be of this shard."""
        if missing := [column for column in _COLUMNS if column not in table.column_names]:
            raise ManifestError(f"the index has no {', '.join(missing)}: run dynet-shard fsck")
        begin, size = table["data_offset"].to_numpy(), table["data_size"].to_numpy()
        if len(begin) and (min(begin.min(), size.min()) < 0 or (begin > shard.bytes - size).any()):
            raise ManifestError(f"the index has places outside of {shard.name}: run dynet-shard fsck")
        names, suffixes, digests, offsets, sizes = (table[c].to_pylist() for c in _COLUMNS if c != "slot")
        slots = table["slot"].to_pylist()
        return _Rows(slots=slots, names=names, suffixes=suffixes, digests=digests, offsets=offsets, sizes=sizes)


class Near(NamedTuple):
    """Where a sample lies in an open file that was checked as a whole: `size` bytes from `offset`."""

    name: str
    suffix: str
    file: int
    offset: int
    size: int


class Reader:
    """Reads samples of one set. Not for several threads at once."""

    def __init__(self, store: Store, manifest: Manifest, cache: Cache | None) -> None:
        self._store, self._manifest, self._cache = store, manifest, cache
        self._rows: OrderedDict[int, _Rows] = OrderedDict()
        self._missing: dict[int, tuple[float, str]] = {}
        self._fetched: dict[tuple[int, int], bytes] = {}
        self._files: dict[int, tuple[int | None, bool]] = {}
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
                if self._file(shard)[0] is None:
                    wanted.append(((shard, slot), self._name(shard), rows.offsets[row], rows.sizes[row]))
        for (place, *_), data in zip(wanted, self._threads.map(self._tried, wanted), strict=True):
            if data is not None:
                self._fetched[place] = data

    def near(self, shard: int, slot: int) -> Near | None:
        """Where the sample can be read without its digest, until `release`; None for what `sample` must give."""
        if self._cache is None or shard in self._missing:
            return None
        file, checked = self._files.get(shard) or self._file(shard)
        if file is None or not checked:
            return None
        try:
            rows, row = self._row(shard, slot)
        except (BadSample, FileNotFoundError, IndexError, ManifestError):  # `sample` says it
            return None
        return Near(rows.names[row], rows.suffixes[row], file, rows.offsets[row], rows.sizes[row])

    def sample(self, shard: int, slot: int) -> Sample:
        """The sample in this place. Raises BadSample; StoreError (OtherSet too) where the store can't be used.

        Files stay open for the next sample, until `release`.
        """
        if shard in self._missing:
            since, cause = self._missing[shard]
            if time.monotonic() - since < _MISSING_FOR:
                raise BadSample(cause)
            del self._missing[shard]
        try:
            return self._found(shard, slot)
        except (FileNotFoundError, IndexError, ManifestError):
            self._look_again()
        try:
            return self._found(shard, slot)
        except (FileNotFoundError, IndexError, ManifestError) as error:
            self._missing[shard] = (time.monotonic(), f"{self._store.root}: {error}")
            raise BadSample(f"{self._store.root}: {error}") from error

    def release(self) -> None:
        """Closes the files: an open one would keep its place on the disk when the cache has let it go."""
        for shard in list(self._files):
            self._close(shard)

    def doubt(self, shard: int) -> bool:
        """What this shard gives can't be right: from now on its samples are checked. Whether they were not yet."""
        self._close(shard)
        return self._cache is not None and self._cache.doubt(self._manifest.shards[shard])

    def _found(self, shard: int, slot: int) -> Sample:
        rows, row = self._row(shard, slot)
        data = self._fetched.pop((shard, slot), None) if self._fetched else None
        if data is None:
            data = self._kept(shard, rows, row)
        elif tar.digest(data) != rows.digests[row]:
            data = None
        if data is None:
            data = self._asked(shard, rows, row)
        return Sample(name=rows.names[row], suffix=rows.suffixes[row], data=data)

    def _kept(self, shard: int, rows: _Rows, row: int) -> bytes | None:
        """From this machine, if it is sound there. A shard that went bad in the cache is let go."""
        data, checked = self._near(shard, rows.offsets[row], rows.sizes[row])
        if data is None or checked or tar.digest(data) == rows.digests[row]:
            return data
        self._close(shard)
        if self._cache is not None:
            self._cache.drop(self._manifest.shards[shard])
        return None

    def _asked(self, shard: int, rows: _Rows, row: int) -> bytes:
        """From where the set lies. Raises BadSample, OtherSet."""
        try:
            data = self._store.read(self._name(shard), rows.offsets[row], rows.sizes[row])
        except FileNotFoundError:
            raise
        except (Broken, OSError) as error:  # a disk that can't be read here may be read elsewhere
            raise BadSample(str(error), rows.names[row]) from error
        if tar.digest(data) != rows.digests[row]:
            read_again(self._store, self._manifest)  # they may be another set's, which uses names again
            cause = f"{self._manifest.shards[shard].name} has other bytes there than the index says"
            raise BadSample(cause, rows.names[row])
        return data

    def _name(self, shard: int) -> str:
        return FOLDER + self._manifest.shards[shard].name

    def _row(self, shard: int, slot: int) -> tuple[_Rows, int]:
        rows = self._rows_of(shard)
        row = bisect.bisect_left(rows.slots, slot)
        if row == len(rows.slots) or rows.slots[row] != slot:
            raise BadSample(f"sample number {slot} of {self._manifest.shards[shard].name} was taken out for good")
        return rows, row

    def _rows_of(self, shard: int) -> _Rows:
        known = self._rows.get(shard)
        if known is not None:
            self._rows.move_to_end(shard)
            return known
        if shard >= len(self._manifest.shards):
            raise IndexError(f"the set has no shard number {shard}")  # known here: a newer version may
        one, part = self._manifest.shards[shard], self._manifest.index
        if self._store.size(FOLDER + part.name) != part.bytes:  # a set that was made anew uses its names again
            raise ManifestError(f"{FOLDER}{part.name} is not the one that the manifest names")
        rows = _Rows.of(index.read_one(self._store, self._manifest, shard, _COLUMNS), one)
        self._rows[shard] = rows
        while len(self._rows) > 1 and sum(len(one.slots) for one in self._rows.values()) > _ROWS_HELD:
            self._rows.popitem(last=False)
        return rows

    def _near(self, shard: int, offset: int, size: int) -> tuple[bytes | None, bool]:
        """From this machine, and whether it was checked there; None where it isn't here, or no more.

        Another process may have made room in the cache.
        """
        file, checked = self._file(shard)
        if file is None:
            return None, False
        try:
            return os.pread(file, size, offset), checked
        except OSError:
            self._close(shard)
            return None, False

    def _file(self, shard: int) -> tuple[int | None, bool]:
        """The shard's open file, None where it isn't on this machine; and whether it was checked as a whole."""
        if shard not in self._files:
            file = self._opened(shard) if shard < len(self._manifest.shards) else None
            self._files[shard] = file, file is not None and self._cache is not None and is_checked(file)
        return self._files[shard]

    def _opened(self, shard: int) -> int | None:
        if self._cache is not None:
            return self._cache.open(self._manifest.shards[shard])
        if not isinstance(self._store, LocalStore):
            return None
        try:
            return os.open(f"{self._store.root}/{self._name(shard)}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # what has to be asked for elsewhere says what is wrong there
            return None

    def _close(self, shard: int) -> None:
        file, _ = self._files.pop(shard, (None, False))
        if file is not None:
            os.close(file)

    def _tried(self, wanted: tuple[tuple[int, int], str, int, int]) -> bytes | None:
        _, name, offset, size = wanted
        try:
            return self._store.read(name, offset, size)
        except (OSError, StoreError):
            return None  # `sample` asks again, and says it

    def _look_again(self) -> None:
        """Takes up a newer manifest: what was moved has another name there. Raises OtherSet, ManifestError."""
        self._manifest = read_again(self._store, self._manifest)
        self._rows.clear()
        self.release()
