"""Detectors: metrics without weights, for what NIQE and BRISQUE are blind to. They vote in the consensus as these do.

Each is a pure function of the pixels. A detector stands here only while its numbers pay for it; `LOG.md` has them, and
those of the ones that were tried and left out (flat area, a tiled text mark).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from curation.scorers.protocol import Measure, Scorer, Unmeasurable

BLOCK: Final = 64  # pixels: a block has some of each of four octaves
STRIP: Final = 512  # pixels, whole blocks: what is in work at once stays in the cache
TEXTURED: Final = 4.0  # grey levels squared, in the three coarser octaves: under it a block is sky or a wall
FEWEST_BLOCKS: Final = 4
SHARPEST: Final = 97  # percentile: of a portrait's blocks most are out of focus, and rightly so

BORDER: Final = 0.02  # of the shorter side
SAME_COLOUR: Final = 4  # grey levels, in each channel: JPEG's error in a constant area
SAMPLED: Final = 1 << 16  # pixels of the border


@dataclass(frozen=True, kw_only=True, slots=True)
class Detector:
    """`measure`: (H, W, 3) uint8 RGB to a number, or NaN for a picture that has none."""

    measure: Callable[[np.ndarray], float]
    lower_better: bool


class DetectorScorer(Scorer):
    """Scores by the detectors named. There is nothing to build."""

    def __init__(self, metrics: Sequence[str]) -> None:
        self._metrics = tuple(metrics)

    @property
    def metrics(self) -> tuple[str, ...]:
        return self._metrics

    def setup(self) -> None:
        """Nothing to do."""

    def measure(self, pixels: np.ndarray, sure: Sequence[str]) -> Measure:
        """What measures (H, W, 3) uint8 RGB, each detector by itself."""

        def by(metric: str) -> float:
            value = DETECTORS[metric].measure(pixels)
            if math.isnan(value):
                raise Unmeasurable("too little texture")
            return value

        return by


def upscaling(pixels: np.ndarray) -> float:
    """How many decibels the finest octave of luma lies under the next three together, in the sharpest blocks.

    An interpolated picture has next to nothing there, nor has a blurred one: a photograph measures -3 to 12 at its
    full size, one enlarged to twice its sides 13 and more. NaN where fewer than four blocks have any texture.
    Octaves are differences between a picture and itself halved and enlarged again (Burt and Adelson 1983).
    """
    if min(pixels.shape[:2]) < BLOCK:
        return math.nan
    energy = np.concatenate([_octaves(strip) for strip in _strips(pixels)])
    coarse = energy[:, 1:].sum(axis=1)
    textured = coarse > TEXTURED
    if np.count_nonzero(textured) < FEWEST_BLOCKS:
        return math.nan
    ratio = (energy[textured, 0] + 1e-3) / coarse[textured]
    return float(-10 * np.log10(np.percentile(ratio, SHARPEST)))


def _strips(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Luma, (h, w) float32 in [0, 255], whole blocks of it, at most 512 rows at a time."""
    height, width = (side // BLOCK * BLOCK for side in pixels.shape[:2])
    for top in range(0, height, STRIP):
        strip = pixels[top : min(top + STRIP, height), :width]
        yield cv2.cvtColor(strip, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _octaves(luma: np.ndarray) -> np.ndarray:
    """(h, w) to (blocks, 4): the mean square of each octave within each block, the finest first."""
    blocks = (luma.shape[1] // BLOCK, luma.shape[0] // BLOCK)
    energy = []
    for _ in range(4):
        height, width = luma.shape
        half = cv2.resize(luma, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        detail = luma - cv2.resize(half, (width, height), interpolation=cv2.INTER_CUBIC)
        energy.append(cv2.resize(detail * detail, blocks, interpolation=cv2.INTER_AREA).ravel())
        luma = half
    return np.stack(energy, axis=1)


def uniform_border(pixels: np.ndarray) -> float:
    """The share, in [0, 1], of the border that has one colour: near 1 for a product on white and for most drawings.

    The border is a ring of 2 % of the shorter side. Its colour is the commonest of 32 levels a channel; what lies
    within 4 grey levels of it counts.
    """
    wide = max(1, round(BORDER * min(pixels.shape[:2])))
    sides = (pixels[:wide], pixels[-wide:], pixels[wide:-wide, :wide], pixels[wide:-wide, -wide:])
    ring = np.concatenate([side.reshape(-1, 3) for side in sides])
    ring = ring[:: -(-len(ring) // SAMPLED)]
    levels = (ring >> 3).astype(np.int32) @ np.array([1 << 10, 1 << 5, 1], dtype=np.int32)
    commonest = ring[levels == np.bincount(levels).argmax()]
    away = np.abs(ring.astype(np.int16) - np.median(commonest, axis=0)).max(axis=1)
    return float(np.mean(away <= SAME_COLOUR))


DETECTORS: Final[dict[str, Detector]] = {
    "upscaling": Detector(measure=upscaling, lower_better=True),
    "uniform_border": Detector(measure=uniform_border, lower_better=True),
}
