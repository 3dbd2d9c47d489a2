"""NIQE and BRISQUE together, from one luma: pyiqa's numbers at a hundredth of its cost or less (LOG.md).

Both fit generalised Gaussians to the normalised luma and to the products of its neighbours, at two scales; NIQE in
blocks of 96 pixels, BRISQUE over the whole picture. A shape parameter is found by bisection in a table made once,
where pyiqa makes the table anew for each fit and compares with all of its 9,801 entries.

The arithmetic is float64, as in pyiqa's NIQE, but for two places where pyiqa rounds to float32 and so does this,
operation by operation: the luma, and halving the picture. In saturated areas that rounding is all there is. pyiqa's
BRISQUE is float32: this equals what pyiqa gives for a float64 picture to 1e-5. float32 itself is up to 3 points
away from that on photographs with saturated areas, and 42 on a drawn chart.

The luma takes 1 byte a pixel, the picture at half size 2, a row of blocks some KB a column: 22 megapixels 64 MB,
beside the 66 MB of pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import scipy.io
from scipy.special import gammaln

from curation.scorers.mscn import WINDOW, block_sums, halved, luma, picture_sums, shared_sums
from curation.scorers.oracle import Tables, ask
from curation.scorers.protocol import Measure, Scorer, Unmeasurable
from curation.scorers.weights import WeightFile, check_digest

METRICS: Final = ("niqe", "brisque")  # what this engine computes itself
BLOCK: Final = 96  # pixels, NIQE's blocks; 48 at half size
NIQE_TOLERANCE: Final = 1e-3
BRISQUE_TOLERANCE: Final = 0.5  # of the self-check: pyiqa's float32 is that far from its float64 on noise
SMALLEST: Final = 7  # pixels of a side: pyiqa's BRISQUE halves twice, and mirrors four pixels each time

_GAMMA: Final = 0.05  # of BRISQUE's kernel, and its offset: LIVE's release, fixed in pyiqa too
_RHO: Final = -153.591
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
        self._tables: Tables | None = None

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
        noise = np.random.default_rng(0).normal(128, 40, (2 * BLOCK + 5, 3 * BLOCK + 7, 1))
        pixels = np.repeat(np.clip(noise, 0, 255).astype(np.uint8), 3, axis=2)
        oracle = ask(self._weights, pixels)
        self._tables = oracle.tables
        if "niqe" in self._weights:
            self._niqe = _niqe_parameters(self._weights["niqe"][0].path)
        self._brisque = oracle.coefficients, oracle.vectors
        self._check(pixels, oracle.scores)

    def measure(self, pixels: np.ndarray, sure: Sequence[str]) -> Measure:
        """What measures (H, W, 3) uint8 RGB; both metrics read one luma, in one pass where both are sure."""
        grey = Grey(luma(pixels), both=set(METRICS) <= set(sure))

        def by(metric: str) -> float:
            assert self._tables is not None, "setup() comes first"
            if metric == "niqe":
                assert self._niqe is not None, "setup() comes first"
                return niqe(grey, *self._niqe, self._tables)
            assert metric == "brisque" and self._brisque is not None, "setup() comes first"
            return brisque(grey, *self._brisque, self._tables)

        return by

    def _check(self, pixels: np.ndarray, expected: Mapping[str, float]) -> None:
        ours = self.score(pixels).scores
        for metric, tolerance in (("niqe", NIQE_TOLERANCE), ("brisque", BRISQUE_TOLERANCE)):
            if metric in ours and not abs(ours[metric] - expected[metric]) <= tolerance:
                raise ValueError(
                    f"the fused {metric} gives {ours[metric]:.6f} where pyiqa gives {expected[metric]:.6f}: "
                    "use --engine pyiqa, and report which versions of pyiqa, numba and numpy are installed"
                )


class Grey:
    """A picture's luma, (H, W) uint8, and its sums at full size, made when they are first asked for.

    `both`: whether NIQE and BRISQUE will both be asked for; the first then makes both in one pass. That costs three
    fifths more than NIQE's alone, and a fifth less than one after the other.
    """

    def __init__(self, luma: np.ndarray, both: bool) -> None:
        self.luma = luma
        self.height, self.width = (side // BLOCK * BLOCK for side in luma.shape)
        self._both = both and self.height > 0 and self.width > 0

    @functools.cached_property
    def block_sums(self) -> np.ndarray:
        """(blocks, MAPS, SUMS) of luma[:height, :width], see `mscn.block_sums`."""
        if self._both:
            return self._shared[0]
        return block_sums(self.luma, self.height, self.width, BLOCK, WINDOW)

    @functools.cached_property
    def picture_sums(self) -> np.ndarray:
        """(MAPS, SUMS), see `mscn.picture_sums`."""
        return self._shared[1] if self._both else picture_sums(self.luma, WINDOW)

    @functools.cached_property
    def _shared(self) -> tuple[np.ndarray, np.ndarray]:
        return shared_sums(self.luma, self.height, self.width, BLOCK, WINDOW)


def niqe(grey: Grey, mean: np.ndarray, covariance: np.ndarray, tables: Tables) -> float:
    """NIQE (Mittal et al. 2013, equation 10), with the (36,) and (36, 36) parameters of pristine pictures.

    Raises Unmeasurable where a side is under 96 pixels, or no block can be described.
    """
    if not grey.height or not grey.width:
        raise Unmeasurable(f"a side is under {BLOCK} px")
    half = halved(grey.luma, grey.height, grey.width, 255)
    small = BLOCK // 2
    features = np.concatenate(
        [
            _block_features(grey.block_sums, BLOCK**2, tables),
            _block_features(block_sums(half, grey.height // 2, grey.width // 2, small, WINDOW), small**2, tables),
        ],
        axis=1,
    )
    described = features[~np.isnan(features).any(axis=1)]
    if not len(described):
        raise Unmeasurable("no block that it can describe")
    away = mean - np.nanmean(features, axis=0)
    # one block varies by nothing, as in pyiqa
    spread = (covariance + np.cov(described, rowvar=False, ddof=min(1, len(described) - 1))) / 2
    inverse = np.linalg.pinv(spread, rcond=len(mean) * np.finfo(np.float64).eps)
    return _finite(float(away @ inverse @ away) ** 0.5)


def brisque(grey: Grey, coefficients: np.ndarray, vectors: np.ndarray, tables: Tables) -> float:
    """BRISQUE (Mittal et al. 2012), with the (N,) coefficients and (N, 36) vectors of its regression.

    Raises Unmeasurable for a picture without variance, or with a side under `SMALLEST`.
    """
    height, width = grey.luma.shape
    if min(height, width) < SMALLEST:
        raise Unmeasurable(f"a side is under {SMALLEST} px")
    half = halved(grey.luma, height, width, 1)
    features = [
        *_picture_features(grey.picture_sums, grey.luma.size, tables),
        *_picture_features(picture_sums(half, WINDOW), half.size, tables),
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


def _fitted(sums: np.ndarray, count: int, tables: Tables) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Asymmetric generalised Gaussians of (..., SUMS): shape, left and right deviation (Lasmar et al. 2009)."""
    negatives, positives, below, above, absolute = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        left, right = np.sqrt(below / negatives), np.sqrt(above / positives)
        skew = left / right
        ratio = (absolute / count) ** 2 / ((below + above) / count)
        ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shapes = tables.shapes[_nearest(tables.ratios, np.nan_to_num(ratio))]
    return np.where(np.isnan(ratio), tables.shapes[0], shapes), left, right


