"""`dynet-filter plan` as people call it: what it refuses before any work, and a plan that its run is held against."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import filter_laion
from jobs.hostile_server import HttpServer
from pipelines import pilot, promise
from shards.store import LocalStore
from tests import ledgers
from tests.jobs.conftest import Said
from tests.pipelines.conftest import SIDE, encoded, local_ray, prior, texture

__all__ = ["local_ray", "prior"]  # the fixtures

BOUNDS = ("--metrics", "niqe,brisque", "--threshold", "niqe=30", "--threshold", "brisque=200")


@pytest.fixture
def said(refusal: Callable[[ModuleType, ModuleType], Said]) -> Said:
    return refusal(filter_laion, pilot)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"URL": ["http://example.com/a.jpg"]}), path)
    return path


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--pilot", 0), "a pilot of 0 URLs tells nothing: give --pilot 1 or more"),
        (("--pilot", -5), "a pilot of -5 URLs tells nothing: give --pilot 1 or more"),
        (("--cores", 0), "a cluster of 1 nodes of 0 cores can't work: give 1 or more of each"),
        (("--nodes", 0), "a cluster of 0 nodes of 1 cores can't work: give 1 or more of each"),
        (("--gbits", 0), "a node of 0.0 Gbit/s downloads nothing: give more than 0"),
        (("--retry-failed",), "--retry-failed is for a run: a plan is made of a list that was not begun"),
    ],
)
def test_what_can_t_be_is_said_before_any_work(
    words: tuple[object, ...], sentence: str, said: Said, listed: Path, tmp_path: Path
) -> None:
    assert said("plan", "--urls", listed, "--out", tmp_path / "pilot", *words) == sentence
    assert not (tmp_path / "pilot").exists()


def test_no_list_is_said(said: Said, tmp_path: Path) -> None:
    assert said("plan", "--pilot", 10) == "no URL list: give --urls with Parquet or CSV lists to plan for"


def test_an_unknown_price_is_named(said: Said, listed: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text('{"about": "ours", "cpu_hour": 1}')
    sentence = said("plan", "--urls", listed, "--out", tmp_path / "pilot", "--prices", prices)
    assert sentence.startswith("the price table has no field cpu_hour: it knows about, currency, cpu_worker_hour,")


def test_status_holds_a_run_on_its_way_against_its_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = LocalStore(tmp_path)
    ledgers.commit(store, ledgers.plan(store, 20, 20), range(5))
    assert filter_laion.main(["status", store.root]) == 0
    assert "plan against actual" not in capsys.readouterr().out
    promised = {promise.KEPT: {"low": 200, "mid": 230, "high": 260}}
    store.write(promise.PLAN, json.dumps({"quantities": promised}).encode())
    assert filter_laion.main(["status", store.root]) == 0
    out = capsys.readouterr().out
    assert re.search(r"rows that pass all thresholds +230 +200 +260 +239 +inside\n", out), out
    assert "scaled to the whole list, of which 25.1 % are in" in out


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        filter_laion.main(["plan", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: dynet-filter plan ") and "example:\n  dynet-filter plan " in out


@pytest.mark.slow
def test_a_plan_and_the_run_that_it_is_of(
    local_ray: None, prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pilot larger than the list is the whole list, so its promises of counts and bytes must all be kept."""
    with HttpServer() as server:
        urls = [server.add(f"/{seed}.jpg", encoded(texture(seed, SIDE, 2 * SIDE)), "image/jpeg") for seed in range(6)]
        urls += [server.url(f"/404/{number}") for number in range(8)]
        urls += [server.add(f"/small-{n}.jpg", encoded(texture(n, 64, 64)), "image/jpeg") for n in range(9)]
        pq.write_table(pa.table({"URL": [*urls, urls[0]]}), tmp_path / "list.parquet")
        common = ("--urls", tmp_path / "list.parquet", "--weights", prior, *BOUNDS, "--min-res", SIDE)
        common = (*common, "--allow-private-hosts", "--chunk-size", 8)
        store = LocalStore(tmp_path / "store")
        assert call("plan", *common, "--urls", tmp_path / "none.parquet", "--out", tmp_path / "pilot") == 2
        assert "none.parquet: no such list" in capsys.readouterr().err and not (tmp_path / "pilot").exists()
        pilots = ("plan", *common, "--pilot", 5000, "--out", tmp_path / "pilot", "--for", store.root)
        assert call(*pilots) == 0
        out = capsys.readouterr().out
        asked = server.requests.total()
        assert call(*pilots, "--json") == 0
        again = json.loads(capsys.readouterr().out)
        assert server.requests.total() == asked, "a pilot that is there is not made again"
        assert call(*common, "--out", store.root) == 0
    assert "--pilot 5000 is more than the list has: the pilot was the whole list of 23 URLs" in out
    assert "1 rows repeat an earlier URL" in out and "nobody's prices" in out and "bottleneck: " in out
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line and line[:1] != "-") <= 100
    assert again["pilot"]["kept"] == 6 and again["pilot"]["answered"] == 15
    compared = store.read(promise.COMPARED).decode()
    assert compared in capsys.readouterr().out
    lines = {name: line for line in compared.splitlines() for name in promise.ORDER if line.startswith(name)}
    assert set(lines) == set(promise.ORDER)
    counted = (promise.ANSWERED, promise.KEPT, promise.DOWN, promise.PATCHES, promise.SHARDS)
    assert all(lines[name].endswith("inside") for name in counted), compared


def call(*words: object) -> int:
    return filter_laion.main([str(word) for word in words])
