"""What many tests share: a real S3 server process, and where the real data lies if it is there."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from shards.store import Store, open_store

# moto takes any; set before a Ray is started, so that its workers have them too
os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing", AWS_DEFAULT_REGION="us-east-1")
os.environ["RAY_ADDRESS"] = "local"  # other tests start clusters beside this one, on the same machine

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of 56 real photographs; the test is skipped without it."""
    folder = SHARED / "data" / "photos"
    if not folder.is_dir():
        pytest.skip("needs the real photographs in ../shared")
    return folder


@functools.cache
def _client(endpoint_url: str) -> Any:
    return boto3.client("s3", endpoint_url=endpoint_url)


@dataclass(frozen=True)
class S3Server:
    """A running S3 server on loopback."""

    endpoint_url: str

    def bucket(self, name: str) -> str:
        """Makes a bucket; its s3:// URL."""
        _client(self.endpoint_url).create_bucket(Bucket=name)
        return f"s3://{name}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """moto's S3, in a process of its own, spoken to over HTTP. It takes parts of 256 KiB, where AWS wants 5 MiB."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "S3_UPLOAD_PART_MIN_SIZE": str(1 << 18)},
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/moto-api/")
        yield S3Server(endpoint_url=f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty one: in a folder that isn't there yet, and in a bucket of its own."""
    if request.param == "local":
        return open_store(str(tmp_path / "new" / "store"))
    server: S3Server = request.getfixturevalue("s3_server")
    bucket = server.bucket("b" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20])
    return open_store(f"{bucket}/some/prefix", server.endpoint_url)


def free_port() -> int:
    """A port that nobody listens on, at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
