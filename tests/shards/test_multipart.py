"""Files to a real S3 server through a proxy that fails: whole in the end, or an error that names the object."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest

from jobs.s3_proxy import S3Proxy, What
from shards import s3
from shards.errors import StoreError
from shards.multipart import Sender, Stopped
from shards.seal import Seal, seal
from shards.store import S3Store, open_store
from tests.conftest import S3Server

PART = 1 << 18  # bytes: the least that the test's server takes
NAME = "shards/train-000000.tar"


@pytest.fixture
def store(s3_server: S3Server, proxy: S3Proxy, request: pytest.FixtureRequest) -> S3Store:
    """A bucket of its own, behind the proxy."""
    bucket = s3_server.bucket("m" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12])
    opened = open_store(f"{bucket}/set", proxy.endpoint_url)
    assert isinstance(opened, S3Store)
    return opened


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, in three parts."""
    path = tmp_path_factory.mktemp("large") / "train-000000.tar"
    path.write_bytes(np.random.default_rng(1).bytes(600_001))
    return path


@pytest.fixture
def sender(store: S3Store) -> Iterator[Sender]:
    made = Sender(store, 3, threading.Event(), PART)
    yield made
    made.close()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def put(sender: Sender, path: Path) -> int:
    """Bytes that it told of, in all."""
    told: list[int] = []
    sender.put(NAME, path, digest(path), told.append)
    return sum(told)


def uploads(store: S3Store, s3_server: S3Server) -> list[str]:
    client = boto3.client("s3", endpoint_url=s3_server.endpoint_url)
    return [one["UploadId"] for one in client.list_multipart_uploads(Bucket=store.bucket).get("Uploads", ())]


