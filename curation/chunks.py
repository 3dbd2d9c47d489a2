"""The work units: the lists, cut into chunks of fixed size, each a ledger part whose rows wait to be measured.

Chunk `n` holds the rows `n * size` to `(n + 1) * size - 1` of the concatenated lists, whatever was done before,
so its number, its rows and (in time) its kept originals are the same in every run. The plan is written last:
without it there are no chunks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from curation import ledger, urls
from curation.judge import Thresholds
from curation.records import Row
from shards.store import Store

FOLDER: Final = "links/"
PLAN: Final = FOLDER + "plan.json"
DEFAULT_SIZE: Final = 1000

#: Calls a function with each of many arguments; gives the results in order, however they are had.
Spread = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[Any]]


def in_turn(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """The plain `Spread`: one after the other, here."""
    return (function(*call) for call in calls)


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
    spread: Spread = in_turn,
) -> Plan:
    """Writes the chunks and, last, the plan. Raises ValueError for lists without a single row.

    The lists are read here, twice; `spread` calls what makes chunks of their lines.
    """
    first = urls.first_occurrences(paths)
    if not len(first):
        raise ValueError(f"{', '.join(str(p) for p in paths)}: no rows; give a list with at least one URL")
    calls = (
        (store, number, lines, first[number * size : (number + 1) * size], source, size, thresholds, allow_private)
        for number, lines in enumerate(urls.cut(paths, size))
    )
    for _ in spread(write_chunk, calls):
        pass
    made = Plan(lists=describe(paths), source=source, chunk_size=size, rows=len(first))
    store.write(PLAN, json.dumps(asdict(made), indent=1, sort_keys=True).encode())
    return made


def write_chunk(
    store: Store,
    number: int,
    lines: Sequence[pa.RecordBatch],
    first: np.ndarray,
    source: str,
    size: int,
    thresholds: Thresholds,
    allow_private: bool,
) -> None:
    """Chunk `number` of `size` lines. `first`: (rows,) bool, False where an earlier row of the lists has the URL."""
    links = urls.links_of(lines, source, number * size)
    rows = [
        urls.first_row(link, bool(is_first), thresholds, allow_private)
        for link, is_first in zip(links, first, strict=True)
    ]
    store.write(_chunk_name(unit_name(number)), ledger.encode(rows, (), {}))


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
