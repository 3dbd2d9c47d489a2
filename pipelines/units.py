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
from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

from curation import chunks, forgotten, ledger, originals, rejects
from curation.decode import header
from curation.fetch import FetchSettings, fetch
from curation.glance import Glance, Look, unseen
from curation.judge import judge
from curation.measure import measure, promised, refused
from curation.records import TRANSIENT, Fetched, Reason, Refusal, Row, Stage
from pipelines.cluster import at_most, gpu_share, workers
from pipelines.recipes import FilterRecipe
from pipelines.scoring import ScorerSpec, needs, passes, ready_panel
from pipelines.unit_tally import Done, Tally
from shards.store import Store

BATCH_PICTURES: Final = 4
IN_FLIGHT: Final = 8  # batches of a unit being scored or waiting for it: bounds the object store
GPU_SECONDS: Final = 10.0  # without a batch scored, until it is asked whether there still is a GPU
#: Of a core: a download waits. What the units of a node take together, its scores leave, so that a node has one score
#: for each of its cores beside them. Any more, and a whole core would stand idle (1.2 of 2 busy against 1.9).
DOWNLOAD_CORES: Final = 0.001
SCORE_CORES: Final = 1 - 2 * DOWNLOAD_CORES
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


@dataclass(frozen=True, slots=True)
class _Batch:
    """Pictures that are scored together: their rows, their files, and by what, the first of it now."""

    pictures: list[tuple[Row, Path]]
    passes: tuple[ScorerSpec, ...]
    on_gpu: bool = False  # asked for a share of one


def room() -> dict[str, Any]:
    """What a unit asks its node for: to be one of as many as the largest node has cores, and one more.

    Where nodes are lost, those that are left would else get all units at once, of 0.8 GB each.
    """
    return at_most(1 + int(max((node["CPU"] for node in workers()), default=1)), "units")


@ray.remote(num_cpus=DOWNLOAD_CORES, max_retries=20, scheduling_strategy="SPREAD")
def run_unit(unit: str, setting: Setting, progress: Any) -> Done:
    """One chunk from links to its committed ledger part.

    Raises StoreError where the store can't be used, `curation.fetch.ResolverDown` where no name resolves.
    """
    progress.begin.remote(unit)
    tally, begun = Tally(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="million-ird-") as scratch, tally.timed("unit"):
        final, kept = _run(unit, setting, progress, Path(scratch), tally)
    tally.seconds["cpu"] = time.process_time() - begun
    done = tally.done(unit, final, kept)
    progress.tell.remote(unit, done.reasons)
    return done


def _run(
    unit: str, setting: Setting, progress: Any, scratch: Path, tally: Tally
) -> tuple[list[Row], Mapping[str, Path]]:
    """The unit's rows as they were committed, and the files of the pictures that this run kept, by key."""
    store, recipe = setting.store, setting.recipe
    with tally.timed("store"):
        asked = forgotten.read(store)
        rows = [forgotten.marked(row, asked) for row in _known_rows(store, unit)]
    todo = [row for row in rows if is_open(row, setting.retry_failed)]
    done = Counter(row.reason.value for row in rows) - Counter(row.reason.value for row in todo)
    told = 0.0
    ended: dict[int, Row] = {}
    bodies: dict[str, Path] = {}
    refused_ones = rejects.Rejects()
    for measured, body in _measured(todo, setting, scratch, tally):
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
            progress.tell.remote(unit, done, tally.batches)
    final = [ended.get(row.link.position, row) for row in rows]
    with tally.timed("store"):
        _keep(store, unit, final, bodies, scratch)
    if rejects.is_shown(unit):
        refused_ones.write(store, unit, final, scratch)
    with tally.timed("store"):
        ledger.write(store, unit, final, recipe.metrics, setting.about)
    return final, bodies


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


def _measured(todo: Sequence[Row], setting: Setting, scratch: Path, tally: Tally) -> Iterator[tuple[Row, Path | None]]:
    """Each row with its facts and verdict, and where its bytes lie if they came."""
    by_key = {row.link.key: row for row in todo}
    waiting: list[tuple[Row, Path]] = []
    scoring: dict[Any, _Batch] = {}
    for answer in fetch([row.link for row in todo], setting.fetching, _look(setting.recipe)):
        row = _fetched(by_key[answer.key], answer, setting.recipe)
        tally.seconds["fetch"] += answer.seconds
        tally.bytes_read += answer.bytes_read
        if answer.body is None:
            yield row, None
            continue
        waiting.append((row, _spooled(answer.body, scratch / row.link.key)))
        if len(waiting) == BATCH_PICTURES:
            scoring |= _submitted(_Batch(waiting, passes(setting.scoring)), setting)
            waiting = []
        while len(scoring) > IN_FLIGHT:
            yield from _collected(scoring, setting, tally)
        tally.batches = len(scoring)
    scoring |= _submitted(_Batch(waiting, passes(setting.scoring)), setting)
    while scoring:
        yield from _collected(scoring, setting, tally)
        tally.batches = len(scoring)


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


