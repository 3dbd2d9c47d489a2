"""The table of faults names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
AT_LEAST = 30
COLUMNS = 5


def rows() -> list[list[str]]:
    """The cells of each row of a fault, in all tables."""
    lines = (PROJECT / "docs" / "faults.md").read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in cells if row[0] != "fault"]


def test_a_row_has_all_its_cells_and_no_fault_stands_twice() -> None:
    found = rows()
    assert len(found) >= AT_LEAST
    assert [row for row in found if len(row) != COLUMNS or not all(row)] == []
    assert len({row[0] for row in found}) == len({row[-1] for row in found}) == len(found)


def test_each_named_test_is_there() -> None:
    named = [re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", row[-1]) for row in rows()]
    assert all(named)
    assert [one[0] for one in named if one and not _has(PROJECT / one[1], one[2])] == []


def _has(path: Path, name: str) -> bool:
    return path.is_file() and any(
        isinstance(node, ast.FunctionDef) and node.name == name for node in ast.parse(path.read_text("utf-8")).body
    )
