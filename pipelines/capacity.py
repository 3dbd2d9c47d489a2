"""What a run needs, against what a cluster has: hours per stage, the bottleneck, and the nodes that remove it.

Downloads and scores run side by side, so the longest of their limits is the time of both; what the pilot reached of its
own limit is taken off. Then come settling, in the driver alone, cutting and packing, and publishing, by one machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from curation.forecast import Interval, exactly

HOUR: Final = 3600.0
MOST_NODES: Final = 4096  # no advice beyond


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """The workers of a run, all alike. A head without work of its own comes on top."""

    nodes: int
    cores: int  # of each node
    gpus: float = 0.0  # of each node
    gbits: float = 1.0  # gigabits per second that each node reads from the web or the store
    threads: int = 64  # downloads at once per chunk in work
    per_host: int = 4  # requests at once to one host, per node

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.cores < 1:
            raise ValueError(
                f"a cluster of {self.nodes} nodes of {self.cores} cores can't work: give 1 or more of each"
            )
        if not self.gbits > 0 or not math.isfinite(self.gbits):
            raise ValueError(f"a node of {self.gbits} Gbit/s downloads nothing: give more than 0")
        if self.gpus < 0:
            raise ValueError(f"a node of {self.gpus} GPUs: give 0 or more")
        if self.threads < 1 or self.per_host < 1:
            raise ValueError("threads and requests per host: give 1 or more of each")

    @property
    def all_cores(self) -> int:
        return self.nodes * self.cores

    @property
    def in_flight(self) -> int:
        """Chunks in work at once, as `pipelines.filter_laion` has them."""
        return 1 + self.all_cores


class Limit(str, Enum):
    """What keeps a stage from being faster."""

    CORES = "cores"
    THREADS = "download threads"
    BANDWIDTH = "bandwidth"
    HOST = "the largest host"
    DRIVER = "the driver"


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What a whole run needs of everything, whatever the cluster."""

    wait_seconds: Interval  # of downloads: a thread each
    core_seconds: Interval  # of scoring and of what units compute
    host_seconds: Interval  # of downloads from the host that most rows are on
    settle_seconds: Interval
    cut_seconds: Interval  # of cores
    bytes_down: Interval
    bytes_cut: Interval  # read and written by cutting and packing
    bytes_shards: Interval
    reached: Interval  # of its own limit, by the pilot: 0 to 1
    start_seconds: float  # until all cores are busy, and from when they are not all any more


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Hours of one stage, and what they are due to. `overlaps`: it runs beside the next line's."""

    name: str
    hours: Interval
    limit: Limit
    overlaps: bool = False


DOWNLOAD, SCORE, FILTER = "download", "score", "download and score"
SETTLE, CUT, PUBLISH = "settle", "cut and pack", "publish"


def limits(load: Load, cluster: Cluster) -> dict[Limit, Interval]:
    """Hours of downloading and scoring that each resource alone would ask for."""
    bits = 8 / (cluster.nodes * cluster.gbits * 1e9)
    seconds = {
        Limit.CORES: load.core_seconds.times(1 / cluster.all_cores),
        Limit.THREADS: load.wait_seconds.times(1 / (cluster.in_flight * cluster.threads)),
        Limit.BANDWIDTH: load.bytes_down.times(bits),
        Limit.HOST: load.host_seconds.times(1 / (cluster.nodes * cluster.per_host)),
    }
    return {limit: one.times(1 / HOUR) for limit, one in seconds.items()}


def stages(load: Load, cluster: Cluster) -> tuple[Stage, ...]:
    """In the order in which they run. Downloading and scoring run side by side: their line is of both together."""
    each = limits(load, cluster)
    loading = dict(each)
    del loading[Limit.CORES]
    slowest, last = _longest(loading), _longest(each)
    cut = {
        Limit.CORES: load.cut_seconds.times(1 / cluster.all_cores / HOUR),
        Limit.BANDWIDTH: load.bytes_cut.times(8 / (cluster.nodes * cluster.gbits * 1e9) / HOUR),
    }
    slow_cut = _longest(cut)
    return (
        Stage(name=DOWNLOAD, hours=each[slowest], limit=slowest, overlaps=True),
        Stage(name=SCORE, hours=each[Limit.CORES], limit=Limit.CORES, overlaps=True),
        Stage(name=FILTER, hours=_together(each[last], load), limit=last),
        Stage(name=SETTLE, hours=load.settle_seconds.times(1 / HOUR), limit=Limit.DRIVER),
        Stage(name=CUT, hours=cut[slow_cut], limit=slow_cut),
        # read once and sent once, by the machine that publishes
        Stage(name=PUBLISH, hours=load.bytes_shards.times(16 / (cluster.gbits * 1e9) / HOUR), limit=Limit.BANDWIDTH),
    )


def _longest(hours: Mapping[Limit, Interval]) -> Limit:
    return max(hours, key=lambda limit: hours[limit].mid)


