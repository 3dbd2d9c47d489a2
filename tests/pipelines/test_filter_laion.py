"""The main job from end to end: a list over HTTP in, a ledger, kept originals and patch shards out."""

from __future__ import annotations

import io
import tarfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import webdataset
from PIL import Image, ImageFilter

from curation import ledger, originals
from curation.records import Reason, Row, Stage
from curation.scorers import resolve
from pipelines import claims, recipes
from pipelines.filter_laion import FilterJob, run
from pipelines.recipes import ShardRecipe
from pipelines.rescore import Rescoring, rescore
from pipelines.scoring import ScorerSpec
from pipelines.shard import ShardJob, shard
from shards import manifest
from shards.store import Store, open_store
from tests.conftest import S3Server
from tests.pipelines.conftest import SIDE, World, encoded, rows_of, texture

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.slow]


def quiet(rows: int, so_far: Counter[str]) -> None:
    """Nobody watches."""


def go(job: FilterJob) -> dict[str, Reason]:
    """URL -> how it ended; of equal URLs the first."""
    run(job, quiet)
    return {row.link.url: row.reason for row in reversed(rows_of(job.store))}


FAULTS = {
    "/404/a": Reason.HTTP_NOT_FOUND,
    "/410/a": Reason.HTTP_NOT_FOUND,
    "/403/a": Reason.HTTP_FORBIDDEN,
    "/418/a": Reason.HTTP_CLIENT_ERROR,
    "/500/a": Reason.HTTP_SERVER_ERROR,
    "/reset/a": Reason.CONNECTION_RESET,
    "/drip/a": Reason.TOO_SLOW,
    "/never/a": Reason.TIMED_OUT,
    "/truncated/a": Reason.BODY_TRUNCATED,
    "/oversize/a": Reason.BODY_TOO_LARGE,
    "/empty/a": Reason.BODY_EMPTY,
    "/noai/a": Reason.OPTED_OUT,
    "/garbage/a": Reason.HTTP_PROTOCOL_ERROR,
    "/html/a.jpg": Reason.NOT_AN_IMAGE,
}


def test_every_fault_ends_in_its_own_reason_and_the_run_on_time(world: World) -> None:
    good = world.serve("good.jpg", encoded(texture(1)))
    small = world.serve("small.jpg", encoded(texture(2, 200, 600)))
    flat = world.serve("flat.png", encoded(0 * texture(3) + 200, "PNG"))
    broken = world.serve("broken.jpg", encoded(texture(4))[:9000])
    world.urls += [world.server.url(path) for path in FAULTS]
    world.urls += ["ftp://a.example/x.jpg", "not a url", "http://nowhere.invalid/x.jpg", good]
    started = time.monotonic()
    ended = go(world.job())
    assert time.monotonic() - started < 90
    expected = {world.server.url(path): reason for path, reason in FAULTS.items()}
    expected |= {good: Reason.KEPT, small: Reason.TOO_SMALL, flat: Reason.FLAT, broken: Reason.TRUNCATED}
    expected |= {"ftp://a.example/x.jpg": Reason.URL_NOT_HTTP, "not a url": Reason.URL_MALFORMED}
    assert {url: ended[url] for url in expected} == expected
    assert ended["http://nowhere.invalid/x.jpg"] in (Reason.DNS_UNKNOWN_HOST, Reason.DNS_NO_ANSWER)
    rows = rows_of(world.job().store)
    assert len(rows) == len(world.urls)
    assert rows[-1].reason is Reason.URL_REPEATED


def test_the_second_run_downloads_nothing_and_changes_nothing(world: World) -> None:
    for number in range(5):
        world.serve(f"{number}.jpg", encoded(texture(number)))
    job = world.job()
    go(job)
    before = _contents(job.store)
    asked = dict(world.server.requests)
    go(job)
    assert dict(world.server.requests) == asked
    assert _contents(job.store) == before


def test_originals_are_the_bytes_as_they_came_beside_what_they_are(world: World) -> None:
    bodies = {world.serve(f"{n}.jpg", body): body for n, body in enumerate(encoded(texture(n)) for n in range(6))}
    job = world.job()
    go(job)
    rows = {row.link.key: row for row in rows_of(job.store)}
    units = ["chunk-00000000", "chunk-00000001"]
    found = {key: data for unit in units for key, data in originals.read(job.store, unit)}
    assert {rows[key].link.url: data for key, data in found.items()} == bodies
    with tarfile.open(fileobj=io.BytesIO(job.store.read("images/chunk-00000000.tar"))) as tar:
        assert {member.mtime for member in tar} == {0}


