"""Who kills a worker of the drill in the midst of its task: an actor on each node of the cluster.

It knows the drill's own workers, also on a node that works for others, by a variable in their environment.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

MARK: Final = "MILLION_IRD_DRILL"
_LOOK: Final = 0.003  # seconds between two looks: a task of the toy's takes a tenth
_LATE: Final = 2.0  # seconds for what a hunter has to say once the work is done


@ray.remote(num_cpus=0, max_restarts=0)
class Hunter:
    """Kills one worker of this node that runs one of these tasks."""

    def ready(self) -> None:
        """Answers once the process is up."""

    def hunt(self, tasks: Sequence[str], mark: str, seconds: float) -> str:
        """Waits for one up to `seconds`; gives its task and process, or nothing."""
        titles = tuple(f"ray::{task}" for task in tasks)
        raylet = psutil.Process(os.getppid())
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for process in raylet.children():
                with contextlib.suppress(psutil.Error):
                    title = process.cmdline()[:1]
                    if title and title[0].startswith(titles) and process.environ().get(MARK) == mark:
                        process.kill()
                        return f"{title[0].removeprefix('ray::').partition('(')[0]}, process {process.pid}"
            time.sleep(_LOOK)
        return ""


@contextmanager
def hunted(tasks: Sequence[str], mark: str, seconds: float = 120.0) -> Iterator[list[str]]:
    """While it lasts one worker of each node is killed in one of `tasks`; the list has which, once it is over."""
    killed: list[str] = []
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    hunters: list[Any] = [
        Hunter.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()  # type: ignore[attr-defined]
        for node in nodes
    ]
    ray.get([one.ready.remote() for one in hunters])
    said = [one.hunt.remote(tasks, mark, seconds) for one in hunters]
    try:
        yield killed
        done, _ = ray.wait(said, num_returns=len(said), timeout=_LATE)
        killed += [one for one in ray.get(done) if one]
    finally:
        for one in hunters:
            ray.kill(one)
