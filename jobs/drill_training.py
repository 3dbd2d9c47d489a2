"""Faults of training, and of weights: losses that are no numbers, a weight file that is not what it was."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import torch
from torch.nn.modules.module import register_module_forward_hook

from curation.fit import NIQE_FILE
from dynet import checkpoint
from dynet.model import DyNet
from dynet.train import MOST_SKIPPED_IN_A_ROW
from jobs.drill_compare import newest, not_finite
from jobs.drill_fault import Fault, Found, quoted
from jobs.drill_toy import STEPS, TRAINING, Toy, said
from shards.store import LocalStore

FOR_GOOD: Final = range(10_000)


@contextmanager
def spoilt(steps: range) -> Iterator[list[int]]:
    """While it lasts the network gives NaN at these of its calls, counted from 0; the list has which."""
    struck: list[int] = []
    calls = 0

    def spoil(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        nonlocal calls
        if not isinstance(module, DyNet):
            return None
        calls += 1
        if calls - 1 not in steps:
            return None
        struck.append(calls - 1)
        return output * float("nan")

    changing: Any = spoil  # its type says that a hook gives nothing, and what it gives is taken
    hook = register_module_forward_hook(changing)
    try:
        yield struck
    finally:
        hook.remove()


def nan_once(steps: range, toy: Toy) -> Found:
    """One loss that is no number changes nothing but a count."""
    out = LocalStore(toy.fresh("nan") / "run")
    with spoilt(steps) as struck:
        sentence = said(lambda: toy.train(out))
    broken = [f"it said: {sentence}"] if sentence else not_finite(out)
    if not sentence:
        trainer = newest(out)["trainer"]
        broken += [] if trainer["step"] == STEPS else [f"it ended at step {trainer['step']} of {STEPS}"]
        broken += [] if trainer["skipped"] == len(struck) else [f"{trainer['skipped']} steps were counted as skipped"]
    return Found(
        struck=f"NaN at step {', '.join(str(step + 1) for step in struck)}" if struck else "",
        held=f"that step skipped, all {STEPS} done, weights finite",
        broken=tuple(broken),
    )


def nan_for_good(steps: range, toy: Toy) -> Found:
    """Losses that stay no numbers stop the run with a remedy; the checkpoint before them stands."""
    out = LocalStore(toy.fresh("nan") / "run")
    shutil.copytree(toy.calm_run.folder, out.folder)
    more = STEPS + 2 * MOST_SKIPPED_IN_A_ROW
    recipe = replace(
        TRAINING,
        settings=replace(TRAINING.settings, steps=more),
        every=replace(TRAINING.every, checkpoint=more),
    )
    with spoilt(steps) as struck:
        sentence = said(lambda: toy.train(out, recipe=recipe))
    name = checkpoint.name_of(STEPS)
    broken = [] if "lower lr" in sentence else [f"no word of the remedy: {sentence or 'nothing was said'}"]
    broken += [] if checkpoint.steps(out)[-1:] == [STEPS] else [f"there are checkpoints {checkpoint.steps(out)}"]
    broken += [] if out.read(name) == toy.calm_run.read(name) else ["the checkpoint before was touched"]
    return Found(
        struck=quoted(sentence) if struck else "",
        held="the checkpoint before stands",
        broken=tuple(broken),
    )


def altered_weights(flip: int, toy: Toy) -> Found:
    """A weight file with another byte is refused before the first download."""
    folder = toy.fresh("weights") / "weights"
    shutil.copytree(toy.weights, folder)
    body = bytearray((folder / NIQE_FILE).read_bytes())
    body[len(body) // 2] ^= flip
    (folder / NIQE_FILE).write_bytes(body)
    store = LocalStore(folder.parent / "store")
    before = toy.server.requests.total()
    sentence = said(lambda: toy.filter(toy.job(store, weights=folder)))
    asked = toy.server.requests.total() - before
    broken = [] if "was altered" in sentence else [f"no word of it: {sentence or 'nothing was said'}"]
    broken += [f"{asked} downloads before"] if asked else []
    broken += ["a store was begun"] if next(iter(store.list("")), None) else []
    return Found(
        struck=quoted(_first_clause(sentence)) if flip else "",
        held="no download, no store",
        broken=tuple(broken),
    )


def _first_clause(sentence: str) -> str:
    """Without the folder, whose name is long and the drill's own."""
    return f"{NIQE_FILE}{sentence.partition(NIQE_FILE)[2]}".partition(",")[0]


FAULTS: Final = (
    Fault(
        name="nan-once",
        does="one loss is NaN: its step is skipped and counted",
        run=functools.partial(nan_once, range(2, 3)),
    ),
    Fault(
        name="nan-for-good",
        does="every loss is NaN: the run stops with its remedy, the last checkpoint stands",
        run=functools.partial(nan_for_good, FOR_GOOD),
    ),
    Fault(
        name="altered-weights",
        does="a metric's weight file with a flipped bit is refused before a download",
        run=functools.partial(altered_weights, 1),
    ),
)
