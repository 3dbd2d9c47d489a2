"""What a job asks of the machines it runs on."""

from __future__ import annotations

import time
from typing import Any

import pytest
import ray

from pipelines.cluster import _workers, gpu_share, memory
from pipelines.scoring import ScorerSpec, needs, passes


@pytest.fixture(autouse=True)
def anew() -> None:
    """What was known of another cluster this second is forgotten."""
    _workers.cache_clear()


def nodes(*resources: dict[str, float]) -> list[dict[str, Any]]:
    return [{"Alive": True, "Resources": one} for one in resources]


@pytest.mark.parametrize(
    ("cluster", "share"),
    [
        (nodes({"CPU": 16, "GPU": 1}), 1 / 16),
        (nodes({"CPU": 2, "GPU": 4}), 2.0),
        (nodes({"CPU": 16, "GPU": 1}, {"CPU": 32}), 1 / 16),  # the second node's cores do the rest
        (nodes({"CPU": 16, "GPU": 1}, {"CPU": 8, "GPU": 4}), 1 / 16),
        (nodes({"CPU": 16, "GPU": 1}, {"memory": 1e9}), 1 / 16),  # a head that takes no work
        (nodes({"CPU": 8}), 0.0),
        ([], 0.0),
    ],
)
def test_a_gpu_is_shared_by_the_cores_of_its_node(
    cluster: list[dict[str, Any]], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: cluster)
    assert gpu_share() == share


def test_no_task_asks_for_the_memory_of_a_node_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for ever."""
    large, small = nodes({"CPU": 16, "memory": 64e9}, {"CPU": 8, "memory": 16e9})
    monkeypatch.setattr(ray, "nodes", lambda: [large, small])
    assert memory(20e9) == 20e9
    large["Alive"] = False
    _workers.cache_clear()  # a second later
    assert memory(20e9) == 0.9 * 16e9


def test_a_task_asks_for_no_more_memory_than_a_node_has_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = nodes({"memory": 64e9}, {"CPU": 8, "memory": 32e9}, {"CPU": 4, "GPU": 1, "memory": 16e9})
    monkeypatch.setattr(ray, "nodes", lambda: mixed)
    assert memory(1e9) == 1e9
    assert memory(50e9) == pytest.approx(0.9 * 32e9)
    assert memory(50e9, on_gpu=True) == pytest.approx(0.9 * 16e9)


@pytest.mark.parametrize(
    ("cluster", "split"),
    [
        (nodes({"CPU": 8}), False),
        (nodes({"CPU": 16, "GPU": 1}), False),
        (nodes({"CPU": 16, "GPU": 1}, {"memory": 1e9}), False),
        (nodes({"CPU": 16, "GPU": 1}, {"CPU": 8}), True),
    ],
)
def test_networks_have_a_task_of_their_own_where_some_nodes_have_a_gpu(
    cluster: list[dict[str, Any]], split: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: cluster)
    spec = ScorerSpec.of(dict.fromkeys(("niqe", "brisque", "nima"), ()), "fused")
    first = ScorerSpec.of(dict.fromkeys(("niqe", "brisque"), ()), "fused")
    assert passes(spec) == ((first, spec) if split else (spec,))
    assert passes(first) == (first,)
    assert needs(first, 1)["num_gpus"] == 0


@pytest.mark.parametrize(
    ("metrics", "engine", "need"),
    [
        (("niqe", "brisque", "upscaling", "jpeg_quality", "nima"), "fused", 30.0),
        (("niqe", "ilniqe"), "fused", 490.0),
        (("niqe",), "pyiqa", 490.0),
    ],
)
def test_what_pyiqa_computes_is_given_the_memory_that_pyiqa_takes(
    metrics: tuple[str, ...], engine: str, need: float
) -> None:
    assert ScorerSpec.of(dict.fromkeys(metrics, ()), engine).bytes_per_pixel == need


def test_only_networks_gain_by_a_gpu() -> None:
    none = ("niqe", "brisque", "upscaling", "jpeg_quality")
    assert not ScorerSpec.of(dict.fromkeys(none, ()), "fused").has_networks
    assert ScorerSpec.of(dict.fromkeys((*none, "nima"), ()), "fused").has_networks


def test_the_head_is_asked_for_its_nodes_once_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    seen = nodes({"CPU": 16, "memory": 64e9})
    monkeypatch.setattr(ray, "nodes", lambda: asked.append(time.monotonic()) or seen)
    for _ in range(1000):
        assert memory(1e9) == 1e9 and gpu_share() == 0
    assert 1 <= len(asked) <= 1 + int(time.monotonic() - asked[0] + 1)
