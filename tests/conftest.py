"""What many tests share: a real S3 server process, and where the real data lies if it is there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.loopback_s3 import free_port as free_port
from jobs.loopback_s3 import loopback_s3, make_bucket
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


@dataclass(frozen=True)
class S3Server:
    """A running S3 server on loopback."""

    endpoint_url: str

    def bucket(self, name: str) -> str:
        """Makes a bucket; its s3:// URL."""
        return make_bucket(self.endpoint_url, name)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """moto's S3, in a process of its own, spoken to over HTTP. It takes parts of 256 KiB, where AWS wants 5 MiB."""
    with loopback_s3() as endpoint_url:
        yield S3Server(endpoint_url=endpoint_url)


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty one: in a folder that isn't there yet, and in a bucket of its own."""
    if request.param == "local":
        return open_store(str(tmp_path / "new" / "store"))
    server: S3Server = request.getfixturevalue("s3_server")
    bucket = server.bucket("b" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20])
    return open_store(f"{bucket}/some/prefix", server.endpoint_url)
