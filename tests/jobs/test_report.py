"""`dynet-report` names the page it wrote, or says in one sentence why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.report import main
from shards.store import LocalStore
from tests.curation.test_report import fill


def test_it_names_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    assert main([str(tmp_path / "store")]) == 0
    named = capsys.readouterr().out.removeprefix("report: ").strip()
    assert Path(named).read_text().startswith("<!DOCTYPE html>")


def test_a_folder_that_is_no_store_is_said_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("dynet-report: ")
    assert "has no ledger" in said.err
    assert said.out == ""
    assert not list(tmp_path.iterdir())
