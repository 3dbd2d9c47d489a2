"""A set from one store to another, over a real S3 server and through a proxy that fails: the old set or the new one."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import boto3
import numpy as np
import pytest

from jobs.s3_proxy import S3Proxy, What
from shards import manifest
from shards.errors import StoreError
from shards.manifest import FOLDER, MANIFEST, Manifest, Part, Shard, Source, Version
from shards.publish import CARD, METADATA, Published, publish, publish_metadata
from shards.store import LocalStore, Store, open_store
from shards.transfer import How
from tests.conftest import S3Server

PART = 1 << 18  # bytes: the least that the test's server takes


def silent(total: int, done: int) -> None:
    """A watch that says nothing."""


pytestmark = pytest.mark.usefixtures("hasty")

HOW = How(checked=silent, sent=silent, part_bytes=PART)


@pytest.fixture
def bucket(s3_server: S3Server, request: pytest.FixtureRequest) -> str:
    return s3_server.bucket("p" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12])


@pytest.fixture
def behind(bucket: str, proxy: S3Proxy) -> Store:
    """A store of its own behind the proxy; `direct` is the same without it."""
    return open_store(f"{bucket}/set", proxy.endpoint_url)


@pytest.fixture
def direct(bucket: str, s3_server: S3Server) -> Store:
    return open_store(f"{bucket}/set", s3_server.endpoint_url)


def noise(store: Store, name: str, seed: int, size: int) -> Part:
    data = np.random.default_rng([seed, size]).bytes(size)
    written = store.write(FOLDER + name, data)
    return Part(name=name, bytes=written.size, sha256=written.sha256)


def make_set(store: Store, seed: int, sizes: tuple[int, ...], base: Manifest | None = None) -> Manifest:
    """A committed set of files that are noise: who publishes does not look into them."""
    old, first = (base.shards, len(base.shards)) if base else ((), 0)
    parts = [noise(store, f"train-{number:06d}.tar", seed + number, size) for number, size in enumerate(sizes, first)]
    shards = (*old, *(Shard(name=p.name, bytes=p.bytes, sha256=p.sha256, samples=1, slots=1) for p in parts))
    versions = (*(base.versions if base else ()),)
    versions = (*versions, Version(number=len(versions) + 1, shards=len(shards), tombstones=0))
    made = Manifest(
        set=base.set if base else manifest.set_id(shards),
        recipe={"size": 512},
        shards=shards,
        sources={"test": Source(pictures=1, with_patches=1, samples=len(shards), flat=0)},
        index=noise(store, manifest.part_name("index", versions), seed + len(versions), 700),
        metadata=noise(store, manifest.part_name("metadata", versions), seed + len(versions), 800),
        versions=versions,
    )
    manifest.commit(store, made)
    return made


@pytest.fixture
def source(tmp_path: Path) -> LocalStore:
    """Two shards of one part and one of three."""
    store = LocalStore(tmp_path / "source")
    make_set(store, 1, (50_000, 600_000, 70_000))
    return store


def card(made: Manifest) -> bytes:
    return f"set {made.set} version {made.version}".encode()


def send(source: Store, target: Store, replace_other: bool = False) -> Published:
    return publish(source, target, card, HOW, replace_other)


def seen(store: Store) -> tuple[str, int] | None:
    """What a reader finds: the set and its version, every file of it whole; None where there is none."""
    if not store.exists(MANIFEST):
        return None
    known = manifest.read_manifest(store)
    for one in known.files:
        assert hashlib.sha256(store.read(FOLDER + one.name)).hexdigest() == one.sha256, one.name
    return known.set, known.version


def exactly(store: Store, made: Manifest) -> None:
    """The target has this set, and nothing beside it."""
    assert seen(store) == (made.set, made.version)
    names = {FOLDER + one.name for one in manifest.read_manifest(store).files}
    assert set(store.list("")) == {*names, MANIFEST, CARD}
    assert store.read(CARD) == card(made)


PLACES = ["local-local", "local-s3", "s3-local", "s3-s3"]


@pytest.mark.parametrize("places", PLACES)
def test_a_set_arrives_and_again_sends_nothing_and_what_grew_alone(
    places: str, tmp_path: Path, bucket: str, proxy: S3Proxy
) -> None:
    stores: list[Store] = [
        LocalStore(tmp_path / end) if place == "local" else open_store(f"{bucket}/{end}", proxy.endpoint_url)
        for end, place in zip(("source", "target"), places.split("-"), strict=True)
    ]
    source, target = stores
    first = make_set(source, 1, (50_000, 600_000))
    made = send(source, target)
    assert (made.sent, made.skipped, made.bytes) == (4, 0, 50_000 + 600_000 + 700 + 800)
    assert target.read(MANIFEST) == source.read(MANIFEST)
    exactly(target, first)
    proxy.requests.clear()
    again = send(source, target)
    assert (again.sent, again.skipped) == (0, 4)
    assert not [request for request in proxy.requests if request.startswith(("PUT", "POST"))]
    assert not [request for request in proxy.requests if request.startswith("GET") and ".tar" in request]
    grown = make_set(source, 1, (60_000,), first)
    made = send(source, target)
    assert (made.sent, made.skipped) == (3, 2)
    assert target.read(MANIFEST) == source.read(MANIFEST)
    exactly(target, grown)


def test_a_set_made_anew_never_mixes_with_the_one_before(source: LocalStore, direct: Store, tmp_path: Path) -> None:
    send(source, direct)
    old = manifest.read_manifest(direct)
    other = LocalStore(tmp_path / "other")
    anew = make_set(other, 50, (50_000, 60_000))
    with pytest.raises(ValueError, match=r"has another set .*add --replace"):
        send(other, direct)
    during: list[tuple[str, int] | None] = []

    def look(made: Manifest) -> bytes:
        during.append(seen(direct))
        return card(made)

    made = publish(other, direct, look, HOW, replace_other=True)
    assert during == [(old.set, 1)]  # all of the new set is there, and who reads now sees the old one, whole
    exactly(direct, anew)
    assert [one.sha256 for one in made.manifest.shards] == [one.sha256 for one in anew.shards]
    assert not {one.name for one in made.manifest.shards} & {one.name for one in old.shards}
    assert send(other, direct).sent == 0


def test_an_older_version_does_not_go_over_a_newer_one(source: LocalStore, direct: Store) -> None:
    before = source.read(MANIFEST)
    make_set(source, 1, (60_000,), manifest.read_manifest(source))
    send(source, direct)
    source.write(MANIFEST, before)
    with pytest.raises(ValueError, match=r"has version 2 of this set and the source only 1: .* removed since"):
        send(source, direct)


def test_the_manifest_is_the_last_that_is_written_before_others_go(
    source: LocalStore, behind: Store, proxy: S3Proxy
) -> None:
    send(source, behind)
    writes = [request.split("?")[0] for request in proxy.requests if request.startswith(("PUT", "POST", "DELETE"))]
    assert writes[-1].endswith(MANIFEST)
    assert writes[-2].endswith(CARD)


def test_a_file_that_was_changed_is_refused_by_name_and_nothing_shows(source: LocalStore, direct: Store) -> None:
    path = source.folder / FOLDER / "train-000001.tar"
    data = bytearray(path.read_bytes())
    data[500_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"train-000001.tar is not what the manifest says"):
        send(source, direct)
    assert not direct.exists(MANIFEST)
    path.unlink()
    with pytest.raises(StoreError, match=r"train-000001.tar is named in the manifest and not there"):
        send(source, direct)


def test_an_object_that_somebody_changed_is_sent_again(source: LocalStore, direct: Store) -> None:
    send(source, direct)
    direct.write(FOLDER + "train-000002.tar", bytes(70_000))
    assert send(source, direct).sent == 1
    exactly(direct, manifest.read_manifest(source))


UPLOADING = [
    (What.SLOW_DOWN, "PUT .*train", 5),
    (What.RESET_REQUEST, "PUT", 5),
    (What.FLIP_REQUEST, "PUT .*train", 2),
    (What.LOSE_ANSWER, "P(UT|OST)", 4),
    (What.EXPIRED, "PUT .*train-000000", 1),
]


@pytest.mark.parametrize(("what", "match", "times"), UPLOADING, ids=[one[0].name for one in UPLOADING])
def test_what_goes_wrong_while_sending_leaves_no_trace(
    what: What, match: str, times: int, source: LocalStore, behind: Store, direct: Store, proxy: S3Proxy
) -> None:
    proxy.fail(what, match=match, times=times, at=20_000)
    send(source, behind)
    assert all(fault.times == 0 for fault in proxy.faults)
    assert direct.read(MANIFEST) == source.read(MANIFEST)
    exactly(direct, manifest.read_manifest(source))


READING = [
    (What.SLOW_DOWN, 5, 0),
    (What.RESET_RESPONSE, 5, 20_000),
    (What.SHORT, 5, 20_000),
    (What.TRUNCATE, 2, 20_000),
    (What.FLIP_RESPONSE, 2, 20_000),
    (What.DRIP, 2, 20_000),
    (What.EXPIRED, 1, 0),
]


@pytest.mark.parametrize(("what", "times", "at"), READING, ids=[one[0].name for one in READING])
def test_what_goes_wrong_while_reading_leaves_no_trace(
    what: What, times: int, at: int, source: LocalStore, behind: Store, direct: Store, proxy: S3Proxy, tmp_path: Path
) -> None:
    send(source, direct)
    proxy.fail(what, match="GET .*train-00000[02]", times=times, at=at)
    target = LocalStore(tmp_path / "target")
    send(behind, target)
    assert all(fault.times == 0 for fault in proxy.faults)
    exactly(target, manifest.read_manifest(source))


def test_an_object_that_stays_truncated_is_named(
    source: LocalStore, behind: Store, direct: Store, proxy: S3Proxy, tmp_path: Path
) -> None:
    send(source, direct)
    proxy.fail(What.TRUNCATE, match="GET .*train-000002", times=-1, at=60_000)
    target = LocalStore(tmp_path / "target")
    with pytest.raises(StoreError, match=r"set/shards/train-000002.tar"):
        send(behind, target)
    assert not target.exists(MANIFEST)


def test_a_bucket_that_vanishes_is_named_and_the_run_goes_on_once_it_is_back(
    source: LocalStore, behind: Store, direct: Store, proxy: S3Proxy
) -> None:
    proxy.fail(What.NO_BUCKET, match="PUT .*train-000001.*partNumber=2", times=-1)
    with pytest.raises(StoreError, match=r"there is no bucket for .*train-000001.tar: make it first"):
        send(source, behind)
    assert seen(direct) is None
    proxy.heal()
    proxy.requests.clear()
    send(source, behind)
    assert not [request for request in proxy.requests if "train-000001.tar?partNumber=1" in request]
    exactly(direct, manifest.read_manifest(source))


@pytest.mark.parametrize("end", ["target", "temporary"])
def test_a_full_disk_is_one_sentence(
    end: str, source: LocalStore, direct: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(small)], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        if end == "temporary":
            send(source, direct)
            monkeypatch.setattr("tempfile.tempdir", str(small))
        target = LocalStore(small / "target" if end == "target" else tmp_path / "target")
        with pytest.raises(
            StoreError, match=f"no space left in {small}.*: free some, then give the same command again"
        ):
            send(source if end == "target" else direct, target)
        assert seen(target) is None
    finally:
        monkeypatch.undo()
        subprocess.run(["umount", str(small)], check=True)


def test_metadata_alone(source: LocalStore, direct: Store) -> None:
    made = publish_metadata(source, direct, card, HOW)
    assert set(direct.list("")) == {CARD, METADATA, "shards/metadata.parquet"}
    assert (made.sent, made.bytes) == (1, 800)
    assert publish_metadata(source, direct, card, HOW).sent == 0
    with pytest.raises(manifest.ManifestError, match=r"no shards/manifest.json"):
        manifest.read_manifest(direct)
    make_set(source, 1, (60_000,), manifest.read_manifest(source))
    publish_metadata(source, direct, card, HOW)
    assert set(direct.list("")) == {CARD, METADATA, "shards/metadata-v2.parquet"}
    send(source, direct)  # and later the pictures too
    exactly(direct, manifest.read_manifest(source))
    with pytest.raises(ValueError, match="has a set with its pictures"):
        publish_metadata(source, direct, card, HOW)


def test_places_that_make_no_sense_are_refused(source: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is where the set is already"):
        send(source, LocalStore(source.folder))
    with pytest.raises(manifest.ManifestError, match=r"no shards/manifest.json in .*/empty"):
        send(LocalStore(tmp_path / "empty"), LocalStore(tmp_path / "target"))
    strange = LocalStore(tmp_path / "strange")
    strange.write("shards/thesis.docx", b"years of work")
    with pytest.raises(ValueError, match=r"has a shards/thesis.docx that is of no set"):
        send(source, strange)
    assert strange.exists("shards/thesis.docx")


def test_progress_is_told_in_files_and_bytes_up_to_the_whole(source: LocalStore, direct: Store) -> None:
    checked: list[tuple[int, int]] = []
    sent: list[tuple[int, int]] = []
    how = replace(HOW, checked=lambda *both: checked.append(both), sent=lambda *both: sent.append(both))
    publish(source, direct, card, how)
    whole = 50_000 + 600_000 + 70_000 + 1_500
    assert (checked[-1], sent[-1]) == ((5, 5), (whole, whole))
    assert sent == sorted(sent)


def test_an_exception_of_who_watches_ends_the_run_and_the_next_goes_on(source: LocalStore, direct: Store) -> None:
    def stop(total: int, done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(source, direct, card, replace(HOW, sent=stop))
    assert seen(direct) is None
    send(source, direct)
    exactly(direct, manifest.read_manifest(source))


_PUBLISHER = """
import sys
from shards.publish import publish
from shards.store import open_store
from shards.transfer import How
from tests.shards.test_publish import card, silent
how = How(checked=silent, sent=silent, part_bytes=5 << 20)
print("go", flush=True)
publish(open_store(sys.argv[1]), open_store(sys.argv[2], sys.argv[3]), card, how, replace_other=True)
"""


def run(source: Store, target: Store, endpoint_url: str) -> Callable[[float | None], bool]:
    """A publisher in a process of its own, killed after so many seconds; whether it came to its end before."""

    def once(seconds: float | None) -> bool:
        command = [sys.executable, "-c", _PUBLISHER, source.root, target.root, endpoint_url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        try:
            assert process.wait(seconds) == 0
            return True
        except subprocess.TimeoutExpired:
            return False
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    return once


@pytest.mark.slow
@pytest.mark.parametrize("other", [False, True], ids=["onto-its-older-version", "onto-another-set"])
def test_killed_at_any_moment_a_reader_sees_the_old_set_or_the_new_one(
    other: bool, tmp_path: Path, direct: Store, s3_server: S3Server
) -> None:
    chance = random.Random(7)
    before = LocalStore(tmp_path / "before")
    old = make_set(before, 900 if other else 1, (30_000, 40_000))
    source = LocalStore(tmp_path / "source")
    if not other:
        shutil.copytree(before.folder, source.folder)
    new = make_set(source, 1, (6_000_000, 11_000_000, 50_000, 12_000_000), None if other else old)
    publisher = run(source, direct, s3_server.endpoint_url)
    send(before, direct)
    states = [seen(direct)]
    kills = 0
    while kills < 15:
        if publisher(chance.uniform(0.0, 0.6)):
            assert seen(direct) == (new.set, new.version)
            for name in [MANIFEST, *direct.list("")]:
                direct.delete(name)
            send(before, direct)
        else:
            kills += 1
        states.append(seen(direct))
    assert set(states) <= {(old.set, old.version), (new.set, new.version)}
    assert publisher(None)
    exactly(direct, new)
    assert other or direct.read(MANIFEST) == source.read(MANIFEST)
    uploads = boto3.client("s3", endpoint_url=s3_server.endpoint_url).list_multipart_uploads(
        Bucket=direct.root.removeprefix("s3://").partition("/")[0]
    )
    assert not uploads.get("Uploads")
