"""The paper's question, asked again at a scale of one's choice: does pre-training help, and both depths? Its Table 5.

    set         shards.stream       patches of some shards are kept back: they are what is fine-tuned on
    unseen      curation.duplicates no test picture is in the set, by hash
    pre-train   pipelines.pretrain  once: dynamic, masked, on the other shards
    fine-tune   pipelines.finetune  for each seed S and L, from those weights and from random ones, the same steps
    evaluate    pipelines.evaluate  noise on clean pictures, and the pairs of rain and haze

Rain and haze to fine-tune on are drawn (`dynet.weather`): the test pairs are others' and too few to be split.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

import dynet
from curation.duplicates import find_duplicates, perceptual_hash
from dynet import checkpoint, folders, rgb, testsets, weights
from dynet.folders import DE_TYPES
from dynet.loop import Every
from dynet.model import ModelConfig
from dynet.progress import Progress
from dynet.published import Column
from dynet.randomness import generator
from dynet.restore import Restorer, device_of
from dynet.results import Row
from dynet.testsets import PictureSet
from dynet.train import Settings
from dynet.validate import quality
from dynet.weather import hazy, rainy
from pipelines.evaluate import pair
from pipelines.finetune import FinetuneJob, finetune
from pipelines.finetune_recipes import FinetuneRecipe, Repeats
from pipelines.pretrain import PretrainJob, pretrain
from pipelines.pretrain_recipes import PretrainRecipe
from shards.manifest import FOLDER, read_manifest
from shards.sequence import Plan
from shards.store import LocalStore, open_store
from shards.stream import Stream

SIGMAS: Final = (15.0, 25.0, 50.0)
DEPTHS: Final = ("S", "L")
WITHOUT, WITH = "without pre-training", "with pre-training"
PRETRAINED: Final = "pretrained"
_PRETRAINING: Final = 0.45  # of the time
_FINETUNING: Final = 0.4  # the rest is for the evaluation
_SIDE: Final = 256  # pixels of a picture to fine-tune on
_TRIAL: Final = 6  # steps whose time tells how many there can be
_FEWEST: Final = 20  # steps, or there is nothing to see

Told = Callable[[str, int, int], None]  # stage, of how many, how many are done


@dataclass(frozen=True, kw_only=True, slots=True)
class AblationJob:
    """`store`: the set. `tests`: a folder with cbsd68/, rain/ and haze/. `out`: all that is made."""

    store: str
    tests: Path
    out: Path
    minutes: float
    model: ModelConfig = field(default_factory=lambda: ModelConfig(width=16, refinement=2))
    held_out: tuple[int, ...] = (0,)  # shards to fine-tune on
    crop: int = 64
    batch: int = 8
    lr: float = 1e-3
    precision: str = "f32"
    device: str = "cpu"
    workers: int = 1
    seeds: int = 3
    pictures: int = 12  # of a test set at most
    endpoint_url: str | None = None

    def __post_init__(self) -> None:
        if self.minutes <= 0 or self.seeds < 1 or self.pictures < 1:
            raise ValueError("give a budget above 0 minutes, and at least 1 seed and 1 picture of a set")


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One fine-tuned network. `start`: `WITH` or `WITHOUT`."""

    depth: str
    start: str
    seed: int

    @property
    def folder(self) -> str:
        """Below the job's `out`."""
        return f"finetuned/{self.depth}-{'with' if self.start == WITH else 'without'}-{self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What came out. `rows`: of every picture, by arm."""

    pretraining: int  # steps
    finetuning: int  # steps of each network
    trained_on: int  # clean pictures
    rows: dict[Arm, list[Row]]
    seconds: float


