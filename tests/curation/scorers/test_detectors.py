"""Detectors rise with what they look for, leave good pictures alone, and need no weights."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.decode import decode
from curation.degradations import degrade
from curation.records import Picture, ledger_schema
from curation.scorers.detectors import DETECTORS, uniform_border, upscaling
from tests.curation.scorers.conftest import textured

ENLARGED = 12.0  # decibels: above, the default recipe refuses
FRAMED = 0.9


def noise(pixels: np.ndarray, deviation: float) -> np.ndarray:
    return degrade(pixels, "noise", deviation, seed=0)


def test_every_detector_can_be_a_column_of_the_ledger() -> None:
    assert ledger_schema(tuple(DETECTORS)).names[-len(DETECTORS) :] == [f"score_{name}" for name in DETECTORS]


@pytest.mark.parametrize("name", DETECTORS)
def test_a_score_is_of_the_pixels_alone(name: str) -> None:
    pixels = textured(256, 448)
    before = pixels.copy()
    measure = DETECTORS[name].measure
    assert measure(pixels) == measure(pixels.copy())
    assert measure(np.ascontiguousarray(pixels[:, ::-1])) == pytest.approx(measure(pixels), abs=0.2)
    assert (pixels == before).all()


def test_upscaling_rises_with_blur_until_rounding_is_all_there_is() -> None:
    pixels = textured(512, 512)
    scores = [upscaling(pixels), *(upscaling(degrade(pixels, "blur", d, seed=0)) for d in (0.5, 1.0, 2.0))]
    assert all(more > less + 3 for less, more in pairwise(scores)), scores
    assert upscaling(degrade(pixels, "blur", 8.0, seed=0)) > ENLARGED


@pytest.mark.parametrize(
    ("kind", "factor"), [("bicubic", 2), ("bicubic", 2.5), ("bicubic", 3), ("bicubic", 4), ("lanczos", 2)]
)
def test_an_enlarged_picture_is_seen_also_through_jpeg(kind: str, factor: float) -> None:
    pixels = textured(1024, 1024)
    enlarged = degrade(pixels, kind, factor, seed=0)
    assert upscaling(pixels) < 8 < ENLARGED < upscaling(enlarged)
    assert upscaling(degrade(enlarged, "jpeg", 90, seed=0)) > ENLARGED


def test_a_sharp_subject_before_a_blurred_background_is_sharp() -> None:
    pixels = textured(1024, 1024)
    portrait = cv2.GaussianBlur(pixels, (0, 0), 6)
    portrait[384:640, 384:640] = pixels[384:640, 384:640]
    assert upscaling(portrait) == pytest.approx(upscaling(pixels), abs=1.5)
    assert upscaling(cv2.GaussianBlur(pixels, (0, 0), 6)) > ENLARGED


def test_a_clear_sky_with_its_noise_does_not_speak_for_an_enlarged_picture() -> None:
    """Noise is all finest octave: blocks with nothing else must not count as the sharpest."""
    enlarged = degrade(textured(1024, 1024), "bicubic", 3, seed=0)
    enlarged[:512] = noise(np.full((512, 1024, 3), 180, np.uint8), 1.5)
    assert upscaling(enlarged) > ENLARGED


def test_the_strips_of_a_tall_picture_are_all_looked_at() -> None:
    blurred = cv2.GaussianBlur(textured(1300, 320), (0, 0), 3)
    for top in (0, 600, 1100):
        sharp = blurred.copy()
        sharp[top : top + 192] = textured(192, 320, seed=top)
        assert upscaling(sharp) < upscaling(blurred) - 5


@pytest.mark.parametrize(
    "pixels",
    [np.full((512, 512, 3), 90, np.uint8), textured(63, 900), textured(900, 63), textured(64, 128)],
    ids=["flat", "low", "narrow", "two blocks"],
)
def test_without_textured_blocks_there_is_no_number(pixels: np.ndarray) -> None:
    assert math.isnan(upscaling(pixels))


@pytest.mark.parametrize("share", [0.25, 0.35, 0.6])
def test_a_product_on_white_has_one_border_also_after_jpeg(share: float) -> None:
    product = degrade(textured(600, 800), "product", share, seed=0)
    assert uniform_border(product) > FRAMED
    assert uniform_border(degrade(product, "jpeg", 75, seed=0)) > FRAMED


def test_the_share_of_the_border_worked_out_by_hand() -> None:
    """A ring of 4 pixels round 400 x 200: black but for its lowest 4 rows, 400 of 2 (400 + 192) columns of it."""
    pixels = np.zeros((200, 400, 3), np.uint8)
    pixels[4:-4, 4:-4] = textured(192, 392)
    pixels[-4:] = (200, 30, 30)
    assert uniform_border(pixels) == pytest.approx(1 - 400 / 1184)


def test_a_colour_counts_with_what_compression_makes_of_it_and_no_more() -> None:
    near = np.full((200, 200, 3), 100, np.uint8)
    near[::2] += 4
    assert uniform_border(near) == 1.0
    near[::2] += 8
    assert uniform_border(near) < 0.6


def test_texture_and_a_sky_are_no_uniform_border() -> None:
    pixels = textured(600, 800)
    assert uniform_border(pixels) < 0.2
    pixels[:300] = (120, 160, 220)
    assert uniform_border(pixels) < 0.6


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 300, 3), (64, 1, 3)])
def test_the_smallest_pictures_have_a_border_too(shape: tuple[int, int, int]) -> None:
    assert uniform_border(np.full(shape, 7, np.uint8)) == 1.0


@pytest.mark.slow
def test_photographs_pass_and_their_enlarged_middles_do_not(photos: Path) -> None:
    """Of all 56 at full size the highest scores are 11.7 dB and 0.92."""
    clean, enlarged = [], []
    for path in sorted(photos.glob("*.jpg"))[::5]:
        picture = decode(path.read_bytes())
        assert isinstance(picture, Picture)
        clean.append(upscaling(picture.pixels))
        enlarged.append(upscaling(degrade(picture.pixels, "bicubic", 2, seed=0)))
        assert uniform_border(picture.pixels) < 0.95
    assert max(clean) < ENLARGED
    assert sum(score > ENLARGED for score in enlarged) >= len(enlarged) - 1