def begun(store: S3Store, s3_server: S3Server, sealed: Seal, path: Path, numbers: list[int]) -> str:
    """An upload as a killed run leaves it, with these parts."""
    client = boto3.client("s3", endpoint_url=s3_server.endpoint_url)
    where = {"Bucket": store.bucket, "Key": store.key(NAME)}
    about = {"sha256": sealed.sha256, "sha256-parts": sealed.checksum}
    upload = client.create_multipart_upload(ChecksumAlgorithm="SHA256", Metadata=about, **where)["UploadId"]
    data = path.read_bytes()
    for part in sealed.parts:
        if part.number in numbers:
            body = data[part.start : part.start + part.size]
            client.upload_part(
                Body=body, PartNumber=part.number, UploadId=upload, ChecksumSHA256=part.checksum, **where
            )
    return str(upload)


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART])
def test_a_file_of_any_length_arrives(store: S3Store, sender: Sender, tmp_path: Path, size: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(np.random.default_rng(size).bytes(size))
    assert not sender.holds(NAME, size, digest(path))
    assert put(sender, path) == size
    assert store.read(NAME) == path.read_bytes()
    assert sender.holds(NAME, size, digest(path))
    assert not sender.holds(NAME, size, digest(path)[::-1])


def test_the_checksum_of_checksums_is_the_servers(
    store: S3Store, s3_server: S3Server, sender: Sender, large: Path
) -> None:
    put(sender, large)
    client = boto3.client("s3", endpoint_url=s3_server.endpoint_url)
    head = client.head_object(Bucket=store.bucket, Key=store.key(NAME), ChecksumMode="ENABLED")
    sealed = seal(large, PART)
    assert head["ChecksumSHA256"].partition("-")[0] == sealed.checksum.partition("-")[0]
    assert head["ETag"].strip('"') == sealed.etag
    assert head["Metadata"]["sha256"] == digest(large)


def test_parts_that_are_there_are_not_sent_again(
    store: S3Store, s3_server: S3Server, proxy: S3Proxy, sender: Sender, large: Path
) -> None:
    upload = begun(store, s3_server, seal(large, PART), large, [1, 3])
    assert put(sender, large) == large.stat().st_size
    sent = [request for request in proxy.requests if request.startswith("PUT")]
    assert len(sent) == 1
    assert "partNumber=2" in sent[0]
    assert upload in sent[0]
    assert store.read(NAME) == large.read_bytes()


def test_an_upload_of_another_file_is_ended(
    store: S3Store, s3_server: S3Server, sender: Sender, large: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(large.read_bytes()[::-1])
    begun(store, s3_server, seal(other, PART), other, [1, 2])
    put(sender, large)
    assert store.read(NAME) == large.read_bytes()
    assert not uploads(store, s3_server)


def test_of_two_uploads_the_fuller_one_goes_on_and_the_other_ends(
    store: S3Store, s3_server: S3Server, proxy: S3Proxy, sender: Sender, large: Path
) -> None:
    for numbers in ([1], [2, 3], []):
        begun(store, s3_server, seal(large, PART), large, numbers)
    put(sender, large)
    assert sum(request.startswith("PUT") for request in proxy.requests) == 1
    assert not uploads(store, s3_server)


def test_an_upload_that_is_for_another_file_but_for_its_first_parts_does_no_harm(
    store: S3Store, s3_server: S3Server, sender: Sender, large: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(large.read_bytes()[: 2 * PART] + b"another end")
    begun(store, s3_server, seal(other, PART), other, [1, 2])
    put(sender, large)
    assert store.read(NAME) == large.read_bytes()
    assert sender.holds(NAME, large.stat().st_size, digest(large))


PASSING = [
    ("PUT", What.SLOW_DOWN, 5),
    ("POST .*uploadId", What.SLOW_DOWN, 3),
    ("PUT .*partNumber=2", What.RESET_REQUEST, 3),
    ("PUT .*partNumber=1", What.LOSE_ANSWER, 2),
    ("POST .*uploadId", What.LOSE_ANSWER, 1),
    ("PUT .*partNumber=3", What.FLIP_REQUEST, 2),
    ("HEAD", What.SLOW_DOWN, 3),
    ("PUT", What.EXPIRED, 1),
]


@pytest.mark.parametrize(("match", "what", "times"), PASSING, ids=lambda value: getattr(value, "name", str(value)))
def test_what_passes_is_survived(
    match: str, what: What, times: int, store: S3Store, proxy: S3Proxy, sender: Sender, large: Path
) -> None:
    proxy.fail(what, match=match, times=times)
    put(sender, large)
    assert all(fault.times == 0 for fault in proxy.faults)
    proxy.heal()
    assert store.read(NAME) == large.read_bytes()


def test_bytes_that_are_changed_on_the_way_each_time_never_stay(
    store: S3Store, proxy: S3Proxy, sender: Sender, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(5000))
    proxy.fail(What.FLIP_REQUEST, match="PUT", times=-1)
    with pytest.raises(
        StoreError, match=r"set/shards/train-000000.tar came out with other bytes than were sent, 3 times"
    ):
        put(sender, path)
    assert not store.exists(NAME)


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (What.EXPIRED, "no longer takes these credentials for .*train-000000.tar.*ExpiredToken.*renew them"),
        (What.NO_BUCKET, "there is no bucket for .*train-000000.tar"),
        (What.SLOW_DOWN, "SlowDown for .*train-000000.tar"),
    ],
)
def test_what_stays_is_one_sentence_with_the_object(
    what: What, sentence: str, proxy: S3Proxy, sender: Sender, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "TRIES", 2)
    proxy.fail(what, match="P(UT|OST)", times=-1)
    with pytest.raises(StoreError, match=sentence):
        put(sender, large)


def test_a_file_that_is_not_what_the_manifest_says_never_leaves(proxy: S3Proxy, sender: Sender, large: Path) -> None:
    with pytest.raises(StoreError, match=r"train-000000.tar is not what the manifest says"):
        sender.put(NAME, large, "0" * 64, lambda sent: None)
    assert not [request for request in proxy.requests if request.startswith(("PUT", "POST"))]


def test_stopping_ends_the_waits_too(
    store: S3Store, proxy: S3Proxy, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "FIRST_WAIT", 60.0)
    proxy.fail(What.SLOW_DOWN, match="PUT", times=-1)
    stop = threading.Event()
    stopped = Sender(store, 2, stop, PART)
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(Stopped):
        put(stopped, large)
    stopped.close()
