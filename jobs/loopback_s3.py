"""A real S3 server on this machine, in a process of its own and spoken to over HTTP: moto's."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import boto3

_STARTS_WITHIN = 60.0  # seconds


def is_installed() -> bool:
    """Whether `loopback_s3` can be used here: `pip install 'moto[server]'`, which the `dev` extra has."""
    return importlib.util.find_spec("moto") is not None and importlib.util.find_spec("flask") is not None


@contextmanager
def loopback_s3() -> Iterator[str]:
    """Its endpoint's URL while the context lasts. It takes parts of 256 KiB, where AWS wants 5 MiB, and any keys."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "S3_UPLOAD_PART_MIN_SIZE": str(1 << 18)},
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/moto-api/")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def make_bucket(endpoint_url: str, name: str) -> str:
    """Its s3:// URL."""
    boto3.client("s3", endpoint_url=endpoint_url).create_bucket(Bucket=name)
    return f"s3://{name}"


def free_port() -> int:
    """A port that nobody listens on, at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
