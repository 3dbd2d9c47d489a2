"""NIMA in batches: pyiqa's network and weights, each picture reduced once, many scored by one forward.

pyiqa makes floats of the whole picture, 12 bytes a pixel, before it shrinks the shorter side to the network's 299
(VGG16: 224) pixels and crops the middle. Here that shrinking reads the bytes themselves: 4 ms for 2.8 megapixels
where pyiqa takes 35. What is left is 1 MB a picture, so that many can wait for a batch.

The convolutions of Inception-ResNet's residual blocks at 35 x 35 and 17 x 17 run in bfloat16 where the CPU has
instructions for it; the sum that they add to stays float32, so a block's rounding counts for a fifth or less of
itself. In bfloat16 throughout, scores of a network with made-up weights were off by up to 0.05, with these blocks
alone by 0.004 (16 photographs, scores of 10 with a deviation of 0.8). VGG16 has no such blocks: float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numba
import numpy as np

from curation.scorers.pyiqa_build import build, to_tensor
from curation.scorers.weights import WeightFile, pinned

if TYPE_CHECKING:
    from pyiqa.archs.nima_arch import NIMA

METRICS: Final = ("nima", "nima-koniq", "nima-spaq", "nima-vgg16-ava")
TOLERANCE: Final = 1e-2

#: Of Inception-ResNet-v2, by timm's names: ten blocks at 35 x 35, twenty at 17 x 17.
_IN_BFLOAT16: Final = frozenset({"repeat", "repeat_1"})


class Nima:
    """One of `METRICS`, which share their code and differ in network, weights and range of scores.

    `files` is what `resolve` found for the metric, `device` torch's name of one. Raises ValueError for another metric.
    """

    def __init__(self, metric: str, files: Sequence[WeightFile], device: str = "cpu") -> None:
        if metric not in METRICS:
            raise ValueError(f"'{metric}' is no NIMA of pyiqa's: choose one of {', '.join(METRICS)}")
        self._metric = metric
        self._files = tuple(files)
        self._device = device
        self._net: NIMA | None = None
        self._rounded: frozenset[str] = frozenset()
        self._side = 0

    def setup(self) -> None:
        """Builds the network, keeps torch to one thread, and holds its scores of three pictures against pyiqa's.

        Raises ValueError where there is no such device, a weight file is missing or not the one of `resolve`, or the
        scores disagree.
        """
        import torch

        device = torch.device(self._device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("no CUDA device here: run the scorer on the CPU, or on a machine with a GPU")
        torch.set_num_threads(1)
        model = build(self._metric, device=device, find=pinned(self._files))
        checks = [_noise(grain) for grain in (1, 8, 64)]
        expected = np.array([float(model(to_tensor(pixels, device)).item()) for pixels in checks])
        net: NIMA = model.net
        _fold(net)
        self._net = net.to(memory_format=torch.channels_last)
        self._side = net.base_model.default_cfg["input_size"][-1]
        reduced = [self.reduced(pixels) for pixels in checks]
        for rounded in [_IN_BFLOAT16, frozenset()] if device.type == "cpu" and _has_bfloat16() else [frozenset()]:
            self._rounded = rounded
            scores = np.array(self.score(reduced))
            if np.abs(scores - expected).max() <= TOLERANCE / 4:  # other pictures may be moved more than these
                return
        raise ValueError(
            f"batched {self._metric} gives {scores} where pyiqa gives {expected}: use --engine pyiqa, and report which "
            "versions of pyiqa, torch and timm are installed"
        )

    def reduced(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB to what the network sees of it: (S, S, 3) float32 in [0, 1], S = 299 or 224.

        The shorter side is shrunk to S, and the middle cut out, as by torchvision's resize and center_crop.
        """
        assert self._side, "setup() comes first"
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3, pixels.shape
        height, width = pixels.shape[:2]
        shorter = min(height, width)
        down = _weights(height, int(self._side * height / shorter), self._side)
        across = _weights(width, int(self._side * width / shorter), self._side)
        return _shrunk(pixels, *down, *across)

    def score(self, pictures: Sequence[np.ndarray]) -> list[float]:
        """One score for each of what `reduced` gave, by one forward. A picture's neighbours move it by under 1e-4."""
        import torch
        from pyiqa.archs.arch_util import dist_to_mos

        assert self._net is not None, "setup() comes first"
        with torch.inference_mode():
            # (B, S, S, 3) turned to (B, 3, S, S) lies in memory as `channels_last` wants it
            batch = torch.from_numpy(np.stack(pictures)).to(self._device).permute(0, 3, 1, 2)
            x = self._net.preprocess(batch)  # finds nothing to shrink or to cut: subtracts the mean
            for name, part in self._net.base_model.items():
                with torch.autocast(batch.device.type, torch.bfloat16, enabled=name in self._rounded):
                    x = part(x)
            return dist_to_mos(self._net.classifier(self._net.global_pool(x))).flatten().tolist()


