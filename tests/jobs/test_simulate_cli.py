"""The simulation's command: three tables for each power of ten, one sentence for what is no pilot."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.simulate import main, powers
from tests.curation.test_simulation import PILOT


def test_it_prints_a_line_for_each_power_of_ten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pilot = tmp_path / "pilot.json"
    pilot.write_text(PILOT.to_json())
    assert main(["--pilot", str(pilot), "--urls", "2000000", "--nodes", "2", "--driver-gb", "0.36"]) == 0
    paces, files, breaks = capsys.readouterr().out.strip().split("\n\n")
    for table in (paces, files, breaks):
        assert [line.split()[0] for line in table.splitlines()[1:]] == ["10,000", "100,000", "1,000,000", "2,000,000"]
    assert "nothing" in breaks.splitlines()[1] and "driver memory" in breaks.splitlines()[-1]


def test_powers_of_ten_end_in_the_list_itself() -> None:
    assert powers(170_000_000)[-2:] == [100_000_000, 170_000_000]
    assert powers(5000) == [5000]


def test_what_is_no_pilot_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.json").write_text("{}")
    assert main(["--pilot", str(tmp_path / "other.json")]) == 2
    assert main(["--pilot", str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err.count("pilot") >= 2
