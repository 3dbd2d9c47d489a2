"""Which patch goes into which shard."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.cutting import Cuttings
from pipelines.packing import _spans


@settings(max_examples=200, deadline=None)
@given(
    pictures=st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["jpg", "png"])), min_size=1, max_size=30),
    seed=st.integers(0, 99),
    most=st.integers(2_000, 20_000),
)
def test_a_picture_never_skips_a_shard(pictures: list[tuple[int, str]], seed: int, most: int) -> None:
    """`shards.held_out` looks for a held-out picture's other patches in the neighbours only."""
    random = np.random.default_rng(seed)
    units: list[list[tuple[int, str]]] = [[], [], []]
    for number, (count, suffix) in enumerate(pictures):
        units[number * 3 // len(pictures)] += [(number, suffix)] * count
    cuttings = [_cuttings(str(at), [suffix for _, suffix in unit], random) for at, unit in enumerate(units)]
    where: dict[int, list[int]] = {}
    for shard, span in enumerate(_spans(cuttings, most)):
        for unit, which in span:
            for one in which:
                where.setdefault(units[int(unit)][one][0], []).append(shard)
    assert sum(map(len, where.values())) == sum(map(len, units))
    assert all(later - earlier <= 1 for shards in where.values() for earlier, later in pairwise(sorted(shards)))


def _cuttings(name: str, suffixes: list[str], random: np.random.Generator) -> Cuttings:
    return Cuttings(
        name=name,
        fingerprint="",
        pictures={},
        with_patches={},
        patches={},
        flat={},
        stored=tuple(int(size) for size in random.integers(500, 3000, len(suffixes))),
        suffixes=tuple(suffixes),
    )
