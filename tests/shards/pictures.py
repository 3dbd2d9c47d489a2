"""Pictures drawn by code, and JPEGs of them in every layout."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image, ImageOps

FACTORS = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "4:1:1": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}
KINDS = [*FACTORS, "grey"]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Colourful, textured, (height, width, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(20, 236, (height // 6, width // 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, kind: str = "4:2:0", quality: int = 85, **options: int) -> bytes:
    """A JPEG by OpenCV: `progressive`, `rst_interval` as its IMWRITE_JPEG_ options."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    for name, value in options.items():
        flags += [getattr(cv2, f"IMWRITE_JPEG_{name.upper()}"), value]
    if kind == "grey":
        return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), flags)[1].tobytes()
    flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, FACTORS[kind]]
    return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), flags)[1].tobytes()


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


def oriented(body: bytes, orientation: int) -> bytes:
    """The file with an EXIF segment that asks for the turn; nothing else in it changes."""
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + orientation.to_bytes(2, "big") + b"\0\0\0\0\0\0"
    return body[:2] + segment(0xE1, b"Exif\0\0" + tiff) + body[2:]


def upright(body: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(body)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
