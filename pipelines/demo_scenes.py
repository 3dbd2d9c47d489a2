"""Close-ups drawn by code, with the statistics of photographs: leaves, pebbles, stone walls, boards, grass.

A scene is (height, width, 3) float32 linear light; `expose` then plays the camera. They are after Lee, Mumford and
Huang, "Occlusion Models for Natural Images" (IJCV 2001): things that hide each other, with sizes that follow a
power law, each with a colour and a texture of its own, and 1/f^a noise within. About 0.5 s a megapixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import cv2
import numpy as np
import scipy.fft

Scene = Callable[[np.random.Generator, int, int], np.ndarray]

_SPRITE: Final = 192  # pixels, side of a leaf or pebble before it is scaled down
_LEVELS: Final = 5  # halvings of a sprite, so that small ones are not aliased


def fractal(rng: np.random.Generator, height: int, width: int, exponent: float) -> np.ndarray:
    """(height, width) float32 periodic noise, amplitude falling as 1/f^exponent, mean 0, deviation 1."""
    spectrum = scipy.fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
    frequency = np.hypot(scipy.fft.fftfreq(height, 1 / height)[:, None] / height, scipy.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    noise = scipy.fft.irfft2(spectrum * (frequency**-exponent).astype(np.float32), s=(height, width))
    return (noise / noise.std()).astype(np.float32)


def grain(rng: np.random.Generator, height: int, width: int, exponent: float) -> np.ndarray:
    """Noise whose strength itself varies from place to place: the heavy tails that plain noise lacks."""
    strength = np.exp(0.55 * fractal(rng, height, width, 1.6))
    return np.tanh(fractal(rng, height, width, exponent) * strength / 3) * 3


def expose(rng: np.random.Generator, light: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 sRGB of linear light (H, W, 3) float32.

    Exposure by the median, shot noise, a lens blur of 0.55 px, and a shoulder that keeps highlights from clipping
    (Reinhard et al., "Photographic Tone Reproduction", 2002, equation 4).
    """
    light = light * np.float32(0.22 / (np.median(light) + 0.02))
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    light = light + noise * np.sqrt(np.maximum(light, 0) * 2e-4 + 1e-5)
    light = np.clip(cv2.GaussianBlur(light, (0, 0), 0.55), 0, None)
    light = light * (1 + light / 2.5**2) / (1 + light * 0.75)
    encoded = np.where(light < 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-6) ** (1 / 2.4) - 0.055)
    return np.rint(np.clip(encoded, 0, 1) * 255).astype(np.uint8)


# ---------------------------------------------------------------- leaves and pebbles: occluding sprites


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sprite:
    """One thing to scatter: `levels[k]` (S, S, 4) float32, S = 192 / 2^k: colour times cover, and cover."""

    levels: tuple[np.ndarray, ...]


