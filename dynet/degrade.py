"""A clean crop with half of its area degraded and a part of it masked: what the network is pre-trained to undo.

The paper: "each of these cropped patches undergoes a random augmentation to 50% of its area using either JPEG
compression, Gaussian noise, or random noise with varying levels. Furthermore, we mask 30% of the patch", and its
Fig. 3 has noise, JPEG artefacts and masking "within the same image". Read together: the degraded half consists of
regions, and each has one of the three, at a level of its own. `regions=1` is the other reading: one kind a crop.

The area is dealt out in square cells, in a random order laid end to end: first the regions, then what is masked, the
rest stays. A cell on a border between them is split, row by row, so that shares are exact to the pixel. Cells of 16
pixels are those of masked auto-encoders, which the paper follows, and the MCU of a JPEG with chroma of half resolution.

On one core of an AMD EPYC a crop of 128 x 128 takes 0.39 ms: 0.12 a region of JPEG, 0.06 one of Gaussian noise,
0.02 one of random noise; the order of the cells and the copy are the rest.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from dynet.randomness import generator

_PIXEL: Final = np.dtype("V3")  # R, G, B as one element: scattered in a third of the time of three
_MASK: Final = np.zeros(3, np.uint8).view(_PIXEL)
_LEVELS: Final = 255  # the highest


@dataclass(frozen=True, kw_only=True, slots=True)
class Degradation:
    """How much of a crop is degraded, and within which bounds. Bounds are (lowest, highest), both drawn, evenly."""

    degraded: float = 0.5  # share of the area
    masked: float = 0.3  # share of the area; what both leave stays as it is
    cell: int = 16  # pixels a side
    regions: int = 4  # of the degraded area, equally large, each with a kind and a level of its own
    jpeg_quality: tuple[int, int] = (10, 75)  # libjpeg's, 1 to 100
    gaussian_sigma: tuple[float, float] = (5.0, 50.0)  # grey levels; the evaluation has 15, 25 and 50
    #: The paper's "random noise": uniform in -reach to reach, grey levels. Not impulses: those replace a pixel, as the
    #: mask already does; this adds what is not Gaussian, at the deviations (reach / sqrt(3)) that the Gaussian has.
    random_reach: tuple[float, float] = (9.0, 87.0)

    def __post_init__(self) -> None:
        for name in ("degraded", "masked"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give a share of the area, 0 to 1")
        if self.degraded + self.masked > 1 + 1e-9:
            raise ValueError(f"degraded {self.degraded} and masked {self.masked} are more than the area: lower one")
        for name in ("cell", "regions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")
        _check_bounds("jpeg_quality", self.jpeg_quality, 1, 100)
        _check_bounds("gaussian_sigma", self.gaussian_sigma, 0, _LEVELS)
        _check_bounds("random_reach", self.random_reach, 0, _LEVELS)
        if any(quality != int(quality) for quality in self.jpeg_quality):
            raise ValueError(f"jpeg_quality is {self.jpeg_quality}: give whole numbers")


def _check_bounds(name: str, bounds: tuple[float, float], least: float, most: float) -> None:
    if len(bounds) != 2 or not least <= bounds[0] <= bounds[1] <= most:
        raise ValueError(f"{name} is {bounds}: give the lowest and the highest, within {least} and {most}")


def degrade(
    clean: np.ndarray, generator: np.random.Generator, how: Degradation, into: np.ndarray | None = None
) -> np.ndarray:
    """(H, W, 3) uint8 RGB, degraded; written to `into`, another array, where one is given.

    A function of its arguments and of the generator's state, on one release of NumPy and libjpeg. Masked pixels are 0.
    Raises ValueError for arrays of another shape or type.
    """
    out = np.empty_like(clean, order="C") if into is None else into
    _check(clean, out)
    np.copyto(out, clean)
    area = clean.shape[0] * clean.shape[1]
    degraded, changed = round(how.degraded * area), round((how.degraded + how.masked) * area)
    line = _line(clean.shape[0], clean.shape[1], how.cell, generator)
    pixels = out.reshape(-1).view(_PIXEL)
    for begin, end in itertools.pairwise(degraded * number // how.regions for number in range(how.regions + 1)):
        where = line[begin:end]
        kind = KINDS[int(generator.integers(len(KINDS)))]
        pixels[where] = kind(clean, where, generator, how).reshape(-1).view(_PIXEL)
    pixels[line[degraded:changed]] = _MASK
    return out


def _check(clean: np.ndarray, out: np.ndarray) -> None:
    if clean.ndim != 3 or clean.shape[2] != 3 or clean.dtype != np.uint8:
        raise ValueError(f"{clean.shape} {clean.dtype} is no crop: give (H, W, 3) uint8")
    if out.shape != clean.shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"{out.shape} {out.dtype} can't take a crop of {clean.shape}: give a C-contiguous uint8 array")
    if np.may_share_memory(clean, out):
        raise ValueError("a crop can't be degraded in place: give another array")


def _line(height: int, width: int, cell: int, generator: np.random.Generator) -> np.ndarray:
    """(H * W,) int64: the pixels of the cells in a random order, each cell's row by row."""
    cell_of, place, sizes = _cells(height, width, cell)
    order = generator.permutation(len(sizes))
    begins = np.empty_like(sizes)
    begins[order] = np.cumsum(sizes[order]) - sizes[order]
    line = np.empty_like(cell_of)
    line[begins[cell_of] + place] = np.arange(len(line))
    return line


