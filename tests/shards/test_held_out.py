"""What is held out is never trained on, nor is any part of its pictures; either part goes on exactly."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shards import index
from shards.epochs import Epochs
from shards.manifest import Manifest, ManifestError, read_manifest
from shards.sequence import Plan, Position
from shards.store import LocalStore
from shards.stream import Stream
from tests.sets import write_set
from tests.shards.test_stream import removed, samples_of

TRAIN = Plan(batch=1, window=16, crop=16, seed=5, held_out=(1, 3))
VALID = replace(TRAIN, part="valid")
COUNTS = [11, 9, 12, 10, 8]
PER_PICTURE = 4  # patches: pictures lie across the ends after 11, 20 (not), 32 (not), 42


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    store = LocalStore(tmp_path_factory.mktemp("set"))
    write_set(store, COUNTS, size=32, per_picture=PER_PICTURE)
    return store


def names(store: LocalStore, which: set[int] | None = None) -> list[str]:
    """The samples of these shards, or of all."""
    tables = index.read(store, read_manifest(store), ["sample"])
    return [name for at, one in enumerate(tables) if which is None or at in which for name in one["sample"].to_pylist()]


def keys(samples: list[str]) -> set[str]:
    return {name.partition("_")[0] for name in samples}


def test_training_and_validation_share_no_picture_and_lose_only_those_on_a_border(made: LocalStore) -> None:
    trained, valid = samples_of(Stream(made.root, TRAIN)), samples_of(Stream(made.root, VALID))
    assert sorted(trained) == sorted(names(made, {0, 2, 4}))
    assert not keys(trained) & keys(valid)
    whole = [name for name in names(made, {1, 3}) if name.partition("_")[0] not in keys(names(made, {0, 2, 4}))]
    assert sorted(valid) == sorted(whole)
    assert 0 < len(valid) < 9 + 10  # a picture lies on two of the borders


def test_a_picture_that_fills_more_than_a_shard_is_found_across_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write_set(store, [6, 3, 2, 7, 6], size=32, per_picture=4)  # the third lies in 1, 2 and 3, the last in 4
    plan = replace(TRAIN, held_out=(1, 2, 4))
    trained, valid = (samples_of(Stream(store.root, one)) for one in (plan, replace(plan, part="valid")))
    assert not keys(trained) & keys(valid)
    assert (len(trained), len(valid)) == (13, 4)


def test_with_nothing_held_out_the_order_is_that_of_before_and_else_that_without_those_shards(made: LocalStore) -> None:
    """A trained sample comes after the same ones, whatever is held out: shards keep their places in the line."""
    plain = samples_of(Stream(made.root, replace(TRAIN, held_out=(), window=1)))
    trained = samples_of(Stream(made.root, replace(TRAIN, window=1)))
    left_out = set(names(made, {1, 3}))
    assert trained == [name for name in plain if name not in left_out]


def test_only_the_part_is_asked_for(made: LocalStore) -> None:
    for plan, shards in ((TRAIN, {0, 2, 4}), (VALID, {1, 3})):
        epochs = Epochs(made, plan)
        epochs.admit(0, epochs.newest())
        windows = [epochs.window_at(Position(epoch=0, taken=taken)) for taken in range(10)]
        wanted = {one.name for window in windows for one in epochs.shards_at(0, window)}
        assert wanted <= {f"train-{number:06d}.tar" for number in shards}


@pytest.mark.parametrize("plan", [TRAIN, VALID], ids=["train", "valid"])
def test_it_goes_on_where_it_was_in_any_layout(made: LocalStore, plan: Plan) -> None:
    plan = replace(plan, batch=4)
    whole = Stream(made.root, plan)
    batches = [batch.samples for _ in range(3) for batch in whole]
    first = Stream(made.root, plan)
    running = iter(first)
    assert [next(running).samples for _ in range(2)] == batches[:2]
    state = json.loads(json.dumps(first.state_dict()))
    streams = [Stream(made.root, plan, rank=rank, world=2) for rank in range(2)]
    for stream in streams:
        stream.load_state_dict(state)
    rest = [one.samples + other.samples for _ in range(2) for one, other in zip(*streams, strict=True)]
    assert rest == batches[2 : 2 + len(rest)]


def test_shards_that_are_added_are_trained_on(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    base = write_set(store, [8, 8], size=32)
    plan = replace(TRAIN, held_out=(1,))
    train, valid = Stream(store.root, plan), Stream(store.root, replace(plan, part="valid"))
    before = samples_of(valid)
    assert (len(samples_of(train)), len(before)) == (8, 8)
    write_set(store, [5, 5], size=32, base=base)
    assert sorted(samples_of(train)) == sorted(names(store, {0, 2, 3}))
    assert sorted(samples_of(valid)) == sorted(before)


def test_what_is_removed_is_gone_from_both(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    removed(store, write_set(store, COUNTS, size=32, per_picture=PER_PICTURE), [(1, slot) for slot in range(9)])
    assert not set(samples_of(Stream(store.root, VALID))) & set(names(store, {1}))
    assert len(samples_of(Stream(store.root, TRAIN))) == 31


def test_far_in_costs_no_more_than_the_beginning(made: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is read once a version, wherever the run is."""
    reads: list[int] = []
    read_one = index.read_one
    monkeypatch.setattr("shards.held_out.index.read_one", lambda *args: (reads.append(args[2]), read_one(*args))[1])
    epochs = Epochs(made, VALID)
    epochs.admit(0, epochs.newest())
    started = time.perf_counter()
    for epoch in (0, 5, 100_000):
        next(epochs.asks(Position(epoch=epoch, taken=2)))
    assert sorted(reads) == [0, 1, 2, 3, 4]
    assert time.perf_counter() - started < 2


