"""Prices are inputs: a table says whose it is, and what it gets wrong is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.prices import DATED, Prices, read_prices


def table(folder: Path, entry: object) -> Path:
    path = folder / "prices.json"
    path.write_text(json.dumps(entry))
    return path


def test_the_defaults_say_that_they_are_nobody_s() -> None:
    assert Prices().about == DATED and "example" in DATED and "put yours in" in DATED


def test_a_table_is_taken_as_it_stands_and_the_rest_is_the_example_s(tmp_path: Path) -> None:
    found = read_prices(table(tmp_path, {"about": "ours, May 2027", "currency": "EUR", "cpu_worker_hour": 2}))
    assert (found.about, found.currency, found.cpu_worker_hour) == ("ours, May 2027", "EUR", 2)
    assert found.head_hour == Prices().head_hour


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"about": "x", "cpu_hour": 1}, "has no field cpu_hour: it knows about, currency, cpu_worker_hour"),
        ({"about": "x", "cpu_worker_hour": -1}, "cpu_worker_hour is -1"),
        ({"about": "x", "cpu_worker_hour": "1"}, "wrong kind"),
        ({"cpu_worker_hour": 1}, "whose prices"),
        ([1], "no price table"),
    ],
)
def test_what_is_wrong_is_named(entry: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        read_prices(table(tmp_path, entry))


def test_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no price table"):
        read_prices(tmp_path / "none.json")
