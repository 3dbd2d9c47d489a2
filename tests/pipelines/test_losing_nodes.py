"""Ray nodes lost and added in the midst of filtering, sharding and training: the end is that of an undisturbed run.

A node is a raylet, its object store and its workers, killed together. Where the moment matters, the store kills the
node that writes to it: so it comes on a quick machine as on a slow one.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray

from curation import ledger
from curation.fetch import FetchSettings
from curation.records import Reason
from dynet import checkpoint
from dynet.loop import Every
from dynet.model import ModelConfig
from dynet.train import Settings
from jobs.hostile_server import HttpServer
from pipelines import filter_laion, pretrain, shard
from pipelines.cluster import connected, each
from pipelines.pretrain import PretrainJob
from pipelines.pretrain_recipes import PretrainRecipe
from pipelines.recipes import ShardRecipe
from pipelines.shard import ShardJob
from shards.store import LocalStore
from tests.pipelines.conftest import SIDE, World, encoded, rows_of, texture
from tests.pipelines.ray_nodes import LosingStore, Moment, Nodes, driver, ignored, tended, until
from tests.pipelines.test_kills import undated
from tests.sets import write_set
from tests.states import digest

pytestmark = pytest.mark.slow

CHUNKS = 8  # of 2 URLs
KEPT = 12
PAUSE = 0.3  # seconds before each answer
Calls = list[Callable[[], object]]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    running = Nodes()
    yield running
    running.lose_all()


@dataclass(frozen=True)
class Listed:
    """A list, its server, and what an undisturbed run makes of it."""

    world: World
    calm: LocalStore

    def calls(self, store: LocalStore) -> Calls:
        """The filter into a store, then its shards."""
        recipe = self.world.recipe(chunk_size=2)
        job = self.world.job(store=store, recipe=recipe)
        how = ShardRecipe(min_res=SIDE, max_shard_bytes=1_000_000)
        cut = ShardJob(store=store, stores=(store,), folders=(), recipe=how, max_pixels=recipe.max_pixels)
        return [functools.partial(filter_laion.run, job, ignored), functools.partial(shard.shard, cut, ignored)]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory, nodes: Nodes) -> Iterator[Listed]:
    """16 URLs. The votes are this project's own: they need no weights, and a worker is ready at once."""
    folder = tmp_path_factory.mktemp("losing")
    with HttpServer() as server:
        bounds = {"jpeg_quality": 60.0, "upscaling": 1000.0}
        patient = FetchSettings(allow_private_hosts=True, read_timeout=300.0, deadline=300.0, per_host=16)
        world = World(server=server, folder=folder, prior=folder, bounds=bounds, fetching=patient)
        for number in range(CHUNKS * 2 - 2):
            world.serve(f"{number}.jpg", encoded(texture(number), quality=30 if number % 7 == 3 else 92))
        world.urls += [server.url("/404/a"), server.url("/html/a.jpg")]
        server.pause = PAUSE
        one = Listed(world=world, calm=LocalStore(folder / "calm"))
        nodes.have(2)
        with driver(nodes, folder / "undisturbed", *one.calls(one.calm)) as running:
            tended(nodes, [running], folder)
        assert Counter(row.reason for row in rows_of(one.calm))[Reason.KEPT] == KEPT
        yield one


def losing(folder: Path, *moments: Moment) -> LosingStore:
    """A store in a folder, with its notes beside it."""
    notes = folder.with_suffix(".notes")
    notes.mkdir()
    return LosingStore(folder, moments=moments, notes=notes)


def assert_same(calm: LocalStore, disturbed: LocalStore) -> None:
    """Byte for byte; the ledger but for what a clock and a count of tries say."""
    names = [name for name in calm.list("") if not name.startswith("ledger/")]
    assert [name for name in disturbed.list("") if not name.startswith("ledger/")] == names
    assert {name.partition("/")[0] for name in names} >= {"recipe.json", "links", "images", "shards"}
    assert [name for name in names if disturbed.read(name) != calm.read(name)] == []
    assert undated(rows_of(disturbed)) == undated(rows_of(calm))
    assert list(ledger.units(disturbed)) == list(ledger.units(calm))


# ---------------------------------------------------------------- filtering


@pytest.mark.endurance
def test_nodes_lost_under_a_picture_are_not_held_against_it(tmp_path: Path, prior: Path, nodes: Nodes) -> None:
    """Three of them, one after the other, each while it scored the same batch; the unit lives on on the head."""
    nodes.have(1)
    with HttpServer() as server:
        world = World(server=server, folder=tmp_path, prior=prior, bounds={"niqe": 30.0})
        for number in range(2):
            world.serve(f"{number}.jpg", encoded(texture(number)))
        job = world.job(store=LocalStore(tmp_path / "store"))
        with driver(nodes, tmp_path / "driver", functools.partial(filter_laion.run, job, ignored)) as running:
            lost = 0
            while lost < 3:
                node = until(lambda: nodes.running("score_batch") or running.poll(), "a batch to be scored")
                assert running.poll() is None, (tmp_path / "driver" / "log").read_text()
                lost += nodes.head_runs("run_unit")
                nodes.lose(node)
                until(lambda: nodes.head_runs("run_unit"), "the unit to be on the head, as there is nothing else")
                nodes.add(1)
            tended(nodes, [running], tmp_path)
    assert [row.reason for row in rows_of(job.store)] == [Reason.KEPT] * 2


MOMENTS = (
    Moment(name="images/", after=True),
    Moment(name="ledger/", after=False),
    Moment(name="ledger/", after=True),  # committed, and nobody was told
    Moment(name="patches/", after=True),  # a tar without its index
    Moment(name="shards/train-", after=True),  # written, and nobody was told
)


