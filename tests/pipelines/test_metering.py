"""Prometheus asks both real endpoints, Ray's own and the plain one: they say what the ledger says."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from curation.records import Reason
from pipelines import metering, unit_log
from pipelines.filter_laion import run
from tests.conftest import free_port
from tests.pipelines.conftest import World, encoded, rows_of, texture

PATIENCE = 60.0  # seconds until Ray's agent has what the driver counted

Samples = Mapping[tuple[str, str], float]  # (name, value of its own label) -> number


@pytest.fixture(scope="module")
def metrics_port() -> Iterator[int]:
    """A head whose agent serves metrics there, and reports to it every second instead of every ten."""
    port = free_port()
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        _metrics_export_port=port,
        _system_config={"metrics_report_interval_ms": 1000},
    )
    yield port
    ray.shutdown()


def scraped(port: int, prefix: str) -> Samples:
    """Ours of the numbers at a port, those that are not nought."""
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    own = {"reason", "stage", "what", "state", "depth"}
    return {
        (one.name.removeprefix(prefix), next((one.labels[name] for name in own & set(one.labels)), "")): one.value
        for family in text_string_to_metric_families(page)
        for one in family.samples
        if one.name.startswith(prefix) and not one.name.endswith("_created") and one.value
    }


def since(before: Samples, now: Samples) -> dict[tuple[str, str], float]:
    """Counters grow as long as the process lives, and other tests ran in it."""
    return {key: value - before.get(key, 0) for key, value in now.items() if value != before.get(key, 0)}


@pytest.mark.slow
def test_both_endpoints_and_the_log_say_what_the_ledger_says(world: World, metrics_port: int, tmp_path: Path) -> None:
    for seed in range(5):
        world.serve(f"{seed}.jpg", encoded(texture(seed)))
    world.serve("small.jpg", encoded(texture(9, 300, 300)))
    world.urls += [world.server.url(path) for path in ("/404/a", "/html/a.jpg", "/404/b")] + ["not a url"]
    job = world.job()
    port = free_port()
    with metering.endpoint(port), unit_log.written(tmp_path / "units.log"):
        before = scraped(port, "million_ird_")
        run(job, lambda rows, so_far: None)
        plain = since(before, scraped(port, "million_ird_"))

    rows = rows_of(job.store)
    funnel = Counter(row.reason.value for row in rows)
    assert funnel[Reason.KEPT.value] == 5 and funnel.total() == 10
    assert {label: value for (name, label), value in plain.items() if name == "rows_total"} == funnel
    assert plain["bytes_total", "read"] == sum(row.bytes_read for row in rows) > 0
    assert plain["bytes_total", "kept"] == sum(row.bytes or 0 for row in rows if row.stored) > 0
    assert plain["pictures_total", "keep"] == 5

    counted = {key: value for key, value in plain.items() if key[0].endswith("_total")}
    assert _awaited(metrics_port, counted) == pytest.approx(counted)

    lines = [json.loads(line) for line in (tmp_path / "units.log").read_text().splitlines()]
    assert sorted(line["unit"] for line in lines) == [f"chunk-{number:08d}" for number in range(3)]
    assert sum((Counter(line["reasons"]) for line in lines), Counter()) == funnel
    assert {line["node"] for line in lines} == {ray.get_runtime_context().get_node_id()}
    assert all(line["tries"] == 1 and line["seconds"]["unit"] > 0 for line in lines)


def _awaited(port: int, wanted: Mapping[tuple[str, str], float]) -> Samples:
    """Ray's numbers, once they are as large: they come to its agent a while after they were counted."""
    gives_up = time.monotonic() + PATIENCE
    while True:
        found = {key: value for key, value in scraped(port, "ray_million_ird_").items() if key[0].endswith("_total")}
        if found == pytest.approx(wanted) or time.monotonic() > gives_up:
            return found
        time.sleep(1)


def test_a_port_that_cant_be_had_is_said_in_one_sentence() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"--metrics-port {number} can't be had \(Address already in use\): give"):
            metering.endpoint(number).__enter__()
    with pytest.raises(ValueError, match="--metrics-port 0 is no port: give a number from 1 to 65535"):
        metering.endpoint(0).__enter__()


def test_a_log_that_cant_be_written_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"can't be written \(No such file or directory\): give another file"):
        unit_log.written(tmp_path / "no folder" / "units.log").__enter__()
