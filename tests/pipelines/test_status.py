"""A store alone tells how far its run is, at every step of it; what is estimated is close to what is there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from curation import chunks, ledger
from curation.records import Reason
from pipelines import claims, cutting
from pipelines.filter_laion import prepare, run
from pipelines.status import Status, Step, status
from shards import manifest
from shards.publish import CARD
from shards.store import LocalStore, Store, open_store
from tests import ledgers
from tests.pipelines.conftest import World, encoded, rows_of, texture
from tests.sets import write_set

NOW = ledgers.BEGIN + 10 * ledgers.CHUNK_SECONDS + 5


def half(store: Store, size: int = 20) -> Status:
    """Of a run of 20 chunks that has done 10, five seconds after the last."""
    ledgers.commit(store, ledgers.plan(store, 20, size), range(10))
    return status(store, now=NOW)


def test_half_way(store: Store) -> None:
    found = half(store)
    assert (found.step, found.planned, found.committed, found.read, found.sampled) == (
        Step.DOWNLOADING,
        20,
        10,
        10,
        False,
    )
    assert (found.rows.committed, found.rows_planned) == (200, 399)
    assert found.rows.reasons == {
        Reason.KEPT: 120,
        Reason.HTTP_NOT_FOUND: 40,
        Reason.TIMED_OUT: 20,
        Reason.URL_REPEATED: 20,
    }
    assert (found.rows.kept_bytes, found.rows.bytes_read) == (120_000, 120 * 1100 + 40 * 100)
    assert (found.rows.retry_rows, found.rows.retry_chunks) == (20, 10)


def test_pace_and_end(store: Store) -> None:
    """20 rows a minute, 10 chunks left."""
    found = half(store)
    assert found.recent is not None and found.overall is not None
    assert found.recent.per_second(found.recent.rows) == pytest.approx(20 / 60, rel=0.02)
    assert found.overall.per_second(found.overall.rows) == pytest.approx(20 / 60, rel=0.02)
    assert found.outlook.seconds == pytest.approx(600, rel=0.02)
    assert found.outlook.silent == pytest.approx(5)


def test_the_worst_hosts_are_named_by_seconds_and_by_failures(store: Store) -> None:
    hosts = half(store).hosts
    assert list(hosts) == ["slow.example", "good.example", "gone.example"]
    assert (hosts["slow.example"].failed, hosts["slow.example"].seconds) == (20, 600)
    assert (hosts["gone.example"].failed, hosts["good.example"].failed) == (40, 0)


def test_nothing_is_written(tmp_path: Path) -> None:
    half(LocalStore(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    status(LocalStore(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_each_step_of_a_run_is_told_from_the_next(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    steps = []

    def look() -> None:
        steps.append(status(store, now=NOW).step)

    store.write(claims.CLAIM, b"{}")
    look()
    plan = ledgers.plan(store, 2, 10)
    look()
    ledgers.commit(store, plan, [0])
    look()
    ledgers.commit(store, plan, [1])
    look()
    store.write(f"{cutting.FOLDER}00-chunk-00000000.parquet", b"")
    look()
    store.write(f"{manifest.FOLDER}train-000000.tar", b"")
    look()
    store.delete(f"{manifest.FOLDER}train-000000.tar")
    cutting.clear(store)
    made = write_set(store, [2, 1])
    look()
    assert steps == [
        Step.PLANNING,
        Step.DOWNLOADING,
        Step.DOWNLOADING,
        Step.SETTLING,
        Step.CUTTING,
        Step.SHARDING,
        Step.SHARDED,
    ]
    assert status(store, now=NOW).cut.samples == made.samples


def test_a_set_without_a_run_is_a_set(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write_set(store, [2, 1])
    assert status(store).step is Step.SHARDED
    store.write(CARD, b"# A set")
    assert status(store).step is Step.PUBLISHED


def test_what_is_no_store_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match=r"is no store of dynet-filter .* --out"):
        status(store)


def test_a_sample_is_close_to_the_whole_and_says_so(tmp_path: Path) -> None:
    """600 chunks of 603, three of the last missing; every third chunk has lost its kept rows."""
    store = LocalStore(tmp_path)
    ledgers.plan(store, 603, 10)
    (tmp_path / ledger.FOLDER).mkdir()
    for number in [*range(598), 599, 602]:
        rows = ledgers.rows(number, 10)[: 9 if number == 602 else 10]
        if number % 3 == 0:
            rows = [replace(r, reason=Reason.TOO_SMALL) if r.reason is Reason.KEPT else r for r in rows]
        (tmp_path / ledger.part_name(chunks.unit_name(number))).write_bytes(ledger.encode(rows, (), {}))
    now = ledgers.BEGIN + 603 * ledgers.CHUNK_SECONDS
    part, whole = status(store, now=now), status(store, full=True, now=now)
    assert (part.sampled, whole.sampled, whole.read) == (True, False, 600)
    assert part.read < 2 * 256
    assert part.rows.committed == whole.rows.committed == 5999
    assert part.rows.reasons[Reason.KEPT] == pytest.approx(whole.rows.reasons[Reason.KEPT], rel=0.05)
    assert part.rows.bytes_read == pytest.approx(whole.rows.bytes_read, rel=0.05)
    assert part.outlook.seconds == whole.outlook.seconds is not None


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_real_run_after_and_on_its_way(world: World) -> None:
    """The ledger of a run, and copies of it with parts taken away, as they were before those were committed."""
    good = encoded(texture(1))
    for number in range(5):
        world.serve(f"{number}.jpg", encoded(texture(number)) if number % 2 else good[: 50 + number])
    world.urls.append("http://127.0.0.1:9/refused.jpg")
    job = world.job(recipe=world.recipe(chunk_size=2))
    prepare(job)
    assert status(job.store).step is Step.DOWNLOADING
    run(job, lambda total, so_far: None)
    done, rows = status(job.store), rows_of(job.store)
    assert (done.step, done.planned, done.committed) == (Step.SETTLING, 3, 3)
    assert done.rows.reasons == {
        reason: sum(row.reason is reason for row in rows) for reason in {r.reason for r in rows}
    }
    assert done.rows.retry_rows == 1 and done.outlook.left == 0
    assert done.hosts["127.0.0.1"].rows == 6
    copy = world.folder / "copy"
    shutil.copytree(world.folder / "store", copy)
    (copy / "ledger" / "chunk-00000001.parquet").unlink()
    found = status(open_store(str(copy)))
    assert (found.step, found.committed, found.rows.committed) == (Step.DOWNLOADING, 2, 4)
    assert found.outlook.left == 1
