"""The simulation against what queueing theory says in closed form, and the limits against plain sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from curation import limits, simulation
from curation.pilot import Pilot
from curation.simulation import Cluster, host_shares, simulate

PILOT = Pilot(
    rows=5000,
    answered=3400,
    scored=1500,
    kept=100,
    patches=400,
    wait_seconds=6000.0,
    score_seconds=450.0,
    cut_seconds=40.0,
    store_seconds=2.0,
    bytes_down=2_400_000_000,
    bytes_kept=150_000_000,
    bytes_ledger=500_000,
    bytes_shards=26_400_000,
    chunks=5,
    unit_seconds=20.0,
)
ALIKE = Cluster(nodes=2, cores=4, zipf=0.0)


def ends(seconds: list[float], cluster: Cluster, work: float = 0.0, store: float = 0.0) -> np.ndarray:
    """When chunks of these downloads end where no host is waited for."""
    chunks = len(seconds)
    return simulation._ends(np.array(seconds), np.zeros((chunks, 1)), np.full(chunks, work), store, cluster)


def test_with_fixed_times_the_end_is_exact() -> None:
    """n chunks through k slots of d seconds each: ceil(n / k) rounds."""
    one = Cluster(nodes=1, cores=1)
    assert ends([3.0] * 10, one, store=0.5).max() == pytest.approx(5 * 3.5)
    many = Cluster(nodes=4, cores=2)
    assert ends([3.0] * 100, many).max() == pytest.approx(-(-100 // many.in_flight) * 3.0)


def test_cores_that_are_short_decide_alone() -> None:
    """Scoring of 20 chunks of 8 core-seconds on 4 cores takes 40 s, however fast downloads are."""
    assert ends([0.001] * 20, Cluster(nodes=2, cores=2), work=8.0).max() == pytest.approx(40.0)


def test_no_order_of_service_beats_the_bounds() -> None:
    """As long as the longest chunk and the mean of all slots; no longer than Graham's bound for a list."""
    seconds = np.random.default_rng(0).exponential(5.0, 500).tolist()
    cluster = Cluster(nodes=3, cores=3)
    end = ends(seconds, cluster).max()
    mean = sum(seconds) / cluster.in_flight
    assert max(max(seconds), mean) <= end <= mean + max(seconds)


@pytest.mark.parametrize("zipf", [0.0, 0.7, 1.0, 1.3])
@pytest.mark.parametrize("rows", [10_000, 1_000_000])
def test_a_run_is_no_shorter_than_its_largest_host_and_its_cores(rows: int, zipf: float) -> None:
    run = simulate(PILOT, rows, replace(ALIKE, zipf=zipf))
    assert run.seconds >= run.host_seconds
    assert run.seconds >= run.core_seconds / (ALIKE.nodes * ALIKE.cores)
    assert 0 <= run.last_hundredth <= run.seconds
    assert run.host_seconds == pytest.approx(rows * run.host_share * 1.2 / (2 * 4), rel=0.25)


def test_an_unequal_list_waits_for_its_largest_host() -> None:
    """Where one host has most, the run lasts as long as that host's requests, and more nodes are what helps."""
    skewed = replace(ALIKE, zipf=1.3)
    run = simulate(PILOT, 1_000_000, skewed)
    assert run.seconds == pytest.approx(run.host_seconds, rel=0.05)
    assert simulate(PILOT, 1_000_000, replace(skewed, nodes=4)).seconds == pytest.approx(run.seconds / 2, rel=0.1)
    assert simulate(PILOT, 1_000_000, ALIKE).seconds < run.seconds / 2


def test_the_same_seed_is_the_same_run_and_another_is_near() -> None:
    first = simulate(PILOT, 1_000_000, ALIKE, seed=1)
    assert simulate(PILOT, 1_000_000, ALIKE, seed=1) == first
    assert simulate(PILOT, 1_000_000, ALIKE, seed=2).seconds == pytest.approx(first.seconds, rel=0.1)


def test_draws_have_the_mean_of_the_pilot() -> None:
    totals, longest = simulation._downloads(np.random.default_rng(0), np.full(4000, 1000), 1.2)
    drawn = 1.2 * np.exp(np.random.default_rng(1).standard_normal((4000, 1000)) - 0.5)
    assert totals.mean() == pytest.approx(1200, rel=0.01) and totals.std() == pytest.approx(drawn.sum(1).std(), rel=0.1)
    assert np.median(longest) == pytest.approx(np.median(drawn.max(1)), rel=0.05)


def test_shares_of_hosts_add_up_and_fall() -> None:
    shares = host_shares(1_000_000, 1.0)
    assert shares.sum() == pytest.approx(1.0) and (np.diff(shares) < 0).all()
    assert shares[0] / shares[9] == pytest.approx(10.0)
    assert host_shares(900, 0.0).tolist() == pytest.approx([1 / 30] * 30)


def test_what_breaks_is_named_with_the_first_before_all_others() -> None:
    run = simulate(PILOT, 1_000_000, ALIKE)
    small = limits.demands(PILOT, run, ALIKE, driver_bytes=1e8, days=30.0)
    assert limits.broken(small) == small[0] and small[0].what == "driver memory"
    assert limits.broken(limits.demands(PILOT, run, ALIKE, driver_bytes=4e9, days=30.0)) is None
    assert limits.sizes(PILOT, run).ledger == pytest.approx(100e6)


@pytest.mark.parametrize("changes", [{"nodes": 0}, {"chunk_size": 0}, {"zipf": -1.0}, {"zipf": 9.0}])
def test_a_cluster_that_can_not_be_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give"):
        replace(ALIKE, **changes)
    with pytest.raises(ValueError, match="nothing to simulate"):
        simulate(PILOT, 0, ALIKE)
