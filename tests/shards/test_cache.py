"""Shards on the local disk: whole and checked, within the limit, once for all processes, never a need."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from shards import index, tar
from shards.ahead import ReadAhead
from shards.cache import Cache, WrongBytes, is_checked
from shards.manifest import FOLDER, Manifest, OtherSet, commit
from shards.reader import Reader
from shards.store import LocalStore, StoreError
from tests.sets import write_set


@dataclass(frozen=True)
class Watched(LocalStore):
    """A store that counts what is read of each object."""

    reads: Counter[str] = field(default_factory=Counter, hash=False)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        self.reads[name] += 1
        return super().read(name, start, length)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "set")


@pytest.fixture
def made(store: Watched) -> Manifest:
    return write_set(store, [20, 20, 20, 20], size=32)


def cache_of(tmp_path: Path, limit: int = 10**9) -> Cache:
    return Cache(folder=tmp_path / "cache", limit=limit)


def held(cache: Cache) -> int:
    return sum(path.stat().st_size for path in cache.folder.glob("*.tar"))


def test_a_shard_is_fetched_once_and_whole(store: Watched, made: Manifest, tmp_path: Path) -> None:
    cache, shard = cache_of(tmp_path), made.shards[0]
    assert cache.find(shard) is None
    assert cache.fetch(store, shard)
    assert cache.fetch(store, shard)
    found = cache.find(shard)
    assert found is not None
    assert found.read_bytes() == store.read(FOLDER + shard.name)
    assert store.reads[FOLDER + shard.name] == 2  # one of them this test's


def test_the_longest_unused_shard_makes_room(store: Watched, made: Manifest, tmp_path: Path) -> None:
    size = max(shard.bytes for shard in made.shards)
    cache = cache_of(tmp_path, limit=2 * size)
    for number, shard in enumerate(made.shards[:2]):
        assert cache.fetch(store, shard)
        path = cache.find(shard)
        assert path is not None
        os.utime(path, (1000 + number, 1000 + number))
    cache.find(made.shards[0])  # used again
    assert cache.fetch(store, made.shards[2])
    assert [cache.find(shard) is not None for shard in made.shards[:3]] == [True, False, True]
    assert held(cache) <= cache.limit


def test_a_shard_over_the_limit_is_left_where_it_is(store: Watched, made: Manifest, tmp_path: Path) -> None:
    cache = cache_of(tmp_path, limit=made.shards[0].bytes - 1)
    assert not cache.fetch(store, made.shards[0])
    assert not cache.folder.exists()


def test_other_bytes_than_the_manifests_are_asked_for_again_and_then_refused(
    store: Watched, made: Manifest, tmp_path: Path
) -> None:
    wrong = replace(made.shards[0], sha256="0" * 64)
    with pytest.raises(WrongBytes, match=r"train-000000\.tar has SHA-256 .*, the manifest 000"):
        cache_of(tmp_path).fetch(store, wrong)
    assert store.reads[FOLDER + wrong.name] == 3
    assert not [*cache_of(tmp_path).folder.glob("*.tar"), *cache_of(tmp_path).folder.glob(".tmp-*")]


def test_a_missing_shard_is_said(store: Watched, made: Manifest, tmp_path: Path) -> None:
    store.delete(FOLDER + made.shards[0].name)
    with pytest.raises(FileNotFoundError):
        cache_of(tmp_path).fetch(store, made.shards[0])


def _fetch_all(root: Path, folder: Path, made: Manifest) -> None:
    cache = Cache(folder=folder, limit=made.shards[0].bytes * 2 + 1000)
    for _ in range(3):
        for shard in made.shards:
            cache.fetch(LocalStore(root), shard)
            path = cache.find(shard)
            if path is not None:
                with contextlib.suppress(FileNotFoundError):  # another made room
                    assert len(path.read_bytes()) == shard.bytes


def test_many_processes_share_it(store: Watched, made: Manifest, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fetch_all, args=(store.folder, tmp_path / "cache", made)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert held(cache_of(tmp_path)) <= made.shards[0].bytes * 2 + 1000
    assert not list((tmp_path / "cache").glob(".tmp-*"))


def test_room_is_taken_before_the_first_byte_comes(store: Watched, made: Manifest, tmp_path: Path) -> None:
    cache = cache_of(tmp_path, limit=2 * made.shards[0].bytes + 100)
    most = 0

    @dataclass(frozen=True)
    class Slow(LocalStore):
        def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
            time.sleep(0.2)
            return super().read(name, start, length)

    with ThreadPoolExecutor(4) as threads:
        flying = [threads.submit(cache.fetch, Slow(store.folder), shard) for shard in made.shards]
        while not all(one.done() for one in flying):
            most = max(most, sum(path.stat().st_size for path in cache.folder.glob("*[0-9a-z_].tar")))
            time.sleep(0.01)
    assert sorted(one.result() for one in flying) == [False, False, True, True]
    assert max(most, held(cache)) <= cache.limit


def test_a_shard_that_went_bad_here_is_let_go(store: Watched, made: Manifest, tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    cache.fetch(store, made.shards[0])
    path = cache.find(made.shards[0])
    assert path is not None
    path.write_bytes(b"")
    reader = Reader(store, made, cache)
    expected = index.from_table(next(index.read(store, made)))[3]
    assert tar.digest(reader.sample(0, 3).data) == expected.digest
    assert cache.find(made.shards[0]) is None


def test_what_was_checked_on_arrival_is_not_checked_again_until_somebody_writes(
    store: Watched, made: Manifest, tmp_path: Path
) -> None:
    cache, shard = cache_of(tmp_path), made.shards[0]
    assert cache.open(shard) is None
    cache.fetch(store, shard)
    path, file = cache.find(shard), cache.open(shard)
    assert path is not None and file is not None
    assert os.pread(file, 9, 512) == path.read_bytes()[512:521]
    assert is_checked(file)
    with path.open("r+b") as written:
        written.write(b"x")
    assert not is_checked(file)
    os.close(file)
    assert not cache.doubt(shard)


def test_a_checked_shard_whose_samples_do_not_decode_is_doubted(store: Watched, made: Manifest, tmp_path: Path) -> None:
    """A disk that errs changes no times."""
    cache, shard = cache_of(tmp_path), made.shards[0]
    cache.fetch(store, shard)
    path = cache.find(shard)
    assert path is not None
    before = path.stat()
    expected = index.from_table(next(index.read(store, made)))[3]
    with path.open("r+b") as file:
        file.seek(expected.data_offset)
        file.write(b"?" * expected.data_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    reader = Reader(store, made, cache)
    assert reader.sample(0, 3).data == b"?" * expected.data_size
    assert reader.doubt(0)
    assert not reader.doubt(0)
    assert tar.digest(reader.sample(0, 3).data) == expected.digest
    assert cache.find(shard) is None


def test_another_set_with_an_index_as_long_as_the_one_before_is_noticed(store: Watched, made: Manifest) -> None:
    reader, other = Reader(store, made, None), "0" * 16
    part = index.write(store, other, made.versions, list(index.read(store, made)))
    assert part.bytes == made.index.bytes
    commit(store, replace(made, set=other, index=part))
    with pytest.raises(OtherSet, match="was made anew: begin anew"):
        reader.sample(0, 3)


class Remote:
    """The set where it has to be asked for over a network: the first sample that is asked for comes damaged."""

    def __init__(self, behind: LocalStore) -> None:
        self.root, self.size, self._behind = "far://set", behind.size, behind
        self._damages = True

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        data = self._behind.read(name, start, length)
        if self._damages and name.endswith(".tar"):
            self._damages = False
            return bytes(len(data))
        return data


def test_a_shard_is_kept_where_it_was_the_network_that_gave_other_bytes(
    store: Watched, made: Manifest, tmp_path: Path
) -> None:
    cache = cache_of(tmp_path)
    reader = Reader(Remote(store), made, cache)
    reader.fetch([(0, 3)])
    assert cache.fetch(store, made.shards[0])  # after the bytes were asked for
    expected = index.from_table(next(index.read(store, made)))[3]
    assert tar.digest(reader.sample(0, 3).data) == expected.digest
    assert cache.find(made.shards[0]) is not None


def test_a_cache_that_can_not_be_touched_is_none(store: Watched, made: Manifest, tiny_disk: Path) -> None:
    cache = Cache(folder=tiny_disk, limit=10**9)
    (tiny_disk / f"{made.shards[0].sha256[:32]}.tar").write_bytes(b"")
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    assert cache.find(made.shards[0]) is None
    assert len(Reader(store, made, cache).sample(0, 0).data) > 100


def test_read_ahead_brings_again_what_was_let_go(store: Watched, made: Manifest, tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    ahead = ReadAhead(store, cache)
    ahead.want(made.shards[:2])
    wait_for(lambda: cache.find(made.shards[0]) and cache.find(made.shards[1]))
    cache.drop(made.shards[1])
    assert cache.find(made.shards[1]) is None
    ahead.want(made.shards[1:3])
    wait_for(lambda: cache.find(made.shards[1]) and cache.find(made.shards[2]))
    ahead.close()
    assert [store.reads[FOLDER + shard.name] for shard in made.shards] == [1, 2, 1, 0]
    assert not ahead.troubles


def test_what_a_killed_process_left_goes_in_time(store: Watched, made: Manifest, tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    cache.folder.mkdir()
    for name, age in (("old", 7200), ("new", 10)):
        (cache.folder / f".tmp-{name}").write_bytes(b"half a shard")
        os.utime(cache.folder / f".tmp-{name}", (time.time() - age,) * 2)
    cache.fetch(store, made.shards[0])
    assert [path.name for path in cache.folder.glob(".tmp-*")] == [".tmp-new"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("can't mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def wait_for(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_the_disk_has_no_room_for_is_not_asked_for(store: Watched, made: Manifest, tiny_disk: Path) -> None:
    (tiny_disk / "others").write_bytes(bytes(60_000))
    cache = Cache(folder=tiny_disk / "cache", limit=10**9)
    assert not cache.fetch(store, made.shards[0])
    assert store.reads[FOLDER + made.shards[0].name] == 0
    assert not list(cache.folder.glob("*.tar"))


def test_a_disk_that_others_fill_ends_reading_ahead_and_nothing_else(
    store: Watched, made: Manifest, tiny_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    others = tiny_disk / "others"

    @dataclass(frozen=True)
    class Late(LocalStore):
        """There was room when the shard was begun, and there is none when its bytes come."""

        def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
            others.write_bytes(bytes(shutil.disk_usage(tiny_disk).free))
            return super().read(name, start, length)

    cache = Cache(folder=tiny_disk / "cache", limit=10**9)
    ahead = ReadAhead(Late(store.folder), cache)
    ahead.want(made.shards[:1])
    wait_for(lambda: ahead.troubles)
    assert "cache: no space left, samples are read from" in ahead.troubles["cache"]
    assert "no space left" in caplog.text
    others.unlink()
    ahead.want(made.shards)
    time.sleep(0.2)
    assert not [*cache.folder.glob("*.tar"), *cache.folder.glob(".tmp-*")]
    assert len(Reader(store, made, cache).sample(0, 0).data) > 100


def test_read_ahead_brings_what_is_wanted_in_its_order(store: Watched, made: Manifest, tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    ahead = ReadAhead(store, cache)
    ahead.want(made.shards[1:3])
    wait_for(lambda: cache.find(made.shards[1]) and cache.find(made.shards[2]))
    assert cache.find(made.shards[0]) is None
    ahead.want(made.shards[:1])
    wait_for(lambda: cache.find(made.shards[0]))
    ahead.close()
    assert not ahead.troubles


def test_read_ahead_asks_for_no_more_than_fits(store: Watched, made: Manifest, tmp_path: Path) -> None:
    cache = cache_of(tmp_path, limit=made.shards[0].bytes + made.shards[1].bytes)
    ahead = ReadAhead(store, cache)
    ahead.want(made.shards)
    wait_for(lambda: cache.find(made.shards[0]) and cache.find(made.shards[1]))
    time.sleep(0.2)
    assert store.reads[FOLDER + made.shards[2].name] == 0
    ahead.close()


def test_what_can_not_be_brought_is_named_and_the_rest_comes(
    store: Watched, made: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.delete(FOLDER + made.shards[0].name)
    cache = cache_of(tmp_path)
    ahead = ReadAhead(store, cache)
    ahead.want([made.shards[0], replace(made.shards[1], sha256="0" * 64), made.shards[2]])
    wait_for(lambda: cache.find(made.shards[2]) and len(ahead.troubles) == 2)
    ahead.close()
    assert set(ahead.troubles) == {made.shards[0].name, made.shards[1].name}
    assert "the manifest 000" in caplog.text


def test_a_folder_that_can_not_be_written_ends_it_with_a_word(store: Watched, made: Manifest, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    ahead = ReadAhead(store, cache_of(tmp_path))
    ahead.want(made.shards)
    wait_for(lambda: ahead.troubles)
    assert "samples are read from" in ahead.troubles["cache"]


@dataclass(frozen=True)
class Broken(LocalStore):
    """A store that can't be reached."""

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        raise StoreError(f"{name} can't be had")


def test_a_store_that_can_not_be_reached_is_named(made: Manifest, store: Watched, tmp_path: Path) -> None:
    ahead = ReadAhead(Broken(store.folder), cache_of(tmp_path))
    ahead.want(made.shards[:1])
    wait_for(lambda: ahead.troubles)
    ahead.close()
    assert "can't be had" in ahead.troubles[made.shards[0].name]
