"""From published shards to one set of DyNet weights for every depth.

    set         shards.stream      crops of 128², in an order that nothing but the set decides
    degrade     dynet.degrade      half of the area spoilt, 30 % masked
    step        dynet.train        S or L, L1, Adam
    validate    dynet.validate     PSNR and SSIM per depth on a held-out shard
    checkpoint  dynet.checkpoint   into the run's store, the last few kept

In this process, or on `ranks` processes by Ray Train: the same loop (`dynet.loop`).
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from typing import Any, Final

import ray
import torch
from pyarrow.fs import S3FileSystem
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer, get_device

from dynet import checkpoint, loop
from dynet.data import Degrade
from dynet.loop import Run
from dynet.model import DyNet
from dynet.progress import Progress
from dynet.train import Diverged, Trainer
from dynet.validate import held_out
from pipelines.cluster import connected
from pipelines.pretrain_recipes import PretrainRecipe
from shards.epochs import Epochs
from shards.sequence import Plan
from shards.store import S3Store, Store, open_store
from shards.stream import Batch, Cache, Stream, StreamError

RECIPE: Final = "recipe.json"
BOARD: Final = "tensorboard"
_FAILURES: Final = 3  # of a worker, until the run is given up: each goes on from the newest checkpoint
_POLL_SECONDS: Final = 0.5
_IMPATIENT_SECONDS: Final = 30.0
_log = logging.getLogger(__name__)


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


Watch = Callable[[Progress], None]


def pretrain(job: PretrainJob, watch: Watch) -> Progress:
    """Trains to the recipe's last step, from the newest checkpoint on; gives how it ended.

    Raises ValueError, before training starts, for what can't be: see `check`. Later: `dynet.train.Diverged`,
    `shards.stream.StreamError`, and StoreError where the run's store can't be written.
    """
    check(job)
    job.out.sweep()
    job.out.write(RECIPE, json.dumps(job.recipe.to_dict(), indent=1).encode())
    if not job.ranks:
        return _train(job, rank=0, world=1, device=torch.device(job.device), watch=watch)
    with connected():
        return _on_ray(job, watch)


def check(job: PretrainJob) -> None:
    """Raises ValueError for a set, a device, ranks or a checkpoint that don't go with the recipe, naming the remedy."""
    if job.ranks < 0 or job.workers < 0:
        raise ValueError(f"ranks is {job.ranks} and workers {job.workers}: give 0 or more")
    if job.device == "cuda" and not job.ranks and not torch.cuda.is_available():
        raise ValueError("no GPU here: give --device cpu, or --ranks N to train on a cluster that has some")
    share = job.recipe.batch // max(job.ranks, 1)
    if job.ranks and job.recipe.batch % job.ranks:
        raise ValueError(f"a batch of {job.recipe.batch} can't be split over {job.ranks} ranks: give a multiple")
    if share % job.recipe.settings.accumulate:
        raise ValueError(f"{share} samples of a rank can't be cut into {job.recipe.settings.accumulate} parts")
    plans = [job.recipe.plan, *([job.recipe.valid_plan] if job.recipe.held_out else [])]
    for plan in plans:
        Epochs(open_store(job.store, job.endpoint_url), plan)
    if (state := checkpoint.newest(job.out)) is not None:
        loop.check_about(state, job.recipe.fixed, job.out.root)


def _train(job: PretrainJob, *, rank: int, world: int, device: torch.device, watch: Watch) -> Progress:
    """What each rank does."""
    recipe = job.recipe
    torch.manual_seed(recipe.seed)  # decides the first weights
    model = DyNet(recipe.model)
    if job.weights is not None:
        model.load_state_dict(dict(job.weights))
    stream = _stream(job, recipe.plan, rank, world, job.workers)
    run = Run(
        out=job.out,
        every=recipe.every,
        about=recipe.fixed,
        batch=recipe.batch,
        rank=rank,
        world=world,
        held_out=_held_out(job) if rank == 0 else (),
        board=job.board,
    )
    trainer = Trainer(model, recipe.settings, seed=recipe.seed, device=device, world=world)
    try:
        return loop.train(trainer, stream, run, watch)
    finally:
        stream.close()


