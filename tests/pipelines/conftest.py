"""A real Ray, a real HTTP server, small textured pictures made by code, and models fitted to such pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from curation.fetch import FetchSettings
from curation.fit import fit
from curation.scorers import resolve
from jobs.drill_compare import rows_of as rows_of
from jobs.hostile_server import HttpServer
from pipelines import recipes
from pipelines.filter_laion import FilterJob
from pipelines.recipes import FilterRecipe
from pipelines.scoring import ScorerSpec
from shards.store import LocalStore, Store, StoreError, Written, open_store

SIDE = 512  # pixels of the pictures here, and the smallest that is kept


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """One local Ray of two cores for all tests of a file; other files start their own, of other kinds too."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def texture(seed: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """(H, W, 3) uint8: coloured 1/f noise, as rich as a photograph and different for each seed."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1.0
    white = generator.standard_normal((3, height, width))
    pink = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(height, width))
    mixed = np.moveaxis(pink[:1] + 0.3 * pink, 0, -1)
    return np.ascontiguousarray(np.clip(128 + 45 * mixed / mixed.std(), 0, 255).astype(np.uint8))


def encoded(pixels: np.ndarray, format: str = "JPEG", **options: object) -> bytes:
    """The picture as a file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **({"quality": 92} if format == "JPEG" else {}) | options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of NIQE and BRISQUE, fitted to pictures like those of the tests."""
    folder = tmp_path_factory.mktemp("prior") / "weights"
    fit([texture(seed) for seed in range(1000, 1006)], folder)
    return folder


@dataclass
class World:
    """A server with files, a list that names them, and a store to filter into."""

    server: HttpServer
    folder: Path
    prior: Path
    urls: list[str] = field(default_factory=list)
    bounds: dict[str, float] = field(default_factory=lambda: {"niqe": 30.0, "brisque": 200.0})
    fetching: FetchSettings = field(
        default_factory=lambda: FetchSettings(
            allow_private_hosts=True, read_timeout=1.0, deadline=3.0, backoff=0.1, max_bytes=2 << 20, per_host=8
        )
    )

    def serve(self, name: str, body: bytes, **headers: str) -> str:
        """Puts a file on the server and its URL on the list."""
        self.urls.append(self.server.add(f"/{name}", body, "image/jpeg", **headers))
        return self.urls[-1]

    def lists(self) -> tuple[Path, ...]:
        path = self.folder / "list.parquet"
        pq.write_table(pa.table({"URL": self.urls}), path)
        return (path,)

    def recipe(self, **changes: object) -> FilterRecipe:
        bounds = recipes.thresholds(self.bounds, min_res=SIDE)
        return FilterRecipe(**{"thresholds": bounds, "chunk_size": 4, "source": "test", **changes})

    def job(self, store: Store | None = None, **changes: object) -> FilterJob:
        recipe = changes.pop("recipe", self.recipe())
        return FilterJob(
            store=store or open_store(str(self.folder / "store")),
            lists=self.lists(),
            recipe=recipe,
            scoring=ScorerSpec.of(resolve(recipe.metrics, self.prior), recipe.engine),
            fetching=self.fetching,
            **changes,
        )


@pytest.fixture
def world(tmp_path: Path, prior: Path) -> Iterator[World]:
    with HttpServer() as server:
        yield World(server=server, folder=tmp_path, prior=prior)


class Stopped(StoreError):
    """What a `StoppingStore` raises."""


@dataclass(frozen=True, slots=True)
class StoppingStore(LocalStore):
    """A local store that takes so many writes and deletions, in all processes together, and then no more."""

    counter: Path
    limit: int

    def write(self, name: str, data: bytes | Path) -> Written:
        self._count()
        return LocalStore.write(self, name, data)

    def delete(self, name: str) -> None:
        self._count()
        LocalStore.delete(self, name)

    def _count(self) -> None:
        with self.counter.open("ab") as file:
            file.write(b".")
        if self.counter.stat().st_size > self.limit:
            raise Stopped(f"after {self.limit} writes")
