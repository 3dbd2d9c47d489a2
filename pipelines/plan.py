"""A run, told beforehand: from a pilot to the whole list, on a cluster, at prices.

What is sampled has an interval (`curation.forecast`); what is not, has none, and a note says so. Per-row costs that
were only measured in sum (seconds of cores, bytes of shards) are laid on the rows by what drives them: the pixels that
were decoded, the bytes that were kept.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np

from curation import ledger
from curation.forecast import Interval, around, exactly, mean, share
from curation.outcomes import Outcomes, Yield, host, yields
from curation.pilot import Pilot
from pipelines import capacity, filter_laion, s3_requests
from pipelines.capacity import CUT, FILTER, HOUR, Advice, Cluster, Limit, Load, Stage
from pipelines.pilot import CHUNKS_A_SLOT, Drawn, Observed, PilotJob
from pipelines.prices import Prices
from pipelines.promise import (
    ANSWERED,
    CUTTING,
    DOWN,
    FILTERING,
    KEPT,
    LEDGER,
    ORIGINALS,
    PATCHES,
    PLAN,
    SHARDS,
)
from pipelines.s3_requests import Requests
from shards.store import Store

GIGABYTE: Final = 1e9
#: Parts of the pilot's rows at its begin and end that tell nothing of its pace: workers start, cores fall idle.
_BEGIN: Final = 1 / CHUNKS_A_SLOT
_END: Final = 0.1
_PACKING: Final = 0.1  # on the logarithm, of a ledger's size: 2 and 4 % were seen (`LOG.md`, 2026-11-29)
_BLOCKS: Final = 8  # of the time between: how its pace varies


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What `dynet-filter plan` says. `quantities` are those that a run is held against."""

    at: float  # seconds since 1970
    drawn: Drawn
    pilot: Pilot
    cluster: Cluster
    prices: Prices
    quantities: Mapping[str, Interval]
    yields: tuple[Yield, ...]
    stages: tuple[Stage, ...]
    bottleneck: str
    requests: Requests
    costs: Mapping[str, Interval]
    advice: Advice
    advised: tuple[Stage, ...]
    advised_costs: Mapping[str, Interval]
    sweep: Mapping[int, tuple[Interval, Interval]]  # nodes -> hours, cost
    largest_host: str
    reached: float  # of its own limit, by the pilot
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """One JSON object; an interval is its low, mid and high."""
        return json.dumps(asdict(self), indent=1)


def plan(job: PilotJob, seen: Observed, cluster: Cluster, prices: Prices) -> Plan:
    """The prediction for the whole list on this cluster."""
    load = _load(job, seen, cluster)
    found = capacity.stages(load, cluster)
    quantities = _quantities(job, seen, found)
    asked = _requests(job, seen, quantities)
    advice = capacity.advise(load, cluster)
    better = capacity.stages(load, advice.cluster)
    name, _ = _largest_host(seen)

    def costs(of: tuple[Stage, ...], on: Cluster) -> dict[str, Interval]:
        return _costs(of, on.nodes * on.cores / cluster.cores, bool(on.gpus), prices, quantities, asked)

    return Plan(
        at=time.time(),
        drawn=seen.drawn,
        pilot=seen.pilot,
        cluster=cluster,
        prices=prices,
        quantities=quantities,
        yields=tuple(yields(seen.rows, seen.outcomes.hosts, job.whole.recipe.thresholds)),
        stages=found,
        bottleneck=_named(capacity.bottleneck(found)),
        requests=asked,
        costs=costs(found, cluster),
        advice=advice,
        advised=better,
        advised_costs=costs(better, advice.cluster),
        sweep={
            nodes: (capacity.total(one), total_cost(costs(one, replace(cluster, nodes=nodes))))
            for nodes, one in capacity.sweep(load, cluster).items()
        },
        largest_host=name,
        reached=load.reached.mid,
        notes=tuple(_notes(job, seen, cluster)),
    )


def write(store: Store, made: Plan) -> None:
    """Puts the plan where the run that it is of will find it."""
    store.write(PLAN, made.to_json().encode())


def total_cost(costs: Mapping[str, Interval]) -> Interval:
    """The sum of all entries."""
    both = exactly(0.0)
    for one in costs.values():
        both = both.plus(one)
    return both


def _named(stage: Stage) -> str:
    return f"{stage.name}, by {stage.limit.value}"


def _per_row(seen: Outcomes, drivers: np.ndarray, measured: float) -> Interval:
    """The mean cost of a row, where `measured` is the sum and the rows have parts of it as of `drivers`."""
    whole = float(drivers.sum())
    return mean(drivers, seen.hosts).times(measured / whole) if whole else exactly(0.0)