def foliage(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Leaves on leaves, bright on top and dark below."""
    season = rng.integers(3)
    palette = np.array(
        [
            [[0.10, 0.30, 0.03], [0.22, 0.45, 0.06], [0.07, 0.17, 0.03]],
            [[0.55, 0.16, 0.02], [0.70, 0.38, 0.04], [0.25, 0.07, 0.02]],
            [[0.15, 0.27, 0.05], [0.35, 0.42, 0.12], [0.30, 0.12, 0.10]],
        ],
        dtype=np.float32,
    )[season]
    slim = rng.uniform(0.22, 0.5)
    sprites = [_leaf(rng, palette, slim) for _ in range(14)]
    return _scatter(rng, height, width, sprites, smallest=16, largest=95, cover=4.2, turn=True)


def pebbles(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A beach of rounded stones, lit from one side."""
    tone = np.array([[0.30, 0.27, 0.24], [0.16, 0.17, 0.19], [0.45, 0.40, 0.34], [0.32, 0.18, 0.13]], np.float32)
    sun = _direction(rng)
    sprites = [_pebble(rng, tone[rng.integers(len(tone))], sun) for _ in range(24)]
    return _scatter(rng, height, width, sprites, smallest=15, largest=90, cover=4.2, turn=False)


def _leaf(rng: np.random.Generator, palette: np.ndarray, slim: float) -> _Sprite:
    along, across = _sprite_axes()
    bend = rng.uniform(-0.25, 0.25) * (1 - along**2)
    side = across - bend
    half = slim * np.clip(1 - along**2, 0, None) ** 0.75 * (1 - 0.35 * along)
    cover = np.clip((half - np.abs(side)) * _SPRITE / 2 + 0.5, 0, 1) * (np.abs(along) < 0.97)
    colour = palette[rng.integers(len(palette))] * rng.uniform(0.7, 1.3)
    veins = 0.5 + 0.5 * np.cos((along - np.abs(side) * 0.9) * rng.uniform(30, 45))
    shade = 0.75 + 0.3 * np.tanh(side * 9) * rng.choice([-1, 1]) + 0.18 * veins
    shade += 0.5 * np.exp(-((side * 45) ** 2)) + 0.25 * along * rng.uniform(-1, 1)
    shade *= np.exp(0.28 * fractal(rng, _SPRITE, _SPRITE, 0.9))
    tint = np.exp(fractal(rng, _SPRITE, _SPRITE, 1.4)[..., None] * np.array([0.16, 0.05, 0.0], np.float32))
    return _sprite(shade[..., None] * colour * tint, cover)


def _pebble(rng: np.random.Generator, tone: np.ndarray, sun: np.ndarray) -> _Sprite:
    x, y = _sprite_axes()
    angle, squeeze = rng.uniform(0, np.pi), rng.uniform(0.6, 0.95)
    u, v = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / squeeze
    wobble = 1 + 0.06 * np.cos(3 * np.arctan2(v, u) + angle * 7) + 0.02 * fractal(rng, _SPRITE, _SPRITE, 2.0)
    radius = (np.abs(u) ** 2.4 + np.abs(v) ** 2.4) ** (1 / 2.4) * wobble / 0.95
    cover = np.clip((1 - radius) * _SPRITE / 2.4 + 0.5, 0, 1)
    bulge = np.sqrt(np.clip(1 - radius**2, 0.02, 1)) * 0.55 + 0.014 * fractal(rng, _SPRITE, _SPRITE, 1.3)
    grain = 0.30 * fractal(rng, _SPRITE, _SPRITE, rng.uniform(0.4, 1.2))
    bands = 0.25 * np.sin(v * rng.uniform(5, 20) + fractal(rng, _SPRITE, _SPRITE, 2.0)) * rng.integers(2)
    shade = lambert(bulge * _SPRITE / 2, sun) * np.exp(grain + bands)
    return _sprite(shade[..., None] * tone * rng.uniform(0.92, 1.08, 3).astype(np.float32), cover)


def _sprite_axes() -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(_SPRITE, dtype=np.float32) + 0.5) / _SPRITE * 2.2 - 1.1
    return axis[None, :].repeat(_SPRITE, 0), axis[:, None].repeat(_SPRITE, 1)


def _sprite(colour: np.ndarray, cover: np.ndarray) -> _Sprite:
    cover = cover.astype(np.float32)[..., None]
    levels = [np.concatenate([colour.astype(np.float32) * cover, cover], axis=-1)]
    for _ in range(_LEVELS - 1):
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return _Sprite(levels=tuple(levels))


