"""Gaussian noise as the all-in-one protocol adds it, in fine-tuning and in evaluation (PromptIR, arXiv 2306.13090)."""

from __future__ import annotations

from typing import Final

import numpy as np

from dynet.randomness import generator

SIGMAS: Final = (15, 25, 50)  # grey levels: those of the paper's tables


def noisy(clean: np.ndarray, sigma: float, draw: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 plus N(0, sigma) grey levels, clipped and cut down to whole levels, as the released code does.

    Cutting down, and not rounding, makes the picture darker by half a level; the published figures have that in them.
    """
    return np.clip(clean + sigma * draw.standard_normal(clean.shape), 0, 255).astype(np.uint8)


def noise_of(seed: int, name: str, sigma: float) -> np.random.Generator:
    """The generator of a test picture's noise: a function of these three, whatever other pictures there are."""
    return generator(f"{seed}/noise/{name}/{sigma:g}")
