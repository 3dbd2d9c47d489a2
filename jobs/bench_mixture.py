"""The bench's small web: eight hosts, each failing in its own way, with pictures of all fates, to this machine alone.

What a URL answers is a function of its host and number, so the same list always gets the same, from any process.
"""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from jobs.bench_server import texture, tiny

#: host -> share of its URLs that are not found, that fail with 500, and that never answer
HOSTS: Final = (
    (0.02, 0.00, 0.000),
    (0.05, 0.01, 0.000),
    (0.10, 0.00, 0.000),
    (0.20, 0.02, 0.002),
    (0.35, 0.00, 0.000),
    (0.50, 0.05, 0.004),
    (0.90, 0.00, 0.000),
    (0.05, 0.30, 0.000),
)
WEIGHTS: Final = (0.30, 0.20, 0.15, 0.10, 0.10, 0.05, 0.05, 0.05)  # of the hosts, in a list
WEB_PAGE, BLURRED, GOOD = 0.05, 0.04, 0.08  # shares of what is answered; the rest is too small
SIDE: Final = 512  # pixels, and the smallest picture that is kept
_BASES: Final = 8  # textures that all large pictures are turned and shifted copies of


def answer(host: int, number: int) -> tuple[int, bytes]:
    """Status and body of a URL; status 0: it never answers."""
    rng = np.random.default_rng((host, number))
    missing, broken, silent = HOSTS[host]
    fate, kind = rng.random(2)
    if fate < missing + broken + silent:
        return (404 if fate < missing else 500 if fate < missing + broken else 0), b"<html>gone</html>"
    if kind < WEB_PAGE:
        return 200, b"<!DOCTYPE html><html><body>no picture here</body></html>"
    if kind < WEB_PAGE + BLURRED:
        return 200, _large(rng, blurred=True)
    if kind < WEB_PAGE + BLURRED + GOOD:
        return 200, _large(rng, blurred=False)
    return 200, tiny(100 * number + 1)


@functools.cache
def _base(seed: int) -> np.ndarray:
    """(1024, 1024, 3) uint8. Made by FFT, so it has no seam where it is shifted round."""
    return texture(seed, 2 * SIDE, 2 * SIDE)


def delay(host: int, number: int, mean: float) -> float:
    """Seconds until a URL answers, log-normal about `mean`: one in a hundred takes six times as long."""
    draw = np.random.default_rng((host, number, 1)).standard_normal()
    return float(mean * np.exp(draw - 0.5))


def _large(rng: np.random.Generator, *, blurred: bool) -> bytes:
    """A JPEG of 512 x 512 to 1024 x 1024, unlike all others to a perceptual hash."""
    shifted = np.roll(_base(int(rng.integers(_BASES))), tuple(rng.integers(0, 2 * SIDE, 2)), (0, 1))
    height, width = (SIDE + 256 * int(rng.integers(3)) for _ in range(2))
    picture = Image.fromarray(np.rot90(shifted, int(rng.integers(4)))[:height, :width].copy())
    buffer = io.BytesIO()
    (picture.filter(ImageFilter.GaussianBlur(4)) if blurred else picture).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


class _Host(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, number: int, wait: float, closing: threading.Event) -> None:
        self.number = number
        self.wait = wait
        self.closing = closing
        super().__init__((f"127.0.0.{number + 1}", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Silent: clients hang up on what never answers."""


class _Handler(BaseHTTPRequestHandler):
    server: _Host

    def do_GET(self) -> None:
        """Answers by the host's own rates."""
        number = int(self.path.removeprefix("/"))
        self.server.closing.wait(delay(self.server.number, number, self.server.wait))
        status, body = answer(self.server.number, number)
        if not status:
            self.server.closing.wait(60)
            return
        self.send_response(status)
        self.send_header("Content-Type", "image/jpeg" if body.startswith(b"\xff\xd8") else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def small_web(rows: int, wait: float) -> Iterator[list[str]]:
    """Serves the hosts while it lasts, each answer after `wait` seconds on average; gives a list of so many URLs."""
    closing = threading.Event()
    with ExitStack() as stack:
        hosts = [stack.enter_context(_Host(number, wait, closing)) for number in range(len(HOSTS))]
        for one in hosts:
            threading.Thread(target=one.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(one.shutdown)
        stack.callback(closing.set)
        drawn = np.random.default_rng(5).choice(len(HOSTS), rows, p=WEIGHTS)
        yield [f"http://127.0.0.{host + 1}:{hosts[host].server_port}/{number}" for number, host in enumerate(drawn)]
