"""The order is a function of seed, epoch and slots; removing samples takes them out and moves nothing else."""

from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import philox
from shards.order import Order, crop_box, shuffled
from shards.patches import Box

NONE = np.zeros((0, 2), np.int64)


def order(slots: list[int], removed: np.ndarray = NONE, **changes: int) -> Order:
    settings = {"seed": 0, "epoch": 0, "window": 8} | changes
    return Order(slots=np.array(slots, np.int64), removed=removed, **settings)


def places(one: Order) -> list[tuple[int, int]]:
    return [(int(shard), int(slot)) for shard, slot in one.take(0, one.length)]


SLOTS = st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any)


@settings(max_examples=200, deadline=None)
@given(slots=SLOTS, seed=st.integers(0, 9), epoch=st.integers(0, 9), window=st.integers(1, 30), data=st.data())
def test_every_sample_that_is_not_removed_comes_once_and_in_the_order_of_before(
    slots: list[int], seed: int, epoch: int, window: int, data: st.DataObject
) -> None:
    every = [(shard, slot) for shard, count in enumerate(slots) for slot in range(count)]
    whole = order(slots, seed=seed, epoch=epoch, window=window)
    assert sorted(places(whole)) == every
    removed = data.draw(st.lists(st.sampled_from(every), unique=True))
    fewer = order(slots, np.array(removed, np.int64).reshape(-1, 2), seed=seed, epoch=epoch, window=window)
    assert places(fewer) == [place for place in places(whole) if place not in removed]


@settings(max_examples=200, deadline=None)
@given(slots=SLOTS, window=st.integers(1, 30), data=st.data())
def test_any_part_is_computed_by_itself(slots: list[int], window: int, data: st.DataObject) -> None:
    one = order(slots, window=window)
    start = data.draw(st.integers(0, one.length))
    stop = data.draw(st.integers(start, one.length))
    assert one.take(start, stop).tolist() == one.take(0, one.length)[start:stop].tolist()


@settings(max_examples=100, deadline=None)
@given(slots=SLOTS, window=st.integers(1, 30))
def test_a_window_is_taken_from_the_shards_that_it_names(slots: list[int], window: int) -> None:
    one = order(slots, window=window)
    for start in range(one.length):
        (shard, _), (first, _) = one.take(start, start + 1)[0], one.windows(start, start + 1)
        assert shard in one.shards_of(first)
    assert one.shards_of(sum(slots) // window + 1) == []


def test_seed_epoch_and_window_each_change_it() -> None:
    slots = [50, 50, 50]
    orders = [order(slots), order(slots, seed=1), order(slots, epoch=1), order(slots, window=9)]
    assert len({tuple(places(one)) for one in orders}) == 4
    assert places(order(slots)) == places(order(slots))


def test_it_is_the_same_on_every_machine_and_release() -> None:
    taken = order([30, 0, 40, 25], np.array([[0, 3], [2, 9]]), seed=7, epoch=3, window=32)
    assert hashlib.sha256(taken.take(0, 93).tobytes()).hexdigest()[:16] == "5ea4d58499f2dcec"
    assert crop_box(7, 3, "0123456789abcdef_00000_00512", 512, 128) == Box(top=57, left=177, size=128)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
@settings(deadline=None)  # the first call compiles
def test_the_place_of_a_crop_is_of_numpy_s_own_philox(one: int, other: int) -> None:
    key = np.array([one, other], np.uint64)
    assert list(philox.first_two(key)) == np.random.Philox(key=key).random_raw(2).tolist()


def test_it_shuffles_within_windows_and_not_beyond() -> None:
    one = order([1000] * 10, window=2500)
    taken = one.take(0, 10_000)
    line = {int(shard): at for at, shard in enumerate(dict.fromkeys(one._line.tolist()))}
    at = np.array([line[int(shard)] * 1000 + slot for shard, slot in taken])
    assert np.array_equal(at // 2500, np.arange(10_000) // 2500)
    assert np.abs(np.corrcoef(at[:2500], np.arange(2500))[0, 1]) < 0.06  # three sigma


def test_far_into_a_large_set_costs_no_more_than_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is drawn, and by the bytes that are in memory at once: the whole order would take 144 MB."""
    drawn: list[int] = []
    monkeypatch.setattr("shards.order.shuffled", lambda count, by: drawn.append(count) or shuffled(count, by))
    for start in (0, 4_500_000, 8_900_000):
        one = order([15_000] * 600, window=1 << 15)
        drawn.clear()
        tracemalloc.start()
        taken = one.take(start, start + 32)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert taken.shape == (32, 2)
        assert drawn == [600, 1 << 15]  # shards, and the one window
        assert peak < 4_000_000
    assert len(one.shards_of(270)) <= 4


@pytest.mark.parametrize("size", [1, 64, 511, 512])
def test_a_crop_lies_anywhere_in_the_patch(size: int) -> None:
    boxes = [crop_box(0, 0, str(number), 512, size) for number in range(3000)]
    tops = [box.top for box in boxes]
    assert (min(tops), max(tops)) == pytest.approx((0, 512 - size), abs=3)
    assert {box.size for box in boxes} == {size}
    assert crop_box(0, 1, "0", 512, 64) != crop_box(0, 0, "0", 512, 64) != crop_box(1, 0, "0", 512, 64)


def test_a_shuffle_is_even() -> None:
    first = np.array([shuffled(5, str(number))[0] for number in range(5000)])
    assert np.abs(np.bincount(first) - 1000).max() < 4 * np.sqrt(1000 * 0.8)
