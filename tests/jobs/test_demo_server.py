"""The demo's server gives the files of its folder, to the byte, and nothing else of the machine."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

import pytest

from jobs.demo_server import serve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    (pictures / "deep").mkdir(parents=True)
    (pictures / "a.jpg").write_bytes(b"\xff\xd8 picture")
    (pictures / "deep" / "ä b#c?.png").write_bytes(b"deep")
    (pictures / "empty.jpg").write_bytes(b"")
    (pictures / ".hidden.jpg").write_bytes(b"hidden")
    (pictures / ".git").mkdir()
    (pictures / ".git" / "config").write_bytes(b"config")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return pictures


@pytest.fixture
def base(folder: Path) -> Iterator[str]:
    with serve(folder) as url:
        yield url


def _get(base: str, target: str) -> tuple[int, bytes]:
    """Sends the target as it is: urllib would tidy it up first."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=5)
    connection.putrequest("GET", target, skip_host=True)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def test_a_file_comes_as_it_is_with_its_type_and_length(base: str) -> None:
    with urlopen(f"{base}/a.jpg") as response:
        assert response.headers["Content-Type"] == "image/jpeg"
        assert int(response.headers["Content-Length"]) == len(b"\xff\xd8 picture")
        assert response.read() == b"\xff\xd8 picture"


def test_quoted_names_queries_and_empty_files_are_served(base: str) -> None:
    assert _get(base, "/" + quote("deep/ä b#c?.png")) == (200, b"deep")
    assert _get(base, "/a.jpg?unsafe") == (200, b"\xff\xd8 picture")
    assert _get(base, "/empty.jpg") == (200, b"")


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/deep",
        "/deep/",
        "/gone.jpg",
        "/../secret.jpg",
        "/%2e%2e/secret.jpg",
        "/deep/../../secret.jpg",
        "/..%2fsecret.jpg",
        "/deep/..%2f..%2fsecret.jpg",
        "/%252e%252e/secret.jpg",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/..\\secret.jpg",
        "/a.jpg%00.png",
        "/.hidden.jpg",
        "/.git/config",
        "/a.jpg/",
        "/" + "x" * 5000,
        "http://[::1/a.jpg",
    ],
)
def test_nothing_but_visible_files_of_the_folder_is_served(base: str, target: str) -> None:
    status, body = _get(base, target)
    assert status == 404
    assert b"secret" not in body and b"root:" not in body


def test_a_link_is_followed_only_within_the_folder(folder: Path, base: str) -> None:
    (folder / "inner.jpg").symlink_to(folder / "a.jpg")
    (folder / "outer.jpg").symlink_to(folder.parent / "secret.jpg")
    (folder / "up").symlink_to(folder.parent, target_is_directory=True)
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    assert _get(base, "/inner.jpg") == (200, b"\xff\xd8 picture")
    assert [_get(base, target)[0] for target in ("/outer.jpg", "/up/secret.jpg", "/loop.jpg")] == [404] * 3


def test_a_named_pipe_is_no_file_to_wait_for(folder: Path, base: str) -> None:
    os.mkfifo(folder / "pipe.jpg")
    assert _get(base, "/pipe.jpg")[0] == 404


def test_only_reading_is_offered(base: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=5)
    connection.request("PUT", "/new.jpg", body=b"x")
    assert connection.getresponse().status == 501


def test_it_is_quiet_when_clients_leave(folder: Path, base: str, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "large.jpg").write_bytes(bytes(30_000_000))
    host, port = urlsplit(base).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(b"GET /large.jpg HTTP/1.0\r\n\r\n")
        client.recv(1000)
    assert _get(base, "/a.jpg")[0] == 200
    assert capfd.readouterr().err == ""


def test_many_at_once_are_all_answered(base: str) -> None:
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: _get(base, "/a.jpg")[0], range(300)))
    assert answers == [200] * 300


def test_it_listens_on_this_machine_alone_and_stops_with_the_context(folder: Path) -> None:
    with serve(folder) as base:
        host, port = urlsplit(base).netloc.split(":")
        assert host == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)


def test_a_missing_folder_is_named_before_anything_is_served(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.* is no folder"), serve(tmp_path / "nowhere"):
        pass
