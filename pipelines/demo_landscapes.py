"""Landscapes drawn by code: a fractal terrain with sun, shadow and haze, under clouds or a clear (flat) sky.

Same contract as the close-ups of `demo_scenes`: (height, width, 3) float32 linear light, about 0.4 s a megapixel.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from pipelines.demo_scenes import fractal, lambert

_TILE: Final = 1024  # map units, side of the periodic terrain


def hills(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Mountains under clouds."""
    return _landscape(rng, height, width, horizon=0.36, clouds=True)


def open_sky(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Mountains under a clear sky, which is flat and takes up half of the picture or more."""
    return _landscape(rng, height, width, horizon=0.66, clouds=False)


def _landscape(rng: np.random.Generator, height: int, width: int, *, horizon: float, clouds: bool) -> np.ndarray:
    ground = fractal(rng, _TILE, _TILE, 2.0) * 26
    ground += fractal(rng, _TILE, _TILE, 1.3) * 1.2
    sun = np.array([-0.70, 0.25, 0.67], np.float32)
    lit = lambert(ground, sun) * (0.35 + 0.65 * _sunlit(ground, 0.85))
    depth, east, north = _march(rng, ground, height, width, horizon)
    east_px, north_px = east % _TILE, north % _TILE
    tall, light, steep = (
        cv2.remap(layer, east_px, north_px, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        for layer in (ground, lit, _steepness(ground))
    )
    detail = _detail(rng, east, north, depth, width)
    colour = _ground_colour(rng, tall + 6 * detail, steep + 0.25 * detail)
    colour *= (light * np.exp(0.55 * detail))[..., None]
    haze = np.exp(-depth / 900)[..., None]
    air = np.array([0.42, 0.52, 0.66], np.float32)
    sky = _sky(rng, height, width, horizon, clouds)
    land = np.isfinite(depth)[..., None]
    return np.where(land, colour * haze + air * (1 - haze), sky).astype(np.float32)


def _march(
    rng: np.random.Generator, ground: np.ndarray, height: int, width: int, horizon: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each pixel sees: depth (inf for the sky), east and north, each (height, width) float32 in map units.

    One ray per column; a sample is seen where it stands above all nearer ones, so a running minimum over the
    depths gives the silhouettes and its histogram over the rows says which sample each pixel shows.
    """
    focal, samples = np.float32(width * 0.9), 640
    depths = np.geomspace(8, 2000, samples, dtype=np.float32)[:, None]
    yaw, home = rng.uniform(0, 2 * np.pi), rng.uniform(0, _TILE, 2)
    side = ((np.arange(width, dtype=np.float32) - width / 2) / focal)[None, :]
    toward = (np.cos(yaw) - np.sin(yaw) * side, np.sin(yaw) + np.cos(yaw) * side)
    x, y = ((home[k] + depths * toward[k]).astype(np.float32) % _TILE for k in range(2))
    seen = cv2.remap(ground, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    eye = seen[: samples // 3].max() * 0.6 + 30
    rows = np.minimum.accumulate(horizon * height - focal * (seen - eye) / depths, axis=0)
    bins = np.clip(np.ceil(rows), 0, height).astype(np.int64)
    counts = np.bincount((bins * width + np.arange(width)).ravel(), minlength=(height + 1) * width)
    shown = samples - counts.reshape(height + 1, width).cumsum(axis=0)[:height]
    after = np.clip(shown, 1, samples - 1)
    low, high = np.take_along_axis(rows, after - 1, 0), np.take_along_axis(rows, after, 0)
    part = np.clip((low - np.arange(height)[:, None]) / np.maximum(low - high, 1e-3), 0, 1)
    depth = (depths[after - 1, 0] * (1 - part) + depths[after, 0] * part).astype(np.float32)
    east, north = ((home[k] + depth * toward[k]).astype(np.float32) for k in range(2))
    return np.where(shown < samples, depth, np.inf).astype(np.float32), east, north


def _detail(rng: np.random.Generator, east: np.ndarray, north: np.ndarray, depth: np.ndarray, width: int) -> np.ndarray:
    """(H, W) float32 about [-2, 2]: octaves of noise on the ground, each only as far as the pixels resolve it."""
    tile = fractal(rng, 512, 512, 0.0)
    tile = cv2.GaussianBlur(np.tile(tile, (2, 2)), (0, 0), 1.6)[256:768, 256:768]
    tile = tile / tile.std()
    reach = np.where(np.isfinite(depth), depth, 2000.0)
    footprint = np.maximum(reach / (0.9 * width), np.abs(np.gradient(reach, axis=0)) * 0.3)
    total = np.zeros_like(east)
    for octave in range(10):
        texel = np.float32(4.0 / 2**octave)
        weight = np.clip(3.5 * texel / footprint - 0.6, 0, 1)
        if weight.max() > 0:
            layer = cv2.remap(
                tile, (east / texel) % 512, (north / texel) % 512, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
            )
            total += weight * layer * np.float32(0.55)
    return total


def _ground_colour(rng: np.random.Generator, tall: np.ndarray, steep: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32: rock where it is steep, snow or heath where it is high, grass in the valleys."""
    rock, grass = np.array([0.36, 0.30, 0.24], np.float32), np.array([0.15, 0.20, 0.06], np.float32)
    top = np.array([[0.85, 0.88, 0.95], [0.32, 0.26, 0.12]], np.float32)[rng.integers(2)]
    high = np.clip((tall - 22) / 8, 0, 1)[..., None]
    bare = np.clip((steep - 0.55) * 4, 0, 1)[..., None]
    return (grass * (1 - high) + top * high) * (1 - bare) + rock * bare


def _sky(rng: np.random.Generator, height: int, width: int, horizon: float, clouds: bool) -> np.ndarray:
    up = np.clip(1 - np.arange(height, dtype=np.float32) / (horizon * height + 60), 0, 1)[:, None, None]
    air, zenith = np.array([0.62, 0.72, 0.85], np.float32), np.array([0.13, 0.27, 0.58], np.float32)
    clear = np.broadcast_to(air * (1 - up**0.6) + zenith * up**0.6, (height, width, 3))
    if not clouds:
        return clear
    puff = cv2.resize(fractal(rng, height, width // 2, 1.7), (width, height), interpolation=cv2.INTER_CUBIC)
    cover = np.clip(puff * 0.7 + 0.1, 0, 1)[..., None]
    lit = np.clip(0.85 - 0.25 * (np.roll(puff, -12, axis=0) - puff) - 0.12 * puff, 0.3, 1.1)[..., None]
    return clear * (1 - cover) + lit * cover


def _sunlit(ground: np.ndarray, slope: float) -> np.ndarray:
    """(S, S) float32 in [0, 1]: 0 where higher ground lies between a place and a sun low in the west (x = 0)."""
    fall = np.tile(ground, (1, 2)) + slope * np.arange(2 * _TILE, dtype=np.float32)
    blocked = (np.maximum.accumulate(fall, axis=1) - fall)[:, _TILE:]
    return cv2.GaussianBlur(np.exp(-blocked / 1.5).astype(np.float32), (0, 0), 0.8)


def _steepness(ground: np.ndarray) -> np.ndarray:
    return np.hypot(np.gradient(ground, axis=0), np.gradient(ground, axis=1)).astype(np.float32)
