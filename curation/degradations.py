"""What the paper wants out of its data, made from pictures that are fine: the bad side of a calibration.

A copy has its picture's size or a few pixels less, so that a score that depends on the size compares. An up-scaled
copy therefore shows the middle of its picture, enlarged. Copies are not compressed again, but for `jpeg`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from PIL import Image

_TEXT: Final = "Sample Photo 2026"
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, kw_only=True, slots=True)
class Degradation:
    """A kind, of `KINDS`, and how much of it."""

    kind: str
    amount: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"'{self.kind}' is no degradation: give one of {', '.join(KINDS)}")

    @property
    def name(self) -> str:
        """Such as `jpeg 20`."""
        return f"{self.kind} {self.amount:g}"


def degrade(pixels: np.ndarray, kind: str, amount: float, *, seed: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB, C-contiguous, worse by `amount` of a kind of `KINDS`; `seed` is the noise's."""
    return np.ascontiguousarray(KINDS[kind](pixels, amount, seed))


def _blur(pixels: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    """Gaussian, `deviation` in pixels."""
    return cv2.GaussianBlur(pixels, (0, 0), deviation)


def _noise(pixels: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    """White and Gaussian, `deviation` in grey levels, each channel by itself."""
    noise = np.random.default_rng(seed).standard_normal(pixels.shape, dtype=np.float32) * np.float32(deviation)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def _jpeg(pixels: np.ndarray, quality: float, seed: int) -> np.ndarray:
    """Through libjpeg, at its quality 1 to 95."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(quality))
    return np.array(Image.open(buffer))


def _bicubic(pixels: np.ndarray, factor: float, seed: int) -> np.ndarray:
    return _enlarged(pixels, factor, Image.Resampling.BICUBIC)


def _lanczos(pixels: np.ndarray, factor: float, seed: int) -> np.ndarray:
    return _enlarged(pixels, factor, Image.Resampling.LANCZOS)


def _enlarged(pixels: np.ndarray, factor: float, filter: Image.Resampling) -> np.ndarray:
    """The middle of the picture, 1 / `factor` of each side, brought back to the size of the whole."""
    height, width = pixels.shape[:2]
    small_h, small_w = (math.ceil(side / factor) for side in (height, width))
    top, left = (height - small_h) // 2, (width - small_w) // 2
    middle = Image.fromarray(pixels[top : top + small_h, left : left + small_w])
    large = middle.resize((round(small_w * factor), round(small_h * factor)), filter)
    return np.array(large)[:height, :width]


def _corner_mark(pixels: np.ndarray, opacity: float, seed: int) -> np.ndarray:
    """White text over a third of the width, at the bottom right."""
    height, width = pixels.shape[:2]
    size, thickness = _text_size(width / 3)
    (text_w, text_h), _ = cv2.getTextSize(_TEXT, _FONT, size, thickness)
    mask = np.zeros((height, width), np.uint8)
    at = (width - text_w - text_h, height - text_h)
    cv2.putText(mask, _TEXT, at, _FONT, size, 255, thickness, cv2.LINE_AA)
    return _over(pixels, mask, opacity)


def _tiled_mark(pixels: np.ndarray, opacity: float, seed: int) -> np.ndarray:
    """White text again and again, in slanting rows, a fifth of the width each, as agencies mark their previews."""
    height, width = pixels.shape[:2]
    size, thickness = _text_size(width / 5)
    (text_w, text_h), _ = cv2.getTextSize(_TEXT, _FONT, size, thickness)
    reach = height + width
    flat = np.zeros((reach, reach), np.uint8)
    for row, y in enumerate(range(0, reach, 6 * text_h)):
        for x in range(-(row % 2) * text_w // 2, reach, text_w + 2 * text_h):
            cv2.putText(flat, _TEXT, (x, y), _FONT, size, 255, thickness, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((reach / 2, reach / 2), 30, 1.0)
    slanting = cv2.warpAffine(flat, turn, (reach, reach))
    top, left = (reach - height) // 2, (reach - width) // 2
    return _over(pixels, slanting[top : top + height, left : left + width], opacity)


def _text_size(width: float) -> tuple[float, int]:
    """OpenCV's scale and stroke, in pixels, for the text to be about `width` pixels wide."""
    (unit, _), _ = cv2.getTextSize(_TEXT, _FONT, 1.0, 1)
    scale = width / unit
    return scale, max(1, round(2 * scale))


def _over(pixels: np.ndarray, mask: np.ndarray, opacity: float) -> np.ndarray:
    """White over the picture where `mask`, (H, W) uint8, says so."""
    share = mask[..., None].astype(np.float32) * np.float32(opacity / 255)
    return np.rint(pixels + (255 - pixels.astype(np.float32)) * share).astype(np.uint8)


def _product(pixels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """An ellipse of the picture on pure white, which takes `share` of the area."""
    height, width = pixels.shape[:2]
    half = math.sqrt((1 - share) / math.pi)  # of a side: an ellipse has the area pi a b
    mask = np.full((height, width), 255, np.uint8)
    axes = (round(half * width), round(half * height))
    cv2.ellipse(mask, (width // 2, height // 2), axes, 0, 0, 360, 0, -1, cv2.LINE_AA)
    return _over(pixels, mask, 1.0)


def _constant(pixels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The lower `share` of the picture in its mean colour."""
    top = round((1 - share) * pixels.shape[0])
    painted = pixels.copy()
    painted[top:] = pixels.mean(axis=(0, 1)).round()
    return painted


def _gradient(pixels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The upper `share` of the picture as an evening sky without a cloud."""
    rows = round(share * pixels.shape[0])
    painted = pixels.copy()
    blend = np.linspace(0, 1, rows)[:, None, None]
    painted[:rows] = np.rint((1 - blend) * np.array([40, 80, 150]) + blend * np.array([220, 180, 140]))
    return painted


KINDS: Final[dict[str, Callable[[np.ndarray, float, int], np.ndarray]]] = {
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
    "bicubic": _bicubic,
    "lanczos": _lanczos,
    "corner-mark": _corner_mark,
    "tiled-mark": _tiled_mark,
    "product": _product,
    "constant": _constant,
    "gradient": _gradient,
}

#: What `dynet-filter calibrate --degrade` makes of each good picture.
FOR_CALIBRATION: Final = tuple(
    Degradation(kind=kind, amount=amount)
    for kind, amounts in (
        ("blur", (1.0, 2.0, 4.0)),
        ("noise", (10.0, 25.0)),
        ("jpeg", (10.0, 20.0, 40.0)),
        ("bicubic", (2.0, 3.0, 4.0)),
        ("lanczos", (2.0,)),
        ("corner-mark", (0.6,)),
        ("tiled-mark", (0.35,)),
        ("product", (0.3, 0.6)),
        ("constant", (0.5,)),
        ("gradient", (0.5,)),
    )
    for amount in amounts
)
