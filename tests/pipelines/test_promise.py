"""Plan against actual, told from a store's plan and ledger alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from curation.forecast import Interval
from jobs.plan_tables import compared
from pipelines import promise
from pipelines.status import status
from shards.store import LocalStore
from tests import ledgers


def half_way(folder: Path, chunks: int) -> LocalStore:
    """A run of 20 chunks of 20 rows of which so many are committed, and a plan for it."""
    store = LocalStore(folder)
    ledgers.commit(store, ledgers.plan(store, 20, 20), range(chunks))
    promised = {
        promise.ANSWERED: Interval(low=0.6, mid=0.65, high=0.7),
        promise.KEPT: Interval(low=300, mid=350, high=400),
        promise.DOWN: Interval(low=1, mid=2, high=3),
        promise.FILTERING: Interval(low=600, mid=1200, high=2400),
        promise.PATCHES: Interval(low=1, mid=2, high=3),
    }
    entry = {"quantities": {name: asdict(one) for name, one in promised.items()}, "more": 1}
    store.write(promise.PLAN, json.dumps(entry).encode())
    return store


def actual(store: LocalStore) -> dict[str, float]:
    found = promise.kept(store, status(store, now=ledgers.BEGIN + 1300), promise.read(store), None)
    return {one.name: one.actual for one in found}


def test_a_finished_run_is_told_whole(tmp_path: Path) -> None:
    """Of ten rows one is not tried, three fail, six pass; a chunk a minute."""
    store = half_way(tmp_path, 20)
    seen = actual(store)
    assert list(seen) == [promise.ANSWERED, promise.KEPT, promise.DOWN, promise.FILTERING]
    assert seen[promise.ANSWERED] == pytest.approx(6 / 9, rel=0.01)
    assert seen[promise.KEPT] == pytest.approx(240, abs=1)
    assert seen[promise.DOWN] == pytest.approx(40 * (6 * 1100 + 2 * 100), rel=0.01)
    assert seen[promise.FILTERING] == pytest.approx(1200, rel=0.02)


def test_a_run_on_its_way_is_scaled_to_the_list_and_has_no_time_yet(tmp_path: Path) -> None:
    seen = actual(half_way(tmp_path, 5))
    assert promise.FILTERING not in seen
    assert seen[promise.KEPT] == pytest.approx(240, abs=1)


def test_before_the_first_chunk_nothing_can_be_told(tmp_path: Path) -> None:
    assert actual(half_way(tmp_path, 0)) == {}


def test_the_table_says_what_lies_inside(tmp_path: Path) -> None:
    store = half_way(tmp_path, 20)
    found = promise.kept(store, status(store, now=ledgers.BEGIN + 1300), promise.read(store), None)
    lines = compared(found).splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["inside", "below", "above", "inside"]
    assert max(map(len, lines)) <= 100
    assert "66.6 %" in lines[1] and "20 min 0 s" in lines[4]


def test_what_is_no_plan_is_said(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert promise.read(store) == {}
    store.write(promise.PLAN, b'{"quantities": {"patches": 3}}')
    with pytest.raises(ValueError, match="is no plan"):
        promise.read(store)


def test_sizes_are_told_from_some_of_many(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for number in range(promise.SIZES + 12):
        store.write(f"images/chunk-{number:08d}.tar", b"x" * 1000)
    assert promise.stored(store, "images/") == 1000 * (promise.SIZES + 12)
    assert promise.stored(store, "none/") == 0
