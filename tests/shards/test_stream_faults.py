"""Streaming from a real S3 server, a proxy between that fails on purpose: nothing lost or doubled, or a clear end."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobs.s3_proxy import S3Proxy, What
from shards.manifest import FOLDER, read_manifest
from shards.store import LocalStore, S3Store
from shards.stream import Batch, Cache, Plan, Stream, StreamError
from tests.conftest import S3Server
from tests.sets import write_set

pytestmark = pytest.mark.slow  # a minute of waiting for retries
PROJECT = Path(__file__).resolve().parents[2]
PLAN = Plan(batch=12, window=50, crop=32, seed=2)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    store = LocalStore(tmp_path_factory.mktemp("set"))
    write_set(store, [30, 40, 25, 35], size=64)
    return store


@pytest.fixture
def remote(local: LocalStore, s3_server: S3Server, request: pytest.FixtureRequest) -> S3Store:
    """The same set in a bucket of its own."""
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:20]
    store = S3Store(f"{s3_server.bucket(name)}/set", s3_server.endpoint_url)
    for one in local.list(""):
        store.write(one, local.read(one))
    return store


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[S3Proxy]:
    with S3Proxy(s3_server.endpoint_url) as running:
        yield running


def digest(batch: Batch) -> str:
    return hashlib.sha256(repr(batch.samples).encode() + batch.pixels.numpy().tobytes()).hexdigest()


@pytest.fixture(scope="module")
def expected(local: LocalStore) -> list[str]:
    stream = Stream(local.root, PLAN)
    return [digest(batch) for _ in range(2) for batch in stream]


def streamed(root: str, proxy: S3Proxy, cache: Cache, workers: int = 0) -> tuple[list[str], Stream]:
    stream = Stream(root, PLAN, workers=workers, cache=cache, endpoint_url=proxy.endpoint_url)
    with contextlib.closing(stream):
        return [digest(batch) for _ in range(2) for batch in stream], stream


FAULTS = [
    pytest.param(What.SLOW_DOWN, 6, 0, id="503 burst"),
    pytest.param(What.RESET_RESPONSE, 3, 700, id="reset in mid-body"),
    pytest.param(What.SHORT, 3, 700, id="body shorter than declared"),
    pytest.param(What.TRUNCATE, 2, 700, id="truncated"),
    pytest.param(What.FLIP_RESPONSE, 2, 900, id="wrong bytes"),
    pytest.param(What.DRIP, 3, 20_000, id="slow"),
    pytest.param(What.EXPIRED, 1, 0, id="expired credentials"),
]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(("what", "times", "at"), FAULTS)
def test_what_passes_costs_nothing_but_time(
    remote: S3Store,
    proxy: S3Proxy,
    expected: list[str],
    tmp_path: Path,
    what: What,
    times: int,
    at: int,
    cached: bool,
    workers: int,
) -> None:
    proxy.fail(what, times=times, match=r"GET .*train-", at=at)
    cache = Cache(folder=tmp_path / "cache", limit=10**9 if cached else 0)
    found, stream = streamed(remote.root, proxy, cache, workers)
    assert found == expected
    assert not stream.skipped
    assert any(fault.times < times for fault in proxy.faults)


def test_wrong_bytes_that_stay_are_skipped_and_named(
    remote: S3Store, proxy: S3Proxy, expected: list[str], tmp_path: Path
) -> None:
    name = FOLDER + read_manifest(remote).shards[1].name
    body = bytearray(remote.read(name))
    body[5000] ^= 255
    remote.write(name, bytes(body))
    found, stream = streamed(remote.root, proxy, Cache(folder=tmp_path / "cache"))
    assert len(found) == len(expected)
    [cause] = stream.skipped
    assert cause == "train-000001.tar has other bytes there than the index says"
    assert stream.skipped[cause] == 2  # once an epoch
    assert sum(one != other for one, other in zip(found, expected, strict=True)) <= 2


def test_a_truncated_object_loses_its_end_and_no_more(remote: S3Store, proxy: S3Proxy, tmp_path: Path) -> None:
    name = FOLDER + read_manifest(remote).shards[0].name
    body = remote.read(name)
    remote.write(name, body[: len(body) // 2])
    _, stream = streamed(remote.root, proxy, Cache(folder=tmp_path / "cache"))
    assert 20 < sum(stream.skipped.values()) < 40  # about half of 30, twice
    assert all("train-000000.tar" in cause for cause in stream.skipped)


@pytest.mark.parametrize(
    ("what", "cause"), [(What.EXPIRED, "expired"), (What.NO_BUCKET, "bucket"), (What.SLOW_DOWN, "SlowDown")]
)
def test_what_stays_ends_the_run_with_the_object_and_the_cause(
    remote: S3Store,
    proxy: S3Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: What,
    cause: str,
) -> None:
    monkeypatch.setattr("shards.s3.FIRST_WAIT", 0.01)
    monkeypatch.setattr("shards.s3.TRIES", 2)
    monkeypatch.setattr("shards.s3.REQUESTS", 1)
    stream = Stream(remote.root, PLAN, cache=Cache(folder=tmp_path / "cache", limit=0), endpoint_url=proxy.endpoint_url)
    batches = iter(stream)
    next(batches)
    state = stream.state_dict()
    proxy.fail(what, times=-1)
    with pytest.raises(StreamError, match=rf"(?is)(train-0000|manifest\.json).*{cause}|{cause}.*(train-0000|manifest)"):
        list(batches)
    proxy.heal()
    again = Stream(remote.root, PLAN, endpoint_url=proxy.endpoint_url, cache=Cache(folder=tmp_path / "c", limit=0))
    again.load_state_dict(state)
    assert len(list(again)) == 130 // 12 - 1


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("can't mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_local_disk_makes_it_slower_and_no_more(
    remote: S3Store, proxy: S3Proxy, expected: list[str], tiny_disk: Path
) -> None:
    (tiny_disk / "others").write_bytes(bytes(200_000))
    found, stream = streamed(remote.root, proxy, Cache(folder=tiny_disk / "cache"))
    assert found == expected
    assert not stream.skipped


READER = """
import hashlib, json, sys
from pathlib import Path
from shards.stream import Cache, Plan, Stream
if __name__ == "__main__":
    root, endpoint, folder, goal = sys.argv[1:]
    state = Path(folder) / "state.json"
    stream = Stream(root, Plan(batch=12, window=50, crop=32, seed=2), workers=1, endpoint_url=endpoint,
                    cache=Cache(folder=Path(folder) / "cache"))
    done = json.loads(state.read_text()) if state.exists() else {"stream": None, "seen": []}
    if done["stream"]:
        stream.load_state_dict(done["stream"])
    while len(done["seen"]) < int(goal):
        for batch in stream:
            named = repr(batch.samples).encode() + batch.pixels.numpy().tobytes()
            done["seen"].append(hashlib.sha256(named).hexdigest())
            done["stream"] = stream.state_dict()
            (Path(folder) / "new").write_text(json.dumps(done))
            (Path(folder) / "new").replace(state)
