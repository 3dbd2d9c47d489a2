"""The bench's web server: picture `n` of a fixed set under /n, to this machine alone, counted and timed."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final

import numpy as np
from PIL import Image

from pipelines.demo_scenes import expose, fractal

#: One picture in so many of `tiny` is large enough to be scored.
SCORED_EVERY: Final = 100
SMALL, LARGE = 64, 192  # pixels, sides of the tiny pictures; NIQE's block is 96
_COMMENT: Final = b"\xff\xfe"


class PictureServer(ThreadingHTTPServer):
    """Serves `body(n)` under /n while its context lasts."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, body: Callable[[int], bytes]) -> None:
        self.body = body
        self._first = 0.0
        self._answered: list[float] = []
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def __enter__(self) -> PictureServer:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()

    def url(self, number: int) -> str:
        """The URL of picture `number`."""
        return f"http://127.0.0.1:{self.server_port}/{number}"

    @property
    def answers(self) -> int:
        """So far."""
        return len(self._answered)

    @property
    def seconds(self) -> float:
        """From the first request to the end of the last answer: what a download took, without its start-up."""
        return self._answered[-1] - self._first

    def pace(self, first: float, last: float) -> float:
        """Answers a second between these shares of all."""
        begin, end = (int(share * (self.answers - 1)) for share in (first, last))
        return (end - begin) / (self._answered[end] - self._answered[begin])

    def began(self) -> None:
        """A request came in."""
        with self._lock:
            self._first = self._first or time.monotonic()

    def ended(self) -> None:
        """An answer went out."""
        with self._lock:
            self._answered.append(time.monotonic())


class _Handler(BaseHTTPRequestHandler):
    server: PictureServer

    def do_GET(self) -> None:
        """Answers with the picture."""
        self.server.began()
        body = self.server.body(int(self.path.removeprefix("/")))
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.server.ended()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the bench prints its own progress."""


def tiny(number: int) -> bytes:
    """A JPEG of 2 to 30 KB, other bytes for each number; one in a hundred has other pixels too, and is larger."""
    scored = number % SCORED_EVERY == 0
    base = textured(number, LARGE) if scored else _SMALL
    comment = f"picture {number}".encode()
    return base[:2] + _COMMENT + (len(comment) + 2).to_bytes(2, "big") + comment + base[2:]


def texture(seed: int, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: 1/f noise, exposed as a photograph is."""
    rng = np.random.default_rng(seed)
    light = np.exp(0.6 * fractal(rng, height, width, 1.1))
    return expose(rng, np.repeat(light[..., None], 3, axis=2).astype(np.float32))


def textured(seed: int, side: int) -> bytes:
    """A JPEG of `side` x `side` pixels."""
    buffer = io.BytesIO()
    Image.fromarray(texture(seed, side, side)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


_SMALL: Final = textured(0, SMALL)
