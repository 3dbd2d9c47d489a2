"""From a stranger's bytes to an upright sRGB picture, or to the reason why there is none.

libjpeg only warns about damaged data and fills the gap with grey, and Pillow does not pass the warning on, so a
decoder's success proves little. Here the container is walked first: PNG by chunk and CRC, WebP by RIFF chunk, AVIF
by box, JPEG marker by marker and then code by code through its Huffman-coded scans. That walk costs six to nine tenths
of Pillow's own JPEG decoding (56 photographs, machine shared with others), a third of the whole call. It finds every
cut, also one that somebody closed with an end marker, 88 % of 64 overwritten bytes (libjpeg's warnings: 83 %), 97 %
of 4 KB holes, 26 % of single flipped bits: JPEG has no checksum, and most of those still make a valid file. So does
damage inside a WebP of full length: 7 flipped bits in 12 went unseen.

Pillow is then handed only the parts that make pixels: no text, EXIF or thumbnails reach its parsers, and never
a format outside of the four. Colours: an embedded profile is honoured when it is sound and fits the pixels, and
ignored otherwise, as browsers do; CMYK without one is converted by Pillow's plain formula; PNG's gAMA and cHRM
are not applied; 16 bits become 8 by scaling (Pillow keeps the high byte of RGB: at most one level apart).
"""

from __future__ import annotations

import io
import warnings
from typing import Final

import numpy as np
from PIL import Image, ImageCms, ImageFile

from curation.containers import (
    PILLOW_ERRORS,
    PNG_MAGIC,
    Opened,
    Refused,
    check_rows,
    is_avif,
    not_accepted,
    open_avif,
    open_png,
    open_webp,
)
from curation.jpeg import check_scans, open_jpeg
from curation.records import Header, Picture, Reason, Refusal

#: 134 million pixels: above the largest phone cameras' 108, and about 1 GB while a picture is converted.
DEFAULT_MAX_PIXELS: Final = 1 << 27


def header(body: bytes) -> Header | Refusal:
    """Format, upright size and orientation of a picture, from its container alone: no pixel is decoded."""
    try:
        return _opened(body).header
    except Refused as refused:
        return refused.refusal


def decode(body: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture | Refusal:
    """The picture in `body`: (H, W, 3) uint8 sRGB, upright, C-contiguous, alpha composited on white.

    Any bytes give a `Picture` or a `Refusal`, never an exception. `max_pixels` is compared with the header's
    width × height before anything of that size is allocated.
    """
    try:
        opened = _opened(body)
        if (pixels := opened.header.width * opened.header.height) > max_pixels:
            raise Refused(Reason.TOO_MANY_PIXELS, f"{pixels} pixels, at most {max_pixels} allowed")
        if opened.header.format == "jpeg":
            check_scans(body)
        image = _loaded(opened)
    except Refused as refused:
        return refused.refusal
    image = _to_srgb(image)
    if opened.header.orientation in _TURNS:
        image = image.transpose(_TURNS[opened.header.orientation])
    return Picture(
        pixels=np.array(image, dtype=np.uint8, order="C"),
        format=opened.header.format,
        jpeg_quality=opened.header.jpeg_quality,
    )


def _opened(body: bytes) -> Opened:
    if not body:
        raise Refused(Reason.BODY_EMPTY, "no bytes")
    if body.startswith(b"\xff\xd8\xff"):
        return open_jpeg(body)
    if body.startswith(PNG_MAGIC):
        return open_png(body)
    if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        return open_webp(body)
    if is_avif(body):
        return open_avif(body)
    raise not_accepted(body)


def _loaded(opened: Opened) -> Image.Image:
    """The pixels as Pillow decodes them. Other packages switch on LOAD_TRUNCATED_IMAGES for the whole process."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = opened.open(io.BytesIO(opened.body))
            image.load()
            if opened.header.format == "png":
                check_rows(image, opened.body)
        except (MemoryError, Image.DecompressionBombError) as error:
            raise Refused(Reason.TOO_MANY_PIXELS, str(error) or "out of memory") from error
        except PILLOW_ERRORS as error:
            reason = Reason.TRUNCATED if "truncated" in str(error) else Reason.CORRUPT
            raise Refused(reason, f"{opened.header.format}: {error}") from error
    return image


_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_SRGB: Final = ImageCms.createProfile("sRGB")
_PROFILE_SPACES: Final = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}


def _to_srgb(image: Image.Image) -> Image.Image:
    """Any mode that the four formats decode to, as sRGB "RGB" on white."""
    profile = image.info.get("icc_profile")
    if image.mode in ("I;16", "I"):
        image = _sixteen_to_eight(image)
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    if image.mode not in _PROFILE_SPACES:
        image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
    image = _profiled(image, profile) if profile else image.convert("RGB")
    if alpha is not None:
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=alpha)
        return white
    return image


def _sixteen_to_eight(image: Image.Image) -> Image.Image:
    """16-bit grey to "L", or "LA" where one grey value stands for transparent (PNG's tRNS)."""
    values = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if (clear := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _profiled(image: Image.Image, profile: bytes) -> Image.Image:
    """Applies an ICC profile; one that is broken or made for other channels is ignored.

    Most profiles are sRGB by another name: where a grid of colours comes out within one level, the picture stays
    as it is, which saves 20 ns a pixel.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _PROFILE_SPACES[image.mode]:
            return image.convert("RGB")
        transform = ImageCms.buildTransform(source, _SRGB, image.mode, "RGB")
        if image.mode == "RGB" and np.abs(_GRID - np.asarray(transform.apply(Image.fromarray(_GRID)), int)).max() <= 1:
            return image
        return transform.apply(image)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image.convert("RGB")


#: (729, 1, 3) uint8: nine levels of each channel.
_GRID: Final = np.stack(np.meshgrid(*[np.linspace(0, 255, 9)] * 3), axis=-1).reshape(-1, 1, 3).astype(np.uint8)
