"""Tars whose bytes are a function of their members, and a reader that trusts none of them.

USTAR by Python's `tarfile`, with time, owner and mode fixed: a name of at most 100 characters takes one header
block, so where every byte lies is known before a byte is written. That lets `pack` bound a shard exactly and the
index point at a member's data without a second pass.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

_BLOCK: Final = tarfile.BLOCKSIZE  # 512
_RECORD: Final = tarfile.RECORDSIZE  # 10,240: a tar is padded to a multiple of it
_END: Final = 2 * _BLOCK  # the zeros that end a tar
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MAX_MEMBER: Final = 1 << 30  # bytes


class TarError(ValueError):
    """The tar is truncated, corrupt or holds what no shard of ours holds; the message says which and where."""


class NameRefused(TarError):
    """A member's name is no plain one: a path, `..`, odd characters."""


class RepeatedMember(TarError):
    """Two members have one name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """Where a member's data lies in the tar: `size` bytes from `offset`, and their `digest`."""

    name: str
    offset: int
    size: int
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A member as read; `offset` is where its data begins in the tar."""

    name: str
    offset: int
    data: bytes = field(repr=False)


def write(target: Path | IO[bytes], members: Iterable[tuple[str, bytes]]) -> list[Placed]:
    """Writes (name, data) pairs in the order given, as they come, and says where each one's data lies.

    Raises ValueError for a name that is not plain (letters, digits, `.`, `_`, `-`; at most 100) or comes twice.
    """
    if isinstance(target, Path):
        with target.open("wb") as file:
            return write(file, members)
    placed: dict[str, Placed] = {}
    at = 0
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            if not _NAME.fullmatch(name) or name in placed:
                raise ValueError(f"{name!r} can't be a member: names are plain, and each comes once")
            tar.addfile(_header(name, len(data)), io.BytesIO(data))
            placed[name] = Placed(name=name, offset=at + _BLOCK, size=len(data), digest=digest(data))
            at += stored_size(len(data))
    return list(placed.values())


def digest(data: bytes) -> str:
    """First 16 hex digits of SHA-256: enough to know a member's bytes from others, or from damaged ones."""
    return hashlib.sha256(data).hexdigest()[:16]


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)  # its defaults: time 0, owner 0 without a name, mode 0644
    header.size = size
    return header


def stored_size(*sizes: int) -> int:
    """Bytes that members of these sizes take in a tar, headers and padding included."""
    return sum(_BLOCK + _rounded(size, _BLOCK) for size in sizes)


def tar_size(stored: int) -> int:
    """Bytes of a finished tar whose members take `stored` bytes in it."""
    return _rounded(stored + _END, _RECORD)


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def pack(stored: Sequence[int], max_bytes: int) -> list[range]:
    """Consecutive samples into shards: the ranges of `stored` (see `stored_size`), in order, none empty.

    Each finished tar is at most `max_bytes`, except that of a single sample that is larger by itself.
    """
    ranges: list[range] = []
    start = total = 0
    for index, size in enumerate(stored):
        if index > start and tar_size(total + size) > max_bytes:
            ranges.append(range(start, index))
            start, total = index, 0
        total += size
    if start < len(stored):
        ranges.append(range(start, len(stored)))
    return ranges


def members(source: bytes | IO[bytes], max_member: int = MAX_MEMBER) -> Iterator[Member]:
    """The members of a tar from a stranger, in order, from bytes or a seekable file.

    Raises TarError for anything but regular files of plain names, each once and at most `max_member` bytes,
    followed by the zeros that end a tar.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    end = 0
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (header := tar.next()) is not None:
                _check(header, seen, max_member)
                seen.add(header.name)
                yield Member(name=header.name, offset=header.offset_data, data=_data(tar, header))
                end = header.offset_data + _rounded(header.size, _BLOCK)
    except (tarfile.TarError, EOFError, OverflowError, UnicodeError) as error:
        raise TarError(f"the tar is truncated or corrupt after byte {end}: {error}") from error
    _check_end(file, end)


def _check(header: tarfile.TarInfo, seen: set[str], max_member: int) -> None:
    if not _NAME.fullmatch(header.name):
        raise NameRefused(f"the tar has a member called {header.name[:200]!r}: no plain name")
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or header.issparse():
        raise TarError(f"the tar's member {header.name} is no regular file")
    if header.size > max_member:
        raise TarError(f"the tar's member {header.name} has {header.size} bytes, over {max_member}")
    if header.name in seen:
        raise RepeatedMember(f"the tar has two members called {header.name}")


def _data(tar: tarfile.TarFile, header: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(header)
    assert file is not None, "a regular file, as checked"
    return file.read()


def _check_end(file: IO[bytes], end: int) -> None:
    """Only zeros may be left: `tarfile` takes a broken header, or the end of the file, for the end of the tar."""
    left = file.seek(0, os.SEEK_END) - end
    file.seek(end)
    if left < _END:
        raise TarError(f"the tar is truncated: it stops at byte {end + left} without its end mark")
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            raise TarError(f"the tar is corrupt: what follows byte {end} is no header")
