"""A data set on a web server, to be read: `https://host/million-ird`. Any that answers Range requests will do."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import urllib3
from urllib3.exceptions import HTTPError

from shards.store import StoreError, Written, checked

_RETRIES: Final = urllib3.Retry(
    total=6, backoff_factor=0.2, backoff_jitter=0.2, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
)
_TIMEOUT: Final = urllib3.Timeout(connect=10, read=60)  # seconds


@dataclass(frozen=True, slots=True)
class WebStore:
    """A store that can be read and not listed. See `Store` for the methods."""

    url: str

    @property
    def root(self) -> str:
        return self.url.rstrip("/")

    def list(self, prefix: str) -> Iterator[str]:
        raise StoreError(f"{self.root} can't be listed: a web server has no such request; use a folder or s3://")

    def exists(self, name: str) -> bool:
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        answer = self._ask("HEAD", name, {})
        length = answer.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise StoreError(f"{self.root}/{name}: the server doesn't say how long it is")
        return int(length)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        whole = start == 0 and length is None
        end = "" if length is None else start + length - 1
        answer = self._ask("GET", name, {} if whole else {"Range": f"bytes={start}-{end}"})
        if answer.status == 416:  # nothing there from `start` on
            return b""
        if not whole and answer.status != 206:
            raise StoreError(f"{self.root}: the server doesn't answer Range requests: serve the set by one that does")
        return answer.data if length is None else answer.data[:length]

    def write(self, name: str, data: bytes | Path) -> Written:
        self._refuse(name)

    def delete(self, name: str) -> None:
        self._refuse(name)

    def sweep(self) -> None:
        """Nothing to do: nothing is ever written."""

    def _refuse(self, name: str) -> NoReturn:
        raise StoreError(f"{self.root}/{name} can't be written: give a folder or s3://bucket/prefix")

    def _ask(self, method: str, name: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        url = f"{self.root}/{checked(name)}"
        try:
            answer = _pool(os.getpid()).request(
                method, url, headers=headers | {"Accept-Encoding": "identity"}, retries=_RETRIES, timeout=_TIMEOUT
            )
        except HTTPError as error:
            raise StoreError(f"{url} can't be had: {error}") from error
        if answer.status in (404, 410):
            raise FileNotFoundError(url)
        if answer.status >= 400 and answer.status != 416:
            raise StoreError(f"{url} can't be had: HTTP {answer.status}")
        return answer


@functools.lru_cache(maxsize=1)
def _pool(_process: int) -> urllib3.PoolManager:
    """One a process: a forked worker must not talk on its parent's connections."""
    return urllib3.PoolManager(maxsize=16)
