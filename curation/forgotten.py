"""`forgotten.parquet`: what was asked to be removed from a store, so that no later run brings it back.

It lies in the store's root, beside the set and not in it: it is not published. A link is kept as its key alone. What
was asked for by its link is a picture, so its bytes are asked for with it: the same file under another link goes too.
A host stands for its links, those of its subdomains included, and not for copies that others serve.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from curation.records import Reason, Row, url_key
from curation.urls import refuse_url
from shards.store import Store

NAME: Final = "forgotten.parquet"

_SCHEMA: Final = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("kind", "value")])
_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_HOST: Final = re.compile(rf"{_LABEL}(\.{_LABEL})+")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Requests:
    """What was asked for: keys of links, hosts in their ASCII form, SHA-256 of files in hex digits."""

    keys: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    sha256: frozenset[str] = frozenset()

    def __or__(self, other: Requests) -> Requests:
        return Requests(keys=self.keys | other.keys, hosts=self.hosts | other.hosts, sha256=self.sha256 | other.sha256)

    def cover(self, url: str, sha256: str | None) -> bool:
        """Whether a picture goes: by its link, the link's host or one above it, or its bytes."""
        by_bytes = sha256 is not None and sha256 in self.sha256
        return by_bytes or (bool(self.keys) and url_key(url) in self.keys) or self.covering_host(url) is not None

    def covering_host(self, url: str) -> str | None:
        """The host that was asked for and that the link lies on, or under."""
        labels = _host(url).split(".") if self.hosts else []
        above = (".".join(labels[at:]) for at in range(len(labels)))
        return next((host for host in above if host in self.hosts), None)


def read(store: Store) -> Requests:
    """All that was ever asked for. Raises ValueError where the file is broken."""
    if not store.exists(NAME):
        return Requests()
    try:
        rows = pq.read_table(io.BytesIO(store.read(NAME)), schema=_SCHEMA).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{store.root}/{NAME} can't be read ({error}): give what was to be forgotten again") from error
    return Requests(
        keys=frozenset(row["value"] for row in rows if row["kind"] == "url-key"),
        hosts=frozenset(row["value"] for row in rows if row["kind"] == "host"),
        sha256=frozenset(row["value"] for row in rows if row["kind"] == "sha256"),
    )


def write(store: Store, asked: Requests) -> None:
    """Puts them there; the bytes are a function of what was asked for."""
    kinds = {"url-key": asked.keys, "host": asked.hosts, "sha256": asked.sha256}
    rows = [{"kind": kind, "value": value} for kind, values in kinds.items() for value in sorted(values)]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), sink, compression="zstd")
    store.write(NAME, sink.getvalue())


def marked(row: Row, asked: Requests) -> Row:
    """The row as FORGOTTEN where it was asked for. Its stage stays: a kept row's place in its unit's print does."""
    if row.reason is Reason.FORGOTTEN or not asked.cover(row.link.url, row.sha256):
        return row
    return replace(row, reason=Reason.FORGOTTEN, detail=f"was {row.reason.value}")


def urls_in(path: Path) -> frozenset[str]:
    """A file's links, one a line: http(s), or `<source>/<path>` of a folder. Raises ValueError naming a bad line."""
    return _values(path, _url)


def hosts_in(path: Path) -> frozenset[str]:
    """A file's hosts, one a line. Raises ValueError naming a bad line."""
    return _values(path, _host_name)


def sha256_in(path: Path) -> frozenset[str]:
    """A file's digests, one a line. Raises ValueError naming a bad line."""
    return _values(path, _digest)


def _values(path: Path, checked: Callable[[str], str]) -> frozenset[str]:
    return frozenset(_checked(path, checked))


def _checked(path: Path, checked: Callable[[str], str]) -> Iterator[str]:
    for number, line in _lines(path):
        try:
            yield checked(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {line[:100]!r} is {error}") from error


def _lines(path: Path) -> Sequence[tuple[int, str]]:
    """The lines that say something, numbered from 1. Blank ones and those that begin with # don't."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: give a file with one entry a line") from error
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror}): give a file with one entry a line") from error
    found = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    if not found:
        raise ValueError(f"{path} has no entries: give a file with one a line")
    return found


def _url(line: str) -> str:
    is_file = "://" not in line and "/" in line.strip("/")
    if not is_file and refuse_url(line, allow_private=True) is not None:
        raise ValueError("no link: write http://…, https://… or <source>/<path> of a folder's picture")
    return line


def _host_name(line: str) -> str:
    host = _ascii(line)
    if not _HOST.fullmatch(host):
        raise ValueError("no host: write a name such as example.com, whose subdomains go with it")
    return host


def _digest(line: str) -> str:
    if not _SHA256.fullmatch(line.lower()):
        raise ValueError("no SHA-256: write 64 hex digits")
    return line.lower()


def _host(url: str) -> str:
    try:
        return _ascii(urlsplit(url).hostname or "")
    except ValueError:
        return ""


def _ascii(host: str) -> str:
    """Lower case, without the root's dot, international names in their ASCII form."""
    plain = host.lower().rstrip(".")
    try:
        return plain if plain.isascii() else plain.encode("idna").decode()
    except UnicodeError:
        return plain
