"""The same over a second S3 server, which has no checksums, no lists of uploads, and ETags of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from jobs.s3_proxy import S3Proxy, What
from shards import manifest
from shards.manifest import MANIFEST
from shards.store import LocalStore, S3Store, Store, open_store
from tests.conftest import free_port
from tests.shards.test_publish import exactly, make_set, seen, send

pytestmark = pytest.mark.slow

pytestmark = pytest.mark.slow  # npm brings the server
_PACKAGE = "s3rver@3.7.1"


@pytest.fixture(scope="module")
def s3rver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its endpoint URL; the test is skipped where npm can't have it."""
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("s3rver")
    if npm is None or shutil.which("node") is None:
        pytest.skip("s3rver needs node and npm")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), _PACKAGE]
    try:
        subprocess.run(command, capture_output=True, timeout=60, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"npm does not have {_PACKAGE}: {error}")
    port = free_port()
    words = ["--directory", str(folder / "data"), "--address", "127.0.0.1", "--port", str(port), "--silent"]
    (folder / "data").mkdir()
    log = (folder / "log").open("wb")
    process = subprocess.Popen([str(folder / "node_modules/.bin/s3rver"), *words], stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        log.close()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it is there, and wants a signature
        except OSError:
            if time.monotonic() > deadline:
                pytest.skip("s3rver does not start here")
            time.sleep(0.1)


@pytest.fixture
def proxy(s3rver: str, hasty: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "S3RVER")
    with S3Proxy(s3rver) as running:
        yield running


@pytest.fixture
def target(proxy: S3Proxy, request: pytest.FixtureRequest) -> Store:
    bucket = f"bucket-{abs(hash(request.node.name)) % 10**9}"
    boto3.session.Session().client("s3", endpoint_url=proxy.endpoint_url).create_bucket(Bucket=bucket)
    opened = open_store(f"s3://{bucket}/set", proxy.endpoint_url)
    assert isinstance(opened, S3Store)
    return opened


@pytest.fixture
def source(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "source")
    make_set(store, 1, (50_000, 600_000))
    return store


def test_a_set_arrives_is_read_back_and_not_sent_or_read_again(
    source: LocalStore, target: Store, proxy: S3Proxy
) -> None:
    send(source, target)
    read = [request for request in proxy.requests if re.match("GET .*/shards/train-000001.tar", request)]
    assert len(read) == 3  # 600 kB, in blocks of a part
    assert target.read(MANIFEST) == source.read(MANIFEST)
    exactly(target, manifest.read_manifest(source))
    proxy.requests.clear()
    assert send(source, target).sent == 0
    assert not [request for request in proxy.requests if request.startswith("PUT")]
    assert not [request for request in proxy.requests if re.match("GET .*/shards/train", request)]


@pytest.mark.parametrize(
    ("what", "match", "times"),
    [
        (What.FLIP_REQUEST, "PUT .*train", 2),
        (What.RESET_REQUEST, "PUT", 4),
        (What.SLOW_DOWN, "P(UT|OST)", 5),
        (What.LOSE_ANSWER, "PUT", 3),
        (What.FLIP_RESPONSE, "GET .*train", 1),
        (What.SHORT, "GET .*train", 2),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_goes_wrong_leaves_no_trace(
    what: What, match: str, times: int, source: LocalStore, target: Store, proxy: S3Proxy
) -> None:
    proxy.fail(what, match=match, times=times, at=10_000)
    send(source, target)
    proxy.heal()
    assert target.read(MANIFEST) == source.read(MANIFEST)
    exactly(target, manifest.read_manifest(source))


def test_of_another_set_no_reader_sees_a_mixture(source: LocalStore, target: Store, tmp_path: Path) -> None:
    send(source, target)
    other = LocalStore(tmp_path / "other")
    anew = make_set(other, 70, (60_000, 70_000))
    send(other, target, replace_other=True)
    assert seen(target) == (anew.set, 1)
    exactly(target, anew)