def _stream(job: PretrainJob, plan: Plan, rank: int = 0, world: int = 1, workers: int = 0) -> Stream:
    return Stream(
        job.store,
        plan,
        rank=rank,
        world=world,
        workers=workers,
        cache=job.cache,
        endpoint_url=job.endpoint_url,
        derive=Degrade(seed=plan.seed, how=job.recipe.degradation),
    )


def _held_out(job: PretrainJob) -> tuple[Batch, ...]:
    if not job.recipe.held_out:
        return ()
    stream = _stream(job, job.recipe.valid_plan)
    try:
        return tuple(held_out(stream, job.recipe.valid))
    finally:
        stream.close()


# ---------------------------------------------------------------- on Ray


def _on_ray(job: PretrainJob, watch: Watch) -> Progress:
    latest: Any = _Latest.remote()  # type: ignore[attr-defined]  # Ray adds it
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job, "latest": latest},
        scaling_config=ScalingConfig(num_workers=job.ranks, use_gpu=job.device == "cuda"),
        run_config=RunConfig(name="train", failure_config=FailureConfig(max_failures=_FAILURES), **_ray_place(job.out)),
    )
    fitting = _InThread(trainer.fit)
    seen: Progress | None = None
    waited = time.monotonic()
    while not fitting.done(_POLL_SECONDS):
        now = ray.get(latest.get.remote())
        if now != seen:
            seen = now
            watch(now)
        elif seen is None and time.monotonic() - waited > _IMPATIENT_SECONDS:
            waited = time.monotonic()
            _say_what_is_lacking(job)
    try:
        ended: Progress | str = fitting.result().return_value
    except WorkerGroupError as error:
        raise _first_cause(error) from error
    if isinstance(ended, str):
        raise Diverged(ended)
    watch(ended)
    return ended


def _say_what_is_lacking(job: PretrainJob) -> None:
    """A cluster that scales itself may still get what a rank needs: so this is no error."""
    kind = "GPU" if job.device == "cuda" else "CPU"
    have = int(ray.cluster_resources().get(kind, 0))
    if have < job.ranks:
        _log.warning("waiting: %d ranks need a %s each, and the cluster has %d", job.ranks, kind, have)


def _worker(config: Any) -> Any:
    """A rank: `Progress`. Where it diverged, what to say of it: Ray would only do the same again."""
    job, latest = config["job"], config["latest"]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()

    def told(now: Progress) -> None:
        latest.put.remote(now)

    try:
        return _train(job, rank=rank, world=world, device=get_device(), watch=told)
    except Diverged as error:
        return str(error)


def _ray_place(out: Store) -> dict[str, Any]:
    """Where Ray Train keeps its own notes: beside the run, where every node can see it."""
    if isinstance(out, S3Store):
        endpoint = {"endpoint_override": out.endpoint_url} if out.endpoint_url else {}
        return {"storage_path": f"{out.root.removeprefix('s3://')}/ray", "storage_filesystem": S3FileSystem(**endpoint)}
    return {"storage_path": f"{out.root}/ray"}


def _first_cause(error: WorkerGroupError) -> BaseException:
    """What a rank died of: a user's sentence where one has it."""
    causes = [getattr(one, "_base_exc", one) for _, one in sorted(error.worker_failures.items())]
    return next((one for one in causes if isinstance(one, (ValueError, StreamError))), error)


@ray.remote(num_cpus=0)
class _Latest:
    """The newest word of rank 0, with what its last validation found: words between two questions are lost."""

    def __init__(self) -> None:
        self._now: Progress | None = None

    def put(self, now: Progress) -> None:
        found = now.qualities or (self._now.qualities if self._now else {})
        self._now = replace(now, qualities=found)

    def get(self) -> Progress | None:
        return self._now


class _InThread:
    """Runs something that blocks, so that the main thread can watch it, and be interrupted."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._future: Future[Any] = Future()
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed on by `result`
            self._future.set_exception(error)

    def done(self, seconds: float) -> bool:
        """Whether it has ended, after waiting for at most so long."""
        return bool(wait([self._future], timeout=seconds).done)

    def result(self) -> Any:
        """What it gave. Raises what it raised."""
        return self._future.result()
