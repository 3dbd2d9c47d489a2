"""Checkpoints in a store, local or S3: written whole or not at all, checked when read, the last few kept.

checkpoints/step-000001000.pt      what `torch.save` makes of the state
checkpoints/step-000001000.json    its size and SHA-256; written last: this file is the commit

One that doesn't have the bytes it should have is passed over with a warning, and the one before it is taken. An interim
one, of a run that was asked to stop between two others, says so in its commit and goes once there is a newer one.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
import re
from collections.abc import Mapping
from typing import Any, Final

import torch

from shards.store import Store

FOLDER: Final = "checkpoints/"
_COMMIT: Final = re.compile(re.escape(FOLDER) + r"step-(\d{9,})\.json")
#: What `torch.load` raises for bytes that aren't a checkpoint; the last four for some that nearly are.
UNREADABLE: Final = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, ValueError),
    *(LookupError, TypeError, AttributeError, AssertionError),
)
_log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """What lies there can't be taken for a checkpoint; the message says what to do."""


def name_of(step: int) -> str:
    """Where the checkpoint after this step lies."""
    return f"{FOLDER}step-{step:09d}.pt"


def steps(store: Store) -> list[int]:
    """After which steps there is one, ascending."""
    found = (_COMMIT.fullmatch(name) for name in store.list(FOLDER))
    return sorted(int(match[1]) for match in found if match)


def save(store: Store, step: int, state: Mapping[str, Any], keep: int, *, interim: bool = False) -> None:
    """Writes the state (tensors and plain values) and lets go all but the newest `keep`, older interim ones first."""
    sink = io.BytesIO()
    torch.save(dict(state), sink)
    written = store.write(name_of(step), sink.getvalue())
    commit = {"step": step, "bytes": written.size, "sha256": written.sha256, "interim": interim}
    store.write(_commit_of(step), json.dumps(commit).encode())
    there = steps(store)
    kept = [one for one in there if one == step or not _is_interim(store, one)][-keep:]
    for old in sorted({*there}.difference(kept)):
        drop(store, old)


def drop(store: Store, step: int) -> None:
    """Takes one away: its commit first."""
    store.delete(_commit_of(step))
    store.delete(name_of(step))


def load(store: Store, step: int) -> dict[str, Any]:
    """The state after that step, its tensors in CPU memory. Raises CheckpointError where it isn't whole."""
    try:
        commit = json.loads(store.read(_commit_of(step)))
        data = store.read(name_of(step))
        whole = hashlib.sha256(data).hexdigest() == commit["sha256"]
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{store.root}/{name_of(step)} is not whole: {error}") from error
    if not whole:
        raise CheckpointError(f"{store.root}/{name_of(step)} doesn't have the bytes that were written")
    return loaded(data, f"{store.root}/{name_of(step)}")


def newest(store: Store) -> dict[str, Any] | None:
    """The newest state that is whole, None where there is none at all. What is behind it is taken away.

    Raises CheckpointError where there are some, and not one can be read. All of them then stay where they are: what is
    amiss may be this machine, its memory or its version of torch.
    """
    damaged: list[int] = []
    for step in reversed(steps(store)):
        try:
            state = load(store, step)
        except CheckpointError as error:
            _log.warning("%s: going on from the one before", error)
            damaged.append(step)
            continue
        for behind in damaged:
            drop(store, behind)
        return state
    if damaged:
        raise CheckpointError(f"not one checkpoint in {store.root}/{FOLDER} is whole: give another --out to begin anew")
    return None


def loaded(data: bytes, origin: str) -> dict[str, Any]:
    """What a file made by `torch.save` holds: tensors and plain values, and no code is run.

    Raises CheckpointError for anything else.
    """
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        if foreign := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{origin} holds a {foreign[1]}, and only tensors and plain containers are loaded, for safety: "
                "where you trust it, save torch.load(..., weights_only=False)['state_dict'] alone and give that"
            ) from error
        # torch's own words about these two: none, and the advice to let the file run its code
        silent = isinstance(error, (pickle.UnpicklingError, EOFError))
        cause = "" if silent else ": " + str(error).partition("\n")[0]
        raise CheckpointError(f"{origin} is no checkpoint of tensors and plain values{cause}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{origin} holds a {type(state).__name__}, not a checkpoint")
    return state


def _is_interim(store: Store, step: int) -> bool:
    """A commit that can't be read doesn't say so; what lies there is for `newest` to judge."""
    try:
        return bool(json.loads(store.read(_commit_of(step))).get("interim"))
    except (FileNotFoundError, json.JSONDecodeError, AttributeError):
        return False


def _commit_of(step: int) -> str:
    return name_of(step).removesuffix(".pt") + ".json"
