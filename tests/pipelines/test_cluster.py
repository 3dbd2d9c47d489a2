"""What a job asks of the machines it runs on."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from pipelines.cluster import gpu_share, memory
from pipelines.scoring import ScorerSpec


def nodes(*resources: dict[str, float]) -> list[dict[str, Any]]:
    return [{"Alive": True, "Resources": one} for one in resources]


@pytest.mark.parametrize(
    ("cluster", "share"),
    [
        (nodes({"CPU": 16, "GPU": 1}), 1 / 16),
        (nodes({"CPU": 2, "GPU": 4}), 2.0),
        (nodes({"CPU": 16, "GPU": 1}, {"CPU": 32}), 0.0),  # or the second node's cores would stand idle
        (nodes({"CPU": 16, "GPU": 1}, {"memory": 1e9}), 1 / 16),  # a head that takes no work
        (nodes({"CPU": 8}), 0.0),
        ([], 0.0),
    ],
)
def test_a_gpu_is_shared_by_the_cores_where_every_node_has_one(
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
    assert memory(20e9) == 0.9 * 16e9


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
