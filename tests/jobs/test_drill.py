"""The drill: what its table says, that each check can fail, and a handful of its faults for real."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from curation import ledger
from curation.decode import header
from curation.records import Link, Reason, Refusal, Row, url_key
from dynet import checkpoint
from jobs import drill, drill_compare, drill_kills, drill_links, drill_store, drill_training
from jobs.drill_fault import TRIES, Fault, Found, Verdict, judged, tried
from jobs.drill_toy import Toy, said
from jobs.hostile_server import HttpServer
from shards.manifest import FOLDER, read_manifest
from shards.store import LocalStore
from tests.conftest import free_port
from tests.sets import write_set

REQUIRED = {
    *("killed-scorer", "killed-cutter", "killed-driver", "killed-trainer", "other-cluster"),
    *("s3-slow-down", "s3-resets", "expired-credentials", "torn-shard", "torn-cache", "full-disk"),
    *("corrupt-jpeg", "bomb", "dripping-host", "silent-host", "redirect-private", "dead-resolver"),
    *("nan-once", "nan-for-good", "altered-weights"),
}


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """One without a run behind it: for what does not look at it."""
    with HttpServer() as server:
        return Toy(
            folder=tmp_path,
            server=server,
            urls=(),
            weights=tmp_path,
            machines=1,
            address="",
            mark="",
            s3=None,
            no_s3="no",
        )


def fault(run: Callable[[Toy], Found], why_not: str = "") -> Fault:
    return Fault(name="made-up", does="", run=run, hinders=lambda toy: why_not)


def test_the_list_has_every_fault_and_runs_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert drill.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == REQUIRED
    assert len(lines) == len(REQUIRED)
    assert all(re.match(r"\S+ {2,}\w", line) for line in lines)


def test_a_name_that_is_none_is_told_before_anything_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert drill.main(["--only", "bomb", "bmob"]) == 2
    assert capsys.readouterr().err == "python jobs/drill.py: there is no fault bmob: --list has their names\n"


def test_an_address_of_another_machine_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert drill.main(["--serve-on", "203.0.113.9"]) == 2
    assert "--serve-on 203.0.113.9: this machine can't listen there" in capsys.readouterr().err


def test_a_node_that_cannot_take_part_is_told_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "seen").touch()
    nobody = f"http://127.0.0.1:{free_port()}/"
    assert "--serve-on" in drill.lacks(nobody, str(tmp_path / "seen"))
    with HttpServer() as server:
        assert "--out" in drill.lacks(server.url("/pixel"), str(tmp_path / "other"))
        assert drill.lacks(server.url("/pixel"), str(tmp_path / "seen")) == ""


def test_what_never_happened_or_did_not_hold_is_no_pass() -> None:
    assert judged(Found(struck="killed", held="all is well"))[0] is Verdict.PASS
    assert judged(Found(struck="", held="all is well"))[0] is Verdict.FAIL
    assert judged(Found(struck="killed", held="all is well", broken=("a row differs",))) == (
        Verdict.FAIL,
        "killed\na row differs",
    )


def test_a_fault_that_came_too_late_is_tried_again_and_no_more_than_so_often(toy: Toy) -> None:
    runs: list[int] = []

    def strikes_at(number: int) -> Callable[[Toy], Found]:
        def run(_: Toy) -> Found:
            runs.append(1)
            return Found(struck="yes" if len(runs) == number else "", held="")

        return run

    assert tried(fault(strikes_at(TRIES)), toy).verdict is Verdict.PASS
    assert len(runs) == TRIES
    runs.clear()
    assert tried(fault(strikes_at(TRIES + 1)), toy).verdict is Verdict.FAIL
    assert len(runs) == TRIES


def test_a_program_that_breaks_off_fails_its_fault_and_no_other(toy: Toy) -> None:
    def breaks(_: Toy) -> Found:
        raise RuntimeError("a defect")

    result = tried(fault(breaks), toy)
    assert (result.verdict, "RuntimeError: a defect" in result.words) == (Verdict.FAIL, True)


def test_what_cannot_be_made_to_happen_is_skipped_by_name_and_not_run(toy: Toy) -> None:
    result = tried(fault(lambda _: Found(struck="yes", held=""), why_not="needs root"), toy)
    assert (result.verdict, result.words) == (Verdict.SKIPPED, "needs root")
    s3 = next(one for one in drill.FAULTS if one.name == "s3-slow-down")
    assert tried(s3, toy).words == "no"


def test_rows_are_folded_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    lines = drill._row("bomb", "PASS", 1.25, "asked for it\n" + "word " * 30).splitlines()
    assert lines[0].split() == ["bomb", "PASS", "1.2", "s", "asked", "for", "it"]
    assert max(map(len, lines)) <= 90
    assert len({len(line) - len(line.lstrip()) for line in lines[1:]}) == 1


def test_only_a_jobs_own_sentence_is_what_it_said() -> None:
    def fails() -> None:
        print("Ray: a worker died", file=__import__("sys").stderr)
        raise ValueError("the disk is full")

    assert said(fails) == "the disk is full"
    assert said(lambda: None) == ""


# ---------------------------------------------------------------- every comparison can fail


def rows(count: int) -> list[Row]:
    urls = [f"http://a.example/{number}.jpg" for number in range(count)]
    return [Row(link=Link(position=n, key=url_key(url), url=url, source="t"), attempts=1) for n, url in enumerate(urls)]


def with_ledger(folder: Path, told: list[Row]) -> LocalStore:
    store = LocalStore(folder)
    ledger.write(store, "chunk-00000000", told, (), {})
    return store


def test_ledgers_differ_in_what_became_of_a_link_and_not_in_when(tmp_path: Path) -> None:
    calm = with_ledger(tmp_path / "calm", rows(3))
    later = [replace(row, attempts=3, seconds=9.0, ended=7.0) for row in rows(3)]
    assert drill_compare.different_rows(calm, with_ledger(tmp_path / "later", later)) == []
    other = [*rows(2), replace(rows(3)[2], reason=Reason.TIMED_OUT)]
    [told] = drill_compare.different_rows(calm, with_ledger(tmp_path / "other", other))
    assert told.endswith("http://a.example/2.jpg")
    assert drill_compare.different_rows(calm, with_ledger(tmp_path / "short", rows(2)))
    more = with_ledger(tmp_path / "more", rows(4))
    assert drill_compare.different_rows(calm, more)
    assert drill_compare.different_rows(calm, more, added=["http://a.example/3.jpg"]) == []
    assert drill_links.ends_in(more, "http://a.example/3.jpg", Reason.TOO_SLOW)
    assert drill_links.ends_in(more, "http://a.example/9.jpg", Reason.KEPT)


def test_stores_differ_in_any_object_missing_added_or_changed(tmp_path: Path) -> None:
    calm, other = LocalStore(tmp_path / "calm"), LocalStore(tmp_path / "other")
    for store in (calm, other):
        store.write("images/a.tar", b"a")
        store.write("report/a.png", store.root.encode())
    assert drill_compare.different_bytes(calm, other) == []
    calm.write("images/b.tar", b"b")
    other.write("shards/c.tar", b"c")
    other.write("images/a.tar", b"A")
    assert drill_compare.different_bytes(calm, other) == [
        "images/b.tar is missing",
        "images/a.tar has other bytes",
        "shards/c.tar is one too many",
    ]


def test_a_published_set_is_whole_the_same_and_read_to_the_end(tmp_path: Path) -> None:
    calm, target, another = (LocalStore(tmp_path / name) for name in ("calm", "target", "another"))
    write_set(calm, [20, 20], size=64)
    write_set(target, [20, 20], size=64)
    write_set(another, [25, 20], size=64)
    assert drill_compare.different_sets(calm, target) == []
    assert drill_compare.different_sets(calm, another) == ["another set was published"]
    assert drill_store.different_stream(calm, target) == []
    assert drill_store.different_stream(calm, another) == ["other batches came"]
    name = FOLDER + read_manifest(target).shards[0].name
    body = target.read(name)
    target.write(name, body[: len(body) // 2])
    assert drill_compare.different_sets(calm, target) == ["train-000000.tar is not what the manifest says"]
    assert any("skipped" in one for one in drill_store.different_stream(calm, target))


def test_weights_differ_in_any_number_and_in_how_far_they_are(tmp_path: Path) -> None:
    def run(name: str, step: int, number: float, at: int = 1) -> LocalStore:
        store = LocalStore(tmp_path / name)
        state = {"trainer": {"model": {"a": torch.tensor([number])}}, "stream": {"position": at}}
        checkpoint.save(store, step, state, keep=1)
        return store

    calm = run("calm", 8, 0.5)
    assert drill_compare.different_weights(calm, run("same", 8, 0.5)) == []
    assert drill_compare.different_weights(calm, run("other", 8, 0.25)) == ["the weights a differ"]
    assert drill_compare.different_weights(calm, run("elsewhere", 8, 0.5, at=2)) == ["the stream stands elsewhere"]
    assert "step [6]" in drill_compare.different_weights(calm, run("short", 6, 0.5))[0]
    assert drill_compare.not_finite(calm) == []
    assert drill_compare.not_finite(run("nan", 8, float("nan"))) == ["the weights a are not finite"]


def test_the_bomb_is_a_picture_and_too_large() -> None:
    assert Image.open(io.BytesIO(drill_links.many_pixels(100))).convert("L").getextrema() == (0, 0)
    body = drill_links.many_pixels(drill_links.BOMB_SIDE)
    seen = header(body)
    assert len(body) < 500_000
    assert not isinstance(seen, Refusal) and seen.width * seen.height == drill_links.BOMB_SIDE**2


# ---------------------------------------------------------------- for real

REAL = ("killed-cutter", "expired-credentials", "torn-shard", "torn-cache", "nan-once")
#: The same without what disturbs: none may pass.
DISARMED = (
    Fault(name="no-kill", does="", run=functools.partial(drill_kills.killed_cutter, ("nothing",))),
    Fault(name="no-expiry", does="", run=functools.partial(drill_store.expired, 0)),
    Fault(name="no-trouble", does="", run=functools.partial(drill_store.flaky_s3, ())),
    Fault(name="no-tear", does="", run=functools.partial(drill_store.torn_target, 1.0)),
    Fault(name="no-torn-cache", does="", run=functools.partial(drill_store.torn_cache, 1.0)),
    Fault(name="no-nan", does="", run=functools.partial(drill_training.nan_once, range(0))),
)


@pytest.mark.slow
@pytest.mark.endurance
def test_a_handful_for_real_and_what_did_not_happen_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = tuple(one for one in drill.FAULTS if one.name in REAL)
    monkeypatch.setattr(drill, "FAULTS", (*chosen, *DISARMED))
    monkeypatch.setenv("COLUMNS", "200")
    assert drill.main(["--out", str(tmp_path)]) == drill.FAILED
    out = capsys.readouterr().out
    verdicts = dict(re.findall(r"^(\S+) +(PASS|FAIL|skipped) ", out, re.MULTILINE))
    assert verdicts == dict.fromkeys(REAL, "PASS") | {one.name: "FAIL" for one in DISARMED}, out
    assert out.count("the fault did not happen") == len(DISARMED)
