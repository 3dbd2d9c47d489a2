"""One interface, two stores: the same claims hold for a local folder and for a real S3 server."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.s3_proxy import S3Proxy, What
from shards import s3
from shards.store import LocalStore, Store, StoreError, open_store
from tests.conftest import S3Server


def test_what_is_written_is_read_whole_and_in_ranges(store: Store, tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    written = store.write("a/b.bin", data)
    assert (written.size, written.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert store.read("a/b.bin") == data
    assert store.read("a/b.bin", 255, 3) == data[255:258]
    assert store.read("a/b.bin", 10) == data[10:]
    assert store.read("a/b.bin", 10, 0) == b""
    assert store.size("a/b.bin") == len(data)
    (tmp_path / "file").write_bytes(data)
    assert store.write("a/c.bin", tmp_path / "file") == written


def test_writing_again_replaces_and_deleting_twice_is_fine(store: Store) -> None:
    store.write("x", b"1")
    store.write("x", b"22")
    assert store.read("x") == b"22"
    store.delete("x")
    store.delete("x")
    assert not store.exists("x")


def test_names_are_listed_by_prefix_in_order(store: Store) -> None:
    for name in ("b/2", "b/10", "a/1", "b.txt", "b/c/d"):
        store.write(name, b"")
    assert list(store.list("")) == ["a/1", "b.txt", "b/10", "b/2", "b/c/d"]
    assert list(store.list("b/")) == ["b/10", "b/2", "b/c/d"]
    assert list(store.list("b/1")) == ["b/10"]
    assert list(store.list("none/")) == []


def test_what_is_not_there_is_a_file_not_found(store: Store) -> None:
    store.write("here", b"")
    for ask in (store.read, store.size):
        with pytest.raises(FileNotFoundError):
            ask("not/here")
    assert not store.exists("not/here")


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../x", "a//x", "", "a/.x", "a\\x", "a b", "a\n"])
def test_a_name_that_could_leave_the_root_is_refused(store: Store, name: str) -> None:
    for ask in (store.read, store.exists, store.delete):
        with pytest.raises(StoreError):
            ask(name)
    with pytest.raises(StoreError):
        store.write(name, b"x")


def test_a_store_travels_to_another_process(store: Store) -> None:
    store.write("x", b"1")
    assert pickle.loads(pickle.dumps(store)).read("x") == b"1"


def test_another_scheme_is_refused() -> None:
    with pytest.raises(StoreError, match="local folder or s3"):
        open_store("gs://bucket/x")


def test_a_bucket_that_is_not_there_is_named(s3_server: S3Server) -> None:
    with pytest.raises(StoreError, match="no-such-bucket"):
        open_store("s3://no-such-bucket/x", s3_server.endpoint_url).write("a", b"")


def test_a_server_that_is_not_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, s3_server: S3Server) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreError, match="can't be used"):
        open_store("s3://b/x", "http://127.0.0.1:1").write("a", b"")


@pytest.fixture
def behind(s3_server: S3Server, proxy: S3Proxy, request: pytest.FixtureRequest) -> Store:
    """A store behind the proxy, with an object `x` of 100,000 bytes."""
    bucket = s3_server.bucket("f" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12])
    open_store(bucket, s3_server.endpoint_url).write("x", bytes(range(250)) * 400)
    return open_store(bucket, proxy.endpoint_url)


@pytest.mark.parametrize("window", [(0, None), (10, None), (70_000, 20_000)])
@pytest.mark.parametrize("what", [What.RESET_RESPONSE, What.SHORT, What.SLOW_DOWN, What.EXPIRED, What.DRIP])
def test_a_read_survives_what_passes(what: What, window: tuple[int, int | None], behind: Store, proxy: S3Proxy) -> None:
    start, length = window
    proxy.fail(what, match="GET", times=1 if what is What.EXPIRED else 3, at=9_000)
    expected = (bytes(range(250)) * 400)[start:][:length]
    assert behind.read("x", start, length) == expected


def test_a_body_that_always_breaks_off_is_an_error_that_names_object_and_cause(behind: Store, proxy: S3Proxy) -> None:
    proxy.fail(What.RESET_RESPONSE, match="GET", times=-1)
    with pytest.raises(StoreError, match=f"can't be used for {behind.root}/x: .*(broken|reset|error)"):
        behind.read("x")
    assert len(proxy.requests) == s3.TRIES


def test_credentials_that_were_renewed_in_their_file_are_read_anew(
    behind: Store, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    credentials = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    text = "[default]\naws_access_key_id = {}\naws_secret_access_key = s\n"
    with S3Proxy(s3_server.endpoint_url) as proxy:  # of its own: no client has read credentials for it
        store = open_store(behind.root, proxy.endpoint_url)
        credentials.write_text(text.format("FIRST"))
        store.read("x")
        credentials.write_text(text.format("SECOND"))
        proxy.fail(What.EXPIRED, match="GET")
        store.read("x")
        assert proxy.signers == ["FIRST", "FIRST", "SECOND"]


def test_credentials_in_a_url_are_refused_before_any_message_has_them() -> None:
    with pytest.raises(StoreError, match="don't belong into a URL") as refused:
        open_store("s3://bucket/x", "https://AKIA123:hush@minio.example")
    assert "hush" not in str(refused.value)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="name another place"):
        LocalStore(tmp_path / "file" / "below").write("a", b"")


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of 1 MB of its own."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_is_one_sentence_and_leaves_the_old_object(small_disk: Path) -> None:
    store = LocalStore(small_disk)
    store.write("x", b"old")
    with pytest.raises(StoreError, match="no space left"):
        store.write("x", bytes(2_000_000))
    assert store.read("x") == b"old"
    assert list(store.list("")) == ["x"]
    assert [p.name for p in small_disk.iterdir()] == ["x"]


_WRITER = """
import sys
from pathlib import Path
from shards import s3
from shards.store import LocalStore
store = LocalStore(Path(sys.argv[1]))
while True:
    for fill in (b"a", b"b"):
        store.write("x", fill * 3_000_000)
"""


def test_a_killed_writer_never_leaves_half_an_object(tmp_path: Path) -> None:
    for wait in (0.0, 0.003, 0.007, 0.011, 0.017):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)])
        while not (tmp_path / "x").exists():
            time.sleep(0.01)
        time.sleep(0.05 + wait)
        writer.kill()
        writer.wait()
        data = LocalStore(tmp_path).read("x")
        assert len(data) == 3_000_000
        assert len(set(data)) == 1
        assert list(LocalStore(tmp_path).list("")) == ["x"]


def test_what_killed_writers_left_is_swept_once_it_is_old(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("a/x", b"")
    old, young = tmp_path / "a" / ".tmp-old", tmp_path / "a" / ".tmp-young"
    for path in (old, young):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    store.sweep()
    assert young.exists()
    assert not old.exists()
