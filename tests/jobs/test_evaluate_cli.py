"""`dynet-evaluate --cost`: the table, and one sentence for what it can't do."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.evaluate import main


def test_the_table_has_a_row_for_each_depth(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cost", "--size", "16", "--depth", "S", "1,1,1,1", "--repeats", "1"]) == 0
    head, one, two, last = capsys.readouterr().out.splitlines()
    assert head.startswith("depth")
    assert one.split()[:2] == ["S", "16,613,135"]
    assert two.split()[0] == "1,1,1,1"
    assert last.startswith("16x16, float32, median of 1; ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--depth", "XL"], "dynet-evaluate: depth 'XL': write"),
        (["--size", "0"], "give 1 or more"),
        (["--checkpoint", "nowhere.ckpt"], "nowhere.ckpt"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cost", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"none")
    assert main(["--cost", "--checkpoint", str(tmp_path / "model.ckpt")]) == 2
    assert "model.ckpt is no checkpoint" in capsys.readouterr().err
