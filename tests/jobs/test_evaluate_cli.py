"""`dynet-evaluate` as people call it: the table and what lies beside it, the costs, one sentence for what can't be."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from curation.scorers import Panel, resolve
from dynet.rgb import read
from jobs.evaluate import main
from tests.curation.scorers.conftest import write_weights
from tests.evaluation import NARROW, checkpoint, layout, put, waves


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return checkpoint(tmp_path_factory.mktemp("weights") / "narrow.pt")


def evaluate(*words: object) -> int:
    return main([str(word) for word in words])


# ---------------------------------------------------------------- figures


def test_all_in_one_prints_the_papers_table_and_says_where_the_rest_lies(
    narrow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = layout(tmp_path / "test"), tmp_path / "new" / "out"
    assert evaluate("--mode", 3, "--data", data, "--checkpoint", narrow, "--out", out, "--device", "cpu") == 0
    said = capsys.readouterr().out
    lines = {line.split("  ")[0]: line.split() for line in said.splitlines()}
    assert lines["DyNet-L (published)"][2:] == [
        *("31.98/0.981", "38.71/0.983", "34.11/0.936", "31.44/0.892", "28.18/0.803", "32.88/0.920")
    ]
    assert len(lines["S (measured)"]) == len(lines["L (measured)"]) == 8
    assert lines["pictures"][1:] == ["2"] * 5
    assert "What was published is of other pictures: SOTS 2 here and 500 there" in said
    assert f"table: {out}/table.md" in said
    text = (out / "table.md").read_text()
    assert "| DyNet-L (published) | 31.98/0.981 |" in text and "checkpoint narrow.pt, SHA-256 " in text


def test_any_folder_will_do_and_so_will_the_released_flags(
    narrow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = layout(tmp_path / "test", count=1)
    put(tmp_path / "kodak" / "original_png" / "1.png", waves(5))
    flags = ["--checkpoint", narrow, "--out", tmp_path / "out", "--depth", "1,1,1,1", "--device", "cpu"]
    sets = ["--set", f"kodak={tmp_path / 'kodak'}", "--set", f"haze={root / 'dehaze'}", "--sigma", 10]
    assert evaluate("--mode", 1, "--derain_path", root / "derain", *sets, *flags) == 0
    head = next(line for line in capsys.readouterr().out.splitlines() if "kodak" in line)
    assert head.split() == ["Rain100L", "kodak", "σ=10", "haze"]
    assert (tmp_path / "out" / "restored" / "kodak" / "10" / "1,1,1,1" / "1.png").is_file()


@pytest.mark.parametrize(
    "metrics", [["uniform_border"], pytest.param(["niqe", "brisque"], marks=pytest.mark.slow)], ids=" ".join
)
def test_what_was_restored_can_be_scored_without_a_reference(
    metrics: list[str], narrow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = layout(tmp_path / "test", count=1)
    put(data / "derain" / "Rain100L" / "input" / "rain-000.png", waves(0, 112, 128))
    put(data / "derain" / "Rain100L" / "target" / "norain-000.png", waves(0, 112, 128))
    weights = write_weights(tmp_path / "weights")
    flags = ["--checkpoint", narrow, "--out", tmp_path / "out", "--depth", "1,1,1,1", "--device", "cpu"]
    assert evaluate("--mode", 1, "--data", data, *flags, "--metrics", *metrics, "--weights", weights) == 0
    panel = Panel(resolve(metrics, weights))
    panel.setup()
    restored = read(tmp_path / "out" / "restored" / "Rain100L" / "1,1,1,1" / "rain-000.png")
    expected = panel.score(restored).scores
    (line,) = csv.DictReader((tmp_path / "out" / "pictures.csv").open())
    assert {metric: float(line[metric]) for metric in expected} == pytest.approx(expected, abs=1e-5)
    mean = f"{expected[metrics[0]]:.3f}"
    assert any(line.split()[:3] == ["Rain100L", "1,1,1,1", mean] for line in capsys.readouterr().out.splitlines())
    assert f"| Rain100L | 1,1,1,1 | {mean} |" in (tmp_path / "out" / "table.md").read_text()
    assert mean in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to do: give --mode 0, 1, 2 or 3, --set NAME=DIR, or --cost"),
        (["--mode", "4"], "mode 4: give 0 (denoise), 1 (derain), 2 (dehaze) or 3"),
        (["--mode", "0"], "nowhere/denoise can't be opened: No such file or directory"),
        (["--set", "kodak"], "--set kodak: write NAME=DIR"),
        (["--set", "a/b=DATA/dehaze"], "a set can't be called 'a/b'"),
        (["--set", "a=DATA/dehaze", "--set", "A=DATA/dehaze"], "a and A would be one column"),
        (["--set", "a=DATA/dehaze", "--out", "s3://bucket/a"], "--out s3://bucket/a: results go into a folder"),
        (["--set", "a=DATA/dehaze", "--sigma", "0"], "--sigma: give grey levels above 0"),
        (["--set", "a=DATA/dehaze", "--tile", "60"], "tiles of 60 pixels a side: give a multiple of 8"),
        (["--set", "a=DATA/dehaze", "--metrics", "nique"], "nique"),
        (["--set", "a=DATA/dehaze", "--depth", "XL"], "depth 'XL': write"),
        (["--set", "a=DATA/dehaze", "--checkpoint", "nowhere.pt"], "nowhere.pt can't be read"),
        (["--set", "a=DATA/dehaze", "--checkpoint", "DATA/dehaze/target/0000.png"], "0000.png is no checkpoint"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(
    words: list[str], said: str, narrow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = layout(tmp_path / "test", count=1)
    given = [word.replace("DATA", str(data)) for word in words]
    rest = {"--data": tmp_path / "nowhere", "--checkpoint": narrow, "--out": tmp_path / "out"}
    more = [part for flag, value in rest.items() if flag not in given for part in (flag, value)]
    assert evaluate(*given, *more) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.err.startswith("dynet-evaluate: ")
    assert said in captured.err
    assert not (tmp_path / "out").exists()


def test_a_depth_that_a_network_has_not_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = layout(tmp_path / "test", count=1)
    other = checkpoint(tmp_path / "unshared.pt", replace(NARROW, prompts="decoder", unshared=(1, 1, 1, 1)))
    assert evaluate("--mode", 1, "--data", data, "--checkpoint", other, "--out", tmp_path / "out") == 2
    assert "depth S: the blocks of this network aren't shared, so give '1,1,1,1'" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_said(narrow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = layout(tmp_path / "test", count=1)
    words = ["--mode", 1, "--data", data, "--checkpoint", narrow, "--out", tmp_path / "out", "--device", "cuda"]
    assert evaluate(*words) == 2
    assert capsys.readouterr().err == "dynet-evaluate: no GPU here: give --device cpu\n"


def test_tiles_are_said_beside_their_figures(narrow: Path, tmp_path: Path) -> None:
    data = layout(tmp_path / "test", count=1)
    flags = ["--checkpoint", narrow, "--depth", "1,1,1,1", "--device", "cpu"]
    for name, more in {"whole": [], "tiles": ["--tile", 32]}.items():
        assert evaluate("--mode", 1, "--data", data, *flags, "--out", tmp_path / name, *more) == 0
    assert "- f32, whole pictures, " in (tmp_path / "whole" / "table.md").read_text()
    assert "- f32, tiles of 32 pixels that overlap by a quarter, " in (tmp_path / "tiles" / "table.md").read_text()
    one, other = (
        read(tmp_path / name / "restored" / "Rain100L" / "1,1,1,1" / "rain-000.png") for name in ("whole", "tiles")
    )
    assert one.shape == other.shape and (one != other).any()


@pytest.mark.parametrize("missing", ["--checkpoint", "--out"])
def test_weights_and_a_place_are_asked_for(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"--mode": "0", "--checkpoint": "a.pt", "--out": "out"}
    assert evaluate(*(part for flag, value in given.items() if flag != missing for part in (flag, value))) == 2
    assert f"give {missing}: " in capsys.readouterr().err


def test_a_pair_that_does_not_match_is_said_before_the_network_runs(
    narrow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = layout(tmp_path / "test", count=2)
    put(data / "dehaze" / "target" / "0001.png", waves(1, 40, 40))
    assert evaluate("--mode", 2, "--data", data, "--checkpoint", narrow, "--out", tmp_path / "out") == 2
    assert "0001.png 40 x 40: give pairs of one size" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- costs


def test_the_costs_have_a_row_for_each_depth(capsys: pytest.CaptureFixture[str]) -> None:
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
        (["--mode", "3"], "--cost stands alone"),
    ],
)
def test_costs_that_cannot_be_had_are_one_sentence(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--cost", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"none")
    assert main(["--cost", "--checkpoint", str(tmp_path / "model.ckpt")]) == 2
    assert "model.ckpt is no checkpoint" in capsys.readouterr().err