def test_the_cascade_keeps_the_same_pictures_for_less(world: World) -> None:
    for number in range(3):
        world.serve(f"{number}.jpg", encoded(texture(number)))
    blurred = Image.fromarray(texture(3)).filter(ImageFilter.GaussianBlur(3))
    soft = world.serve("soft.jpg", encoded(np.asarray(blurred)))
    wide = world.serve("wide.png", encoded(texture(4, 300, 1500), "PNG"))
    page = world.serve("page.jpg", b"<!doctype html>" + bytes(200_000))
    stores = [open_store(str(world.folder / name)) for name in ("short", "full")]
    for store, cascade in zip(stores, (True, False), strict=True):
        run(world.job(store=store, recipe=world.recipe(cascade=cascade)), quiet)
    short, full = ({row.link.url: row for row in rows_of(store)} for store in stores)
    assert {url: row.reason for url, row in short.items()} == {url: row.reason for url, row in full.items()}
    assert Counter(row.reason for row in short.values())[Reason.KEPT] == 3
    images = [{name: store.read(name) for name in store.list("images/")} for store in stores]
    assert images[0] == images[1] != {}
    assert set(short[soft].scores) < set(full[soft].scores) == {"niqe", "brisque"}
    assert short[soft].detail.endswith("not computed: brisque")
    assert (short[wide].width, short[wide].height, short[wide].bytes) == (1500, 300, None)
    for url in (wide, page):
        assert short[url].bytes_spared > 0 == full[url].bytes_spared
        assert short[url].bytes_read < 30_000 < full[url].bytes_read
    assert all(row.ended > 1.7e9 for row in (*short.values(), *full.values()))


def test_a_metric_that_comes_later_is_computed_from_the_kept_originals(world: World) -> None:
    for number in range(5):
        world.serve(f"{number}.jpg", encoded(texture(number)))
    gone = world.serve("gone.jpg", encoded(np.asarray(Image.fromarray(texture(5)).filter(ImageFilter.GaussianBlur(3)))))
    first = world.recipe(thresholds=recipes.thresholds({"niqe": 30.0}, min_res=SIDE))
    job = world.job(recipe=first)
    assert go(job)[gone] is Reason.LOW_QUALITY
    asked = Counter(world.server.requests)
    both = world.recipe()
    scoring = ScorerSpec.of(resolve(both.metrics, world.prior), both.engine)
    claims.reclaim(job.store, both, scoring.digests)
    later = Rescoring(store=job.store, recipe=both, scoring=scoring, about={"recipe": both.to_dict()})
    assert rescore(later, lambda units, done: None) == 5
    assert rescore(later, lambda units, done: None) == 0
    assert Counter(world.server.requests) == asked
    at_once = world.job(store=open_store(str(world.folder / "at once")), recipe=both)
    run(at_once, quiet)
    after = [(row.link.url, row.reason, row.scores) for row in rows_of(job.store)]
    assert after == [(row.link.url, row.reason, row.scores) for row in rows_of(at_once.store)]


def test_a_retry_leaves_alone_what_only_waits_for_scores_of_a_kept_original(world: World) -> None:
    url = world.serve("gone-by-then.jpg", encoded(texture(0)))
    job = world.job(recipe=world.recipe(thresholds=recipes.thresholds({"niqe": 30.0}, min_res=SIDE)))
    assert go(job)[url] is Reason.KEPT
    both = world.recipe()
    later = replace(job, recipe=both, scoring=ScorerSpec.of(resolve(both.metrics, world.prior), both.engine))
    claims.reclaim(job.store, both, later.scoring.digests)
    assert go(later)[url] is Reason.NOT_MEASURED
    asked = Counter(world.server.requests)
    assert go(replace(later, retry_failed=True))[url] is Reason.NOT_MEASURED
    assert Counter(world.server.requests) == asked
    about = {"recipe": both.to_dict()}
    assert rescore(Rescoring(store=job.store, recipe=both, scoring=later.scoring, about=about), lambda *_: None) == 1
    assert go(later)[url] is Reason.KEPT


def test_equal_and_nearly_equal_pictures_are_kept_once_the_first_of_the_list(world: World) -> None:
    pixels = texture(7)
    first = world.serve("first.jpg", encoded(pixels))
    for number in range(4):  # so that the others lie in another chunk
        world.serve(f"other-{number}.jpg", encoded(texture(20 + number)))
    exact = world.serve("exact.jpg", encoded(pixels))
    near = world.serve("near.jpg", encoded(pixels, quality=60))
    job = world.job()
    ended = go(job)
    assert (ended[first], ended[exact], ended[near]) == (Reason.KEPT, Reason.DUPLICATE_EXACT, Reason.DUPLICATE_NEAR)
    by_url = {row.link.url: row for row in rows_of(job.store)}
    assert by_url[exact].stage is Stage.DUPLICATES
    assert by_url[exact].detail == f"of {by_url[first].link.key} in chunk-00000000"


