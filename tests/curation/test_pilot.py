"""A pilot's sums, to a file and back."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from curation.pilot import Pilot

PILOT = Pilot(
    rows=100,
    answered=80,
    scored=70,
    kept=10,
    patches=40,
    wait_seconds=50.0,
    score_seconds=14.0,
    cut_seconds=3.0,
    store_seconds=1.0,
    bytes_down=8_000_000,
    bytes_kept=3_000_000,
    bytes_ledger=20_000,
    bytes_shards=2_000_000,
    chunks=4,
    unit_seconds=2.0,
)


def test_a_pilot_comes_back_as_it_was() -> None:
    assert Pilot.from_json(PILOT.to_json()) == PILOT


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": 1, "hosts": 2}'])
def test_what_is_no_pilot_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="no pilot"):
        Pilot.from_json(text)


@pytest.mark.parametrize("change", [{"rows": 0}, {"chunks": 0}, {"kept": -1}, {"wait_seconds": -0.5}])
def test_sums_that_can_t_be_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="pilot"):
        Pilot(**{**asdict(PILOT), **change})
    assert replace(PILOT, kept=0).kept == 0
