"""Patches without loss: the DCT coefficients of a JPEG copied, everything else as PNG in strips (`shards.png`).

A clean patch is a training target, so nothing here compresses a second time. A patch of a JPEG takes the
blocks that cover it, as `jpeglib` reads them, and codes their entropy anew (`shards.entropy`: Huffman tables made
for the patch, restart markers for `shards.crops`).
EXIF-turned JPEGs are turned in the DCT domain: blocks transposed or mirrored, odd frequencies negated,
quantisation tables transposed, sampling factors swapped. On a mirrored axis the picture's ragged last MCU comes
first, so the grid begins `extent % MCU` pixels in.

What the copy must decode to is known, the upright picture, and each patch is decoded and compared before it
leaves. That one check catches what no list of special cases would (RGB-coded, a colour profile that decoding
applied, smoothing of incomplete progressive scans, tables redefined between scans): the picture goes to PNG.

The rule of the comparison: libjpeg's triangle filter for chroma of half resolution ("fancy upsampling") reads
one sample beyond the patch, so the outermost row and column of pixels may differ; all others are equal. In a
turned picture every pixel may be off by a few levels (5 at most in 560 trials, 0.4 in the mean): the integer
inverse DCT takes columns before rows and the filter rounds left and right unlike, so the same coefficients
give another, equally right, decode.

A restart marker every 64 pixels costs 2.2 % of the bytes (2.0 % with chroma of half resolution, 3.2 % with chroma in
full), and decoding the segments under a crop of 128 x 128 takes 83 us. On 572 patches: one a row of MCUs 0.2 % and
204 us, every 128 pixels 1.1 % and 109 us, every 32 4.4 % and 71 us, every 16 8.3 % and 70 us. In an application
segment that decoders pass over each patch says how many bytes each row of MCUs takes (73 or 137 bytes, 0.17 %), so
that a crop needs no more of the file than its own rows. Patches of earlier releases lack it and are read as a whole.

What it buys: on 223 patches of 43 photographs 66 KB each against 342 KB as PNG and 227 KB as lossless WebP.
PNG trades bytes for time: on 60 patches of photographs zlib level 4 took 274 KB and 23 ms a patch, level 6
264 KB and 56 ms, level 9 255 KB and 228 ms, all by Pillow. In strips level 4 takes 2.9 % more bytes and three
quarters of the time, and a crop of 128 x 128 a sixth.
"""

from __future__ import annotations

import io
import math
import re
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import cv2
import jpeglib
import numpy as np
from PIL import Image

from shards import png
from shards.entropy import Plane, encode
from shards.patches import Box, flat_fraction, grid

JPEG_DCT: Final = "jpeg-dct"
PNG: Final = "png"
SUFFIX: Final = {JPEG_DCT: "jpg", PNG: "png"}  # of the members that hold the data

_LIBJPEG: Final = "turbo210"  # reads arithmetic coding too, which jpeglib's default of 1998 does not
_PNG_LEVEL: Final = 4
_TURNED_MAY_DIFFER: Final = 6  # levels of 255
_ORIENTATION: Final = 0x0112  # EXIF tag
_ODD_NEGATED: Final = np.array([1, -1] * 4, dtype=np.int16)
_SOS: Final = 0xDA
_EOI: Final = b"\xff\xd9"
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOFn; the three are DHT, JPG and DAC
_METADATA: Final = re.compile(rb"\xff[\xe0-\xef\xfe]")  # APPn, COM
_MEMORY: Final = Path("/dev/shm")  # jpeglib reads named files only
_SEGMENT: Final = 64  # pixels between restart markers


@dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """One patch, coded: `data` decodes to size x size pixels whose first is (top, left) of the upright picture.

    A patch of a greyscale JPEG has one channel.
    """

    top: int
    left: int
    size: int
    flat_fraction: float
    codec: str  # JPEG_DCT or PNG
    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """The patches of one picture, row by row, and how many were dropped as flat."""

    patches: tuple[Patch, ...]
    flat: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    """From the stored picture to the upright one: first the transposition, then the mirroring."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False


# EXIF's Orientation, 1 to 8 (CIPA DC-008, section 4.6.4)
_TURNS: Final = {
    1: _Turn(),
    2: _Turn(mirror_x=True),
    3: _Turn(mirror_x=True, mirror_y=True),
    4: _Turn(mirror_y=True),
    5: _Turn(transpose=True),
    6: _Turn(transpose=True, mirror_x=True),
    7: _Turn(transpose=True, mirror_x=True, mirror_y=True),
    8: _Turn(transpose=True, mirror_y=True),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stored:
    """A JPEG's coefficients as stored, and how the picture is turned from there."""

    planes: tuple[Plane, ...]
    height: int
    width: int
    turn: _Turn

    @property
    def mcu(self) -> tuple[int, int]:
        """Height and width in pixels of the smallest part that stands by itself, as stored."""
        factors = [plane.factors for plane in self.planes]
        return 8 * max(vertical for vertical, _ in factors), 8 * max(horizontal for _, horizontal in factors)

    @property
    def origin(self) -> tuple[int, int]:
        """Where in the upright picture the grid begins (top, left), each less than an MCU."""
        mcu, extent = self.mcu, (self.height, self.width)
        if self.turn.transpose:
            mcu, extent = mcu[::-1], extent[::-1]
        top = extent[0] % mcu[0] if self.turn.mirror_y else 0
        left = extent[1] % mcu[1] if self.turn.mirror_x else 0
        return top, left

    @property
    def border(self) -> int:
        """Outermost pixels of a patch that chroma upsampling may change."""
        return int(len({plane.factors for plane in self.planes}) > 1)


def cut(body: bytes, pixels: np.ndarray, *, format: str, size: int = 512, max_flat: float = 0.5) -> Cut:
    """The patches of a picture that are at most `max_flat` flat, coded without loss.

    `body` is the file as it came, `pixels` what it decodes to: (H, W, 3) uint8 sRGB, upright. `format` other than
    "jpeg" goes straight to PNG, and so does a JPEG whose coefficients can't be had or whose copy decodes to
    something else. The patches are a function of the arguments alone and carry no metadata.
    Raises ValueError for a `size` that is no multiple of 32.
    """
    stored = _read(body, pixels, size) if format == "jpeg" else None
    height, width = pixels.shape[:2]
    boxes = grid(height, width, size, stored.origin if stored else (0, 0))
    measured = [(box, flat_fraction(_crop(pixels, box))) for box in boxes]
    kept = [(box, fraction) for box, fraction in measured if fraction <= max_flat]
    targets = [_crop(pixels, box) for box, _ in kept]
    codec = JPEG_DCT
    coded = _copies(stored, [box for box, _ in kept], targets) if stored else None
    if coded is None:
        codec, coded = PNG, [png.encode(target, _PNG_LEVEL) for target in targets]
    patches = tuple(
        Patch(top=box.top, left=box.left, size=size, flat_fraction=fraction, codec=codec, data=data)
        for (box, fraction), data in zip(kept, coded, strict=True)
    )
    return Cut(patches=patches, flat=len(measured) - len(kept))


def _crop(pixels: np.ndarray, box: Box) -> np.ndarray:
    rows, columns = slice(box.top, box.top + box.size), slice(box.left, box.left + box.size)
    return np.ascontiguousarray(pixels[rows, columns])


def _read(body: bytes, pixels: np.ndarray, size: int) -> _Stored | None:
    """The coefficients, or None where they can't be had or patches of `size` can't be taken from them."""
    bare = _without_metadata(body)
    jpeg = _coefficients(bare) if bare else None
    if jpeg is None:
        return None
    planes = tuple(
        Plane(blocks=blocks, table=jpeg.get_component_qt(index), factors=(int(factors[0]), int(factors[1])))
        for index, (blocks, factors) in enumerate(zip((jpeg.Y, jpeg.Cb, jpeg.Cr), jpeg.samp_factor, strict=False))
    )
    stored = _Stored(planes=planes, height=jpeg.height, width=jpeg.width, turn=_turn(body))
    upright = (jpeg.width, jpeg.height) if stored.turn.transpose else (jpeg.height, jpeg.width)
    fits = upright == pixels.shape[:2] and not any(size % extent for extent in stored.mcu)
    return stored if fits else None


def _turn(body: bytes) -> _Turn:
    """What the EXIF orientation asks for; a broken one asks for nothing."""
    try:
        with Image.open(io.BytesIO(body)) as image:
            return _TURNS.get(image.getexif().get(_ORIENTATION, 1), _TURNS[1])
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):
        return _TURNS[1]


