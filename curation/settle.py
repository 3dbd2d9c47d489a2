"""The verdict on the whole list: every row judged, then duplicates across all chunks and all restarts.

Which of two stays is the one earlier in the list, so it can only be said once the rows are in. Settling
rewrites just the parts that change, gives the same parts however often it is run, and is how thresholds change.
Memory: 500 bytes a *kept* row (measured at 20,000); parts are read one at a time, twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from curation import ledger
from curation.duplicates import find_duplicates
from curation.judge import Thresholds, is_unscored, judge, missing
from curation.records import Reason, Row, Stage
from shards.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What settling did, or would do.

    `moves`: (reason before, reason after) -> rows, the unchanged ones included. `unscored`: (the metrics still to
    be computed, whether the row's original was kept) -> rows whose verdict waits for that.
    """

    moves: Counter[tuple[Reason, Reason]]
    unscored: Counter[tuple[tuple[str, ...], bool]]

    @property
    def funnel(self) -> Counter[Reason]:
        """Rows per reason, after."""
        after: Counter[Reason] = Counter()
        for (_, reason), count in self.moves.items():
            after[reason] += count
        return after


def settle(
    store: Store,
    thresholds: Thresholds,
    max_distance: int,
    metrics: tuple[str, ...],
    about: Mapping[str, Any],
    *,
    write: bool = True,
) -> Changes:
    """Judges every row of the ledger by `thresholds`, marks duplicates, and writes the parts that change.

    `max_distance`: Hamming distance in bits up to which two perceptual hashes are one picture.
    """
    units = list(ledger.units(store))
    duplicates = _duplicates(store, units, thresholds, max_distance)
    moves: Counter[tuple[Reason, Reason]] = Counter()
    unscored: Counter[tuple[tuple[str, ...], bool]] = Counter()
    for unit in units:
        before = ledger.read(store, unit)
        after = [_ending(judge(row, thresholds), duplicates) for row in before]
        moves.update((old.reason, new.reason) for old, new in zip(before, after, strict=True))
        unscored.update((missing(row, thresholds), row.stored) for row in after if is_unscored(row))
        if write and (after != before or ledger.about(store, unit) != about):
            ledger.write(store, unit, after, metrics, about)
    return Changes(moves=moves, unscored=unscored)


def _duplicates(
    store: Store, units: Sequence[str], thresholds: Thresholds, max_distance: int
) -> dict[int, tuple[Reason, str, str]]:
    """Position in the list -> (reason, which one stays: its key, its unit).

    A forgotten picture counts as if it were kept: no copy of it comes to its place.
    """
    candidates = [
        (row.link.position, row.link.key, row.sha256 or "", row.phash or "", unit)
        for unit in units
        for row in ledger.read(store, unit)
        if judge(row, thresholds).was_kept
    ]
    candidates.sort()
    found = find_duplicates([c[2] for c in candidates], [c[3] for c in candidates], max_distance)
    return {
        candidate[0]: (duplicate.reason, candidates[duplicate.of][1], candidates[duplicate.of][4])
        for candidate, duplicate in zip(candidates, found, strict=True)
        if duplicate is not None
    }


def _ending(row: Row, duplicates: Mapping[int, tuple[Reason, str, str]]) -> Row:
    if row.reason is not Reason.KEPT or row.link.position not in duplicates:
        return row
    reason, key, unit = duplicates[row.link.position]
    return replace(row, reason=reason, stage=Stage.DUPLICATES, detail=f"of {key} in {unit}")
