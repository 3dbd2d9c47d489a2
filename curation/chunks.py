"""The work units: the lists, cut into chunks of fixed size, each a ledger part whose rows wait to be measured.

Chunk `n` holds the rows `n * size` to `(n + 1) * size - 1` of the concatenated lists, whatever was done before,
so its number, its rows and (in time) its kept originals are the same in every run. The plan is written last:
without it there are no chunks.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from curation import ledger, urls
from curation.judge import Thresholds
from curation.records import Row
from shards.store import Store

FOLDER: Final = "links/"
PLAN: Final = FOLDER + "plan.json"
DEFAULT_SIZE: Final = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class UrlList:
    """One list as it was planned: enough to notice that it is another one now."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What there is to do: `rows` URLs in `chunks` chunks of `chunk_size`."""

    lists: tuple[UrlList, ...]
    source: str
    chunk_size: int
    rows: int

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.chunk_size)

    def units(self) -> Iterator[str]:
        """The chunks' names, in order."""
        return (unit_name(number) for number in range(self.chunks))


def unit_name(number: int) -> str:
    """`chunk-00000123`."""
    return f"chunk-{number:08d}"


def describe(paths: Sequence[Path]) -> tuple[UrlList, ...]:
    """The lists' names, sizes and hashes, in the order given."""
    return tuple(UrlList(name=p.name, bytes=p.stat().st_size, sha256=_sha256(p)) for p in paths)


def plan(
    store: Store,
    paths: Sequence[Path],
    *,
    source: str,
    size: int,
    thresholds: Thresholds,
    allow_private: bool,
) -> Plan:
    """Writes the chunks and, last, the plan. Raises ValueError for lists without a single row."""
    first = urls.first_occurrences(paths)
    if not len(first):
        raise ValueError(f"{', '.join(str(p) for p in paths)}: no rows; give a list with at least one URL")
    links = urls.read_links(paths, source)
    for number in range(-(-len(first) // size)):
        batch = itertools.islice(links, size)
        rows = [urls.first_row(link, bool(first[link.position]), thresholds, allow_private) for link in batch]
        store.write(_chunk_name(unit_name(number)), ledger.encode(rows, (), {}))
    made = Plan(lists=describe(paths), source=source, chunk_size=size, rows=len(first))
    store.write(PLAN, json.dumps(asdict(made), indent=1, sort_keys=True).encode())
    return made


def read_plan(store: Store) -> Plan | None:
    """The plan of an earlier run, or None where there is none."""
    if not store.exists(PLAN):
        return None
    entry: dict[str, Any] = json.loads(store.read(PLAN))
    return Plan(**{**entry, "lists": tuple(UrlList(**one) for one in entry["lists"])})


def read_rows(store: Store, unit: str) -> list[Row]:
    """A chunk's rows as the list gave them."""
    name = _chunk_name(unit)
    return ledger.decode(store.read(name), f"{store.root}/{name}")


def _chunk_name(unit: str) -> str:
    return f"{FOLDER}{unit}.parquet"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