def _cut_seconds(out: Outcomes, pilot: Pilot) -> Interval:
    """Core-seconds of a row: between cores that never wait, as in a long run, and as idle as the pilot's were."""
    worked = _per_row(out, out.pixels * out.passed, pilot.cut_seconds)
    if pilot.cut_held_seconds <= pilot.cut_seconds or not worked.mid:
        return worked
    held = worked.times(pilot.cut_held_seconds / pilot.cut_seconds)
    return Interval(low=worked.low, mid=math.sqrt(worked.mid * held.mid), high=held.high)


def _load(job: PilotJob, seen: Observed, cluster: Cluster) -> Load:
    rows, pilot, out = seen.drawn.fresh, seen.pilot, seen.outcomes
    _, largest = _largest_host(seen)
    computed = out.pixels * (pilot.score_seconds / max(1.0, out.pixels.sum())) + pilot.unit_seconds / pilot.rows
    waited = np.maximum(0.0, out.seconds - out.pixels * (pilot.score_seconds / max(1.0, out.pixels.sum())))
    shards = _per_row(out, out.bytes_kept, pilot.bytes_shards).times(rows)
    base = Load(
        wait_seconds=_per_row(out, waited, pilot.wait_seconds).times(rows),
        core_seconds=mean(computed, out.hosts).times(rows),
        host_seconds=exactly(float((waited * largest).mean()) * rows),
        settle_seconds=exactly(seen.settle_seconds / pilot.rows * rows),
        cut_seconds=_cut_seconds(out, pilot).times(rows),
        bytes_down=mean(out.bytes_down, out.hosts).times(rows),
        bytes_cut=_per_row(out, out.bytes_kept, pilot.bytes_kept + 3.0 * pilot.bytes_shards).times(rows),
        bytes_shards=shards,
        reached=exactly(1.0),
        start_seconds=0.0,
    )
    pace, start = _pace(seen)
    reached = _reached(base, seen, cluster, pace)
    if _has_small_chunks(job, seen):
        reached = replace(reached, high=max(reached.high, 1.0))
    return replace(base, reached=reached, start_seconds=start)


def _has_small_chunks(job: PilotJob, seen: Observed) -> bool:
    """Whether chunks begin and end so much more often than the run's that it may come nearer to its limit."""
    return 2 * _chunk_size(seen) < min(job.whole.recipe.chunk_size, seen.drawn.rows)


def _chunk_size(seen: Observed) -> int:
    return math.ceil(seen.pilot.rows / seen.pilot.chunks)


def _pace(seen: Observed) -> tuple[Interval, float]:
    """Rows per second while all cores were busy, and the seconds that begin and end took beyond that pace."""
    ended = np.sort(seen.outcomes.ended[seen.outcomes.ended > 0])
    if len(ended) < 2 * _BLOCKS or ended[-1] <= ended[0]:  # a pilot of next to nothing: anything may be
        span = float(ended[-1] - ended[0]) if len(ended) else 0.0
        return around(len(seen.rows) / max(1.0, span), math.log(10)), 0.0
    first, last = ended[int(_BEGIN * len(ended))], ended[int((1 - _END) * len(ended)) - 1]
    blocks = np.histogram(ended, bins=_BLOCKS, range=(first, last))[0]
    # rows the list itself refused are in the chunks too, and cost nothing
    rate = blocks.mean() * _BLOCKS / max(1e-3, last - first) * len(seen.rows) / len(ended)
    relative = float(blocks.std(ddof=1) / blocks.mean() / math.sqrt(_BLOCKS))
    start = 0.0 if seen.resumed else max(0.0, float(ended[-1] - ended[0]) - len(seen.rows) / rate)
    return around(float(rate), 2.365 * relative), start  # Student's t of 7 degrees of freedom


def _reached(load: Load, seen: Observed, cluster: Cluster, pace: Interval) -> Interval:
    """The pilot's pace as a part of what its cores and threads would have allowed.

    Above 1 where seconds were measured on cores that had other work besides, and so are too long.
    """
    own = replace(cluster, nodes=1, cores=seen.cores)
    allowed = capacity.limits(load, own)
    seconds = max(allowed[Limit.CORES].mid, allowed[Limit.THREADS].mid) * HOUR / seen.drawn.fresh
    return pace.times(max(seconds, 1e-12))


def _largest_host(seen: Observed) -> tuple[str, np.ndarray]:
    """The host that most downloads were tried from, and (rows,) bool: its rows."""
    hosts = seen.outcomes.hosts
    counts = np.bincount(hosts, weights=seen.outcomes.tried.astype(float))
    which = int(np.argmax(counts))
    of_it = hosts == which
    return host(seen.rows[int(np.argmax(of_it))].link.url), of_it


