"""NIQE and BRISQUE together, from one luma: pyiqa's numbers at a thirtieth of its cost or less.

Both fit generalised Gaussians to the normalised luma and to the products of its neighbours, at two scales; NIQE in
blocks of 96 pixels, BRISQUE over the whole picture. A shape parameter is found by bisection in a table made once,
where pyiqa makes the table anew for each fit and compares with all of its 9,801 entries.

Everything is float64. pyiqa's NIQE is float64 too, but halves the picture in float32: so does this, operation by
operation, since in saturated areas the rounding is all there is. pyiqa's BRISQUE is float32: this equals what pyiqa
gives for a float64 picture to 1e-4, and float32 itself is up to 3 points away from that where a picture is saturated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import scipy.io
from scipy.special import gammaln

from curation.scorers.mscn import WINDOW, block_sums, halved, luma, picture_sums
from curation.scorers.protocol import Measure, Scorer, Unmeasurable
from curation.scorers.pyiqa_scorer import PyiqaScorer
from curation.scorers.weights import WeightFile, check_digest

METRICS: Final = ("niqe", "brisque")  # what this engine computes itself
BLOCK: Final = 96  # pixels, NIQE's blocks; 48 at half size
NIQE_TOLERANCE: Final = 1e-3
BRISQUE_TOLERANCE: Final = 0.5  # of the self-check: pyiqa's float32 is that far from its float64 on noise

_GAMMA: Final = 0.05  # of BRISQUE's kernel, and its offset: LIVE's release, fixed in pyiqa too
_RHO: Final = -153.591
_SHAPES: Final = np.arange(0.2, 10.0 + 0.001, 0.001).astype(np.float32).astype(np.float64)
#: E|x|^2 / E[x^2] of a generalised Gaussian by shape, ascending (Lasmar et al. 2009, equation 8).
_RATIOS: Final = np.exp(2 * gammaln(2 / _SHAPES) - gammaln(1 / _SHAPES) - gammaln(3 / _SHAPES))
_INVERSE: Final = np.exp(gammaln(1 / _SHAPES) + gammaln(3 / _SHAPES) - 2 * gammaln(2 / _SHAPES))[::-1]
#: The range of each of the 36 features in LIVE's training set (`allrange` of its BRISQUE release): low, high.
_RANGES: Final = np.array(
    [
        (0.338, 10), (0.017204, 0.806612), (0.236, 1.642), (-0.123884, 0.20293),
        (0.000155, 0.712298), (0.001122, 0.470257), (0.244, 1.641), (-0.123586, 0.179083),
        (0.000152, 0.710456), (0.000975, 0.470984), (0.249, 1.555), (-0.135687, 0.100858),
        (0.000174, 0.684173), (0.000913, 0.534174), (0.258, 1.561), (-0.143408, 0.100486),
        (0.000179, 0.685696), (0.000888, 0.536508), (0.471, 3.264), (0.012809, 0.703171),
        (0.218, 1.046), (-0.094876, 0.187459), (1.5e-05, 0.442057), (0.001272, 0.40803),
        (0.222, 1.042), (-0.115772, 0.162604), (1.6e-05, 0.444362), (0.001374, 0.40243),
        (0.227, 0.996), (-0.117188, 0.098323), (3e-05, 0.531903), (0.001122, 0.369589),
        (0.228, 0.99), (-0.12243, 0.098658), (2.8e-05, 0.530092), (0.001118, 0.370399),
    ]
)  # fmt: skip


class FusedScorer(Scorer):
    """Scores by NIQE and BRISQUE, like `PyiqaScorer`; `weights` is what `resolve` found for them: metric to files."""

    def __init__(self, weights: Mapping[str, tuple[WeightFile, ...]]) -> None:
        assert set(weights) <= set(METRICS), tuple(weights)
        self._weights = dict(weights)
        self._niqe: tuple[np.ndarray, np.ndarray] | None = None
        self._brisque: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self._weights)

    def setup(self) -> None:
        """Reads the parameters and holds this engine against pyiqa on one picture.

        Raises ValueError where a weight file is missing or not the one of `resolve`, and where the two disagree.
        """
        for files in self._weights.values():
            for file in files:
                check_digest(file.path, file.sha256)
        if "niqe" in self._weights:
            self._niqe = _niqe_parameters(self._weights["niqe"][0].path)
        if "brisque" in self._weights:
            self._brisque = _brisque_parameters(self._weights["brisque"][0].path)
        self._check()

    def measure(self, pixels: np.ndarray) -> Measure:
        """What measures (H, W, 3) uint8 RGB; both metrics read one luma."""
        grey = luma(pixels)

        def by(metric: str) -> float:
            if metric == "niqe":
                assert self._niqe is not None, "setup() comes first"
                return niqe(grey, *self._niqe)
            assert metric == "brisque" and self._brisque is not None, "setup() comes first"
            return brisque(grey, *self._brisque)

        return by

    def _check(self) -> None:
        oracle = PyiqaScorer(self._weights)  # goes again: its models are needed for one picture
        oracle.setup()
        noise = np.random.default_rng(0).normal(128, 40, (2 * BLOCK + 5, 3 * BLOCK + 7, 1))
        pixels = np.repeat(np.clip(noise, 0, 255).astype(np.uint8), 3, axis=2)
        ours, theirs = self.score(pixels).scores, oracle.score(pixels).scores
        for metric, tolerance in (("niqe", NIQE_TOLERANCE), ("brisque", BRISQUE_TOLERANCE)):
            if metric in ours and not abs(ours[metric] - theirs[metric]) <= tolerance:
                raise ValueError(
                    f"the fused {metric} gives {ours[metric]:.6f} where pyiqa gives {theirs[metric]:.6f}: "
                    "use --engine pyiqa, and report which versions of pyiqa, numba and numpy are installed"
                )


def niqe(grey: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    """NIQE (Mittal et al. 2013, equation 10) of a luma (H, W) float64 in [0, 255]; (36,) and (36, 36) parameters.

    Raises Unmeasurable where a side is under 96 pixels, or fewer than two blocks can be described.
    """
    height, width = (side // BLOCK * BLOCK for side in grey.shape)
    if not height or not width:
        raise Unmeasurable(f"a side is under {BLOCK} px")
    whole = np.ascontiguousarray(grey[:height, :width])
    half = halved((whole / 255.0).astype(np.float32)).astype(np.float64) * 255.0
    features = np.concatenate(
        [
            _block_features(block_sums(whole, BLOCK, WINDOW), BLOCK**2),
            _block_features(block_sums(half, BLOCK // 2, WINDOW), (BLOCK // 2) ** 2),
        ],
        axis=1,
    )
    described = features[~np.isnan(features).any(axis=1)]
    if len(described) < 2:
        raise Unmeasurable("no two blocks that it can describe")
    away = mean - np.nanmean(features, axis=0)
    spread = (covariance + np.cov(described, rowvar=False)) / 2
    inverse = np.linalg.pinv(spread, rcond=len(mean) * np.finfo(np.float64).eps)
    return _finite(float(away @ inverse @ away) ** 0.5)


def brisque(grey: np.ndarray, coefficients: np.ndarray, vectors: np.ndarray) -> float:
    """BRISQUE (Mittal et al. 2012) of a luma (H, W) float64 in [0, 255]; (N,) and (N, 36) of the regression.

    Raises Unmeasurable for a picture without variance.
    """
    epsilon = float(np.finfo(np.float32).eps)
    features = [
        feature
        for image in (grey, halved(grey))
        for feature in _picture_features(picture_sums(image, WINDOW, epsilon), image.size)
    ]
    scaled = -1 + 2 * (np.array(features) - _RANGES[:, 0]) / (_RANGES[:, 1] - _RANGES[:, 0])
    kernel = np.exp(-_GAMMA * ((scaled - vectors) ** 2).sum(axis=1))
    return _finite(float(kernel @ coefficients) - _RHO)


def _finite(value: float | complex) -> float:
    if isinstance(value, complex) or not math.isfinite(value):
        raise Unmeasurable(f"gives {value}")
    return value


def _nearest(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where in an ascending table the nearest entries are; of two equally near the first."""
    at = np.searchsorted(table, values).clip(1, len(table) - 1)
    return np.where(values - table[at - 1] <= table[at] - values, at - 1, at)


