"""What the page shows of a picture: the place with the largest error as it is, and where it lies in a map of errors.

Noise and fine texture don't survive scaling, so a whole picture made small would hide what is to be judged.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

from dynet.published import Column
from dynet.results import INPUT, Row

SIDE: Final = 192  # pixels of a crop
MAP: Final = 192  # pixels of an error map's longer side
SHOWN: Final = 12  # pictures of a set, and of a noise: the worst
TARGET: Final = "target"
_COLOURS: Final = "inferno"
_SPAN: Final = 99.5  # percentile of the errors that gets the brightest colour
_LEAST: Final = 1 / 255  # what it stands for, at least
_BOX: Final = (96, 220, 255)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A picture's rows, one a depth, and where each restored picture lies."""

    rows: tuple[Row, ...]
    files: Mapping[str, str]

    @property
    def psnr(self) -> float:
        """Of the last depth."""
        return self.rows[-1].quality.psnr


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """One to look at. `crops`: JPEG files by what they show; `errors`: (h, w) float32, the whole picture made small."""

    seen: Seen
    crops: Mapping[str, bytes] = field(repr=False)
    errors: np.ndarray = field(repr=False)
    box: tuple[float, float, float, float]  # left, top, right, bottom of the crops, as parts of width and height


class Gallery:
    """All pictures by column, and views of the worst, which alone are kept."""

    def __init__(self) -> None:
        self.seen: dict[Column, list[Seen]] = {}
        self.worst: dict[Column, list[Shown]] = {}

    def add(self, seen: Seen, target: np.ndarray, degraded: np.ndarray, restored: Mapping[str, np.ndarray]) -> None:
        """Takes a picture in; each (H, W, 3) uint8, `restored` by depth."""
        column = seen.rows[0].column
        self.seen.setdefault(column, []).append(seen)
        worst = self.worst.setdefault(column, [])
        if len(worst) == SHOWN and seen.psnr >= worst[-1].seen.psnr:
            return
        worst.append(_shown(seen, target, degraded, restored))
        worst.sort(key=lambda one: one.seen.psnr)
        del worst[SHOWN:]


def _shown(seen: Seen, target: np.ndarray, degraded: np.ndarray, restored: Mapping[str, np.ndarray]) -> Shown:
    last = list(restored.values())[-1]
    errors = np.abs(last.astype(np.float32) - target).mean(axis=2) / 255
    top, left = worst_place(errors)
    cut = np.s_[top : top + SIDE, left : left + SIDE]
    height, width = errors.shape
    longer = max(height, width)
    small = (max(1, round(width * MAP / longer)), max(1, round(height * MAP / longer)))
    return Shown(
        seen=seen,
        crops={name: _jpeg(pixels[cut]) for name, pixels in {INPUT: degraded, **restored, TARGET: target}.items()},
        errors=np.asarray(Image.fromarray(errors).resize(small, Image.Resampling.BOX)),
        box=(left / width, top / height, min(1, (left + SIDE) / width), min(1, (top + SIDE) / height)),
    )


def worst_place(errors: np.ndarray) -> tuple[int, int]:
    """Top and left of the square of SIDE pixels, or as much as there is, that has the largest sum of (H, W) errors."""
    high, wide = (min(SIDE, side) for side in errors.shape)
    sums = np.pad(errors.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    squares = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    top, left = np.unravel_index(int(squares.argmax()), squares.shape)
    return int(top), int(left)


def span(shown: Sequence[Shown]) -> float:
    """The error, in [0, 1], that has the brightest colour in the maps of these pictures."""
    return max(_LEAST, float(np.percentile(np.concatenate([one.errors.ravel() for one in shown]), _SPAN)))


def error_map(shown: Shown, brightest: float) -> bytes:
    """Its errors in colours, black for none, with a box where the crops are from: a JPEG file."""
    colours = colormaps[_COLOURS](np.clip(shown.errors / brightest, 0, 1))[..., :3]
    image = Image.fromarray(np.rint(255 * colours).astype(np.uint8))
    wide, high = (side - 1 for side in image.size)
    left, top, right, bottom = shown.box
    corners = (round(left * wide), round(top * high), round(right * wide), round(bottom * high))
    ImageDraw.Draw(image).rectangle(corners, outline=_BOX, width=2)
    return _jpeg(np.asarray(image))


def _jpeg(pixels: np.ndarray) -> bytes:
    """At 4:4:4: the noise in the colours is part of what is to be seen."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=90, subsampling=0)
    return sink.getvalue()