def _submitted(batch: _Batch, setting: Setting) -> dict[Any, _Batch]:
    if not batch.pictures:
        return {}
    largest = max(_pixels(path, setting.recipe.max_pixels) for _, path in batch.pictures)
    wanted = needs(batch.passes[0], largest)
    rows, bodies = [row for row, _ in batch.pictures], [path.read_bytes() for _, path in batch.pictures]
    task = score_batch.options(**wanted).remote(rows, bodies, setting, batch.passes[0])
    return {task: replace(batch, on_gpu=wanted["num_gpus"] > 0)}


def _collected(scoring: dict[Any, _Batch], setting: Setting, tally: Tally) -> Iterator[tuple[Row, Path | None]]:
    """Takes one finished batch off `scoring`; where a picture killed its worker, each is tried alone.

    A node that is gone says nothing of the pictures it had: they are scored again, however often that happens.
    """
    landed, _ = ray.wait(list(scoring), num_returns=1, timeout=GPU_SECONDS)
    if not landed:
        _off_lost_gpus(scoring, setting)
        return
    batch = scoring.pop(landed[0])
    try:
        rows, seconds = ray.get(landed[0])
    except NodeDiedError:
        scoring |= _submitted(batch, setting)
        return
    except (WorkerCrashedError, OutOfMemoryError) as error:
        if len(batch.pictures) > 1:
            for one in batch.pictures:
                scoring |= _submitted(_Batch([one], batch.passes), setting)
            return
        rows, seconds = [refused(replace(batch.pictures[0][0], sha256=None), _killer(error))], 0.0
    tally.seconds["score"] += seconds
    tally.seconds["gpu"] += seconds * batch.on_gpu
    scored = list(zip(rows, (path for _, path in batch.pictures), strict=True))
    rest = [one for one in scored if batch.passes[1:] and setting.recipe.scale.is_open(one[0])]
    scoring |= _submitted(_Batch(rest, batch.passes[1:]), setting)
    tally.scored += len(scored) - len(rest)
    yield from (one for one in scored if one not in rest)


def _off_lost_gpus(scoring: dict[Any, _Batch], setting: Setting) -> None:
    """Where the last GPU of the cluster has gone, what waits for it is scored on cores: it may never come back."""
    if gpu_share():
        return
    for task, batch in list(scoring.items()):
        if batch.on_gpu:
            ray.cancel(task)
            del scoring[task]
            scoring |= _submitted(batch, setting)


def _killer(error: Exception) -> Refusal:
    detail = f"its worker died of it ({type(error).__name__}), with nothing else in hand"
    return Refusal(reason=Reason.UNSCORABLE, stage=Stage.SCORE, detail=detail)


def _pixels(path: Path, max_pixels: int) -> int:
    """What scoring will hold: nothing for what the header already refuses."""
    seen = header(path.read_bytes())
    if isinstance(seen, Refusal) or seen.width * seen.height > max_pixels:
        return 0
    return seen.width * seen.height


@ray.remote(num_cpus=SCORE_CORES, max_retries=2)  # a picture that kills its worker costs that many models built, twice
def score_batch(rows: list[Row], bodies: list[bytes], setting: Setting, scoring: ScorerSpec) -> tuple[list[Row], float]:
    """Decodes and scores pictures: one core, one model per worker process. Also the seconds, the models built."""
    panel = ready_panel(setting.store, scoring)
    begun = time.perf_counter()
    return measure(rows, bodies, panel, setting.recipe.scale), time.perf_counter() - begun


def _keep(store: Store, unit: str, rows: Sequence[Row], bodies: dict[str, Path], scratch: Path) -> None:
    """The unit's tar anew, if anything came to it: what was in it before stays in it."""
    if not bodies:
        return
    for key, data in originals.read(store, unit):
        if key not in bodies:
            bodies[key] = _spooled(data, scratch / key)
    kept = [row for row in rows if row.stored and row.link.key in bodies]
    originals.write(store, unit, kept, bodies, scratch)