def _block_features(sums: np.ndarray, count: int, tables: Tables) -> np.ndarray:
    """(blocks, MAPS, SUMS) to NIQE's (blocks, 18)."""
    shape, left, right = _fitted(sums, count, tables)
    width = np.exp((gammaln(1 / shape) - gammaln(3 / shape)) / 2)
    left, right = left * width, right * width
    mean = (right - left) * np.exp(gammaln(2 / shape) - gammaln(1 / shape))
    products = np.stack([shape, mean, left, right], axis=-1)[:, 1:].reshape(len(sums), -1)
    return np.concatenate([shape[:, :1], (left[:, :1] + right[:, :1]) / 2, products], axis=1)


def _picture_features(sums: np.ndarray, count: int, tables: Tables) -> list[float]:
    """(MAPS, SUMS) to BRISQUE's 18."""
    own = sums[0]
    power, absolute = (own[2] + own[3]) / count, own[4] / count
    if not power > 0:
        raise Unmeasurable("the picture has no variance")
    own_shape = tables.shapes[::-1][_nearest(tables.inverse, np.array([power / absolute**2]))[0]]
    shape, left, right = _fitted(sums[1:], count, tables)
    mean = (right - left) * np.exp(gammaln(2 / shape) - (gammaln(1 / shape) + gammaln(3 / shape)) / 2)
    products = np.stack([shape, mean, left**2, right**2], axis=-1).ravel()
    return [float(own_shape), float(power), *products.tolist()]


def _niqe_parameters(path: Path) -> tuple[np.ndarray, np.ndarray]:
    parameters = scipy.io.loadmat(path)
    return np.ravel(parameters["mu_prisparam"]).astype(np.float64), parameters["cov_prisparam"].astype(np.float64)
