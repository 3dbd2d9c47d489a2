"""Intervals hold what they promise: in simulated lists, the truth lies in 90 to 99 of 100 of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from curation.forecast import Interval, around, exactly, mean, number_hosts, share, spread, wilson

DRAWS = 300
PILOT = 1000
ROWS = 20_000

Rng = np.random.Generator


def coverage(draw: Callable[[Rng], tuple[Interval, float]]) -> float:
    """The share of draws whose interval holds the truth of that draw."""
    rng = np.random.default_rng(7)
    return float(np.mean([interval.holds(truth) for interval, truth in (draw(rng) for _ in range(DRAWS))]))


def sampled(rng: Rng) -> np.ndarray:
    return rng.choice(ROWS, PILOT, replace=False)


@pytest.mark.parametrize("part", [0.003, 0.02, 0.3, 0.9])
def test_a_share_of_rows_that_fail_alone(part: float) -> None:
    hosts = np.arange(ROWS)

    def draw(rng: Rng) -> tuple[Interval, float]:
        hits = rng.random(ROWS) < part
        at = sampled(rng)
        return share(hits[at], hosts[at]), float(hits.mean())

    assert 0.90 <= coverage(draw) <= 0.99


def sizes_of_hosts(rng: Rng) -> np.ndarray:
    """(rows,) the host of each row: a few large ones and many small, as in lists of the web."""
    weights = 1.0 / np.arange(1, 401) ** 0.6
    return rng.choice(400, ROWS, p=weights / weights.sum())


def test_a_share_of_rows_whose_hosts_fail_by_the_day() -> None:
    """Each host fails at a rate of its own, half of which is the host's and half the day's of pilot and run."""
    covered_alone = []

    def draw(rng: Rng) -> tuple[Interval, float]:
        hosts = sizes_of_hosts(rng)
        lasting = rng.normal(0.0, 0.15, 400)
        pilot, run = (np.clip(0.5 + lasting + rng.normal(0.0, 0.15, 400), 0.0, 1.0) for _ in range(2))
        at = sampled(rng)
        hits = rng.random(PILOT) < pilot[hosts[at]]
        truth = float(np.mean(rng.random(ROWS) < run[hosts]))
        covered_alone.append(share(hits, np.arange(PILOT)).holds(truth))
        return share(hits, hosts[at]), truth

    assert 0.90 <= coverage(draw) <= 0.99
    assert np.mean(covered_alone) < 0.90, "without hosts, the interval would promise too much"


def test_a_share_over_lists_of_other_hosts() -> None:
    """The truth is the rate at which such hosts fail; a list has 40 of them, all rows of one alike or nearly."""

    def draw(rng: Rng) -> tuple[Interval, float]:
        rates = rng.beta(2.0, 3.0, 40)
        hosts = rng.integers(0, 40, PILOT)
        return share(rng.random(PILOT) < rates[hosts], hosts), 0.4

    assert 0.90 <= coverage(draw) <= 0.99


def test_a_mean_of_few_large_values() -> None:
    """Bytes of a row: four in ten have none, the others' logarithm is spread by 1."""
    hosts = np.arange(ROWS)

    def draw(rng: Rng) -> tuple[Interval, float]:
        values = np.where(rng.random(ROWS) < 0.4, 0.0, rng.lognormal(12.0, 1.0, ROWS))
        at = sampled(rng)
        return mean(values[at], hosts[at]), float(values.mean())

    assert 0.90 <= coverage(draw) <= 0.99


def test_a_mean_whose_hosts_are_slow_by_the_day() -> None:
    def draw(rng: Rng) -> tuple[Interval, float]:
        hosts = sizes_of_hosts(rng)
        lasting = rng.normal(0.0, 0.4, 400)
        pilot, run = (np.exp(lasting + rng.normal(0.0, 0.4, 400)) for _ in range(2))
        at = sampled(rng)
        seconds = pilot[hosts[at]] * rng.exponential(1.0, PILOT)
        return mean(seconds, hosts[at]), float(np.mean(run[hosts] * rng.exponential(1.0, ROWS)))

    assert 0.90 <= coverage(draw) <= 0.99


def test_wilson_s_bounds_are_the_shares_that_the_sample_just_does_not_contradict() -> None:
    """What defines them: there the sample's share lies 1.96 of *their* standard deviations away."""
    found = wilson(0.1, 100, 1.96)
    for bound in (found.low, found.high):
        assert abs(0.1 - bound) == pytest.approx(1.96 * np.sqrt(bound * (1 - bound) / 100))


def test_nothing_of_a_thousand_is_not_nothing() -> None:
    none = share(np.zeros(1000, dtype=bool), np.arange(1000))
    assert none.low == none.mid == 0.0 and 0.003 < none.high < 0.005
    every = share(np.ones(1000, dtype=bool), np.arange(1000))
    assert every.mid == every.high == 1.0 and 0.995 < every.low < 0.997


def test_rows_of_a_host_that_all_do_the_same_count_as_one() -> None:
    hosts = np.repeat(np.arange(50), 20)
    hits = (hosts % 5 == 0).astype(float)
    assert spread(hits, hosts).effect == pytest.approx(20, rel=0.05)
    assert spread(hits, np.arange(1000)).effect == 1.0
    assert spread(hits, np.zeros(1000, dtype=int)).effect == 1.0, "of one host, nothing is known of others"


def test_the_same_rows_in_another_order_give_the_same() -> None:
    rng = np.random.default_rng(1)
    hosts, values = rng.integers(0, 30, 500), rng.exponential(1.0, 500)
    order = rng.permutation(500)
    one, other = mean(values, hosts), mean(values[order], hosts[order])
    assert (one.low, one.mid, one.high) == pytest.approx((other.low, other.mid, other.high))


def test_sums_prices_and_what_is_known() -> None:
    both = around(2.0, 0.1).times(10).plus(exactly(5.0))
    assert both.mid == pytest.approx(25.0) and both.low == pytest.approx(5 + 20 / np.exp(0.1))
    assert mean(np.zeros(3), np.arange(3)) == exactly(0.0)


def test_hosts_are_numbered_by_name() -> None:
    assert number_hosts(["b", "a", "b"]).tolist() == [1, 0, 1]


def test_no_row_at_all_is_said() -> None:
    with pytest.raises(ValueError, match="larger --pilot"):
        share(np.zeros(0, dtype=bool), np.zeros(0, dtype=int))
