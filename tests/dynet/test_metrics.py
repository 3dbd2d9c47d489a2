"""PSNR and SSIM are scikit-image's, as the released code asks for them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dynet.metrics import psnr, ssim

Metric = Callable[[np.ndarray, np.ndarray], float]


def pictures(seed: int, sigma: float, side: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Restored, target: (side, side, 3) uint8."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side]
    target = np.stack([128 + 90 * np.sin(rows / (3 + k)) * np.cos(columns / (5 - k)) for k in range(3)], axis=2)
    restored = target + random.normal(0, sigma, target.shape)
    return restored.clip(0, 255).round().astype(np.uint8), target.astype(np.uint8)


@pytest.mark.parametrize("sigma", [0.5, 15.0, 50.0, 120.0])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_they_equal_those_of_scikit_image(sigma: float, kind: type) -> None:
    for seed in range(3):
        restored, target = pictures(seed, sigma)
        one, other = restored / 255, target / 255
        given = (restored, target) if kind is np.uint8 else (one.astype(kind), other.astype(kind))
        assert psnr(*given) == pytest.approx(peak_signal_noise_ratio(other, one, data_range=1), abs=1e-4)
        expected = structural_similarity(other, one, data_range=1, channel_axis=2)
        assert ssim(*given) == pytest.approx(expected, abs=1e-4)


def test_by_the_definition_of_psnr() -> None:
    target = np.full((16, 16, 3), 100, np.uint8)
    assert psnr(target + 5, target) == pytest.approx(20 * math.log10(255 / 5))


def test_what_a_network_puts_beyond_the_range_is_clipped() -> None:
    _, target = pictures(0, 1.0)
    white = np.full(target.shape, 1.0, np.float32)
    for metric in (psnr, ssim):
        assert metric(white + 3, target / np.float32(255)) == metric(white, target / np.float32(255))


def test_equal_pictures_are_as_good_as_can_be_without_a_warning() -> None:
    _, target = pictures(0, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert psnr(target, target) == math.inf
        assert ssim(target, target) == pytest.approx(1.0)


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize(
    ("restored", "target", "sentence"),
    [
        (np.zeros((8, 8, 3)), np.zeros((8, 9, 3)), "pictures of the same size"),
        (np.zeros((3, 8, 8)), np.zeros((3, 8, 8)), r"give \(H, W, 3\)"),
        (np.zeros((8, 8, 3), np.int64), np.zeros((8, 8, 3), np.int64), "int64 has no data range"),
        (np.full((8, 8, 3), np.nan), np.zeros((8, 8, 3)), "the network has diverged"),
    ],
)
def test_what_can_not_be_compared_is_refused(
    metric: Metric, restored: np.ndarray, target: np.ndarray, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        metric(restored, target)


def test_a_picture_smaller_than_the_window_has_no_ssim() -> None:
    with pytest.raises(ValueError, match="SSIM takes at least 7 a side"):
        ssim(np.zeros((6, 40, 3)), np.zeros((6, 40, 3)))
