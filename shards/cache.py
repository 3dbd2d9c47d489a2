"""Shards on this machine's disk: fetched once for all its processes, checked by SHA-256, the longest unused go first.

A help and never a need: what isn't here is read from where it comes from, sample by sample. So a limit that is too
small, or a full disk, makes a run slower and can't stop it or hang it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from filelock import FileLock, Timeout

from shards.manifest import FOLDER, Shard
from shards.store import Store

DEFAULT_LIMIT: Final = 20_000_000_000  # bytes
_PIECE: Final = 1 << 24  # bytes a request
_TRIES: Final = 3  # of a shard that arrives with other bytes
_TEMPORARY: Final = ".tmp-"
_ABANDONED_AFTER: Final = 3600.0  # seconds without a byte


class WrongBytes(ValueError):
    """A shard arrived with other bytes than the manifest's, again and again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """A folder, shared by all processes of the machine. `limit` in bytes."""

    folder: Path
    limit: int = DEFAULT_LIMIT

    def find(self, shard: Shard) -> Path | None:
        """Where the shard lies here, if it does. That it was asked for is remembered."""
        path = self._path(shard)
        try:
            os.utime(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return path

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
        return self.folder / f"{shard.sha256[:32]}.tar"  # by content: sets and their versions share what they share

    def _bring(self, store: Store, shard: Shard) -> bool:
        if not self._make_room(shard.bytes):
            return False
        for _ in range(_TRIES):
            descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=self.folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    found = _copy(store, shard, file)
                if found == shard.sha256:
                    Path(temporary).replace(self._path(shard))
                    return True
            finally:
                Path(temporary).unlink(missing_ok=True)
        raise WrongBytes(f"{store.root}/{FOLDER}{shard.name} has SHA-256 {found}, the manifest {shard.sha256}")

    def _make_room(self, need: int) -> bool:
        """Removes the longest unused shards until there is room, within the limit and on the disk."""
        with FileLock(self.folder / "room.lock", timeout=60):
            self._sweep()
            there = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in self.folder.glob("*.tar"))
            held = sum(size for _, size, _ in there) + self._arriving()
            while there and (held + need > self.limit or shutil.disk_usage(self.folder).free < 2 * need):
                _, size, path = there.pop(0)
                path.unlink(missing_ok=True)
                held -= size
            return held + need <= self.limit and shutil.disk_usage(self.folder).free > need

    def _arriving(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob(f"{_TEMPORARY}*"))

    def _sweep(self) -> None:
        """Removes what a killed process was bringing."""
        for path in self.folder.glob(f"{_TEMPORARY}*"):
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER:
                path.unlink(missing_ok=True)


def default_cache() -> Cache:
    """A folder of the user's, within the default limit."""
    return Cache(folder=Path.home() / ".cache" / "million-ird")


def is_full(error: OSError) -> bool:
    """Whether the disk has no room left, or none for us."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _copy(store: Store, shard: Shard, file: IO[bytes]) -> str:
    """SHA-256 of what came, piece by piece: a piece that breaks off is asked for anew by itself."""
    digest = hashlib.sha256()
    for start in range(0, shard.bytes, _PIECE):
        piece = store.read(FOLDER + shard.name, start, min(_PIECE, shard.bytes - start))
        digest.update(piece)
        file.write(piece)
    return digest.hexdigest()
