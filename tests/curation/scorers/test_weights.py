"""Weights come from the folder, else a cache, else the network, are held to a digest, and missing ones say so fast."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from curation.scorers import WeightMissing, WeightRefused, resolve
from curation.scorers.weights import WeightFile, download, locate, pinned, read_sums
from tests.curation.scorers.conftest import pin

BODY = b"weights" * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()
NAMED = f"model-{SHA256[:8]}.pth"
NOWHERE = "http://127.0.0.1:9/"


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path != "/gone" else 404)
        self.send_header("Content-Length", str(len(BODY) + (5 if self.path == "/short" else 0)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()


def put(folder: Path, name: str, data: bytes = BODY) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def test_a_metric_is_built_from_pyiqas_cache_where_no_folder_is_named(tmp_path: Path, weights_dir: Path) -> None:
    cache = tmp_path / "torch" / "hub" / "pyiqa"
    shutil.copytree(weights_dir, cache)
    assert [file.path.parent for files in resolve(("niqe", "brisque")).values() for file in files] == [cache, cache]


def test_the_folder_goes_before_the_cache_and_the_cache_before_the_network(tmp_path: Path, server: str) -> None:
    cache = tmp_path / "torch" / "hub" / "pyiqa"
    fetched = locate(f"{server}/a", "model.pth", tmp_path)
    assert fetched == WeightFile(path=cache / "model.pth", sha256=SHA256)
    assert [file.name for file in cache.iterdir()] == ["model.pth"]
    put(cache, "model.pth", b"cached")
    assert locate(NOWHERE, "model.pth", tmp_path).sha256 == hashlib.sha256(b"cached").hexdigest()
    put(tmp_path / "mine", "model.pth", b"mine")
    assert locate(NOWHERE, "model.pth", tmp_path / "mine").sha256 == hashlib.sha256(b"mine").hexdigest()


def test_the_digest_of_every_file_is_recorded(weights_dir: Path) -> None:
    resolved = resolve(["brisque", "niqe", "entropy"], weights_dir)
    assert list(resolved) == ["brisque", "niqe", "entropy"]
    assert resolved["entropy"] == ()
    for metric, name in (("niqe", "niqe_modelparameters.mat"), ("brisque", "brisque_svm_weights.pth")):
        (file,) = resolved[metric]
        assert file.path == weights_dir / name
        assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
        assert file.origin == "unknown origin"


def test_a_missing_weight_is_one_sentence_with_file_and_remedy(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(WeightMissing) as caught:
        resolve(["niqe"], tmp_path)
    assert time.monotonic() - start < 15
    message = str(caught.value)
    assert "niqe_modelparameters.mat" in message and str(tmp_path) in message and "--weights" in message
    assert "\n" not in message


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no folder.*--weights"):
        resolve(["niqe"], tmp_path / "absent")


def test_sha256sums_bind(weights_dir: Path) -> None:
    pin(weights_dir)
    resolve(["niqe"], weights_dir)
    file = weights_dir / "niqe_modelparameters.mat"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(WeightRefused, match="was altered"):
        resolve(["niqe"], weights_dir)
    (weights_dir / "SHA256SUMS").write_text("")
    with pytest.raises(WeightRefused, match="is not listed"):
        resolve(["niqe"], weights_dir)


def test_the_digest_in_a_name_binds_unless_the_user_pinned_the_file(tmp_path: Path) -> None:
    put(tmp_path, NAMED)
    assert locate(NOWHERE, NAMED, tmp_path).origin == "pyiqa's release"
    put(tmp_path, NAMED, b"altered")
    with pytest.raises(WeightRefused, match="was altered"):
        locate(NOWHERE, NAMED, tmp_path)
    pin(tmp_path)
    assert locate(NOWHERE, NAMED, tmp_path).origin == "unknown origin"


@pytest.mark.parametrize("line", ["niqe.mat", "abc  niqe.mat", f"{SHA256} niqe.mat"])
def test_sums_in_another_form_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "SHA256SUMS").write_text(f"{SHA256}  fine.mat\n{SHA256} *./too.mat\n")
    assert read_sums(tmp_path / "SHA256SUMS") == {"fine.mat": SHA256, "too.mat": SHA256}
    (tmp_path / "SHA256SUMS").write_text(f"{SHA256}  fine.mat\n{line}\n")
    with pytest.raises(ValueError, match="line 2"):
        read_sums(tmp_path / "SHA256SUMS")


@pytest.mark.parametrize(
    ("path", "name", "error"),
    [("/short", "a.pth", OSError), ("/gone", "a.pth", OSError), ("/a", "a-00000000.pth", WeightRefused)],
)
def test_a_bad_download_leaves_nothing(
    tmp_path: Path, server: str, path: str, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        download(server + path, tmp_path / "cache" / name)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(OSError):
            download(f"http://127.0.0.1:{silent.getsockname()[1]}/", tmp_path / "a.pth", answer_seconds=0.3)
        assert time.monotonic() - start < 2


def test_a_worker_takes_the_files_of_the_start_or_none(tmp_path: Path) -> None:
    path = put(tmp_path, "model.pth")
    find = pinned([WeightFile(path=path, sha256=SHA256)])
    assert find(NOWHERE, "model.pth") == path
    with pytest.raises(WeightMissing, match="start it again"):
        find(NOWHERE, "other.pth")
    put(tmp_path, "model.pth", b"altered")
    with pytest.raises(WeightRefused, match="start it again"):
        find(NOWHERE, "model.pth")


def test_a_worker_on_another_machine_uses_its_own_copy(tmp_path: Path, server: str) -> None:
    find = pinned([WeightFile(path=tmp_path / "elsewhere" / "model.pth", sha256=SHA256)])
    assert find(f"{server}/a", "model.pth").read_bytes() == BODY
