"""A picture file as who restores it sees it: pixels with all their bits, and what is kept beside them.

What comes from outside is judged by `curation.decode` first: damage that a decoder would fill with grey, bombs, films.
Pixels stay in the colours that the embedded profile says, and as they are stored: the EXIF orientation goes along and
turns them on display. CMYK becomes sRGB and upright, and TIFF's pixels upright, as the decoders have them; the tag is
then left out. OpenCV reads 16 bits (Pillow makes 8 of them in colour), Pillow the rest.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import ExifTags, Image

from curation.containers import PILLOW_ERRORS, PNG_MAGIC
from curation.decode import DEFAULT_MAX_PIXELS, decode
from curation.records import Picture, Refusal

_EXIF: Final = b"Exif\0\0"  # in front of the directory, in JPEG
_OWN: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")  # TIFF and BMP, which curation refuses
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP")
#: Of a TIFF's directory, what is about the picture and not about how it lies in the file.
_ABOUT: Final = frozenset(
    {
        *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Orientation),
        *(ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit, ExifTags.Base.Software),
        *(ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.HostComputer, ExifTags.Base.Copyright),
        *(ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo),
    }
)


class Unreadable(ValueError):
    """Why a file is no picture that can be restored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFile:
    """What a picture's file holds."""

    #: (H, W, 3) uint8 or uint16; three times the same where `grey`.
    pixels: np.ndarray
    grey: bool
    #: (H, W) of the same type; None where every pixel is opaque by its form.
    alpha: np.ndarray | None
    #: From "II*" or "MM" on; empty: none.
    exif: bytes
    #: ICC; empty: none.
    profile: bytes


def read(path: Path, max_pixels: int = DEFAULT_MAX_PIXELS) -> PictureFile:
    """Raises Unreadable for what is no whole, still picture of JPEG, PNG, WebP, AVIF, TIFF or BMP with 8 or 16 bits."""
    try:
        return opened(path.read_bytes(), max_pixels)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error


def opened(body: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> PictureFile:
    """The picture in these bytes. Raises Unreadable."""
    upright = None if body.startswith(_OWN) else decode(body, max_pixels)
    if isinstance(upright, Refusal):
        reason = upright.reason.value.replace("_", " ")
        raise Unreadable(f"{reason}: {upright.detail}" if upright.detail else reason)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tags that make no sense
            return _decoded(body, upright, max_pixels)
    except (MemoryError, Image.DecompressionBombError) as error:
        raise Unreadable(str(error) or "too large for the memory") from error
    except (*PILLOW_ERRORS, cv2.error) as error:
        raise error if isinstance(error, Unreadable) else Unreadable(str(error) or type(error).__name__) from error


def _decoded(body: bytes, upright: Picture | None, max_pixels: int) -> PictureFile:
    """`upright`: what `curation.decode` made of the same bytes."""
    with Image.open(io.BytesIO(body), formats=_FORMATS) as image:
        _check(image, max_pixels)
        image.load()
        if image.mode == "CMYK" and upright is not None:
            return _split(upright.pixels, exif=_exif(image, upright=True), profile=b"")
        samples = _sixteen(body) if _bits(image, body) == 16 else _eight(image)
        return _split(samples, exif=_exif(image), profile=image.info.get("icc_profile") or b"")


def joined(picture: PictureFile, restored: np.ndarray) -> np.ndarray:
    """(H, W, 1 to 4): the restored pixels in the form that the picture had, its alpha beside them."""
    colours = restored
    if picture.grey:  # the network may colour it
        colours = np.rint(restored.mean(axis=2, keepdims=True, dtype=np.float32)).astype(restored.dtype)
    return colours if picture.alpha is None else np.dstack([colours, picture.alpha])


def _check(image: Image.Image, max_pixels: int) -> None:
    if (pixels := image.width * image.height) > max_pixels:
        raise Unreadable(f"{pixels} pixels, at most {max_pixels} allowed")
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        raise Unreadable("several pages: give them one by one")


def _bits(image: Image.Image, body: bytes) -> int:
    """Of a sample. Raises Unreadable for other numbers than 8 and 16 (or fewer, which become 8)."""
    if body.startswith(PNG_MAGIC):
        return max(8, body[24])
    if image.format != "TIFF":
        return 8
    tags = image.tag_v2  # type: ignore[attr-defined]  # a TIFF has them
    bits, form = tags.get(ExifTags.Base.BitsPerSample, (1,)), tags.get(ExifTags.Base.SampleFormat, (1,))
    if max(bits) not in (1, 2, 4, 8, 16) or len(set(bits)) > 1 or set(form) != {1}:
        raise Unreadable(f"samples of {'/'.join(map(str, bits))} bits, form {form[0]}: 8 or 16, unsigned, can be read")
    return max(8, bits[0])


def _sixteen(body: bytes) -> np.ndarray:
    """(H, W, channels) uint16 in the order grey or RGB, then alpha."""
    found = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16:
        raise Unreadable("its 16-bit pixels can't be decoded")
    samples = found.reshape(*found.shape[:2], -1)
    if samples.shape[2] == 1:
        return samples
    grey_and_alpha = body.startswith(PNG_MAGIC) and body[25] == 4
    return samples[..., [0, 3]] if grey_and_alpha else samples[..., [2, 1, 0, 3][: samples.shape[2]]]


def _eight(image: Image.Image) -> np.ndarray:
    """(H, W, channels) uint8 in the order grey or RGB, then alpha. Raises Unreadable for other colours."""
    clear = "transparency" in image.info
    mode = {"1": "L", "RGBX": "RGB", "YCbCr": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA"}.get(image.mode)
    mode = mode or {
        "P": "RGBA" if clear else "RGB",
        "L": "LA" if clear else "L",
        "RGB": "RGBA" if clear else "RGB",
    }.get(image.mode, image.mode)
    if mode not in ("L", "LA", "RGB", "RGBA"):
        raise Unreadable(f"colours of the kind {image.mode}: save it as RGB")
    values = np.asarray(image if mode == image.mode else image.convert(mode))
    return values.reshape(*values.shape[:2], -1)


def _split(samples: np.ndarray, *, exif: bytes, profile: bytes) -> PictureFile:
    """Of (H, W, 1 to 4)."""
    channels = samples.shape[2]
    grey = channels < 3
    colours = np.repeat(samples[..., :1], 3, axis=2) if grey else samples[..., :3]
    alpha = np.ascontiguousarray(samples[..., -1]) if channels in (2, 4) else None
    return PictureFile(pixels=np.ascontiguousarray(colours), grey=grey, alpha=alpha, exif=exif, profile=profile)


def _exif(image: Image.Image, *, upright: bool = False) -> bytes:
    """As it came; of a TIFF, and where the pixels were turned, made anew."""
    if image.format != "TIFF" and not upright:
        raw = image.info.get("exif") or b""
        return raw.removeprefix(_EXIF) if isinstance(raw, bytes) else b""
    exif = image.getexif()
    dropped = (set(exif) - _ABOUT) | ({int(ExifTags.Base.Orientation)} if upright else set())
    for tag in dropped:
        exif.pop(tag, None)
    return exif.tobytes().removeprefix(_EXIF) if len(exif) else b""
