"""Released checkpoints: both ways without a loss, and the same numbers as the released code where a clone is given."""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynet import upstream
from dynet.model import DyNet, ModelConfig, dynet, promptir

CONFIGS = {"DyNet": dynet(), "PromptIR": promptir()}


def _file(content: object) -> bytes:
    sink = io.BytesIO()
    torch.save(content, sink)
    return sink.getvalue()


def _lively(model: nn.Module) -> None:
    """Norms and temperatures that are not 0 and 1, so that a swap of two shows."""
    for parameter in model.parameters():
        if parameter.ndim < 4:
            parameter.data += 0.3 * torch.randn_like(parameter)


def _dynet(width: int = 48) -> DyNet:
    model = DyNet(ModelConfig(width=width))
    _lively(model)
    return model


# ---------------------------------------------------------------- by themselves


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_written_is_read_again(kind: str, tmp_path: Path) -> None:
    model = DyNet(CONFIGS[kind])
    torch.save(upstream.written(model), tmp_path / "model.ckpt")
    config, weights = upstream.read(tmp_path / "model.ckpt")
    assert config == CONFIGS[kind]
    model.load_state_dict(weights)  # strict: no name too many or too few
    for name, value in model.state_dict().items():
        assert torch.equal(weights[name], value)


def test_names_are_the_released_ones() -> None:
    names = {
        "encoder.1.0.norm1.weight": "encoder_level1.norm1.body.weight",
        "latent.0.attention.qkv_depthwise.weight": "latent.attn.qkv_dwconv.weight",
        "decoder.3.0.feed_forward.depthwise.weight": "decoder_level3.ffn.dwconv.weight",
        "refinement.0.attention.temperature": "refinement.0.attn.temperature",
        "prompts.4.prompt.components": "prompt3.prompt_param",
        "prompts.3.block.feed_forward.project.weight": "noise_level2.ffn.project_out.weight",
        "prompts.2.reduce.weight": "reduce_noise_level1.weight",
        "down.2.0.weight": "down2_3.body.0.weight",
        "merge.3.weight": "reduce_chan_level3.weight",
    }
    assert {ours: upstream.their_name(ours, dynet()) for ours in names} == names
    assert upstream.their_name("latent.7.norm2.bias", promptir()) == "latent.7.norm2.body.bias"


def test_a_plain_state_dict_is_read_too() -> None:
    model = _dynet()
    state = upstream.written(model)["state_dict"]
    plain = {name.removeprefix("net."): value for name, value in state.items() if "noise_channel" not in name}
    _, weights = upstream.read(_file(plain))
    assert torch.equal(weights["latent.0.norm1.weight"], model.latent[0].norm1.weight)


def test_what_lightning_stores_beside_the_weights_is_passed_over() -> None:
    more = {"optimizer_states": [{"state": {0: torch.zeros(1)}}], "callbacks": {"best": "a.ckpt"}, "loops": {"n": [1]}}
    config, _ = upstream.read(_file({**upstream.written(_dynet()), **more}))
    assert config == dynet()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("net.output.weight"), "'output.weight' is missing"),
        (lambda state: state.update({"net.extra.weight": torch.zeros(1)}), "'extra.weight' is unknown"),
        (lambda state: state.update({"net.output.weight": torch.zeros(3, 3)}), r"'output.weight' is \(3, 3\) and not"),
    ],
)
def test_another_networks_checkpoint_is_refused_by_its_first_odd_weight(change: Any, said: str) -> None:
    content = upstream.written(_dynet())
    change(content["state_dict"])
    with pytest.raises(ValueError, match=said):
        upstream.read(_file(content))


def test_objects_are_not_loaded() -> None:
    content = {**upstream.written(_dynet()), "hyper_parameters": argparse.Namespace(lr=1.0)}
    with pytest.raises(
        ValueError, match=r"holds a argparse.Namespace, and only tensors .* save .*\['state_dict'\] alone"
    ):
        upstream.read(_file(content))


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"epoch": 3}])
def test_a_file_without_weights_is_refused(content: object) -> None:
    with pytest.raises(ValueError, match="holds no weights by name"):
        upstream.read(_file(content))


def test_a_file_that_is_cut_or_none_at_all_is_refused(tmp_path: Path) -> None:
    whole = _file({"a": torch.zeros(100)})
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    for source in (tmp_path / "cut.ckpt", b"not a checkpoint", b""):
        with pytest.raises(ValueError, match="is no checkpoint of tensors"):
            upstream.read(source)


def test_what_the_released_code_lacks_is_not_written() -> None:
    with pytest.raises(ValueError, match="width 48 only"):
        upstream.written(_dynet(width=8))


# ---------------------------------------------------------------- beside the released code


def _released(variable: str, path: str, name: str) -> nn.Module:
    """A network of a clone that an environment variable names."""
    if variable not in os.environ:
        pytest.skip(f"needs a clone of the released code: set {variable} to its folder")
    spec = importlib.util.spec_from_file_location(name, Path(os.environ[variable]) / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)(decoder=True)


RELEASED = [
    ("MILLION_IRD_DYNET", "net/DyNet_large.py", "DyNet_large", "L"),
    ("MILLION_IRD_DYNET", "net/DyNet_small.py", "DyNet_small", "S"),
    ("MILLION_IRD_PROMPTIR", "net/model.py", "PromptIR", "L"),
]


def _difference(ours: DyNet, theirs: nn.Module, depth: str) -> float:
    """‖ours - theirs‖ / ‖theirs‖ of what the networks add to a picture."""
    x = torch.rand(1, 3, 64, 72)
    with torch.no_grad():
        given, expected = ours(x, depth) - x, theirs(x) - x
    return float((given - expected).norm() / expected.norm())


@pytest.mark.slow
@pytest.mark.parametrize(("variable", "path", "name", "depth"), RELEASED)
def test_their_weights_give_their_pictures_here(variable: str, path: str, name: str, depth: str) -> None:
    theirs = _released(variable, path, name)
    _lively(theirs)
    config, weights = upstream.read(_file({"state_dict": _prefixed(theirs.state_dict())}))
    ours = DyNet(config)
    ours.load_state_dict(weights)
    assert _difference(ours, theirs, depth) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("variable", "path", "name", "depth"), RELEASED)
def test_our_weights_give_our_pictures_there(variable: str, path: str, name: str, depth: str) -> None:
    theirs = _released(variable, path, name)
    ours = DyNet(promptir() if name == "PromptIR" else dynet())
    _lively(ours)
    state = upstream.written(ours)["state_dict"]
    theirs.load_state_dict({key.removeprefix("net."): value for key, value in state.items()}, strict=True)
    assert _difference(ours, theirs, depth) < 1e-5


def _prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"net.{name}": value for name, value in state.items()}