# settings


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"held_out": (2, 1)}, "give the numbers of shards, ascending, from 0"),
        ({"held_out": (1, 1)}, "ascending"),
        ({"held_out": (-1,)}, "from 0"),
        ({"part": "test"}, "part is 'test': give train or valid"),
        ({"part": "valid"}, "nothing is held out: give held_out="),
    ],
)
def test_a_plan_that_can_not_be_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Plan(**{"batch": 1, **changes})


@pytest.mark.parametrize("part", ["train", "valid"])
@pytest.mark.parametrize(
    ("counts", "held", "sentence"),
    [
        ([5, 5], (2,), r"held_out has shard 2: .* has 2, which count from 0"),
        ([5, 5], (0, 1), r"held_out has all 2 shards of .*: leave some to train on"),
        (
            [5],
            (0,),
            r"has one shard, of which nothing can be held out: cut it into more, with dynet-shard --max-shard-mb",
        ),
    ],
)
def test_a_set_that_can_not_be_divided_so_is_said_before_anything_is_read(
    tmp_path: Path, counts: list[int], held: tuple[int, ...], sentence: str, part: Any
) -> None:
    store = LocalStore(tmp_path)
    write_set(store, counts, size=32)
    with pytest.raises(ValueError, match=sentence):
        Stream(store.root, Plan(batch=1, crop=16, held_out=held, part=part))


def test_where_no_sample_is_left_of_a_part_that_is_said(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    made: Manifest = write_set(store, [3, 3], size=32, per_picture=6)  # one picture
    plan = replace(TRAIN, held_out=(1,))
    with pytest.raises(ManifestError, match="no samples left of pictures that are held out as a whole"):
        samples_of(Stream(store.root, replace(plan, part="valid")))
    removed(store, made, [(0, slot) for slot in range(3)])
    with pytest.raises(ManifestError, match="no samples left to train on in its version 2"):
        samples_of(Stream(store.root, plan))


def test_a_state_from_before_there_were_parts_goes_on_where_nothing_is_held_out(made: LocalStore) -> None:
    plain = replace(TRAIN, held_out=())
    state = Stream(made.root, plain).state_dict()
    old = {**state, "plan": {name: state["plan"][name] for name in ("batch", "seed", "window", "crop")}}
    Stream(made.root, plain).load_state_dict(old)
    for plan, told in ((TRAIN, r"held_out=\[\]"), (VALID, r"held_out=\[\], part=train")):
        with pytest.raises(ValueError, match=f"made with {told}: give the same"):
            Stream(made.root, plan).load_state_dict(old)
    with pytest.raises(ValueError, match="made with part=train"):
        Stream(made.root, VALID).load_state_dict(Stream(made.root, TRAIN).state_dict())
