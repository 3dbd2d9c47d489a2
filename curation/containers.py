"""Picture files from the outside: which format, how large, how many frames, whole or cut. No pixel is decoded."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, PngImagePlugin, WebPImagePlugin

from curation.records import Header, Reason, Refusal, Stage

try:  # pillow-simd, and Pillow before 11.3, have none
    from PIL import AvifImagePlugin
except ImportError:
    AvifImagePlugin = None  # type: ignore[assignment]


class Refused(Exception):
    """Carries a reason out of the nested walkers; `curation.decode` and `curation.glance` make a refusal of it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.refusal = Refusal(reason=reason, stage=Stage.DECODE, detail=detail)


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A container that was walked: its header, and what Pillow needs of it."""

    header: Header
    open: Callable[[io.BytesIO], Image.Image]
    body: bytes


def upright(name: str, width: int, height: int, orientation: int, jpeg_quality: float = 100.0) -> Header:
    if not width or not height:
        raise Refused(Reason.CORRUPT, f"{name}: {width} × {height} pixels")
    if orientation >= 5:
        width, height = height, width
    return Header(format=name, width=width, height=height, orientation=orientation, jpeg_quality=jpeg_quality)


def exif_orientation(exif: bytes) -> int:
    """Tag 0x0112 of EXIF's first directory, 1 to 8; 1 where there is none or it makes no sense."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, value = struct.unpack_from(order + "HH4xH", tiff, entry)
            if tag == 0x0112:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


#: What Pillow's four plugins raise on damaged files (found by fuzzing; EOFError and OSError from the decoders).
PILLOW_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    RuntimeError,
    struct.error,
)

PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"

#: Start of the file -> name, for pictures that are recognised and refused.
_OTHER_PICTURES: Final = (
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), "bmp"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "tiff"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "jpeg2000"),
    (re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"), "jpeg-xl"),
    (re.compile(rb"....ftyp(hei[cxms]|he[v]c|hevx|mif1|msf1)", re.DOTALL), "heif"),
    (re.compile(rb"\0\0[\x01\x02]\0[^\0]"), "ico"),
    (re.compile(rb"P[1-6][\s#]"), "netpbm"),
    (re.compile(rb"8BPS"), "psd"),
    (re.compile(rb"icns"), "icns"),
    (re.compile(rb"qoif"), "qoi"),
    (re.compile(rb"DDS "), "dds"),
    (re.compile(rb"II\xbc"), "jpeg-xr"),
    (re.compile(rb"\x76\x2f\x31\x01"), "openexr"),
    (re.compile(rb"#\?(RADIANCE|RGBE)"), "radiance"),
    (re.compile(rb"\xd7\xcd\xc6\x9a"), "wmf"),
    (re.compile(rb"SIMPLE  ="), "fits"),
)