def ablate(job: AblationJob, told: Told) -> Findings:
    """Runs it all, into a folder that holds nothing yet.

    Raises ValueError for another folder, a GPU that there is not, and test sets or a set that can't be had, or that
    share a picture.
    """
    begun = time.monotonic()
    device_of(job.device)
    if job.out.exists() and (not job.out.is_dir() or any(job.out.iterdir())):
        raise ValueError(f"{job.out} holds something already: give another --out, or take that away first")
    sets = find_sets(job.tests, job.pictures)
    check_unseen(job, sets)
    data = job.out / "data"
    clean = write_pictures(job, data)
    each = _seconds_a_step(job)
    arms = [
        Arm(depth=d, start=start, seed=seed) for seed in range(job.seeds) for d in DEPTHS for start in (WITHOUT, WITH)
    ]
    before = max(_FEWEST, int(_PRETRAINING * 60 * job.minutes / each))
    after = max(_FEWEST, int(_FINETUNING * 60 * job.minutes / each / len(arms)))
    start = _pretrained(job, before, told)
    rows = {}
    for arm in arms:
        restorer = _finetuned(job, data, arm, after, start if arm.start == WITH else None, told)
        rows[arm] = list(_evaluated(arm, restorer, sets))
    return Findings(pretraining=before, finetuning=after, trained_on=clean, rows=rows, seconds=time.monotonic() - begun)


# ---------------------------------------------------------------- pictures


def find_sets(tests: Path, most: int) -> tuple[PictureSet, ...]:
    """Clean pictures, and each folder of pairs below rain/ and haze/; at most so many of each, evenly chosen."""
    sets = [testsets.found("CBSD68", tests / "cbsd68", SIGMAS)]
    for task in ("rain", "haze"):
        root = tests / task
        for folder in sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else ():
            if any((folder / name).is_dir() for name in ("target", "gt")):
                sets.append(testsets.found(f"{task}-{folder.name.replace('_', '-')}", folder, ()))
    fewer = tuple(replace(one, entries=_evenly(one.entries, most)) for one in sets)
    testsets.check(fewer, lambda total, done: None)
    return fewer


def _evenly(entries: Sequence[testsets.Entry], most: int) -> tuple[testsets.Entry, ...]:
    where = np.linspace(0, len(entries) - 1, min(most, len(entries))).round().astype(int)
    return tuple(entries[number] for number in where)


def check_unseen(job: AblationJob, sets: Sequence[PictureSet]) -> None:
    """Raises ValueError where a test picture is one of the set's, by its bytes or by how it looks."""
    store = open_store(job.store, job.endpoint_url)
    body = store.read(FOLDER + read_manifest(store).metadata.name)
    known = pq.read_table(io.BytesIO(body), columns=["url", "sha256", "phash"]).to_pylist()
    by_bytes = {one["sha256"]: one["url"] for one in known}
    looked_at = [one for one in known if one["phash"]]
    targets = list(dict.fromkeys(entry.target for one in sets for entry in one.entries))
    bytes_ = [hashlib.sha256(path.read_bytes()).hexdigest() for path in targets]
    looks = [perceptual_hash(rgb.read(path)) for path in targets]
    alike = find_duplicates(
        [*(one["sha256"] for one in looked_at), *bytes_], [*(one["phash"] for one in looked_at), *looks]
    )[len(looked_at) :]
    for path, digest, near in zip(targets, bytes_, alike, strict=True):
        url = by_bytes.get(digest) or (looked_at[near.of]["url"] if near and near.of < len(looked_at) else None)
        if url:
            raise ValueError(f"{path} is in the set too, from {url}: take it out of either")


def write_pictures(job: AblationJob, data: Path) -> int:
    """Patches of the shards kept back, as the folders to fine-tune on: clean, with rain, with haze. How many."""
    manifest = read_manifest(open_store(job.store, job.endpoint_url))
    plan = Plan(batch=1, crop=min(_SIDE, int(manifest.recipe["size"])), held_out=job.held_out, part="valid")
    stream = Stream(job.store, plan, endpoint_url=job.endpoint_url)
    count = 0
    for count, batch in enumerate(stream, 1):
        _write_one(data, f"{count:05d}", batch.pixels[0].permute(1, 2, 0).numpy())
    stream.close()
    return count


