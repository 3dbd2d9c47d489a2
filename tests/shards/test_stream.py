"""The stream gives the same global batches whatever the ranks and workers, from any step on, and loses nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shards import index, manifest, removal, tombstones
from shards.epochs import Epochs
from shards.manifest import FOLDER, Manifest, ManifestError, Shard, Version, commit
from shards.order import Order, shuffled
from shards.sequence import Position
from shards.store import LocalStore, S3Store
from shards.stream import Batch, Cache, Plan, Stream, StreamError
from tests.conftest import S3Server
from tests.sets import write_set

PLAN = Plan(batch=24, window=40, crop=16, seed=5)
COUNTS = [29, 31, 17, 40, 23]  # 140 samples: five batches of 24, and a tail of 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    store = LocalStore(tmp_path_factory.mktemp("set"))
    write_set(store, COUNTS, size=32)
    return store


def opened(root: object, world: int = 1, workers: int = 0, **changes: Any) -> list[Stream]:
    settings = {"plan": PLAN} | changes
    plan = settings.pop("plan")
    return [Stream(str(root), plan, rank=rank, world=world, workers=workers, **settings) for rank in range(world)]


def together(parts: Sequence[Batch]) -> str:
    """SHA-256 of a global batch: pixels and names, in the order of the ranks."""
    named = repr([pair for part in parts for pair in zip(part.samples, part.epochs, strict=True)])
    pixels = torch.cat([part.pixels for part in parts])
    return hashlib.sha256(named.encode() + pixels.numpy().tobytes()).hexdigest()


def batches(streams: Sequence[Stream], most: int, epochs: int = 3) -> Iterator[list[Batch]]:
    """Global batches, `most` of them; every rank must have equally many in each epoch."""
    for _ in range(epochs):
        for parts in zip(*streams, strict=True):
            yield list(parts)
            most -= 1
            if not most:
                return


@pytest.fixture(scope="module")
def undisturbed(made: LocalStore) -> tuple[list[str], list[dict[str, Any]]]:
    """The global batches of two epochs and more, and the state after each."""
    [stream] = opened(made.root)
    hashes, states = [], []
    for parts in batches([stream], most=16):
        hashes.append(together(parts))
        states.append(stream.state_dict())
    return hashes, states


GRID = [
    pytest.param(world, workers, marks=[pytest.mark.slow] if world * workers > 4 else [])
    for world in (1, 2, 3, 4, 8)
    for workers in (0, 1, 2, 4)
]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize(("world", "workers"), GRID)
def test_a_run_stopped_at_any_step_goes_on_with_other_ranks_and_workers(
    made: LocalStore, undisturbed: tuple[list[str], list[dict[str, Any]]], world: int, workers: int
) -> None:
    """Any layout gives the batches and states of one process, and any goes on from those: so any goes on from any.

    Across an epoch's end (after step 5) and a batch of two epochs.
    """
    hashes, states = undisturbed
    before = opened(made.root, world, workers)
    assert [together(parts) for parts in batches(before, most=7)] == hashes[:7]
    assert [stream.state_dict() for stream in before] == [states[6]] * world
    for step in (3, 5):
        after = opened(made.root, world, workers)
        for stream in after:
            stream.load_state_dict(states[step - 1])
        assert [together(parts) for parts in batches(after, most=8)] == hashes[step : step + 8]


def test_every_sample_comes_once_an_epoch_the_tail_too(made: LocalStore) -> None:
    [stream] = opened(made.root)
    seen: Counter[tuple[int, str]] = Counter()
    per_epoch = []
    for _ in range(6):
        count = 0
        for batch in stream:
            seen.update(zip(batch.epochs, batch.samples, strict=True))
            count += 1
        per_epoch.append(count)
    assert per_epoch == [5, 6, 6, 6, 6, 6]  # six epochs are 35 batches
    assert set(seen.values()) == {1}
    names = {name for table in index.read(made, manifest.read_manifest(made)) for name in table["sample"].to_pylist()}
    for epoch in range(6):
        assert {name for at, name in seen if at == epoch} == names


def test_a_batch_is_bytes_that_a_trainer_can_take(made: LocalStore) -> None:
    [stream] = opened(made.root)
    batch = next(iter(stream))
    assert (tuple(batch.pixels.shape), batch.pixels.dtype) == ((24, 3, 16, 16), torch.uint8)
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
    assert len(set(batch.samples)) == 24


def test_crops_change_with_the_epoch_and_not_with_the_rank(made: LocalStore) -> None:
    [stream] = opened(made.root, plan=replace(PLAN, batch=70))
    first: dict[str, torch.Tensor] = {}
    same = 0
    for _ in range(2):
        for batch in stream:
            for name, pixels in zip(batch.samples, batch.pixels, strict=True):
                same += name in first and bool(torch.equal(first[name], pixels))
                first[name] = pixels
    assert same <= 4  # of 140; 1 of 289 places is the same


def test_where_a_run_of_ten_million_samples_is_resumed_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is drawn, and by the bytes that are in memory at once: the whole order would take 160 MB."""
    store = LocalStore(tmp_path)
    shards = tuple(
        Shard(name=f"train-{number:06d}.tar", bytes=10**9, sha256=f"{number:064x}", samples=16_700, slots=16_700)
        for number in range(600)
    )
    version = Version(number=1, shards=600, tombstones=0)
    commit(store, replace(write_set(store, [1], size=32), shards=shards, versions=(version,)))
    drawn: list[int] = []
    monkeypatch.setattr("shards.order.shuffled", lambda count, by: drawn.append(count) or shuffled(count, by))
    for taken in (0, 5_000_000, 10_000_000):
        epochs = Epochs(store, replace(PLAN, batch=256, window=1 << 15))
        state, position = {**epochs.state_dict(), "admitted": [[0, 1]]}, Position(epoch=40, taken=taken)
        drawn.clear()
        tracemalloc.start()
        epochs.load_state_dict(state, position)
        first = next(epochs.asks(position))
        epochs.shards_at(40, epochs.window_at(position))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert first.after == Position(epoch=40, taken=taken + 256)
        assert sum(drawn) <= 2 * 600 + (1 << 15)  # shards of this epoch, and of the next at this one's end; a window
        assert peak < 4_000_000


