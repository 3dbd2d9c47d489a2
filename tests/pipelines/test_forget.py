"""Forgotten pictures leave the set, the ledger and, purged, every tar; the others keep order, slots and bytes."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from curation import forgotten, ledger, originals, rejects
from curation.forgotten import Requests
from curation.records import Reason, Row, Stage, url_key
from pipelines.filter_laion import run
from pipelines.forget import ForgetJob, Forgot, forget
from pipelines.recipes import ShardRecipe
from pipelines.shard import ShardJob, shard
from shards import fsck, index, manifest, parquet, tar, tombstones
from shards.format import from_json
from shards.manifest import FOLDER, Manifest, read_manifest
from shards.store import LocalStore, Store
from tests.jobs.test_filter_cli import contents
from tests.jobs.test_shard_cli import SIDE, filtered_store
from tests.pipelines.conftest import Stopped, StoppingStore, World, encoded, rows_of, texture
from tests.sets import url, write_set

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

NOBODY = Requests()


def forgets(store: Store, asked: Requests, purge: bool = False) -> Forgot:
    return forget(ForgetJob(store=store, asked=asked, purge=purge), lambda total, done: None)


def links(*numbers: int) -> Requests:
    return Requests(keys=frozenset(url_key(url(number)) for number in numbers))


def alive(store: Store, known: Manifest) -> list[tuple[int, int, str, str]]:
    """(shard, slot, sample, digest of its bytes as they are in the tar) of what an epoch can yield."""
    dead = {(shard, slot) for shard, slot, _ in tombstones.read(store, known).tolist()}
    found = []
    for table in index.read(store, known):
        for one in index.from_table(table):
            data = store.read(FOLDER + known.shards[one.shard].name, one.data_offset, one.data_size)
            found += [(one.shard, one.slot, one.sample, tar.digest(data))] if (one.shard, one.slot) not in dead else []
    return found


@pytest.mark.parametrize("purge", [False, True])
def test_the_others_keep_their_order_slots_and_bytes(store: Store, purge: bool) -> None:
    made = write_set(store, [5, 4, 3])
    before = alive(store, made)
    done = forgets(store, links(1, 6, 7), purge)
    gone = {url_key(url(number)) for number in (1, 6, 7)}
    now = read_manifest(store)
    assert {one.key for one in done.gone} == gone
    assert (done.before, done.version, now.version, now.samples) == (1, 2, 2, 9)
    assert alive(store, now) == [one for one in before if one[2][:16] not in gone]
    assert [shard.slots for shard in now.shards] == [5, 4, 3]
    assert [shard.samples for shard in now.shards] == ([4, 2, 3] if purge else [5, 4, 3])
    described = [row["key"] for table in parquet.read(store, now.metadata) for row in table.to_pylist()]
    assert len(described) == 9
    assert not gone & set(described)
    assert manifest.at_version(now, 1).samples == 12  # a run that began on it knows what it had
    assert fsck.check(store, lambda total, done: None) == []


def test_purged_tars_have_new_names_and_nothing_of_what_is_gone(store: Store) -> None:
    made = write_set(store, [5, 4, 3])
    old = {shard.name: store.read(FOLDER + shard.name) for shard in made.shards}
    forgets(store, links(1), purge=True)
    now = read_manifest(store)
    assert [one.name for one in now.shards] == ["train-000000-v2.tar", "train-000001.tar", "train-000002.tar"]
    assert store.read(FOLDER + "train-000001.tar") == old["train-000001.tar"]
    names = [one.name for one in tar.members(store.read(FOLDER + "train-000000-v2.tar"))]
    stay = [one.name for one in tar.members(old["train-000000.tar"]) if not one.name.startswith(url_key(url(1)))]
    assert names == stay
    everything = [store.read(name) for name in store.list("")]
    key = url_key(url(1)).encode()
    assert [name for name, data in zip(store.list(""), everything, strict=True) if key in data and FOLDER in name] == []
    forgets(store, links(2), purge=True)
    assert read_manifest(store).shards[0].name == "train-000000-v3.tar"
    assert fsck.check(store, lambda total, done: None) == []


def test_a_purge_takes_what_was_only_removed_before_and_an_empty_shard_stays_a_place(store: Store) -> None:
    write_set(store, [2, 4])
    forgets(store, links(0, 1, 3))
    assert [one.samples for one in read_manifest(store).shards] == [2, 4]
    done = forgets(store, NOBODY, purge=True)
    now = read_manifest(store)
    assert (done.version, done.purged, done.gone) == (3, 2, ())
    assert [(one.samples, one.slots) for one in now.shards] == [(0, 2), (3, 4)]
    assert fsck.check(store, lambda total, done: None) == []
    assert [version.tombstones for version in now.versions] == [0, 3, 3]
    assert tombstones.read(store, now)[:, 2].tolist() == [2, 2, 2]


@pytest.mark.parametrize("purge", [False, True])
def test_again_changes_nothing(tmp_path: Path, purge: bool) -> None:
    store = LocalStore(tmp_path / "store")
    write_set(store, [5, 4])
    forgets(store, links(1, 2), purge)
    before = contents(store)
    done = forgets(store, links(1, 2), purge)
    assert (done.before, done.version, done.gone) == (2, 2, ())
    assert contents(store) == before


def test_hosts_and_hashes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    write_set(store, [6, 6])  # on three hosts in turn
    done = forgets(store, Requests(hosts=frozenset({"a.example"}), sha256=frozenset({f"{4:064x}"})))
    assert sorted(one.url for one in done.gone) == sorted(url(number) for number in (0, 3, 4, 6, 9))


@pytest.fixture
def filtered(tmp_path: Path) -> LocalStore:
    """A store with a ledger, originals, a thumbnail and shards; one URL of it twice, under two links."""
    bodies = {
        f"http://{host}.example/{seed}.jpg": encoded(texture(seed, SIDE, 2 * SIDE)) for seed, host in enumerate("abc")
    }
    store = filtered_store(
        tmp_path / "store", {**bodies, "http://copy.example/0.jpg": bodies["http://a.example/0.jpg"]}
    )
    rows = ledger.read(store, "chunk-00000000")
    rows[3] = replace(rows[3], reason=Reason.DUPLICATE_EXACT, stage=Stage.DUPLICATES)
    rows.append(refused(rows[1], "http://a.example/small.jpg"))
    ledger.write(store, "chunk-00000000", rows, ("niqe",), {})
    thumbnails = tmp_path / "thumbnails.tar"
    tar.write(thumbnails, [(f"{rows[4].link.key}.jpg", b"small")])
    store.write(rejects.tar_name("chunk-00000000"), thumbnails)
    shard(job(store), lambda total, done: None)
    return store


def refused(row: Row, link: str) -> Row:
    return replace(
        row,
        link=replace(row.link, position=4, key=url_key(link), url=link),
        sha256="ef" * 32,
        reason=Reason.TOO_SMALL,
        stage=Stage.JUDGE,
        stored=False,
    )


def job(store: LocalStore, *more: LocalStore) -> ShardJob:
    return ShardJob(
        store=store, stores=(store, *more), folders=(), recipe=ShardRecipe(min_res=SIDE), max_pixels=1 << 24
    )


def urls_of(store: LocalStore) -> set[str]:
    known = read_manifest(store)
    found = set[str]()
    for number, table in enumerate(index.read(store, known)):
        dead = {slot for at, slot, _ in tombstones.read(store, known).tolist() if at == number}
        for one in index.from_table(table):
            if one.slot not in dead:
                text = store.read(FOLDER + known.shards[number].name, one.json_offset, one.json_size)
                found.add(from_json(text).url)
    return found


def test_a_link_takes_its_bytes_under_other_links_and_purging_the_originals_with_it(filtered: LocalStore) -> None:
    done = forgets(filtered, Requests(keys=frozenset({url_key("http://copy.example/0.jpg")})))
    assert [one.url for one in done.gone] == ["http://a.example/0.jpg"]
    rows = {row.link.url: row for row in ledger.read(filtered, "chunk-00000000")}
    ended = {link for link, row in rows.items() if row.reason is Reason.FORGOTTEN}
    assert ended == {"http://a.example/0.jpg", "http://copy.example/0.jpg"}
    assert len(dict(originals.read(filtered, "chunk-00000000"))) == 4
    forgets(filtered, NOBODY, purge=True)
    left = dict(originals.read(filtered, "chunk-00000000"))
    assert set(left) == {url_key("http://b.example/1.jpg"), url_key("http://c.example/2.jpg")}
    assert not any(row.stored for row in ledger.read(filtered, "chunk-00000000") if row.reason is Reason.FORGOTTEN)
    assert ledger.about(filtered, "chunk-00000000") == {}
    assert fsck.check(filtered, lambda total, done: None) == []


def test_a_host_takes_its_thumbnails_of_refused_pictures(filtered: LocalStore) -> None:
    done = forgets(filtered, Requests(hosts=frozenset({"a.example"})), purge=True)
    assert (done.rows, done.originals) == (2, 2)
    assert dict(rejects.read(filtered, "chunk-00000000")) == {}


@pytest.mark.parametrize("purge", [False, True])
def test_no_later_run_brings_it_back(filtered: LocalStore, tmp_path: Path, purge: bool) -> None:
    forgets(filtered, Requests(keys=frozenset({url_key("http://a.example/0.jpg")})), purge)
    before = read_manifest(filtered)
    assert shard(job(filtered), lambda total, done: None) == before  # made of the same pictures: nothing to do
    again = {
        "http://d.example/0.jpg": encoded(texture(0, SIDE, 2 * SIDE)),
        "http://d.example/9.jpg": encoded(texture(9)),
    }
    more = filtered_store(tmp_path / "more", again)
    grown = shard(job(filtered, more), lambda total, done: None)
    assert (grown.set, grown.version) == (before.set, 3)
    assert urls_of(filtered) == {"http://b.example/1.jpg", "http://c.example/2.jpg", "http://d.example/9.jpg"}
    assert fsck.check(filtered, lambda total, done: None) == []
    filtered.delete(manifest.MANIFEST)
    anew = shard(job(filtered, more), lambda total, done: None)
    assert (anew.version, anew.samples) == (1, 5)
    assert "http://d.example/0.jpg" not in urls_of(filtered)


def test_a_store_without_shards_forgets_too_and_one_with_nothing_says_so(tmp_path: Path) -> None:
    store = filtered_store(tmp_path / "store", {"http://a.example/1.jpg": encoded(texture(1))})
    done = forgets(store, Requests(hosts=frozenset({"a.example"})), purge=True)
    assert (done.version, done.rows, done.originals) == (None, 1, 1)
    assert list(store.list("images/")) == []
    with pytest.raises(ValueError, match="neither shards nor a ledger"):
        forgets(LocalStore(tmp_path / "empty"), NOBODY, purge=True)


def test_a_damaged_shard_is_not_purged(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    write_set(store, [4])
    data = store.read(FOLDER + "train-000000.tar")
    store.write(FOLDER + "train-000000.tar", data[:700] + b"?" + data[701:])
    with pytest.raises(ValueError, match="fsck --repair first"):
        forgets(store, links(1), purge=True)
    assert read_manifest(store).version == 1


def test_the_filter_does_not_fetch_what_was_forgotten_and_keeps_none_of_its_bytes(world: World) -> None:
    bodies = [encoded(texture(seed)) for seed in (1, 2, 3)]
    urls = [world.serve(f"{at}.jpg", body) for at, body in enumerate(bodies)]
    work = world.job()
    asked = Requests(keys=frozenset({url_key(urls[0])}), sha256=frozenset({hashlib.sha256(bodies[1]).hexdigest()}))
    forgotten.write(work.store, asked)
    run(work, lambda rows, so_far: None)
    rows = {row.link.url: row for row in rows_of(work.store)}
    assert [rows[one].reason for one in urls] == [Reason.FORGOTTEN, Reason.FORGOTTEN, Reason.KEPT]
    assert [rows[one].attempts for one in urls] == [0, 1, 1]
    assert set(dict(originals.read(work.store, "chunk-00000000"))) == {url_key(urls[2])}


def test_stopped_before_each_of_its_writes_the_next_run_ends_where_an_undisturbed_one_does(
    filtered: LocalStore, tmp_path: Path
) -> None:
    shutil.copytree(filtered.folder, tmp_path / "calm")
    asked = Requests(hosts=frozenset({"a.example"}))
    calm = LocalStore(tmp_path / "calm")
    forgets(calm, asked, purge=True)
    for limit in itertools.count():
        folder = Path(shutil.copytree(filtered.folder, tmp_path / f"stopped-{limit}"))
        try:
            forgets(StoppingStore(folder, tmp_path / f"count-{limit}", limit), asked, purge=True)
            break
        except Stopped:
            known = read_manifest(LocalStore(folder))
            assert all(LocalStore(folder).exists(FOLDER + one.name) for one in known.files)
        forgets(LocalStore(folder), asked, purge=True)
        assert contents(LocalStore(folder)) == contents(calm), limit
    assert limit >= 8
