"""A small web server for the demo: the files of one folder, to this machine alone, nothing but reading.

It is img2dataset's other side when there is no internet. Every request opens a connection of its own and reads a
file in pieces of 64 KiB, so memory does not grow with the files.
"""

from __future__ import annotations

import mimetypes
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

_SILENT_S: Final = 30.0  # seconds a client may stay silent


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serves `folder` on a free port of 127.0.0.1 while the context lasts; yields the base URL, without a slash.

    Hidden files, folders, and links that lead out of `folder` answer 404. Raises ValueError when it is no folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give one that holds the pictures to serve")
    server = _Server(("127.0.0.1", 0), partial(_Handler, folder.resolve()))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # a downloader knocks with all its threads at once; the default is 5
    daemon_threads = True
    block_on_close = False  # a client that hangs does not hold up the end


class _Handler(BaseHTTPRequestHandler):
    timeout = _SILENT_S

    def __init__(self, folder: Path, *request: Any) -> None:
        self._folder = folder
        super().__init__(*request)

    def do_GET(self) -> None:
        """Answers with the file, or 404."""
        file = find_file(self._folder, self.path)
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            self._send(file)
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the client went away: its loss

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the job prints its own progress."""

    def _send(self, file: Path) -> None:
        with file.open("rb") as body:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", mimetypes.guess_type(file.name)[0] or "application/octet-stream")
            self.send_header("Content-Length", str(os.fstat(body.fileno()).st_size))
            self.end_headers()
            shutil.copyfileobj(body, self.wfile)


def find_file(folder: Path, target: str) -> Path | None:
    """The file under `folder` (resolved) that a request's target names, None unless it may be served.

    The path is unquoted once, and each of its parts must be a plain, visible name; links are followed
    and must end within `folder`.
    """
    try:
        path = urlsplit(target).path
    except ValueError:
        return None
    parts = os.fsdecode(unquote_to_bytes(path)).removeprefix("/").split("/")
    if any(not part or part.startswith(".") or "\\" in part or "\0" in part for part in parts):
        return None
    try:
        file = folder.joinpath(*parts).resolve()
        return file if file.is_relative_to(folder) and file.is_file() else None
    except (OSError, RuntimeError):  # a name that is too long, a loop of links
        return None
