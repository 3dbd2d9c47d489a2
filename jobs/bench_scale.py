"""How the filter gains by nodes: the same kinds of picture on 1, 2, 4 Ray nodes of one core each, all on this machine.

What waits (pictures that come slowly and are refused as too small) gains by each node. What computes (pictures that are
scored) gains until this machine's cores are all busy, so that nodes beyond those cost and bring nothing.

A list grows with the nodes, and its pace is that of its middle: workers start by importing for many seconds, which on
machines of their own they would do side by side, and in the end some nodes have no more work.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from ray.cluster_utils import Cluster

from jobs import terminal
from jobs.bench_server import LARGE, PictureServer, textured, tiny
from jobs.terminal import ratio, shown

#: Seconds until a picture comes, where waiting is measured.
SLOW: Final = 0.5
CHUNK: Final = 100  # rows a unit: many for each node
MIDDLE: Final = (0.6, 0.95)  # of a list's rows
#: Idle workers that a node keeps. Ray's own rule is one a core: with one core a node would start units and scores anew
#: again and again, where one of sixteen keeps them.
WARM: Final = 4
PICTURES: Final = 32  # that are drawn; the others have the same pixels
THREADS: Final = 8  # downloads at once, per unit in work
_STORE: Final = 100_000_000  # bytes of a node's object store

#: Runs the job on the cluster at an address, on a list of so many rows from a server.
Job = Callable[[str, PictureServer, int], object]


def slow(number: int) -> bytes:
    """A small picture, late."""
    time.sleep(SLOW)
    return tiny(number * 100 + 1)


def scored(number: int) -> bytes:
    """A file of its own, of a picture that is large enough to be scored."""
    return _drawn(number % PICTURES) + number.to_bytes(8, "big")


@functools.cache
def _drawn(number: int) -> bytes:
    return textured(number, 4 * LARGE)


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """So many Ray nodes of one core each on this machine; gives their address."""
    node = {"num_cpus": 1, "object_store_memory": _STORE, "include_dashboard": False}
    os.environ.setdefault("RAY_num_workers_soft_limit", str(WARM))
    made = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(nodes - 1):
            made.add_node(num_cpus=1, object_store_memory=_STORE)
        made.wait_for_nodes()
        yield made.address
    finally:
        made.shutdown()


def table(nodes: Sequence[int], rows: int, job: Job) -> str:
    """Rows a second by nodes, in the middle of lists of `rows` for each unit in work, and times the first column's.

    As many units are in work as there are cores, and one: so what waits can be so many times as fast and no more.
    """
    units = [1 + count for count in nodes]
    lines = [("units in work, times", *(ratio(count, units[0]) for count in units))]
    for name, body in {"that wait": slow, "that are scored": scored}.items():
        paces = []
        for count, in_work in zip(nodes, units, strict=True):
            with cluster(count) as address, PictureServer(body) as server:
                job(address, server, rows * in_work)
                paces.append(server.pace(*MIDDLE))
        lines.append((name, *map(shown, paces)))
        lines.append(("  times", *(ratio(pace, paces[0]) for pace in paces)))
    return terminal.table(("rows/s", *(f"{count} node{'s' * (count > 1)}" for count in nodes)), lines)
