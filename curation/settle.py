"""The verdict on the whole list: every row judged, then duplicates across all chunks and all restarts.

Which of two stays is the one earlier in the list, so it can only be said once the rows are in. Settling
rewrites just the parts that change, gives the same parts however often it is run, and is how thresholds change.

Parts are read twice, in groups that need nothing of each other and may be spread over a cluster; rows stay where they
are read. Here, meanwhile: about 150 bytes a *kept* row while duplicates are found (measured at 340,000), and 0.25 GB of
tables: 0.8 GB for the 3.4 million that 2 % of LAION-HR are, 4.8 GB for 30 million.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import pyarrow as pa

from curation import ledger, verdicts
from curation.chunks import Spread, in_turn
from curation.duplicates import hash_values, identities, repeats
from curation.judge import Thresholds, is_unscored, missing
from curation.records import METRIC_PREFIX, Reason, Stage, ledger_schema
from shards.store import Store

TASKS: Final = 64  # groups at once: each asks for 71 parts of 1,000 rows a second, and S3 gives 5,500 of a prefix
GROUP: Final = 256  # parts that are read together: 4 s of a core at 1,000 rows each, no memory to speak of


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdicts:
    """What decides on the list. `max_distance`: bits up to which two perceptual hashes are one picture.

    `metrics` and `about` are what the parts get: their columns of scores, and what is said beside the rows.
    """

    thresholds: Thresholds
    max_distance: int
    metrics: tuple[str, ...]
    about: Mapping[str, Any]
    write: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """The kept rows of some units, as columns. A forgotten picture counts: no copy of it comes to its place."""

    position: np.ndarray  # (n,) int64, in the list
    key: np.ndarray  # (n,) S16
    identity: np.ndarray  # (n, 2) uint64: `duplicates.identities`
    look: np.ndarray  # (n,) uint64: the perceptual hash
    unit: np.ndarray  # (n,) int32: its place among the units


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeats:
    """The rows of some units that repeat another, as columns, ascending by position."""

    position: np.ndarray  # (n,) int64, in the list
    exact: np.ndarray  # (n,) bool: the same bytes
    key: np.ndarray  # (n,) S16: of the row that stays
    unit: np.ndarray  # (n,) S: the name of its unit


def settle(
    store: Store,
    thresholds: Thresholds,
    max_distance: int,
    metrics: tuple[str, ...],
    about: Mapping[str, Any],
    *,
    write: bool = True,
    spread: Spread = in_turn,
) -> Changes:
    """Judges every row of the ledger by `thresholds`, marks duplicates, and writes the parts that change.

    `max_distance`: Hamming distance in bits up to which two perceptual hashes are one picture. `spread` calls the
    functions that read and write groups of parts.
    """
    by = Verdicts(thresholds=thresholds, max_distance=max_distance, metrics=metrics, about=about, write=write)
    units = list(ledger.units(store))
    found = _repeats(units, spread(kept_rows, [(store, group, by) for group in groups(units)]), max_distance)
    calls = [(store, group, by, part) for group, part in zip(groups(units), found, strict=True)]
    total = Changes(moves=Counter(), unscored=Counter())
    for changes in spread(settle_parts, calls):
        total.moves.update(changes.moves)
        total.unscored.update(changes.unscored)
    return total


def groups(units: Sequence[str]) -> list[Sequence[str]]:
    """What one call reads of a ledger each, in order."""
    return [units[at : at + GROUP] for at in range(0, len(units), GROUP)]


def kept_rows(store: Store, units: Sequence[str], by: Verdicts) -> Kept:
    """The rows of these units that are candidates; `unit` counts from 0."""
    parts = []
    for number, (unit, data) in enumerate(ledger.bodies(store, units)):
        part = ledger.decode_table(data, f"{store.root}/{ledger.part_name(unit)}")
        part = part.select(_CANDIDATE).filter(pa.array(verdicts.was_kept(part, by.thresholds)))
        parts.append(part.append_column("unit", pa.array(np.full(part.num_rows, number, np.int32))))
    return _columns(pa.concat_tables(parts))


_CANDIDATE: Final = ["position", "key", "sha256", "phash"]


def _columns(kept: pa.Table) -> Kept:
    return Kept(
        position=kept["position"].to_numpy(),
        key=np.array(kept["key"].to_pylist(), "S16"),
        identity=identities(text or "" for text in kept["sha256"].to_pylist()),
        look=hash_values([text or "" for text in kept["phash"].to_pylist()]),
        unit=kept["unit"].to_numpy(),
    )


def _repeats(units: Sequence[str], kept: Iterator[Kept], max_distance: int) -> list[Repeats]:
    """What each group of units has that an earlier kept row makes redundant."""
    parts = list(kept)
    if not parts:
        return []
    bounds = np.cumsum([0, *(len(part.position) for part in parts)])
    unit = np.concatenate([part.unit + GROUP * number for number, part in enumerate(parts)])
    position, key, identity, look = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("position", "key", "identity", "look")
    )
    del parts
    order = np.lexsort((key, position))
    identity, look = identity[order], look[order]
    of, _ = repeats(identity, look, max_distance)
    again = np.flatnonzero(of >= 0)
    exact = (identity[again] == identity[of[again]]).all(axis=1)
    rows, stays = order[again], order[of[again]]
    found = Repeats(position=position[rows], exact=exact, key=key[stays], unit=np.array(units, "S")[unit[stays]])
    group = np.searchsorted(bounds, rows, side="right") - 1
    return [_some(found, group == number) for number in range(len(bounds) - 1)]


def _some(found: Repeats, which: np.ndarray) -> Repeats:
    return Repeats(**{one.name: getattr(found, one.name)[which] for one in fields(Repeats)})


def settle_parts(store: Store, units: Sequence[str], by: Verdicts, found: Repeats) -> Changes:
    """Judges these units' rows, with what was found to repeat others, and writes the parts that change."""
    total = Changes(moves=Counter(), unscored=Counter())
    for unit, data in ledger.bodies(store, units):
        name = ledger.part_name(unit)
        part = ledger.decode_table(data, f"{store.root}/{name}")
        after = _settled(part, by.thresholds, found, total)
        if by.write and (after is not None or ledger.about_in(part.schema) != by.about):
            store.write(name, ledger.encode_table(_laid_out(part if after is None else after, by.metrics), by.about))
    return total


