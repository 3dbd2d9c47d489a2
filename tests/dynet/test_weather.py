"""Rain and haze drawn over clean pictures: what they add, and that only the generator decides."""

from __future__ import annotations

import numpy as np
import pytest

from dynet.randomness import generator
from dynet.weather import hazy, rainy

GREY = np.full((96, 128, 3), 90, np.uint8)


@pytest.mark.parametrize("weather", [rainy, hazy])
def test_the_same_generator_draws_the_same(weather: object) -> None:
    assert callable(weather)
    one, again, other = (weather(GREY, generator(name)) for name in ("a", "a", "b"))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert one.shape == GREY.shape and one.dtype == np.uint8


def test_rain_only_adds_light_and_leaves_gaps() -> None:
    for number in range(20):
        made = rainy(GREY, generator(str(number)))
        assert (made >= GREY).all() and (made > 140).any()
        assert 0.02 < (made > GREY + 5).any(axis=2).mean() < 0.9


def test_haze_draws_every_level_towards_its_light() -> None:
    levels = np.arange(256, dtype=np.uint8)[None, :, None].repeat(64, axis=0).repeat(3, axis=2)
    for number in range(20):
        made = hazy(levels, generator(str(number))).astype(int)
        contrast = (made[:, 200] - made[:, 50]).mean()
        assert 0 < contrast < 150  # of 150
        assert made[:, 0].mean() > 15  # black is no longer black
        assert made[0].std() < made[-1].std()  # what is above lies farther away
