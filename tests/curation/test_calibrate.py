"""Bounds let through what was wished for and are even, curves and areas are those worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import trapezoid

from curation import ledger
from curation.calibrate import (
    Metric,
    Scores,
    areas,
    auc,
    confusion,
    costs,
    distribution,
    even_bounds,
    for_pass_rate,
    for_yield,
    from_ledger,
    passes,
    passing,
    roc,
    rounded_up,
)
from curation.judge import MetricThreshold
from curation.records import Link, Reason, Row, Stage, url_key
from shards.store import LocalStore

LOW = Metric(name="low", lower_better=True)
HIGH = Metric(name="high", lower_better=False)


def scores(values: Sequence[Sequence[float]], good: Sequence[bool] | None = None, **rest: object) -> Scores:
    """Pictures by (low, high), all of one group unless said otherwise."""
    table = np.array(values, np.float64)
    fields = {"groups": np.full(len(table), "photos", dtype=object), **rest}
    said = None if good is None else np.array(good, bool)
    return Scores(metrics=(LOW, HIGH), values=table, good=said, **fields)


def random_scores(seed: int, pictures: int) -> np.ndarray:
    """(n, 2) float64 of few decimals, so that some are alike; one in twenty has no number."""
    generator = np.random.default_rng(seed)
    values = np.round(generator.normal([5, 50], [2, 20], (pictures, 2)), 1)
    values[generator.random(values.shape) < 0.05] = np.nan
    return values


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.8])
def test_at_least_the_wished_share_passes_and_little_more(seed: int, share: float) -> None:
    known = scores(random_scores(seed, 200), [True] * 200)
    passed = passing(known, for_pass_rate(known, share)).all(axis=1).mean()
    assert share <= passed <= share + 0.05  # ties and rounding to three digits let some more through


@pytest.mark.parametrize("seed", range(8))
def test_no_metric_is_stricter_than_another(seed: int) -> None:
    generator = np.random.default_rng(seed)
    known = scores(generator.random((500, 2)), [True] * 500)
    alone = passing(known, for_pass_rate(known, 0.7)).sum(axis=0)
    assert abs(int(alone[0]) - int(alone[1])) <= 5  # of 500; three digits of a bound


def test_the_bounds_worked_out_by_hand() -> None:
    """Worst ranks: a 1, b 3 (its high is the third), c 3 (its low is), d 4. For three, k is 3."""
    table = [(1.0, 90.0), (2.0, 70.0), (3.0, 80.0), (4.0, 60.0)]
    bounds = for_pass_rate(scores(table, [True] * 4), 0.75)
    assert bounds == (
        MetricThreshold(metric="low", bound=3.0, lower_better=True),
        MetricThreshold(metric="high", bound=70.0, lower_better=False),
    )


def test_a_bound_that_is_held_stays_and_the_others_still_reach_the_wish() -> None:
    known = scores(np.random.default_rng(1).random((400, 2)), [True] * 400)
    held = MetricThreshold(metric="high", bound=0.2, lower_better=False)
    low, high = for_pass_rate(known, 0.6, [held])
    assert high == held
    assert 0.6 <= passing(known, [low, high]).all(axis=1).mean() <= 0.61
    assert low.bound == pytest.approx(0.6 / 0.8, abs=0.06)  # the two are independent here
    with pytest.raises(ValueError, match=r"380 pictures should pass and 3\d\d can"):
        for_pass_rate(known, 0.95, [held])


def test_bad_pictures_do_not_move_a_pass_rate() -> None:
    table = random_scores(3, 100)
    alone = for_pass_rate(scores(table, [True] * 100), 0.6)
    worse = scores(np.concatenate([table, table + np.array([9.0, -99.0])]), [True] * 100 + [False] * 100)
    assert for_pass_rate(worse, 0.6) == alone


@given(st.integers(0, 10_000), st.integers(1, 60))
def test_a_higher_wish_is_never_stricter(seed: int, pictures: int) -> None:
    badness = scores(random_scores(seed, pictures)).badness
    whole = int(np.isfinite(badness).all(axis=1).sum())
    bounds = [even_bounds(badness, (LOW, HIGH), wanted) for wanted in range(1, whole + 1)]
    lows, highs = [one[0].bound for one in bounds], [one[1].bound for one in bounds]
    assert lows == sorted(lows) and highs == sorted(highs, reverse=True)


def test_a_picture_without_a_number_never_passes_and_is_not_wished_for() -> None:
    known = scores([(1.0, 90.0), (math.nan, 95.0), (2.0, 80.0)], [True] * 3)
    bounds = for_pass_rate(known, 2 / 3)
    assert passing(known, bounds).all(axis=1).tolist() == [True, False, True]
    with pytest.raises(ValueError, match="3 pictures should pass and 2 can"):
        for_pass_rate(known, 1.0)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.2, math.nan])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="pass rate is"):
        for_pass_rate(scores([(1.0, 2.0)], [True]), share)
    with pytest.raises(ValueError, match="yield is"):
        for_yield(scores([(1.0, 2.0)]), share, rows=1)


def test_without_good_pictures_there_is_no_pass_rate() -> None:
    with pytest.raises(ValueError, match="no good picture could be scored"):
        for_pass_rate(scores([(1.0, 2.0)], [False]), 0.9)


def test_a_yield_is_of_all_rows_and_not_only_of_the_scored() -> None:
    known = scores(np.random.default_rng(0).random((100, 2)))
    of_all = passing(known, for_yield(known, 0.05, rows=1000)).all(axis=1).sum()
    assert 50 <= of_all <= 52
    with pytest.raises(ValueError, match="200 pictures should pass and 100 can"):
        for_yield(known, 0.2, rows=1000)


@given(st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6))
def test_a_rounded_bound_lets_the_score_pass_and_is_near_it(value: float) -> None:
    bound = rounded_up(value)
    assert value <= bound <= value + 0.0101 * abs(value)
    assert float(f"{bound:.3g}") == bound


def test_roc_and_area_worked_out_by_hand() -> None:
    """Good 1, 2, 4 and bad 3, 4, inf: of nine pairs seven are in order, one is a tie, one is not."""
    good, bad = np.array([1.0, 2.0, 4.0]), np.array([3.0, 4.0, np.inf])
    curve = roc(good, bad)
    assert curve.good.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1, 1])
    assert curve.bad.tolist() == pytest.approx([0, 0, 0, 1 / 3, 2 / 3, 1])
    assert auc(good, bad) == pytest.approx(7.5 / 9)


@given(st.integers(0, 10_000))
def test_the_area_is_that_under_the_curve(seed: int) -> None:
    generator = np.random.default_rng(seed)
    good, bad = generator.integers(0, 20, 30).astype(float), generator.integers(5, 25, 40).astype(float)
    curve = roc(good, bad)
    assert auc(good, bad) == pytest.approx(trapezoid(curve.good, curve.bad))
    assert auc(bad, good) == pytest.approx(1 - auc(good, bad))


def test_areas_are_of_each_bad_group_against_all_good_pictures() -> None:
    table = [(1.0, 10.0), (2.0, 20.0), (3.0, 30.0), (0.0, 40.0)]
    groups = np.array(["photos", "photos", "blur", "jpeg"], dtype=object)
    found = areas(scores(table, [True, True, False, False], groups=groups))
    assert found == {"blur": {"low": 1.0, "high": 0.0}, "jpeg": {"low": 0.0, "high": 0.0}}
    assert areas(scores(table, [False] * 4, groups=groups)) == {}


def test_the_confusion_table_counts_each_group_and_good_comes_first() -> None:
    table = [(9.0, 90.0), (1.0, 90.0), (1.0, 10.0), (1.0, 90.0), (9.0, math.nan)]
    groups = np.array(["jpeg 10", "photos", "photos", "photos", "jpeg 10"], dtype=object)
    known = scores(table, [False, True, True, True, False], groups=groups)
    bounds = [MetricThreshold(metric="low", bound=5.0, lower_better=True)]
    bounds.append(MetricThreshold(metric="high", bound=50.0, lower_better=False))
    first, second = confusion(known, bounds)
    assert (first.group, first.good, first.pictures, first.passing, first.together) == (
        "photos",
        True,
        3,
        {"low": 3, "high": 2},
        2,
    )
    assert (second.group, second.good, second.pictures, second.passing, second.together) == (
        "jpeg 10",
        False,
        2,
        {"low": 0, "high": 1},
        0,
    )


def test_the_cascade_begins_with_the_cheapest_refusal() -> None:
    """`low` takes ten times as long and refuses half; `high` refuses one in ten: 2 s against 1 s for a refusal."""
    table = np.column_stack([np.arange(10.0), np.arange(10.0)])
    seconds = np.tile([1.0, 0.1], (10, 1))
    known = scores(table, [True] * 10, seconds=seconds, megapixels=np.full(10, 2.0))
    strict = MetricThreshold(metric="low", bound=4.0, lower_better=True)
    loose = MetricThreshold(metric="high", bound=1.0, lower_better=False)
    first, second = costs(known, [strict, loose])
    assert (first.metric, second.metric) == ("high", "low")
    assert (first.per_rejection, second.per_rejection) == (pytest.approx(1.0), pytest.approx(2.0))
    assert (first.per_megapixel, second.per_megapixel) == (pytest.approx(0.05), pytest.approx(0.5))
    idle = costs(known, [replace(strict, bound=99.0), loose])[-1]
    assert idle.metric == "low" and idle.per_rejection == math.inf


def test_a_distribution_leaves_out_what_has_no_number() -> None:
    found = distribution(np.array([3.0, math.nan, 1.0, 2.0]))
    assert (found.quantiles[2], found.scored, found.missing) == (2.0, 3, 1)
    assert math.isnan(distribution(np.array([math.nan])).quantiles[0])


def row(number: int, reason: Reason = Reason.KEPT, **values: float) -> Row:
    url = f"http://a.example/{number}.jpg"
    link = Link(position=number, key=url_key(url), url=url, source="test")
    return Row(link=link, scores=values, reason=reason, stage=Stage.KEPT, stored=True)


def test_of_a_ledger_rows_with_all_metrics_are_taken_and_the_others_counted(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first = [row(0, low=1.0, high=90.0), row(1, Reason.LOW_QUALITY, low=9.0), row(2, Reason.TIMED_OUT)]
    ledger.write(store, "chunk-00000000", first, ("low", "high"), {})
    ledger.write(store, "chunk-00000001", [row(3, Reason.FLAT, low=math.nan, high=math.nan)], ("low", "high"), {})
    known = from_ledger(store, (LOW, HIGH))
    assert (len(known.scores.values), known.rows, known.partly, known.unscored) == (2, 4, 1, 1)
    line = known.line(for_yield(known.scores, 0.25, known.rows))
    assert (line.group, line.good, line.pictures, line.together) == ("ledger", None, 4, 1)


def test_a_store_without_a_ledger_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no ledger: run dynet-filter"):
        from_ledger(LocalStore(tmp_path), (LOW,))


def test_good_and_bad_folders_of_one_name_keep_a_line_each() -> None:
    known = scores([(1.0, 9.0), (8.0, 2.0)], [True, False])
    bounds = (MetricThreshold(metric="low", bound=5.0, lower_better=True),)
    said = [(line["group"], line["good"], line["all"]) for line in passes(confusion(known, bounds))]
    assert said == [("photos", True, 1), ("photos", False, 0)]
