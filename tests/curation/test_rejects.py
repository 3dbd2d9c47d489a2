"""Which refused pictures stay to be looked at: few, small, and the same whatever the order and the restarts."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation import rejects
from curation.records import Link, Reason, Row, Stage
from curation.rejects import PER_REASON, Rejects, is_shown
from shards.store import LocalStore

UNIT = "chunk-00000003"


def row(number: int, reason: Reason = Reason.LOW_QUALITY, digest: str | None = "0" * 64) -> Row:
    link = Link(position=number, key=f"{number * 7919 % 1000:016x}", url=f"http://a.example/{number}", source="test")
    return Row(link=link, reason=reason, stage=Stage.JUDGE, sha256=digest)


def picture(seed: int, width: int = 120) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (90, width, 3), dtype=np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def offered(rows: list[Row], folder: Path) -> Rejects:
    folder.mkdir(exist_ok=True)
    taken = Rejects()
    for one in rows:
        path = folder / one.link.key
        path.write_bytes(picture(one.link.position))
        taken.offer(one, path)
    return taken


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_the_lowest_keys_of_each_reason_stay_in_any_order(store: LocalStore, tmp_path: Path) -> None:
    rows = [row(n) for n in range(20)] + [row(n, Reason.FLAT) for n in range(20, 23)]
    shuffled = random.Random(0).sample(rows, len(rows))
    tars = []
    for name, order in (("one", rows), ("two", shuffled)):
        offered(order, tmp_path / name).write(store, UNIT, rows, tmp_path)
        tars.append(store.read(rejects.tar_name(UNIT)))
        store.delete(rejects.tar_name(UNIT))
        assert len(list((tmp_path / name).iterdir())) == PER_REASON + 3
    assert tars[0] == tars[1]
    store.write(rejects.tar_name(UNIT), tars[0])
    low = sorted(one.link.key for one in rows[:20])[:PER_REASON]
    assert [key for key, _ in rejects.read(store, UNIT)] == sorted(low + [one.link.key for one in rows[20:]])
    assert all(Image.open(io.BytesIO(body)).size == (256, 256) for _, body in rejects.read(store, UNIT))


def test_what_an_earlier_run_left_stays_unless_it_is_kept_by_now(store: LocalStore, tmp_path: Path) -> None:
    first, second = [row(n) for n in range(3)], [row(n) for n in range(3, 5)]
    offered(first, tmp_path / "one").write(store, UNIT, first, tmp_path)
    after = [row(0, Reason.KEPT), *first[1:], *second]
    offered(second, tmp_path / "two").write(store, UNIT, after, tmp_path)
    assert {key for key, _ in rejects.read(store, UNIT)} == {one.link.key for one in after[1:]}


def test_what_is_too_large_for_a_task_without_memory_of_its_own_is_left_out(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejects, "MOST_PIXELS", 119 * 90)
    rows = [row(0), row(1)]
    taken = offered(rows, tmp_path / "one")
    (tmp_path / "one" / rows[1].link.key).write_bytes(picture(1, width=119))
    taken.write(store, UNIT, rows, tmp_path)
    assert [key for key, _ in rejects.read(store, UNIT)] == [rows[1].link.key]


def test_files_that_show_nothing_are_gone_at_once(tmp_path: Path) -> None:
    offered([row(1, Reason.TRUNCATED), row(2, Reason.UNSCORABLE, digest=None)], tmp_path / "one")
    assert list((tmp_path / "one").iterdir()) == []


def test_without_pictures_there_is_no_tar(store: LocalStore, tmp_path: Path) -> None:
    Rejects().write(store, UNIT, [row(1)], tmp_path)
    assert list(rejects.units(store)) == []


def test_the_first_units_are_shown_and_one_in_64() -> None:
    assert [n for n in range(200) if is_shown(f"chunk-{n:08d}")] == [*range(16), 64, 128, 192]
