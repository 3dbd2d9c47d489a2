"""Weights from any file that has some: a run's checkpoint, its average, a released one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dynet import upstream
from dynet import weights as files
from dynet.model import DyNet, ModelConfig, dynet
from dynet.train import Settings, Trainer
from tests.states import digest

CONFIG = ModelConfig(width=8, refinement=1)


def written(path: Path, trainer: Trainer) -> Path:
    torch.save({"trainer": trainer.state_dict(), "config": CONFIG.to_dict()}, path)
    return path


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_runs_checkpoint_gives_what_the_run_would_give_away(ema: float, tmp_path: Path) -> None:
    trainer = Trainer(DyNet(CONFIG), Settings(steps=1, ema=ema), seed=0, device=torch.device("cpu"))
    with torch.no_grad():
        next(trainer.model.parameters()).add_(1)
    config, weights = files.read(written(tmp_path / "step.pt", trainer))
    assert config == CONFIG
    assert digest(weights) == digest(dict(trainer.best.state_dict()))


def test_a_released_one_is_known_by_its_names(tmp_path: Path) -> None:
    model = DyNet()
    torch.save(upstream.written(model), tmp_path / "dynet_l.ckpt")
    config, weights = files.read(tmp_path / "dynet_l.ckpt")
    assert config == dynet()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.pt can't be read: No such file"):
        files.read(tmp_path / "none.pt")