def _scatter(
    rng: np.random.Generator,
    height: int,
    width: int,
    sprites: list[_Sprite],
    *,
    smallest: float,
    largest: float,
    cover: float,
    turn: bool,
) -> np.ndarray:
    """Sprites over each other, with `cover` times the picture's area in all; radii in pixels, density ~ r^-3."""
    soil = 0.03 * np.exp(0.6 * fractal(rng, height, width, 1.0))[..., None]
    canvas = soil * np.array([1.0, 0.85, 0.7], np.float32)
    mean_area = 2 * smallest**2 * np.log(largest / smallest) * 2
    count = int(cover * height * width / mean_area)
    uniform = rng.uniform(size=count)
    radii = (smallest**-2 - uniform * (smallest**-2 - largest**-2)) ** -0.5
    for order, radius in enumerate(radii):
        sprite = sprites[rng.integers(len(sprites))]
        centre = rng.uniform((0, 0), (width, height))
        light = np.float32((0.3 + 0.7 * order / count) * rng.uniform(0.75, 1.25))
        _paste(canvas, sprite, centre, radius, rng.uniform(0, 2 * np.pi) if turn else 0.0, light)
    return canvas


def _paste(
    canvas: np.ndarray, sprite: _Sprite, centre: np.ndarray, radius: float, angle: float, light: np.float32
) -> None:
    reach = int(radius * 1.25) + 3  # the shadow reaches past the thing
    left, top = int(centre[0]) - reach, int(centre[1]) - reach
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + 2 * reach, canvas.shape[1]), min(top + 2 * reach, canvas.shape[0])
    level = int(np.clip(np.log2(_SPRITE / (2.2 * radius)), 0, _LEVELS - 1))
    source = sprite.levels[level]
    scale = 2.2 * radius / source.shape[0]
    cos, sin, half = scale * np.cos(angle), scale * np.sin(angle), source.shape[0] / 2
    middle = centre - (x0, y0)
    turned = np.array([[cos, -sin, middle[0] - (cos - sin) * half], [sin, cos, middle[1] - (sin + cos) * half]])
    size = (x1 - x0, y1 - y0)
    pasted = cv2.warpAffine(source, turned, size, flags=cv2.INTER_LINEAR)
    turned[:, 2] += radius * 0.12
    shadow = cv2.warpAffine(sprite.levels[-1][..., 3], turned @ _SHRINK[level], size, flags=cv2.INTER_LINEAR)
    region = canvas[y0:y1, x0:x1]
    region *= (1 - 0.65 * shadow)[..., None] * (1 - pasted[..., 3:])
    region += pasted[..., :3] * light


#: from the coordinates of the coarsest level (whose cover is a soft shadow) to those of level k
_SHRINK: Final = [np.diag([2.0 ** (_LEVELS - 1 - k)] * 2 + [1.0]) for k in range(_LEVELS)]


# ---------------------------------------------------------------- walls: stones in mortar, lit from the side


