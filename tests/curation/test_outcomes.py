"""A ledger's rows as arrays, and what other thresholds would keep of them."""

from __future__ import annotations

import pytest

from curation.judge import MetricThreshold, Thresholds
from curation.outcomes import FAILED, PASSED, STEPS, UNTRIED, host, outcomes, yields
from curation.records import Link, Reason, Row, Stage
from tests import ledgers

BOUNDS = Thresholds(min_res=512, metrics=(MetricThreshold(metric="niqe", bound=5.0, lower_better=True),))


def scored(number: int, niqe: float, *, stored: bool) -> Row:
    link = Link(position=number, key=f"{number:016x}", url=f"http://h{number % 7}/{number}", source="x")
    kept = {"reason": Reason.KEPT, "stage": Stage.KEPT}
    refused = {"reason": Reason.LOW_QUALITY, "stage": Stage.JUDGE}
    return Row(
        link=link,
        width=600,
        height=600,
        sha256="a",
        scores={"niqe": niqe},
        stored=stored,
        **(kept if stored else refused),
    )


def test_of_ten_rows_one_is_not_tried_three_fail_six_pass() -> None:
    seen = outcomes(ledgers.rows(0, 100))
    assert (seen.tried.sum(), seen.answered.sum(), seen.passed.sum()) == (90, 60, 60)
    assert seen.bytes_kept.sum() == 60_000 and seen.bytes_down.sum() == 60 * 1100 + 20 * 100
    assert len(set(seen.hosts)) == 3


def test_every_reason_is_of_one_kind() -> None:
    assert not UNTRIED & FAILED and not (UNTRIED | FAILED) & PASSED
    came = set(Reason) - UNTRIED - FAILED - PASSED
    assert came == {
        *(Reason.NOT_STORED, Reason.NOT_AN_IMAGE, Reason.FORMAT_REFUSED, Reason.ANIMATED, Reason.TOO_MANY_PIXELS),
        *(Reason.TRUNCATED, Reason.CORRUPT, Reason.TOO_SMALL, Reason.FLAT, Reason.UNSCORABLE, Reason.LOW_QUALITY),
        Reason.FORGOTTEN,
    }


def test_a_looser_bound_keeps_more_and_a_stricter_one_less() -> None:
    """Scores of 3.05 to 7.04 in steps of 0.01: of 400 rows, those up to the bound."""
    rows = [scored(number, 3.05 + number / 100, stored=number <= 195) for number in range(400)]
    found = yields(rows, outcomes(rows).hosts, BOUNDS)
    assert [one.step for one in found] == list(STEPS)
    assert [one.bound for one in found] == pytest.approx([4.0, 4.5, 5.0, 5.5, 6.0])
    assert [one.share.mid for one in found] == pytest.approx([96 / 400, 146 / 400, 196 / 400, 246 / 400, 296 / 400])
    assert all(one.share.low < one.share.mid < one.share.high and one.unknown == 0 for one in found)


def test_a_bound_where_more_is_better_moves_the_other_way() -> None:
    up = Thresholds(min_res=512, metrics=(MetricThreshold(metric="niqe", bound=5.0, lower_better=False),))
    rows = [scored(number, 3.05 + number / 100, stored=number >= 195) for number in range(400)]
    found = yields(rows, outcomes(rows).hosts, up)
    assert [one.bound for one in found] == pytest.approx([6.0, 5.5, 5.0, 4.5, 4.0])
    assert [one.share.mid for one in found] == sorted(one.share.mid for one in found)


def test_what_the_cascade_did_not_compute_widens_upwards_alone() -> None:
    two = Thresholds(
        min_res=512, metrics=(*BOUNDS.metrics, MetricThreshold(metric="nima", bound=4.0, lower_better=False))
    )
    rows = [scored(number, 5.2, stored=False) for number in range(100)]  # NIQE was against: NIMA was not asked
    found = {(one.metric, one.step): one for one in yields(rows, outcomes(rows).hosts, two)}
    assert found["niqe", -0.1].unknown == 1.0
    assert (found["niqe", -0.1].share.mid, found["niqe", -0.1].share.high) == (0.0, 1.0)
    assert found["niqe", 0.0].unknown == 0.0 and found["niqe", 0.0].share.high < 0.05


def test_hosts_are_read_from_any_url() -> None:
    assert [host(url) for url in ("http://A.example:80/x", "http://[::1", "nonsense")] == ["a.example", "", ""]
