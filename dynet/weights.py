"""Weights from a file: one of our checkpoints, or a released one of DyNet or PromptIR."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dynet import checkpoint, upstream
from dynet.model import ModelConfig

_MODULE = "module."  # before each name in an average


def read(path: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The network's form and its weights; the average over the steps where the run kept one.

    Raises ValueError for a file that can't be read or holds something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from error
    state = checkpoint.loaded(data, str(path))
    if "trainer" not in state:
        return upstream.read(data)
    try:
        return _of_a_run(state)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no checkpoint of a run: it lacks what one has ({error})") from error


def _of_a_run(state: Mapping[str, Any]) -> tuple[ModelConfig, dict[str, Tensor]]:
    trainer = state["trainer"]
    weights = dict(trainer["model"])
    if trainer["average"] is not None:
        named = trainer["average"].items()
        weights = {name.removeprefix(_MODULE): value for name, value in named if name.startswith(_MODULE)}
    if not all(isinstance(value, Tensor) for value in weights.values()):
        raise TypeError("its weights are no tensors")
    return ModelConfig.from_dict(state["config"]), weights