#: The same for what is no raster picture at all.
_NOT_PICTURES: Final = (
    (re.compile(rb"version https://git-lfs"), "git-lfs pointer"),
    (re.compile(rb"(<\?xml|<!--|<!DOCTYPE svg|<svg).*<svg|<svg[\s>]", re.DOTALL | re.IGNORECASE), "svg"),
    (re.compile(rb"<(!doctype html|html|head|body|script|meta|title|div|p|!--)", re.IGNORECASE), "html"),
    (re.compile(rb"<\?xml|<[a-z]", re.IGNORECASE), "xml"),
    (re.compile(rb"[{\[]"), "json"),
    (re.compile(rb"%PDF"), "pdf"),
    (re.compile(rb"\x1f\x8b"), "gzip"),
    (re.compile(rb"PK\x03\x04"), "zip"),
    (re.compile(rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ", re.DOTALL), "video"),
    (re.compile(rb"[\t\r\n\x20-\x7e]{32}"), "text"),
)


def not_accepted(body: bytes) -> Refused:
    if body.startswith((b"GIF87a", b"GIF89a")):
        if _gif_frames(body) > 1:
            return Refused(Reason.ANIMATED, "gif")
        return Refused(Reason.FORMAT_REFUSED, "gif")
    start = body[:4096]
    for pattern, name in _OTHER_PICTURES:
        if pattern.match(start):
            return Refused(Reason.FORMAT_REFUSED, name)
    for pattern, name in _NOT_PICTURES:
        if pattern.match(start.removeprefix(b"\xef\xbb\xbf").lstrip()):
            return Refused(Reason.NOT_AN_IMAGE, name)
    return Refused(Reason.NOT_AN_IMAGE, f"unknown, starts with {body[:8].hex()}")


def _gif_frames(body: bytes) -> int:
    """How many frames start in the file, at most 2: GIF89a's block structure, no LZW is decoded."""
    frames, at = 0, 13
    try:
        at += _gif_palette_bytes(body[10])
        while frames < 2 and body[at] != 0x3B:
            if body[at] == 0x2C:
                frames += 1
                at += 11 + _gif_palette_bytes(body[at + 9])
            else:
                at += 2
            while size := body[at]:
                at += 1 + size
            at += 1
    except IndexError:  # cut short: judged by what is there
        pass
    return frames


def _gif_palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


#: PNG chunks that make pixels. Text stays out: it can unpack to a thousand times its size.
_PNG_KEPT: Final = frozenset((b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"IDAT", b"IEND"))


def open_png(body: bytes) -> Opened:
    """Walks all chunks: a bad CRC in one that makes pixels is corruption, elsewhere the chunk is left out."""
    kept, orientation, frames = [PNG_MAGIC], 1, 1
    for kind, start, end in _png_chunks(body):
        payload = memoryview(body)[start:end]
        sound = zlib.crc32(payload, zlib.crc32(kind)) == int.from_bytes(body[end : end + 4], "big")
        if kind in _PNG_KEPT and not sound:
            raise Refused(Reason.CORRUPT, f"png: checksum of {kind.decode()}")
        if kind == b"IHDR" and len(kept) > 1:  # Pillow would take its size, unseen by any limit
            raise Refused(Reason.CORRUPT, "png: a header that does not come first")
        if kind in _PNG_KEPT:
            kept.append(bytes(memoryview(body)[start - 8 : end + 4]))
        elif kind == b"acTL" and sound and len(payload) == 8:
            frames = max(frames, int.from_bytes(payload[:4], "big"))
        elif kind == b"eXIf" and sound:
            orientation = exif_orientation(bytes(payload))
    if frames > 1:
        raise Refused(Reason.ANIMATED, f"png: {frames} frames")
    if len(kept) < 3 or kept[1][4:8] != b"IHDR" or len(kept[1]) != 25:
        raise Refused(Reason.CORRUPT, "png: no header")
    width, height = struct.unpack(">II", kept[1][8:16])
    return Opened(
        header=upright("png", width, height, orientation),
        open=PngImagePlugin.PngImageFile,
        body=b"".join(kept),
    )


def glance_png(start: bytes) -> Header | None:
    """The header in a PNG's first bytes, None where its pixels have not begun: what precedes them may say APNG."""
    orientation, size = 1, b""
    for kind, at, end in _png_heads(start):
        if kind == b"IDAT":
            if len(size) != 8:
                raise Refused(Reason.CORRUPT, "png: no header")
            width, height = struct.unpack(">II", size)
            return upright("png", width, height, orientation)
        if end + 4 > len(start):
            return None
        payload = start[at:end]
        if kind == b"IHDR":
            size = payload[:8]
        elif zlib.crc32(payload, zlib.crc32(kind)) != int.from_bytes(start[end : end + 4], "big"):
            continue  # as in `open_png`: a chunk that makes no pixels counts if it is sound
        elif kind == b"acTL" and len(payload) == 8 and int.from_bytes(payload[:4], "big") > 1:
            raise Refused(Reason.ANIMATED, f"png: {int.from_bytes(payload[:4], 'big')} frames")
        elif kind == b"eXIf":
            orientation = exif_orientation(payload)
    return None


def _png_chunks(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk's payload, up to IEND and with it, all of it there."""
    for kind, start, end in _png_heads(body):
        if end + 4 > len(body):
            raise Refused(Reason.TRUNCATED, f"png: ends in chunk {kind!r}")
        yield kind, start, end
        if kind == b"IEND":
            return
    raise Refused(Reason.TRUNCATED, "png: ends between two chunks")


def _png_heads(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk whose length and type are there, however much of its payload is."""
    at = len(PNG_MAGIC)
    while len(kind := body[at + 4 : at + 8]) == 4:
        if not kind.isalpha():
            raise Refused(Reason.CORRUPT, f"png: chunk {kind.hex()} at byte {at}")
        start, end = at + 8, at + 8 + int.from_bytes(body[at : at + 4], "big")
        yield kind, start, end
        at = end + 4


def check_rows(image: Image.Image, body: bytes) -> None:
    """Raises `Refused` if a PNG's compressed data end before its last row, which Pillow leaves black in silence.

    Inflating once more takes half as long as decoding, so it is done only where the last row is all zeros, or where
    rows are interlaced. `body` holds nothing but the kept chunks.
    """
    last_row = np.asarray(image.crop((0, image.height - 1, image.width, image.height)))
    width, height, depth, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", body, 16)
    if last_row.any() and not interlaced:
        return
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    missing = 0
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        missing += rows * (1 + -(-columns * bits // 8)) if columns > 0 else 0
    inflater = zlib.decompressobj()
    for chunk, start, end in _png_chunks(body):
        data = body[start:end] if chunk == b"IDAT" else b""
        while data and missing > 0:
            missing -= len(inflater.decompress(data, 1 << 20))
            data = inflater.unconsumed_tail
    if missing > 0:
        raise Refused(Reason.TRUNCATED, f"png: compressed data end {missing} bytes before the picture does")


#: Left, top, step across and step down of the passes of an interlaced PNG (PNG specification, 8.2).
_ADAM7: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def open_webp(body: bytes) -> Opened:
    """Walks the RIFF chunks (WebP container specification): size and frames are known before libwebp starts."""
    size, orientation, frames = None, 1, 0
    for kind, start, end in _webp_chunks(body):
        payload = body[start : min(end, start + 16)]
        if kind in (b"VP8X", b"VP8L", b"VP8 ") and size is None:
            size = _webp_size(kind, payload)
        frames += kind == b"ANMF"
        if kind == b"EXIF":
            orientation = exif_orientation(body[start:end])
    if frames > 1:
        raise Refused(Reason.ANIMATED, f"webp: {frames} frames")
    if size is None:
        raise Refused(Reason.CORRUPT, "webp: no size in the header")
    return Opened(header=upright("webp", *size, orientation), open=WebPImagePlugin.WebPImageFile, body=body)


def _webp_chunks(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    end = 8 + int.from_bytes(body[4:8], "little")
    if end > len(body) + 1:  # many writers leave out the last padding byte
        raise Refused(Reason.TRUNCATED, f"webp: {len(body)} of {end} bytes")
    at = 12
    while at + 8 <= end:
        length = int.from_bytes(body[at + 4 : at + 8], "little")
        if at + 8 + length > end:
            raise Refused(Reason.CORRUPT, f"webp: chunk {body[at : at + 4]!r} is longer than the file")
        yield body[at : at + 4], at + 8, at + 8 + length
        at += 8 + length + length % 2


def glance_webp(start: bytes) -> Header | None:
    """The header in a WebP's first bytes: its canvas as it lies, since the EXIF that may turn it comes last."""
    size = _webp_size(start[12:16], start[20:36]) if len(start) >= 36 else None
    return upright("webp", *size, 1) if size is not None else None


def _webp_size(kind: bytes, payload: bytes) -> tuple[int, int] | None:
    if kind == b"VP8X" and len(payload) >= 10:
        return int.from_bytes(payload[4:7], "little") + 1, int.from_bytes(payload[7:10], "little") + 1
    if kind == b"VP8L" and payload[:1] == b"\x2f":
        bits = int.from_bytes(payload[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and payload[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", payload[6:10].ljust(4, b"\0"))
        return width & 0x3FFF, height & 0x3FFF
    return None


def is_avif(body: bytes) -> bool:
    """An `ftyp` box with avif or avis among its brands: mif1 alone may be HEIC."""
    brands = body[8 : min(int.from_bytes(body[:4], "big"), 256)]
    return body[4:8] == b"ftyp" and (b"avif" in brands or b"avis" in brands)


def _check_boxes(body: bytes) -> None:
    """ISO 14496-12's outermost boxes: the last must end where the file does, or before."""
    at = 0
    while at + 8 <= len(body):
        size, header = int.from_bytes(body[at : at + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(body[at + 8 : at + 16], "big"), 16
        if size == 0:  # up to the end of the file
            return
        if size < header:
            raise Refused(Reason.CORRUPT, f"avif: box of {size} bytes at byte {at}")
        at += size
    if at > len(body):
        raise Refused(Reason.TRUNCATED, f"avif: {len(body)} of {at} bytes")


def open_avif(body: bytes) -> Opened:
    """libavif parses the boxes when the file is opened and allocates pixels when it is loaded."""
    if AvifImagePlugin is None or not AvifImagePlugin.SUPPORTED:
        raise Refused(Reason.FORMAT_REFUSED, "avif: this Pillow cannot decode it")
    _check_boxes(body)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = AvifImagePlugin.AvifImageFile(io.BytesIO(body))
        except PILLOW_ERRORS as error:
            raise Refused(Reason.CORRUPT, f"avif: {error}") from error
    if image.n_frames > 1:
        raise Refused(Reason.ANIMATED, f"avif: {image.n_frames} frames")
    orientation = exif_orientation(image.info.get("exif", b""))
    return Opened(header=upright("avif", *image.size, orientation), open=AvifImagePlugin.AvifImageFile, body=body)
