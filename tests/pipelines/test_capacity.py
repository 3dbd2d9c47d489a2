"""Hours per stage are arithmetic; the bottleneck is the longest stage; the advice removes it."""

from __future__ import annotations

import dataclasses

import pytest

from curation.forecast import Interval, exactly
from pipelines import capacity
from pipelines.capacity import CUT, DOWNLOAD, FILTER, PUBLISH, SCORE, SETTLE, Cluster, Limit, Load, advise, stages

HOUR = 3600.0
CLUSTER = Cluster(nodes=4, cores=15, gbits=2.0, threads=50, per_host=5)
#: On it: hours of cores 10, of threads 6, of lines 5, of the largest host 1; settling 1, cutting 2, sending 0.1.
LOAD = Load(
    wait_seconds=exactly(6 * HOUR * 61 * 50),
    core_seconds=Interval(low=8 * HOUR * 60, mid=10 * HOUR * 60, high=12.5 * HOUR * 60),
    host_seconds=exactly(1 * HOUR * 4 * 5),
    settle_seconds=exactly(1 * HOUR),
    cut_seconds=exactly(2 * HOUR * 60),
    bytes_down=exactly(5 * HOUR * 8e9 / 8),
    bytes_cut=exactly(1e9),
    bytes_shards=exactly(0.1 * HOUR * 2e9 / 16),
    reached=exactly(0.8),
    start_seconds=0.25 * HOUR,
)


def limited(**hours: float) -> Load:
    """The load with other hours of threads, lines, the host, or in the driver."""
    scale = {
        "wait_seconds": 61 * 50 * HOUR,
        "bytes_down": HOUR * 1e9,
        "host_seconds": 20 * HOUR,
        "settle_seconds": HOUR,
        "cut_seconds": 60 * HOUR,
    }
    return dataclasses.replace(LOAD, **{name: exactly(value * scale[name]) for name, value in hours.items()})


def hours(load: Load, cluster: Cluster = CLUSTER) -> dict[str, float]:
    return {stage.name: stage.hours.mid for stage in stages(load, cluster)}


def test_hours_are_needs_by_means() -> None:
    assert hours(LOAD) == pytest.approx(
        {DOWNLOAD: 6, SCORE: 10, FILTER: 10 / 0.8 + 0.25, SETTLE: 1, CUT: 2, PUBLISH: 0.1}
    )
    whole = capacity.total(stages(LOAD, CLUSTER))
    assert whole.mid == pytest.approx(12.75 + 3.1)
    assert whole.low == pytest.approx(8 / 0.8 + 0.25 + 3.1) and whole.high == pytest.approx(12.5 / 0.8 + 0.25 + 3.1)


def test_twice_the_nodes_take_half_of_what_nodes_speed_up() -> None:
    twice = hours(LOAD, dataclasses.replace(CLUSTER, nodes=8))
    assert (twice[SCORE], twice[CUT], twice[SETTLE], twice[PUBLISH]) == pytest.approx((5, 1, 1, 0.1))


@pytest.mark.parametrize(
    ("load", "limit"),
    [
        (LOAD, Limit.CORES),
        (limited(wait_seconds=30), Limit.THREADS),
        (limited(bytes_down=30), Limit.BANDWIDTH),
        (limited(host_seconds=30), Limit.HOST),
    ],
)
def test_the_bottleneck_of_filtering_is_named_and_removed(load: Load, limit: Limit) -> None:
    """On the advised cluster what held it up is not the longest any more, or (of a polite host) no core waits."""
    worst = capacity.bottleneck(stages(load, CLUSTER))
    assert (worst.name, worst.limit) == (FILTER, limit)
    better = advise(load, CLUSTER).cluster
    after = {name: one.mid for name, one in capacity.limits(load, better).items()}
    if limit is Limit.CORES:
        assert hours(load, better)[FILTER] <= hours(load, better)[SETTLE] + load.start_seconds / HOUR + 0.01
    elif limit is Limit.HOST:
        assert better.cores < CLUSTER.cores and after[Limit.CORES] == pytest.approx(after[Limit.HOST], rel=0.1)
    else:
        assert after[limit] <= 1.01 * after[Limit.CORES]
        assert hours(load, better)[FILTER] < 0.5 * worst.hours.mid
    assert after[Limit.THREADS] <= max(value for name, value in after.items() if name is not Limit.THREADS)


def test_where_settling_is_longest_fewer_nodes_do() -> None:
    load = limited(settle_seconds=40)
    assert capacity.bottleneck(stages(load, CLUSTER)).name == SETTLE
    better = advise(load, CLUSTER).cluster
    assert better.nodes == 2 and hours(load, better)[FILTER] <= 40


def test_where_cutting_is_longest_it_is_said() -> None:
    assert "cutting" in advise(limited(cut_seconds=50), CLUSTER).why


def test_a_list_that_costs_nothing_does_not_break_the_arithmetic() -> None:
    nothing = dataclasses.replace(
        LOAD,
        **{one.name: exactly(0.0) for one in dataclasses.fields(Load) if one.name not in ("reached", "start_seconds")},
    )
    assert capacity.total(stages(nothing, CLUSTER)).mid == pytest.approx(0.25)
    assert advise(nothing, CLUSTER).cluster.nodes >= 1
    assert set(capacity.sweep(nothing, CLUSTER)) == {2, 4, 8, 16, 32}


@pytest.mark.parametrize(
    "wrong", [{"cores": 0}, {"nodes": 0}, {"gbits": 0.0}, {"gpus": -1.0}, {"threads": 0}, {"per_host": 0}]
)
def test_a_cluster_that_can_t_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give"):
        dataclasses.replace(CLUSTER, **wrong)