def _marked(pixels: np.ndarray, samples: Sequence[str], epochs: Sequence[int]) -> np.ndarray:
    """The levels upside down, and in the first pixel what it was told of each sample."""
    out = 255 - pixels
    for row, (sample, epoch) in enumerate(zip(samples, epochs, strict=True)):
        out[row, 0, 0] = int(sample[:2], 16), int(sample[2:4], 16), epoch
    return out


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 0), (1, 2), (2, 1)])
def test_what_is_derived_comes_with_the_batch_in_every_layout_and_after_a_resume(
    made: LocalStore, undisturbed: tuple[list[str], list[dict[str, Any]]], world: int, workers: int
) -> None:
    streams = opened(made.root, world, workers, derive=_marked)
    for stream in streams:
        stream.load_state_dict(undisturbed[1][2])
    found = list(batches(streams, most=4))
    assert [together(parts) for parts in found] == undisturbed[0][3:7]  # the crops are as without
    for batch in (part for parts in found for part in parts):
        assert batch.derived is not None
        assert batch.derived.is_contiguous(memory_format=torch.channels_last)
        expected = _marked(batch.pixels.permute(0, 2, 3, 1).numpy(), batch.samples, batch.epochs)
        assert np.array_equal(batch.derived.permute(0, 2, 3, 1), expected)


# what the set's versions do


def removed(store: LocalStore, made: Manifest, places: Sequence[tuple[int, int]]) -> Manifest:
    """A new version of the set, without the samples in these places."""
    number = made.version + 1
    old = tombstones.read(store, made)
    rows = np.concatenate([old, np.array([(*place, number) for place in places])])
    versions = (*made.versions, Version(number=number, shards=len(made.shards), tombstones=len(rows)))
    after = replace(made, versions=versions, tombstones=tombstones.write(store, versions, rows))
    commit(store, after)
    return after


def samples_of(stream: Stream) -> list[str]:
    return [name for batch in stream for name in batch.samples]


