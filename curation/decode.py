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
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
from PIL import Image, ImageCms, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from curation.records import Picture, Reason, Refusal, Stage

try:  # pillow-simd, and Pillow before 11.3, have none
    from PIL import AvifImagePlugin
except ImportError:
    AvifImagePlugin = None  # type: ignore[assignment]

#: 134 million pixels: above the largest phone cameras' 108, and about 1 GB while a picture is converted.
DEFAULT_MAX_PIXELS: Final = 1 << 27


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a picture's header promises: format, size in pixels once upright, EXIF orientation (1 to 8)."""

    format: str  # "jpeg", "png", "webp", "avif"
    width: int
    height: int
    orientation: int


class _Refused(Exception):
    """Carries a reason out of the nested walkers; never leaves this module."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.refusal = Refusal(reason=reason, stage=Stage.DECODE, detail=detail)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Opened:
    """A container that was walked: its header, and what Pillow needs of it."""

    header: Header
    open: Callable[[io.BytesIO], Image.Image]
    body: bytes


def header(body: bytes) -> Header | Refusal:
    """Format, upright size and orientation of a picture, from its container alone: no pixel is decoded."""
    try:
        return _opened(body).header
    except _Refused as refused:
        return refused.refusal


def decode(body: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture | Refusal:
    """The picture in `body`: (H, W, 3) uint8 sRGB, upright, C-contiguous, alpha composited on white.

    Any bytes give a `Picture` or a `Refusal`, never an exception. `max_pixels` is compared with the header's
    width × height before anything of that size is allocated.
    """
    try:
        opened = _opened(body)
        if (pixels := opened.header.width * opened.header.height) > max_pixels:
            raise _Refused(Reason.TOO_MANY_PIXELS, f"{pixels} pixels, at most {max_pixels} allowed")
        if opened.header.format == "jpeg":
            _check_scans(body)
        image = _loaded(opened)
    except _Refused as refused:
        return refused.refusal
    image = _to_srgb(image)
    if opened.header.orientation in _TURNS:
        image = image.transpose(_TURNS[opened.header.orientation])
    return Picture(pixels=np.array(image, dtype=np.uint8, order="C"), format=opened.header.format)


def _opened(body: bytes) -> _Opened:
    if not body:
        raise _Refused(Reason.BODY_EMPTY, "no bytes")
    if body.startswith(b"\xff\xd8\xff"):
        return _open_jpeg(body)
    if body.startswith(_PNG_MAGIC):
        return _open_png(body)
    if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        return _open_webp(body)
    if _is_avif(body):
        return _open_avif(body)
    raise _not_accepted(body)


def _loaded(opened: _Opened) -> Image.Image:
    """The pixels as Pillow decodes them. Other packages switch on LOAD_TRUNCATED_IMAGES for the whole process."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = opened.open(io.BytesIO(opened.body))
            image.load()
            if opened.header.format == "png":
                _check_rows(image, opened.body)
        except (MemoryError, Image.DecompressionBombError) as error:
            raise _Refused(Reason.TOO_MANY_PIXELS, str(error) or "out of memory") from error
        except _PILLOW_ERRORS as error:
            reason = Reason.TRUNCATED if "truncated" in str(error) else Reason.CORRUPT
            raise _Refused(reason, f"{opened.header.format}: {error}") from error
    return image


