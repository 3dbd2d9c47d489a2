"""Rain and haze drawn over clean pictures, for those who have no pairs of them to train on.

Rain: streaks that add to the picture, O = B + S (Yang et al., Deep Joint Rain Detection and Removal, CVPR 2017), of
one direction, with a length and a density of their own. Haze: I = J t + A (1 - t), t = exp(-beta d) (Koschmieder), with
A and beta as RESIDE draws them (Li et al., arXiv 1712.04143: A in 0.7 to 1.0, beta in 0.6 to 1.8); no depth is known
here, so d is made up: far above, near below, and uneven.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

_TOP = 255.0


def rainy(clean: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 RGB, with rain over it."""
    height, width = clean.shape[:2]
    density, length = draw.uniform(0.004, 0.03), int(draw.integers(9, 26))
    drops = (draw.random((height, width), np.float32) < density).astype(np.float32)
    streaks = cv2.filter2D(drops, -1, _streak(length, draw.uniform(-35, 35)), borderType=cv2.BORDER_REFLECT)
    bright = cv2.GaussianBlur(streaks, (3, 3), 0.6) * draw.uniform(120, 230)
    return np.clip(clean + bright[..., None], 0, _TOP).astype(np.uint8)


def hazy(clean: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 RGB, with haze over it."""
    height, width = clean.shape[:2]
    slope = np.linspace(1, draw.uniform(0, 0.5), height, dtype=np.float32)[:, None]
    coarse = draw.random((4, 4), np.float32)
    uneven = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    depth = 0.7 * slope + 0.3 * uneven
    passed = np.exp(-draw.uniform(0.6, 1.8) * depth)[..., None]
    light = _TOP * draw.uniform(0.7, 1.0)
    return np.clip(clean * passed + light * (1 - passed), 0, _TOP).astype(np.uint8)


def _streak(length: int, degrees: float) -> np.ndarray:
    """(length, length) float32: a line through the middle, so many degrees from the upright, its brightest pixel 1."""
    kernel = np.zeros((length, length), np.float32)
    middle, reach = (length - 1) / 2, (length - 1) / 2
    aside, down = reach * math.sin(math.radians(degrees)), reach * math.cos(math.radians(degrees))
    begin, end = ((round(middle + sign * aside), round(middle + sign * down)) for sign in (-1, 1))
    cv2.line(kernel, begin, end, 1.0, 1, cv2.LINE_AA)
    return kernel / kernel.max()
