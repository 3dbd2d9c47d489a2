"""From URL lists to kept originals and a ledger, on Ray.

The flow, rejects included (each ends in one `Reason`, in the ledger):

    lists       chunks.plan         malformed, not http(s), private, repeated, declared unfit
    per chunk, in tasks (`pipelines.units`):
        bytes     fetch.fetch         dead hosts, HTTP errors, time-outs, opt-outs, too large
        header    glance.Glance       what its first kilobytes say: no picture, animated, too small, a coarse JPEG
        picture   decode.decode       no picture, broken, animated, too many pixels
        scores    Panel.score         flat, unscorable
        verdict   judge.judge         too small, low quality
        originals originals.write     the kept bytes, as they came
        commit    ledger.write        last
    whole list  settle.settle       duplicates, exact and near
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray

from curation import chunks, ledger, urls
from curation.fetch import FetchSettings
from curation.progress import retryable
from curation.settle import Changes
from pipelines import claims, metering, unit_log
from pipelines.cluster import connected, cores, here, spread
from pipelines.recipes import FilterRecipe
from pipelines.scoring import ScorerSpec, publish
from pipelines.settling import settled
from pipelines.unit_tally import Done, Progress
from pipelines.units import Setting, room, run_unit
from shards.store import Store

POLL_SECONDS = 0.5
LET_GO_SECONDS = 10.0  # for tasks that were told to end


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterJob:
    """One run of the filter."""

    store: Store
    lists: tuple[Path, ...]
    recipe: FilterRecipe
    scoring: ScorerSpec
    fetching: FetchSettings = field(default_factory=FetchSettings)
    retry_failed: bool = False


Watch = Callable[[int, Counter[str]], None]
Landed = Callable[[Done], None]


def prepare(job: FilterJob) -> chunks.Plan:
    """Checks the lists and the store's claim, and cuts the lists into chunks where that is not yet done.

    Raises ValueError: a list that can't be read, a store that belongs to another recipe or other lists.
    """
    known = _claimed(job)
    if known is not None:
        return known
    with connected():
        return _planned(job)


def _claimed(job: FilterJob) -> chunks.Plan | None:
    """The plan that the store has, all being checked; None where there is none yet."""
    for path in job.lists:
        urls.check_list(path)
    known = chunks.read_plan(job.store)
    if known is None and not job.lists:
        raise ValueError(f"{job.store.root} has no URL list yet: give --urls")
    claims.claim(job.store, job.recipe, job.scoring.digests)
    publish(job.store, job.scoring)
    if known is not None:
        _check_lists(job, known)
    return known


def _planned(job: FilterJob) -> chunks.Plan:
    return chunks.plan(
        job.store,
        job.lists,
        source=job.recipe.source,
        size=job.recipe.chunk_size,
        thresholds=job.recipe.thresholds,
        allow_private=job.fetching.allow_private_hosts,
        spread=spread,
    )


def run(job: FilterJob, watch: Watch, landed: Landed = lambda _: None) -> Changes:
    """The whole flow. `watch(rows in all, rows so far per reason)` is called about twice a second.

    `landed(what it took)` is called for each unit that ends.

    Raises what `prepare` and `pipelines.units.run_unit` raise; all that was committed stays.
    """
    job.store.sweep()
    with ExitStack() as stack:
        plan = _claimed(job)
        if plan is None:
            stack.enter_context(connected())
            plan = _planned(job)
        pending = list(_pending(job, plan))
        if pending:
            stack.enter_context(connected())
            _run_units(job, plan, pending, watch, landed)
    return settled(
        job.store,
        job.recipe.thresholds,
        job.recipe.near_duplicate_bits,
        job.recipe.metrics,
        about(job),
    )


def _check_lists(job: FilterJob, known: chunks.Plan) -> None:
    if job.lists and chunks.describe(job.lists) != known.lists:
        names = ", ".join(one.name for one in known.lists)
        raise ValueError(
            f"{job.store.root} was begun with other lists ({names}): give those, or another --out for these"
        )


def about(job: FilterJob) -> dict[str, Any]:
    """What the ledger's parts say of the run beside their rows."""
    return {"recipe": job.recipe.to_dict(), "weights": job.scoring.digests}


def _pending(job: FilterJob, plan: chunks.Plan) -> Iterator[str]:
    """Units without a commit; in a retry also those with rows that failed for a passing reason."""
    committed = set(ledger.units(job.store))
    again = set(retryable(job.store, committed)) if job.retry_failed else frozenset[str]()
    return (unit for unit in plan.units() if unit not in committed or unit in again)


def _run_units(job: FilterJob, plan: chunks.Plan, pending: Sequence[str], watch: Watch, landed: Landed) -> None:
    """Keeps as many units in flight as there are cores to score them, and no more."""
    setting = Setting(
        store=job.store,
        recipe=job.recipe,
        fetching=job.fetching,
        scoring=job.scoring,
        about=about(job),
    )
    progress: Any = Progress.options(**here()).remote()  # type: ignore[attr-defined]  # Ray adds it
    waiting, left = iter(pending), len(pending)
    flying: dict[Any, str] = {}  # what a unit will give -> the unit
    # A unit begun before has a part; what is open in it is decided by the job, not by the unit.
    committed = set(ledger.units(job.store))
    rows = min(plan.rows, len(pending) * plan.chunk_size)
    try:
        while True:
            for unit in _taken(waiting, 1 + cores() - len(flying)):
                again = replace(setting, retry_failed=unit in committed)
                flying[run_unit.options(**room()).remote(unit, again, progress)] = unit
            if not flying:
                break
            for ready in _landed(flying):
                done = _ended(ready, flying.pop(ready), progress)
                left -= 1
                metering.landed(done)
                unit_log.landed(done)
                landed(done)
            metering.queues(left - len(flying), len(flying), ray.get(progress.batches.remote()))
            watch(rows, ray.get(progress.so_far.remote()))
    except Exception:
        _let_go(list(flying))
        raise


def _let_go(flying: list[Any]) -> None:
    """Ends units in flight: where the driver lives on, one would commit behind the next run's back."""
    for unit in flying:
        ray.cancel(unit, force=True)
    if flying:
        ray.wait(flying, num_returns=len(flying), timeout=LET_GO_SECONDS)


def _ended(ready: Any, unit: str, progress: Any) -> Done:
    done: Done = ray.get(ready)
    # told by the unit as well, but what it says last may come behind the question
    return replace(done, tries=ray.get(progress.land.remote(unit, done.reasons)))


def _taken(waiting: Iterator[str], wanted: int) -> Iterator[str]:
    for _ in range(wanted):
        unit = next(waiting, None)
        if unit is None:
            return
        yield unit


def _landed(flying: Iterable[Any]) -> list[Any]:
    done, _ = ray.wait(list(flying), num_returns=1, timeout=POLL_SECONDS)
    return list(done)
