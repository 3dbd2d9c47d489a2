"""`dynet-filter` as people call it: what it says, its exit status, and what a wrong call leaves alone.

Calls that must stop before any work are made in this process, where the moment Ray would start is an error. All
others run the installed script or the file, each with a local Ray of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import boto3
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from curation.records import Reason
from jobs import filter_laion
from jobs.hostile_server import HttpServer
from pipelines import claims
from pipelines import filter_laion as pipeline
from shards import manifest
from shards.store import LocalStore, open_store
from tests.conftest import S3Server
from tests.jobs.conftest import Said
from tests.pipelines.conftest import SIDE, encoded, rows_of, texture

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
PROJECT = Path(__file__).resolve().parents[2]
BOUNDS = ("--metrics", "niqe,brisque", "--threshold", "niqe=30", "--threshold", "brisque=200")


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


def call(*words: object, env: dict[str, str] | None = None, timeout: float = 400) -> Outcome:
    """A command in a process of its own, with a Ray of its own, far from any terminal."""
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1", **(env or {})}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )
    return Outcome(status=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())


def contents(store: LocalStore) -> dict[str, bytes]:
    """Every object's bytes."""
    return {name: store.read(name) for name in store.list("")}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of NIQE and BRISQUE for pictures like those of the tests, by the command that makes such."""
    folder = tmp_path_factory.mktemp("fit")
    (folder / "pristine").mkdir()
    for seed in range(1000, 1006):
        (folder / "pristine" / f"{seed}.png").write_bytes(encoded(texture(seed), "PNG"))
    made = call(BIN / "dynet-filter", "fit", "--good", folder / "pristine", "--out", folder / "weights")
    assert (made.status, made.err) == (0, "")
    assert str(folder / "weights") in made.out
    return folder / "weights"


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    with HttpServer() as running:
        yield running


@pytest.fixture
def said(refusal: Callable[[ModuleType, ModuleType], Said]) -> Said:
    return refusal(filter_laion, pipeline)


@pytest.fixture
def good_list(tmp_path: Path) -> Path:
    path = tmp_path / "good.parquet"
    pq.write_table(pa.table({"URL": ["http://a.example/1.jpg"]}), path)
    return path


def _lists(folder: Path) -> None:
    pq.write_table(pa.table({"LINK": ["http://a.example/1.jpg"]}), folder / "no-url.parquet")
    pq.write_table(pa.table({"URL": pa.array([], pa.string())}), folder / "empty.parquet")
    (folder / "text.parquet").write_text("URL\nhttp://a.example/1.jpg\n")
    (folder / "nothing.csv").write_bytes(b"")
    (folder / "no-url.csv").write_text("a,b\n1,2\n")
    (folder / "folder.parquet").mkdir()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gone.parquet", "gone.parquet: no such list"),
        ("folder.parquet", "folder.parquet: no such list"),
        ("no-url.parquet", "no-url.parquet has no URL column (it has LINK)"),
        ("no-url.csv", "no-url.csv has no URL column (it has a, b)"),
        ("text.parquet", "text.parquet can't be read"),
        ("nothing.csv", "nothing.csv can't be read"),
        ("empty.parquet", "empty.parquet: no rows"),
    ],
)
def test_a_list_that_is_none_stops_it_and_leaves_no_store(
    name: str, sentence: str, said: Said, tmp_path: Path, weights: Path
) -> None:
    _lists(tmp_path)
    out = tmp_path / "store"
    assert sentence in said("--urls", tmp_path / name, "--out", out, "--weights", weights, *BOUNDS)
    assert not list(LocalStore(out).list(""))


def test_without_a_list_a_new_store_is_not_begun(said: Said, tmp_path: Path, weights: Path) -> None:
    assert "give --urls" in said("--out", tmp_path / "store", "--weights", weights, *BOUNDS)
    assert not list(LocalStore(tmp_path / "store").list(""))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--threshold", "niqe"), "--threshold niqe: write METRIC=NUMBER"),
        (("--threshold", "niqe=low"), "--threshold niqe=low: write METRIC=NUMBER"),
        (("--threshold", "niqe=nan"), "the threshold of niqe is nan"),
        (("--metrics", "niqe,musiq"), "no threshold for musiq: add --threshold musiq=NUMBER"),
        (("--metrics", "niqe, musiq"), "no threshold for musiq: add --threshold musiq=NUMBER"),
        (("--threshold", "musiq=40"), "--threshold musiq=40.0: --metrics names niqe alone"),
        (("--metrics", "niqqe", "--threshold", "niqqe=3"), "pyiqa has no metric 'niqqe': did you mean niqe"),
        (("--metrics", "psnr", "--threshold", "psnr=30"), "'psnr' compares with a reference picture"),
        (("--min-res", "0"), "min_res is 0"),
        (("--max-punsafe", "7"), "max_punsafe is 7.0"),
        (("--chunk-size", "0"), "chunk_size is 0"),
        (("--source", "a b"), "source is 'a b'"),
        (("--max-pixels", "0"), "max_pixels is 0"),
        (("--threads", "0"), "threads is 0"),
        (("--deadline", "0"), "deadline is 0"),
        (("--max-flat", "2"), "max_flat is 2.0"),
        (("--max-shard-mb", "0.5"), "too small: give at least 1 MB"),
        (("--split", "../train"), "split is '../train'"),
        (("--out", "http://a.example/x"), "http://a.example/x can only be read: name a folder or s3://"),
        (("--out", "gs://bucket/x"), "'gs://bucket/x': a store is a local folder or s3://bucket/prefix"),
        (("--weights", "/nowhere"), "/nowhere is no folder"),
        (("--recipe", "/nowhere.json"), "/nowhere.json is no recipe"),
    ],
)
def test_a_wrong_flag_stops_it_before_there_is_a_store(
    words: Sequence[str], sentence: str, said: Said, tmp_path: Path, good_list: Path, weights: Path
) -> None:
    out = tmp_path / "store"
    assert sentence in said("--urls", good_list, "--out", out, "--weights", weights, "--metrics", "niqe", *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no recipe"),
        ("[]", "is no recipe"),
        ('{"source": "x"}', "is no recipe"),
        ('{"thresholds": {}, "colour": 1}', "no field colour"),
        ('{"thresholds": {"metrics": [{"metric": "niqe"}]}}', "is no recipe"),
    ],
)
def test_a_recipe_that_is_none_is_one_sentence(
    text: str, sentence: str, said: Said, tmp_path: Path, good_list: Path, weights: Path
) -> None:
    (tmp_path / "recipe.json").write_text(text)
    flags = ("--urls", good_list, "--out", tmp_path / "store", "--weights", weights)
    assert sentence in said(*flags, "--recipe", tmp_path / "recipe.json")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("file/store", "file/store (Not a directory): name another place"),
        ("/proc/x", "No such file or directory: /proc/x"),
    ],
)
def test_a_store_that_cannot_be_written_is_one_sentence(
    out: str, sentence: str, said: Said, tmp_path: Path, good_list: Path, weights: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert sentence in said("--urls", good_list, "--out", tmp_path / out, "--weights", weights, *BOUNDS)


def test_a_bucket_that_is_not_there_is_one_sentence(
    said: Said, s3_server: S3Server, good_list: Path, weights: Path
) -> None:
    there = ("--endpoint-url", s3_server.endpoint_url, "--weights", weights, *BOUNDS)
    assert "s3://no-such-bucket" in said("--urls", good_list, "--out", "s3://no-such-bucket/x", *there)
    assert "no such list" in said("--urls", f"{s3_server.bucket('lists')}/x.parquet", "--out", good_list.parent, *there)


def test_altered_weights_stop_it(said: Said, tmp_path: Path, good_list: Path, weights: Path) -> None:
    shutil.copytree(weights, tmp_path / "weights")
    with (tmp_path / "weights" / "niqe_modelparameters.mat").open("ab") as file:
        file.write(b"x")
    flags = ("--urls", good_list, "--out", tmp_path / "store", "--weights", tmp_path / "weights")
    assert "niqe_modelparameters.mat was altered" in said(*flags, *BOUNDS)
    assert not (tmp_path / "store").exists()


def test_weights_that_cannot_be_had_stop_it_in_time_naming_file_and_remedy(tmp_path: Path, good_list: Path) -> None:
    started = time.monotonic()
    nowhere = {"TORCH_HOME": str(tmp_path / "torch"), "HF_HOME": str(tmp_path / "hf")}
    nowhere |= {"https_proxy": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"}
    ended = call(BIN / "dynet-filter", "--urls", good_list, "--out", tmp_path / "store", env=nowhere)
    assert time.monotonic() - started < 60  # 8 s, most of them imports; 60 for a machine with other work
    assert ended.status == 2
    assert ended.err.startswith("dynet-filter: the weight file niqe_modelparameters.mat is neither in ")
    assert ended.err.rstrip().endswith("give its folder as --weights")
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("words", [("--help",), ("judge", "--help"), ("fit", "--help")])
def test_help_has_an_example_that_would_parse(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        filter_laion.main(words)
    assert ended.value.code == 0
    _, _, example = capsys.readouterr().out.partition("example:\n  dynet-filter ")
    flags = example.split()
    parser = {"judge": filter_laion._judge_parser, "fit": filter_laion._fit_parser}.get(flags[0])
    (parser or filter_laion._run_parser)().parse_args(flags[1:] if parser else flags)


def test_a_flag_that_is_none_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        filter_laion.main(["--out", str(tmp_path), "--treshold", "niqe=3"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --treshold" in capsys.readouterr().err


@pytest.mark.parametrize(("good", "sentence"), [("gone", "gone"), ("empty", "picture"), ("one", "picture")])
def test_fit_wants_pictures(good: str, sentence: str, said: Said, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes(b"no picture")
    assert sentence in said("fit", "--good", tmp_path / good, "--out", tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_fit_overwrites_no_weights(said: Said, tmp_path: Path, weights: Path) -> None:
    assert str(weights) in said("fit", "--good", tmp_path, "--out", weights)


@dataclass(frozen=True)
class Filtered:
    """A store that the command filled, and how the command went."""

    store: LocalStore
    command: tuple[object, ...]
    outcome: Outcome

    def copy(self, folder: Path) -> LocalStore:
        return LocalStore(Path(shutil.copytree(self.store.folder, folder / "store")))


@pytest.fixture(scope="module")
def filtered(server: HttpServer, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Filtered:
    """A CSV list of nine through the installed script, by a recipe file, to kept originals alone."""
    folder = tmp_path_factory.mktemp("filtered")
    urls = [server.add(f"/{n}.jpg", encoded(texture(n)), "image/jpeg") for n in range(5)]
    urls += [server.add("/equal.jpg", encoded(texture(0)), "image/jpeg"), server.url("/404/a")]
    urls += [server.url("/500/later.jpg"), urls[0]]
    pyarrow.csv.write_csv(pa.table({"url": urls, "TEXT": ['a, "picture"'] * len(urls)}), folder / "list.csv")
    metrics = [{"metric": name, "bound": bound, "lower_better": True} for name, bound in BOUND.items()]
    recipe = {"source": "mine", "chunk_size": 4, "thresholds": {"min_res": 64, "metrics": metrics}}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    command = (BIN / "dynet-filter", "--urls", folder / "list.csv", "--out", folder / "store", "--weights", weights)
    command += ("--recipe", folder / "recipe.json", "--min-res", SIDE, "--no-shards")
    command += ("--allow-private-hosts", "--attempts", 1)
    return Filtered(store=LocalStore(folder / "store"), command=command, outcome=call(*command))


BOUND = {"niqe": 30.0, "brisque": 200.0}


def test_a_run_says_what_became_of_the_list_in_plain_lines(filtered: Filtered) -> None:
    outcome, store = filtered.outcome, filtered.store
    assert (outcome.status, outcome.err) == (0, "")
    assert "\r" not in outcome.out
    assert "filter: 9/9 urls, 5 kept" in outcome.out or "filter: 9/9 urls, 6 kept" in outcome.out
    counts = {words[0]: words[1] for words in map(str.split, outcome.out.splitlines()) if len(words) in (2, 4)}
    expected = {"kept": "5", "duplicate_exact": "1", "http_not_found": "1", "http_server_error": "1"}
    expected |= {"url_repeated": "1", "all": "9"}
    assert {name: counts.get(name) for name in expected} == expected
    assert not list(store.list("shards/"))
    recipe = claims.recipe(store)
    assert (recipe.source, recipe.chunk_size, recipe.thresholds.min_res) == ("mine", 4, SIDE)
    assert {one.metric: one.bound for one in recipe.thresholds.metrics} == BOUND
    assert {row.link.caption for row in rows_of(store)} == {'a, "picture"'}


def test_stricter_thresholds_and_back(filtered: Filtered, tmp_path: Path) -> None:
    store = filtered.copy(tmp_path)
    before = contents(store)
    scores = sorted(row.scores["niqe"] for row in rows_of(store) if row.reason is Reason.KEPT)
    stricter = ("--out", store.root, "--threshold", f"niqe={scores[2]}")
    tried = call(BIN / "dynet-filter", "judge", *stricter, "--dry-run")
    assert (tried.status, tried.err) == (0, "")
    assert "kept -> low_quality" in tried.out
    assert "nothing was written" in tried.out
    assert contents(store) == before
    assert filter_laion.main(["judge", *stricter]) == 0
    assert Counter(row.reason for row in rows_of(store))[Reason.KEPT] == 3
    assert filter_laion.main(["judge", "--out", store.root, "--threshold", "niqe=30"]) == 0
    assert contents(store) == before


def test_judge_needs_a_store_and_its_metrics(filtered: Filtered, said: Said, tmp_path: Path) -> None:
    before = contents(filtered.store)
    assert "no recipe.json" in said("judge", "--out", tmp_path, "--threshold", "niqe=3")
    assert "has no scores of nima" in said("judge", "--out", filtered.store.root, "--threshold", "nima=5")
    assert contents(filtered.store) == before


def test_a_metric_that_comes_to_vote_later_is_scored_from_the_kept_originals(
    filtered: Filtered, tmp_path: Path
) -> None:
    store = filtered.copy(tmp_path)
    judge = (BIN / "dynet-filter", "judge", "--out", store.root, "--threshold", "jpeg_quality=50")
    refused = call(*judge)
    assert refused.status == 2
    assert "no scores of jpeg_quality: it has niqe, brisque; add --score" in refused.err
    ended = call(*judge, "--score")
    assert (ended.status, ended.err) == (0, "")
    assert "6 kept originals were scored" in ended.out
    assert {row.scores["jpeg_quality"] for row in rows_of(store) if row.reason is Reason.KEPT} == {92.0}
    assert claims.recipe(store).metrics == ("niqe", "brisque", "jpeg_quality")
    stricter = call(*judge[:-1], "jpeg_quality=93")
    assert Counter(row.reason for row in rows_of(store))[Reason.KEPT] == 0, stricter.out
    again = call(*judge, "--metrics", "niqe,brisque,jpeg_quality", "--dry-run")
    assert "low_quality -> kept" in again.out


def test_scores_that_other_weights_gave_do_not_mix(filtered: Filtered, tmp_path: Path) -> None:
    store = filtered.copy(tmp_path)
    before = claims.weights(store)
    with pytest.raises(ValueError, match="was scored with other weights of niqe"):
        claims.reclaim(store, claims.recipe(store), {"niqe": "0" * 64})
    assert claims.weights(store) == before


def test_another_recipe_or_list_needs_another_store(
    filtered: Filtered, said: Said, good_list: Path, weights: Path
) -> None:
    before = contents(filtered.store)
    _, *flags = filtered.command
    assert "chunk_size is 4 there and 5 here" in said(*flags, "--chunk-size", 5)
    assert "niqe 30, brisque 200 there and niqe 29, brisque 200 here" in said(*flags, "--threshold", "niqe=29")
    assert "begun with other lists (list.csv)" in said(*flags, "--urls", good_list)
    assert contents(filtered.store) == before


def test_a_retry_needs_no_list_and_takes_the_recipe_of_the_store(
    filtered: Filtered, server: HttpServer, tmp_path: Path, weights: Path
) -> None:
    store = filtered.copy(tmp_path)
    server.add("/500/later.jpg", encoded(texture(40)), "image/jpeg")
    asked = Counter(server.requests)
    flags = ("--recipe", tmp_path / "store" / "recipe.json", "--weights", weights, "--allow-private-hosts")
    ended = call(BIN / "dynet-filter", "--out", store.root, *flags, "--retry-failed", "--no-shards")
    server.answers.pop("/500/later.jpg")
    assert (ended.status, ended.err) == (0, "")
    assert Counter(server.requests) - asked == Counter({"/500/later.jpg": 1})
    assert Counter(row.reason for row in rows_of(store))[Reason.KEPT] == 6


def test_a_list_on_s3_to_shards_on_s3(s3_server: S3Server, server: HttpServer, tmp_path: Path, weights: Path) -> None:
    url = server.add("/s3.jpg", encoded(texture(50, 512, 1024)), "image/jpeg")
    pq.write_table(pa.table({"URL": [url]}), tmp_path / "list.parquet")
    bucket = s3_server.bucket("whole-run")
    s3 = boto3.client("s3", endpoint_url=s3_server.endpoint_url)
    s3.upload_file(str(tmp_path / "list.parquet"), "whole-run", "lists/laion.parquet")
    where = ("--out", f"{bucket}/set", "--endpoint-url", s3_server.endpoint_url, "--weights", weights)
    flags = (*where, *BOUNDS, "--min-res", SIDE, "--allow-private-hosts")
    ended = call(sys.executable, "jobs/filter_laion.py", "--urls", f"{bucket}/lists/laion.parquet", *flags)
    assert (ended.status, ended.err) == (0, "")
    assert manifest.read_manifest(open_store(f"{bucket}/set", s3_server.endpoint_url)).samples == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 1 MB."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def _list_of(server: HttpServer, name: str, count: int, folder: Path, *more: str) -> Path:
    bodies = [encoded(texture(100 + number)) for number in range(count)]
    urls = [server.add(f"/{name}-{n}.jpg", body, "image/jpeg") for n, body in enumerate(bodies)]
    urls += map(server.url, more)
    pq.write_table(pa.table({"URL": urls}), folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


def test_a_full_disk_is_one_sentence_and_no_loss(
    small_disk: Path, server: HttpServer, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    listed = _list_of(server, "full", 8, tmp_path_factory.mktemp("full"))
    flags = ("--weights", weights, *BOUNDS, "--min-res", SIDE, "--chunk-size", 2, "--allow-private-hosts")
    command = (BIN / "dynet-filter", "--urls", listed, "--out", small_disk / "store", *flags)
    ended = call(*command)
    assert ended.status == 2
    assert ended.err.startswith(f"dynet-filter: no space left in {small_disk / 'store'}: free some")
    assert ended.err.count("\n") == 1
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    store = LocalStore(small_disk / "store")
    committed = {name: store.read(name) for name in store.list("images/")}
    ended = call(*command)
    assert (ended.status, ended.err) == (0, "")
    assert {name: store.read(name) for name in committed} == committed
    assert manifest.read_manifest(store).samples == 8


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(server: HttpServer, weights: Path, tmp_path: Path) -> None:
    listed = _list_of(server, "stopped", 8, tmp_path, "/never")  # the last: no machine is too quick to be stopped
    store = LocalStore(tmp_path / "store")
    flags = ("--weights", weights, *BOUNDS, "--min-res", SIDE, "--chunk-size", 1, "--allow-private-hosts")
    flags = (*flags, "--read-timeout", 5, "--attempts", 1)
    command = [
        str(word) for word in (BIN / "dynet-filter", "--urls", listed, "--out", store.root, "--no-shards", *flags)
    ]
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    while running.poll() is None and not list(store.list("ledger/")):
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the job and to all it started
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert err.decode().strip() == "dynet-filter: stopped. The same command goes on from here."
    committed = {unit: row.link.url for unit, row in zip(store.list("ledger/"), rows_of(store), strict=True)}
    assert 0 < len(committed) < 9
    asked = Counter(server.requests)
    ended = call(*command)
    assert (ended.status, ended.err) == (0, "")
    again = {path for path, count in Counter(server.requests).items() if count > asked[path]}
    assert not again & {url.rpartition("/")[2] for url in committed.values()}
    assert Counter(row.reason for row in rows_of(store)) == {Reason.KEPT: 8, Reason.TIMED_OUT: 1}