def _quantities(job: PilotJob, seen: Observed, found: tuple[Stage, ...]) -> dict[str, Interval]:
    rows, pilot, out = seen.drawn.fresh, seen.pilot, seen.outcomes
    hours = {stage.name: stage.hours for stage in found}
    made = {
        ANSWERED: share(out.answered[out.tried], out.hosts[out.tried]) if out.tried.any() else exactly(0.0),
        KEPT: share(out.passed, out.hosts).times(rows),
        DOWN: mean(out.bytes_down, out.hosts).times(rows),
        ORIGINALS: _per_row(out, out.bytes_kept, pilot.bytes_kept).times(rows),
        LEDGER: _ledger_bytes(job, seen),
        FILTERING: hours[FILTER].times(HOUR),
    }
    if job.cut is not None:
        made[PATCHES] = _per_row(out, out.pixels * out.passed, pilot.patches).times(rows)
        made[SHARDS] = _per_row(out, out.bytes_kept, pilot.bytes_shards).times(rows)
        made[CUTTING] = hours[CUT].times(HOUR)
    return made


def _ledger_bytes(job: PilotJob, seen: Observed) -> Interval:
    """A part of the run's size, made of the pilot's rows: smaller ones have more beside their rows, and pack worse.

    Rows that lie side by side in the list are more alike than drawn ones, and pack better; how much isn't sampled.
    """
    recipe, about = job.whole.recipe, filter_laion.about(job.whole)
    some = seen.rows[: recipe.chunk_size]
    beside = len(ledger.encode([], recipe.metrics, about))
    per_row = (len(ledger.encode(some, recipe.metrics, about)) - beside) / len(some)
    texts = np.array([len(row.link.url) + len(row.link.caption or "") for row in seen.rows], dtype=float)
    whole = per_row * seen.drawn.rows + beside * _chunks(job, seen)
    return mean(texts, seen.outcomes.hosts).times(whole / max(1.0, texts.mean())).over(around(1.0, _PACKING))


def _chunks(job: PilotJob, seen: Observed) -> int:
    return -(-seen.drawn.rows // job.whole.recipe.chunk_size)


def _requests(job: PilotJob, seen: Observed, quantities: Mapping[str, Interval]) -> Requests:
    size = quantities.get(SHARDS, exactly(0.0))
    largest = job.cut.max_shard_bytes if job.cut else 1
    shards = Interval(
        low=math.ceil(size.low / largest), mid=math.ceil(size.mid / largest), high=math.ceil(size.high / largest)
    )
    return s3_requests.requests(
        chunks=_chunks(job, seen), shards=shards, bytes_kept=quantities[ORIGINALS], bytes_shards=size
    )


def _costs(
    found: tuple[Stage, ...],
    nodes: float,
    has_gpus: bool,
    prices: Prices,
    quantities: Mapping[str, Interval],
    asked: Requests,
) -> dict[str, Interval]:
    """Workers are paid while they have work, the head all the time. `nodes`: of the kind that is priced, by cores."""
    hours = {stage.name: stage.hours for stage in found}
    node = prices.gpu_worker_hour if has_gpus else prices.cpu_worker_hour
    stored = quantities[ORIGINALS].plus(quantities[LEDGER]).plus(quantities.get(SHARDS, exactly(0.0)))
    return {
        "workers": hours[FILTER].plus(hours[CUT]).times(nodes * node),
        "head": capacity.total(found).times(prices.head_hour),
        f"storage, months: {prices.months:g}": stored.times(prices.storage_gb_month * prices.months / GIGABYTE),
        "requests": asked.put.plus(asked.list)
        .times(prices.put_1000 / 1000)
        .plus(asked.get.times(prices.get_1000 / 1000)),
        "downloads": quantities[DOWN].times(prices.ingress_gb / GIGABYTE),
        "publishing": quantities.get(SHARDS, exactly(0.0)).times(prices.egress_gb / GIGABYTE),
    }


def _notes(job: PilotJob, seen: Observed, cluster: Cluster) -> Iterator[str]:
    """What the numbers do not know."""
    drawn = seen.drawn
    if job.count > drawn.fresh:
        yield f"--pilot {job.count} is more than the list has: the pilot was the whole list of {drawn.fresh} URLs"
    if drawn.fresh < drawn.rows:
        yield f"{drawn.rows - drawn.fresh} rows repeat an earlier URL: counted in the whole list, none is downloaded"
    yield "before duplicates: pictures that are alike under several URLs can only be found in the whole list"
    yield "hours stand for machines and network like the pilot's; settling and publishing were not sampled"
    if cluster.gpus and not seen.gpus_a_core:
        yield "the pilot had no GPU, so hours are those of cores: run it on such a node to see what its GPUs do"
    if seen.resumed:
        yield "the pilot was interrupted: its pace has the pause in it; for hours take another --out"
    if seen.pilot.chunks < 1 + seen.cores:
        yield f"{seen.pilot.chunks} chunks did not fill the pilot's {seen.cores} cores: take a larger --pilot"
    if _has_small_chunks(job, seen):
        yield (
            f"chunks of {_chunk_size(seen)} rows here, of {job.whole.recipe.chunk_size} in the run: begin and end "
            "weigh more, so hours are rather too many; take a larger --pilot"
        )
    if not seen.pilot.kept:
        yield "the pilot kept nothing: of shards and originals nothing can be told; take a larger --pilot"
