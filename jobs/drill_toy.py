"""The toy pipeline that `jobs/drill.py` disturbs: thirteen links, three chunks, a few shards, eight steps of training.

Each stage is the real one (`pipelines`), small. The undisturbed run is made once; every fault is held against it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.fetch import FetchSettings
from curation.fit import NIQE_FILE, niqe_bytes, niqe_features
from curation.scorers import resolve
from curation.scorers.weights import SUMS
from dynet.loop import Every
from dynet.model import ModelConfig
from dynet.progress import Progress
from dynet.train import Settings
from jobs import terminal, training
from jobs.bench_server import texture
from jobs.hostile_server import HttpServer
from pipelines import demo_files as files
from pipelines import recipes
from pipelines.filter_laion import FilterJob, prepare, run
from pipelines.pretrain import PretrainJob, pretrain
from pipelines.pretrain_recipes import PretrainRecipe
from pipelines.publish import PublishJob, publish
from pipelines.recipes import FilterRecipe, ShardRecipe
from pipelines.scoring import ScorerSpec
from pipelines.shard import ShardJob, shard
from shards.store import LocalStore, Store, open_store
from shards.stream import Cache
from shards.transfer import How

SIDE: Final = 512  # pixels, of a patch, and the smallest that is kept
KEPT: Final = 9  # of the links
STEPS: Final = 8
_SAYS: Final = "drilled"  # before a job's one sentence
#: NIQE's bound is far above what its model, made of three pictures, gives: the drill is not about taste.
RECIPE: Final = FilterRecipe(
    thresholds=recipes.thresholds({"jpeg_quality": 60.0, "niqe": 1000.0}, min_res=SIDE), chunk_size=5, source="drill"
)
CUT: Final = ShardRecipe(min_res=SIDE, max_shard_bytes=1_000_000)
TRAINING: Final = PretrainRecipe(
    settings=Settings(steps=STEPS, lr=1e-3),
    model=ModelConfig(width=8, refinement=1),
    every=Every(checkpoint=2, keep=2),
    batch=2,
    crop=32,
    window=8,
    held_out=(),
)
FETCHING: Final = FetchSettings(
    threads=8, per_host=8, connect_timeout=2.0, read_timeout=2.0, deadline=6.0, attempts=2, backoff=0.1, host_strikes=99
)


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Place:
    """Where the drill may write on an S3 server: an s3:// URL, and the server unless it is AWS's."""

    root: str
    endpoint_url: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Toy:
    """What every fault gets. `machines`: in the cluster. `s3`: None where there is none, and `no_s3` says why."""

    folder: Path
    server: HttpServer
    urls: tuple[str, ...]
    weights: Path
    machines: int
    address: str  # of the cluster, for drivers in processes of their own
    mark: str  # what every worker of this drill has in its environment as `MARK`
    s3: S3Place | None
    no_s3: str = ""
    fetching: FetchSettings = field(default=FETCHING)

    @property
    def calm(self) -> LocalStore:
        """The store of the run that nobody disturbed."""
        return LocalStore(self.folder / "calm")

    @property
    def calm_run(self) -> LocalStore:
        """Its training."""
        return LocalStore(self.folder / "calm-run")

    def fresh(self, name: str) -> Path:
        """A new folder for a fault, or for another try of it."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    def job(self, store: Store, urls: Sequence[str] = (), weights: Path | None = None, **fetching: Any) -> FilterJob:
        """The filter's, on the toy's links and then `urls`. Loopback is reached since it is the toy's own address."""
        wanted = {"allowed_addresses": frozenset({self.server.address}), "resolver_probe": "127.0.0.1", **fetching}
        return FilterJob(
            store=store,
            lists=(_list(self.folder, (*self.urls, *urls)),),
            recipe=RECIPE,
            scoring=ScorerSpec.of(resolve(RECIPE.metrics, weights or self.weights), RECIPE.engine),
            fetching=replace(self.fetching, **wanted),
        )

    def filter(self, job: FilterJob) -> None:
        """Links to a settled ledger. The list is cut with private addresses let through, and downloaded without."""
        prepare(replace(job, fetching=replace(job.fetching, allow_private_hosts=True)))
        run(job, lambda rows, so_far: None)

    def shard(self, store: Store) -> None:
        """The store's originals to shards in the same store."""
        shard(
            ShardJob(store=store, stores=(store,), folders=(), recipe=CUT, max_pixels=RECIPE.max_pixels),
            lambda total, done: None,
        )

    def filter_and_shard(self, job: FilterJob) -> None:
        """Both."""
        self.filter(job)
        self.shard(job.store)

    def publish(self, target: Store) -> None:
        """The undisturbed set, there."""
        quiet = How(checked=lambda total, done: None, sent=lambda total, done: None)
        publish(PublishJob(source=self.calm, target=target), quiet)

    def train(self, out: LocalStore, source: Store | None = None, recipe: PretrainRecipe = TRAINING) -> None:
        """A few steps on the undisturbed set, or on a copy of it, with the job's own last words."""
        source = source or self.calm
        job = PretrainJob(
            store=source.root,
            out=out,
            recipe=recipe,
            endpoint_url=getattr(source, "endpoint_url", None),
            cache=Cache(folder=self.folder / "cache"),
            workers=0,
        )
        work: Callable[[Callable[[Progress], None]], Progress] = functools.partial(pretrain, job)
        with contextlib.redirect_stdout(io.StringIO()):
            training.told("pretrain", out, recipe.settings, work)

    def copy(self, name: str, *, without: str) -> LocalStore:
        """Another store like the undisturbed one, without one of its folders."""
        folder = self.fresh(name) / "store"
        shutil.copytree(self.calm.folder, folder, ignore=shutil.ignore_patterns(without))
        return LocalStore(folder)

    def target(self, name: str, endpoint_url: str | None = None) -> Store:
        """An empty place to publish to: on S3 where there is one (by way of `endpoint_url`), else a folder."""
        place = self.fresh(name)
        if self.s3 is None:
            return LocalStore(place / "target")
        return open_store(f"{self.s3.root}/{place.name}", endpoint_url or self.s3.endpoint_url)

    def filter_words(self, store: LocalStore) -> list[str]:
        """The command line of the same filter, for a driver in a process of its own."""
        recipe = self.folder / "recipe.json"
        recipe.write_text(json.dumps(RECIPE.to_dict()))
        words: dict[str, Any] = {"--urls": _list(self.folder, self.urls), "--out": store.folder, "--recipe": recipe}
        words |= {"--weights": self.weights, "--max-shard-mb": CUT.max_shard_bytes // 1_000_000}
        words |= {"--read-timeout": self.fetching.read_timeout, "--deadline": self.fetching.deadline}
        flags = [str(word) for pair in words.items() for word in pair]
        return [sys.executable, "-m", "jobs.filter_laion", *flags, "--allow-private-hosts"]

    def environment(self, address: str) -> Mapping[str, str]:
        """Of such a process: the cluster it is to run on, one thread, these packages."""
        packages = str(Path(__file__).resolve().parents[1])
        return {**os.environ, "RAY_ADDRESS": address, "OMP_NUM_THREADS": "1", "PYTHONPATH": packages}


def undisturbed(toy: Toy) -> None:
    """The whole flow once: what every disturbed run has to come to as well."""
    toy.filter_and_shard(toy.job(toy.calm))
    source: Store = toy.calm
    if toy.s3 is not None:
        source = toy.target("calm")
        toy.publish(source)
    toy.train(toy.calm_run, source)


def said(work: Callable[[], None]) -> str:
    """What a job says on the terminal as it ends badly, in its one sentence; empty where it ends well."""
    with contextlib.redirect_stderr(io.StringIO()) as words:
        status = terminal.guarded(_SAYS, work)
    if status == terminal.STOPPED:
        raise KeyboardInterrupt
    lines = words.getvalue().splitlines()  # Ray's own threads write there, too
    return next((line.removeprefix(f"{_SAYS}: ") for line in lines if line.startswith(f"{_SAYS}: ")), "")


def add_pictures(server: HttpServer) -> tuple[str, ...]:
    """Puts the toy's pictures on the server; gives its links: `KEPT` are kept, each other ends elsewhere."""
    wide = {f"{n}.jpg": files.jpeg()(texture(n, SIDE + 8, 2 * SIDE + 16 * n)) for n in range(KEPT - 1)}
    bodies = wide | {
        "8.png": files.png(texture(8, SIDE + 40, SIDE + 24)),
        "crushed.jpg": files.jpeg(10)(texture(9, SIDE, SIDE + 64)),
        "small.jpg": files.jpeg()(texture(10, SIDE - 200, SIDE)),
        "again.jpg": wide["0.jpg"],
    }
    return (*(server.add(f"/drill/{name}", body, "image/jpeg") for name, body in bodies.items()), server.url("/404/a"))


def make_weights(folder: Path) -> Path:
    """A model for NIQE, of three of the toy's kind of picture, with the `SHA256SUMS` that binds it."""
    folder.mkdir()
    blocks = [niqe_features(texture(100 + n, 480, 480))[0].reshape(-1, 36) for n in range(3)]
    body = niqe_bytes(np.concatenate(blocks))
    (folder / NIQE_FILE).write_bytes(body)
    (folder / SUMS).write_text(f"{hashlib.sha256(body).hexdigest()}  {NIQE_FILE}\n")
    return folder


def _list(folder: Path, urls: Sequence[str]) -> Path:
    """A list of these links: the same name for the same links."""
    table = pa.table({"URL": list(urls)})
    path = folder / f"links-{hashlib.sha256(repr(urls).encode()).hexdigest()[:12]}.parquet"
    pq.write_table(table, path)
    return path
