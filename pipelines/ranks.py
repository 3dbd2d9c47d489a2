"""A training loop in this process, or the same one on several: Ray Train starts them, torch.distributed joins them.

    launch(Launch(out=store, ranks=8, device="cuda"), functools.partial(train, job), watch)

where `train(job, rank)` is what each does, in its own process. The rank that is `rank.rank == 0` is heard: what it
tells `rank.watch` comes to `watch` here.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import ray
import torch
from pyarrow.fs import S3FileSystem
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer, get_device

from dynet import checkpoint, memory
from dynet.loop import Stop, Watch
from dynet.progress import Progress
from dynet.train import Diverged
from pipelines.cluster import connected, here
from shards.store import S3Store, Store
from shards.stream import StreamError

_FAILURES: Final = 3  # of a worker, without a new checkpoint, until the run is given up; each goes on from the newest
_POLL_SECONDS: Final = 0.5
_IMPATIENT_SECONDS: Final = 30.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """Where a training loop runs. `ranks`: processes of Ray Train; 0: this process, without Ray."""

    out: Store
    ranks: int = 0
    device: str = "cpu"  # or cuda


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """One of `world` equal processes."""

    rank: int
    world: int
    device: torch.device
    watch: Watch
    stop: Stop

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"


Work = Callable[[Rank], Progress]  # is pickled to the ranks


def check(launch: Launch, workers: int, batch: int, accumulate: int) -> None:
    """Raises ValueError for ranks, workers and a device that can't be, or that a global batch can't be split over."""
    if launch.ranks < 0 or workers < 0:
        raise ValueError(f"ranks is {launch.ranks} and workers {workers}: give 0 or more")
    if launch.device == "cuda" and not launch.ranks and not torch.cuda.is_available():
        raise ValueError("no GPU here: give --device cpu, or --ranks N to train on a cluster that has some")
    if launch.ranks and batch % launch.ranks:
        raise ValueError(f"a batch of {batch} can't be split over {launch.ranks} ranks: give a multiple")
    share = batch // max(launch.ranks, 1)
    if share % accumulate:
        raise ValueError(f"{share} samples of a rank can't be cut into {accumulate} parts")


def launch(how: Launch, work: Work, watch: Watch) -> Progress:
    """Runs `work` on every rank; gives what rank 0 gives.

    Raises what `work` raises: ValueError and `dynet.train.Diverged` at once, since they would come again; for anything
    else all ranks are started again, three times. Where `how.out` has a newer checkpoint by then, that counts anew: on
    spot nodes a long run loses more than three. In this process SIGTERM ends it with `dynet.loop.Stopped`.
    """
    if not how.ranks:
        if how.device == "cpu":
            memory.keep_freed()
        with _terminations() as stop:
            return work(Rank(rank=0, world=1, device=torch.device(how.device), watch=watch, stop=stop))
    with connected() as own:
        if own and how.device == "cuda":
            _check_gpus(how.ranks)
        return _while_it_gets_on(how, work, watch)


@contextmanager
def _terminations() -> Iterator[Stop]:
    """Asked by SIGTERM that comes in here: a scheduler's word that it waits for a while, and then kills."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # Python takes handlers from that one alone
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.ask())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _while_it_gets_on(how: Launch, work: Work, watch: Watch) -> Progress:
    while True:
        before = checkpoint.steps(how.out)
        try:
            return _on_ray(how, work, watch)
        except WorkerGroupError as error:
            if checkpoint.steps(how.out)[-1:] == before[-1:]:
                raise _first_cause(error) from error
            _log.warning("ranks were lost %d times; going on from the newest checkpoint", _FAILURES + 1)


def _check_gpus(ranks: int) -> None:
    """A Ray that was started for this job stays as it is: what it lacks never comes."""
    have = int(ray.cluster_resources().get("GPU", 0))
    if have < ranks:
        raise ValueError(f"{ranks} ranks need a GPU each, and this machine has {have}: give fewer, or --device cpu")


def _on_ray(how: Launch, work: Work, watch: Watch) -> Progress:
    latest: Any = _Latest.options(**here()).remote()  # type: ignore[attr-defined]  # Ray adds it
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"work": work, "latest": latest},
        scaling_config=ScalingConfig(num_workers=how.ranks, use_gpu=how.device == "cuda"),
        run_config=RunConfig(name="train", failure_config=FailureConfig(max_failures=_FAILURES), **_ray_place(how.out)),
    )
    fitting = _InThread(trainer.fit)
    seen: Progress | None = None
    waited = time.monotonic()
    while not fitting.done(_POLL_SECONDS):
        now, mistake = ray.get(latest.get.remote())
        if mistake is not None:
            raise mistake
        if now != seen:
            seen = now
            watch(now)
        elif seen is None and time.monotonic() - waited > _IMPATIENT_SECONDS:
            waited = time.monotonic()
            _say_what_is_lacking(how)
    ended: Progress | str = fitting.result().return_value
    if isinstance(ended, str):
        raise Diverged(ended)
    watch(ended)
    return ended


def _say_what_is_lacking(how: Launch) -> None:
    """A cluster that scales itself may still get what a rank needs: so this is no error."""
    kind = "GPU" if how.device == "cuda" else "CPU"
    have = int(ray.cluster_resources().get(kind, 0))
    if have < how.ranks:
        _log.warning("waiting: %d ranks need a %s each, and the cluster has %d", how.ranks, kind, have)


def _worker(config: Any) -> Any:
    """A rank: `Progress`. Where it diverged, and all do at the same step, what to say of it.

    A user's mistake may be one rank's alone, and the others wait for it: so it is told, and ends the run from outside.
    """
    latest = config["latest"]
    context = ray.train.get_context()

    def told(now: Progress) -> None:
        latest.put.remote(now)

    rank = Rank(
        rank=context.get_world_rank(), world=context.get_world_size(), device=get_device(), watch=told, stop=Stop()
    )
    try:
        return config["work"](rank)
    except Diverged as error:
        return str(error)
    except ValueError as error:
        ray.get(latest.fail.remote(error))
        raise


def _ray_place(out: Store) -> dict[str, Any]:
    """Where Ray Train keeps its own notes: beside the run, where every node can see it."""
    if isinstance(out, S3Store):
        # Arrow does not read the variables that boto3 does
        url = out.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        place = S3FileSystem(**({"endpoint_override": url} if url else {}))
        return {"storage_path": f"{out.root.removeprefix('s3://')}/ray", "storage_filesystem": place}
    return {"storage_path": f"{out.root}/ray"}


def _first_cause(error: WorkerGroupError) -> BaseException:
    """What a rank died of: a sentence for the user where one has it."""
    causes = [getattr(one, "_base_exc", one) for _, one in sorted(error.worker_failures.items())]
    return next((one for one in causes if isinstance(one, StreamError)), error)


@ray.remote(num_cpus=0)
class _Latest:
    """The newest word of rank 0, with what its last validation found: words between two questions are lost."""

    def __init__(self) -> None:
        self._now: Progress | None = None
        self._mistake: ValueError | None = None

    def put(self, now: Progress) -> None:
        found = now.qualities or (self._now.qualities if self._now else {})
        self._now = replace(now, qualities=found)

    def fail(self, mistake: ValueError) -> None:
        self._mistake = mistake

    def get(self) -> tuple[Progress | None, ValueError | None]:
        return self._now, self._mistake


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
