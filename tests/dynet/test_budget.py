"""The deepest network that a time allows."""

from __future__ import annotations

import pytest
import torch

from dynet.budget import Timed, deepest, ladder, measured
from dynet.cost import cost
from dynet.model import DEPTHS, DyNet, ModelConfig, promptir
from dynet.restore import Restorer

CONFIG = ModelConfig(width=8, refinement=0)


def test_each_rung_costs_more_than_the_one_below() -> None:
    rungs = ladder(CONFIG)
    assert (rungs[0], rungs[-1]) == (DEPTHS["S"], DEPTHS["L"])
    costs = [cost(CONFIG, rung, (32, 32)).total for rung in rungs]
    assert len(rungs) == 5 and costs == sorted(set(costs))


def test_a_network_with_blocks_of_its_own_has_one_depth() -> None:
    assert ladder(promptir()) == (DEPTHS["L"],)


def test_the_last_that_fits_is_taken() -> None:
    timed = [Timed(depth=depth, seconds=n) for n, depth in enumerate(ladder(CONFIG), 1)]
    assert deepest(timed, 3.5) == timed[2].depth
    assert deepest(timed, 9) == DEPTHS["L"]
    with pytest.raises(ValueError, match="the fastest, S, takes 1000 ms"):
        deepest(timed, 0.5)


def test_the_clock_goes_up_the_ladder_no_further_than_the_time() -> None:
    restorer = Restorer(DyNet(CONFIG), device=torch.device("cpu"))
    assert len(list(measured(restorer, (16, 16), None, seconds=60, repeats=1))) == 5
    assert [one.depth for one in measured(restorer, (16, 16), None, seconds=0, repeats=1)] == [DEPTHS["S"]]


def test_a_picture_in_tiles_takes_the_time_of_all_of_them() -> None:
    restorer = Restorer(DyNet(CONFIG), device=torch.device("cpu"))
    (one,) = measured(restorer, (32, 32), 32, seconds=0, repeats=5)
    (many,) = measured(restorer, (512, 512), 32, seconds=0, repeats=5)  # 21 x 21 tiles
    assert many.seconds > 50 * one.seconds
