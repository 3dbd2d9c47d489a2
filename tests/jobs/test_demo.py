"""`make demo`, with fewer pictures to draw and fewer steps to train."""

from __future__ import annotations

import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from curation.records import Reason
from jobs.demo import main
from pipelines import demo_pictures, pretrain_recipes
from shards.store import LocalStore
from tests.pipelines.conftest import rows_of

DRAWN = ("foliage-1.jpg", "pebbles-1.jpg", "pebbles-4.png", "hills-1.jpg", "wall-4.png")
SPOILT = ("blur-gauss-6.png", "noise-55.jpg", "watermark-2.jpg", "truncated-1.jpg")
DOUBLE = 3  # of those drawn: two that look alike, one that is the same


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A few of the demo's pictures and steps, and no network to have the official weights from."""
    for name, wanted in (("_GOODS", DRAWN), ("_BADS", SPOILT)):
        whole = getattr(demo_pictures, name)
        monkeypatch.setattr(demo_pictures, name, tuple(one for one in whole if one.name in wanted))
    demo = pretrain_recipes.demo()
    short = replace(demo, settings=replace(demo.settings, steps=2), batch=2, valid=2)
    monkeypatch.setitem(pretrain_recipes.NAMED, "demo", lambda: short)
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use for good
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.set_num_threads(1)


@pytest.fixture
def one_ray() -> Iterator[None]:
    """For all that the demo does."""
    ray.shutdown()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("small", "one_ray")
def test_from_drawn_pictures_or_one_s_own_to_a_trained_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert main(["--out", str(out)]) == 0
    found = Counter(row.reason for row in rows_of(LocalStore(out / "store")))
    assert found[Reason.TRUNCATED] == 1
    assert found[Reason.KEPT] + found[Reason.LOW_QUALITY] == len(DRAWN) + len(SPOILT) - 2  # cut short, watermark
    assert (out / "store" / "shards" / "manifest.json").is_file()
    assert (out / "run" / "checkpoints" / "step-000000002.pt").is_file()
    (out / "pictures").rename(tmp_path / "Pictures")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["--out", str(out), "--photos", "~/Pictures"]) == 0
    again = Counter(row.reason for row in rows_of(LocalStore(out / "store")))
    assert sum(again.values()) == len(DRAWN) + len(SPOILT) + DOUBLE
