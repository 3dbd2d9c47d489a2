"""The folders that fine-tuning takes, with a few small pictures drawn by code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

FOLDERS = ("Denoise", "Derain/rainy", "Derain/gt", "Dehaze/synthetic/part1", "Dehaze/original")


def picture(number: int, height: int = 40, width: int = 56) -> np.ndarray:
    """(height, width, 3) uint8: waves, other ones for each number."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin((number + 2) * columns / 30), np.cos(columns / 9 + number), np.sin(rows / (5 + number))]
    return (128 + 90 * np.stack(waves, axis=2)).astype(np.uint8)


def write_folders(root: Path) -> Path:
    """Five clean pictures, three rainy ones, two of haze in two densities each."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    for number in range(5):
        save(picture(number), root / f"Denoise/{number:05d}.png")
    for number in range(3):
        clean = picture(10 + number)
        save(clean, root / f"Derain/gt/norain-{number}.png")
        save(np.maximum(clean, 160), root / f"Derain/rainy/rain-{number}.png")
    for number in range(2):
        clean = picture(20 + number)
        save(clean, root / f"Dehaze/original/{number:04d}.png")
        for beta in ("0.04", "0.08"):
            save(clean // 2 + 100, root / f"Dehaze/synthetic/part1/{number:04d}_0.8_{beta}.png")
    return root


def save(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(pixels).save(path)
