"""Several Ray nodes on this machine that tests take away and add, and a store that takes its own node away."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import ray
from ray.cluster_utils import Cluster

from shards.store import LocalStore, Written

PATIENCE: Final = 900.0  # seconds until something comes, on a machine that is busy with something else
STORE_BYTES: Final = 80 << 20  # of a node's object store: about the least that Ray takes


def until(has_come: Callable[[], Any], what: str) -> Any:
    """What it gives once that is true. A test fails that waits too long."""
    gives_up = time.monotonic() + PATIENCE
    while not (found := has_come()):
        assert time.monotonic() < gives_up, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def _cluster() -> Cluster:
    """One that sees within seconds that a node is gone, and kills nothing where others have taken the memory."""
    config = {"health_check_period_ms": 500, "memory_monitor_refresh_ms": 0}
    sizes = {"num_cpus": 0, "object_store_memory": STORE_BYTES}
    return Cluster(initialize_head=True, head_node_args={**sizes, "include_dashboard": False, "_system_config": config})


@dataclass
class Nodes:
    """A head without cores, where what asks for none may run, and nodes of one core each."""

    cluster: Cluster = field(default_factory=_cluster)
    replaced: int = 0

    @property
    def workers(self) -> list[Any]:
        """The nodes with a core."""
        return list(self.cluster.worker_nodes)

    def have(self, count: int) -> None:
        """At least so many nodes of one core, and all know of those that are gone."""
        self.add(count - len(self.workers))
        self.cluster.wait_for_nodes(timeout=PATIENCE)

    def add(self, count: int) -> None:
        """So many more, started side by side."""
        for _ in range(count):
            self.cluster.add_node(wait=False, num_cpus=1, object_store_memory=STORE_BYTES)

    def running(self, task: str) -> Any:
        """A node of one core that has such a task, None where there is none."""
        return next((node for node in self.workers if _has(node, task)), None)

    def head_runs(self, task: str) -> bool:
        """Whether the head has such a task."""
        return _has(self.cluster.head_node, task)

    def lose(self, node: Any) -> None:
        """SIGKILL to its raylet, its object store with that, and to all its workers; as where its power fails."""
        _kill_tree(_raylet(node))
        self.cluster.remove_node(node, allow_graceful=False)

    def replace_lost(self) -> None:
        """A new node for each whose raylet is gone."""
        for node in self.workers:
            if node.all_processes["raylet"][0].process.poll() is not None:
                self.cluster.remove_node(node, allow_graceful=False)
                self.add(1)
                self.replaced += 1

    def lose_all(self) -> None:
        """The head, with what all nodes know of each other, and every node."""
        for node in [self.cluster.head_node, *self.workers]:
            for one in [one for kind in node.all_processes.values() for one in kind]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    _kill_tree(psutil.Process(one.process.pid))
        self.cluster.shutdown()

    def begin_anew(self) -> None:
        """Another cluster, in place of one that was lost."""
        self.cluster = _cluster()


def _raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def _has(node: Any, task: str) -> bool:
    return any(name.startswith(f"ray::{task}") for name in _titles(node))


def _titles(node: Any) -> Iterator[str]:
    try:
        children = _raylet(node).children(recursive=True)
    except (psutil.NoSuchProcess, KeyError):
        return
    for process in children:
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):  # ended while it was looked at
            yield process.cmdline()[0]


def _kill_tree(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        for one in sorted(family, key=lambda one: one.pid == os.getpid()):  # oneself last
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Just before, or just after, the first file whose name begins so is written by a node of one core.

    `holds`: its writer then waits, to be lost with the whole cluster; else its node is lost at once.
    """

    name: str
    after: bool
    holds: bool = False


@dataclass(frozen=True, slots=True)
class LosingStore(LocalStore):
    """A local store that kills the node that writes to it, or holds it up, once in each of `moments`."""

    moments: tuple[Moment, ...]
    notes: Path  # a folder: a file for each moment that has come

    def write(self, name: str, data: bytes | Path) -> Written:
        self._meet(name, after=False)
        written = LocalStore.write(self, name, data)
        self._meet(name, after=True)
        return written

    @property
    def come(self) -> int:
        """How many of the moments have come."""
        return sum(1 for _ in self.notes.iterdir())

    def _meet(self, name: str, *, after: bool) -> None:
        for number, moment in enumerate(self.moments):
            if moment.after is after and name.startswith(moment.name) and _on_a_node_of_one_core():
                with contextlib.suppress(FileExistsError):
                    (self.notes / str(number)).touch(exist_ok=False)
                    if moment.holds:
                        time.sleep(PATIENCE)
                    _kill_tree(psutil.Process(os.getppid()))


def _on_a_node_of_one_core() -> bool:
    """Not the driver, and not the head."""
    if not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return False
    here = ray.get_runtime_context().get_node_id()
    return any(node["NodeID"] == here and node["Resources"].get("CPU") for node in ray.nodes())


def ignored(*_: object) -> None:
    """What nobody watches."""


_RUN: Final = "import pickle, sys; [call() for call in pickle.load(open(sys.argv[1], 'rb'))]"


@contextlib.contextmanager
def driver(nodes: Nodes, folder: Path, *calls: Callable[[], object]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that makes these calls in turn, on that cluster; killed where the test leaves it behind."""
    folder.mkdir(exist_ok=True)
    (folder / "calls").write_bytes(pickle.dumps(calls))
    environment = {
        **os.environ,
        "RAY_ADDRESS": nodes.cluster.address,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "3",  # where the head is gone; Ray's own: 60
    }
    with (folder / "log").open("ab") as log:
        words = [sys.executable, "-c", _RUN, folder / "calls"]
        running = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
            running.wait()


def tended(nodes: Nodes, running: Sequence[subprocess.Popen[bytes]], folder: Path) -> None:
    """Replaces lost nodes until all these drivers have ended; they must end well."""

    def ended() -> bool:
        nodes.replace_lost()
        return all(one.poll() is not None for one in running)

    until(ended, f"the end of a run: see {folder}")
    logs = "".join(path.read_text()[-4000:] for path in folder.glob("*/log"))
    assert [one.returncode for one in running] == [0] * len(running), logs