def test_a_retry_does_just_what_failed_for_a_passing_reason(world: World) -> None:
    good = world.serve("good.jpg", encoded(texture(1)))
    gone = world.server.url("/404/gone.jpg")
    later = world.server.url("/500/later.jpg")
    world.urls += [gone, later]
    job = world.job()
    assert go(job)[later] is Reason.HTTP_SERVER_ERROR
    asked = Counter(world.server.requests)
    world.server.add("/500/later.jpg", encoded(texture(2)), "image/jpeg")
    assert go(job)[later] is Reason.HTTP_SERVER_ERROR  # without the flag: nothing
    assert Counter(world.server.requests) == asked
    ended = go(replace(job, retry_failed=True))
    assert (ended[good], ended[gone], ended[later]) == (Reason.KEPT, Reason.HTTP_NOT_FOUND, Reason.KEPT)
    assert Counter(world.server.requests) - asked == Counter({"/500/later.jpg": 1})
    assert len(list(originals.read(job.store, "chunk-00000000"))) == 2


def test_a_store_keeps_to_its_recipe_and_its_lists(world: World) -> None:
    world.serve("good.jpg", encoded(texture(1)))
    job = world.job()
    go(job)
    before = _contents(job.store)
    other = world.recipe(thresholds=recipes.thresholds({"niqe": 1.0, "brisque": 200.0}, min_res=SIDE))
    with pytest.raises(ValueError, match=r"another recipe.*niqe 30.*niqe 1.*another --out"):
        run(replace(job, recipe=other), quiet)
    world.serve("more.jpg", encoded(texture(2)))
    with pytest.raises(ValueError, match=r"other lists \(list.parquet\)"):
        run(world.job(), quiet)
    assert _contents(job.store) == before
    assert claims.recipe(job.store) == job.recipe


def _contents(store: Store) -> dict[str, bytes]:
    return {name: store.read(name) for name in store.list("")}


def test_a_dead_resolver_stops_the_run_and_burns_no_link(world: World) -> None:
    world.urls += [f"http://host-{number}.invalid/x.jpg" for number in range(8)]
    job = world.job(recipe=world.recipe(chunk_size=8))
    with pytest.raises(RuntimeError, match="DNS"):
        run(job, quiet)
    assert not rows_of(job.store)


def test_a_run_that_fails_lets_go_of_the_chunks_in_flight(world: World) -> None:
    """In a Ray that lives on they would commit behind the back of the next run, which settles the same ledger."""
    world.fetching = replace(world.fetching, resolver_probe="nobody.invalid", deadline=60.0, read_timeout=30.0)
    world.urls += [f"http://nobody-{number}.invalid/a.jpg" for number in range(5)]
    world.urls += [world.server.url(f"/never/{number}") for number in range(5)]
    job = world.job(recipe=world.recipe(chunk_size=5))
    with pytest.raises(RuntimeError, match="DNS"):
        go(job)
    ends = time.monotonic() + 10
    while world.server.now and time.monotonic() < ends:  # who waits for an answer has hung up
        time.sleep(0.05)
    assert world.server.now == 0
    assert list(ledger.units(job.store)) == []


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_from_links_to_shards_that_stock_readers_read(
    world: World, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    sides = [(512, 512), (700, 1100), (1030, 600)]
    for number, (height, width) in enumerate(sides):
        world.serve(f"{number}.jpg", encoded(texture(number, height, width), subsampling=number))
    world.serve("png.jpg", encoded(texture(9, 600, 600), "PNG"))
    store = open_store(str(tmp_path / "store")) if kind == "local" else _s3_store(request)
    job = world.job(store)
    go(job)
    made = shard(_shard_job(store), lambda total, done: None)
    assert made.sources == {"test": manifest.Source(pictures=4, with_patches=4, samples=6, flat=0)}
    assert manifest.read_manifest(store) == made
    assert shard(_shard_job(store), lambda total, done: pytest.fail("nothing was to be cut")) == made
    assert {one.name for one in made.shards} == {"train-000000.tar", "train-000001.tar"}  # JPEG, PNG
    kept = {row.link.key: row for row in rows_of(store)}
    samples = 0
    for one in made.shards:
        path = tmp_path / one.name
        path.write_bytes(store.read(f"shards/{one.name}"))
        names = [
            _check_sample(sample, kept)
            for sample in webdataset.WebDataset(str(path), shardshuffle=False).decode("rgb8")
        ]
        assert names == [row["__key__"] for row in ray.data.read_webdataset(str(path)).take_all()]
        samples += len(names)
    assert samples == made.samples == 6


def _check_sample(sample: dict[str, Any], kept: dict[str, Row]) -> str:
    """A sample as stock webdataset gives it; its name."""
    about = sample["json"]
    pixels = sample["jpg"] if "jpg" in sample else sample["png"]
    assert pixels.shape == (512, 512, 3)
    assert sample["__key__"] == f"{about['key']}_{about['top']:05d}_{about['left']:05d}"
    assert about["niqe"] == pytest.approx(kept[about["key"]].scores["niqe"])
    return str(sample["__key__"])


def _s3_store(request: pytest.FixtureRequest) -> Store:
    server: S3Server = request.getfixturevalue("s3_server")
    return open_store(server.bucket("links-to-shards") + "/set", server.endpoint_url)


def _shard_job(store: Store) -> ShardJob:
    return ShardJob(store=store, stores=(store,), folders=(), recipe=ShardRecipe(min_res=SIDE), max_pixels=1 << 27)
