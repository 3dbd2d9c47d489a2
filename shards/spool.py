"""A stored object brought onto this machine's disk, window by window: a shard may have a gigabyte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

from shards.store import Store, Written

WINDOW: Final = 1 << 22  # bytes that are in memory at once


def spool(store: Store, name: str, target: Path) -> Written:
    """Copies the object to the file `target`; the size and SHA-256 of what came. Raises FileNotFoundError."""
    with target.open("wb") as file:
        return pour(windows(store, name, store.size(name)), file)


def windows(store: Store, name: str, size: int, window: int = WINDOW) -> Iterator[bytes]:
    """The object's first `size` bytes, fewer where it has no more, `window` of them a request.

    Raises FileNotFoundError.
    """
    at = 0
    while at < size and (block := store.read(name, at, min(window, size - at))):
        yield block
        at += len(block)


def pour(blocks: Iterable[bytes], target: IO[bytes]) -> Written:
    """These into the open file; their size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        target.write(block)
        size += len(block)
    return Written(size=size, sha256=digest.hexdigest())


def sha256_of(path: Path) -> str:
    """Of a file on this machine's disk, in hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(WINDOW):
            digest.update(block)
    return digest.hexdigest()
