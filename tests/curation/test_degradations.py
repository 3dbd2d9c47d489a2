"""Degraded copies compare with their picture, are the same each time, and are what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from curation.degradations import FOR_CALIBRATION, Degradation, degrade
from tests.curation.scorers.conftest import textured


@pytest.mark.parametrize("kind", FOR_CALIBRATION, ids=lambda kind: kind.name)
def test_a_copy_has_its_pictures_size_to_a_few_pixels_and_is_another_picture(kind: Degradation) -> None:
    pixels = textured(301, 403)
    before = pixels.copy()
    copy = degrade(pixels, kind.kind, kind.amount, seed=1)
    assert copy.dtype == np.uint8 and copy.flags.c_contiguous
    assert np.abs(np.subtract(copy.shape, pixels.shape)).max() <= 2
    assert copy.shape != pixels.shape or (copy != pixels).any()
    assert (pixels == before).all()
    assert (copy == degrade(pixels, kind.kind, kind.amount, seed=1)).all()


def test_the_noise_is_the_seeds() -> None:
    pixels = np.full((128, 128, 3), 128, np.uint8)
    first, second = (degrade(pixels, "noise", 10.0, seed=seed).astype(float) for seed in (1, 2))
    assert first.std() == pytest.approx(10, rel=0.02)
    assert (first - second).std() == pytest.approx(10 * 2**0.5, rel=0.02)


@pytest.mark.parametrize("share", [0.25, 0.4, 0.6])
def test_shares_are_of_the_area(share: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (400, 600, 3), dtype=np.uint8)
    assert (degrade(pixels, "product", share, seed=0) == 255).all(axis=2).mean() == pytest.approx(share, abs=0.01)
    for kind in ("constant", "gradient"):
        kept = (degrade(pixels, kind, share, seed=0) == pixels).all(axis=2)
        assert kept.mean() == pytest.approx(1 - share, abs=0.01)


def test_an_enlarged_copy_shows_the_middle() -> None:
    pixels = np.zeros((400, 600, 3), np.uint8)
    pixels[100:300, 150:450] = 255
    assert degrade(pixels, "bicubic", 2.0, seed=0).min() > 250


def test_marks_are_where_they_should_be() -> None:
    pixels = np.full((900, 1200, 3), 100, np.uint8)
    corner = degrade(pixels, "corner-mark", 0.6, seed=0) != pixels
    assert corner[675:, 800:].any() and not corner[:600].any() and not corner[:, :700].any()
    tiled = degrade(pixels, "tiled-mark", 0.35, seed=0) != pixels
    assert all(tiled[top : top + 300, left : left + 300].any() for top in (0, 300, 600) for left in (0, 300, 600, 900))
    assert tiled.mean() < 0.3


def test_an_unknown_kind_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="'fog' is no degradation: give one of blur, noise"):
        Degradation(kind="fog", amount=1.0)