def _fitted(sums: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Asymmetric generalised Gaussians of (..., SUMS): shape, left and right deviation (Lasmar et al. 2009)."""
    negatives, positives, below, above, absolute = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        left, right = np.sqrt(below / negatives), np.sqrt(above / positives)
        skew = left / right
        ratio = (absolute / count) ** 2 / ((below + above) / count)
        ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shapes = _SHAPES[_nearest(_RATIOS, np.nan_to_num(ratio))]
    return np.where(np.isnan(ratio), _SHAPES[0], shapes), left, right


def _block_features(sums: np.ndarray, count: int) -> np.ndarray:
    """(blocks, MAPS, SUMS) to NIQE's (blocks, 18)."""
    shape, left, right = _fitted(sums, count)
    width = np.exp((gammaln(1 / shape) - gammaln(3 / shape)) / 2)
    left, right = left * width, right * width
    mean = (right - left) * np.exp(gammaln(2 / shape) - gammaln(1 / shape))
    products = np.stack([shape, mean, left, right], axis=-1)[:, 1:].reshape(len(sums), -1)
    return np.concatenate([shape[:, :1], (left[:, :1] + right[:, :1]) / 2, products], axis=1)


def _picture_features(sums: np.ndarray, count: int) -> list[float]:
    """(MAPS, SUMS) to BRISQUE's 18."""
    own = sums[0]
    power, absolute = (own[2] + own[3]) / count, own[4] / count
    if not power > 0:
        raise Unmeasurable("the picture has no variance")
    at = len(_SHAPES) - 1 - int(_nearest(_INVERSE, np.array([power / absolute**2]))[0])
    shape, left, right = _fitted(sums[1:], count)
    mean = (right - left) * np.exp(gammaln(2 / shape) - (gammaln(1 / shape) + gammaln(3 / shape)) / 2)
    products = np.stack([shape, mean, left**2, right**2], axis=-1).ravel()
    return [float(_SHAPES[at]), float(power), *products.tolist()]


def _niqe_parameters(path: Path) -> tuple[np.ndarray, np.ndarray]:
    parameters = scipy.io.loadmat(path)
    return np.ravel(parameters["mu_prisparam"]).astype(np.float64), parameters["cov_prisparam"].astype(np.float64)


def _brisque_parameters(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import torch

    coefficients, vectors = torch.load(path, map_location="cpu", weights_only=True)
    return coefficients.double().numpy(), vectors.double().numpy()
