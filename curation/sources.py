"""Where pictures for shards come from: a filtered store, or a plain folder. Both answer the same questions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import pyarrow as pa

from curation import ledger, originals
from curation.duplicates import hash_values, identities, repeats
from curation.folders import Folder, body
from curation.records import Reason, Row, Stage
from curation.verdicts import were_kept
from shards.store import Store

SURVEYS: Final = "folders/"
FILES_PER_UNIT: Final = 64


class Source(Protocol):
    """Units of rows in a fixed order, and the bytes of those that are kept."""

    @property
    def name(self) -> str: ...

    def units(self) -> list[str]: ...

    def rows(self, unit: str) -> list[Row]: ...

    def kept(self) -> Iterator[tuple[str, pa.Table]]:
        """The units, with the columns key, sha256 and phash of those of their rows that are kept."""
        ...

    def bodies(self, unit: str, rows: Sequence[Row]) -> Iterator[tuple[Row, bytes]]:
        """Each of `rows` with its bytes. Raises ValueError where they can't be had any more."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class FilteredStore:
    """What `dynet-filter` kept."""

    store: Store

    @property
    def name(self) -> str:
        return self.store.root

    def units(self) -> list[str]:
        return list(ledger.units(self.store))

    def rows(self, unit: str) -> list[Row]:
        return ledger.read(self.store, unit)

    def kept(self) -> Iterator[tuple[str, pa.Table]]:
        for unit, data in ledger.bodies(self.store, ledger.units(self.store)):
            part = ledger.decode_table(data, f"{self.store.root}/{ledger.part_name(unit)}")
            yield unit, part.select(_LOOKS).filter(pa.array(were_kept(part)))

    def bodies(self, unit: str, rows: Sequence[Row]) -> Iterator[tuple[Row, bytes]]:
        wanted = {row.link.key: row for row in rows}
        for key, data in originals.read(self.store, unit):
            row = wanted.pop(key, None)
            if row is not None:
                yield row, data
        if wanted:
            raise ValueError(
                f"{self.store.root}/{originals.tar_name(unit)} lacks {len(wanted)} pictures that the ledger keeps "
                f"(the first: {min(wanted)}): remove the ledger part of {unit} and filter again"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFolder:
    """A folder's pictures; what was found out about them lies in `store`."""

    folder: Folder
    store: Store
    files: int

    @property
    def name(self) -> str:
        return self.folder.name

    def units(self) -> list[str]:
        return [f"{self.folder.name}-{number:08d}" for number in range(-(-self.files // FILES_PER_UNIT))]

    def rows(self, unit: str) -> list[Row]:
        """What the survey found. Which of them another source has is asked anew in each run, of all sources."""
        return [_reopened(row) for row in self._surveyed(unit)]

    def kept(self) -> Iterator[tuple[str, pa.Table]]:
        for unit in self.units():
            rows = [row for row in self.rows(unit) if row.was_kept]
            yield unit, ledger.table(rows, ()).select(_LOOKS)

    def mark(self, unit: str, rows: Sequence[Row]) -> None:
        """Writes the unit's rows with what became of them, where that differs from what is written."""
        if self._surveyed(unit) != rows:
            about = ledger.about_of(self.store.read(survey_name(unit)))
            self.store.write(survey_name(unit), ledger.encode(rows, (), about))

    def _surveyed(self, unit: str) -> list[Row]:
        return ledger.decode(self.store.read(survey_name(unit)), survey_name(unit))

    def bodies(self, unit: str, rows: Sequence[Row]) -> Iterator[tuple[Row, bytes]]:
        for row in rows:
            try:
                yield row, body(self.folder, row.link)
            except OSError as error:
                raise ValueError(f"{self.folder.path}: {row.link.url} can't be read any more: {error}") from error


def _reopened(row: Row) -> Row:
    if row.stage is not Stage.DUPLICATES:
        return row
    return replace(row, reason=Reason.KEPT, stage=Stage.KEPT, detail="")


def survey_name(unit: str) -> str:
    """Where the rows of a folder's unit lie: a ledger part, but not of the ledger that thresholds judge."""
    return f"{SURVEYS}{unit}.parquet"


_LOOKS: Final = ["key", "sha256", "phash"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A row's place among all sources."""

    source: int
    unit: str
    key: str


def duplicates_across(sources: Sequence[Source], max_distance: int) -> dict[Place, Row]:
    """The kept rows that an earlier kept one makes redundant, each as its row now ends.

    The order is that of the sources, their units and their rows: of two equal pictures the earlier source's stays, and
    of one URL that gave two pictures the first: a patch is named by its URL.
    """
    kept = _Kept(sources)
    of, _ = repeats(kept.identity, kept.look, max_distance)
    first = np.zeros(len(of), bool)
    first[np.unique(kept.key, return_index=True)[1]] = True
    again = np.flatnonzero((of >= 0) | ~first).tolist()
    rows = kept.rows({*again, *(int(of[at]) for at in again if of[at] >= 0)})
    ended: dict[Place, Row] = {}
    for at in again:
        if of[at] >= 0:
            same = (kept.identity[at] == kept.identity[of[at]]).all()
            reason = Reason.DUPLICATE_EXACT if same else Reason.DUPLICATE_NEAR
            detail = f"of {rows[int(of[at])].link.url}"
        else:
            reason, detail = Reason.URL_REPEATED, "an earlier source has it, with other bytes"
        source, unit = kept.units[kept.unit[at]]
        place = Place(source=source, unit=unit, key=rows[at].link.key)
        ended[place] = replace(rows[at], reason=reason, stage=Stage.DUPLICATES, detail=detail)
    return ended


class _Kept:
    """The kept rows of all sources, in their order, as columns: 44 bytes each."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.units: list[tuple[int, str]] = []
        keys, same, looks = [np.zeros(0, "S16")], [np.zeros((0, 2), np.uint64)], [np.zeros(0, np.uint64)]
        counts: list[int] = []
        for number, source in enumerate(sources):
            for unit, table in source.kept():
                self.units.append((number, unit))
                counts.append(table.num_rows)
                keys.append(np.array(table["key"].to_pylist(), "S16"))
                same.append(identities(text or "" for text in table["sha256"].to_pylist()))
                looks.append(hash_values([text or "" for text in table["phash"].to_pylist()]))
        self._begins = np.cumsum([0, *counts])
        self.unit = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self.key, self.identity, self.look = np.concatenate(keys), np.concatenate(same), np.concatenate(looks)

    def rows(self, wanted: Iterable[int]) -> dict[int, Row]:
        """Those of these numbers, whole: each of their units is read once more."""
        found: dict[int, Row] = {}
        for unit, numbers in itertools.groupby(sorted(wanted), key=lambda at: int(self.unit[at])):
            source, name = self.units[unit]
            rows = [row for row in self._sources[source].rows(name) if row.was_kept]
            found |= {at: rows[at - self._begins[unit]] for at in numbers}
        return found
