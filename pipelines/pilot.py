"""A pilot: the flow itself, downloads to shards, on rows drawn at random from the list, into a store of its own.

It goes on after a kill as any run does. What units took is written down as they land: a unit that was committed
without that counts as the others did on average.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import ray

from curation import chunks, ledger, originals, sample, urls
from curation.outcomes import Outcomes, outcomes
from curation.pilot import Pilot
from curation.records import Row
from curation.settle import settle
from pipelines import cutting, filter_laion, shard
from pipelines.cluster import connected, cores, gpu_share
from pipelines.filter_laion import FilterJob, Watch
from pipelines.promise import stored
from pipelines.recipes import ShardRecipe
from pipelines.shard import ShardJob
from pipelines.unit_tally import Done
from shards import manifest
from shards.store import Store

PILOT: Final = "report/pilot.json"
TIMES: Final = "report/pilot-times.json"
CHUNKS_A_SLOT: Final = 4  # chunks for each that is in work at once: less, and the pilot is all start and end
SMALLEST_CHUNK: Final = 50  # rows: less, and a chunk is all start and end
_CUTTERS: Final = frozenset({"fingerprint_unit", "cut_unit", "write_shard"})


@dataclass(frozen=True, kw_only=True, slots=True)
class PilotJob:
    """`whole`: the run to be predicted, but with the pilot's store. `cut`: None where it is to make no shards."""

    whole: FilterJob
    cut: ShardRecipe | None
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a pilot of {self.count} URLs tells nothing: give --pilot 1 or more")
        if not self.whole.lists:
            raise ValueError("no URL list: give --urls with Parquet or CSV lists to plan for")


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """The list, and what of it the pilot takes. `fresh`: rows whose URL no earlier row has."""

    rows: int
    fresh: int
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """What there is to predict from."""

    drawn: Drawn
    pilot: Pilot
    rows: list[Row]
    outcomes: Outcomes
    settle_seconds: float
    cores: int  # that the pilot had
    gpus_a_core: float
    resumed: bool  # in more than one go: pauses are in its times


@dataclass(frozen=True, kw_only=True, slots=True)
class Watches:
    """How a pilot is followed: rows filtered, units cut."""

    filtering: Watch
    cutting: Callable[[int, int], None]


def run(job: PilotJob, scratch: Path, watches: Watches) -> Observed:
    """Draws, filters, cuts, measures. Raises ValueError where the list, the count or the store won't do."""
    store = job.whole.store
    drawn, listed = draw(job, scratch)
    with connected():
        small = _small(job, listed, drawn)
        times = _Times(store)
        filter_laion.run(small, watches.filtering, times.landed)
        settle_seconds = _settled(small)
        cut = _cut(job, times, watches.cutting) if job.cut else (0.0, 0.0)
        had, gpus = cores(), gpu_share()
        rows = [row for unit in ledger.units(store) for row in ledger.read(store, unit)]
        pilot = _sums(store, rows, times, cut)
    store.write(PILOT, pilot.to_json().encode())
    return Observed(
        drawn=drawn,
        pilot=pilot,
        rows=rows,
        outcomes=outcomes(rows),
        settle_seconds=settle_seconds,
        cores=had,
        gpus_a_core=gpus,
        resumed=times.goes > 1,
    )


def draw(job: PilotJob, scratch: Path) -> tuple[Drawn, Path]:
    """The pilot's own list, in `scratch`. Repeated URLs are counted and left out: they never cost a download."""
    for path in job.whole.lists:
        urls.check_list(path)
    fresh = np.flatnonzero(first := urls.first_occurrences(job.whole.lists))
    drawn = Drawn(rows=len(first), fresh=len(fresh), count=min(job.count, len(fresh)))
    at = fresh[sample.positions(drawn.fresh, drawn.count, job.seed)]
    listed = scratch / "pilot.parquet"
    pq.write_table(urls.rows_at(job.whole.lists, at), listed)
    return drawn, listed


