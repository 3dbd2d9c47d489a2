"""Small pictures to look at: the middle square, scaled. Panoramas lose their ends, sheets are even for it."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image

THUMBNAIL: Final = 256  # pixels, a side


def thumbnail(pixels: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    """(side, side, 3) uint8: the middle square of `pixels`, (H, W, 3) uint8, scaled."""
    height, width = pixels.shape[:2]
    square = min(height, width)
    left, top = (width - square) // 2, (height - square) // 2
    image = Image.fromarray(pixels[top : top + square, left : left + square])
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0))


def jpeg(pixels: np.ndarray) -> bytes:
    """A thumbnail's file: about 15 KB at 256 x 256."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=82, optimize=True)
    return buffer.getvalue()
