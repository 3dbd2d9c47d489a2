"""The published figures: as many as there are columns, and averages that are the mean of what they are over."""

from __future__ import annotations

import pytest

from dynet.published import TABLES, Column, Published

ALL_IN_ONE = TABLES[3]
#: Their averages say that another figure was meant than the one that is printed.
MISPRINTED = {"BRDNet", "DL"}


@pytest.mark.parametrize("one", TABLES.values(), ids=lambda one: f"table {one.number}")
def test_each_method_has_a_figure_in_each_column(one: Published) -> None:
    assert {len(figures) for figures in one.rows.values()} == {len(one.columns)}
    assert all(20 < quality.psnr < 40 and 0.3 < quality.ssim < 1 for row in one.rows.values() for quality in row)


@pytest.mark.parametrize("method", ALL_IN_ONE.rows)
def test_the_average_is_the_mean_of_five_columns(method: str) -> None:
    row, average = ALL_IN_ONE.rows[method], ALL_IN_ONE.averages[method]
    assert abs(sum(one.psnr for one in row) / 5 - average.psnr) < 0.006
    assert (abs(sum(one.ssim for one in row) / 5 - average.ssim) < 0.0011) == (method not in MISPRINTED)


def test_a_set_is_known_however_its_name_is_written() -> None:
    assert Column(set="cbsd68", sigma=25).key == Column(set="BSD68", sigma=25.0).key
    assert Column(set="BSD68", sigma=25).key != Column(set="BSD68", sigma=50).key != Column(set="BSD68").key
