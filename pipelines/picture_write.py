"""Samples to the bytes of a picture file: PNG, TIFF, WebP and BMP without loss, JPEG at quality 95.

Pillow writes no 16 bits in colour: there OpenCV makes the PNG, which EXIF and profile are put into, and the TIFF is put
together here.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_EXIF: Final = b"Exif\0\0"
_HEADER: Final = 33  # bytes of a PNG's magic and IHDR
_DEFLATE, _DIFFERENCES = 8, 2  # TIFF's compression and predictor
_BLACK_IS_ZERO, _RGB = 1, 2  # photometric
_ALPHA: Final = 2  # unassociated: colours are not multiplied with it
#: Where alpha comes last.
_BGR: Final = {1: [0], 2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}

Encoder = Callable[[np.ndarray, bytes, bytes], bytes]


def png(samples: np.ndarray, exif: bytes, profile: bytes) -> bytes:
    """(H, W, 1 to 4) uint8 or uint16. Grey with alpha becomes RGB with alpha at 16 bits."""
    if samples.dtype == np.uint8:
        return _saved(samples, exif, profile, format="PNG")
    plain = _by_opencv(samples, ".png")
    added = _chunk(b"iCCP", b"ICC\0\0" + zlib.compress(profile)) if profile else b""
    added += _chunk(b"eXIf", exif) if exif else b""
    return plain[:_HEADER] + added + plain[_HEADER:]


def tiff(samples: np.ndarray, exif: bytes, profile: bytes) -> bytes:
    """(H, W, 1 to 4) uint8 or uint16, in one deflated strip; EXIF's directories become the file's own.

    Grey with alpha becomes RGB with alpha at 16 bits: Pillow knows no other.
    """
    if samples.shape[2] == 2 and samples.dtype == np.uint16:
        samples = samples[..., [0, 0, 0, 1]]
    height, width, channels = samples.shape
    wide = np.ascontiguousarray(samples, samples.dtype.newbyteorder("<"))
    differences = wide.copy()
    differences[:, 1:] -= wide[:, :-1]
    data = zlib.compress(differences.tobytes())
    directory = _directory(exif)
    tags: Mapping[int, Any] = {
        TiffImagePlugin.IMAGEWIDTH: width,
        TiffImagePlugin.IMAGELENGTH: height,
        TiffImagePlugin.BITSPERSAMPLE: (8 * samples.itemsize,) * channels,
        TiffImagePlugin.COMPRESSION: _DEFLATE,
        TiffImagePlugin.PHOTOMETRIC_INTERPRETATION: _RGB if channels > 2 else _BLACK_IS_ZERO,
        TiffImagePlugin.STRIPOFFSETS: 0,  # counted by Pillow from the directory's end
        TiffImagePlugin.SAMPLESPERPIXEL: channels,
        TiffImagePlugin.ROWSPERSTRIP: height,
        TiffImagePlugin.STRIPBYTECOUNTS: len(data),
        TiffImagePlugin.PREDICTOR: _DIFFERENCES,
        **({TiffImagePlugin.EXTRASAMPLES: _ALPHA} if channels in (2, 4) else {}),
        **({TiffImagePlugin.ICCPROFILE: profile} if profile else {}),
    }
    for tag, value in tags.items():
        directory[tag] = value
    return b"II*\0" + struct.pack("<I", 8) + directory.tobytes(8) + data


def webp(samples: np.ndarray, exif: bytes, profile: bytes) -> bytes:
    """Without loss, what is wholly transparent included; 8 bits of 16."""
    return _saved(_eight(samples), exif, profile, format="WEBP", lossless=True, exact=True)


def jpeg(samples: np.ndarray, exif: bytes, profile: bytes) -> bytes:
    """Quality 95, colours at full resolution; 8 bits of 16. Raises ValueError where there is alpha."""
    if samples.shape[2] in (2, 4):
        raise ValueError("it has an alpha channel, and JPEG has none: take --format png")
    return _saved(_eight(samples), exif, profile, format="JPEG", quality=95, subsampling=0)


def bmp(samples: np.ndarray, _exif: bytes, _profile: bytes) -> bytes:
    """8 bits of 16; there is no place for EXIF and profile."""
    return _by_opencv(_eight(samples), ".bmp")


#: How a file with this suffix is written.
ENCODERS: Final[Mapping[str, Encoder]] = {
    ".png": png,
    **dict.fromkeys((".tif", ".tiff"), tiff),
    ".webp": webp,
    ".bmp": bmp,
    **dict.fromkeys((".jpg", ".jpeg"), jpeg),
}


def _saved(samples: np.ndarray, exif: bytes, profile: bytes, **options: Any) -> bytes:
    grey_and_alpha = samples.shape[2] == 2 and options["format"] != "PNG"
    wide = samples[..., [0, 0, 0, 1]] if grey_and_alpha else samples
    picture = Image.fromarray(wide[..., 0] if wide.shape[2] == 1 else np.ascontiguousarray(wide))
    if exif:
        options["exif"] = _EXIF + exif
    if profile:
        options["icc_profile"] = profile
    sink = io.BytesIO()
    picture.save(sink, **options)
    return sink.getvalue()


def _by_opencv(samples: np.ndarray, suffix: str) -> bytes:
    whole, data = cv2.imencode(suffix, samples[..., _BGR[samples.shape[2]]])
    assert whole
    return data.tobytes()


def _eight(samples: np.ndarray) -> np.ndarray:
    """uint16 scaled to uint8."""
    if samples.dtype == np.uint8:
        return samples
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _directory(exif: bytes) -> ImageFileDirectory_v2:
    """TIFF's first directory with EXIF's tags, little-endian, those of EXIF's own directories below them."""
    directory = ImageFileDirectory_v2(prefix=b"II")
    held = Image.Exif()
    if exif:
        held.load(_EXIF + exif)
    for tag, value in held.items():
        directory[tag] = held.get_ifd(tag) if tag in (34665, 34853) else value
    return directory
