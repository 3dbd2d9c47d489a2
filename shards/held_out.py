"""What of a set is not trained on: whole shards, by their numbers.

Shards that are added later are trained on. A picture's patches can lie on both sides of a shard's end; those of a
picture that is trained on don't belong to what is held out. Only neighbours have to be looked at: shards are packed
from patches in a row, picture by picture, so that a picture never skips a shard.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shards import index
from shards.manifest import Manifest
from shards.store import Store


def check(held: Sequence[int], count: int, root: str) -> None:
    """Raises ValueError where these can't be held out of a set of `count` shards."""
    if not held:
        return
    if count == 1:
        raise ValueError(
            f"{root} has one shard, of which nothing can be held out: cut it into more, with dynet-shard --max-shard-mb"
        )
    if held[-1] >= count:
        raise ValueError(f"held_out has shard {held[-1]}: {root} has {count}, which count from 0")
    if len(held) == count:
        raise ValueError(f"held_out has all {count} shards of {root}: leave some to train on")


def in_both(store: Store, there: Manifest, held: Sequence[int]) -> np.ndarray:
    """(n, 2) int64 rows of shard and slot: what is held out of pictures that other shards have patches of too.

    Raises ManifestError where the index can't be read.
    """
    beside = {number + step for number in held for step in (-1, 1)} - set(held)
    trained: set[str] = set()
    for number in beside & set(range(len(there.shards))):
        trained.update(index.read_one(store, there, number, ["key"])["key"].to_pylist())
    found = []
    for number in held:
        rows = index.read_one(store, there, number, ["key", "slot"]).to_pylist()
        found += [(number, row["slot"]) for row in rows if row["key"] in trained]
    return np.array(found, np.int64).reshape(-1, 2)
