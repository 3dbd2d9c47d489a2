"""Where pictures for shards come from: a filtered store, or a plain folder. Both answer the same questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from curation import ledger, originals
from curation.duplicates import find_duplicates
from curation.folders import Folder, body
from curation.records import Reason, Row, Stage
from shards.store import Store

SURVEYS: Final = "folders/"
FILES_PER_UNIT: Final = 64


class Source(Protocol):
    """Units of rows in a fixed order, and the bytes of those that are kept."""

    @property
    def name(self) -> str: ...

    def units(self) -> list[str]: ...

    def rows(self, unit: str) -> list[Row]: ...

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
    kept = [
        (Place(source=number, unit=unit, key=row.link.key), row)
        for number, source in enumerate(sources)
        for unit in source.units()
        for row in source.rows(unit)
        if row.was_kept
    ]
    rows = [row for _, row in kept]
    found = find_duplicates([row.sha256 or "" for row in rows], [row.phash or "" for row in rows], max_distance)
    keys: set[str] = set()
    ended: dict[Place, Row] = {}
    for (place, row), match in zip(kept, found, strict=True):
        if match is not None:
            detail = f"of {rows[match.of].link.url}"
            ended[place] = replace(row, reason=match.reason, stage=Stage.DUPLICATES, detail=detail)
        elif place.key in keys:
            detail = "an earlier source has it, with other bytes"
            ended[place] = replace(row, reason=Reason.URL_REPEATED, stage=Stage.DUPLICATES, detail=detail)
        keys.add(place.key)
    return ended
