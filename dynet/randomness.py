"""Generators seeded by a text: what is drawn for something depends on its name, and on nothing that ran before."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence


def generator(drawn: str) -> np.random.Generator:
    """The generator of `drawn`: seed, epoch, purpose and name of what is drawn, as one text."""
    digest: Any = _Hash(hashlib.sha256(drawn.encode()).digest())  # NumPy takes any ISeedSequence, its stubs do not
    return np.random.Generator(np.random.SFC64(digest))


class _Hash(ISeedSequence):
    """Seeds a bit generator with a hash as it is: NumPy's own way would hash it once more, at four times the time."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        return np.frombuffer(self._digest, dtype)[:n_words]
