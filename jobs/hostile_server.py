"""A real HTTP server that serves files and misbehaves on request: the internet of the drill and of the tests.

    with HttpServer(photos) as server:
        server.url("/files/cat.jpg")     # a file of `photos`, as it is
        server.url("/reset/1")           # one of the faults below; what follows the name only makes URLs differ
        server.add("/mine.png", data)    # bytes under a path of your own
        server.requests["/mine.png"]     # how often it was asked for
        server.most_at_once              # the most requests it ever had under way together

Every thread it starts ends with it, those that never answer included.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import unquote

_TYPES: Final = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
_HTML: Final = b"<!DOCTYPE html><html><head><title>Gone</title></head><body>This picture is gone.</body></html>"
#: A body for faults that need one: a whole PNG of 1 x 1.
PIXEL: Final = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63f8cfc000000301010018dd8db00000000049454e44ae426082"
)
OVERSIZE: Final = 3 << 20  # bytes of an oversize body: give the client a lower cap


class HttpServer(ThreadingHTTPServer):
    """Serves `folder` under /files/, what `add` registered, and the faults, on `address` at a free port."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, folder: Path | None = None, address: str = "127.0.0.1", port: int = 0) -> None:
        self.folder = folder
        self.address = address
        self.answers: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.requests: Counter[str] = Counter()
        self.headers: dict[str, dict[str, str]] = {}  # of the last request for a path
        self.most_at_once = 0
        self.private_target = "http://169.254.169.254/latest/meta-data/"  # where /redirect-private points
        self.pause = 0.0  # seconds before each answer
        self.closing = threading.Event()
        self._now = 0
        self._lock = threading.Lock()
        super().__init__((address, port), _Handler)

    def __enter__(self) -> HttpServer:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def url(self, path: str, host: str | None = None) -> str:
        """The URL of `path` here, under another name of this machine where `host` gives one."""
        return f"http://{host or self.address}:{self.server_port}{path}"

    def add(self, path: str, body: bytes, content_type: str = "image/png", **headers: str) -> str:
        """Serves `body` under `path` from now on; gives its URL. `X_Robots_Tag="noai"` adds such a header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = (200, body, {"Content-Type": content_type, **named})
        return self.url(path)

    def answer_with(self, path: str, status: int, headers: dict[str, str]) -> None:
        """Answers `path` with `status` and no body from now on."""
        self.answers[path] = (status, b"", headers)

    @property
    def now(self) -> int:
        """Requests under way."""
        return self._now

    def begin(self, path: str) -> int:
        """Counts a request in; gives its number among those for `path`, from 1."""
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            self.requests[path] += 1
            return self.requests[path]

    def end(self) -> None:
        """Counts a request out."""
        with self._lock:
            self._now -= 1

    def handle_error(self, request: object, client_address: object) -> None:
        """Silent: clients that hang up are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HttpServer

    def do_GET(self) -> None:
        number = self.server.begin(self.path)
        self.server.headers[self.path] = dict(self.headers.items())
        self.close_connection = True
        self._counted = True
        try:
            self.server.closing.wait(self.server.pause)
            self._route(number)
        finally:
            self._count_out()

    def _count_out(self) -> None:
        """Before the last byte: a client that has it may be back before this thread runs again."""
        if self._counted:
            self._counted = False
            self.server.end()

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def _route(self, number: int) -> None:
        first = self.path.split("/")[1].partition("?")[0].partition(".")[0]
        if self.path in self.server.answers:
            self._answer(*self.server.answers[self.path])
        elif first == "files":
            self._file(unquote(self.path.removeprefix("/files/")))
        elif first in _FAULTS:
            _FAULTS[first](self, number)
        elif first.isdigit():
            self._answer(int(first), _HTML, {"Content-Type": "text/html"})  # /404, /403/any, /500, ...
        else:
            self._answer(404, _HTML, {"Content-Type": "text/html"})

    def _file(self, name: str) -> None:
        path = None if self.server.folder is None else self.server.folder / name
        if path is None or not path.is_file() or path.parent != self.server.folder:
            self._answer(404, _HTML, {"Content-Type": "text/html"})
            return
        kind = _TYPES.get(path.suffix.lower(), "application/octet-stream")
        self._answer(200, path.read_bytes(), {"Content-Type": kind})

    def _answer(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self._head(status, {**headers, "Content-Length": str(len(body) if length is None else length)})
        if len(body) < 1 << 16:  # no longer under way as far as anyone can tell
            self._count_out()
        self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _redirect(self, target: str) -> None:
        self._answer(302, b"", {"Location": target})

    def _reset(self) -> None:
        """Hangs up with RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _drip(self, data: bytes) -> None:
        for byte in data:
            self.wfile.write(bytes([byte]))
            if self.server.closing.wait(0.2):
                return

    def _drip_body(self) -> None:
        self._head(200, {"Content-Type": "image/png", "Content-Length": "100000"})
        self._drip(b"\x89" * 100_000)

    def _drip_head(self) -> None:
        self._drip(b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * 100_000)

    def _oversize_unannounced(self) -> None:
        self._head(200, {"Content-Type": "image/png", "Transfer-Encoding": "chunked"})
        piece = b"\x89" * 65536
        for _ in range(OVERSIZE // len(piece)):
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunked(self, last: bytes) -> None:
        self._head(200, {"Content-Type": "image/png", "Transfer-Encoding": "chunked"})
        half = len(PIXEL) // 2
        for piece in (PIXEL[:half], PIXEL[half:]):
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(last)

    def _never(self) -> None:
        """Says nothing for as long as the client stays."""
        self.connection.settimeout(0.1)
        while not self.server.closing.is_set():
            with contextlib.suppress(TimeoutError):
                self.connection.recv(1)
                return

    def _garbage(self) -> None:
        self.wfile.write(b"\x00\x01SSH-2.0-not-http\r\n\r\n")

    def _until_close(self) -> None:
        self._head(200, _PNG)
        self.wfile.write(PIXEL)

    def _reset_in_body(self) -> None:
        self._head(200, {**_PNG, "Content-Length": "9999"})
        self.wfile.write(PIXEL)
        self._reset()

    def _flaky(self, number: int, status: int, headers: dict[str, str]) -> None:
        """`status` once, then the picture."""
        if number == 1:
            self._answer(status, b"", headers)
        else:
            self._answer(200, PIXEL, {"Content-Type": "image/png"})


_PNG: Final = {"Content-Type": "image/png"}
_FAULTS: Final[dict[str, Callable[[_Handler, int], None]]] = {
    "rate-limited-once": lambda h, n: h._flaky(n, 429, {"Retry-After": "1"}),
    "rate-limited-for-an-hour": lambda h, n: h._answer(429, b"", {"Retry-After": "3600"}),
    "500-once": lambda h, n: h._flaky(n, 500, {}),
    "redirect-private": lambda h, n: h._redirect(h.server.private_target),
    "redirect-loop": lambda h, n: h._redirect(h.path),
    "redirect-file": lambda h, n: h._redirect("file:///etc/passwd"),
    "redirect-nowhere": lambda h, n: h._answer(302, b"", {}),
    "redirect-good": lambda h, n: h._redirect("/pixel.png"),
    "redirect-robots": lambda h, n: h._answer(302, b"", {"Location": "/pixel", "X-Robots-Tag": "noai"}),
    "pixel": lambda h, n: h._answer(200, PIXEL, _PNG),
    "reset": lambda h, n: h._reset(),
    "reset-in-body": lambda h, n: h._reset_in_body(),
    "hang-up": lambda h, n: None,
    "drip": lambda h, n: h._drip_body(),
    "drip-headers": lambda h, n: h._drip_head(),
    "never": lambda h, n: h._never(),
    "wrong-type": lambda h, n: h._answer(200, PIXEL, {"Content-Type": "text/html"}),
    "html": lambda h, n: h._answer(200, _HTML, {"Content-Type": "image/jpeg"}),  # /html/picture.jpg
    "truncated": lambda h, n: h._answer(200, PIXEL, _PNG, length=5000),
    "truncated-chunks": lambda h, n: h._chunked(b"ffff\r\nbut no more"),
    "chunked": lambda h, n: h._chunked(b"0\r\n\r\n"),
    "until-close": lambda h, n: h._until_close(),
    "oversize": lambda h, n: h._answer(200, b"\x89" * OVERSIZE, _PNG),
    "oversize-unannounced": lambda h, n: h._oversize_unannounced(),
    "empty": lambda h, n: h._answer(200, b"", _PNG),
    "noai": lambda h, n: h._answer(200, PIXEL, {**_PNG, "X-Robots-Tag": "noai"}),
    "garbage": lambda h, n: h._garbage(),
}
