"""The Ray tasks behind a work unit: download a chunk, score its pictures, keep what passes, commit.

Encoded bytes travel between tasks, decoded pictures never do. Each task can be killed at any moment: Ray starts
it again, and until the ledger part is written (last) nothing of it counts.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import OutOfMemoryError, WorkerCrashedError

from curation import chunks, forgotten, ledger, originals, rejects
from curation.decode import header
from curation.fetch import FetchSettings, fetch
from curation.glance import Glance, Look, unseen
from curation.judge import judge
from curation.measure import measure, promised, refused
from curation.records import TRANSIENT, Fetched, Reason, Refusal, Row, Stage
from pipelines.recipes import FilterRecipe
from pipelines.scoring import ScorerSpec, needs, ready_panel
from shards.store import Store

BATCH_PICTURES: Final = 4
IN_FLIGHT: Final = 8  # batches of a unit being scored or waiting for it: bounds the object store
TELL_SECONDS: Final = 0.5  # between two reports of a unit's progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What every task of a run needs to know. Small: it travels with each task."""

    store: Store
    recipe: FilterRecipe
    fetching: FetchSettings
    scoring: ScorerSpec  # its models are built once per worker process
    about: Mapping[str, Any]  # goes into the ledger's metadata
    retry_failed: bool = False


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Progress:
    """Rows done per unit, told by the units, asked by the driver. A unit that starts again starts from nothing.

    So does this: where its process dies, the numbers on the screen fall back and the job goes on.
    """

    def __init__(self) -> None:
        self._units: dict[str, Counter[str]] = {}
        self._sum: Counter[str] = Counter()  # of 170,000 units: to add them up anew takes half a second each time

    def tell(self, unit: str, reasons: Counter[str]) -> None:
        self._sum.subtract(self._units.get(unit, {}))
        self._sum.update(reasons)
        self._units[unit] = reasons

    def so_far(self) -> Counter[str]:
        return +self._sum


# No core: a download waits, and any fraction of one would keep a whole core from scoring (1.2 of 2 busy against 1.9).
@ray.remote(num_cpus=0, max_retries=20, scheduling_strategy="SPREAD")
def run_unit(unit: str, setting: Setting, progress: Any) -> Counter[str]:
    """One chunk from links to its committed ledger part. Returns the rows per reason.

    Raises StoreError where the store can't be used, `curation.fetch.ResolverDown` where no name resolves.
    """
    store, recipe = setting.store, setting.recipe
    asked = forgotten.read(store)
    rows = [forgotten.marked(row, asked) for row in _known_rows(store, unit)]
    todo = [row for row in rows if is_open(row, setting.retry_failed)]
    done = Counter(row.reason.value for row in rows) - Counter(row.reason.value for row in todo)
    told = 0.0
    with tempfile.TemporaryDirectory(prefix="million-ird-") as scratch:
        ended: dict[int, Row] = {}
        bodies: dict[str, Path] = {}
        refused_ones = rejects.Rejects()
        for measured, body in _measured(todo, setting, Path(scratch)):
            row = forgotten.marked(measured, asked)
            passes = row.reason is Reason.NOT_STORED
            ended[row.link.position] = replace(_kept(row, recipe) if passes else row, ended=time.time())
            if body is not None and passes:
                bodies[row.link.key] = body
            elif body is not None:
                refused_ones.offer(row, body)
            done[ended[row.link.position].reason.value] += 1
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                progress.tell.remote(unit, done)
        final = [ended.get(row.link.position, row) for row in rows]
        _keep(store, unit, final, bodies, Path(scratch))
        if rejects.is_shown(unit):
            refused_ones.write(store, unit, final, Path(scratch))
        ledger.write(store, unit, final, recipe.metrics, setting.about)
    progress.tell.remote(unit, Counter(row.reason.value for row in final))
    return Counter(row.reason.value for row in final)


def _known_rows(store: Store, unit: str) -> list[Row]:
    if store.exists(ledger.part_name(unit)):
        return ledger.read(store, unit)
    return chunks.read_rows(store, unit)


def is_open(row: Row, retry_failed: bool) -> bool:
    """Never looked at, or (in a retry) ended by what may have passed since.

    A row whose original is here lacks scores alone: `pipelines.rescore` computes them, and a dead link can't lose it.
    """
    if retry_failed:
        return row.reason in TRANSIENT and not row.stored
    return row.reason is Reason.NOT_MEASURED


def _kept(row: Row, recipe: FilterRecipe) -> Row:
    return judge(replace(row, stored=True), recipe.thresholds)


