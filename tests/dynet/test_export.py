"""Programs and weights that were written give what the network gives, and hold each weight once."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import dynet
from dynet.export import check_form, export_program, export_weights, load_onnx, load_torch
from dynet.model import DyNet, ModelConfig
from dynet.model import dynet as released

CONFIG = ModelConfig(width=8, refinement=0)
TWICE = (1, 1, 1, 2)  # the latent's block is applied twice


@pytest.fixture(scope="module")
def model() -> DyNet:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return DyNet(CONFIG).eval()


def difference(model: DyNet, run: object, height: int, width: int) -> float:
    picture = torch.rand(1, 3, height, width)
    with torch.inference_mode():
        return float((run(picture) - model(picture, TWICE)).abs().max())  # type: ignore[operator]


@pytest.mark.slow
def test_a_torch_program_is_for_every_size_that_eight_divides(model: DyNet, tmp_path: Path) -> None:
    made = export_program(model, TWICE, "torch", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dynet-1-1-1-2.pt2"]
    assert made.bytes == made.path.stat().st_size
    run = load_torch(made.path)
    assert max(difference(model, run, *size) for size in ((16, 16), (40, 24), (88, 104))) < 1e-6
    with zipfile.ZipFile(made.path) as file:
        held = [file.read(name) for name in file.namelist() if "/data/weights/" in name]
        text = b"".join(file.read(name) for name in file.namelist() if name.endswith(".json"))
    assert sum(map(len, held)) < 1.05 * sum(4 * one.numel() for one in model.parameters())
    assert str(Path(__file__).parents[2]).encode() not in text  # no path of who exported it


@pytest.mark.slow
def test_a_program_for_one_size_takes_any(model: DyNet, tmp_path: Path) -> None:
    made = export_program(model, TWICE, "torch", tmp_path, (21, 35))
    assert made.size == (21, 35)
    assert difference(model, load_torch(made.path), 21, 35) < 1e-6


@pytest.mark.slow
def test_onnx_runtime_gives_the_same_and_weights_are_there_once(model: DyNet, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra `export`")
    made = export_program(model, TWICE, "onnx", tmp_path)
    run = load_onnx(made.path)
    assert max(difference(model, run, *size) for size in ((16, 16), (40, 24), (88, 104))) < 1e-5
    held = [onnx.numpy_helper.to_array(one) for one in onnx.load(made.path).graph.initializer]
    large = Counter(hashlib.sha256(one.tobytes()).digest() for one in held if one.size > 100)
    assert max(large.values()) == 1
    assert sum(one.nbytes for one in held) < 1.05 * sum(4 * one.numel() for one in model.parameters())


def test_weights_serve_every_depth(model: DyNet, tmp_path: Path) -> None:
    made = export_weights(model, "weights", tmp_path)
    assert made.bytes < 1.05 * sum(4 * one.numel() for one in model.parameters())
    loaded = dynet.load(made.path, device="cpu")
    picture = np.random.default_rng(0).random((9, 10, 3), np.float32)
    for depth in (TWICE, "S"):
        x = torch.from_numpy(picture).permute(2, 0, 1)[None]
        with torch.inference_mode():
            own = model(x, depth)[0].permute(1, 2, 0).clamp(0, 1).numpy()
        assert np.array_equal(loaded.restore(picture, depth), own)


def test_the_released_code_has_one_network_only(model: DyNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="width 48 only"):
        export_weights(model, "released", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_released_is_read_back(tmp_path: Path) -> None:
    full = DyNet(released())
    made = export_weights(full, "released", tmp_path)
    state = dynet.load(made.path, device="cpu").model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in full.state_dict().items())


def test_what_differs_is_not_kept(model: DyNet, tmp_path: Path) -> None:
    """Weights that are no numbers: nothing is equal to them."""
    broken = DyNet(CONFIG)
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.embed.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="was not kept"):
        export_weights(broken, "weights", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_format_whose_libraries_are_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install 'million-ird\[export\]'"):
        check_form("onnx")