def wall(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A wall of rough stones: Voronoi cells with bent borders, each with its own colour and tilt."""
    labels, count = _cells(rng, height, width)
    inside = np.ones((height, width), np.uint8)
    inside[:, 1:] &= labels[:, 1:] == labels[:, :-1]
    inside[1:] &= labels[1:] == labels[:-1]
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    rough, fine = fractal(rng, height, width, 1.7), grain(rng, height, width, 1.2)
    joint = 3.0 + 1.2 * rough
    rise = np.clip((depth - joint) / 14, 0, 1)
    rise = 1 - (1 - rise) ** 2
    tilt = rng.normal(1, 0.12, count).astype(np.float32)[labels]
    relief = 11 * rise + 1.6 * rise * rough + 1.1 * fine
    stones = _stone_colours(rng, count)[labels] * np.exp(0.22 * rough + 0.20 * fine)[..., None]
    lichen = np.clip(grain(rng, height, width, 1.35) * 3 - 4.5, 0, 1)[..., None]
    stones += lichen * (np.array([0.42, 0.42, 0.22], np.float32) - stones) * 0.8
    mortar = np.array([0.30, 0.27, 0.23], np.float32) * np.exp(0.3 * fine)[..., None] * 0.55
    body = np.where((rise > 0)[..., None], stones, mortar)
    shade = lambert(relief, _direction(rng)) * tilt * (0.45 + 0.55 * np.clip(depth / 12, 0, 1))
    return body * shade[..., None]


def _cells(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, int]:
    """(height, width) int32 numbers of the cell each pixel lies in, and how many cells there are."""
    tall = rng.uniform(55, 110)
    wide = tall * rng.uniform(1.2, 2.0)
    seeds = np.ones((height, width), np.uint8)
    for row in range(int(height / tall) + 2):
        steps = np.arange(-1, width / wide + 1) + 0.5 * (row % 2)
        x = (steps * wide + rng.uniform(-0.3, 0.3, len(steps)) * wide).astype(int)
        y = ((row + rng.uniform(-0.22, 0.22, len(steps))) * tall).astype(int)
        seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        seeds[y[seen], x[seen]] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    bend = [fractal(rng, height, width, 1.9) * np.float32(tall / 14) for _ in range(2)]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    bent = cv2.remap(
        labels.astype(np.float32), x + bend[0], y + bend[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    )
    return bent.astype(np.int32), int(labels.max()) + 1


def _stone_colours(rng: np.random.Generator, count: int) -> np.ndarray:
    base = np.array([[0.36, 0.30, 0.23], [0.28, 0.27, 0.26], [0.40, 0.22, 0.14], [0.22, 0.21, 0.18]], np.float32)
    kinds = base[rng.permutation(len(base))[:3]]
    return kinds[rng.integers(3, size=count)] * rng.lognormal(0, 0.22, (count, 1)).astype(np.float32)


def planks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Weathered boards: straight edges, nails, and grain that bends around knots."""
    edges = np.cumsum(rng.uniform(70, 190, 40))
    edges = np.concatenate([[0], edges[edges < height - 40], [height]]).astype(int)
    light = np.concatenate([_board(rng, int(b - a), width) for a, b in pairwise(edges)])
    return light * np.exp(0.17 * grain(rng, height, width, 0.75))[..., None]


def _board(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    rings = y / rng.uniform(2.2, 4.5) + 3 * _stretched(rng, height, width, 1.9)
    knots = np.zeros_like(rings)
    for knot_x, knot_y in rng.uniform((0, 0), (width, height), (int(rng.integers(1, 4)), 2)):
        near = np.hypot((x - knot_x) / 2.2, y - knot_y) / rng.uniform(9, 18)
        rings += 12 * np.exp(-near) * np.sign(y - knot_y) * np.tanh(np.abs(y - knot_y) / 4)
        knots += np.exp(-(near**2) * 2)
    lines = 0.2 * np.sin(rings) + 0.2 * _stretched(rng, height, width, 1.0) - 1.1 * knots
    lines -= 1.2 * np.clip(_stretched(rng, height, width, 1.1) - 1.6, 0, 1)  # cracks
    tone = np.array([[0.42, 0.30, 0.19], [0.30, 0.27, 0.24], [0.36, 0.20, 0.11]], np.float32)[rng.integers(3)]
    rim = np.clip(np.minimum(y, height - 1 - y) / 5, 0.12, 1)
    board = (tone * rng.uniform(0.8, 1.2)) * (np.exp(lines) * rim)[..., None]
    for nail_x in np.arange(rng.uniform(20, 300), width, 410):
        for nail_y in (height * 0.2, height * 0.8):
            radius = np.hypot(x - nail_x, y - nail_y)
            board *= (1 - 0.8 * np.clip(5.5 - radius, 0, 1) * (0.6 + 0.1 * (y - nail_y)))[..., None]
    return board


def _stretched(rng: np.random.Generator, height: int, width: int, exponent: float) -> np.ndarray:
    """(height, width) noise drawn out sixfold along x: grain."""
    noise = fractal(rng, height, max(width // 6, 16), exponent)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


# ---------------------------------------------------------------- grass: strokes over strokes


def meadow(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Blades of grass and a few flowers, small far up and large below."""
    earth = 45 * np.exp(0.5 * fractal(rng, height, width, 1.2))[..., None] * np.array([1.0, 1.05, 0.7])
    canvas = np.clip(earth, 0, 255).astype(np.uint8)
    dry = rng.uniform(0, 1)
    lean = fractal(rng, 64, 64, 1.5)
    uniform = np.sort(rng.uniform(0, 1, height * width // 110))
    for y in height * (uniform**1.6 * 1.3 - 0.02):  # denser where they are smaller
        near = 0.35 + 0.65 * np.clip(y / height, 0, 1)
        x = rng.uniform(0, width)
        wind = lean[int(y / 25) % 64, int(x / 25) % 64]
        if rng.uniform() < 0.012:
            _flower(rng, canvas, x, y - 60 * near, 9 * near)
        else:
            _blade(rng, canvas, x, y, near, 0.25 * wind, dry)
    light = (canvas.astype(np.float32) / 255) ** 2.2
    return light * np.exp(0.35 * grain(rng, height, width, 0.8) + 0.2 * fractal(rng, height, width, 2.0))[..., None]


def _blade(
    rng: np.random.Generator, canvas: np.ndarray, x: float, y: float, near: float, wind: float, dry: float
) -> None:
    length, thick = near * rng.uniform(50, 170), near * rng.lognormal(0.9, 0.5)
    lean = wind + rng.normal(0, 0.3)
    t = _BLADE
    spine_x, spine_y = x + length * lean * t**1.8, y - length * t * (1 - 0.25 * abs(lean) * t)
    half = thick * (1 - t**2)
    green = np.array([88, 112, 48]) * (1 - dry) + np.array([150, 130, 82]) * dry
    colour = green * rng.uniform(0.6, 1.2) + rng.normal(0, 6, 3)
    for sign, tone in ((-1, 0.92), (1, 1.06)):
        outline = np.concatenate([np.stack([spine_x, spine_y], 1), np.stack([spine_x + sign * half, spine_y], 1)[::-1]])
        points = np.rint(outline * 8).astype(np.int32)
        shade = np.clip(colour * tone, 4, 255).tolist()
        cv2.fillPoly(canvas, [points], shade, cv2.LINE_AA, shift=3)


_BLADE: Final = np.linspace(0, 1, 6)


def _flower(rng: np.random.Generator, canvas: np.ndarray, x: float, y: float, radius: float) -> None:
    petal = [(235, 230, 220), (225, 190, 40), (190, 60, 70), (150, 110, 200)][rng.integers(4)]
    count, start = int(rng.integers(6, 11)), rng.uniform(0, 6)
    for k in range(count):
        angle = start + k * 2 * np.pi / count
        centre = (int((x + radius * np.cos(angle)) * 8), int((y + 0.7 * radius * np.sin(angle)) * 8))
        axes = (int(radius * 7), int(radius * 3))
        tone = [c * rng.uniform(0.75, 1.0) for c in petal]
        cv2.ellipse(canvas, centre, axes, np.degrees(angle), 0, 360, tone, -1, cv2.LINE_AA, shift=3)
    cv2.circle(canvas, (int(x * 8), int(y * 8)), int(radius * 4), (150, 100, 20), -1, cv2.LINE_AA, shift=3)


# ---------------------------------------------------------------- light


def _direction(rng: np.random.Generator) -> np.ndarray:
    """(3,) a sun that stands low, from any side: x, y, z, of length 1."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([0.75 * np.cos(angle), 0.75 * np.sin(angle), 0.66], np.float32)


def lambert(relief: np.ndarray, sun: np.ndarray) -> np.ndarray:
    """(H, W) float32 light on a surface of height `relief` (pixels), with a little from the whole sky."""
    dy, dx = np.gradient(relief)
    facing = (sun[2] - sun[0] * dx - sun[1] * dy) / np.sqrt(1 + dx**2 + dy**2)
    return (0.22 + 0.78 * np.clip(facing, 0, None)).astype(np.float32)
