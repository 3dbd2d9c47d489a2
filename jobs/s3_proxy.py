"""A proxy in front of an S3 server that fails on purpose.

    with S3Proxy(server.endpoint_url) as proxy:
        proxy.fail(What.SLOW_DOWN, times=5, match="PUT .*train-000001")
        ... a store with endpoint_url=proxy.endpoint_url ...

A fault is spent on the next `times` requests whose "METHOD /path?query" has a match of the pattern (`times=-1`: on all
of them). The first fault that fits is the one. `proxy.requests` has what was asked, in the order of arrival, and
`proxy.signers` the access key ids that signed it.
"""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit


class What(Enum):
    """What goes wrong. `at` of a fault is a place in the body, in bytes."""

    SLOW_DOWN = auto()  # 503
    EXPIRED = auto()  # 403 ExpiredToken
    NO_BUCKET = auto()  # 404 NoSuchBucket
    RESET_REQUEST = auto()  # the connection is reset once `at` bytes of the request's body have come
    RESET_RESPONSE = auto()  # ... once `at` bytes of the answer's body have gone
    SHORT = auto()  # the answer ends after `at` bytes, with fewer than it declared
    TRUNCATE = auto()  # the answer has `at` bytes, and declares as many
    FLIP_REQUEST = auto()  # the byte at `at` is changed on its way to the server
    FLIP_RESPONSE = auto()  # ... on its way from it
    DRIP = auto()  # the answer comes in pieces of `at` bytes, 50 ms between them
    LOSE_ANSWER = auto()  # the server does what it is asked, and the connection is reset before it can say so


@dataclass(kw_only=True)
class Fault:
    """One of `proxy.faults`; `times` counts down."""

    what: What
    match: str
    at: int
    times: int


_ERRORS = {
    What.SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
    What.EXPIRED: (403, "ExpiredToken", "The provided token has expired."),
    What.NO_BUCKET: (404, "NoSuchBucket", "The specified bucket does not exist"),
}


class S3Proxy:
    """Listens on loopback from `__enter__` to `__exit__`."""

    def __init__(self, endpoint_url: str) -> None:
        self.server = urlsplit(endpoint_url).netloc
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.signers: list[str] = []
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.proxy = self  # type: ignore[attr-defined]

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def fail(self, what: What, *, times: int = 1, match: str = "", at: int = 1000) -> None:
        """Adds a fault behind those that are there."""
        with self._lock:
            self.faults.append(Fault(what=what, match=match, at=at, times=times))

    def heal(self) -> None:
        """From now on nothing goes wrong."""
        with self._lock:
            self.faults.clear()

    def reset(self) -> None:
        """As at the beginning: no fault, nothing asked."""
        with self._lock:
            self.faults.clear()
            self.requests.clear()
            self.signers.clear()

    def __enter__(self) -> S3Proxy:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _next(self, request: str, authorization: str) -> Fault | None:
        signer = re.search("Credential=([^/]+)/", authorization)
        with self._lock:
            self.requests.append(request)
            self.signers.append(signer[1] if signer else "")
            for fault in self.faults:
                if fault.times and re.search(fault.match, request):
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _forward(self) -> None:
        proxy: S3Proxy = self.server.proxy  # type: ignore[attr-defined]
        fault = proxy._next(f"{self.command} {self.path}", self.headers.get("Authorization", ""))
        what, at = (fault.what, fault.at) if fault else (None, 0)
        length = int(self.headers.get("Content-Length", 0))
        if what is What.RESET_REQUEST:
            self.rfile.read(min(at, length))
            self._reset()
            return
        body = self.rfile.read(length)
        if what in _ERRORS:
            self._error(*_ERRORS[what])
            return
        if what is What.FLIP_REQUEST:
            body = _flipped(body, at)
        answer, data = self._ask(proxy.server, body)
        if what is What.LOSE_ANSWER:
            self._reset()
            return
        self._answer(answer, data, what, at)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward

    def _ask(self, server: str, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(server, timeout=60)
        try:
            kept = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            connection.request(self.command, self.path, body or None, kept)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def _answer(self, answer: http.client.HTTPResponse, data: bytes, what: What | None, at: int) -> None:
        declared = int(answer.headers["Content-Length"]) if self.command == "HEAD" else len(data)
        if what is What.TRUNCATE:
            data = data[:at]
            declared = len(data)
        if what is What.FLIP_RESPONSE:
            data = _flipped(data, at)
        self.send_response(answer.status, answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(declared))
        self.end_headers()
        self._send(data, what, at)

    def _send(self, data: bytes, what: What | None, at: int) -> None:
        if what in (What.RESET_RESPONSE, What.SHORT):
            self.wfile.write(data[:at])
            self.wfile.flush()
            if what is What.RESET_RESPONSE:
                self._reset()
            self.close_connection = True
        elif what is What.DRIP:
            for start in range(0, len(data), at):
                self.wfile.write(data[start : start + at])
                time.sleep(0.05)
        else:
            self.wfile.write(data)

    def _error(self, status: int, code: str, message: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        body = b"" if self.command == "HEAD" else text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.close_connection = True
        self.connection.close()

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):
            self.close_connection = True  # the client has gone, or we have thrown it out

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal: `requests` has it."""


def _flipped(data: bytes, at: int) -> bytes:
    if not data:
        return data
    at = min(at, len(data) - 1)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
