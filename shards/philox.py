"""The first numbers of NumPy's Philox for a key, without making one of its generators, which takes longer.

Philox4x64-10 (Salmon et al. 2011) is four words of counter and two of key through ten rounds; NumPy counts from 1.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from shards.segments import compiled

_MULTIPLIERS: Final = (np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157))
_STEPS: Final = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B))
_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)
_ROUNDS: Final = 10


@compiled
def first_two(key: np.ndarray) -> tuple[int, int]:
    """`np.random.Philox(key=key).random_raw(2)` for a key of (2,) uint64."""
    words = (np.uint64(1), np.uint64(0), np.uint64(0), np.uint64(0))
    one, other = key[0], key[1]
    for _ in range(_ROUNDS):
        high, second = _high(_MULTIPLIERS[0], words[0]), _high(_MULTIPLIERS[1], words[2])
        words = (
            second ^ words[1] ^ one,
            _MULTIPLIERS[1] * words[2],
            high ^ words[3] ^ other,
            _MULTIPLIERS[0] * words[0],
        )
        one, other = one + _STEPS[0], other + _STEPS[1]
    return words[0], words[1]


@compiled
def _high(a: np.uint64, b: np.uint64) -> np.uint64:
    """The upper 64 bits of the product."""
    low = (a & _LOW) * (b & _LOW)
    middle = (a >> _HALF) * (b & _LOW) + (low >> _HALF)
    other = (a & _LOW) * (b >> _HALF) + (middle & _LOW)
    return (a >> _HALF) * (b >> _HALF) + (middle >> _HALF) + (other >> _HALF)
