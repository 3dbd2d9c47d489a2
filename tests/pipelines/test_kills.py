"""The real command, killed again and again: what it leaves in the end is what an undisturbed run leaves.

SIGKILL falls on the driver once in each phase (and its Ray must go with it) and on workers in the midst of their
tasks (and Ray must start those again). Which moment of a phase it is, and which worker, is drawn with a fixed seed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image, ImageFilter

from curation import ledger
from curation.records import Reason, Stage
from jobs.drill_compare import undated
from jobs.hostile_server import HttpServer
from pipelines.filter_laion import run
from shards.store import LocalStore
from tests.pipelines.conftest import SIDE, World, encoded, rows_of, texture

pytestmark = pytest.mark.slow

CHUNK = 4  # URLs
AT_LEAST = 20  # kills
PER_RUN = 3  # workers
PATIENCE = 600.0  # seconds for one run, on a machine that is busy with something else
TASKS = ("ray::run_unit", "ray::score_batch", "ray::cut_unit", "ray::write_shard", "ray::Progress")  # processes' titles
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # Ray's own, without a part in the work


def blurred(seed: int) -> np.ndarray:
    return np.asarray(Image.fromarray(texture(seed)).filter(ImageFilter.GaussianBlur(3)))


def fill(server: HttpServer) -> list[str]:
    """A list of 28 URLs, of which every chunk has some that don't pass; duplicates lie in other chunks."""
    pictures = {f"{n:02d}.jpg": encoded(texture(n, SIDE + 8 * (n % 3), SIDE + 90 * (n % 2))) for n in range(14)}
    pictures |= {f"{n:02d}.png": encoded(texture(n), "PNG") for n in (14, 15)}
    pictures |= {"blurred.jpg": encoded(blurred(16)), "broken.jpg": encoded(texture(17))[:9000]}
    pictures |= {"small.jpg": encoded(texture(18, 300, 600)), "flat.png": encoded(np.full((600, 600, 3), 200, "u1"))}
    pictures |= {"exact-1.jpg": pictures["01.jpg"], "exact-9.jpg": pictures["09.jpg"]}
    pictures |= {"near-2.jpg": encoded(texture(2, SIDE + 16, SIDE), quality=60)}
    urls = [server.add(f"/{name}", body, "image/jpeg") for name, body in pictures.items()]
    urls += [server.url(path) for path in ("/404/a", "/403/a", "/html/a.jpg")] + ["ftp://a.example/x.jpg", urls[0]]
    random.Random(0).shuffle(urls)
    return urls


ENDINGS = {
    Reason.KEPT: 16,
    Reason.LOW_QUALITY: 1,
    Reason.TRUNCATED: 1,
    Reason.TOO_SMALL: 1,
    Reason.FLAT: 1,
    Reason.DUPLICATE_EXACT: 2,
    Reason.DUPLICATE_NEAR: 1,
    Reason.HTTP_NOT_FOUND: 1,
    Reason.HTTP_FORBIDDEN: 1,
    Reason.NOT_AN_IMAGE: 1,
    Reason.URL_NOT_HTTP: 1,
    Reason.URL_REPEATED: 1,
}
CHUNKS = sum(ENDINGS.values()) // CHUNK


