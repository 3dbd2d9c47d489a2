"""Ray nodes lost and added in the midst of filtering, sharding and training: the end is that of an undisturbed run.

A node is a raylet, its object store and its workers, killed together. The store itself kills the node that writes to
it, so that a moment is a moment and not a guess.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from curation.records import Reason
from dynet import checkpoint
from dynet.loop import Every
from dynet.model import ModelConfig
from dynet.train import Settings
from pipelines import filter_laion, pretrain, recipes, shard
from pipelines.cluster import connected, each
from pipelines.pretrain import PretrainJob
from pipelines.pretrain_recipes import PretrainRecipe
from pipelines.recipes import ShardRecipe
from pipelines.shard import ShardJob
from shards.store import LocalStore
from tests.http_server import HttpServer
from tests.pipelines.conftest import SIDE, World, encoded, rows_of, texture
from tests.pipelines.ray_nodes import LosingStore, Moment, Nodes, driver, tended, until
from tests.pipelines.test_kills import undated
from tests.sets import write_set

pytestmark = pytest.mark.slow

CHUNKS = 8  # of 2 URLs
STEPS = 8


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    running = Nodes()
    running.add(2)
    yield running
    running.lose_all()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """16 URLs of 8 chunks, 12 kept. The votes are this project's own, which need no weights and are ready at once."""
    folder = tmp_path_factory.mktemp("losing")
    with HttpServer() as server:
        world = World(server=server, folder=folder, prior=folder, bounds={"jpeg_quality": 60.0, "upscaling": 1000.0})
        for number in range(14):
            kept = number % 7 != 3
            world.serve(f"{number}.jpg", encoded(texture(number), quality=92 if kept else 30))
        world.urls += [server.url("/404/a"), server.url("/html/a.jpg")]
        server.pause = 0.3
        yield world


def calls(world: World, store: LocalStore) -> list[Callable[[], object]]:
    """The filter, then its shards."""
    recipe = world.recipe(chunk_size=2)
    job = world.job(store=store, recipe=recipe)
    cut = ShardRecipe(min_res=SIDE, max_shard_bytes=1 << 20)
    patches = ShardJob(store=store, stores=(store,), folders=(), recipe=cut, max_pixels=recipe.max_pixels)
    return [functools.partial(filter_laion.run, job, ignored), functools.partial(shard.shard, patches, ignored)]


def ignored(*_: object) -> None:
    """What nobody watches."""
