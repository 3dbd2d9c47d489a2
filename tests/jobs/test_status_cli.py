"""`dynet-filter status` as people call it: what it says of a run on its way, and of what is no run."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from curation import chunks, ledger
from jobs.filter_laion import main
from shards.store import LocalStore, open_store
from tests import ledgers
from tests.conftest import S3Server


@pytest.fixture
def just_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' run has just committed its tenth chunk."""
    monkeypatch.setattr(ledgers, "BEGIN", time.time() - 10 * ledgers.CHUNK_SECONDS)


def half(root: Path) -> LocalStore:
    store = LocalStore(root)
    ledgers.commit(store, ledgers.plan(store, 20, 20), range(10))
    return store


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["status", *map(str, words)]) == 0
    return capsys.readouterr().out


@pytest.mark.usefixtures("just_now")
def test_half_way_it_says_how_far_how_fast_and_when(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half(tmp_path)
    out = said(capsys, tmp_path)
    assert f"{tmp_path}: downloading and scoring\n" in out
    assert "chunks: 10 of 20 committed (50.0 %), 200 of 399 URLs\n" in out
    assert re.search(r"pace in the last 9 min 5\d s of work: 0\.3[34] URLs/s, 0\.2\d* kept/s", out)
    assert "end: downloads in 9 min 5" in out or "end: downloads in 10 min" in out
    assert "waiting for --retry-failed: 20 URLs in 10 chunks\n" in out
    assert "slow.example" in out
    assert "estimated" not in out


def test_of_a_run_that_fell_silent_it_says_for_how_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "BEGIN", time.time() - 10 * ledgers.CHUNK_SECONDS - 12 * 60 - 1)
    half(tmp_path)
    assert "end: can't be told, nothing came for 12 min" in said(capsys, tmp_path)


@pytest.mark.usefixtures("just_now")
def test_of_a_sample_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = LocalStore(tmp_path)
    plan = ledgers.plan(store, 700, 2)
    ledgers.commit(store, plan, [0])
    part = store.read(ledger.part_name(chunks.unit_name(0)))
    for unit in plan.units():
        (tmp_path / ledger.part_name(unit)).write_bytes(part)
    assert "of 700 ledger parts; what follows is estimated" in said(capsys, tmp_path)
    assert "estimated" not in said(capsys, tmp_path, "--full")


@pytest.mark.usefixtures("just_now")
def test_machines_get_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half(tmp_path)
    found = json.loads(said(capsys, tmp_path, "--json"))
    assert (found["step"], found["committed"], found["planned"]) == ("downloading and scoring", 10, 20)
    assert found["rows"]["reasons"]["kept"] == 120
    assert found["outlook"]["seconds"] == pytest.approx(600, rel=0.05)
    assert found["hosts"]["gone.example"]["failed"] == 40


def test_a_run_that_has_no_chunk_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledgers.plan(LocalStore(tmp_path), 20, 20)
    out = said(capsys, tmp_path)
    assert "chunks: 0 of 20 committed (0.0 %)" in out
    assert "end: can't be told yet, nothing of a download" in out


def test_a_broken_part_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half(tmp_path).write(ledger.part_name(chunks.unit_name(3)), b"no Parquet")
    assert "can't be read: ledger/chunk-00000003.parquet: " in said(capsys, tmp_path)


def test_it_reads_s3(s3_server: S3Server, capsys: pytest.CaptureFixture[str]) -> None:
    root = s3_server.bucket("status-cli")
    store = open_store(root, s3_server.endpoint_url)
    ledgers.commit(store, ledgers.plan(store, 3, 10), [0, 1])
    assert "chunks: 2 of 3 committed" in said(capsys, root, "--endpoint-url", s3_server.endpoint_url)


@pytest.mark.parametrize("name", ["missing", "empty", "other"])
def test_what_is_no_store_is_said_in_one_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_bytes(b"x")
    assert main(["status", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith(f"dynet-filter status: {tmp_path / name}")
    assert "give what" in captured.err and "--out was" in captured.err


def test_a_bucket_that_is_not_there_is_said_in_one_sentence(
    s3_server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "s3://no-such-bucket-here", "--endpoint-url", s3_server.endpoint_url]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["status", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: dynet-filter status ") and "example:\n  dynet-filter status " in out
