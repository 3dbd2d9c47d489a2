"""Weights from a file: a run's checkpoint, what `dynet.export` made of one, or a released one of DyNet or PromptIR."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from dynet import checkpoint, upstream
from dynet.model import ModelConfig

#: Of a file that holds {"format", "config", "weights"} and serves every depth.
FORMAT: Final = "dynet-weights-1"
_MODULE: Final = "module."  # before each name in an average


def read(path: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The network's form and its weights; the average over the steps where the run kept one.

    Raises ValueError for a file that can't be read or holds something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from error
    state = checkpoint.loaded(data, str(path))
    if "trainer" not in state and "format" not in state:
        return upstream.read(data)
    try:
        config, weights = _of_a_run(state) if "trainer" in state else _exported(state)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no checkpoint of a run: it lacks what one has ({error})") from error
    return config, weights


def written(config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `torch.save` makes the smallest file of that `read` takes."""
    return {"format": FORMAT, "config": config.to_dict(), "weights": dict(weights)}


def _exported(state: Mapping[str, Any]) -> tuple[ModelConfig, dict[str, Tensor]]:
    if state["format"] != FORMAT:
        raise TypeError(f"its format is {state['format']!r}, and {FORMAT!r} is known here")
    return ModelConfig.from_dict(state["config"]), _tensors(state["weights"])


def _of_a_run(state: Mapping[str, Any]) -> tuple[ModelConfig, dict[str, Tensor]]:
    trainer = state["trainer"]
    weights = dict(trainer["model"])
    if trainer["average"] is not None:
        named = trainer["average"].items()
        weights = {name.removeprefix(_MODULE): value for name, value in named if name.startswith(_MODULE)}
    return ModelConfig.from_dict(state["config"]), _tensors(weights)


def _tensors(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    if not all(isinstance(value, Tensor) for value in weights.values()):
        raise TypeError("its weights are no tensors")
    return dict(weights)
