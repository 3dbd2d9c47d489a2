"""`ray job submit --working-dir .`: the filter on a running cluster that lets nobody in without its token.

The cluster is a real head in a home folder, a temp folder and ports of its own, so that no other Ray on this machine
sees it. What is submitted is a copy of the project beside what a clone also holds: 6 GB of `.venv`, `.git`, `demo-out`
(files with holes, which cost the disk nothing).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.records import Reason
from jobs.hostile_server import HttpServer
from shards.manifest import read_manifest
from shards.store import Store, open_store
from tests.pipelines.conftest import SIDE, encoded, prior, rows_of, texture

__all__ = ["prior"]  # the fixture

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PARTS = ("curation", "shards", "dynet", "pipelines", "jobs", ".gitignore", "setup.cfg", "pyproject.toml", "README.md")
NOT_SENT = (".venv", ".git", "demo-out")
HUGE = 2 << 30  # bytes of one file in each of NOT_SENT; Ray refuses to upload more than 100 MiB in all
START_SECONDS = 60
PR_SET_PDEATHSIG = 1  # linux/prctl.h
JOB_SECONDS = 240


@dataclass(frozen=True)
class Head:
    """A running cluster of one machine, and a clone of the project to submit from."""

    temp: Path
    clone: Path
    dashboard: str
    env: Mapping[str, str]  # of one who has the token

    def ray(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """One `ray` command in the clone, as a user gives it."""
        return _ray(words, self.clone, env or self.env)

    def logs(self) -> Path:
        return self.temp / "session_latest" / "logs"


def _ray(words: Sequence[str], folder: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "ray"), *words], cwd=folder, env=env, capture_output=True, text=True, timeout=JOB_SECONDS
    )


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="ird-"))  # short: Ray's sockets lie below it, and their paths are limited
    try:
        with _running(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _running:
    """`ray start --head --block` in `folder`, and its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Head:
        home = self._folder / "home"
        home.mkdir()
        env = _environment(home)
        _ray(["get-auth-token", "--generate"], home, env).check_returncode()
        ports = _free_ports(6)
        self._process = _started(self._folder / "ray", ports, env)
        head = Head(
            temp=self._folder / "ray",
            clone=_cloned(self._folder / "clone"),
            dashboard=f"http://127.0.0.1:{ports[0]}",
            env={**env, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports[0]}"},
        )
        try:
            _wait_for(head.dashboard, self._process)
        except BaseException:
            self.__exit__()
            raise
        return head

    def __exit__(self, *error: object) -> None:
        """SIGTERM makes `ray start --block` end what it started, and nothing else."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _environment(home: Path) -> dict[str, str]:
    """A user's: an activated virtual environment, token authentication, and no Ray settings of this machine's."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**mine, "HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_AUTH_MODE": "token"}


def _started(temp: Path, ports: Sequence[int], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    names = (
        "dashboard-port",
        "port",
        "ray-client-server-port",
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "metrics-export-port",
    )
    own = [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats", *own]
    with (temp.parent / "head.log").open("wb") as log:
        return subprocess.Popen(
            [*command, f"--temp-dir={temp}", f"--object-store-memory={200 << 20}"],
            stdout=log,
            stderr=log,
            env=env,
            cwd=temp.parent,
            preexec_fn=_end_with_parent,
        )


def _end_with_parent() -> None:
    """On Linux, SIGTERM for the head when the tests die, be it of SIGKILL: no cluster is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_ports(wanted: int) -> list[int]:
    probes = [socket.socket() for _ in range(wanted)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _cloned(clone: Path) -> Path:
    """The project with what a clone holds beside it."""
    clone.mkdir()
    for name in PARTS:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, clone / name)
    for name in NOT_SENT:
        (clone / name).mkdir()
        with (clone / name / "huge.bin").open("wb") as huge:
            huge.truncate(HUGE)
    return clone


def _wait_for(dashboard: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while _answer(f"{dashboard}/api/version") != 401:
        assert process.poll() is None, "the head ended"
        assert time.monotonic() < deadline, "the head's dashboard does not answer"
        time.sleep(0.2)


def _answer(url: str) -> int:
    """The status; 0 where nobody answers. Proxies of the environment are none of its business."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.fixture(scope="module")
def submitted(
    head: Head, prior: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Store]:
    """One submission of three good links and a dead one: how it ended, and its store."""
    folder = tmp_path_factory.mktemp("submitted")
    words = ["--metrics", "niqe,brisque", "--threshold", "niqe=30", "--threshold", "brisque=200"]
    words += ["--min-res", str(SIDE), "--weights", str(prior), "--allow-private-hosts"]
    with HttpServer() as server:
        urls = [server.add(f"/{seed}.jpg", encoded(texture(seed)), "image/jpeg") for seed in range(3)]
        pq.write_table(pa.table({"URL": [*urls, server.url("/404/gone.jpg")]}), folder / "list.parquet")
        ended = head.ray(
            *("job", "submit", "--submission-id", "filter", "--address", head.dashboard, "--working-dir", ".", "--"),
            *("python", "jobs/filter_laion.py", "--urls", str(folder / "list.parquet"), "--out", str(folder / "set")),
            *words,
        )
    return ended, open_store(str(folder / "set"))


def test_a_submitted_job_leaves_a_whole_store(
    submitted: tuple[subprocess.CompletedProcess[str], Store],
) -> None:
    ended, store = submitted
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [row.reason for row in rows_of(store)] == [Reason.KEPT] * 3 + [Reason.HTTP_NOT_FOUND]
    made = read_manifest(store)
    assert made is not None
    assert made.samples == 3
    assert all(store.exists(f"shards/{one.name}") for one in made.shards)


def test_its_log_is_plain_lines(head: Head, submitted: tuple[subprocess.CompletedProcess[str], Store]) -> None:
    log = (head.logs() / "job-driver-filter.log").read_bytes()
    assert b"\r" not in log
    assert b"\x1b" not in log
    assert b"filter: 4/4 urls, 3 kept\n" in log
    assert "\nshards: " in head.ray("job", "logs", "--address", head.dashboard, "--follow", "filter").stdout


def test_the_environment_git_and_pictures_made_here_are_not_uploaded(
    head: Head, submitted: tuple[subprocess.CompletedProcess[str], Store]
) -> None:
    [sent] = (head.temp / "session_latest" / "runtime_resources" / "working_dir_files").glob("_ray_pkg_*/")
    assert {path.name for path in sent.iterdir()}.isdisjoint(NOT_SENT)
    assert (sent / "jobs" / "filter_laion.py").is_file()


def test_without_the_token_nothing_is_taken(head: Head, tmp_path: Path) -> None:
    """The file in the home folder is not enough: with an address given, Ray sends it in RAY_AUTH_MODE=token alone."""
    stranger = {name: value for name, value in head.env.items() if not name.startswith("RAY_AUTH")}
    wrong = {**head.env, "RAY_AUTH_TOKEN": "0" * 64}
    for env, said in ((stranger, "Missing authentication token"), (wrong, "Invalid authentication token")):
        out = tmp_path / "taken"
        refused = head.ray("job", "submit", "--working-dir", ".", "--", "touch", str(out), env=env)
        assert refused.returncode != 0
        assert said in refused.stdout + refused.stderr
        assert not out.exists()