def _together(longest: Interval, load: Load) -> Interval:
    """The longest limit, at what the pilot reached of its own, and the start."""
    return longest.over(load.reached).plus(exactly(load.start_seconds / HOUR))


def total(found: tuple[Stage, ...]) -> Interval:
    """Hours from the first download to the end of the last stage."""
    hours = exactly(0.0)
    for stage in found:
        hours = hours if stage.overlaps else hours.plus(stage.hours)
    return hours


def bottleneck(found: tuple[Stage, ...]) -> Stage:
    """The stage that takes longest, of those that run one after the other."""
    return max((stage for stage in found if not stage.overlaps), key=lambda stage: stage.hours.mid)


#: What each node has of its own, so that as many cores on more nodes remove it.
_SPREAD: Final = {
    Limit.BANDWIDTH: "the lines are full and cores wait: as many cores on more nodes",
    Limit.HOST: "one host has so many rows that asking it politely takes longest: as many cores on more nodes, "
    "each of which asks it as politely; or patience",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """Another cluster, on which what held this one up does not any more. `why`: one sentence."""

    cluster: Cluster
    why: str


def advise(load: Load, cluster: Cluster) -> Advice:
    """What would remove the bottleneck. Threads cost nothing, so they are always enough."""
    found = stages(load, cluster)
    worst = bottleneck(found)
    if worst.name != FILTER:
        return _without_workers(load, cluster, worst)
    each = {limit: hours.mid for limit, hours in limits(load, cluster).items()}
    if worst.limit is Limit.THREADS:
        return Advice(
            cluster=_fed(load, cluster),
            why="downloads wait for threads while cores and lines are idle: more threads per chunk, no more nodes",
        )
    if worst.limit in _SPREAD:
        factor = each[worst.limit] / max(each[Limit.CORES], 1e-9)
        nodes = min(MOST_NODES, cluster.all_cores, math.ceil(cluster.nodes * factor))
        spread = replace(cluster, nodes=nodes, cores=math.ceil(cluster.all_cores / nodes))
        return Advice(cluster=_fed(load, spread), why=_SPREAD[worst.limit])
    return _more_nodes(load, cluster, found)


def _more_nodes(load: Load, cluster: Cluster, found: tuple[Stage, ...]) -> Advice:
    """Cores hold it up: nodes, until what nodes don't speed up takes as long."""
    fixed = max(stage.hours.mid for stage in found if stage.name in (SETTLE, PUBLISH))
    filtering = next(stage.hours.mid for stage in found if stage.name == FILTER) - load.start_seconds / HOUR
    wanted = cluster.nodes * filtering / max(fixed, 1e-9)
    nodes = max(cluster.nodes, min(MOST_NODES, math.ceil(wanted)))
    if nodes == cluster.nodes:
        return Advice(cluster=_fed(load, cluster), why="cores hold it up, and more of them would hardly shorten it")
    why = "cores hold it up: hours fall as nodes are added, "
    if wanted <= MOST_NODES:
        why += f"until at {nodes} nodes settling and publishing, which nodes don't speed up, take as long"
    else:
        why += f"and at {nodes} nodes, the most reckoned with here, they still do"
    return Advice(cluster=_fed(load, replace(cluster, nodes=nodes)), why=why)


def _without_workers(load: Load, cluster: Cluster, worst: Stage) -> Advice:
    """Settling, cutting or publishing takes longest: fewer nodes do, down to where filtering takes as long."""
    if worst.name == CUT:
        return Advice(cluster=cluster, why=f"cutting takes longest, by {worst.limit.value}: more nodes shorten it")
    nodes = cluster.nodes
    while nodes > 1 and _hours(load, replace(cluster, nodes=nodes - 1), FILTER) <= worst.hours.mid:
        nodes -= 1
    return Advice(
        cluster=_fed(load, replace(cluster, nodes=nodes)),
        why=f"{worst.name} takes longest, by {worst.limit.value}, and more nodes don't help it",
    )


def _hours(load: Load, cluster: Cluster, name: str) -> float:
    return next(stage.hours.mid for stage in stages(load, cluster) if stage.name == name)


def _fed(load: Load, cluster: Cluster) -> Cluster:
    """The cluster with so many threads per chunk that downloads need a fifth less time than the longest other limit."""
    each = {limit: hours.mid for limit, hours in limits(load, cluster).items()}
    waits = each.pop(Limit.THREADS)
    wanted = math.ceil(1.25 * cluster.threads * waits / max(*each.values(), 1e-9))
    return replace(cluster, threads=max(cluster.threads, min(wanted, 1024)))


def sweep(load: Load, cluster: Cluster) -> Mapping[int, tuple[Stage, ...]]:
    """Nodes -> stages, for half as many, as many, and up to eight times as many nodes."""
    counts = sorted({max(1, round(cluster.nodes * factor)) for factor in (0.5, 1, 2, 4, 8)})
    return {nodes: stages(load, replace(cluster, nodes=nodes)) for nodes in counts}
