"""`dynet-export`: the table, the files, and one sentence for what can't be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dynet
from dynet.model import DyNet, ModelConfig
from dynet.train import Settings, Trainer
from jobs.export import main

CONFIG = ModelConfig(width=8, refinement=0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's own, with an average beside the weights and an optimizer's state."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    trainer = Trainer(DyNet(CONFIG), Settings(steps=1, ema=0.9), seed=0, device=torch.device("cpu"))
    with torch.no_grad():
        next(trainer.model.parameters()).add_(1)
    path = tmp_path_factory.mktemp("run") / "step-000000001.pt"
    torch.save({"trainer": trainer.state_dict(), "config": CONFIG.to_dict()}, path)
    return path


def test_weights_are_the_average_alone(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "out"
    assert main([str(checkpoint), "--out", str(out), "--format", "weights"]) == 0
    head, row, last = capsys.readouterr().out.splitlines()
    assert head.startswith("file") and row.startswith("dynet.pt ") and last.startswith("loaded back")
    assert (out / "dynet.pt").stat().st_size < 0.6 * checkpoint.stat().st_size
    found, average = (dynet.load(path, device="cpu").model.state_dict() for path in (out / "dynet.pt", checkpoint))
    assert all(torch.equal(value, average[name]) for name, value in found.items())


@pytest.mark.slow
def test_a_program_for_each_depth(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(checkpoint), "--out", str(tmp_path), "--depth", "1,1,1,1", "1,1,1,2", "--size", "16x24"]
    assert main(words) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dynet-1-1-1-1.pt2", "dynet-1-1-1-2.pt2"]
    said = capsys.readouterr().out.splitlines()
    rows = [line for line in said if line.startswith("dynet-1")]
    assert len(rows) == 2 and all(row.endswith("16x24") for row in rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{checkpoint}", "--depth", "XL"], "depth 'XL'"),
        (["{checkpoint}", "--size", "16"], "--size 16"),
        (["{checkpoint}", "--size", "0x16"], "--size 0x16"),
        (["{checkpoint}", "--format", "released"], "width 48 only"),
        (["{checkpoint}", "--out", "{checkpoint}"], "is a file"),
        (["{folder}/none.pt"], "none.pt can't be read"),
        (["{folder}/text.pt"], "no checkpoint"),
        (["{folder}/other.pt"], "weight"),
    ],
)
def test_one_sentence(
    words: list[str], said: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pt")
    given = [word.format(checkpoint=checkpoint, folder=tmp_path) for word in words]
    given += [] if "--out" in given else ["--out", str(tmp_path / "out")]
    assert main(given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dynet-export: ") and said in line
    assert not list(tmp_path.glob("out/*"))
