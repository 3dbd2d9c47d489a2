"""What a run takes of its machines: the object store's share stays bounded, and networks go where GPUs are.

One node of one core and the smallest object store there is; later a second node, which says that it has a GPU.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from PIL import Image, ImageFilter
from ray._private.internal_api import get_memory_info_reply, get_state_from_address
from ray.cluster_utils import Cluster

from curation.fetch import FetchSettings
from curation.records import Reason
from pipelines.cluster import at_most
from pipelines.filter_laion import prepare, run
from pipelines.scoring import needs
from pipelines.unit_tally import Done
from pipelines.units import BATCH_PICTURES, DOWNLOAD_CORES, IN_FLIGHT, SCORE_CORES
from shards.store import open_store
from tests.curation.scorers.conftest import NIMA_FILE, pin, write_nima
from tests.pipelines.conftest import SIDE, World, encoded, rows_of, texture
from tests.pipelines.test_kills import undated

pytestmark = pytest.mark.slow

STORE_BYTES = 80 << 20  # of the node's object store: about the least that Ray takes
UNITS = 2  # in flight on one core
SUBMITTED = UNITS * (IN_FLIGHT + 1) * BATCH_PICTURES  # pictures that are in the object store at most
THREADS = 4
#: What has been asked for when downloads stand still: beside those, bodies in a batch, in the queue, with img2dataset.
ASKED = SUBMITTED + UNITS * (BATCH_PICTURES + 8 + 2 * THREADS)
STANDS_STILL = 4.0  # seconds without a new request


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """It sees within seconds that a node is gone, and kills nothing where others have taken the memory."""
    config = {"health_check_period_ms": 500, "memory_monitor_refresh_ms": 0}
    head = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False, "_system_config": config}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    ray.init(nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def object_store(cluster: Cluster) -> Any:
    """Ray's own statistics of it: what `ray memory --stats-only` prints."""
    return get_memory_info_reply(get_state_from_address(cluster.address)).store_stats


@ray.remote(num_cpus=SCORE_CORES)
class Core:
    """Takes a core away from whoever scores, and leaves what downloads ask for."""

    def hold(self) -> None: ...


@dataclass
class Slow:
    """A consumer that scores nothing until downloads stand still: as slow as can be."""

    world: World
    cluster: Cluster
    core: Any = field(default_factory=Core.remote)
    used: int = 0  # bytes, the most seen until then
    used_after: int = 0  # the most seen later: Ray frees what was let go once a second
    asked: int = 0
    stood_at: int = 0
    since: float = 0.0

    def __call__(self, rows: int, so_far: Counter[str]) -> None:
        used = object_store(self.cluster).object_store_bytes_used
        if self.stood_at:
            self.used_after = max(self.used_after, used)
            return
        self.used = max(self.used, used)
        asked = self.world.server.requests.total()
        if asked > self.asked or not asked:
            self.asked, self.since = asked, time.monotonic()
        elif time.monotonic() - self.since > STANDS_STILL:
            self.stood_at = asked
            ray.kill(self.core)


