"""How close a restored picture comes to its target: PSNR and SSIM as scikit-image defines them, on RGB.

As the released code evaluates: values clipped to [0, 1], a data range of 1, SSIM as the mean over three channels with a
uniform window of 7 x 7. Other definitions of SSIM (a Gaussian window, luma alone) give other numbers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

WINDOW: Final = 7  # pixels a side: scikit-image's default, and the least that a picture can have
_RANGE: Final = 1.0


def psnr(restored: np.ndarray, target: np.ndarray) -> float:
    """In dB, infinite where both are equal. Each (H, W, 3), uint8 or floats in [0, 1]; floats beyond are clipped."""
    one, other = _checked(restored, target)
    if np.array_equal(one, other):
        return float("inf")  # scikit-image divides by zero there, and warns
    return float(peak_signal_noise_ratio(other, one, data_range=_RANGE))


def ssim(restored: np.ndarray, target: np.ndarray) -> float:
    """At most 1. Each (H, W, 3), uint8 or floats in [0, 1], of at least 7 pixels a side; floats beyond are clipped."""
    one, other = _checked(restored, target)
    if min(one.shape[:2]) < WINDOW:
        raise ValueError(f"{one.shape[0]} x {one.shape[1]} pixels: SSIM takes at least {WINDOW} a side")
    return float(structural_similarity(other, one, data_range=_RANGE, channel_axis=2))


def _checked(restored: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if restored.shape != target.shape:
        raise ValueError(f"{restored.shape} can't be compared with {target.shape}: give pictures of the same size")
    return _unit(restored), _unit(target)


def _unit(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) floats in [0, 1]. Raises ValueError for other shapes and types, and for what is not finite."""
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"{picture.shape} is no picture: give (H, W, 3)")
    if picture.dtype == np.uint8:
        return picture / 255
    if not np.issubdtype(picture.dtype, np.floating):
        raise ValueError(f"{picture.dtype} has no data range: give uint8, or floats in [0, 1]")
    if not np.isfinite(picture).all():
        raise ValueError("the picture has values that are not finite: the network has diverged")
    wide = picture if picture.dtype == np.float64 else picture.astype(np.float32)
    return np.clip(wide, 0, 1)
