"""The verdict is a pure function of the row and the thresholds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from curation.judge import MetricThreshold, Thresholds, judge
from curation.records import TRANSIENT, Link, Reason, Row, Stage

LINK = Link(position=0, key="0" * 16, url="http://a.example/1.jpg", source="test")
NIQE = MetricThreshold(metric="niqe", bound=5.0, lower_better=True)
NIMA = MetricThreshold(metric="nima", bound=4.5, lower_better=False)
THRESHOLDS = Thresholds(min_res=1024, metrics=(NIQE, NIMA))
GOOD = Row(link=LINK, width=1024, height=2000, scores={"niqe": 5.0, "nima": 4.5}, stored=True)


def test_a_row_exactly_on_every_threshold_is_kept() -> None:
    assert judge(GOOD, THRESHOLDS).reason is Reason.KEPT


@pytest.mark.parametrize(
    ("change", "reason", "named"),
    [
        ({"width": 1023}, Reason.TOO_SMALL, "1023x2000"),
        ({"height": 1023}, Reason.TOO_SMALL, "1024x1023"),
        ({"scores": {"niqe": 5.01, "nima": 9.0}}, Reason.LOW_QUALITY, "niqe 5.010, wanted niqe <= 5"),
        ({"scores": {"niqe": 1.0, "nima": 4.49}}, Reason.LOW_QUALITY, "nima"),
        ({"scores": {"niqe": math.nan, "nima": 9.0}}, Reason.LOW_QUALITY, "niqe"),
        ({"scores": {"niqe": 1.0}}, Reason.NOT_MEASURED, "nima"),
        ({"width": None, "height": None, "scores": {}}, Reason.NOT_MEASURED, "downloaded"),
        ({"stored": False}, Reason.NOT_STORED, "not kept"),
        ({"link": replace(LINK, declared_width=1000)}, Reason.DECLARED_TOO_SMALL, "1000"),
        ({"link": replace(LINK, punsafe=0.51)}, Reason.DECLARED_UNSAFE, "0.510"),
        ({"link": replace(LINK, pwatermark=0.81)}, Reason.DECLARED_WATERMARK, "0.810"),
    ],
)
def test_each_rule_has_its_reason(change: dict, reason: Reason, named: str) -> None:
    judged = judge(replace(GOOD, **change), THRESHOLDS)
    assert judged.reason is reason
    assert named in judged.detail


def test_one_vote_against_is_enough_and_every_vote_is_named() -> None:
    judged = judge(replace(GOOD, scores={"niqe": 9.0, "nima": 1.0}), THRESHOLDS)
    assert "niqe" in judged.detail
    assert "nima" in judged.detail


@pytest.mark.parametrize("stage", [Stage.FETCH, Stage.DECODE, Stage.SCORE])
def test_what_happened_to_a_url_is_no_matter_of_thresholds(stage: Stage) -> None:
    row = Row(link=LINK, reason=Reason.TIMED_OUT, stage=stage)
    for bounds in (THRESHOLDS, Thresholds(min_res=1)):
        assert judge(row, bounds) is row


def test_thresholds_there_and_back_give_the_first_verdict_again() -> None:
    rows = [
        GOOD,
        replace(GOOD, scores={"niqe": 7.0, "nima": 6.0}),
        replace(GOOD, width=700),
        Row(link=replace(LINK, declared_width=700), reason=Reason.NOT_MEASURED, stage=Stage.FETCH),
    ]
    strict = Thresholds(min_res=2048, metrics=(replace(NIQE, bound=1.0), NIMA))
    first = [judge(row, THRESHOLDS) for row in rows]
    assert [judge(judge(row, strict), THRESHOLDS) for row in first] == first


def test_what_looser_thresholds_let_in_but_nobody_has_is_for_the_retry() -> None:
    refused = judge(Row(link=replace(LINK, declared_width=700), reason=Reason.NOT_MEASURED), THRESHOLDS)
    looser = judge(refused, Thresholds(min_res=512, metrics=(NIQE,)))
    assert looser.reason is Reason.NOT_MEASURED
    assert looser.reason in TRANSIENT


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: MetricThreshold(metric="niqe", bound=math.nan, lower_better=True), "niqe"),
        (lambda: Thresholds(min_res=0), "min_res"),
        (lambda: Thresholds(max_punsafe=1.5), "max_punsafe"),
        (lambda: Thresholds(metrics=(NIQE, NIQE)), "two thresholds"),
    ],
)
def test_impossible_thresholds_are_refused(make, word: str) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=word):
        make()
