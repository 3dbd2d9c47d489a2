"""Operations: the paper's figures, and those of torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dynet.cost import cost, latency
from dynet.model import DyNet, ModelConfig, dynet, promptir

PAPER = (224, 224)


@pytest.mark.parametrize(("depth", "printed"), [("S", 166.38), ("L", 242.355)])
def test_the_papers_gflops(depth: str, printed: float) -> None:
    assert cost(dynet(), depth, PAPER).published / 1e9 == pytest.approx(printed, abs=0.001)


@pytest.mark.parametrize(("depth", "convolutions", "total"), [("S", 166.2, 181.6), ("L", 242.2, 264.5)])
def test_convolutions_alone_and_with_attention(depth: str, convolutions: float, total: float) -> None:
    counted = cost(dynet(), depth, PAPER)
    assert counted.parameters == 16_613_135
    assert counted.convolutions / 1e9 == pytest.approx(convolutions, abs=0.05)
    assert counted.total / 1e9 == pytest.approx(total, abs=0.05)


def test_promptir_costs_what_dynet_l_does_with_twice_the_weights() -> None:
    ours, theirs = (cost(config, "L", PAPER) for config in (dynet(), promptir()))
    assert ours.convolutions == theirs.convolutions
    assert theirs.parameters > 2 * ours.parameters


def test_torchs_counter_sees_nearly_as_many() -> None:
    """It counts what runs: with padded channels, and without the product that is merged away."""
    config = ModelConfig(width=16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        DyNet(config)(torch.zeros(1, 3, 32, 32), "S")
    assert counter.get_total_flops() == pytest.approx(cost(config, "S", (32, 32)).total, rel=0.15)


def test_cost_grows_with_the_picture() -> None:
    small, large = (cost(ModelConfig(width=8), "S", (side, side)) for side in (32, 64))
    assert large.convolutions < 4.01 * small.convolutions
    assert large.attention == 4 * small.attention


def test_latency_is_measured() -> None:
    assert 0 < latency(DyNet(ModelConfig(width=8)), "1,1,1,1", (16, 16), repeats=1) < 60