def test_nodes_lost_while_they_commit_leave_what_no_loss_leaves(nodes: Nodes, listed: Listed, tmp_path: Path) -> None:
    """Another is added for each: the driver goes on with what there is."""
    store = losing(tmp_path / "store", *MOMENTS)
    before = nodes.replaced
    with driver(nodes, tmp_path / "driver", *listed.calls(store)) as running:
        tended(nodes, [running], tmp_path)
    assert store.come == len(MOMENTS)
    nodes.replace_lost()  # one that went as the driver ended
    assert nodes.replaced - before == len(MOMENTS)
    assert_same(listed.calm, store)


@pytest.mark.endurance
def test_nodes_that_are_added_get_work_and_a_killed_driver_is_followed_by_another(
    nodes: Nodes, listed: Listed, tmp_path: Path
) -> None:
    """A driver has a unit more in flight than there are cores, of two links each: the server sees how many that is."""
    nodes.have(2)
    store, server, cores = LocalStore(tmp_path / "store"), listed.world.server, len(nodes.workers)
    server.pause = 60.0
    with driver(nodes, tmp_path / "driver", *listed.calls(store)) as running:
        until(lambda: server.now == 2 * (1 + cores), "as many units as cores, and one")
        nodes.add(1)
        until(lambda: server.now == 2 * (2 + cores), "one more")
        running.kill()
    server.pause = PAUSE
    with driver(nodes, tmp_path / "driver", *listed.calls(store)) as running:
        tended(nodes, [running], tmp_path)
    assert_same(listed.calm, store)


@ray.remote(num_cpus=1, max_retries=20)
def large(number: int) -> bytes:
    """Too large to travel with the answer: it stays in the object store of its node."""
    return bytes([number]) * 1_000_000


def collect(ready: Path, go_on: Path) -> None:
    """What `each` gives, where it waits after the first until nodes were lost."""

    def watch(_total: int, done: int) -> None:
        if done == 1:
            ready.touch()
            until(go_on.exists, "the loss")

    with connected():
        found = list(each(large, [(number,) for number in range(8)], watch))
    assert found == [bytes([number]) * 1_000_000 for number in range(8)]


def test_results_that_were_lost_with_their_node_are_made_again(nodes: Nodes, tmp_path: Path) -> None:
    nodes.have(2)
    ready, go_on = tmp_path / "ready", tmp_path / "go-on"
    with driver(nodes, tmp_path / "driver", functools.partial(collect, ready, go_on)) as running:
        until(ready.exists, "the first result")
        for node in nodes.workers:
            nodes.lose(node)
        nodes.add(1)
        go_on.touch()
        tended(nodes, [running], tmp_path)


@pytest.mark.endurance
def test_what_one_cluster_began_to_filter_another_ends(nodes: Nodes, listed: Listed, tmp_path: Path) -> None:
    """The head and all nodes are lost while a unit is about to commit and others have."""
    store = losing(tmp_path / "store", Moment(name="ledger/", after=False, holds=True))
    nodes.have(2)
    with driver(nodes, tmp_path / "driver", *listed.calls(store)) as running:
        until(lambda: store.come and any(store.list("ledger/")), "a commit")
        nodes.lose_all()
        until(lambda: running.poll(), "the driver to see that its cluster is gone")
    nodes.begin_anew()
    nodes.have(2)
    with driver(nodes, tmp_path / "driver", *listed.calls(store)) as running:
        tended(nodes, [running], tmp_path)
    assert_same(listed.calm, store)


# ---------------------------------------------------------------- training

RECIPE = PretrainRecipe(
    settings=Settings(steps=8, lr=1e-3, depths=("1,1,1,1", "1,2,2,2")),
    model=ModelConfig(width=8, refinement=1),
    every=Every(checkpoint=2, keep=4, validate=8, pictures=8, report=2),
    batch=4,
    crop=16,
    window=40,
    held_out=(),
)


def training(data: LocalStore, out: LocalStore) -> Callable[[], object]:
    """Two ranks: on nodes of one core, one a node."""
    job = PretrainJob(store=data.root, out=out, recipe=RECIPE, ranks=2, workers=0)
    return functools.partial(pretrain.pretrain, job, ignored)


def left(out: LocalStore) -> dict[str, bytes | str]:
    """Checkpoints to the bit, and the curve."""
    states = {checkpoint.name_of(step): digest(checkpoint.load(out, step)) for step in checkpoint.steps(out)}
    return states | {name: out.read(name) for name in out.list("curve/")}


def test_what_one_cluster_began_to_train_another_ends(nodes: Nodes, tmp_path: Path) -> None:
    """A node is lost while rank 0 writes a checkpoint, and replaced; later the head and all nodes."""
    data, calm = LocalStore(tmp_path / "set"), LocalStore(tmp_path / "calm")
    write_set(data, [12, 8], size=32)
    nodes.have(2)
    with driver(nodes, tmp_path / "undisturbed", training(data, calm)) as running:
        tended(nodes, [running], tmp_path)
    run = losing(
        tmp_path / "run",
        Moment(name=checkpoint.name_of(4), after=True),  # and its commit isn't
        Moment(name=checkpoint.name_of(8), after=False, holds=True),
    )
    with driver(nodes, tmp_path / "driver", training(data, run)) as running:
        before = nodes.replaced
        until(lambda: nodes.replace_lost() or run.come == 2, "the last step")
        assert nodes.replaced == before + 1
        assert checkpoint.steps(run) == [2, 4, 6]
        nodes.lose_all()
        until(lambda: running.poll(), "the driver to see that its cluster is gone")
    nodes.begin_anew()
    nodes.have(2)
    with driver(nodes, tmp_path / "driver", training(data, run)) as running:
        tended(nodes, [running], tmp_path)
    assert left(run) == left(calm)
