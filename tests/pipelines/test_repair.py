"""What is broken is rebuilt from the originals, byte for byte, or said by name; nothing else is touched."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from curation import ledger, originals
from curation.folders import Folder
from curation.forgotten import Requests
from curation.records import url_key
from pipelines.forget import ForgetJob, forget
from pipelines.recipes import ShardRecipe
from pipelines.repair import Repaired, RepairJob, repair
from pipelines.shard import ShardJob, shard
from shards import entropy, index, manifest, tar
from shards.fsck import Kind, check
from shards.manifest import FOLDER, read_manifest
from shards.spool import sha256_of
from shards.store import LocalStore, Store, open_store
from tests.conftest import S3Server
from tests.jobs.test_filter_cli import contents
from tests.jobs.test_shard_cli import SIDE, filtered_store
from tests.pipelines.conftest import Stopped, StoppingStore, encoded, texture

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

PIXELS = 1 << 24


@dataclass(frozen=True)
class World:
    """A store with a ledger and shards of it and of a folder."""

    store: LocalStore
    folder: Path

    @property
    def folders(self) -> tuple[Folder, ...]:
        return (Folder(name="div2k", path=self.folder),)

    def job(self) -> RepairJob:
        return RepairJob(store=self.store, stores=(self.store,), folders=self.folders, max_pixels=PIXELS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> World:
    base = tmp_path_factory.mktemp("made")
    bodies = {f"http://{'ab'[n % 2]}.example/{n}.jpg": encoded(texture(n, SIDE, SIDE * (1 + n % 2))) for n in range(6)}
    store = filtered_store(base / "store", {**bodies, "http://c.example/9.png": encoded(texture(9), "PNG")})
    (base / "div2k").mkdir()
    for seed in (20, 21):
        (base / "div2k" / f"{seed}.jpg").write_bytes(encoded(texture(seed)))
    recipe = ShardRecipe(min_res=SIDE, max_shard_bytes=1_000_000)
    folders = (Folder(name="div2k", path=base / "div2k"),)
    job = ShardJob(store=store, stores=(store,), folders=folders, recipe=recipe, max_pixels=PIXELS)
    assert len(shard(job, lambda total, done: None).shards) >= 3
    return World(store=store, folder=base / "div2k")


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """A copy to damage."""
    shutil.copytree(made.store.folder, tmp_path / "store")
    shutil.copytree(made.folder, tmp_path / "div2k")
    return World(store=LocalStore(tmp_path / "store"), folder=tmp_path / "div2k")


def mend(world: World, **changes: object) -> Repaired:
    findings = check(world.store, lambda total, done: None)
    assert findings
    return repair(replace(world.job(), **changes), findings, lambda total, done: None)


def flip(store: Store, name: str, at: int) -> None:
    data = store.read(name)
    store.write(name, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def cut_short(store: Store, name: str) -> None:
    store.write(name, store.read(name)[:2000])


def shard_names(store: Store) -> list[str]:
    return [FOLDER + one.name for one in read_manifest(store).shards]


DAMAGES: dict[str, Callable[[Store, str], None]] = {
    "gone": lambda store, name: store.delete(name),
    "cut short": cut_short,
    "empty": lambda store, name: store.write(name, b"") and None,
    "a byte of a picture": lambda store, name: flip(store, name, 1000),
    "a byte of a header": lambda store, name: flip(store, name, 3),
    "a byte of the end": lambda store, name: flip(store, name, -1),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_broken_object_is_the_same_again(world: World, damage: Callable[[Store, str], None]) -> None:
    before = contents(world.store)
    known = read_manifest(world.store)
    for name in (shard_names(world.store)[0], shard_names(world.store)[-1]):
        damage(world.store, name)
    done = mend(world)
    assert (done.left, done.refused) == ((), {})
    assert contents(world.store) == before
    for part in (known.index, known.metadata):
        damage(world.store, FOLDER + part.name)
        done = mend(world)
        assert (done.left, done.refused) == ((), {})
        assert contents(world.store) == before


def as_of_earlier(store: LocalStore) -> None:
    """The set as a release left it whose patches did not say how long their rows are."""
    known = read_manifest(store)
    shards, tables = [], []
    for shard_, rows in zip(known.shards, index.read(store, known), strict=True):
        old = [(one.name, entropy.without_rows(one.data)) for one in tar.members(store.read(FOLDER + shard_.name))]
        path = store.folder / FOLDER / shard_.name
        placed = {one.name: one for one in tar.write(path, old)}
        entries = []
        for one in index.from_table(rows):
            data, text = placed[f"{one.sample}.{one.suffix}"], placed[f"{one.sample}.json"]
            places = {"data_offset": data.offset, "data_size": data.size, "json_offset": text.offset}
            entries.append(replace(one, digest=data.digest, json_size=text.size, **places))
        tables.append(index.to_table(entries))
        shards.append(replace(shard_, bytes=path.stat().st_size, sha256=sha256_of(path)))
    part = index.write(store, known.set, known.versions, tables)
    manifest.commit(store, replace(known, shards=tuple(shards), index=part))


def test_a_set_of_an_earlier_release_is_mended_with_its_own_bytes(world: World) -> None:
    newer = contents(world.store)
    as_of_earlier(world.store)
    assert check(world.store, lambda total, done: None) == []
    before, (first, *_) = contents(world.store), shard_names(world.store)
    assert before[first] != newer[first]
    world.store.delete(first)
    done = mend(world)
    assert (done.left, done.refused) == ((), {})
    assert contents(world.store) == before


def test_only_the_broken_shards_are_written(world: World) -> None:
    names = shard_names(world.store)
    flip(world.store, names[1], 1000)
    stamps = {name: (world.store.folder / name).stat().st_mtime_ns for name in names}
    done = mend(world)
    assert done.mended == (names[1],)
    assert [name for name in names if (world.store.folder / name).stat().st_mtime_ns != stamps[name]] == [names[1]]


def test_everything_at_once(world: World) -> None:
    before = contents(world.store)
    known = read_manifest(world.store)
    for name in shard_names(world.store):
        flip(world.store, name, 700)
    world.store.write(FOLDER + "train-000077.tar", b"of a killed run")
    world.store.delete(FOLDER + known.metadata.name)
    done = mend(world)
    assert (done.left, done.refused) == ((), {})
    assert contents(world.store) == before


def test_an_altered_description_is_rebuilt_although_it_can_be_read(world: World) -> None:
    before = contents(world.store)
    entry = index.from_table(index.read_one(world.store, read_manifest(world.store), 0))[0]
    data = world.store.read(shard_names(world.store)[0])
    at = data.index(b'"niqe":3.0', entry.json_offset) + 7
    flip(world.store, shard_names(world.store)[0], at)
    assert mend(world).left == ()
    assert contents(world.store) == before


def test_samples_that_are_whole_need_no_original(world: World) -> None:
    before = contents(world.store)
    entries = index.from_table(index.read_one(world.store, read_manifest(world.store), 0))
    flip(world.store, shard_names(world.store)[0], entries[0].data_offset + 50)
    bodies = dict(originals.read(world.store, "chunk-00000000"))
    originals.remove(world.store, "chunk-00000000", bodies.keys() - {entries[0].key})
    assert mend(world).left == ()
    assert {n: d for n, d in contents(world.store).items() if n.startswith(FOLDER)} == {
        n: d for n, d in before.items() if n.startswith(FOLDER)
    }


def test_what_cannot_be_rebuilt_is_said_and_left_as_it_was(world: World) -> None:
    names = shard_names(world.store)
    entries = index.from_table(index.read_one(world.store, read_manifest(world.store), 0))
    originals.remove(world.store, "chunk-00000000", {entries[0].key})
    flip(world.store, names[0], entries[0].data_offset + 50)
    flip(world.store, names[1], 700)
    damaged = world.store.read(names[0])
    done = mend(world)
    assert done.mended == (names[1],)
    assert "1 samples can't be had" in done.refused[names[0]]
    assert entries[0].key in done.refused[names[0]]
    assert "lacks 1 pictures" in done.refused[names[0]]
    assert {one.name for one in done.left} == {names[0]}
    assert world.store.read(names[0]) == damaged


def test_an_original_that_changed_is_no_original(world: World) -> None:
    known = read_manifest(world.store)
    number = next(
        n for n in range(len(known.shards)) if "div2k" in index.read_one(world.store, known, n)["source"].to_pylist()
    )
    for path in world.folder.iterdir():
        path.write_bytes(encoded(texture(77)))
    world.store.delete(shard_names(world.store)[number])
    done = mend(world)
    assert "its bytes are not those of the ledger any more" in done.refused[shard_names(world.store)[number]]


def test_another_source_in_the_place_of_one_gives_nothing(world: World, tmp_path: Path) -> None:
    other = filtered_store(tmp_path / "other", {"http://a.example/0.jpg": encoded(texture(55))})
    world.store.delete(shard_names(world.store)[0])
    done = mend(world, stores=(other,))
    assert "its bytes are not those of the ledger any more" in done.refused[shard_names(world.store)[0]]
    none = mend(world, stores=(), folders=())
    assert "no source given has their pictures" in none.refused[shard_names(world.store)[0]]
    assert not world.store.exists(shard_names(world.store)[0])


def test_more_scores_in_the_ledger_change_no_shard(world: World) -> None:
    """What a description says is what the metadata says, not what the ledger came to know since."""
    before = world.store.read(shard_names(world.store)[0])
    rows = [replace(row, scores={**row.scores, "nima": 5.0}) for row in ledger.read(world.store, "chunk-00000000")]
    ledger.write(world.store, "chunk-00000000", rows, ("niqe", "nima"), {})
    world.store.delete(shard_names(world.store)[0])
    assert mend(world).left == ()
    assert world.store.read(shard_names(world.store)[0]) == before


def test_a_shard_and_the_index_together_cannot_be_had(world: World) -> None:
    known = read_manifest(world.store)
    world.store.delete(FOLDER + known.index.name)
    world.store.delete(shard_names(world.store)[0])
    done = mend(world)
    assert done.refused[shard_names(world.store)[0]] == "the index can't be read"
    assert "is not whole" in done.refused[FOLDER + known.index.name]


@pytest.mark.parametrize("purge", [False, True])
def test_a_set_with_forgotten_pictures_is_mended_as_it_is(world: World, purge: bool) -> None:
    asked = Requests(keys=frozenset({url_key("http://b.example/1.jpg")}), hosts=frozenset({"c.example"}))
    forget(ForgetJob(store=world.store, asked=asked, purge=purge), lambda total, done: None)
    before = contents(world.store)
    known = read_manifest(world.store)
    for name in shard_names(world.store):
        world.store.delete(name)
    assert mend(world).left == ()
    assert contents(world.store) == before
    for part in (known.index, known.metadata):
        world.store.delete(FOLDER + part.name)
        assert mend(world).left == ()
        assert contents(world.store) == before
    assert known.tombstones is not None
    world.store.delete(FOLDER + known.tombstones.name)
    assert [(one.kind, one.name) for one in mend(world).left] == [(Kind.MISSING, FOLDER + known.tombstones.name)]


def test_an_index_that_was_never_right_becomes_a_new_version(world: World) -> None:
    known = read_manifest(world.store)
    tables = list(index.read(world.store, known))
    part = index.write(world.store, known.set, known.versions, [tables[0].slice(1), *tables[1:]])
    manifest.commit(world.store, replace(known, index=part))
    done = mend(world)
    assert done.left == ()
    now = read_manifest(world.store)
    assert (now.version, now.index.name, now.index.sha256) == (2, "index-v2.parquet", known.index.sha256)
    assert check(world.store, lambda total, done: None) == []


def test_it_works_on_s3(world: World, s3_server: S3Server) -> None:
    store = open_store(f"{s3_server.bucket('repair')}/a/set", s3_server.endpoint_url)
    for name, data in contents(world.store).items():
        store.write(name, data)
    names = shard_names(store)
    store.delete(names[0])
    flip(store, names[1], 900)
    findings = check(store, lambda total, done: None)
    job = RepairJob(store=store, stores=(store,), folders=world.folders, max_pixels=PIXELS)
    assert repair(job, findings, lambda total, done: None).left == ()
    assert {name: store.read(name) for name in store.list("")} == contents(world.store)


def test_stopped_before_each_of_its_writes_the_next_run_mends_the_rest(world: World, tmp_path: Path) -> None:
    before = contents(world.store)
    for name in shard_names(world.store)[:2]:
        world.store.delete(name)
    flip(world.store, FOLDER + read_manifest(world.store).metadata.name, 50)
    world.store.write(FOLDER + "train-000077.tar", b"of a killed run")
    for limit in itertools.count():
        folder = Path(shutil.copytree(world.store.folder, tmp_path / f"stopped-{limit}"))
        stopping = World(store=StoppingStore(folder, tmp_path / f"count-{limit}", limit), folder=world.folder)
        try:
            mend(stopping)
            break
        except Stopped:
            mend(World(store=LocalStore(folder), folder=world.folder))
        assert contents(LocalStore(folder)) == before, limit
    assert limit == 4