@dataclass
class Events:
    """What a run wrote so far, by looking at its store's folder again and again."""

    folder: Path
    names: list[str] = field(default_factory=list)  # in the order seen, one rewritten as often as it was
    settling: int = 0  # ledger parts rewritten once all were there

    def __post_init__(self) -> None:
        self._seen = self._look()

    def look(self) -> Events:
        now = self._look()
        fresh = sorted(name for name, stamp in now.items() if self._seen.get(name) != stamp)
        parts = [name for name in self._seen if name.startswith("ledger/") and ".tmp-" not in name]
        if len(parts) == CHUNKS:
            self.settling += sum(name in parts for name in fresh)
        self.names += fresh
        self._seen = now
        return self

    def has(self, name: str) -> bool:
        return name in self._seen

    def under(self, prefix: str) -> int:
        return len({name for name in self.names if name.startswith(prefix) and ".tmp-" not in name})

    def _look(self) -> dict[str, tuple[int, int]]:
        return dict(self._stamps(self.folder))

    def _stamps(self, folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
        try:
            for entry in os.scandir(folder):
                if entry.is_dir():
                    yield from self._stamps(Path(entry.path))
                else:
                    state = entry.stat()
                    yield Path(entry.path).relative_to(self.folder).as_posix(), (state.st_mtime_ns, state.st_ino)
        except FileNotFoundError:  # not there yet, or renamed this moment
            return


@dataclass(frozen=True)
class Moment:
    """A driver is killed up to `within` seconds after `has_come`, or at once where a later moment has come as well.

    Each lets its run get further than the one before.
    """

    name: str
    has_come: Callable[[Events], bool]
    within: float


MOMENTS = (
    Moment("claimed", lambda seen: seen.under("recipe.json") > 0, 0.02),
    Moment("planning", lambda seen: seen.under("links/") >= 3, 0.02),
    Moment("planned", lambda seen: seen.has("links/plan.json"), 3.0),  # Ray is starting; 8 s later all may be done
    Moment("first originals", lambda seen: seen.under("images/") >= 1, 0.05),
    Moment("first commits", lambda seen: seen.under("ledger/") >= 2, 0.5),
    Moment("more commits", lambda seen: seen.under("ledger/") >= 1, 0.5),
    Moment("settling", lambda seen: seen.settling > 0, 0.01),
    Moment("cutting", lambda seen: seen.under("patches/") >= 2, 0.1),
    Moment("more cutting", lambda seen: seen.under("patches/") >= 3, 0.3),
    Moment("sharding", lambda seen: seen.under("shards/") >= 1, 0.02),
    Moment("publishing", lambda seen: seen.under("shards/index") > 0, 0.03),  # before, at or after the manifest
)


@dataclass
class Killer:
    """Runs a command and kills it, or its workers."""

    command: list[str]
    store: Path
    log: Path
    workers_a_run: int = PER_RUN
    chance: random.Random = field(default_factory=lambda: random.Random(2))
    drivers: list[str] = field(default_factory=list)  # the moments
    workers: list[str] = field(default_factory=list)  # their tasks
    outlived: set[str] = field(default_factory=set)  # titles of processes that a killed driver left
    running: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Killer:
        return self

    def __exit__(self, *error: object) -> None:
        if self.running is not None and self.running.poll() is None:  # the test has failed
            self._kill(self.running)

    def start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
        with self.log.open("wb") as log:
            self.running = subprocess.Popen(self.command, env=environment, stdout=log, stderr=log)
        return self.running

    def until(self, moment: Moment, later: Sequence[Moment]) -> None:
        """One run, killed in its `moment`. A kill before may have left too little for it to come: then in a later."""
        driver = self.start()
        events = Events(self.store)
        if self._watched(driver, lambda: _any_has_come((moment, *later), events.look())):
            due = time.monotonic() + self.chance.uniform(0, moment.within) * moment.has_come(events)
            self._watched(driver, lambda: time.monotonic() >= due)
        if driver.poll() is None:
            self._kill(driver)
            self.drivers.append(moment.name)
        else:
            assert driver.returncode == 0, self.log.read_text()

    def to_the_end(self) -> None:
        """One run whose workers alone are killed; it must end well."""
        driver = self.start()
        self._watched(driver, lambda: False)
        assert driver.returncode == 0, self.log.read_text()

    def _watched(self, driver: subprocess.Popen[bytes], is_due: Callable[[], bool]) -> bool:
        """Kills a worker now and then until `is_due` (True) or the driver has ended by itself (False)."""
        gives_up = time.monotonic() + PATIENCE
        next_worker, killed = time.monotonic() + self.chance.uniform(0, 8), 0
        while driver.poll() is None:
            assert time.monotonic() < gives_up, f"no end in sight: {self.log.read_text()}"
            if is_due():
                return True
            if killed < self.workers_a_run and time.monotonic() >= next_worker:
                killed += self._kill_a_worker(driver)
                next_worker = time.monotonic() + self.chance.uniform(1, 8)
            time.sleep(0.005)
        return False

    def _kill_a_worker(self, driver: subprocess.Popen[bytes]) -> bool:
        busy: dict[str, list[psutil.Process]] = {}
        for process, name in _titles(driver.pid):
            if name.startswith(TASKS):
                busy.setdefault(name.partition(".")[0], []).append(process)
        if not busy:
            return False
        fewest = min(self.workers.count(task) for task in busy)
        task = self.chance.choice([task for task in sorted(busy) if self.workers.count(task) == fewest])
        self.chance.choice(busy[task]).kill()
        self.workers.append(task)
        return True

    def _kill(self, driver: subprocess.Popen[bytes]) -> None:
        """SIGKILL to the driver alone. Its Ray has to follow by itself; Ray's agents take a minute longer."""
        driver.send_signal(signal.SIGSTOP)  # looking at its family takes a while, in which it would get on
        family = [process for process, _ in _titles(driver.pid)]
        driver.kill()
        driver.wait()
        _, left = psutil.wait_procs(family, timeout=30)
        self.outlived |= {name for _, name in _titled(left)}  # as of now: one just started had none yet
        for process in left:
            process.kill()


def _any_has_come(moments: Sequence[Moment], events: Events) -> bool:
    return any(moment.has_come(events) for moment in moments)


def _titles(driver: int) -> list[tuple[psutil.Process, str]]:
    try:
        return _titled(psutil.Process(driver).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _titled(processes: Sequence[psutil.Process]) -> list[tuple[psutil.Process, str]]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # ended while it was looked at
            found += [(process, line[0]) for line in [process.cmdline()] if line]
    return found


def command(world: World, store: Path) -> list[str]:
    flags = {"--out": store, "--weights": world.prior, "--metrics": "niqe,brisque", "--min-res": SIDE}
    flags |= {"--chunk-size": CHUNK, "--source": "test", "--max-shard-mb": 1, "--read-timeout": 20}
    words = [str(word) for pair in flags.items() for word in pair]
    bounds = ["--threshold", "niqe=30", "--threshold", "brisque=200"]
    lists = ["--urls", *map(str, world.lists())]
    return [sys.executable, "-m", "jobs.filter_laion", *lists, *words, *bounds, "--allow-private-hosts"]


@pytest.mark.endurance
def test_killed_at_twenty_moments_the_end_is_that_of_an_undisturbed_run(world: World) -> None:
    world.urls += fill(world.server)
    calm, disturbed = LocalStore(world.folder / "calm"), LocalStore(world.folder / "disturbed")
    with Killer(command(world, calm.folder), calm.folder, world.folder / "calm.log", workers_a_run=0) as undisturbed:
        undisturbed.to_the_end()
    assert Counter(row.reason for row in rows_of(calm)) == ENDINGS
    kills = _killed_to_the_end(world, disturbed, MOMENTS, enough=1000)
    assert_equal(calm, disturbed)
    for number in range(3):  # a quick machine gives fewer chances in one go
        if kills < AT_LEAST:
            again = LocalStore(world.folder / f"again-{number}")
            kills += _killed_to_the_end(world, again, MOMENTS, enough=AT_LEAST - kills)
            assert_equal(calm, again)
    assert kills >= AT_LEAST


def _killed_to_the_end(world: World, store: LocalStore, moments: tuple[Moment, ...], enough: int) -> int:
    """Runs into `store`, killed in one moment after the other (no more once it is `enough`), then to the end."""
    with Killer(command(world, store.folder), store.folder, world.folder / f"{store.folder.name}.log") as killer:
        for number, moment in enumerate(moments, 1):
            if len(killer.drivers) + len(killer.workers) < enough:
                killer.until(moment, moments[number:])
        killer.to_the_end()
    print(f"killed {killer.drivers}, {Counter(killer.workers)}; a driver left {killer.outlived}")
    assert killer.drivers
    assert killer.outlived <= set(AGENTS)
    return len(killer.drivers) + len(killer.workers)


def assert_equal(calm: LocalStore, disturbed: LocalStore) -> None:
    """Byte for byte, but for what a clock and a count of tries say: in the ledger, and in the report about it."""
    names = list(calm.list(""))
    assert list(disturbed.list("")) == names
    folders = {name.partition("/")[0] for name in names}
    assert folders == {"recipe.json", "weights", "links", "images", "rejects", "ledger", "shards", "report"}
    exact = [name for name in names if not name.startswith(("ledger/", "report/"))]
    assert [name for name in exact if disturbed.read(name) != calm.read(name)] == []
    assert undated(rows_of(disturbed)) == undated(rows_of(calm))
    for unit in ledger.units(calm):
        assert ledger.about(disturbed, unit) == ledger.about(calm, unit)


TOO_MUCH = 2_700_000_000  # bytes of one process: scoring the small pictures takes 1.2 GB, the large one 4 GB


@dataclass
class OutOfMemory:
    """What the kernel does on a machine with little memory: SIGKILL to whoever scores and has taken too much."""

    killed: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> OutOfMemory:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self.over.wait(0.02):
            for process, name in _titles(os.getpid()):
                if name.startswith("ray::score_batch") and _memory(process) > TOO_MUCH:
                    process.kill()
                    process.wait()
                    self.killed += 1


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


@pytest.mark.usefixtures("local_ray")
def test_a_picture_that_kills_whoever_scores_it_is_refused_without_its_neighbours(world: World) -> None:
    first, second = (world.serve(f"{seed}.jpg", encoded(texture(seed))) for seed in (1, 2))
    deadly = world.serve("deadly.jpg", encoded(texture(3, 2600, 2600), quality=50))
    last = world.serve("4.jpg", encoded(texture(4)))
    job = world.job(recipe=world.recipe(engine="pyiqa"))  # which takes 490 bytes a pixel
    with OutOfMemory() as kernel:
        run(job, lambda rows, so_far: None)
    ended = {row.link.url: row for row in rows_of(job.store)}
    assert [ended[url].reason for url in (first, second, last)] == [Reason.KEPT] * 3
    assert (ended[deadly].reason, ended[deadly].stage) == (Reason.UNSCORABLE, Stage.SCORE)
    assert "its worker died of it" in ended[deadly].detail
    assert kernel.killed >= 4  # tried again with its neighbours, then by itself