def _without_metadata(body: bytes) -> bytes | None:
    """The file from SOI to the first EOI without its APPn and COM segments; None for what is none of ours.

    jpeglib has room for 50 such segments and for four components: a stranger's file gets one or three of
    these and none of those.
    """
    kept, at = [body[:2]], 2
    while body[at : at + 1] == b"\xff" and at + 4 <= len(body):
        marker = body[at + 1]
        end = at + 2 + int.from_bytes(body[at + 2 : at + 4], "big")
        if marker == _SOS:
            scans = body[at : body.find(_EOI, at) + 2]
            return None if not scans or _METADATA.search(scans) else b"".join((*kept, scans))
        if marker in _FRAMES and body[at + 9 : at + 10] not in (b"\1", b"\3"):
            return None
        if not _METADATA.match(body, at):
            kept.append(body[at:end])
        at = end
    return None


def _coefficients(bare: bytes) -> jpeglib.DCTJPEG | None:
    """What jpeglib reads, None where it can't. Broken scans raise in `read_dct`, before `load` makes a file."""
    with jpeglib.version(_LIBJPEG), _scratch() as file:
        file.write(bare)
        file.flush()
        try:
            jpeg = jpeglib.read_dct(file.name)
            jpeg.load()
        except OSError:
            return None
    return jpeg if jpeg.jpeg_color_space in (jpeglib.JCS_YCbCr, jpeglib.JCS_GRAYSCALE) else None


def _scratch() -> IO[bytes]:
    """A file that lives in memory where there is a place for that, and is gone when closed."""
    return tempfile.NamedTemporaryFile(suffix=".jpg", dir=_MEMORY if _MEMORY.is_dir() else None)


def _copies(stored: _Stored, boxes: list[Box], targets: list[np.ndarray]) -> list[bytes] | None:
    """The patches as JPEG, or None as soon as one can't be coded or doesn't decode to its target."""
    coded = []
    for box, target in zip(boxes, targets, strict=True):
        planes = _planes_of(stored, box)
        try:
            data = encode(planes, _interval(planes, box.size))
        except ValueError:
            return None
        if not _decodes_to(data, target, stored):
            return None
        coded.append(data)
    return coded


def _planes_of(stored: _Stored, box: Box) -> list[Plane]:
    """The patch's own blocks, turned upright."""
    top, left = _stored_corner(stored, box)
    return [_turned(_window(plane, stored.mcu, top, left, box.size), stored.turn) for plane in stored.planes]


def _interval(planes: list[Plane], size: int) -> int:
    """MCUs between restart markers: the widest that divides a row of the patch and `_SEGMENT` pixels."""
    width = 8 * max(plane.factors[1] for plane in planes) if len(planes) > 1 else 8
    return math.gcd(size, _SEGMENT) // width


def _stored_corner(stored: _Stored, box: Box) -> tuple[int, int]:
    """Top and left, in the stored picture, of the patch that `box` is in the upright one."""
    turn = stored.turn
    height, width = (stored.width, stored.height) if turn.transpose else (stored.height, stored.width)
    top = height - box.size - box.top if turn.mirror_y else box.top
    left = width - box.size - box.left if turn.mirror_x else box.left
    return (left, top) if turn.transpose else (top, left)


def _window(plane: Plane, mcu: tuple[int, int], top: int, left: int, size: int) -> Plane:
    """The blocks that cover size x size pixels from (top, left), all three multiples of the MCU."""
    rows, columns = (
        slice(start // extent * factor, (start + size) // extent * factor)
        for start, extent, factor in zip((top, left), mcu, plane.factors, strict=True)
    )
    return Plane(blocks=plane.blocks[rows, columns], table=plane.table, factors=plane.factors)


def _turned(plane: Plane, turn: _Turn) -> Plane:
    """Turned as the pixels would be: cos((2(7-x)+1)k pi/16) is (-1)^k cos((2x+1)k pi/16)."""
    blocks, table, factors = plane.blocks, plane.table, plane.factors
    if turn.transpose:
        blocks, table, factors = blocks.transpose(1, 0, 3, 2), table.T, factors[::-1]
    if turn.mirror_x:
        blocks = blocks[:, ::-1] * _ODD_NEGATED
    if turn.mirror_y:
        blocks = blocks[::-1] * _ODD_NEGATED[:, None]
    return Plane(blocks=np.ascontiguousarray(blocks), table=np.ascontiguousarray(table), factors=factors)


def _decodes_to(data: bytes, target: np.ndarray, stored: _Stored) -> bool:
    """Whether the patch decodes to `target`, by the rule in this module's docstring."""
    with Image.open(io.BytesIO(data)) as image:
        decoded = np.asarray(image.convert("RGB"))
    inner = slice(stored.border, target.shape[0] - stored.border)
    difference = cv2.absdiff(decoded[inner, inner], target[inner, inner])
    return int(difference.max()) <= (0 if stored.turn == _TURNS[1] else _TURNED_MAY_DIFFER)