@functools.lru_cache(maxsize=8)
def _cells(height: int, width: int, cell: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each pixel, (H * W,), its cell and its place there; of each cell how many it has: those at the edge fewer."""
    rows, columns = np.divmod(np.arange(height * width), width)
    cell_of = rows // cell * math.ceil(width / cell) + columns // cell
    sizes = np.bincount(cell_of)
    by_cell = np.argsort(cell_of, kind="stable")
    place = np.empty_like(cell_of)
    place[by_cell] = np.arange(len(place)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return cell_of, place, sizes


def _jpeg(clean: np.ndarray, where: np.ndarray, generator: np.random.Generator, how: Degradation) -> np.ndarray:
    """The whole crop through libjpeg, chroma at half resolution: a block's neighbours are in its artefacts too."""
    quality = int(generator.integers(how.jpeg_quality[0], how.jpeg_quality[1], endpoint=True))
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _CHROMA_HALVED]
    _, coded = cv2.imencode(".jpg", cv2.cvtColor(clean, cv2.COLOR_RGB2BGR), settings)
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB)
    assert decoded is not None, "it was coded just now"
    return decoded.reshape(-1, 3).take(where, axis=0)


_CHROMA_HALVED: Final = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420


def _gaussian(clean: np.ndarray, where: np.ndarray, generator: np.random.Generator, how: Degradation) -> np.ndarray:
    """White, each channel by itself."""
    sigma = np.float32(generator.uniform(*how.gaussian_sigma))
    noise = generator.standard_normal((len(where), 3), dtype=np.float32)
    return _with_noise(clean, where, np.multiply(noise, sigma, out=noise))


def _random(clean: np.ndarray, where: np.ndarray, generator: np.random.Generator, how: Degradation) -> np.ndarray:
    """White and uniform, each channel by itself."""
    reach = np.float32(generator.uniform(*how.random_reach))
    noise = generator.random((len(where), 3), dtype=np.float32)
    noise -= np.float32(0.5)
    return _with_noise(clean, where, np.multiply(noise, 2 * reach, out=noise))


def _with_noise(clean: np.ndarray, where: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Rounded and clipped to bytes, as the evaluation's noise is. `noise` (pixels, 3) float32 is written over."""
    noise += clean.reshape(-1, 3).take(where, axis=0)
    np.rint(noise, out=noise)
    np.clip(noise, 0, _LEVELS, out=noise)
    return noise.astype(np.uint8)


_Kind = Callable[[np.ndarray, np.ndarray, np.random.Generator, Degradation], np.ndarray]
#: (crop, pixels' numbers (n,), generator, settings) -> (n, 3) uint8. Which of them a region has is drawn evenly.
KINDS: Final[tuple[_Kind, ...]] = (_jpeg, _gaussian, _random)


def generator_of(seed: int, epoch: int, sample: str) -> np.random.Generator:
    """The generator for a sample's turn in an epoch: a function of these three and of nothing that ran before.

    A sample comes once an epoch, so epoch and name are the step, whatever ranks and workers there are. What is drawn
    has nothing to do with where its crop lies (`shards.order.crop_box`): another hash, another generator.
    """
    return generator(f"{seed}/{epoch}/degrade/{sample}")
