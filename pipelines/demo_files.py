"""How the demo's pictures become files, and what spoils them: one small function per kind of file and of damage.

An encoder turns (H, W, 3) uint8 RGB into a file's bytes, a damage turns it into other pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Encode = Callable[[np.ndarray], bytes]
Damage = Callable[[np.random.Generator, np.ndarray], np.ndarray]

# ---------------------------------------------------------------- files


def pillow(pixels: np.ndarray, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, **options)
    return out.getvalue()


def jpeg(quality: int = 92, subsampling: str = "4:2:0", **options: Any) -> Encode:
    return partial(pillow, format="JPEG", quality=quality, subsampling=subsampling, **options)


def turned_jpeg(pixels: np.ndarray) -> bytes:
    """Lies on its side in the file; EXIF orientation 6 says to turn it clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return pillow(np.rot90(pixels), format="JPEG", quality=93, subsampling="4:2:0", exif=exif)


png: Final = partial(pillow, format="PNG", compress_level=2)
webp: Final = partial(pillow, format="WEBP", quality=93, method=2)


def png16(pixels: np.ndarray) -> bytes:
    deep = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR).astype(np.uint16) * 257
    return cv2.imencode(".png", deep, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def palette(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).quantize(256).save(out, format="PNG")
    return out.getvalue()


def cmyk(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(out, format="JPEG", quality=92)
    return out.getvalue()


def gray(pixels: np.ndarray) -> bytes:
    return pillow(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), format="JPEG", quality=92)


def truncated(encode: Encode, pixels: np.ndarray) -> bytes:
    body = encode(pixels)
    return body[: len(body) * 3 // 5]


def corrupt_jpeg(pixels: np.ndarray) -> bytes:
    """Its Huffman tables are zeroed: it begins as a JPEG and can't be decoded."""
    body = bytearray(jpeg()(pixels))
    tables, scan = body.index(b"\xff\xc4"), body.index(b"\xff\xda")
    body[tables + 4 : scan] = bytes(scan - tables - 4)
    return bytes(body)


def corrupt_png(pixels: np.ndarray) -> bytes:
    """A stretch of its deflate stream is overwritten: checksum and contents are wrong."""
    body = bytearray(png(pixels))
    middle = len(body) // 2
    body[middle : middle + 400] = bytes(b ^ 0x5A for b in body[middle : middle + 400])
    return bytes(body)


def animation(kind: str, _: np.ndarray) -> bytes:
    """Three frames of a ball that rolls."""
    frames = [Image.new("RGB", (1100, 1040), (230, 225, 210)) for _ in range(3)]
    for step, frame in enumerate(frames):
        ImageDraw.Draw(frame).ellipse((100 + 250 * step, 400, 400 + 250 * step, 700), fill=(160, 50, 40))
    out = io.BytesIO()
    frames[0].save(out, format=kind, save_all=True, append_images=frames[1:], duration=200)
    return out.getvalue()


def fixed(body: bytes, _: np.ndarray) -> bytes:
    return body


PAGE: Final = (
    b"<!DOCTYPE html><html><head><title>Moved</title></head><body><p>This picture has moved.</p></body></html>"
)


# ---------------------------------------------------------------- damage: (H, W, 3) uint8 to (H', W', 3) uint8


def as_is(_: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    return pixels


def blurred(sigma: float, _: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(pixels, (0, 0), sigma)


def shaken(length: int, _: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Motion blur along the diagonal."""
    return cv2.filter2D(pixels, -1, np.eye(length, dtype=np.float32) / length)


def defocused(radius: int, _: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)).astype(np.float32)
    return cv2.filter2D(pixels, -1, disk / disk.sum())


def noisy(sigma: float, rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(sigma)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def peppered(share: float, rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    hit = rng.uniform(size=pixels.shape[:2])
    return np.where(
        (hit < share)[..., None], np.uint8(0), np.where((hit > 1 - share)[..., None], np.uint8(255), pixels)
    )


def upscaled(factor: int, _: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    small = cv2.resize(pixels, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def crushed(quality: int, _: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    with Image.open(io.BytesIO(jpeg(quality)(pixels))) as image:
        return np.asarray(image)


def resized(width: int, height: int, _: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def watermarked(text: str, _: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Tiled half-transparent text, turned by 30 degrees."""
    side = int(np.hypot(*pixels.shape[:2])) + 40
    layer = Image.new("L", (side, side))
    draw, font = ImageDraw.Draw(layer), ImageFont.load_default(size=60)
    for row, y in enumerate(range(0, side, 190)):
        for x in range(-260 * (row % 2), side, 520):
            draw.text((x, y), text, fill=140, font=font)
    layer = layer.rotate(30, resample=Image.Resampling.BILINEAR)
    cover = np.asarray(layer)[20 : 20 + pixels.shape[0], 20 : 20 + pixels.shape[1], None] / np.float32(255)
    return np.rint(pixels * (1 - cover) + 255 * cover).astype(np.uint8)


def white(_: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    return np.full_like(pixels, 255)


def product(_: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """A round thing cut from the picture, in the middle of a white page, with a soft shadow."""
    height, width = pixels.shape[:2]
    disk = np.zeros((height, width), np.float32)
    cv2.circle(disk, (width // 2, height // 2), min(height, width) // 5, 1.0, -1, cv2.LINE_AA)
    shadow = cv2.GaussianBlur(np.roll(disk, (14, 10), (0, 1)), (0, 0), 14)[..., None]
    page = 252 * (1 - 0.35 * shadow)
    return np.rint(page * (1 - disk[..., None]) + pixels * disk[..., None]).astype(np.uint8)


def gradient(_: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """A backdrop: one smooth ramp of a few grey levels."""
    ramp = np.linspace(196, 222, pixels.shape[0]).astype(np.uint8)
    return np.broadcast_to(ramp[:, None, None], pixels.shape).copy()