def _measured(todo: Sequence[Row], setting: Setting, scratch: Path) -> Iterator[tuple[Row, Path | None]]:
    """Each row with its facts and verdict, and where its bytes lie if they came."""
    by_key = {row.link.key: row for row in todo}
    waiting: list[tuple[Row, Path]] = []
    scoring: dict[Any, list[tuple[Row, Path]]] = {}
    for answer in fetch([row.link for row in todo], setting.fetching, _look(setting.recipe)):
        row = _fetched(by_key[answer.key], answer, setting.recipe)
        if answer.body is None:
            yield row, None
            continue
        waiting.append((row, _spooled(answer.body, scratch / row.link.key)))
        if len(waiting) == BATCH_PICTURES:
            scoring |= _submitted(waiting, setting)
            waiting = []
        while len(scoring) > IN_FLIGHT:
            yield from _collected(scoring, setting)
    scoring |= _submitted(waiting, setting)
    while scoring:
        yield from _collected(scoring, setting)


def _look(recipe: FilterRecipe) -> Look:
    return Glance(thresholds=recipe.thresholds, max_pixels=recipe.max_pixels) if recipe.cascade else unseen


def _fetched(row: Row, answer: Fetched, recipe: FilterRecipe) -> Row:
    """The row with the answer's verdict; with a body it is open again, whatever an earlier try ended in."""
    seen = replace(
        row,
        attempts=row.attempts + answer.attempts,
        seconds=row.seconds + answer.seconds,
        bytes_read=row.bytes_read + answer.bytes_read,
        bytes_spared=answer.bytes_spared,
    )
    if answer.header is not None:
        seen = promised(seen, answer.header, recipe.thresholds)
    if answer.refusal is not None:
        return refused(seen, answer.refusal)
    return replace(seen, reason=Reason.NOT_MEASURED, stage=Stage.FETCH, detail="")


def _spooled(body: bytes, path: Path) -> Path:
    path.write_bytes(body)
    return path


def _submitted(batch: list[tuple[Row, Path]], setting: Setting) -> dict[Any, list[tuple[Row, Path]]]:
    if not batch:
        return {}
    largest = max(_pixels(path, setting.recipe.max_pixels) for _, path in batch)
    task = score_batch.options(**needs(setting.scoring, largest))
    return {task.remote([row for row, _ in batch], [path.read_bytes() for _, path in batch], setting): batch}


def _collected(scoring: dict[Any, list[tuple[Row, Path]]], setting: Setting) -> Iterator[tuple[Row, Path | None]]:
    """Takes one finished batch off `scoring`; where a picture killed its worker, each is tried alone."""
    [ready], _ = ray.wait(list(scoring), num_returns=1)
    batch = scoring.pop(ready)
    try:
        rows = ray.get(ready)
    except (WorkerCrashedError, OutOfMemoryError) as error:
        if len(batch) > 1:
            for one in batch:
                scoring |= _submitted([one], setting)
            return
        rows = [refused(replace(batch[0][0], sha256=None), _killer(error))]
    for row, (_, path) in zip(rows, batch, strict=True):
        yield row, path


def _killer(error: Exception) -> Refusal:
    detail = f"its worker died of it ({type(error).__name__}), with nothing else in hand"
    return Refusal(reason=Reason.UNSCORABLE, stage=Stage.SCORE, detail=detail)


def _pixels(path: Path, max_pixels: int) -> int:
    """What scoring will hold: nothing for what the header already refuses."""
    seen = header(path.read_bytes())
    if isinstance(seen, Refusal) or seen.width * seen.height > max_pixels:
        return 0
    return seen.width * seen.height


@ray.remote(num_cpus=1, max_retries=2)  # a picture that kills its worker costs that many models built, twice
def score_batch(rows: list[Row], bodies: list[bytes], setting: Setting) -> list[Row]:
    """Decodes and scores pictures: one core, one model per worker process."""
    return measure(rows, bodies, ready_panel(setting.store, setting.scoring), setting.recipe.scale)


def _keep(store: Store, unit: str, rows: Sequence[Row], bodies: dict[str, Path], scratch: Path) -> None:
    """The unit's tar anew, if anything came to it: what was in it before stays in it."""
    if not bodies:
        return
    for key, data in originals.read(store, unit):
        if key not in bodies:
            bodies[key] = _spooled(data, scratch / key)
    kept = [row for row in rows if row.stored and row.link.key in bodies]
    originals.write(store, unit, kept, bodies, scratch)
