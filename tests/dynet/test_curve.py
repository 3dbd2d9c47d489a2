"""The curve has every step once, whatever was stopped in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynet import curve
from dynet.curve import Point
from shards.store import LocalStore


def points(first: int, last: int) -> list[Point]:
    return [
        Point(step=step, depth="SL"[step % 2], loss=1 / step, norm=2.0, taken=step % 10 != 0, samples=-step)
        for step in range(first, last + 1)
    ]


def test_pieces_are_read_in_the_order_of_steps(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert curve.read(store).num_rows == 0
    curve.write(store, points(11, 20))
    curve.write(store, points(1, 10))
    store.write("curve/notes.txt", b"not ours")
    assert curve.read(store)["step"].to_pylist() == list(range(1, 21))


def test_a_run_that_goes_on_writes_over_what_lies_behind_its_checkpoint(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    curve.write(store, points(1, 10))
    curve.write(store, points(11, 25))
    curve.cut(store, 10)
    assert curve.read(store)["step"].to_pylist() == list(range(1, 11))


def test_the_ends_of_each_depth_leave_skipped_steps_out(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    curve.write(store, points(1, 40))
    steps, losses = curve.by_depth(curve.read(store))["S"]
    assert steps.tolist() == [step for step in range(2, 41, 2) if step % 10]
    first, last = curve.ends(curve.read(store))["S"]
    assert (first, last) == pytest.approx((losses[:2].mean(), losses[-2:].mean()))
