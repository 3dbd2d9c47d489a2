"""A set on a web server: read by ranges, retried, refused with a word where the server can't."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from shards import web as web_store
from shards.store import LocalStore, StoreError, open_store
from shards.stream import Cache, Plan, Stream
from shards.web import WebStore
from tests.sets import write_set


@dataclass
class Web:
    """A server of a folder's files, with faults on demand: how many requests are to fail, and how."""

    folder: Path
    url: str = ""
    faults: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    web: Web
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.web.asked.append(self.path)
        fault = self.web.faults.pop(0) if self.web.faults else ""
        path = self.web.folder / self.path.lstrip("/")
        if fault.isdigit() or not path.is_file():
            self.send_response(int(fault or 404))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, status = path.read_bytes(), 200
        if "Range" in self.headers:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            if int(first) >= len(data):
                data, status = b"", 416
            else:
                data, status = data[int(first) : int(last) + 1 if last else None], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)
            self.close_connection = fault == "cut"

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "www").mkdir()
    served = Web(folder=tmp_path / "www")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": served}))
    served.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield served
    server.shutdown()
    server.server_close()


def test_objects_are_read_whole_and_in_part(web: Web) -> None:
    (web.folder / "shards").mkdir()
    (web.folder / "shards" / "a.bin").write_bytes(bytes(range(100)))
    store = open_store(web.url + "/")
    assert isinstance(store, WebStore)
    assert store.read("shards/a.bin") == bytes(range(100))
    assert store.read("shards/a.bin", 10, 5) == bytes(range(10, 15))
    assert store.read("shards/a.bin", 90) == bytes(range(90, 100))
    assert store.read("shards/a.bin", 95, 50) == bytes(range(95, 100))
    assert store.read("shards/a.bin", 100, 5) == b""
    assert store.read("shards/a.bin", 5, 0) == b""
    assert (store.size("shards/a.bin"), store.exists("shards/a.bin"), store.exists("none")) == (100, True, False)
    with pytest.raises(FileNotFoundError, match="none"):
        store.read("none")


@pytest.mark.parametrize("faults", [["503"] * 3, ["cut"], ["cut", "500", "429"]])
def test_what_passes_is_tried_again(web: Web, faults: list[str]) -> None:
    (web.folder / "a.bin").write_bytes(bytes(100_000))
    web.faults = list(faults)
    assert len(WebStore(web.url).read("a.bin", 0, 50_000)) == 50_000
    assert not web.faults


def test_what_does_not_pass_is_said(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_store, "_RETRIES", web_store._RETRIES.new(total=2))
    web.faults = ["403"]
    with pytest.raises(StoreError, match=r"a\.bin can't be had: HTTP 403"):
        WebStore(web.url).read("a.bin")
    web.faults = ["503"] * 50
    with pytest.raises(StoreError, match=r"a\.bin can't be had: .*503"):
        WebStore(web.url).size("a.bin")
    with pytest.raises(StoreError, match="can't be had"):
        WebStore("http://127.0.0.1:9").read("a.bin")


def test_nothing_is_written_or_listed(web: Web) -> None:
    store = WebStore(web.url)
    for refused in (lambda: store.write("a", b""), lambda: store.delete("a")):
        with pytest.raises(StoreError, match="can't be written: give a folder or s3"):
            refused()
    with pytest.raises(StoreError, match="can't be listed"):
        list(store.list(""))
    with pytest.raises(StoreError, match="no object name"):
        store.read("../etc/passwd")


def test_a_server_without_ranges_is_refused_with_a_word(web: Web, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(100))
    handler = type("Plain", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *words: handler(*words, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(StoreError, match="doesn't answer Range requests"):
        WebStore(f"http://127.0.0.1:{server.server_port}").read("a.bin", 5, 5)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_is_streamed_from_it_as_from_its_folder(web: Web, tmp_path: Path, workers: int) -> None:
    write_set(LocalStore(web.folder), [30, 30], size=32)
    plan = Plan(batch=10, window=32, crop=16)
    expected = [batch.samples for batch in Stream(str(web.folder), plan)]
    web.faults = ["503", "", "cut"]
    stream = Stream(web.url, plan, workers=workers, cache=Cache(folder=tmp_path / "cache"))
    assert [batch.samples for batch in stream] == expected
    assert not stream.skipped
    stream.close()
