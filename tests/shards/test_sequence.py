"""Global batches cover every epoch exactly; a tail begins the next epoch's first batch."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.order import Order
from shards.sequence import Plan, Position, ask, epoch_of


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=3, max_size=5), batch=st.integers(1, 30))
def test_every_sample_comes_once_an_epoch_and_no_tail_is_lost(lengths: list[int], batch: int) -> None:
    @cache
    def order(epoch: int) -> Order:
        slots = np.array([lengths[epoch % len(lengths)]], np.int64)
        return Order(slots=slots, removed=np.zeros((0, 2), np.int64), seed=0, epoch=epoch, window=7)

    position, seen, epochs = Position(), [], []
    for _ in range(2 * sum(lengths) // batch + 1):
        epochs.append(epoch_of(position, batch, order))
        one = ask(position, batch, order)
        assert one.picks.shape == (batch, 3)
        seen += [tuple(row) for row in one.picks.tolist()]
        assert epochs[-1] == seen[-1][0]
        position = one.after
    assert epochs == sorted(epochs)
    assert set(Counter(seen).values()) == {1}
    assert [epoch for epoch, _, _ in seen] == sorted(epoch for epoch, _, _ in seen)
    for epoch in range(seen[-1][0]):
        assert sum(row[0] == epoch for row in seen) == order(epoch).length


@pytest.mark.parametrize("name", ["batch", "window", "crop"])
def test_a_plan_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0: give at least 1"):
        Plan(**{"batch": 8, name: 0})
