"""The Ray cluster a job runs on: the one that is there, or a local one for the length of the job."""

from __future__ import annotations

import functools
import logging
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import ray
from ray._raylet import IMPLICIT_RESOURCE_PREFIX  # type: ignore[attr-defined]  # compiled
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_HEAD: Final = "gcs_server"
_GRAINS: Final = 10_000  # of one of a resource: Ray counts no finer
_ANSWERS_WITHIN: Final = 5.0  # seconds
OOM_RETRIES: Final = 3  # of a task that was killed for memory; then its pictures are tried one by one


@contextmanager
def connected(env: Mapping[str, str] | None = None) -> Iterator[bool]:
    """Connects to the cluster of `RAY_ADDRESS` or of this machine, or starts a local one; disconnects after.

    Gives whether it was started here, and so will never have more than this machine. `env`: variables that this job's
    workers have and no others.

    Inside another Ray program (a notebook, a test) its connection is used and left open. Raises ValueError where
    there is no Ray to be had.
    """
    if ray.is_initialized():
        yield False
        return
    # Ray's own default is to try for ever what its memory monitor has killed; of a cluster its nodes decide.
    os.environ.setdefault("RAY_task_oom_retries", str(OOM_RETRIES))
    try:
        # A local dashboard is ten processes and 1 GB that nobody asked for.
        ray.init(
            address(),
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env={"env_vars": dict(env)} if env else None,
        )
    except Exception as error:
        if not isinstance(error, (ConnectionError, RuntimeError, ValueError)) and type(error) is not Exception:
            raise  # Ray has no kind of its own for a node that a busy machine doesn't start within 30 s
        where = os.environ.get("RAY_ADDRESS", "this machine")
        raise ValueError(
            f"no Ray at {where} ({_first_line(error)}): see to it, or set RAY_ADDRESS=local for one of this job's own"
        ) from error
    try:
        yield _is_own()
    finally:
        ray.shutdown()


def address() -> str | None:
    """What to give `ray.init`: None, by which it finds a cluster or starts one; or "local".

    `ray start` notes its cluster in a file. Where that died without `ray stop` the file stays behind, and Ray would try
    for minutes to reach what is dead.
    """
    if os.environ.get("RAY_ADDRESS"):
        return None
    noted = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray", "ray_current_cluster")
    try:
        host, _, port = noted.read_text().strip().rpartition(":")
        socket.create_connection((host, int(port)), timeout=_ANSWERS_WITHIN).close()
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return "local"
    return None


def _is_own() -> bool:
    """Whether the Ray we are connected to was started by this process: its head's server is a child of it then."""
    return any(_HEAD in child.name() for child in psutil.Process().children())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def cores() -> int:
    """CPU cores of the whole cluster now."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def workers() -> list[dict[str, float]]:
    """What each node has that takes work now: a head without cores takes none.

    Asked of the head once a second: each batch of pictures wants to know, and there may be thousands a second.
    """
    return _workers(int(time.monotonic()))


@functools.lru_cache(maxsize=1)
def _workers(_second: int) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def gpu_share() -> float:
    """The part of a GPU that one core may have on a node with GPUs: 0 where no node has one."""
    return min((one["GPU"] / one["CPU"] for one in workers() if one.get("GPU")), default=0.0)


def memory(need: float, *, on_gpu: bool = False) -> int:
    """The memory to ask for where a task needs `need` bytes: no more than a node has, or it would wait for ever.

    Than a node has now that the task may come to: the largest may have gone.
    """
    nodes = [one for one in workers() if one.get("GPU") or not on_gpu]
    return int(min(need, 0.9 * max((one.get("memory", 0.0) for one in nodes), default=0.0)))


def at_most(count: int, name: str) -> dict[str, Any]:
    """The options of a task of which no node is to have more than `count` at once, whatever else it asks for.

    By a resource that every node has one of without being told: Ray Serve bounds its replicas a node in this way.
    """
    share = math.floor(_GRAINS / count) / _GRAINS
    return {"resources": {f"{IMPLICIT_RESOURCE_PREFIX}{name}": share}}


def here() -> dict[str, Any]:
    """The options of an actor that is to live on this very node, and so as long as who asks it."""
    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def each(task: Any, calls: Sequence[tuple[Any, ...]], watch: Callable[[int, int], None]) -> Iterator[Any]:
    """The results of a Ray task called with each of `calls`, in their order; a few more in flight than cores.

    `watch(calls in all, calls done)` follows. The first call that raises ends it; what it raised is raised here.
    """
    flying: list[Any] = []
    done, asked = 0, 0
    while done < len(calls):
        while asked < len(calls) and len(flying) < 2 * cores():
            flying.append(task.remote(*calls[asked]))
            asked += 1
        yield ray.get(flying.pop(0))
        done += 1
        watch(len(calls), done)


def spread(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], most: int | None = None) -> Iterator[Any]:
    """The results of a plain function called with each of `calls` on the cluster, in their order.

    `calls` may be without end: a few more are taken than there are cores, or `most`. What a call raises is raised here.
    """
    task = ray.remote(num_cpus=1, max_retries=20)(function)
    flying: deque[Any] = deque()
    for call in calls:
        flying.append(task.remote(*call))
        if len(flying) >= (most or 2 * cores()):
            yield ray.get(flying.popleft())
    while flying:
        yield ray.get(flying.popleft())
