"""Scores that new thresholds ask for and no run has computed, from the kept originals: nothing is downloaded.

A cascade stops at the first vote against, and a metric may come to vote long after a run. Rows whose original was
not kept are left as they are: `--retry-failed` fetches those again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import ray

from curation import ledger, originals
from curation.judge import is_unscored, judge
from curation.measure import measure
from curation.records import Row
from curation.scorers import Panel
from pipelines.cluster import connected, each
from pipelines.recipes import FilterRecipe
from pipelines.scoring import ScorerSpec, needs, publish, ready_panel
from shards.store import Store

BATCH_PICTURES: Final = 16  # of which metrics that work in batches see as many at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Rescoring:
    """What every task needs to know. Small: it travels with each."""

    store: Store
    recipe: FilterRecipe
    scoring: ScorerSpec
    about: Mapping[str, Any]  # goes into the ledger's metadata


def rescore(job: Rescoring, watch: Callable[[int, int], None]) -> int:
    """Computes what is missing and writes it to the ledger, unit by unit. Returns the rows scored.

    `watch(units in all, units done)` follows. What was written stays where a later unit raises.
    """
    publish(job.store, job.scoring)
    parts = ledger.bodies(job.store, ledger.units(job.store))
    largest = {unit: _largest(job, ledger.decode_table(data, ledger.part_name(unit))) for unit, data in parts}
    units = [unit for unit, pixels in largest.items() if pixels]
    if not units:
        return 0
    with connected():
        task = rescore_unit.options(**needs(job.scoring, max(largest.values())))
        return sum(each(task, [(unit, job) for unit in units], watch))


def _largest(job: Rescoring, part: pa.Table) -> int:
    """Pixels of the largest picture of a part that is to be scored, 0 where there is none."""
    rows = (row for row in ledger.rows_of(part.filter(part["stored"])) if _open(job, row))
    return max(((row.width or 0) * (row.height or 0) for row in rows), default=0)


def _open(job: Rescoring, row: Row) -> bool:
    return row.stored and is_unscored(judge(row, job.recipe.thresholds))


@ray.remote(num_cpus=1, max_retries=20)
def rescore_unit(unit: str, job: Rescoring) -> int:
    """One unit's rows, scored from its tar of originals; its ledger part is written anew, last."""
    rows = ledger.read(job.store, unit)
    wanted = {row.link.key: row for row in rows if _open(job, row)}
    panel = ready_panel(job.store, job.scoring)
    done: dict[int, Row] = {}
    batch: list[tuple[Row, bytes]] = []
    for key, body in originals.read(job.store, unit):
        if key in wanted:
            batch.append((wanted.pop(key), body))
        if len(batch) == BATCH_PICTURES:
            done |= _measured(batch, panel, job)
            batch = []
    done |= _measured(batch, panel, job)
    after = [done.get(row.link.position, row) for row in rows]
    ledger.write(job.store, unit, after, job.recipe.metrics, job.about)
    return len(done)


def _measured(batch: list[tuple[Row, bytes]], panel: Panel, job: Rescoring) -> dict[int, Row]:
    rows = measure([row for row, _ in batch], [body for _, body in batch], panel, job.recipe.scale)
    return {row.link.position: row for row in rows}
