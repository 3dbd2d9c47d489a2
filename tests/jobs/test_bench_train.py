"""The bench of training steps: who is timed, and what can't be compared is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.bench_train import Setting, table

CLASS = """
from torch import nn

class DyNet_small(nn.Module):
    def __init__(self, decoder):
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.body(x)
"""


def _setting(**changes: object) -> Setting:
    fields = {"peer": None, "depths": ["1,1,1,1"], "batch": 1, "crop": 16, "width": 8, "rounds": 1, "compiled": False}
    return Setting(**{**fields, **changes})  # type: ignore[arg-type]


def test_each_contender_has_a_row_and_a_ratio() -> None:
    lines = table(_setting()).splitlines()
    assert lines[0].startswith("batch 1, crops of 16, ")
    assert lines[1].startswith("DyNet-1,1,1,1")
    assert [line.partition("  ")[0] for line in lines[2:4]] == ["this project, float32", "this project, bfloat16"]
    assert ratio_of(lines[2]) == "1.00"
    assert lines[4].startswith("peak, GFLOP/s: f32 ")


def ratio_of(line: str) -> str:
    """The column of how many times faster."""
    return re.split(r" {2,}", line)[2]


@pytest.mark.slow
def test_the_released_code_comes_first_where_a_clone_is_given(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "DyNet_small.py").write_text(CLASS)
    lines = table(_setting(peer=tmp_path, width=48, depths=["S"])).splitlines()
    assert lines[2].startswith("released code, float32  ")
    assert lines[3].startswith("released code, float32, memory kept")
    assert ratio_of(lines[2]) == "1.00"
    assert float(ratio_of(lines[4])) < 1  # a single convolution is faster than the network


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"rounds": 0}, "give 1 or more"),
        ({"peer": Path("clone")}, "48 wide only"),
        ({"peer": Path("clone"), "width": 48, "depths": ["S"]}, "give a clone of github.com/akshaydudhane16/DyNet"),
    ],
)
def test_what_cannot_be_compared_is_said(changes: dict[str, object], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        table(_setting(**changes))
