"""What two runs have to have in common, whatever happened to one of them: ledger, originals, shards, weights.

Each of these functions gives what differs, in words; nothing differs where it gives nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch

from curation import ledger
from curation.records import Row
from dynet import checkpoint
from shards.manifest import MANIFEST, read_manifest
from shards.store import Store

#: What a filtered and sharded store has, but for its lists, its ledger and what is only looked at.
SAME_BYTES = ("recipe.json", "weights/", "images/", "shards/")


def rows_of(store: Store) -> list[Row]:
    """All rows of a store's ledger, in list order."""
    return sorted(
        (row for unit in ledger.units(store) for row in ledger.read(store, unit)), key=lambda row: row.link.position
    )


def undated(rows: Sequence[Row]) -> list[str]:
    """What the contract promises of a ledger: all but when it was, how long it took and how often it was tried."""
    return [
        repr(replace(row, seconds=0.0, ended=0.0, attempts=0, bytes_read=0, bytes_spared=0)) for row in rows
    ]  # as text, NaN equals NaN


def different_rows(calm: Store, other: Store, added: Collection[str] = ()) -> list[str]:
    """Between two ledgers, the rows of the `added` links (of the other alone) left out."""
    mine = [row for row in rows_of(other) if row.link.url not in added]
    theirs = rows_of(calm)
    if len(mine) != len(theirs):
        return [f"the ledger has {len(mine)} rows of {len(theirs)}"]
    pairs = zip(undated(theirs), undated(mine), mine, strict=True)
    return [f"the ledger has another row for {row.link.url}" for one, two, row in pairs if one != two]


def different_bytes(calm: Store, other: Store, prefixes: Sequence[str] = SAME_BYTES) -> list[str]:
    """Between the objects of two stores under these names."""
    found = []
    for prefix in prefixes:
        names, others = set(calm.list(prefix)), set(other.list(prefix))
        found += [f"{name} is missing" for name in sorted(names - others)]
        found += [f"{name} is one too many" for name in sorted(others - names)]
        found += [f"{name} has other bytes" for name in sorted(names & others) if calm.read(name) != other.read(name)]
    return found


def unlike_manifest(target: Store) -> list[str]:
    """What in a published set is not what its manifest says."""
    if not target.exists(MANIFEST):
        return ["there is no manifest"]
    return [
        f"{one.name} is not what the manifest says"
        for one in read_manifest(target).files
        if hashlib.sha256(target.read(f"shards/{one.name}")).hexdigest() != one.sha256
    ]


def different_sets(calm: Store, target: Store) -> list[str]:
    """Between a set and what was published of it."""
    if broken := unlike_manifest(target):
        return broken
    return [] if read_manifest(target) == read_manifest(calm) else ["another set was published"]


def different_weights(calm: Store, other: Store) -> list[str]:
    """Between the newest checkpoints of two training runs."""
    if checkpoint.steps(other)[-1:] != checkpoint.steps(calm)[-1:]:
        return [f"the newest checkpoint is of step {checkpoint.steps(other)[-1:]}, not {checkpoint.steps(calm)[-1:]}"]
    one, two = (newest(store) for store in (calm, other))
    theirs, mine = one["trainer"]["model"], two["trainer"]["model"]
    found = [f"the weights {name} differ" for name in theirs if not torch.equal(theirs[name], mine[name])]
    return found + ([] if one["stream"] == two["stream"] else ["the stream stands elsewhere"])


def not_finite(run: Store) -> list[str]:
    """Weights of the newest checkpoint that are no numbers."""
    model = newest(run)["trainer"]["model"]
    return [f"the weights {name} are not finite" for name, tensor in model.items() if not tensor.isfinite().all()]


def newest(run: Store) -> dict[str, Any]:
    """The state in the newest checkpoint, as it lies there."""
    return checkpoint.load(run, checkpoint.steps(run)[-1])
