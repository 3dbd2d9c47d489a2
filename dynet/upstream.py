"""The released checkpoints of DyNet-L, DyNet-S and PromptIR: the one place that knows what they call things.

They are Lightning files whose `state_dict` has keys `net.<name>`. DyNet-L and DyNet-S have the same names and shapes:
what is read serves every depth, though it was trained at one. Both networks hold 1x1 convolutions that nothing uses;
these are dropped when read and written as zeros, so that the released code takes the file with `strict=True`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from dynet import checkpoint
from dynet.model import DyNet, ModelConfig, dynet, promptir

Weights = dict[str, Tensor]

_PREFIX: Final = "net."
#: Of Lightning, which refuses a file that names none. This one's files need no migration since.
_LIGHTNING: Final = "2.4.0"
#: From our names to theirs: each pattern in turn, where it is found.
_RENAMED: Final = (
    (r"^embed\.", "patch_embed.proj."),
    (r"^(encoder|decoder)\.(\d)", r"\1_level\2"),
    (r"^down\.1\.", "down1_2.body."),
    (r"^down\.2\.", "down2_3.body."),
    (r"^down\.3\.", "down3_4.body."),
    (r"^up\.3\.", "up4_3.body."),
    (r"^up\.2\.", "up3_2.body."),
    (r"^up\.1\.", "up2_1.body."),
    (r"^merge\.", "reduce_chan_level"),
    (r"^restore\.", "output."),
    # a prompt is numbered from the top, 1 to 3, and the latent's is the third
    *((rf"^prompts\.{level}\.prompt\.", f"prompt{level - 1}.") for level in (4, 3, 2)),
    *((rf"^prompts\.{level}\.block\.", f"noise_level{level - 1}.") for level in (4, 3, 2)),
    *((rf"^prompts\.{level}\.reduce\.", f"reduce_noise_level{level - 1}.") for level in (4, 3, 2)),
    (r"\.components$", ".prompt_param"),
    (r"\.weigh\.", ".linear_layer."),
    (r"\.smooth\.", ".conv3x3."),
    (r"\.norm(\d)\.", r".norm\1.body."),
    (r"\.attention\.", ".attn."),
    (r"\.qkv_depthwise\.", ".qkv_dwconv."),
    (r"\.feed_forward\.", ".ffn."),
    (r"\.widen\.", ".project_in."),
    (r"\.depthwise\.", ".dwconv."),
    (r"\.project\.", ".project_out."),
)
#: Where blocks are shared, the only one of a level has no number there.
_NUMBERED: Final = (r"^((encoder|decoder)\.\d|latent)\.0\.", r"\1.")
#: What is built and never used: (out, in) of 1x1 convolutions.
_UNUSED_DYNET: Final = {
    "reduce_noise_channel_1": (48, 112),
    "reduce_noise_channel_2": (96, 224),
    "reduce_noise_channel_3": (192, 448),
}
_UNUSED_PROMPTIR: Final = {
    **_UNUSED_DYNET,
    "chnl_reduce1": (64, 64),
    "chnl_reduce2": (128, 128),
    "chnl_reduce3": (256, 320),
}


def read(source: str | Path | bytes) -> tuple[ModelConfig, Weights]:
    """What to build, and its `state_dict`, from a released checkpoint: a file or its bytes.

    Takes what `torch.load(weights_only=True)` takes: tensors and plain containers. Raises ValueError for a file that
    holds other objects (as Lightning's do where hyperparameters were saved), and for another network's weights.
    """
    if isinstance(source, bytes):
        return taken(checkpoint.loaded(source, "these bytes"))
    return taken(checkpoint.loaded(Path(source).read_bytes(), str(source)))


def taken(content: Mapping[str, Any]) -> tuple[ModelConfig, Weights]:
    """The same from what such a file holds."""
    theirs = {name: _as_ours(name, value) for name, value in _weights(content).items()}
    config = promptir() if any(name.startswith("encoder_level1.0.") for name in theirs) else dynet()
    names = _names(config)
    _check(theirs, names, config)
    return config, {ours: theirs[name] for ours, (name, _) in names.items()}


def written(model: DyNet) -> dict[str, Any]:
    """A Lightning checkpoint for the released code, to be saved with `torch.save`. Raises ValueError for a network
    that it doesn't have."""
    if model.config not in (dynet(), promptir()):
        raise ValueError("the released code has DyNet and PromptIR at width 48 only: this network was built otherwise")
    ours = model.state_dict()
    state = {theirs: _as_theirs(theirs, ours[name].contiguous()) for name, (theirs, _) in _names(model.config).items()}
    state |= {f"{name}.weight": torch.zeros(*shape, 1, 1) for name, shape in _unused(model.config).items()}
    weights = {_PREFIX + name: value for name, value in state.items()}
    return {"state_dict": weights, "pytorch-lightning_version": _LIGHTNING, "epoch": 0, "global_step": 0}


def _as_ours(name: str, value: Tensor) -> Tensor:
    """Their components of a prompt have a first axis of length 1."""
    return value.squeeze(0) if name.endswith(".prompt_param") else value


def _as_theirs(name: str, value: Tensor) -> Tensor:
    return value.unsqueeze(0) if name.endswith(".prompt_param") else value


# ---------------------------------------------------------------- names


def their_name(ours: str, config: ModelConfig) -> str:
    """`encoder_level1.attn.qkv.weight` of `encoder.1.0.attention.qkv.weight`."""
    name = ours if config.unshared else re.sub(*_NUMBERED, ours)
    for pattern, theirs in _RENAMED:
        name = re.sub(pattern, theirs, name)
    return name


def _names(config: ModelConfig) -> dict[str, tuple[str, torch.Size]]:
    """Theirs, and the shape here, of each of our names."""
    with torch.device("meta"):
        ours = DyNet(config).state_dict()
    return {name: (their_name(name, config), value.shape) for name, value in ours.items()}


def _unused(config: ModelConfig) -> dict[str, tuple[int, int]]:
    return _UNUSED_DYNET if config.unshared is None else _UNUSED_PROMPTIR


# ---------------------------------------------------------------- files


def _weights(content: Mapping[str, Any]) -> Weights:
    """Their weights by name, without Lightning's prefix."""
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping) or not state or not all(isinstance(one, Tensor) for one in state.values()):
        raise ValueError("this file holds no weights by name: give a checkpoint of DyNet or PromptIR")
    return {str(name).removeprefix(_PREFIX): value for name, value in state.items()}


def _check(theirs: Weights, names: Mapping[str, tuple[str, torch.Size]], config: ModelConfig) -> None:
    """Raises ValueError with the first weight that is missing, unknown, or of another shape."""
    known = dict(names.values())
    kind = "DyNet" if config.unshared is None else "PromptIR"
    remedy = f"give a checkpoint of the released DyNet or PromptIR at width 48 (taken for {kind})"
    for name, shape in known.items():
        if name not in theirs:
            raise ValueError(f"weight {name!r} is missing: {remedy}")
        if theirs[name].shape != shape:
            raise ValueError(f"weight {name!r} is {tuple(theirs[name].shape)} and not {tuple(shape)}: {remedy}")
    unused = {f"{name}.weight" for name in _unused(config)}
    unknown = next((name for name in theirs if name not in known and name not in unused), None)
    if unknown is not None:
        raise ValueError(f"weight {unknown!r} is unknown: {remedy}")