def noise(number: int, width: int) -> bytes:
    """A file of 1.5 KB a column that no other is equal to, and that is quickly scored: it is too small to be."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE - 12, width, 3), np.uint8)
    return encoded(pixels, "PNG", compress_level=0) + number.to_bytes(8, "big")


def held_back(world: World, cluster: Cluster, width: int, count: int, chunk: int) -> Slow:
    """A run over so many files, none of which is lost."""
    body = noise(0, width)[:-8]
    bodies = [body + number.to_bytes(8, "big") for number in range(count)]
    digests = {world.serve(f"{n}.png", one): sha256(one).hexdigest() for n, one in enumerate(bodies)}
    world.fetching = FetchSettings(
        allow_private_hosts=True, threads=THREADS, per_host=THREADS, read_timeout=60, deadline=300
    )
    job = world.job(recipe=world.recipe(chunk_size=chunk, cascade=False))
    prepare(job)  # by tasks that want the core too
    slow = Slow(world, cluster)
    ray.get(slow.core.hold.remote())
    run(job, slow)
    rows = rows_of(job.store)
    assert {row.link.url: row.sha256 for row in rows} == digests
    assert {row.reason for row in rows} == {Reason.TOO_SMALL}
    return slow


def test_downloads_wait_for_scores_before_the_object_store_is_full(world: World, cluster: Cluster) -> None:
    slow = held_back(world, cluster, width=SIDE, count=160, chunk=80)
    size = len(noise(0, SIDE))
    print(f"{slow.stood_at} of 160 asked for; {slow.used / 1e6:.1f} MB, {slow.used_after / 1e6:.1f} MB later")
    print(f"bound {SUBMITTED * size / 1e6:.1f} MB")
    assert 0 < slow.stood_at <= ASKED < 160
    assert 0 < slow.used <= SUBMITTED * size + (1 << 20) < STORE_BYTES
    assert slow.used_after < STORE_BYTES
    assert object_store(cluster).spilled_bytes_total == 0


@pytest.mark.endurance
def test_what_the_object_store_cant_hold_is_spilled_and_comes_back(world: World, cluster: Cluster) -> None:
    slow = held_back(world, cluster, width=1400, count=80, chunk=40)
    size, seen = len(noise(0, 1400)), object_store(cluster)
    print(f"{slow.used / 1e6:.1f} MB used, {seen.spilled_bytes_total / 1e6:.1f} MB spilled")
    assert SUBMITTED * size > STORE_BYTES
    assert slow.used <= SUBMITTED * size + (1 << 20)  # with what Ray has put on disk at once
    assert seen.restored_bytes_total > 0 < seen.spilled_bytes_total <= SUBMITTED * size + (1 << 20)


@pytest.fixture(scope="module")
def prior_with_nima(prior: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nima")
    made = shutil.copytree(prior, folder / "weights")
    shutil.copy(write_nima(folder / "made") / NIMA_FILE, made)
    pin(made)
    return made


def filtered(world: World, name: str, watch: Any = lambda rows, so_far: None) -> tuple[list[str], Counter[str]]:
    """A run's rows, undated, and the seconds that it took by stage."""
    seconds: Counter[str] = Counter()

    def landed(done: Done) -> None:
        seconds.update(done.seconds)

    job = world.job(open_store(str(world.folder / name)))
    run(job, watch, landed)
    return undated(rows_of(job.store)), seconds


@pytest.mark.endurance
def test_networks_are_scored_where_gpus_are_and_on_cores_once_they_are_gone(
    world: World, cluster: Cluster, prior_with_nima: Path
) -> None:
    world.prior, world.bounds = prior_with_nima, {"niqe": 30.0, "brisque": 200.0, "nima-vgg16-ava": 0.0}
    world.fetching = replace(world.fetching, read_timeout=60, deadline=300)
    for seed in range(4):
        world.serve(f"{seed}.jpg", encoded(texture(seed)))
    blurred = Image.fromarray(texture(5)).filter(ImageFilter.GaussianBlur(3))
    world.serve("blurred.jpg", encoded(np.asarray(blurred)))
    world.serve("flat.png", encoded(0 * texture(6) + 200, "PNG"))
    rows, seconds = filtered(world, "cores")
    assert seconds["gpu"] == 0 < seconds["score"]
    assert sum("nima-vgg16-ava" in row for row in rows) >= 4

    node = cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE_BYTES)
    spec = world.job().scoring
    assert ray.get(where.options(**needs(spec, 1)).remote()) == node.node_id
    again, seconds = filtered(world, "mixed")
    assert again == rows
    assert 0 < seconds["gpu"] < seconds["score"]

    taken = where.options(num_gpus=1).remote(held_for=1000.0)  # so that scores wait for it
    lost = []

    def lose(_rows: int, so_far: Counter[str]) -> None:
        if so_far and not lost:  # the first task's part is done: that of the second waits
            lost.append(node.node_id)
            ray.cancel(taken, force=True)
            cluster.remove_node(node, allow_graceful=False)

    again, seconds = filtered(world, "lost", lose)
    assert lost
    assert again == rows


def test_no_node_gets_more_units_than_its_share(cluster: Cluster) -> None:
    asked = [where.options(**at_most(2, "test")).remote(held_for=1.0) for _ in range(6)]
    begun = time.monotonic()
    ray.get(asked)
    assert time.monotonic() - begun >= 3.0


@pytest.mark.parametrize("cores", [1, 2, 16, 192])
def test_a_node_has_a_score_for_each_core_beside_all_its_units(cores: int) -> None:
    """In Ray's own grains, a ten-thousandth of a core."""
    score, unit = (round(10_000 * one) for one in (SCORE_CORES, DOWNLOAD_CORES))
    left = 10_000 * cores - unit * (1 + cores)
    assert left // score == cores == 10_000 * cores // score


@ray.remote(num_cpus=0)
def where(held_for: float = 0.0) -> str:
    """The node this runs on."""
    time.sleep(held_for)
    return str(ray.get_runtime_context().get_node_id())