def _noise(grain: int) -> np.ndarray:
    """A picture of noise, in squares of `grain` pixels."""
    height, width = 411, 530
    squares = np.random.default_rng(grain).integers(
        0, 256, (-(-height // grain), -(-width // grain), 3), dtype=np.uint8
    )
    return np.ascontiguousarray(squares.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width])


def _has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself: elsewhere it is emulated, and slow."""
    import torch

    if not hasattr(torch.cpu, "get_capabilities"):  # torch before 2.9
        return False
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def _fold(net: NIMA) -> None:
    """Puts each batch normalisation into the convolution before it: a pass over the features less for each."""
    import torch

    for module in net.modules():
        normalise = getattr(module, "bn", None)
        if isinstance(normalise, torch.nn.BatchNorm2d):
            module.conv = torch.nn.utils.fuse_conv_bn_eval(module.conv, normalise)
            module.bn = normalise.act  # timm's holds the activation that follows


def _weights(source: int, target: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """The middle `wanted` of `target` pixels as weighed means of `source` ones: first (wanted,), weights (wanted, N).

    A triangle that reaches one target pixel, or source pixel if that is more, to both sides: `antialias=True` of
    torch's bilinear interpolation.
    """
    scale = source / target
    reach = max(scale, 1.0)
    start = round((target - wanted) / 2)  # as torchvision's center_crop
    centres = scale * (np.arange(start, start + wanted) + 0.5)
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.int64), source)
    at = first[:, None] + np.arange(math.ceil(2 * reach) + 1)
    weights = np.maximum(0, 1 - np.abs((at + 0.5 - centres[:, None]) / reach)) * (at < last[:, None])
    return first, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@numba.njit(cache=True)
def _shrunk(
    pixels: np.ndarray, tops: np.ndarray, down: np.ndarray, lefts: np.ndarray, across: np.ndarray
) -> np.ndarray:
    """Each row of the result is a weighed mean of rows, shrunk across: only what the crop shows is read."""
    out = np.empty((len(tops), len(lefts), 3), np.float32)
    left, right = lefts[0], min(lefts[-1] + across.shape[1], pixels.shape[1])
    row = np.empty(3 * (right - left + across.shape[1]), np.float32)
    for i in range(len(tops)):
        row[:] = 0
        for k in range(down.shape[1]):
            if down[i, k] > 0:
                _add_row(pixels[tops[i] + k].ravel()[3 * left : 3 * right], down[i, k] / np.float32(255), row)
        for j in range(len(lefts)):
            _weigh(row[3 * (lefts[j] - left) :], across[j], out[i, j])
    return out


@numba.njit(cache=True, error_model="numpy")
def _add_row(levels: np.ndarray, weight: np.float32, total: np.ndarray) -> None:
    for j in range(len(levels)):
        total[j] += weight * np.float32(levels[j])


@numba.njit(cache=True)
def _weigh(row: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    red = green = blue = np.float32(0)
    for k in range(len(weights)):
        red += weights[k] * row[3 * k]
        green += weights[k] * row[3 * k + 1]
        blue += weights[k] * row[3 * k + 2]
    out[0], out[1], out[2] = red, green, blue
