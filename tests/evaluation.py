"""Small test sets in folders, and a narrow network to restore them: evaluated in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dynet.model import DyNet, ModelConfig
from dynet.train import Settings, Trainer

NARROW = ModelConfig(width=8, refinement=1)


def waves(number: int, height: int = 50, width: int = 69) -> np.ndarray:
    """(height, width, 3) uint8: a picture like no other."""
    rows, columns = np.mgrid[0:height, 0:width]
    one, two = np.sin((number + 2) * rows / 19.0), np.cos((number + 3) * columns / 23.0)
    return np.stack([128 + 60 * one, 120 + 50 * two, 90 + 40 * one * two], axis=2).astype(np.uint8)


def put(path: Path, pixels: np.ndarray) -> Path:
    """Writes a picture in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def rainy(pixels: np.ndarray) -> np.ndarray:
    """Brighter in every fifth column."""
    spoilt = pixels.copy()
    spoilt[:, ::5] = np.minimum(spoilt[:, ::5].astype(int) + 70, 255)
    return spoilt


def layout(root: Path, count: int = 2) -> Path:
    """The released layout, with so many pictures in each set."""
    for number in range(count):
        clean = waves(number)
        put(root / "denoise" / "bsd68" / f"{number:03}.png", clean)
        put(root / "derain" / "Rain100L" / "input" / f"rain-{number:03}.png", rainy(clean))
        put(root / "derain" / "Rain100L" / "target" / f"norain-{number:03}.png", clean)
        put(root / "dehaze" / "input" / f"{number:04}_0.8_0.2.jpg", 100 + clean // 2)
        put(root / "dehaze" / "target" / f"{number:04}.png", clean)
    return root


def checkpoint(path: Path, config: ModelConfig = NARROW) -> Path:
    """A run's checkpoint of a narrow network, with random weights that are the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainer = Trainer(DyNet(config), Settings(steps=1), seed=0, device=torch.device("cpu"))
    torch.save({"trainer": trainer.state_dict(), "config": config.to_dict()}, path)
    return path
