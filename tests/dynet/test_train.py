"""One step: what is drawn, what is learned, what is skipped, and that a state goes on bit for bit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from dynet.data import Pair
from dynet.model import DyNet, ModelConfig
from dynet.train import MOST_SKIPPED_IN_A_ROW, Diverged, Settings, Trainer
from tests.states import digest

TINY = ModelConfig(width=8, refinement=1)
SHALLOW, DEEP = "1,1,1,1", "1,2,2,2"
CPU = torch.device("cpu")


def trainer(**changes: Any) -> Trainer:
    torch.manual_seed(0)
    settings = Settings(**{"steps": 100, "lr": 1e-3, "depths": (SHALLOW, DEEP)} | changes)
    return Trainer(DyNet(TINY), settings, seed=1, device=CPU)


def pairs(count: int, batch: int = 2, side: int = 16) -> list[Pair]:
    generator = torch.Generator().manual_seed(3)
    made = []
    for _ in range(count):
        clean = torch.rand(batch, 3, side, side, generator=generator)
        made.append(
            Pair(degraded=(clean + 0.2 * torch.randn(clean.shape, generator=generator)).clamp(0, 1), clean=clean)
        )
    return made


def test_depths_are_drawn_by_seed_and_step_alone_and_evenly() -> None:
    settings = Settings(steps=1)
    drawn = [settings.depth_at(7, step) for step in range(400)]
    assert drawn == [settings.depth_at(7, step) for step in range(400)]
    assert drawn != [settings.depth_at(8, step) for step in range(400)]
    counts = Counter(drawn)
    assert set(counts) == {(2, 3, 3, 4), (4, 6, 6, 8)}
    assert 160 < counts[(2, 3, 3, 4)] < 240


def test_a_depth_has_one_name_however_it_is_written() -> None:
    assert Settings(steps=1, depths=("2,3,3,4", "3, 4,4,6")).depths == ("S", "3,4,4,6")


def test_between_draws_every_count_of_every_level() -> None:
    settings = Settings(steps=1, between=True)
    drawn = [settings.depth_at(7, step) for step in range(600)]
    for level, (least, most) in enumerate([(2, 4), (3, 6), (3, 6), (4, 8)]):
        counts = Counter(depth[level] for depth in drawn)
        assert sorted(counts) == list(range(least, most + 1))
        assert min(counts.values()) > 0.6 * len(drawn) / len(counts)


def test_the_loss_falls_for_both_depths() -> None:
    one = trainer(lr=2e-3)
    [pair] = pairs(1)
    losses: dict[str, list[float]] = {SHALLOW: [], DEEP: []}
    for _ in range(40):
        outcome = one.take_step(pair)
        losses[outcome.depth].append(outcome.loss)
    for depth, seen in losses.items():
        assert seen[-1] < 0.8 * seen[0], depth


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.9},
        {"between": True},
        {"accumulate": 2},
        {"precision": "bf16"},
        {"precision": "f16"},
        {"ema": 0.9, "accumulate": 2, "precision": "f16"},
    ],
    ids=str,
)
def test_a_run_that_goes_on_from_a_state_equals_one_that_was_not_stopped(changes: dict[str, Any]) -> None:
    batches = pairs(6)
    whole, begun, after = trainer(**changes), trainer(**changes), trainer(**changes)
    outcomes = [whole.take_step(pair) for pair in batches]
    assert [begun.take_step(pair) for pair in batches[:4]] == outcomes[:4]
    after.load_state_dict(begun.state_dict())
    assert [after.take_step(pair) for pair in batches[4:]] == outcomes[4:]
    assert digest(after.state_dict()) == digest(whole.state_dict())


def test_a_scale_that_is_too_high_costs_steps_and_is_halved_until_it_fits() -> None:
    one, [pair] = trainer(precision="f16"), pairs(1)
    state = one.state_dict()
    state["scaler"]["scale"] = highest = 2.0**30
    one.load_state_dict(state)
    before = digest(dict(one.model.state_dict()))
    assert not one.take_step(pair).taken
    assert digest(dict(one.model.state_dict())) == before
    while not one.take_step(pair).taken:
        pass
    assert one.skipped >= 1 and digest(dict(one.model.state_dict())) != before
    assert one.state_dict()["scaler"]["scale"] == highest / 2**one.skipped


def test_a_batch_in_parts_has_the_gradient_of_the_whole() -> None:
    [pair] = pairs(1, batch=4)
    whole, parts = trainer(), trainer(accumulate=4)
    one, other = whole.take_step(pair), parts.take_step(pair)
    assert (other.loss, other.norm) == pytest.approx((one.loss, one.norm), rel=1e-5)
    with pytest.raises(ValueError, match="change accumulate"):
        trainer(accumulate=3).take_step(pair)


def test_recomputing_changes_nothing_but_memory() -> None:
    [pair] = pairs(1)
    one, other = trainer().take_step(pair), trainer(recompute=True).take_step(pair)
    assert (other.loss, other.norm) == pytest.approx((one.loss, one.norm), rel=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_without_use_changes_nothing_and_is_counted(value: float) -> None:
    one = trainer(ema=0.9)
    good = pairs(3)
    one.take_step(good[0])
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    spoilt = Pair(degraded=good[1].degraded.clone(), clean=good[1].clean)
    spoilt.degraded[0, 0, 3, 3] = value
    outcome = one.take_step(spoilt)
    assert (outcome.taken, one.skipped, one.step) == (False, 1, 2)
    assert digest(dict(one.model.state_dict())) == digest(before)
    assert one.take_step(good[2]).taken


def test_a_loss_far_above_the_last_ones_is_skipped() -> None:
    one = trainer(depths=(SHALLOW,))
    [pair] = pairs(1)
    for _ in range(25):
        assert one.take_step(pair).taken
    far = Pair(degraded=pair.degraded, clean=pair.clean + 30)
    assert not one.take_step(far).taken
    assert one.take_step(pair).taken


def test_step_after_step_without_use_stops_the_run() -> None:
    one = trainer()
    spoilt = Pair(degraded=torch.full((1, 3, 8, 8), float("nan")), clean=torch.zeros(1, 3, 8, 8))
    for _ in range(MOST_SKIPPED_IN_A_ROW - 1):
        one.take_step(spoilt)
    with pytest.raises(Diverged, match=r"20 steps in a row .* up to step 20 .* lower lr than 0\.001"):
        one.take_step(spoilt)


def test_the_average_is_what_is_given_away() -> None:
    one = trainer(ema=0.5)
    start = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    for pair in pairs(2):
        one.take_step(pair)
    name = next(name for name in start if name.endswith("weight"))
    assert not torch.equal(one.best.state_dict()[name], one.model.state_dict()[name])
    assert trainer().best.state_dict().keys() == one.best.state_dict().keys()


def test_another_rate_is_taken_up_where_a_run_goes_on() -> None:
    begun, after = trainer(lr=1e-3), trainer(lr=1e-9)
    [pair] = pairs(1)
    begun.take_step(pair)
    after.load_state_dict(begun.state_dict())
    before = {name: tensor.clone() for name, tensor in after.model.state_dict().items()}
    after.take_step(pair)
    assert all((before[name] - tensor).abs().max() < 1e-8 for name, tensor in after.model.state_dict().items())


def test_the_state_of_another_network_is_refused() -> None:
    other = Trainer(DyNet(ModelConfig(width=16)), Settings(steps=1), seed=0, device=CPU)
    with pytest.raises(ValueError, match="the checkpoint is of another network: it has"):
        trainer().load_state_dict(other.state_dict())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps"),
        ({"accumulate": 0}, "accumulate"),
        ({"depths": ()}, "no depth"),
        ({"depths": ("M",)}, "depth"),
        ({"depths": ("2,3,3",)}, "depth"),
        ({"depths": ("2,3,3,99",)}, "depth"),
        ({"lr": 0.0}, "lr"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"precision": "f8"}, "precision"),
        ({"ema": 1.0}, "ema"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(**{"steps": 10} | changes)
