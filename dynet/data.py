"""Crops from shards as what the training step takes: degraded in the stream's processes, floats on the device.

    stream = Stream(root, plan, workers=2, derive=Degrade(seed=plan.seed, how=Degradation()))    # to pre-train
    stream = Stream(root, plan, workers=2, derive=Noise(seed=plan.seed, sigmas=(15, 25, 50)))    # to fine-tune
    for batch in stream:
        step(pair(batch, device))

Bytes travel to the device, a quarter of what floats would be, and are divided there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dynet.degrade import Degradation, degrade, generator_of
from dynet.noise import noisy
from dynet.randomness import generator
from shards.stream import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Degrade:
    """What a stream derives from its crops. What a sample gets is decided by `seed`, its epoch and its name alone."""

    seed: int
    how: Degradation

    def __call__(self, pixels: np.ndarray, samples: Sequence[str], epochs: Sequence[int]) -> np.ndarray:
        """(n, H, W, 3) uint8 RGB, the same degraded."""
        out = np.empty_like(pixels)
        for row, (sample, epoch) in enumerate(zip(samples, epochs, strict=True)):
            degrade(pixels[row], generator_of(self.seed, epoch, sample), self.how, into=out[row])
        return out


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """The protocol's noise at one of `sigmas` grey levels, on a crop that is turned or flipped first, in place."""

    seed: int
    sigmas: tuple[float, ...]

    def __call__(self, pixels: np.ndarray, samples: Sequence[str], epochs: Sequence[int]) -> np.ndarray:
        """(n, H, H, 3) uint8 RGB, the same turned and then noisy; `pixels` are turned likewise."""
        out = np.empty_like(pixels)
        for row, (sample, epoch) in enumerate(zip(samples, epochs, strict=True)):
            draw = generator(f"{self.seed}/{epoch}/noise/{sample}")
            sigma = self.sigmas[int(draw.integers(len(self.sigmas)))]
            pixels[row] = turned(pixels[row].copy(), int(draw.integers(8)))
            out[row] = noisy(pixels[row], sigma, draw)
        return out


def turned(pixels: np.ndarray, turn: int) -> np.ndarray:
    """(H, H, 3) in one of the eight symmetries of a square: four turns, and those of the mirrored picture."""
    return np.rot90(pixels[:, ::-1] if turn >= 4 else pixels, turn % 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Input and target: each (B, 3, H, W) float32 in [0, 1], channels last in memory, on one device."""

    degraded: torch.Tensor
    clean: torch.Tensor


def pair(batch: Batch, device: torch.device) -> Pair:
    """A batch on the device. Does not wait for the copy where the batch is pinned.

    Raises ValueError for a batch of a stream that derives nothing.
    """
    if batch.derived is None:
        raise ValueError("the batch has no degraded crops: open the stream with derive=Degrade(...)")
    return Pair(degraded=_unit(batch.derived, device), clean=_unit(batch.pixels, device))


def _unit(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """uint8 to float32 in [0, 1], in the memory format it has."""
    return pixels.to(device, non_blocking=True).to(torch.float32).div_(255)
