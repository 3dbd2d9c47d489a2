"""The grid covers what it can without overlap; flatness follows texture, not noise or JPEG blocking."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shards.patches import Box, flat_fraction, grid


def texture(seed: int = 0, size: int = 512) -> np.ndarray:
    """Blotches of 4 pixels, (size, size, 3) uint8: no block of it is flat."""
    coarse = np.random.default_rng(seed).integers(40, 216, (size // 4, size // 4, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def noisy(level: float | np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, sigma, (512, 512, 3))
    return (level + noise).clip(0, 255).round().astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@given(
    height=st.integers(0, 200),
    width=st.integers(0, 200),
    size=st.sampled_from([32, 64]),
    origin=st.tuples(st.integers(0, 15), st.integers(0, 15)),
)
def test_boxes_lie_inside_never_overlap_and_no_further_one_fits(
    height: int, width: int, size: int, origin: tuple[int, int]
) -> None:
    covered = np.zeros((height, width), int)
    boxes = grid(height, width, size, origin)
    for box in boxes:
        window = covered[box.top : box.top + size, box.left : box.left + size]
        assert window.shape == (size, size)
        window += 1
    assert covered.max(initial=0) <= 1
    assert len(boxes) == max(0, height - origin[0]) // size * (max(0, width - origin[1]) // size)


def test_boxes_come_row_by_row() -> None:
    assert grid(100, 130, 64, (3, 2)) == [Box(top=3, left=2, size=64), Box(top=3, left=66, size=64)]


def test_an_origin_within_the_remainder_costs_no_box() -> None:
    assert len(grid(1030, 1039, 512, (1030 % 16, 1039 % 16))) == len(grid(1030, 1039))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_the_fraction_is_a_share_of_the_area(share: float) -> None:
    pixels = texture().copy()
    pixels[: int(512 * share)] = 128
    assert flat_fraction(pixels) == pytest.approx(share, abs=1 / 16)


def test_a_gradient_is_flat() -> None:
    ramp = np.linspace(0, 255, 512)[:, None, None]
    assert flat_fraction(noisy(ramp, 0)) == 1.0


@pytest.mark.parametrize("sigma", [2, 5, 7])
def test_sensor_noise_does_not_make_a_sky_textured(sigma: float) -> None:
    assert flat_fraction(noisy(np.linspace(120, 200, 512)[:, None, None], sigma)) == 1.0


@pytest.mark.parametrize("quality", [20, 50, 75, 95])
def test_jpeg_blocking_does_not_make_a_sky_textured(quality: int) -> None:
    assert flat_fraction(jpeg(noisy(np.linspace(120, 200, 512)[:, None, None], 3), quality)) == 1.0


def test_faint_fine_texture_is_kept() -> None:
    pixels = (texture().astype(float) - 128) / 4 + 128
    assert flat_fraction(pixels.astype(np.uint8)) < 0.1


def test_a_patch_without_whole_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        flat_fraction(np.zeros((500, 512, 3), np.uint8))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("camera_Kodak_DX4900_Zoom.jpg", 0.0, 0.0),  # shrubs and trees to the edges
        ("nextcloud_Toucan.jpg", 0.0, 0.0),
        ("budgie_blue-periwinkle.jpg", 0.9, 1.0),  # a flower before a defocused ground
        ("popos_jake-hills-36605.jpg", 0.9, 1.0),  # night
    ],
)
def test_of_real_photographs_the_flat_patches_are_dropped(photos: Path, name: str, low: float, high: float) -> None:
    with Image.open(photos / name) as image:
        pixels = np.asarray(image.convert("RGB"))
    flat = [
        flat_fraction(pixels[box.top : box.top + 512, box.left : box.left + 512]) > 0.5
        for box in grid(*pixels.shape[:2])
    ]
    assert low <= np.mean(flat) <= high
