"""Contact sheets as PNG: thumbnails side by side, each over its caption."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from curation.thumbnails import thumbnail

TILE: Final = 192  # pixels, a side, on a sheet
_GAP: Final = 8
_LINE: Final = 17
_PAPER: Final = (250, 249, 246)
_INK: Final = (48, 47, 44)


def mosaic(pictures: Sequence[tuple[np.ndarray, str]]) -> bytes:
    """A PNG contact sheet: each picture, (H, W, 3) uint8, over its caption. A caption breaks at `\n` only.

    Raises ValueError where there is no picture.
    """
    if not pictures:
        raise ValueError("a contact sheet of no pictures: give at least one")
    columns = min(8, math.ceil(math.sqrt(1.5 * len(pictures))))
    rows = -(-len(pictures) // columns)
    captions = [caption.split("\n") for _, caption in pictures]
    tall = TILE + max(map(len, captions)) * _LINE + _GAP
    sheet = Image.new("RGB", (columns * (TILE + _GAP) + _GAP, rows * (tall + _GAP) + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), _font()
    for number, (pixels, _) in enumerate(pictures):
        left, top = _GAP + number % columns * (TILE + _GAP), _GAP + number // columns * (tall + _GAP)
        sheet.paste(Image.fromarray(thumbnail(pixels, TILE)), (left, top))
        for line, text in enumerate(captions[number]):
            draw.text((left, top + TILE + 3 + line * _LINE), _fitted(text, font), fill=_INK, font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=False)
    return buffer.getvalue()


_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def _font() -> _Font:
    """Pillow's own, larger where it can be scaled: pillow-simd's can't."""
    font = ImageFont.load_default()
    return font.font_variant(size=13) if isinstance(font, ImageFont.FreeTypeFont) else font


def _fitted(text: str, font: _Font) -> str:
    """`text` in the characters that the font has; what a tile has no room for ends in dots."""
    plain = text[:200].encode("latin-1", "replace").decode("latin-1")
    if font.getbbox(plain)[2] <= TILE:
        return plain
    while plain and font.getbbox(f"{plain}...")[2] > TILE:
        plain = plain[:-1]
    return f"{plain}..."
