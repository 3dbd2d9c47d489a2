"""Faults of processes: workers, drivers and trainers killed, and a run that another cluster picks up."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from dynet import checkpoint
from jobs.drill_compare import different_weights
from jobs.drill_fault import Fault, Found
from jobs.drill_hunt import hunted
from jobs.drill_links import as_undisturbed
from jobs.drill_toy import STEPS, TRAINING, Toy, said
from pipelines import recipe_files
from shards.store import LocalStore

OWN: Final = "local"  # RAY_ADDRESS of a Ray of a job's own
PATIENCE: Final = 300.0  # seconds for a process to come as far as it has to
_AS_UNDISTURBED: Final = "ledger, originals and shards as undisturbed"


def killed_scorer(tasks: Sequence[str], toy: Toy) -> Found:
    """SIGKILL to a worker that scores."""
    store = LocalStore(toy.fresh("scorer") / "store")
    with hunted(tasks, toy.mark) as killed:
        sentence = said(lambda: toy.filter(toy.job(store)))
    sentence = sentence or said(lambda: toy.shard(store))
    return _after(toy, store, f"SIGKILL to {', '.join(killed)}" if killed else "", sentence)


def killed_cutter(tasks: Sequence[str], toy: Toy) -> Found:
    """SIGKILL to a worker that cuts patches or packs shards."""
    store = toy.copy("cutter", without="shards")
    with hunted(tasks, toy.mark) as killed:
        sentence = said(lambda: toy.shard(store))
    return _after(toy, store, f"SIGKILL to {', '.join(killed)}" if killed else "", sentence)


def killed_driver(has_come: Callable[[LocalStore], bool], toy: Toy) -> Found:
    """SIGKILL to the command, once its first chunk is done; then the same again."""
    store = LocalStore(toy.fresh("driver") / "store")
    process = _started(toy.filter_words(store), toy, toy.address, store.folder.parent / "log")
    struck = _stopped(process, lambda: has_come(store), signal.SIGKILL)
    sentence = said(lambda: toy.filter_and_shard(toy.job(store)))
    return _after(toy, store, "SIGKILL to the driver after its first chunk" if struck else "", sentence)


def other_cluster(has_come: Callable[[LocalStore], bool], toy: Toy) -> Found:
    """Ctrl-C to a run on a Ray of its own, which ends with it; this cluster goes on from the store alone."""
    store = LocalStore(toy.fresh("cluster") / "store")
    log = store.folder.parent / "log"
    process = _started(toy.filter_words(store), toy, OWN, log)
    struck = _stopped(process, lambda: has_come(store), signal.SIGINT)
    told = log.read_text(errors="replace")
    sentence = said(lambda: toy.filter_and_shard(toy.job(store)))
    found = _after(toy, store, f"Ctrl-C to a run on another cluster, status {process.returncode}" * struck, sentence)
    silent = () if "goes on from here" in told else ("the stopped run did not say that it can go on",)
    return Found(struck=found.struck, held=f"picked up; {found.held}", broken=(*found.broken, *silent))


def killed_trainer(has_come: Callable[[LocalStore], bool], toy: Toy) -> Found:
    """SIGKILL to a training run with a checkpoint; the same command goes on from there."""
    out = LocalStore(toy.fresh("trainer") / "run")
    recipe = out.folder.parent / "recipe.json"
    recipe.write_text(json.dumps(recipe_files.plain(TRAINING)))
    words = [sys.executable, "-m", "jobs.pretrain", toy.calm.root, "--out", out.root, "--recipe", str(recipe)]
    process = _started([*words, "--workers", "0", "--device", "cpu"], toy, OWN, out.folder.parent / "log")
    struck = _stopped(process, lambda: has_come(out), signal.SIGKILL)
    at = max(checkpoint.steps(out), default=0)
    sentence = said(lambda: toy.train(out))
    return Found(
        struck=f"SIGKILL behind step {at}" if struck and at < STEPS else "",
        held="the same command went on to the undisturbed run's weights",
        broken=(f"it said: {sentence}",) if sentence else tuple(different_weights(toy.calm_run, out)),
    )


def has_chunk(store: LocalStore) -> bool:
    """Whether a chunk is committed."""
    return next(iter(store.list("ledger/")), None) is not None


def has_checkpoint(out: LocalStore) -> bool:
    """Whether there is one to go on from."""
    return bool(checkpoint.steps(out))


def _after(toy: Toy, store: LocalStore, struck: str, sentence: str) -> Found:
    broken = (f"it said: {sentence}",) if sentence else tuple(as_undisturbed(toy, store))
    return Found(struck=struck, held=_AS_UNDISTURBED, broken=broken)


def _started(words: Sequence[str], toy: Toy, address: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as sink:
        return subprocess.Popen(words, env=toy.environment(address), stdout=sink, stderr=sink, start_new_session=True)


def _stopped(process: subprocess.Popen[bytes], has_come: Callable[[], bool], by: signal.Signals) -> bool:
    """Waits for the moment, sends the signal and waits for the end. Whether the process was still at work."""
    ends = time.monotonic() + PATIENCE
    try:
        while process.poll() is None and not has_come() and time.monotonic() < ends:
            time.sleep(0.005)
        if process.poll() is not None:
            return False
        os.kill(process.pid, by)
        process.wait(PATIENCE)
        return True
    finally:
        process.kill()
        process.wait()


FAULTS: Final = (
    Fault(
        name="killed-scorer",
        does="SIGKILL to a worker that scores: Ray starts its task again",
        run=functools.partial(killed_scorer, ("score_batch",)),
    ),
    Fault(
        name="killed-cutter",
        does="SIGKILL to a worker that cuts patches or packs shards",
        run=functools.partial(killed_cutter, ("cut_unit", "write_shard")),
    ),
    Fault(
        name="killed-driver",
        does="SIGKILL to dynet-filter after its first chunk: the same command goes on",
        run=functools.partial(killed_driver, has_chunk),
    ),
    Fault(
        name="other-cluster",
        does="Ctrl-C to a run on a Ray of its own: this cluster picks it up from the store",
        run=functools.partial(other_cluster, has_chunk),
    ),
    Fault(
        name="killed-trainer",
        does="SIGKILL to dynet-pretrain: the same command goes on from the checkpoint",
        run=functools.partial(killed_trainer, has_checkpoint),
    ),
)