def test_what_is_removed_is_gone_from_the_next_epoch_on_and_nothing_else_moves(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    made = write_set(store, COUNTS, size=32)
    gone = [(0, 3), (2, 16), (4, 0)]
    tables = list(index.read(store, made))
    names = {tables[shard]["sample"][slot].as_py() for shard, slot in gone}
    plan = replace(PLAN, batch=1)
    [undisturbed] = opened(store.root, plan=plan)
    epochs = [samples_of(undisturbed) for _ in range(2)]
    [stream] = opened(store.root, plan=plan)
    running = iter(stream)
    first = [next(running).samples[0] for _ in range(50)]
    removed(store, made, gone)
    first += [batch.samples[0] for batch in running]
    assert first == epochs[0]
    assert samples_of(stream) == [name for name in epochs[1] if name not in names]


def test_a_run_resumed_in_mid_epoch_takes_up_the_newest_version_with_the_next_one(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    made = write_set(store, COUNTS, size=32)
    [stream] = opened(store.root)
    running = iter(stream)
    next(running)
    [resumed] = opened(store.root)
    resumed.load_state_dict(stream.state_dict())
    rest = iter(resumed)
    next(rest)
    gone = [(shard, slot) for shard in range(5) for slot in range(10)]
    names = {table["sample"][slot].as_py() for table in index.read(store, made) for slot in range(10)}
    removed(store, made, gone)
    assert len(list(rest)) == 3
    assert resumed.state_dict()["admitted"] == [[0, 1]]
    late = list(resumed)
    assert resumed.state_dict()["admitted"] == [[0, 1], [1, 2]]
    assert not names & {n for batch in late for n, at in zip(batch.samples, batch.epochs, strict=True) if at == 1}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_made_anew_in_mid_epoch_is_never_mixed_in(tmp_path: Path, workers: int) -> None:
    store = LocalStore(tmp_path)
    write_set(store, [30] * 20, size=32)
    [stream] = opened(store.root, workers=workers, plan=replace(PLAN, batch=30, window=30))
    running = iter(stream)
    given = len([next(running)])
    other = LocalStore(tmp_path / "other")
    write_set(other, [31, 29] + [30] * 18, size=32, suffix="png")
    for name in other.list(FOLDER):
        store.write(name, other.read(name))
    with pytest.raises(StreamError, match="was made anew: begin anew"):
        for _ in running:
            given += 1
    assert given <= 1 + 5 * workers  # what the workers had ready, or were at
    assert stream.position.taken == 30 * given


def test_a_state_never_counts_a_batch_that_was_not_given(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    made = write_set(store, COUNTS, size=32)
    [stream] = opened(store.root)
    running = iter(stream)
    next(running)
    for shard in made.shards:
        store.delete(FOLDER + shard.name)
    with pytest.raises(StreamError, match="not one sample"):
        next(running)
    assert stream.state_dict()["position"] == [0, 24]


@pytest.mark.parametrize("places", [[(7, 0)], [(0, 29)], [(0, 1), (0, 1)], [(-1, 0)]])
def test_tombstones_that_can_not_be_are_refused(tmp_path: Path, places: list[tuple[int, int]]) -> None:
    store = LocalStore(tmp_path)
    removed(store, write_set(store, COUNTS, size=32), places)
    [stream] = opened(store.root)
    with pytest.raises(ManifestError, match=r"the tombstones in .* don't fit its manifest"):
        list(stream)


@pytest.mark.parametrize("recipe", [{}, {"size": "x"}, {"size": None}, {"size": 0}])
def test_a_manifest_that_does_not_say_how_large_its_patches_are_is_refused(
    tmp_path: Path, recipe: dict[str, Any]
) -> None:
    store = LocalStore(tmp_path)
    commit(store, replace(write_set(store, [3], size=32), recipe=recipe))
    with pytest.raises(ManifestError, match="doesn't say how large its patches are"):
        opened(store.root)


def test_it_leaves_the_trainers_random_numbers_alone(made: LocalStore) -> None:
    [stream] = opened(made.root)
    before = torch.get_rng_state()
    next(iter(stream))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_purged_in_mid_epoch_is_named_and_all_else_comes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    made = write_set(store, [30, 30], size=32)
    plan = replace(PLAN, batch=10, window=100)
    [stream] = opened(store.root, plan=plan)
    [undisturbed] = [samples_of(one) for one in opened(store.root, plan=plan)]
    tables = list(index.read(store, made))
    running = iter(stream)
    seen = list(next(running).samples)
    late = [(0, slot) for slot in range(30) if tables[0]["sample"][slot].as_py() not in seen][:2]
    names = {tables[0]["sample"][slot].as_py() for _, slot in late}
    after = removed(store, made, late)
    shard, rows = removal.purge(store, after, 0, tombstones.read(store, after), after.version)
    versions = after.versions
    part = index.write(store, made.set, versions, [rows, tables[1]])
    purged = replace(after, shards=(shard, *after.shards[1:]), index=part)
    commit(store, purged)
    manifest.tidy(store, purged)
    assert not store.exists(FOLDER + made.shards[0].name)
    seen += [name for batch in running for name in batch.samples]
    assert [one for one, other in zip(seen, undisturbed, strict=True) if one == other] == [
        name for name in undisturbed if name not in names
    ]
    assert not names & set(seen)
    assert sum(stream.skipped.values()) == 2
    assert all("taken out for good" in cause for cause in stream.skipped)
    following = samples_of(stream)
    assert len(following) == 50 and not names & set(following)  # of 58: the tail of 8 begins the next epoch


def test_added_shards_come_with_the_next_epoch_and_an_old_run_replays(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    made = write_set(store, [20, 21], size=32)
    plan = replace(PLAN, batch=10, window=16)
    [stream] = opened(store.root, plan=plan)
    running = iter(stream)
    seen = [together([next(running)])]
    grown = write_set(store, [19] * 4, size=32, base=made)
    seen += [together([batch]) for batch in running]
    assert len(seen) == 4
    middle = stream.state_dict()
    second = [together([batch]) for batch in stream]
    assert len(second) == (1 + grown.samples) // 10
    write_set(store, [300], size=32, base=grown)
    end = stream.state_dict()
    assert end["admitted"] == [[0, 1], [1, 2]]
    [replayed] = opened(store.root, plan=plan, follow=False)
    replayed.load_state_dict({**end, "position": [0, 0]})
    assert [together([batch]) for _ in range(2) for batch in replayed] == seen + second
    [resumed] = opened(store.root, plan=plan, follow=False)
    resumed.load_state_dict({**end, "position": middle["position"]})
    assert [together([batch]) for batch in resumed] == second
    [following] = opened(store.root, plan=plan)
    following.load_state_dict(end)
    assert len(list(following)) == (117 % 10 + 417) // 10


def _rank(rank: int, root: str, meeting: str, said: str) -> None:
    """Rank 1 looks before the set grows, rank 0 afterwards."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    store = LocalStore(Path(root))
    newest = Epochs.newest
    looks = 0

    def watched(self: Epochs) -> int:
        nonlocal looks
        looks += 1
        if looks == 2 and rank == 0:  # the second epoch begins
            torch.distributed.barrier()
            write_set(store, [30], size=32, base=manifest.read_manifest(store))
        version = newest(self)
        if looks == 2 and rank == 1:
            torch.distributed.barrier()
        return version

    Epochs.newest = watched  # type: ignore[method-assign]
    stream = Stream(root, replace(PLAN, batch=10), rank=rank, world=2)
    epochs = [samples_of(stream) for _ in range(2)]
    (Path(said) / str(rank)).write_text(json.dumps([epochs, stream.state_dict()]))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_agree_on_the_version_though_it_came_between_their_looks(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "set")
    write_set(store, [30, 30], size=32)
    torch.multiprocessing.spawn(_rank, (store.root, str(tmp_path / "meeting"), str(tmp_path)), nprocs=2)
    (first, state), (second, other) = (json.loads((tmp_path / str(rank)).read_text()) for rank in range(2))
    assert state == other
    assert state["admitted"] == [[0, 1], [1, 2]]
    assert [len(epoch) for epoch in first] == [len(epoch) for epoch in second] == [30, 45]
    assert len({*first[1], *second[1]}) == 90


def test_a_set_made_anew_ends_a_run_that_began_on_the_old_one(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write_set(store, COUNTS, size=32)
    [stream] = opened(store.root)
    list(stream)
    state = stream.state_dict()
    write_set(store, [25, 30], size=32)
    with pytest.raises(StreamError, match="made anew"):
        list(stream)
    [other] = opened(store.root)
    with pytest.raises(ValueError, match="the state is of set"):
        other.load_state_dict(state)


# what goes wrong


def damaged(store: LocalStore, made: Manifest, shard: int, slots: Sequence[int]) -> set[str]:
    """Turns one byte in each of these samples; their names."""
    path = store.folder / FOLDER / made.shards[shard].name
    body = bytearray(path.read_bytes())
    entries = index.from_table(list(index.read(store, made))[shard])
    for slot in slots:
        body[entries[slot].data_offset + 100] ^= 1
    path.write_bytes(body)
    return {entries[slot].sample for slot in slots}


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 0), (3, 2), (8, 1)])
def test_a_damaged_sample_is_skipped_named_and_replaced_alike_in_every_layout(
    tmp_path: Path, world: int, workers: int
) -> None:
    store = LocalStore(tmp_path)
    made = write_set(store, COUNTS, size=32)
    names = damaged(store, made, 1, [0, 7, 8])
    [alone] = opened(store.root)
    expected = [together([batch]) for batch in alone]
    streams = opened(store.root, world, workers)
    skipped, found = set(), []
    for parts in zip(*streams, strict=True):
        found.append(together(parts))
        assert not names & {name for part in parts for name in part.samples}
        skipped |= {one.sample for part in parts for one in part.skipped}
    assert found == expected
    assert skipped == names
    assert sum(sum(stream.skipped.values()) for stream in streams) == 3


def test_a_missing_shard_is_skipped_and_too_much_of_it_stops_the_run(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    made = write_set(store, [40, 5, 40], size=32)
    store.delete(FOLDER + made.shards[1].name)
    [stream] = opened(store.root, plan=replace(PLAN, window=1000))
    names = [name for _ in range(2) for name in samples_of(stream)]
    assert len(names) == 168
    assert sum(stream.skipped.values()) in (9, 10)
    assert all("train-000001.tar" in cause for cause in stream.skipped)
    store.delete(FOLDER + made.shards[0].name)
    store.delete(FOLDER + made.shards[2].name)
    with pytest.raises(StreamError, match=r"not one sample of a whole global batch could be had.*train-00000"):
        list(stream)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_the_disk_does_not_give_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    store = LocalStore(tmp_path)
    made = write_set(store, [40, 5, 40], size=32)
    bad, read = FOLDER + made.shards[1].name, LocalStore.read

    def reading(self: LocalStore, name: str, start: int = 0, length: int | None = None) -> bytes:
        if name == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        return read(self, name, start, length)

    monkeypatch.setattr(LocalStore, "read", reading)
    Path(tmp_path / bad).unlink()  # what is asked for elsewhere comes from `read`
    [stream] = opened(store.root, plan=replace(PLAN, window=1000), workers=workers)
    names = [name for _ in range(2) for name in samples_of(stream)]
    assert len(names) == 168
    assert sum(stream.skipped.values()) in (9, 10)
    assert all("Input/output error" in cause for cause in stream.skipped)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_samples_in_a_row_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    store = LocalStore(tmp_path)
    made = write_set(store, [60, 60], size=32)
    order = Order(slots=np.array([60, 60]), removed=np.zeros((0, 2), np.int64), seed=5, epoch=0, window=40)
    monkeypatch.setattr("shards.stream.MOST_BAD_IN_A_ROW", 10)
    for places in (range(0, 48, 2), range(20, 30)):  # scattered, or not more than that in a row
        damage = [tuple(place) for place in order.take(0, 48)[list(places)].tolist()]
        copy = LocalStore(tmp_path / str(len(damage)))
        shutil.copytree(store.folder / "shards", copy.folder / "shards")
        for shard in (0, 1):
            damaged(copy, made, shard, [slot for of, slot in damage if of == shard])
        [stream] = opened(copy.root, workers=workers)
        assert len(list(stream)) == 5
        assert sum(stream.skipped.values()) == len(damage)
    for shard, slot in order.take(19, 20).tolist():  # one more
        damaged(copy, made, shard, [slot])
    [stream] = opened(copy.root, workers=workers)
    with pytest.raises(StreamError, match=r"11 samples in a row could not be had, the last .*other bytes there"):
        list(stream)
    assert stream.state_dict()["position"] == [0, 24]  # five of the eleven are the first batch's last


def test_patches_smaller_than_the_manifest_says_end_the_run(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    made = write_set(store, [30], size=32)
    larger = replace(made, recipe={"size": 64})  # the patches have 32: no crop of 64 lies in them
    commit(store, larger)
    [wrong] = opened(store.root, plan=replace(PLAN, crop=64))
    with pytest.raises(StreamError, match="not one sample"):
        list(wrong)


# settings


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"world": 5}, "a global batch of 24 can't be split over 5 ranks: give a multiple"),
        ({"rank": 2, "world": 2}, "rank is 2 of 2: ranks count from 0"),
        ({"plan": replace(PLAN, crop=33)}, "crop is 33: the patches have 32 pixels a side"),
    ],
)
def test_a_setting_that_can_not_be_is_said_before_anything_is_read(
    made: LocalStore, changes: dict[str, Any], sentence: str
) -> None:
    settings = {"plan": PLAN} | changes
    plan = settings.pop("plan")
    with pytest.raises(ValueError, match=sentence):
        Stream(made.root, plan, **settings)


def test_without_a_manifest_there_is_nothing_to_stream(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no shards/manifest\.json in .*: the run isn't finished"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"plan": {"batch": 48, "seed": 5, "window": 40, "crop": 16}}, "made with batch=48: give the same"),
        ({"plan": {"batch": 24, "seed": 6, "window": 41, "crop": 16}}, "made with seed=6, window=41"),
        ({"state_version": 0}, "the stream's state has version 0, this reads 1"),
        ({"set": "0" * 16}, "the state is of set 0000000000000000"),
        ({"admitted": [[0, 9]]}, "the set has no version 9, only 1 to 1"),
        ({"admitted": []}, "at sample 120 of epoch 0 and says no version of the set for it: give a state as"),
        ({"admitted": [[1, 1]]}, "says no version of the set for it"),
        ({"admitted": [[1, 1]], "position": [0, 0]}, "says no version of the set for it"),
    ],
)
def test_a_state_of_another_run_is_refused(made: LocalStore, changes: dict[str, Any], sentence: str) -> None:
    [stream] = opened(made.root)
    list(stream)
    state = stream.state_dict() | changes
    [other] = opened(made.root, follow=False)
    before = other.state_dict()
    with pytest.raises(ValueError, match=sentence):
        other.load_state_dict(state)
    assert other.state_dict() == before


def test_the_state_of_a_stream_that_gave_nothing_is_one_too(
    made: LocalStore, undisturbed: tuple[list[str], list[dict[str, Any]]]
) -> None:
    [fresh], [other] = opened(made.root), opened(made.root, follow=False)
    other.load_state_dict(fresh.state_dict())
    assert [together(parts) for parts in batches([other], most=1)] == undisturbed[0][:1]


# from elsewhere


def test_from_s3_it_is_the_same_with_a_cache_and_without(
    made: LocalStore, undisturbed: tuple[list[str], list[dict[str, Any]]], s3_server: S3Server, tmp_path: Path
) -> None:
    hashes, states = undisturbed
    epoch, taken = states[5]["position"]
    epochs, last = Epochs(made, PLAN), Position(epoch=epoch, taken=taken)
    epochs.load_state_dict(states[6], last)
    wanted = epochs.shards_at(epoch, epochs.window_at(last))
    store = S3Store(f"{s3_server.bucket('streamed')}/set", s3_server.endpoint_url)
    for name in made.list(""):
        store.write(name, made.read(name))
    for cache in (Cache(folder=tmp_path / "cache"), Cache(folder=tmp_path / "none", limit=0)):
        streams = opened(store.root, 2, 1, endpoint_url=s3_server.endpoint_url, cache=cache)
        assert [together(parts) for parts in batches(streams, most=7)] == hashes[:7]
        # for the last batch's window and the next; of earlier windows what came before they were over
        brought = [shard for shard in wanted if cache.limit]
        deadline = time.monotonic() + 20
        while not all(cache.find(shard) for shard in brought) and time.monotonic() < deadline:
            time.sleep(0.05)
        for stream in streams:
            stream.close()
        assert all(cache.find(shard) for shard in brought)
    assert len(wanted) == 3
    assert not (tmp_path / "none").exists()
