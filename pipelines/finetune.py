"""From pre-trained weights to one network for every degradation that it is fine-tuned on.

    pairs       dynet.folders     noisy, rainy and hazy pictures with their clean ones, each checked first
                dynet.pairs       crops, turns, noise, in an order that nothing but names and seed decide
                shards.stream     or clean patches of a published set, to which noise is added
    step        dynet.train       S or L or both, L1, AdamW, warm-up and cosine
    validate    dynet.validate    PSNR and SSIM per depth, on pictures of another folder
    checkpoint  dynet.checkpoint  into the run's store, the last few kept

In this process, or on `ranks` processes by Ray Train: the loop of pre-training, with another recipe.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import torch

from dynet import checkpoint, folders, loop
from dynet.data import Noise
from dynet.folders import DE_TYPES, NOISE, Source
from dynet.joined import Joined
from dynet.loop import Batches, Run, Watch
from dynet.model import DyNet
from dynet.pairs import PairPlan, PairStream
from dynet.progress import Progress
from dynet.train import Settings, Trainer
from dynet.validate import held_out
from pipelines import ranks, recipe_files
from pipelines.finetune_recipes import FinetuneRecipe
from pipelines.pretrain import RECIPE
from pipelines.ranks import Launch, Rank
from shards.epochs import Epochs
from shards.manifest import read_manifest
from shards.sequence import Plan
from shards.store import Store, open_store
from shards.stream import Batch, Stream

_VALID_SEED: Final = 1  # added to the run's: validation draws its own crops and noise
Checked = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneJob:
    """One run. Ranks on other nodes find `data` and `valid` at the same path.

    `data`: the folder with Denoise/, Derain/ and Dehaze/. `shards`: the root of a set, whose clean patches are taken
    for denoising instead. `valid`: a folder like `data` with pictures that are not trained on.
    """

    out: Store
    recipe: FinetuneRecipe
    data: Path | None = None
    lists: Path | None = None  # the released code's lists of files
    shards: str = ""
    endpoint_url: str | None = None
    valid: Path | None = None
    ranks: int = 0
    workers: int = 2  # processes of each rank that read
    device: str = "cpu"  # or cuda
    weights: Mapping[str, torch.Tensor] | None = None  # to begin with, instead of random ones
    board: str = ""  # folder of TensorBoard's files

    def __post_init__(self) -> None:
        """Relative folders are taken from here, once: ranks run in folders of their own."""
        for name in ("data", "valid"):
            if (folder := getattr(self, name)) is not None:
                object.__setattr__(self, name, folder.absolute())
        if self.shards:
            object.__setattr__(self, "shards", open_store(self.shards, self.endpoint_url).root)

    @property
    def launch(self) -> Launch:
        """Where it runs."""
        return Launch(out=self.out, ranks=self.ranks, device=self.device)

    @property
    def about(self) -> dict[str, object]:
        """What a run that goes on must have the same."""
        return {**self.recipe.fixed, "shards": self.shards}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Data:
    """What is trained on. `sigmas`: of the noise on patches of a set; none: all is in folders."""

    sources: tuple[Source, ...] = ()
    sigmas: tuple[float, ...] = ()
    pairs: int = 0  # of an epoch
    valid: tuple[Source, ...] = field(default=())


def finetune(job: FinetuneJob, checked: Checked, watch: Watch) -> Progress:
    """Trains to the last of the recipe's epochs, from the newest checkpoint on; gives how it ended.

    Raises ValueError, before training starts, for pairs, settings or a checkpoint that can't be. `checked(pictures in
    all, pictures read)` follows how the pictures are looked through. Later: as pre-training.
    """
    ranks.check(job.launch, job.workers, job.recipe.batch, job.recipe.settings.accumulate)
    data = _found(job)
    settings = job.recipe.settled(data.pairs)
    if (state := checkpoint.newest(job.out)) is not None:
        loop.check_about(state, job.about, job.out.root)
    folders.check((*data.sources, *data.valid), job.recipe.crop, checked)
    job.out.sweep()
    job.out.write(RECIPE, json.dumps(recipe_files.plain(job.recipe), indent=1).encode())
    return ranks.launch(job.launch, functools.partial(_train, job, data, settings), watch)


def _found(job: FinetuneJob) -> _Data:
    """Raises ValueError for tasks without data, and for what `folders.find` finds amiss."""
    de_types = sorted(set(job.recipe.de_types), key=DE_TYPES.index)
    of_set = [one for one in de_types if one in NOISE] if job.shards else []
    of_folders = [one for one in de_types if one not in of_set]
    if job.shards and not of_set:
        raise ValueError(
            f"--shards has clean patches for denoising, and --de_type is {' '.join(de_types)}: leave it out"
        )
    if of_folders and job.data is None:
        raise ValueError(f"--data names the folder with the pictures of {', '.join(of_folders)}: give it")
    sources = folders.find(job.data, of_folders, job.lists) if of_folders and job.data else ()
    valid = folders.find(job.valid, de_types) if job.valid else ()
    pairs = sum(job.recipe.repeats.of(one.de_type) for one in sources)
    if of_set:
        batch = _of_set(job) if sources else job.recipe.batch
        Epochs(open_store(job.shards, job.endpoint_url), _plan(job, batch))  # refuses a set that can't be
        patches = read_manifest(open_store(job.shards, job.endpoint_url)).samples
        pairs = round(pairs * job.recipe.batch / (job.recipe.batch - batch)) if sources else patches
    return _Data(sources=sources, sigmas=tuple(NOISE[one] for one in of_set), pairs=pairs, valid=valid)


def _of_set(job: FinetuneJob) -> int:
    """How much of a batch comes from the set, where the rest comes from folders."""
    batch, world = job.recipe.batch, max(job.ranks, 1)
    share = max(1, round(job.recipe.denoise_share * batch))
    if share < batch and share % world == 0:
        return share
    fitting = max(1, round(share / world)) * world
    remedy = f"denoise_share={fitting / batch:g}" if fitting < batch else "a larger batch"
    raise ValueError(
        f"{share} of a batch of {batch} come from the set, and both parts are split over the ranks: give {remedy}"
    )


# ---------------------------------------------------------------- a rank


def _train(job: FinetuneJob, data: _Data, settings: Settings, rank: Rank) -> Progress:
    """What each rank does."""
    recipe = job.recipe
    torch.manual_seed(recipe.seed)  # decides the first weights
    model = DyNet(recipe.model)
    if job.weights is not None:
        model.load_state_dict(dict(job.weights))
    batches = _batches(job, data, rank)
    run = Run(
        out=job.out,
        every=recipe.every,
        about=job.about,
        batch=recipe.batch,
        rank=rank.rank,
        world=rank.world,
        held_out=_held_out(job, data.valid) if rank.rank == 0 else (),
        board=job.board,
    )
    trainer = Trainer(model, settings, seed=recipe.seed, device=rank.device, world=rank.world)
    try:
        return loop.train(trainer, batches, run, rank.watch, rank.stop)
    finally:
        batches.close()


def _batches(job: FinetuneJob, data: _Data, rank: Rank) -> Batches:
    if not data.sigmas:
        return _pairs(job, data.sources, job.recipe.batch, rank)
    if not data.sources:
        return _patches(job, data.sigmas, job.recipe.batch, rank)
    share = _of_set(job)
    return Joined(_patches(job, data.sigmas, share, rank), _pairs(job, data.sources, job.recipe.batch - share, rank))


def _pairs(job: FinetuneJob, sources: Sequence[Source], batch: int, rank: Rank) -> PairStream:
    repeats = {de_type: job.recipe.repeats.of(de_type) for de_type in DE_TYPES}
    plan = PairPlan(batch=batch, seed=job.recipe.seed, crop=job.recipe.crop)
    return PairStream(
        sources, repeats, plan, rank=rank.rank, world=rank.world, workers=job.workers, pin_memory=rank.on_gpu
    )


def _patches(job: FinetuneJob, sigmas: tuple[float, ...], batch: int, rank: Rank) -> Stream:
    return Stream(
        job.shards,
        _plan(job, batch),
        rank=rank.rank,
        world=rank.world,
        workers=job.workers,
        endpoint_url=job.endpoint_url,
        derive=Noise(seed=job.recipe.seed, sigmas=sigmas),
        pin_memory=rank.on_gpu,
    )


def _plan(job: FinetuneJob, batch: int) -> Plan:
    return Plan(batch=batch, seed=job.recipe.seed, crop=job.recipe.crop)


def _held_out(job: FinetuneJob, valid: Sequence[Source]) -> tuple[Batch, ...]:
    """The first crops of an epoch over the pictures for validation, each once."""
    if not valid:
        return ()
    count = min(job.recipe.valid, len(valid))
    plan = PairPlan(batch=min(job.recipe.batch, count), seed=job.recipe.seed + _VALID_SEED, crop=job.recipe.crop)
    stream = PairStream(valid, dict.fromkeys(DE_TYPES, 1), plan, pin_memory=False)
    return tuple(held_out(islice(stream, len(valid) // plan.batch), count))