def _settled(part: pa.Table, thresholds: Thresholds, found: Repeats, total: Changes) -> pa.Table | None:
    """The part with its new verdicts, None where all stay as they are. What moves is added to `total`."""
    is_open = verdicts.open_rows(part)
    _count_facts(part.filter(pa.array(~is_open)), total.moves)
    ends = {name: part[name].to_pylist() for name in _ENDS}
    changed = False
    for at, judged in zip(np.flatnonzero(is_open).tolist(), verdicts.judged(part, thresholds, is_open), strict=True):
        new = _ending(judged.link.position, (judged.reason, judged.stage, judged.detail), found)
        before = tuple(column[at] for column in ends.values())
        total.moves[Reason(before[0]), new[0]] += 1
        if judged.reason is new[0] and is_unscored(judged):
            total.unscored[missing(judged, thresholds), judged.stored] += 1
        after = (new[0].value, new[1].value, new[2])
        if after != before:
            changed = True
            for column, value in zip(ends.values(), after, strict=True):
                column[at] = value
    return _with(part, ends) if changed else None


_ENDS: Final = ("reason", "stage", "detail")
Ending = tuple[Reason, Stage, str]


def _count_facts(facts: pa.Table, moves: Counter[tuple[Reason, Reason]]) -> None:
    for (_, reason), count in ledger.ends_of(facts).items():
        moves[reason, reason] += count


def _ending(position: int, end: Ending, found: Repeats) -> Ending:
    at = int(np.searchsorted(found.position, position))
    if end[0] is not Reason.KEPT or at == len(found.position) or found.position[at] != position:
        return end
    reason = Reason.DUPLICATE_EXACT if found.exact[at] else Reason.DUPLICATE_NEAR
    return reason, Stage.DUPLICATES, f"of {found.key[at].decode()} in {found.unit[at].decode()}"


def _with(part: pa.Table, ends: Mapping[str, list[Any]]) -> pa.Table:
    for name, values in ends.items():
        place = part.schema.get_field_index(name)
        part = part.set_column(place, part.schema.field(place), pa.array(values, pa.string()))
    return part


def _laid_out(part: pa.Table, metrics: tuple[str, ...]) -> pa.Table:
    """The part with the columns that `ledger.encode` would give its rows: no other metric without a score."""
    has = [name.removeprefix(METRIC_PREFIX) for name in part.column_names if name.startswith(METRIC_PREFIX)]
    others = [m for m in has if m not in metrics and part[METRIC_PREFIX + m].null_count < part.num_rows]
    schema = ledger_schema((*metrics, *sorted(others)))
    empty = pa.nulls(part.num_rows, pa.float32())
    columns = [part[name] if name in part.column_names else empty for name in schema.names]
    return pa.table(columns, schema=schema).combine_chunks()
