"""Which rows of a list a pilot takes: at random, by a seed, as many from each part of the list as the next."""

from __future__ import annotations

from typing import Final

import numpy as np

STRATA: Final = 100  # equal parts of the list; lists are often sorted by something, if only by when a page was seen


def positions(rows: int, count: int, seed: int) -> np.ndarray:
    """(count,) int64, ascending: `count` of `rows` positions, none twice, every position as likely as any other.

    The list is cut into `STRATA` equal parts (fewer for less than a row each), and each gives its share; whether a
    fraction of a row is one more is drawn, by one throw for all.
    Raises ValueError where `count` is not between 1 and `rows`.
    """
    if not 1 <= count <= rows:
        raise ValueError(f"a pilot of {count} rows of {rows}: give --pilot 1 or more, and no more than there are")
    rng = np.random.default_rng(seed)
    parts = min(STRATA, rows)
    edges = rows * np.arange(parts + 1) // parts
    ticks = np.minimum(((np.arange(count) + rng.random()) * (rows / count)).astype(np.int64), rows - 1)
    wanted = np.diff(np.searchsorted(ticks, edges))
    drawn = [
        start + rng.choice(stop - start, number, replace=False)
        for start, stop, number in zip(edges[:-1], edges[1:], wanted, strict=True)
    ]
    return np.sort(np.concatenate(drawn)).astype(np.int64)
