"""`shards/tombstones-v<version>.parquet`: the samples that were removed, and since which version.

Only places are kept, no names: what was removed on request is not listed for the world to see.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from shards import parquet
from shards.manifest import FORMAT, SCHEMA_VERSION, Manifest, Part, Version, part_name
from shards.store import Store

SCHEMA: Final = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("slot", pa.int32(), nullable=False),
        pa.field("version", pa.int32(), nullable=False),
    ],
    metadata={"format": FORMAT, "schema_version": str(SCHEMA_VERSION)},
)


def write(store: Store, versions: tuple[Version, ...], removed: np.ndarray) -> Part:
    """`removed`: (n, 3) int rows of shard, slot, version; ascending by version, the earlier ones as they were."""
    columns = dict(zip(SCHEMA.names, removed.astype(np.int32).T, strict=True))
    table = pa.table(columns, schema=SCHEMA)
    return parquet.write(store, part_name("tombstones", versions), SCHEMA, [table])


def read(store: Store, manifest: Manifest) -> np.ndarray:
    """(n, 3) int64 rows of shard, slot, version of all that this version of the set has removed.

    Raises ManifestError where the file is missing or broken, or has fewer.
    """
    count = manifest.versions[-1].tombstones
    if manifest.tombstones is None or not count:
        return np.zeros((0, len(SCHEMA)), np.int64)
    table = pa.concat_tables(parquet.read(store, manifest.tombstones))
    rows = np.stack([table[name].to_numpy() for name in SCHEMA.names], axis=1).astype(np.int64)
    return rows[:count]


def fit(manifest: Manifest, removed: np.ndarray) -> bool:
    """Whether these are as many as the manifest has, each a place of its own in one of its shards."""
    slots = np.array([shard.slots for shard in manifest.shards])
    places = removed[:, :2]
    if len(removed) != manifest.versions[-1].tombstones or (removed < 0).any() or (removed[:, 0] >= len(slots)).any():
        return False
    return bool((removed[:, 1] < slots[removed[:, 0]]).all() and len(np.unique(places, axis=0)) == len(removed))
