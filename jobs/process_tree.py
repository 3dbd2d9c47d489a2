"""Memory and CPU time of a process and all that it started, watched from outside.

Memory is PSS: a page that n processes share counts as 1/n for each, so the sum over a tree counts each page once.
A sum of RSS would count torch's libraries and Ray's object store anew for every worker. Linux only.

One look at a Ray job of 15 processes takes about 30 ms of CPU; the watcher rests five times as long as it looked,
at least `seconds`, so it never takes more than a sixth of a core.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

import psutil

_RESTS: Final = 5.0  # times as long as a look took
_BLOCK: Final = 512  # bytes of st_blocks
_GONE: Final = (psutil.Error, FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One process at one moment. `role`: "driver" for the first, "worker" for Ray's, else "other"."""

    pid: int
    role: str
    pss: int  # bytes
    heap: int  # bytes of PSS that no file is behind
    cpu: float  # seconds, user and system
    object_store: int  # bytes that Ray's object store takes, where this process holds it


@dataclass(kw_only=True, slots=True)
class Peaks:
    """The worst of what was seen, in bytes; grows while a `Watcher` runs."""

    tree: int = 0
    role: dict[str, int] = field(default_factory=dict)  # the largest single process of each role
    object_store: int = 0
    workers: int = 0  # most at once
    driver_heap: int = 0  # when last seen: where it grows with the input, this shows
    cpu: dict[int, float] = field(default_factory=dict)  # seconds per process

    def add(self, seen: list[Seen]) -> None:
        """Takes one look at the whole tree into account."""
        self.tree = max(self.tree, sum(one.pss for one in seen))
        self.workers = max(self.workers, sum(one.role == "worker" for one in seen))
        for one in seen:
            self.role[one.role] = max(self.role.get(one.role, 0), one.pss)
            self.object_store = max(self.object_store, one.object_store)
            self.cpu[one.pid] = one.cpu
            if one.role == "driver" and one.heap:  # none: it has ended, and waits to be waited for
                self.driver_heap = one.heap

    @property
    def cpu_seconds(self) -> float:
        """Of all processes, up to when each was last seen."""
        return sum(self.cpu.values())


class Watcher:
    """`with Watcher(pid) as peaks:` looks at the tree under `pid` until the context ends."""

    def __init__(self, pid: int, seconds: float = 0.2) -> None:
        self._pid = pid
        self._seconds = seconds
        self._peaks = Peaks()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self._peaks

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        pause = 0.0
        while not self._over.wait(pause):
            started = time.monotonic()
            self._peaks.add(list(look(self._pid)))
            pause = max(self._seconds, _RESTS * (time.monotonic() - started))


def check_platform() -> None:
    """Raises ValueError where memory can't be measured."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise ValueError("there is no /proc/PID/smaps_rollup here: run the bench on Linux 4.14 or later")


def look(pid: int) -> Iterator[Seen]:
    """The process and its descendants, now; those that end meanwhile are left out."""
    with contextlib.suppress(*_GONE):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(*_GONE):
                yield _seen(process, process.pid == pid)


def _seen(process: psutil.Process, is_root: bool) -> Seen:
    name = " ".join(process.cmdline()[:1])
    times = process.cpu_times()
    pss, heap = _memory(process.pid)
    return Seen(
        pid=process.pid,
        role="driver" if is_root else "worker" if name.startswith("ray::") else "other",
        pss=pss,
        heap=heap,
        cpu=times.user + times.system,
        object_store=_object_store(process.pid) if name.endswith("raylet") else 0,
    )


def _memory(pid: int) -> tuple[int, int]:
    """Bytes: PSS, and its anonymous part. (0, 0) for a process that has ended."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    return 1024 * kilobytes.get("Pss", 0), 1024 * kilobytes.get("Pss_Anon", 0)


def _object_store(raylet: int) -> int:
    """Bytes of the file behind Ray's shared memory: it is unlinked, and sparse where nothing was put yet."""
    sizes = [0]
    for link in Path(f"/proc/{raylet}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if "plasma" in str(link.readlink()):
                sizes.append(link.stat().st_blocks * _BLOCK)
    return max(sizes)
