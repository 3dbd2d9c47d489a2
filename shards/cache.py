"""Shards on this machine's disk: fetched once for all its processes, checked by SHA-256, the longest unused go first.

A help and never a need: what isn't here is read from where it comes from, sample by sample. So a limit that is too
small, or a full disk, makes a run slower and can't stop it or hang it.

A checked shard gets a time of change from long ago. While it has that, nobody has written to it since, and its samples
need no digests, which cost 30 us each, and of JPEGs no more is read than a crop needs. It is looked at as it is opened,
once a batch. A disk that gives other bytes than were
written is then noticed only where they don't decode: one in nine flipped bits of a JPEG. When a shard was used is its
time of access.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from filelock import FileLock, Timeout

from shards.manifest import FOLDER, Shard
from shards.spool import pour, windows
from shards.store import Store

DEFAULT_LIMIT: Final = 20_000_000_000  # bytes
_PIECE: Final = 1 << 24  # bytes a request: each waits for the network once
_TRIES: Final = 3  # of a shard that arrives with other bytes
_TEMPORARY: Final = ".tmp-"
_ABANDONED_AFTER: Final = 3600.0  # seconds without a byte
_CHECKED: Final = 946_684_800 * 10**9  # time of change of a shard as it was checked, in ns: the year 2000


class WrongBytes(ValueError):
    """A shard arrived with other bytes than the manifest's, again and again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """A folder, shared by all processes of the machine. `limit` in bytes, of what is there and on its way."""

    folder: Path  # its name will do
    limit: int = DEFAULT_LIMIT

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    def find(self, shard: Shard) -> Path | None:
        """Where the shard lies here, if it does and can be used. That it was asked for is remembered."""
        path = self._path(shard)
        try:
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        except OSError:
            return None
        return path

    def open(self, shard: Shard) -> int | None:
        """A descriptor of the shard's file; None where it isn't here, or can't be used.

        That it was asked for is remembered. Whoever holds it open holds its place on the disk, too.
        """
        try:
            file = os.open(f"{self.folder}/{_name(shard)}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        with suppress(OSError):
            os.utime(file, ns=(time.time_ns(), os.fstat(file).st_mtime_ns))
        return file

    def doubt(self, shard: Shard) -> bool:
        """Takes an unchanged shard for one that may have changed: a disk can err too. Whether it was unchanged."""
        path = self._path(shard)
        with suppress(OSError):
            if path.stat().st_mtime_ns == _CHECKED:
                os.utime(path)
                return True
        return False

    def drop(self, shard: Shard) -> None:
        """Takes the shard away: it has gone bad here."""
        with suppress(OSError):
            self._path(shard).unlink()

    def fetch(self, store: Store, shard: Shard) -> bool:
        """Brings the shard here, unless it is here, or another process is bringing it. Whether it is here now.

        Raises WrongBytes, FileNotFoundError, StoreError (from where it comes), OSError (a full disk here).
        """
        if self.find(shard):
            return True
        if shard.bytes > self.limit:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / f"{self._path(shard).name}.lock", timeout=0):
                return self.find(shard) is not None or self._bring(store, shard)
        except Timeout:
            return False

    def _path(self, shard: Shard) -> Path:
        return self.folder / _name(shard)

    def _bring(self, store: Store, shard: Shard) -> bool:
        temporary = self._reserved(shard)
        if temporary is None:
            return False
        try:
            for _ in range(_TRIES):
                with temporary.open("r+b") as file:
                    found = _copy(store, shard, file)
                if found == shard.sha256:
                    with suppress(OSError):  # then each sample is checked
                        os.utime(temporary, ns=(time.time_ns(), _CHECKED))
                    temporary.replace(self._path(shard))
                    return True
        finally:
            temporary.unlink(missing_ok=True)
        raise WrongBytes(f"{store.root}/{FOLDER}{shard.name} has SHA-256 {found}, the manifest {shard.sha256}")

    def _reserved(self, shard: Shard) -> Path | None:
        """A file of the shard's length, which holds its place within the limit; None where there is no room.

        Under the shard's own lock: what lies there of an earlier try was left by a killed process.
        """
        prefix = f"{_TEMPORARY}{shard.sha256[:32]}-"
        with FileLock(self.folder / "room.lock", timeout=60):
            for left in [*self.folder.glob(f"{prefix}*"), *self._abandoned()]:
                left.unlink(missing_ok=True)
            if not self._make_room(shard.bytes):
                return None
            descriptor, name = tempfile.mkstemp(prefix=prefix, dir=self.folder)
            with os.fdopen(descriptor, "r+b") as file:
                file.truncate(shard.bytes)  # sparse: it takes no disk before its bytes come
            return Path(name)

    def _make_room(self, need: int) -> bool:
        """Removes the longest unused shards until there is room, within the limit and on the disk."""
        arriving = sum(size for _, size, _ in _listed(self.folder.glob(f"{_TEMPORARY}*")))
        if arriving + need > self.limit:
            return False  # whatever left, it would not be enough
        there = sorted(_listed(self.folder.glob("*.tar")))
        held = arriving + sum(size for _, size, _ in there)
        while there and (held + need > self.limit or shutil.disk_usage(self.folder).free < 2 * need):
            _, size, path = there.pop(0)
            path.unlink(missing_ok=True)
            held -= size
        return held + need <= self.limit and shutil.disk_usage(self.folder).free > need

    def _abandoned(self) -> list[Path]:
        """What killed processes were bringing."""
        before = time.time() - _ABANDONED_AFTER
        return [path for last, _, path in _listed(self.folder.glob(f"{_TEMPORARY}*")) if last < before]


def is_checked(file: int) -> bool:
    """Whether nobody has written to an open shard of the cache since its SHA-256 was checked."""
    return os.fstat(file).st_mtime_ns == _CHECKED


def _name(shard: Shard) -> str:
    return f"{shard.sha256[:32]}.tar"  # by content: sets and their versions share what they share


def default_cache() -> Cache:
    """A folder of the user's, within the default limit."""
    return Cache(folder=Path.home() / ".cache" / "million-ird")


def is_full(error: OSError) -> bool:
    """Whether the disk has no room left, or none for us."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _listed(paths: Iterable[Path]) -> list[tuple[float, int, Path]]:
    """When each was changed or used, bytes, and its path; without those that another process took away meanwhile."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            state = path.stat()
            found.append((max(state.st_mtime, state.st_atime), state.st_size, path))
    return found


def _copy(store: Store, shard: Shard, file: IO[bytes]) -> str:
    """SHA-256 of what came, piece by piece: one that breaks off is asked for anew by itself."""
    came = pour(windows(store, FOLDER + shard.name, shard.bytes, _PIECE), file)
    file.truncate()
    file.flush()
    os.fsync(file.fileno())  # before it has its name: a power cut must not leave the name over nothing
    return came.sha256