def _write_one(data: Path, name: str, clean: np.ndarray) -> None:
    files = {
        f"Denoise/{name}.png": clean,
        f"Derain/gt/norain-{name}.png": clean,
        f"Derain/rainy/rain-{name}.png": rainy(clean, generator(f"rain/{name}")),
        f"Dehaze/original/{name}.png": clean,
        f"Dehaze/synthetic/{name}_1.png": hazy(clean, generator(f"haze/{name}")),
    }
    for file, pixels in files.items():
        (data / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(data / file, compress_level=1)


# ---------------------------------------------------------------- training


def _recipe(job: AblationJob, steps: int) -> PretrainRecipe:
    return PretrainRecipe(
        settings=Settings(steps=steps, lr=job.lr, depths=DEPTHS, precision=job.precision, cosine=max(2, steps)),
        model=job.model,
        every=_every(steps),
        batch=job.batch,
        crop=job.crop,
        held_out=job.held_out,
        valid=32,
    )


def _every(steps: int) -> Every:
    return Every(checkpoint=steps, keep=1, validate=steps, pictures=steps, report=max(1, steps // 100))


def _seconds_a_step(job: AblationJob) -> float:
    """Of S and L in turn, reading and degrading included: the second half of a few steps, which is warm."""
    times: list[float] = []

    def took(_now: Progress) -> None:
        times.append(time.perf_counter())

    recipe = replace(
        _recipe(job, _TRIAL), every=Every(checkpoint=999, validate=999, pictures=999, report=1), held_out=()
    )
    pretrain(_pretrain_job(job, recipe, "trial"), took)
    shutil.rmtree(job.out / "trial")
    half = times[_TRIAL // 2 - 1 :]
    return (half[-1] - half[0]) / (len(half) - 1)


def _pretrain_job(job: AblationJob, recipe: PretrainRecipe, folder: str) -> PretrainJob:
    return PretrainJob(
        store=job.store,
        out=LocalStore(job.out / folder),
        recipe=recipe,
        endpoint_url=job.endpoint_url,
        workers=job.workers,
        device=job.device,
    )


def _pretrained(job: AblationJob, steps: int, told: Told) -> dict[str, torch.Tensor]:
    def watch(now: Progress) -> None:
        told("pre-training", now.steps, now.step)

    pretrain(_pretrain_job(job, _recipe(job, steps), PRETRAINED), watch)
    return weights.read(job.out / PRETRAINED / checkpoint.name_of(steps))[1]


def _finetuned(
    job: AblationJob, data: Path, arm: Arm, steps: int, start: dict[str, torch.Tensor] | None, told: Told
) -> Restorer:
    """A network at one depth, all tasks in one."""
    pairs = len(folders.find(data, DE_TYPES))
    recipe = FinetuneRecipe(
        epochs=steps * job.batch / pairs,
        warmup_epochs=0.05 * steps * job.batch / pairs,
        cosine_epochs=steps * job.batch / pairs,
        settings=Settings(
            steps=1, lr=job.lr, depths=(arm.depth,), precision=job.precision, optimizer="adamw", weight_decay=0.01
        ),
        model=job.model,
        every=_every(steps),
        repeats=Repeats(denoise=1, derain=1, dehaze=1),
        batch=job.batch,
        crop=job.crop,
        seed=arm.seed,
    )
    out = LocalStore(job.out / arm.folder)
    work = FinetuneJob(out=out, recipe=recipe, data=data, weights=start, device=job.device, workers=job.workers)

    def watch(now: Progress) -> None:
        told(f"{arm.depth} {arm.start}, seed {arm.seed}", now.steps, now.step)

    ended = finetune(work, lambda total, done: None, watch)
    made = job.out / arm.folder / checkpoint.name_of(ended.step)
    return dynet.load(made, device=job.device, precision=job.precision)


def _evaluated(arm: Arm, restorer: Restorer, sets: Sequence[PictureSet]) -> Iterator[Row]:
    for one in sets:
        for sigma in one.sigmas or (None,):
            for entry in one.entries:
                target, degraded = pair(entry, sigma, seed=0)
                begun = time.perf_counter()
                restored = restorer.floats(degraded.astype(np.float32) / 255, arm.depth).clip(0, 1)
                yield Row(
                    column=Column(set=one.name, sigma=sigma),
                    picture=entry.name,
                    depth=arm.depth,
                    quality=quality(restored, target),
                    before=quality(degraded, target),
                    seconds=time.perf_counter() - begun,
                )