def _small(job: PilotJob, listed: Path, drawn: Drawn) -> FilterJob:
    """The same run on the pilot's list, in smaller chunks: there must be more than are in work at once."""
    known = chunks.read_plan(job.whole.store)
    fitting = max(SMALLEST_CHUNK, drawn.count // (CHUNKS_A_SLOT * (1 + cores())))
    size = known.chunk_size if known else min(job.whole.recipe.chunk_size, fitting)
    return replace(job.whole, lists=(listed,), recipe=replace(job.whole.recipe, chunk_size=size))


class _Times:
    """What units took, in the store: written anew with each unit, since a pilot has few."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._entry: dict[str, Any] = {"goes": 0, "cutting": None, "units": {}}
        if store.exists(TIMES):
            self._entry = dict(json.loads(store.read(TIMES)))
        self._went = False

    @property
    def goes(self) -> int:
        return int(self._entry["goes"])

    @property
    def units(self) -> Mapping[str, Mapping[str, Any]]:
        return dict(self._entry["units"])

    @property
    def cut(self) -> tuple[float, float] | None:
        """Core-seconds of cutting and packing, and those of all cores meanwhile."""
        if self._entry.get("cutting") is None:  # nor by an earlier version, which noted one of the two
            return None
        worked, held = self._entry["cutting"]
        return float(worked), float(held)

    def landed(self, done: Done) -> None:
        self._entry["goes"] += not self._went
        self._went = True
        self._entry["units"][done.unit] = {**done.seconds, "rows": done.reasons.total(), "scored": done.scored}
        self._write()

    def was_cut(self, worked: float, held: float) -> None:
        self._entry["cutting"] = [worked, held]
        self._write()

    def _write(self) -> None:
        self._store.write(TIMES, json.dumps(self._entry, indent=1).encode())


def _settled(job: FilterJob) -> float:
    """Seconds of settling, by doing it again: nothing changes by that."""
    begun = time.perf_counter()
    about = filter_laion.about(job)
    settle(job.store, job.recipe.thresholds, job.recipe.near_duplicate_bits, job.recipe.metrics, about, write=False)
    return time.perf_counter() - begun


def _cut(job: PilotJob, times: _Times, watch: Callable[[int, int], None]) -> tuple[float, float]:
    """Core-seconds of cutting and packing, and those of all cores meanwhile.

    Cut anew where an earlier go did not get to the end of it.
    """
    store, cut = job.whole.store, job.cut
    assert cut is not None, "the caller asks"
    if times.cut is not None:
        return times.cut
    if not any(row.was_kept for unit in ledger.units(store) for row in ledger.read(store, unit)):
        return 0.0, 0.0
    store.delete(manifest.MANIFEST)
    cutting.clear(store)
    before, begun = _executed(), time.perf_counter()
    shard.shard(
        ShardJob(store=store, stores=(store,), folders=(), recipe=cut, max_pixels=job.whole.recipe.max_pixels), watch
    )
    held = cores() * (time.perf_counter() - begun)
    worked = _executed() - before
    times.was_cut(worked, held)
    return worked, held


def _executed() -> float:
    """Seconds that tasks of cutting and packing took so far, as if all their processes had been at work before.

    From Ray's own record of tasks, which needs no dashboard. A process's first tasks are counted and not timed.
    """
    events = sorted(ray.timeline() or [], key=lambda one: one["ts"])
    whole = [one for one in events if one["cat"].removeprefix("task::") in _CUTTERS]
    runs = [one for one in events if one["cat"] == "task:execute"]
    warm: list[float] = []
    cold: list[float] = []
    begun: set[tuple[str, str]] = set()  # (process, kind of task)
    for task in whole:
        inside = (
            one["dur"] for one in runs if one["tid"] == task["tid"] and 0 <= one["ts"] - task["ts"] <= task["dur"]
        )
        kind = (task["tid"], task["cat"])
        (warm if kind in begun else cold).append(next(inside, task["dur"]) / 1e6)
        begun.add(kind)
    return sum(warm) * len(whole) / len(warm) if len(warm) > len(cold) else sum(warm) + sum(cold)


def _warm(times: _Times) -> list[Mapping[str, Any]]:
    """What units took whose processes had been at work before: importing and compiling belong to a start."""
    units = [one for _, one in sorted(times.units.items())]
    cold = 1 + cores()
    return units[cold:] if len(units) > 2 * cold else units


def _sums(store: Store, rows: list[Row], times: _Times, cut: tuple[float, float]) -> Pilot:
    seen = outcomes(rows)
    known = _warm(times)
    timed = sum(one["rows"] for one in known)
    if not timed:
        raise ValueError(f"{store.root} has no {TIMES}: its times are lost; give another --out for the pilot")
    all_of = len(rows) / timed

    def seconds(stage: str) -> float:
        return all_of * sum(one[stage] for one in known)

    made = manifest.read_manifest(store) if store.exists(manifest.MANIFEST) else None
    return Pilot(
        rows=len(rows),
        answered=int(seen.answered.sum()),
        scored=int(seen.scored.sum()),
        kept=int(seen.passed.sum()),
        patches=made.samples if made else 0,
        wait_seconds=seconds("fetch"),
        score_seconds=seconds("score"),
        unit_seconds=seconds("cpu"),
        cut_seconds=cut[0],
        cut_held_seconds=cut[1],
        store_seconds=seconds("store"),
        bytes_down=int(seen.bytes_down.sum()),
        bytes_kept=round(stored(store, originals.FOLDER)),
        bytes_ledger=round(stored(store, ledger.FOLDER)),
        bytes_shards=made.bytes if made else 0,
        chunks=sum(1 for _ in ledger.units(store)),
    )
