"""A run of any length before it is begun: a pilot's measured times, carried to another list on another cluster.

Chunks are taken in order, as many in work as the cluster has cores and one more. A chunk's downloads share its threads;
the largest hosts are queues of their own on each node, since only so many requests may be with a host at once; scoring
is one queue for all cores. Each queue serves in order of arrival, so a run of n chunks costs n steps: 170,000 take some
seconds. Same seed, same run.

What is assumed, as a pilot holds sums alone: how long one download waits is log-normal about the pilot's mean, with
`SPREAD`; and the k-th host of a list has a share of it that falls with k to the power of `zipf`.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Final

import numpy as np

from curation.pilot import Pilot

SPREAD: Final = 1.0  # sigma of the logarithm of a download's seconds: one in a hundred takes six times the mean
DEADLINE: Final = 60.0  # seconds: `FetchSettings.deadline`
BIG_HOSTS: Final = 32  # hosts that are queues of their own; a chunk has a handful of rows of any other
ROWS_PER_HOST: Final = 30  # of a list, on average; the number of hosts decides how much the largest has


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """The machines of a run, all alike. `zipf`: how unequal the list's hosts are, 0 for all alike."""

    nodes: int
    cores: int  # of each node
    threads: int = 64  # downloads at once per chunk
    per_host: int = 4  # requests at once to one host, per node
    chunk_size: int = 1000  # URLs
    zipf: float = 1.0

    def __post_init__(self) -> None:
        for name in ("nodes", "cores", "threads", "per_host", "chunk_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give 1 or more")
        if not 0 <= self.zipf <= 3:
            raise ValueError(f"zipf is {self.zipf}: give 0 (hosts alike) to 3 (one host has nearly all)")

    @property
    def in_flight(self) -> int:
        """Chunks in work at once, as `pipelines.filter_laion` has them."""
        return 1 + self.nodes * self.cores


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """A run of the downloads and scores. Seconds are from its beginning."""

    rows: int
    chunks: int
    in_flight: int  # the most chunks in work at once
    seconds: float  # until the last chunk is committed
    last_hundredth: float  # of them, from 99 % of the chunks to all
    host_share: float  # of the list, on its largest host
    host_seconds: float  # what that host alone asks for: no run is shorter
    core_seconds: float  # of scoring, over all cores
    kept: int
    patches: int


def simulate(pilot: Pilot, rows: int, cluster: Cluster, seed: int = 0) -> Simulated:
    """Carries the pilot to a list of `rows` URLs on the cluster. Raises ValueError for no rows."""
    if rows < 1:
        raise ValueError(f"a list of {rows} URLs has nothing to simulate: give 1 or more")
    rng = np.random.default_rng(seed)
    sizes = _sizes(rows, cluster.chunk_size)
    wait = pilot.wait_seconds / pilot.rows
    shares = host_shares(rows, cluster.zipf)[:BIG_HOSTS]
    hosts = rng.poisson(np.outer(sizes, shares)) if len(shares) > 1 else np.outer(sizes, shares)
    totals, longest = _downloads(rng, sizes, wait)
    work = (pilot.score_seconds + pilot.unit_seconds) / pilot.rows * sizes
    ends = _ends(
        np.maximum(totals / cluster.threads, longest),
        hosts * wait,
        work,
        pilot.store_seconds / pilot.chunks,
        cluster,
    )
    done = np.sort(ends)
    return Simulated(
        rows=rows,
        chunks=len(sizes),
        in_flight=min(cluster.in_flight, len(sizes)),
        seconds=float(done[-1]),
        last_hundredth=float(done[-1] - done[max(0, int(0.99 * len(done)) - 1)]),
        host_share=float(shares[0]),
        host_seconds=float(hosts[:, 0].sum() * wait / (cluster.per_host * cluster.nodes)),
        core_seconds=float(work.sum()),
        kept=round(rows * pilot.kept / pilot.rows),
        patches=round(rows * pilot.patches / pilot.rows),
    )


def host_shares(rows: int, zipf: float) -> np.ndarray:
    """(hosts,) float64, descending, of sum 1: the share of a list of `rows` URLs that each of its hosts has."""
    weights = np.arange(1, max(1, rows // ROWS_PER_HOST) + 1, dtype=np.float64) ** -zipf
    return np.asarray(weights / weights.sum())


def _sizes(rows: int, chunk_size: int) -> np.ndarray:
    """(chunks,) int64: the rows of each."""
    sizes = np.full(-(-rows // chunk_size), chunk_size, np.int64)
    sizes[-1] -= len(sizes) * chunk_size - rows
    return sizes


def _downloads(rng: np.random.Generator, sizes: np.ndarray, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """(chunks,) seconds that each chunk's downloads wait in all, and (chunks,) those of its longest, drawn.

    The sum of n draws is nearly normal; the longest is a draw from the n-th power of their distribution.
    """
    deviation = mean * np.sqrt(np.expm1(SPREAD**2))
    totals = sizes * mean + np.sqrt(sizes) * deviation * rng.standard_normal(len(sizes))
    quantile = rng.random(len(sizes)) ** (1 / sizes)
    longest = mean * np.exp(SPREAD * _normal_quantile(quantile) - SPREAD**2 / 2)
    return np.maximum(totals, 0.5 * sizes * mean), np.minimum(longest, max(DEADLINE, mean))


def _normal_quantile(p: np.ndarray) -> np.ndarray:
    """Of the standard normal distribution, within 5e-4 (Abramowitz and Stegun 26.2.23)."""
    tail = np.sqrt(-2 * np.log(np.clip(np.minimum(p, 1 - p), 1e-300, 0.5)))
    top = 2.515517 + tail * (0.802853 + tail * 0.010328)
    bottom = 1 + tail * (1.432788 + tail * (0.189269 + tail * 0.001308))
    return np.asarray(np.where(p > 0.5, 1, -1) * (tail - top / bottom))


def _ends(downloads: np.ndarray, hosts: np.ndarray, work: np.ndarray, store: float, cluster: Cluster) -> np.ndarray:
    """(chunks,) when each chunk is committed. Its node is that of its slot; all of it is there when it begins.

    `downloads`: (chunks,) seconds with all threads; `hosts`: (chunks, big hosts) seconds of requests, one at a time.
    """
    free = [(0.0, slot) for slot in range(min(cluster.in_flight, len(downloads)))]
    host_free = np.zeros((cluster.nodes, hosts.shape[1]))
    core_free, cores = 0.0, cluster.nodes * cluster.cores
    needs = hosts / cluster.per_host
    ends = np.empty(len(downloads))
    for chunk, seconds in enumerate(downloads.tolist()):
        begin, slot = free[0]
        queues = host_free[slot % cluster.nodes]
        asked = needs[chunk] > 0
        queues[asked] = np.maximum(queues[asked], begin) + needs[chunk][asked]
        core_free = max(core_free, begin) + work[chunk] / cores
        loaded = max(begin + seconds, float(queues[asked].max(initial=0.0)))
        ends[chunk] = max(loaded, core_free) + store
        heapq.heapreplace(free, (float(ends[chunk]), slot))
    return ends