"""


def saved(state: Path) -> int:
    """When it was, in nanoseconds; 0 where it was never."""
    return state.stat().st_mtime_ns if state.exists() else 0


def test_a_reader_killed_again_and_again_sees_each_batch_once(
    local: LocalStore, remote: S3Store, proxy: S3Proxy, tmp_path: Path
) -> None:
    """Its state is saved with each batch, as a trainer's checkpoint would be; the next process goes on from there."""
    state = tmp_path / "state.json"
    chance = random.Random(0)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    words = [sys.executable, "-c", READER, remote.root, proxy.endpoint_url, str(tmp_path)]
    proxy.fail(What.DRIP, times=-1, match="GET .*train-", at=40_000)
    for number in range(20):  # and thirty of the publisher: test_publish
        before = saved(state)
        running = subprocess.Popen([*words, "1000000"], env=environment, start_new_session=True)
        if number % 2:  # in mid-epoch, however long the machine takes to come so far
            deadline = time.monotonic() + 60
            while saved(state) == before and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.5))
        else:
            time.sleep(chance.uniform(1.5, 3.5))
        assert running.poll() is None
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    goal = len(json.loads(state.read_text())["seen"]) + 12
    subprocess.run([*words, str(goal)], env=environment, check=True, timeout=120)
    seen = json.loads(state.read_text())["seen"]
    stream = Stream(local.root, PLAN)
    expected: list[str] = []
    while len(expected) < len(seen):
        expected += [digest(batch) for batch in stream]
    assert seen == expected[: len(seen)]
    assert len(seen) >= goal >= 12 + 10  # each second process gave a batch before it was killed


def test_a_worker_killed_costs_no_batch(
    remote: S3Store, proxy: S3Proxy, expected: list[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """As the kernel does where memory is short. What it had not answered is asked of others."""
    cache = Cache(folder=tmp_path / "cache")
    stream = Stream(remote.root, PLAN, workers=2, endpoint_url=proxy.endpoint_url, cache=cache)
    before = psutil.Process().children()
    found, states = [], []
    with contextlib.closing(stream), caplog.at_level(logging.WARNING):
        for batch in itertools.chain.from_iterable(itertools.repeat(stream, 2)):
            found.append(digest(batch))
            states.append(stream.state_dict()["position"])
            if len(found) == 3:
                next(one for one in psutil.Process().children() if one not in before).kill()
    assert found == expected
    assert states[2:5] == [[0, 36], [0, 48], [0, 60]]
    assert len(caplog.records) == 1
