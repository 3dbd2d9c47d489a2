"""Plan against actual: what a plan promised of a run, and what its store shows. Light: no Ray, nothing is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from curation import ledger, originals
from curation.forecast import Interval
from curation.outcomes import FAILED, PASSED, UNTRIED
from pipelines.status import Status
from shards import manifest
from shards.store import Store

PLAN: Final = "report/plan.json"
COMPARED: Final = "report/plan-and-actual.txt"
SIZES: Final = 128  # objects of a kind whose size is asked for; of more, so many that lie evenly

# What a run is held against, in the order of the tables.
ANSWERED: Final = "downloads that succeed"
KEPT: Final = "rows that pass all thresholds"
DOWN: Final = "bytes down"
ORIGINALS: Final = "bytes of originals"
LEDGER: Final = "bytes of ledger"
PATCHES: Final = "patches"
SHARDS: Final = "bytes of shards"
FILTERING: Final = "time of download and score"
CUTTING: Final = "time of cut and pack"
ORDER: Final = (ANSWERED, KEPT, DOWN, ORIGINALS, LEDGER, PATCHES, SHARDS, FILTERING, CUTTING)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """One promise, and what came of it."""

    name: str
    promised: Interval
    actual: float


def read(store: Store) -> dict[str, Interval]:
    """What was promised of this store's run; empty where no plan was made for it.

    Raises ValueError for a file that is no plan.
    """
    if not store.exists(PLAN):
        return {}
    try:
        entry: dict[str, Any] = json.loads(store.read(PLAN))
        return {name: Interval(**one) for name, one in entry["quantities"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{store.root}/{PLAN} is no plan ({error}): remove it, or plan anew with --for") from error


def share_in(found: Status) -> float:
    """The part of the list that is in the ledger; 0 before the first chunk, and of what has no plan of chunks."""
    return found.rows.committed / found.rows_planned if found.rows_planned else 0.0


def kept(store: Store, found: Status, promises: Mapping[str, Interval], cut_seconds: float | None) -> list[Kept]:
    """Promise and actual of each quantity that can be told by now. Before the run's end, sums are scaled to the list.

    `cut_seconds`: of cutting and packing from begin to end, where the caller knows them.
    """
    seen = _actual(store, found, cut_seconds)
    return [
        Kept(name=name, promised=promises[name], actual=seen[name])
        for name in ORDER
        if name in promises and name in seen
    ]


def _actual(store: Store, found: Status, cut_seconds: float | None) -> dict[str, float]:
    part = share_in(found)
    if not part:
        return {}
    reasons = found.rows.reasons
    tried = sum(count for reason, count in reasons.items() if reason not in UNTRIED)
    failed = sum(count for reason, count in reasons.items() if reason in FAILED)
    seen: dict[str, float] = {
        ANSWERED: (tried - failed) / max(1, tried),
        KEPT: sum(reasons.get(reason, 0) for reason in PASSED) / part,
        DOWN: found.rows.bytes_read / part,
        ORIGINALS: stored(store, originals.FOLDER) / part,
        LEDGER: stored(store, ledger.FOLDER) / part,
    }
    if found.committed == found.planned and found.overall is not None:
        seen[FILTERING] = found.overall.seconds
    if found.cut.samples is not None:
        seen |= {PATCHES: found.cut.samples, SHARDS: manifest.read_manifest(store).bytes}
    return seen if cut_seconds is None else {**seen, CUTTING: cut_seconds}


def stored(store: Store, folder: str) -> float:
    """Bytes in a folder of the store; of many objects, as told by some."""
    names = list(store.list(folder))
    step = max(1, -(-len(names) // SIZES))
    asked = names[::step]
    return sum(store.size(name) for name in asked) * len(names) / max(1, len(asked))
