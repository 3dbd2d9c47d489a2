"""What the tests over S3 share: a server that fails on purpose, and no patience with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobs.s3_proxy import S3Proxy
from shards import s3
from tests.conftest import S3Server


@pytest.fixture(scope="session")
def running_proxy(s3_server: S3Server) -> Iterator[S3Proxy]:
    """One for all tests: a client for another address would cost each of them half a second."""
    with S3Proxy(s3_server.endpoint_url) as running:
        yield running


@pytest.fixture
def proxy(running_proxy: S3Proxy, hasty: None) -> Iterator[S3Proxy]:
    """In front of the S3 server, without faults; what earlier tests asked for is forgotten."""
    running_proxy.reset()
    yield running_proxy
    running_proxy.heal()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of milliseconds in place of seconds."""
    monkeypatch.setattr(s3, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(s3, "REQUESTS", 1)