#: What Pillow's four plugins raise on damaged files (found by fuzzing; EOFError and OSError from the decoders).
_PILLOW_ERRORS: Final = (
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

# --- formats that are not decoded ------------------------------------------------------------------------------

_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"

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


def _not_accepted(body: bytes) -> _Refused:
    if body.startswith((b"GIF87a", b"GIF89a")):
        if _gif_frames(body) > 1:
            return _Refused(Reason.ANIMATED, "gif")
        return _Refused(Reason.FORMAT_REFUSED, "gif")
    start = body[:4096]
    for pattern, name in _OTHER_PICTURES:
        if pattern.match(start):
            return _Refused(Reason.FORMAT_REFUSED, name)
    for pattern, name in _NOT_PICTURES:
        if pattern.match(start.removeprefix(b"\xef\xbb\xbf").lstrip()):
            return _Refused(Reason.NOT_AN_IMAGE, name)
    return _Refused(Reason.NOT_AN_IMAGE, f"unknown, starts with {body[:8].hex()}")


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


# --- PNG, WebP, AVIF -------------------------------------------------------------------------------------------

#: PNG chunks that make pixels. Text stays out: it can unpack to a thousand times its size.
_PNG_KEPT: Final = frozenset((b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"IDAT", b"IEND"))


def _open_png(body: bytes) -> _Opened:
    """Walks all chunks: a bad CRC in one that makes pixels is corruption, elsewhere the chunk is left out."""
    kept, orientation, frames = [_PNG_MAGIC], 1, 1
    for kind, start, end in _png_chunks(body):
        payload = memoryview(body)[start:end]
        sound = zlib.crc32(payload, zlib.crc32(kind)) == int.from_bytes(body[end : end + 4], "big")
        if kind in _PNG_KEPT and not sound:
            raise _Refused(Reason.CORRUPT, f"png: checksum of {kind.decode()}")
        if kind in _PNG_KEPT:
            kept.append(bytes(memoryview(body)[start - 8 : end + 4]))
        elif kind == b"acTL" and sound and len(payload) == 8:
            frames = int.from_bytes(payload[:4], "big")
        elif kind == b"eXIf" and sound:
            orientation = _orientation(bytes(payload))
    if frames > 1:
        raise _Refused(Reason.ANIMATED, f"png: {frames} frames")
    if len(kept) < 3 or kept[1][4:8] != b"IHDR" or len(kept[1]) != 25:
        raise _Refused(Reason.CORRUPT, "png: no header")
    width, height = struct.unpack(">II", kept[1][8:16])
    return _Opened(
        header=_upright("png", width, height, orientation),
        open=PngImagePlugin.PngImageFile,
        body=b"".join(kept),
    )


def _png_chunks(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk's payload, up to IEND and with it."""
    at = len(_PNG_MAGIC)
    while True:
        length, kind = int.from_bytes(body[at : at + 4], "big"), body[at + 4 : at + 8]
        if len(kind) == 4 and not kind.isalpha():
            raise _Refused(Reason.CORRUPT, f"png: chunk {kind.hex()} at byte {at}")
        if at + 12 + length > len(body):
            raise _Refused(Reason.TRUNCATED, f"png: ends in chunk {kind!r}")
        yield kind, at + 8, at + 8 + length
        if kind == b"IEND":
            return
        at += 12 + length


def _check_rows(image: Image.Image, body: bytes) -> None:
    """Raises `_Refused` if a PNG's compressed data end before its last row, which Pillow leaves black in silence.

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
        raise _Refused(Reason.TRUNCATED, f"png: compressed data end {missing} bytes before the picture does")


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


def _open_webp(body: bytes) -> _Opened:
    """Walks the RIFF chunks (WebP container specification): size and frames are known before libwebp starts."""
    size, orientation, frames = None, 1, 0
    for kind, start, end in _webp_chunks(body):
        payload = body[start : min(end, start + 16)]
        if kind in (b"VP8X", b"VP8L", b"VP8 ") and size is None:
            size = _webp_size(kind, payload)
        frames += kind == b"ANMF"
        if kind == b"EXIF":
            orientation = _orientation(body[start:end])
    if frames > 1:
        raise _Refused(Reason.ANIMATED, f"webp: {frames} frames")
    if size is None:
        raise _Refused(Reason.CORRUPT, "webp: no size in the header")
    return _Opened(header=_upright("webp", *size, orientation), open=WebPImagePlugin.WebPImageFile, body=body)


def _webp_chunks(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    end = 8 + int.from_bytes(body[4:8], "little")
    if end > len(body) + 1:  # many writers leave out the last padding byte
        raise _Refused(Reason.TRUNCATED, f"webp: {len(body)} of {end} bytes")
    at = 12
    while at + 8 <= end:
        length = int.from_bytes(body[at + 4 : at + 8], "little")
        if at + 8 + length > end:
            raise _Refused(Reason.CORRUPT, f"webp: chunk {body[at : at + 4]!r} is longer than the file")
        yield body[at : at + 4], at + 8, at + 8 + length
        at += 8 + length + length % 2


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


def _is_avif(body: bytes) -> bool:
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
            raise _Refused(Reason.CORRUPT, f"avif: box of {size} bytes at byte {at}")
        at += size
    if at > len(body):
        raise _Refused(Reason.TRUNCATED, f"avif: {len(body)} of {at} bytes")


def _open_avif(body: bytes) -> _Opened:
    """libavif parses the boxes when the file is opened and allocates pixels when it is loaded."""
    if AvifImagePlugin is None or not AvifImagePlugin.SUPPORTED:
        raise _Refused(Reason.FORMAT_REFUSED, "avif: this Pillow cannot decode it")
    _check_boxes(body)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = AvifImagePlugin.AvifImageFile(io.BytesIO(body))
        except _PILLOW_ERRORS as error:
            raise _Refused(Reason.CORRUPT, f"avif: {error}") from error
    if image.n_frames > 1:
        raise _Refused(Reason.ANIMATED, f"avif: {image.n_frames} frames")
    orientation = _orientation(image.info.get("exif", b""))
    return _Opened(header=_upright("avif", *image.size, orientation), open=AvifImagePlugin.AvifImageFile, body=body)


# --- JPEG ------------------------------------------------------------------------------------------------------

_NO_PAYLOAD: Final = frozenset((0x00, 0x01, 0xD8, *range(0xD0, 0xD8)))
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP1, _APP2, _EOI, _SOS, _DHT, _DRI = 0xE1, 0xE2, 0xD9, 0xDA, 0xC4, 0xDD
#: Segments Pillow needs: tables, frame, scan, JFIF, Adobe's transform; of APP2 the colour profile alone.
_JPEG_KEPT: Final = frozenset((*_FRAMES, _DHT, 0xDB, _DRI, 0xE0, 0xEE))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Frame:
    """A JPEG frame header: size in pixels, per component (id, horizontal, vertical sampling factor)."""

    progressive: bool
    width: int
    height: int
    components: tuple[tuple[int, int, int], ...]

    def blocks(self, index: int) -> tuple[int, int]:
        """Rows and columns of 8 × 8 blocks of a component coded alone (T.81, A.2.2)."""
        _, h, v = self.components[index]
        h_max, v_max = max(c[1] for c in self.components), max(c[2] for c in self.components)
        return -(-self.height * v // (8 * v_max)), -(-self.width * h // (8 * h_max))

    def mcus(self) -> int:
        """Units of an interleaved scan (T.81, A.2.3)."""
        h_max, v_max = max(c[1] for c in self.components), max(c[2] for c in self.components)
        return -(-self.height // (8 * v_max)) * -(-self.width // (8 * h_max))


def _segment(body: bytes, at: int) -> tuple[int, int, int]:
    """(marker, start, end) of the next segment's payload, from byte `at`; junk between segments is skipped."""
    while True:
        at = body.find(b"\xff", at)
        while at >= 0 and body[at : at + 1] == b"\xff":
            at += 1
        if at < 0 or at >= len(body):
            raise _Refused(Reason.TRUNCATED, "jpeg: no end marker")
        marker = body[at]
        at += 1
        if marker == _EOI:
            return marker, at, at
        if marker not in _NO_PAYLOAD:
            end = at + int.from_bytes(body[at : at + 2], "big")
            if end > len(body) or at + 2 > len(body):
                raise _Refused(Reason.TRUNCATED, f"jpeg: ends in segment {marker:02x}")
            if end < at + 2:
                raise _Refused(Reason.CORRUPT, f"jpeg: segment {marker:02x} of {end - at} bytes")
            return marker, at + 2, end


def _frame(marker: int, payload: bytes) -> _Frame:
    if marker not in (0xC0, 0xC1, 0xC2):
        raise _Refused(Reason.FORMAT_REFUSED, f"jpeg: coding process SOF{marker - 0xC0}")
    if len(payload) < 6 or len(payload) != 6 + 3 * payload[5]:
        raise _Refused(Reason.CORRUPT, "jpeg: frame header")
    if payload[0] != 8 or payload[5] not in (1, 3, 4):
        raise _Refused(Reason.FORMAT_REFUSED, f"jpeg: {payload[5]} components of {payload[0]} bits")
    parts = tuple((payload[i], payload[i + 1] >> 4, payload[i + 1] & 15) for i in range(6, len(payload), 3))
    if not all(1 <= h <= 4 and 1 <= v <= 4 for _, h, v in parts):
        raise _Refused(Reason.CORRUPT, "jpeg: sampling factors")
    height, width = struct.unpack_from(">HH", payload, 1)
    return _Frame(progressive=marker == 0xC2, width=width, height=height, components=parts)


def _open_jpeg(body: bytes) -> _Opened:
    """Walks up to the first scan. What follows the end marker (a gain map, a maker's trailer) is not looked at."""
    kept, at, orientation, frame = [b"\xff\xd8"], 2, 1, None
    while True:
        marker, start, at = _segment(body, at)
        if marker in (_SOS, _EOI):
            break
        if marker in _FRAMES:
            frame = _frame(marker, body[start:at])
        if marker == _APP1 and orientation == 1 and body.startswith(b"Exif\0", start):
            orientation = _orientation(body[start:at])
        if marker in _JPEG_KEPT or (marker == _APP2 and body.startswith(b"ICC_PROFILE\0", start)):
            kept.append(body[start - 4 : at])
    if frame is None or marker == _EOI:
        raise _Refused(Reason.CORRUPT, "jpeg: no frame before the first scan")
    kept.append(body[start - 4 :])
    return _Opened(
        header=_upright("jpeg", frame.width, frame.height, orientation),
        open=JpegImagePlugin.JpegImageFile,
        body=b"".join(kept),
    )


class _Scans:
    """What decoding a JPEG's scans needs to remember: tables, restart interval, which coefficients are coded."""

    def __init__(self) -> None:
        self.frame: _Frame | None = None
        self.codes = np.zeros((8, 1 << 16), np.uint16)  # [class * 4 + id, next 16 bits] -> length << 8 | symbol
        self.restart = 0
        self.work = 0  # tables and scans so far
        self.nonzero: list[np.ndarray] = []  # per component one bit per coefficient that is not zero
        self.precise = np.zeros((4, 64), bool)  # coded down to the last bit

    def start(self, frame: _Frame) -> None:
        if self.frame is not None:
            raise _Refused(Reason.CORRUPT, "jpeg: two frames")
        self.frame = frame
        if frame.progressive:
            sizes = [frame.blocks(i) for i in range(len(frame.components))]
            self.nonzero = [np.zeros(rows * columns, np.uint64) for rows, columns in sizes]

    def _count(self) -> None:
        """A few bytes of scan or table cost a pass over everything: a file made of them could take hours."""
        self.work += 1
        if self.work > _MOST_TABLES_AND_SCANS:
            raise _Refused(Reason.CORRUPT, f"jpeg: more than {_MOST_TABLES_AND_SCANS} tables and scans")

    def define(self, payload: bytes) -> None:
        """Huffman tables (T.81, B.2.4.2 and C) as a look-up of the next 16 bits; 0 is no code."""
        at = 0
        while at + 17 <= len(payload):
            self._count()
            slot, counts = payload[at], np.frombuffer(payload, np.uint8, 16, at + 1).astype(np.int64)
            symbols = np.frombuffer(payload[at + 17 : at + 17 + counts.sum()], np.uint8)
            spans = np.repeat(1 << np.arange(15, -1, -1), counts)
            if slot & 0xEC or len(symbols) != len(spans) or spans.sum() > 1 << 16:
                raise _Refused(Reason.CORRUPT, "jpeg: Huffman table")
            entries = np.repeat(np.arange(1, 17, dtype=np.uint16) << 8, counts) | symbols
            table = self.codes[(slot >> 4) * 4 + (slot & 3)]
            table[:] = 0
            table[: spans.sum()] = np.repeat(entries, spans)
            at += 17 + len(symbols)

    def scan(self, header: bytes, body: bytes, at: int) -> int:
        """Checks one scan whose coded data start at `at`; returns where they end."""
        self._count()
        frame = self.frame
        if frame is None or len(header) < 4 or len(header) != 4 + 2 * header[0]:
            raise _Refused(Reason.CORRUPT, "jpeg: scan header")
        index = {part[0]: i for i, part in enumerate(frame.components)}
        chosen = [(index.get(header[i], -1), header[i + 1]) for i in range(1, 1 + 2 * header[0], 2)]
        first, last, high, low = header[-3], header[-2], header[-1] >> 4, header[-1] & 15
        if not frame.progressive:
            first, last, high, low = 0, 63, 0, 0
        bands = (
            last == 0
            if first == 0 and frame.progressive
            else first <= last <= 63 and len(chosen) <= 1 + 3 * (first == 0)
        )
        if not chosen or min(chosen)[0] < 0 or not bands:
            raise _Refused(Reason.CORRUPT, "jpeg: scan header")
        bits, cuts, end = _coded_bits(body, at)
        if first == 0:
            faults = self._dc_scan(frame, chosen, bits, cuts, last == 63, bool(high))
        else:
            part, tables = chosen[0]
            faults = _ac_scan(
                bits, cuts, self.codes[4 + (tables & 3)], self.nonzero[part], first, last, bool(high), self.restart
            )
        _judge(faults, end)
        for part, _ in chosen:
            self.precise[part, first : last + 1] |= low == 0
        return end

    def _dc_scan(
        self,
        frame: _Frame,
        chosen: list[tuple[int, int]],
        bits: np.ndarray,
        cuts: np.ndarray,
        sequential: bool,
        refine: bool,
    ) -> tuple[int, int]:
        """Sequential scans and progressive scans of DC: per unit a fixed list of blocks."""
        if len(chosen) == 1:
            units, repeats = int(np.prod(frame.blocks(chosen[0][0]))), [1]
        else:
            units, repeats = frame.mcus(), [frame.components[i][1] * frame.components[i][2] for i, _ in chosen]
        tables = np.repeat([[t >> 4 & 3, 4 + (t & 3)] for _, t in chosen], repeats, axis=0)
        return _block_scan(bits, cuts, self.codes, tables, units, sequential, refine, self.restart)


#: Encoders write 2 to 30.
_MOST_TABLES_AND_SCANS: Final = 256
#: Junk between a scan and the next marker that is put up with (some cameras write a few bytes).
_SPARE_BYTES: Final = 2
_FINE, _SHORT, _NO_CODE = 0, 1, 2
_PADDING: Final = 1024  # zero bytes behind the coded data: more than one block can take, so kernels check once a block


_SCAN_END: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_RESTART: Final = re.compile(rb"\xff[\xd0-\xd7]")


def _coded_bits(body: bytes, at: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Coded data from byte `at` to the next marker but RST (T.81, B.1.1.5).

    Returns the bytes without stuffing and with padding, the bit at which each restart interval ends, and the
    position of that marker.
    """
    found = _SCAN_END.search(body, at)
    end = found.start() if found else len(body)
    parts = [part.replace(b"\xff\0", b"\xff") for part in _RESTART.split(body[at:end])]
    cuts = 8 * np.cumsum([len(part) for part in parts])
    return np.frombuffer(b"".join([*parts, bytes(_PADDING)]), np.uint8), cuts, end


@numba.njit(cache=True, nogil=True, inline="always")
def _peek(bits: np.ndarray, at: int) -> int:
    """The 16 bits from bit `at`."""
    byte = at >> 3
    word = (int(bits[byte]) << 16) | (int(bits[byte + 1]) << 8) | int(bits[byte + 2])
    return (word >> (8 - (at & 7))) & 0xFFFF


@numba.njit(cache=True, nogil=True)
def _block_scan(
    bits: np.ndarray,
    cuts: np.ndarray,
    codes: np.ndarray,
    tables: np.ndarray,
    units: int,
    sequential: bool,
    refine: bool,
    restart: int,
) -> tuple[int, int]:
    """Reads every code of a sequential or DC scan (T.81, F.2.2, G.1.2.1). (fault, most bytes left over)."""
    at, spare, cut = 0, 0, 0
    for unit in range(units):
        if restart and unit and unit % restart == 0:
            spare = max(spare, (cuts[cut] - at) >> 3)
            at = cuts[cut]
            cut += 1
            if cut == cuts.size:
                return _SHORT, spare
        for block in range(tables.shape[0]):
            if refine:
                at += 1
                continue
            code = codes[tables[block, 0], _peek(bits, at)]
            at += (code >> 8) + (code & 255)
            bad = code == 0 or (code & 255) > 11
            k = 1
            while sequential and k < 64 and not bad:
                code = codes[tables[block, 1], _peek(bits, at)]
                size = code & 15
                at += (code >> 8) + size
                bad = code == 0 or size > 10
                if size == 0 and (code & 255) != 0xF0:
                    break
                k += ((code >> 4) & 15) + 1
            if at > cuts[cut]:
                return _SHORT, spare
            if bad or k > 64:
                return _NO_CODE, spare
    return (_FINE if cut == cuts.size - 1 else _NO_CODE), max(spare, (cuts[cut] - at) >> 3)


@numba.njit(cache=True, nogil=True)
def _ac_scan(
    bits: np.ndarray,
    cuts: np.ndarray,
    codes: np.ndarray,
    nonzero: np.ndarray,
    first: int,
    last: int,
    refine: bool,
    restart: int,
) -> tuple[int, int]:
    """The same for one progressive AC scan (T.81, G.1.2.2 and G.1.2.3); marks new coefficients in `nonzero`."""
    at, spare, cut, run = 0, 0, 0, 0
    for block in range(nonzero.size):
        if restart and block and block % restart == 0:
            spare = max(spare, (cuts[cut] - at) >> 3)
            at, run = cuts[cut], 0
            cut += 1
            if cut == cuts.size:
                return _SHORT, spare
        mask, k, bad = nonzero[block], first, False
        while run == 0 and k <= last:
            code = codes[_peek(bits, at)]
            zeros, size = (code >> 4) & 15, code & 15
            at += code >> 8
            bad = bad or code == 0 or (refine and size > 1) or size > 10
            if size == 0 and zeros < 15:
                run = (1 << zeros) + (_peek(bits, at) >> (16 - zeros))
                at += zeros
                break
            at += size
            while k <= last:  # in a refinement, coefficients known to differ from zero take a bit and count not
                if refine and (mask >> np.uint64(k)) & np.uint64(1):
                    at += 1
                elif zeros == 0:
                    break
                else:
                    zeros -= 1
                k += 1
            if size:
                bad = bad or k > last
                mask |= np.uint64(1) << np.uint64(k & 63)
            k += 1
            if bad:
                break
        if run:
            run -= 1
            while refine and k <= last:
                at += int((mask >> np.uint64(k)) & np.uint64(1))
                k += 1
        nonzero[block] = mask
        if at > cuts[cut]:
            return _SHORT, spare
        if bad:
            return _NO_CODE, spare
    return (_FINE if cut == cuts.size - 1 and run == 0 else _NO_CODE), max(spare, (cuts[cut] - at) >> 3)


def _check_scans(body: bytes) -> None:
    """Raises `_Refused` unless every scan of a JPEG can be read to its last block and none is missing."""
    scans, at = _Scans(), 2
    while True:
        marker, start, at = _segment(body, at)
        if marker == _EOI:
            break
        if marker in _FRAMES:
            scans.start(_frame(marker, body[start:at]))
        elif marker == _DHT:
            scans.define(body[start:at])
        elif marker == _DRI:
            scans.restart = int.from_bytes(body[start : start + 2], "big")
        elif marker == _SOS:
            at = scans.scan(body[start:at], body, at)
    if scans.frame is None or not scans.precise[: len(scans.frame.components)].all():
        raise _Refused(Reason.TRUNCATED, "jpeg: scans are missing")


def _judge(faults: tuple[int, int], end: int) -> None:
    status, spare = faults
    if status == _SHORT:
        raise _Refused(Reason.TRUNCATED, f"jpeg: coded data end at byte {end}, before the picture does")
    if status == _NO_CODE:
        raise _Refused(Reason.CORRUPT, f"jpeg: no valid code in the data before byte {end}")
    if spare > _SPARE_BYTES:
        raise _Refused(Reason.CORRUPT, f"jpeg: {spare} bytes too many before byte {end}")


# --- colour and orientation ------------------------------------------------------------------------------------

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(name: str, width: int, height: int, orientation: int) -> Header:
    if not width or not height:
        raise _Refused(Reason.CORRUPT, f"{name}: {width} × {height} pixels")
    if orientation >= 5:
        width, height = height, width
    return Header(format=name, width=width, height=height, orientation=orientation)


def _orientation(exif: bytes) -> int:
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
