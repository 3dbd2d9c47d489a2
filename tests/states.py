"""What a training state says, to the last bit: for tests that hold two of them against each other."""

from __future__ import annotations

import hashlib
from typing import Any

import torch


def digest(state: Any) -> str:
    """SHA-256 over all tensors' bytes and strides, keys in their order and plain values."""
    made = hashlib.sha256()
    _add(made, state)
    return made.hexdigest()


def _add(made: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        made.update(f"{value.dtype}{tuple(value.shape)}{value.stride()}".encode())
        made.update(value.detach().cpu().contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key, part in value.items():
            made.update(repr(key).encode())
            _add(made, part)
    elif isinstance(value, (list, tuple)):
        made.update(f"{type(value).__name__}{len(value)}".encode())
        for part in value:
            _add(made, part)
    else:
        made.update(repr(value).encode())
