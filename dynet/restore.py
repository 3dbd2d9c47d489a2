"""Pictures in, restored pictures out: the network behind an interface of arrays.

restorer = dynet.load("step-001000000.pt")
restored = restorer.restore(picture, depth="S")     # (H, W, 3) uint8, uint16 or float, and the same out
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dynet.model import DyNet
from dynet.train import PRECISIONS

_TOP = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}  # the highest level


class Restorer:
    """A network ready to be used, on one device. `precision`: f32 or bf16."""

    def __init__(self, model: DyNet, *, device: torch.device, precision: str = "f32") -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision is '{precision}': give {', '.join(PRECISIONS)}")
        self.model = model.to(device).eval()
        self.device = device
        self._precision = PRECISIONS[precision]

    def restore(self, image: np.ndarray, depth: str | Sequence[int] = "L") -> np.ndarray:
        """(H, W, 3) RGB, restored: uint8 and uint16 with all their levels, float32 in [0, 1]; the same type out."""
        top = _TOP.get(image.dtype)
        found = self.floats(image.astype(np.float32) / top if top else image, depth).clip(0, 1)
        return np.rint(found * top).astype(image.dtype) if top else found

    def floats(self, image: np.ndarray, depth: str | Sequence[int] = "L") -> np.ndarray:
        """(H, W, 3) float32 in [0, 1] to what the network gives, not clipped: what metrics are measured on."""
        x = torch.from_numpy(np.ascontiguousarray(image, np.float32)).to(self.device).permute(2, 0, 1)[None]
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, self._precision, enabled=self._precision != torch.float32),
        ):
            restored = self.model(x, depth)
        return restored[0].permute(1, 2, 0).float().cpu().numpy()
