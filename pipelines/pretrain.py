"""From published shards to one set of DyNet weights for every depth.

    set         shards.stream      crops of 128², in an order that nothing but the set decides
    degrade     dynet.degrade      half of the area spoilt, 30 % masked
    step        dynet.train        S or L, L1, Adam
    validate    dynet.validate     PSNR and SSIM per depth on a held-out shard
    checkpoint  dynet.checkpoint   into the run's store, the last few kept

In this process, or on `ranks` processes by Ray Train (`pipelines.ranks`): the same loop (`dynet.loop`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

from dynet import checkpoint, loop
from dynet.data import Degrade
from dynet.loop import Run, Watch
from dynet.model import DyNet
from dynet.progress import Progress
from dynet.train import Trainer
from dynet.validate import held_out
from pipelines import ranks, recipe_files
from pipelines.pretrain_recipes import PretrainRecipe
from pipelines.ranks import Launch, Rank
from shards.epochs import Epochs
from shards.sequence import Plan
from shards.store import Store, open_store
from shards.stream import Batch, Cache, Stream

RECIPE: Final = "recipe.json"
BOARD: Final = "tensorboard"


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainJob:
    """One run. `store`: the set's root. `ranks`: processes of Ray Train; 0: this process, without Ray."""

    store: str
    out: Store
    recipe: PretrainRecipe
    endpoint_url: str | None = None
    cache: Cache | None = None
    ranks: int = 0
    workers: int = 2  # processes of each rank that read, decode and degrade
    device: str = "cpu"  # or cuda
    weights: Mapping[str, torch.Tensor] | None = None  # to begin with, instead of random ones
    board: str = ""  # folder of TensorBoard's files

    def __post_init__(self) -> None:
        """A relative folder is taken from here, once: ranks run in folders of their own."""
        object.__setattr__(self, "store", open_store(self.store, self.endpoint_url).root)

    @property
    def launch(self) -> Launch:
        """Where it runs."""
        return Launch(out=self.out, ranks=self.ranks, device=self.device)


def pretrain(job: PretrainJob, watch: Watch) -> Progress:
    """Trains to the recipe's last step, from the newest checkpoint on; gives how it ended.

    Raises ValueError, before training starts, for what can't be: see `check`. Later: `dynet.train.Diverged`,
    `shards.stream.StreamError`, StoreError where the run's store can't be written, and `dynet.loop.Stopped`.
    """
    check(job)
    job.out.sweep()
    job.out.write(RECIPE, json.dumps(recipe_files.plain(job.recipe), indent=1).encode())
    return ranks.launch(job.launch, functools.partial(_train, job), watch)


def check(job: PretrainJob) -> None:
    """Raises ValueError for a set, a device, ranks or a checkpoint that don't go with the recipe, naming the remedy."""
    ranks.check(job.launch, job.workers, job.recipe.batch, job.recipe.settings.accumulate)
    plans = [job.recipe.plan, *([job.recipe.valid_plan] if job.recipe.held_out else [])]
    for plan in plans:
        Epochs(open_store(job.store, job.endpoint_url), plan)
    if (state := checkpoint.newest(job.out)) is not None:
        loop.check_about(state, job.recipe.fixed, job.out.root)


def _train(job: PretrainJob, rank: Rank) -> Progress:
    """What each rank does."""
    recipe = job.recipe
    torch.manual_seed(recipe.seed)  # decides the first weights
    model = DyNet(recipe.model)
    if job.weights is not None:
        model.load_state_dict(dict(job.weights))
    stream = _stream(job, recipe.plan, rank.rank, rank.world, job.workers, pin_memory=rank.on_gpu)
    run = Run(
        out=job.out,
        every=recipe.every,
        about=recipe.fixed,
        batch=recipe.batch,
        rank=rank.rank,
        world=rank.world,
        held_out=_held_out(job) if rank.rank == 0 else (),
        board=job.board,
    )
    trainer = Trainer(model, recipe.settings, seed=recipe.seed, device=rank.device, world=rank.world)
    try:
        return loop.train(trainer, stream, run, rank.watch, rank.stop)
    finally:
        stream.close()


def _stream(
    job: PretrainJob, plan: Plan, rank: int = 0, world: int = 1, workers: int = 0, *, pin_memory: bool = False
) -> Stream:
    return Stream(
        job.store,
        plan,
        rank=rank,
        world=world,
        workers=workers,
        cache=job.cache,
        endpoint_url=job.endpoint_url,
        derive=Degrade(seed=plan.seed, how=job.recipe.degradation),
        pin_memory=pin_memory,
    )


def _held_out(job: PretrainJob) -> tuple[Batch, ...]:
    if not job.recipe.held_out:
        return ()
    stream = _stream(job, job.recipe.valid_plan)
    try:
        return tuple(held_out(stream, job.recipe.valid))
    finally:
        stream.close()
