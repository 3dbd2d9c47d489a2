"""Samples taken out of a set: first by tombstones, then, on demand, out of the tars.

A tombstone costs a row and takes effect at once: who reads the next epoch by the new manifest skips the slot. The
tar is written anew, under a new name, only where the bytes have to go.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards import index, tar
from shards.format import JSON_SUFFIX
from shards.index import Entry
from shards.manifest import FOLDER, Manifest, Shard
from shards.spool import spool
from shards.store import Store

_VERSIONED = re.compile(r"(-v[0-9]+)?\.tar$")


def places_of(store: Store, known: Manifest, keys: Set[str], removed: np.ndarray, version: int) -> np.ndarray:
    """The tombstones `removed`, (n, 3) of shard, slot, version, and behind them those of all samples of `keys`."""
    there = {(shard, slot) for shard, slot, _ in removed.tolist()}
    found = [
        (number, slot, version)
        for number, table in enumerate(index.read(store, known, ["key", "slot"]))
        for key, slot in zip(table["key"].to_pylist(), table["slot"].to_pylist(), strict=True)
        if key in keys and (number, slot) not in there
    ]
    return np.concatenate([removed, np.array(found, np.int64).reshape(-1, removed.shape[1])])


def unpurged(store: Store, known: Manifest, removed: np.ndarray) -> Iterator[int]:
    """The numbers of the shards whose tars still hold samples with a tombstone."""
    for number, table in enumerate(index.read(store, known, ["slot"])):
        if np.isin(table["slot"].to_numpy(), _slots(removed, number)).any():
            yield number


def purge(store: Store, known: Manifest, number: int, removed: np.ndarray, version: int) -> tuple[Shard, pa.Table]:
    """Writes shard `number` without its removed samples, under the name of `version`; with its rows of the index.

    The other samples' bytes and slots stay. Raises ValueError where the tar is not that of the manifest.
    """
    shard = known.shards[number]
    entries = index.from_table(index.read_one(store, known, number))
    dead = set(_slots(removed, number).tolist())
    stay = [one for one in entries if one.slot not in dead]
    name = name_at(shard.name, version)
    with tempfile.TemporaryDirectory(prefix="million-ird-") as folder:
        old, new = Path(folder) / "old.tar", Path(folder) / name
        if spool(store, FOLDER + shard.name, old).sha256 != shard.sha256:
            raise ValueError(f"{store.root}/{FOLDER}{shard.name} is damaged: dynet-shard fsck --repair first")
        placed = {one.name: one for one in tar.write(new, members_at(old, stay))}
        written = store.write(FOLDER + name, new)
    moved = [_moved(one, placed) for one in stay]
    made = Shard(name=name, bytes=written.size, sha256=written.sha256, samples=len(stay), slots=shard.slots)
    return made, index.to_table(moved)


def name_at(name: str, version: int) -> str:
    """`train-000042-v3.tar` of `train-000042.tar` or `train-000042-v2.tar`: no name serves twice."""
    return _VERSIONED.sub(f"-v{version}.tar", name)


def slots_left(shard: Shard, number: int, removed: np.ndarray) -> list[int]:
    """The slots of the samples in the tar, ascending: its name says up to which version it was purged."""
    match = _VERSIONED.search(shard.name)
    until = int(match[1][2:]) if match and match[1] else 0
    gone = set(_slots(removed[removed[:, 2] <= until], number).tolist())
    return [slot for slot in range(shard.slots) if slot not in gone]


def members_at(path: Path, entries: Sequence[Entry]) -> Iterator[tuple[str, bytes]]:
    """The (name, bytes) of the two members of each sample, as they lie in the tar at `path`."""
    with path.open("rb") as file:
        for one in entries:
            windows = [
                (f"{one.sample}.{one.suffix}", one.data_offset, one.data_size),
                (f"{one.sample}.{JSON_SUFFIX}", one.json_offset, one.json_size),
            ]
            for name, offset, size in sorted(windows):
                file.seek(offset)
                yield name, file.read(size)


def _slots(removed: np.ndarray, number: int) -> np.ndarray:
    return removed[removed[:, 0] == number, 1]


def _moved(one: Entry, placed: dict[str, tar.Placed]) -> Entry:
    data, text = placed[f"{one.sample}.{one.suffix}"], placed[f"{one.sample}.{JSON_SUFFIX}"]
    return replace(one, data_offset=data.offset, json_offset=text.offset)
