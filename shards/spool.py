"""A stored object brought onto this machine's disk, window by window: a shard may have a gigabyte."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from shards.store import Store, Written

WINDOW: Final = 1 << 22  # bytes that are in memory at once


def spool(store: Store, name: str, target: Path) -> Written:
    """Copies the object to the file `target`; the size and SHA-256 of what came. Raises FileNotFoundError."""
    digest, at, size = hashlib.sha256(), 0, store.size(name)
    with target.open("wb") as file:
        while at < size and (block := store.read(name, at, min(WINDOW, size - at))):
            digest.update(block)
            file.write(block)
            at += len(block)
    return Written(size=at, sha256=digest.hexdigest())


def sha256_of(path: Path) -> str:
    """Of a file on this machine's disk, in hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(WINDOW):
            digest.update(block)
    return digest.hexdigest()
