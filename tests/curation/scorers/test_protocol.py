"""Flat is nothing but near-constant areas; what merely can't be scored says so."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from curation.records import Reason, Stage
from curation.scorers.protocol import refuse_flat, scored, textured_share
from tests.curation.scorers.conftest import textured


def as_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("grey", [0, 7, 128, 255])
def test_a_constant_picture_is_flat_through_jpeg_too(grey: int) -> None:
    constant = np.full((200, 300, 3), grey, np.uint8)
    for pixels in (constant, as_jpeg(constant, 30)):
        assert textured_share(pixels) == 0
        refused = refuse_flat(("niqe", "nima"), pixels)
        assert refused is not None and refused.refusal is not None
        assert (refused.refusal.reason, refused.refusal.stage) == (Reason.FLAT, Stage.SCORE)
        assert list(refused.scores) == ["niqe", "nima"] and all(map(math.isnan, refused.scores.values()))


def test_a_slow_ramp_is_flat() -> None:
    ramp = np.linspace(100, 140, 1024).astype(np.uint8)[:, None, None]
    assert refuse_flat(("niqe",), np.broadcast_to(ramp, (1024, 1024, 3))) is not None


@pytest.mark.parametrize("shape", [(256, 256), (97, 333), (31, 500), (1, 1), (5, 2)])
def test_texture_is_seen_at_any_size(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert textured_share(pixels) == (1 if min(shape) > 1 else 0)


def test_the_share_counts_area() -> None:
    pixels = np.full((320, 640, 3), 90, np.uint8)
    pixels[:, :160] = textured(320, 160)
    assert textured_share(pixels) == 0.25
    assert refuse_flat(("niqe",), pixels) is None


def test_a_failure_keeps_the_other_scores_and_names_each_metric() -> None:
    result = scored({"niqe": 3.5, "brisque": 1.0, "nima": 5.0}, {"brisque": "too small", "nima": "gives nan"})
    assert result.scores["niqe"] == 3.5 and math.isnan(result.scores["brisque"])
    assert list(result.scores) == ["niqe", "brisque", "nima"]
    assert result.refusal is not None and result.refusal.reason is Reason.UNSCORABLE
    assert result.refusal.detail == "brisque: too small; nima: gives nan"
