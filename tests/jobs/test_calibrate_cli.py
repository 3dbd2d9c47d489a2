"""`dynet-filter calibrate` as people call it: real scores of drawn pictures, what it writes, and what stops it."""

from __future__ import annotations

import io
import json
import shutil
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import ledger
from curation.degradations import FOR_CALIBRATION, degrade
from curation.fit import fit
from curation.records import Link, Reason, Refusal, Row, Stage, url_key
from jobs import calibrate, filter_laion
from pipelines import calibrate as pipeline
from pipelines import claims, recipes
from pipelines.recipes import FilterRecipe
from shards.store import LocalStore
from tests.curation.scorers.conftest import pin
from tests.jobs.conftest import Said
from tests.pipelines.conftest import encoded, texture

pytestmark = pytest.mark.slow

METRICS = "niqe,brisque,upscaling,uniform_border"


@dataclass(frozen=True)
class Folders:
    """Six good pictures and a text among them, three bad ones and a small one, and weights fitted to such."""

    good: Path
    bad: Path
    weights: Path

    def flags(self, out: Path, *more: object) -> list[object]:
        shown = ["--good", self.good, "--bad", self.bad, "--weights", self.weights, "--min-res", 512]
        return ["calibrate", *shown, "--metrics", METRICS, "--out", out, *more]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("calibrate")
    made = Folders(good=root / "photos", bad=root / "rejects", weights=root / "weights")
    for folder in (made.good, made.bad):
        folder.mkdir()
    for seed in range(6):
        (made.good / f"{seed}.jpg").write_bytes(encoded(texture(seed)))
    for seed in range(10, 13):
        (made.bad / f"{seed}.png").write_bytes(encoded(degrade(texture(seed), "blur", 3.0, seed=0), "PNG"))
    (made.good / "notes.txt").write_text("the fourth is my favourite")
    (made.bad / "small.jpg").write_bytes(encoded(texture(20, 300, 300)))
    fit([texture(seed) for seed in range(1000, 1006)], made.weights)
    return made


@dataclass(frozen=True)
class Done:
    """What a run said and wrote."""

    said: str
    out: Path

    @property
    def scores(self) -> list[dict[str, object]]:
        return pq.read_table(self.out / "scores.parquet").to_pylist()

    @property
    def recipe(self) -> FilterRecipe:
        return recipes.read_recipe(self.out / "recipe.json")


@pytest.fixture(scope="module")
def done(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Done:
    out = tmp_path_factory.mktemp("out") / "calibration"
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "local")
        patch.setattr("sys.stdout", said)
        words = folders.flags(out, "--degrade", "--pass-rate", 0.8, "--threshold", "uniform_border=0.9")
        assert filter_laion.main([str(word) for word in words]) == 0
    return Done(said=said.getvalue(), out=out)


def test_every_picture_and_every_copy_has_a_row(done: Done) -> None:
    groups = [row["group"] for row in done.scores]
    assert {group: groups.count(group) for group in groups} == {
        "photos": 6,
        "rejects": 3,
        **{kind.name: 6 for kind in FOR_CALIBRATION},
    }
    assert {row["group"] for row in done.scores if row["label"] == "good"} == {"photos"}
    assert {row["path"] for row in done.scores if row["label"] == "good"} == {f"{seed}.jpg" for seed in range(6)}
    assert all(row[f"seconds_{metric}"] > 0 for row in done.scores for metric in METRICS.split(","))


def test_what_is_no_picture_or_too_small_is_named_once_and_the_rest_goes_on(done: Done, folders: Folders) -> None:
    assert done.said.count("not scored: ") == 2
    assert f"not scored: {folders.good / 'notes.txt'} (not_an_image" in done.said
    assert f"not scored: {folders.bad / 'small.jpg'} (too_small: 300x300 < 512)" in done.said


def test_the_recipe_lets_the_wished_share_pass_and_keeps_what_was_held(done: Done) -> None:
    bounds = done.recipe.thresholds.metrics
    good = [row for row in done.scores if row["label"] == "good"]
    passing = [all(one.passes(row[f"score_{one.metric}"]) for one in bounds) for row in good]
    assert sum(passing) >= 5  # of 6
    assert {one.metric: one.bound for one in bounds}["uniform_border"] == 0.9
    assert {one.metric for one in bounds} == set(METRICS.split(","))
    assert done.recipe.thresholds.min_res == 512  # what the pictures were held against


def test_the_recipe_says_what_it_lets_through(done: Done) -> None:
    evidence = json.loads((done.out / "recipe.json").read_text())["calibration"]
    bounds = done.recipe.thresholds.metrics
    for line in evidence["passes"]:
        label = "good" if line["good"] else "bad"
        rows = [row for row in done.scores if (row["group"], row["label"]) == (line["group"], label)]
        passing = [all(one.passes(row[f"score_{one.metric}"]) for one in bounds) for row in rows]
        assert (line["pictures"], line["all"]) == (len(rows), sum(passing))
    assert [line["all"] for line in evidence["passes"] if line["group"] == "blur 4"] == [0]
    assert evidence["auc"]["blur 4"]["upscaling"] == evidence["auc"]["product 0.6"]["uniform_border"] == 1.0
    assert set(evidence["milliseconds_per_megapixel"]) == set(METRICS.split(","))


def test_the_page_stands_alone_and_names_each_group(done: Done) -> None:
    page = (done.out / "calibration.html").read_text()
    assert "http" not in page.replace("http-equiv", "") and "<script" not in page
    assert all(kind.name in page for kind in FOR_CALIBRATION)
    assert "notes.txt" in page and page.count("<polyline") == 4 * (1 + 1 + len(FOR_CALIBRATION))


def test_a_second_run_overwrites_nothing(done: Done, folders: Folders, said: Said) -> None:
    before = {path.name: path.read_bytes() for path in done.out.iterdir()}
    assert "is not empty: give a new --out" in said(*folders.flags(done.out))
    assert {path.name: path.read_bytes() for path in done.out.iterdir()} == before


@pytest.fixture
def said(refusal: Callable[[ModuleType, ModuleType], Said]) -> Said:
    return refusal(filter_laion, pipeline)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--yield", 0.02), "--yield is a share of a list"),
        (("--ledger", "/nowhere"), "give --good and --bad, two folders of pictures, or else --ledger"),
        (("--pass-rate", 1.5), "the pass rate is 1.5: give a share above 0 and at most 1"),
        (("--pass-rate", 0), "the pass rate is 0: give a share"),
        (("--metrics", "niqqe"), "pyiqa has no metric 'niqqe': did you mean niqe"),
        (("--threshold", "musiq=40"), "--threshold musiq=40: the metrics are niqe, brisque"),
        (("--threshold", "niqe=low"), "--threshold niqe=low: write METRIC=NUMBER"),
        (("--good", "/nowhere"), "/nowhere: no such folder; --good takes one with pictures"),
        (("--bad", "/nowhere"), "/nowhere: no such folder; --bad takes one with pictures"),
        (("--weights", "/nowhere"), "/nowhere is no folder"),
        (("--out", "gs://bucket/x"), "'gs://bucket/x': a store is a local folder or s3://bucket/prefix"),
    ],
)
def test_a_wrong_flag_is_one_sentence(
    more: Sequence[object], sentence: str, folders: Folders, said: Said, tmp_path: Path
) -> None:
    assert sentence in said(*folders.flags(tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [(), ("--good", "."), ("--bad", ".")], ids=["none", "good", "bad"])
def test_half_of_what_it_takes_is_one_sentence(words: Sequence[object], said: Said, tmp_path: Path) -> None:
    assert "give --good and --bad" in said("calibrate", *words, "--out", tmp_path / "out")


def test_an_empty_folder_is_one_sentence(folders: Folders, said: Said, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden.jpg").write_bytes(encoded(texture(1)))
    sentence = said(*folders.flags(tmp_path / "out", "--bad", tmp_path / "empty"))
    assert sentence == f"{tmp_path / 'empty'} has no file: give --bad a folder with bad pictures"


def test_a_picture_on_both_sides_is_named(folders: Folders, said: Said, tmp_path: Path) -> None:
    shutil.copytree(folders.bad, tmp_path / "bad")
    shutil.copy(folders.good / "3.jpg", tmp_path / "bad" / "again.jpg")
    sentence = said(*folders.flags(tmp_path / "out", "--bad", tmp_path / "bad"))
    assert sentence.startswith(f"{tmp_path / 'bad' / 'again.jpg'} is the same picture as {folders.good / '3.jpg'}:")


def test_why_no_good_picture_was_scored_is_said(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = pipeline.LeftOut(
        name="a/1.jpg", refusal=Refusal(reason=Reason.TOO_SMALL, stage=Stage.JUDGE, detail="300x300 < 512")
    )
    monkeypatch.setattr(calibrate, "score_folders", lambda *_: pipeline.Gathered(specimens=(), left_out=(small,)))
    assert filter_laion.main([str(word) for word in folders.flags(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.out == "not scored: a/1.jpg (too_small: 300x300 < 512)\n"
    assert said.err == "dynet-filter: no good picture could be scored: a pass rate needs some\n"


def test_ctrl_c_promises_no_more_than_it_keeps(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(calibrate, "score_folders", stopped)
    assert filter_laion.main([str(word) for word in folders.flags(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "\ndynet-filter: stopped. The same command begins anew.\n"
    assert not (tmp_path / "out").exists()


def test_weights_that_are_missing_or_altered_stop_it(
    folders: Folders, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use for good
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    shutil.copytree(folders.weights, tmp_path / "weights")
    pin(tmp_path / "weights")
    with (tmp_path / "weights" / "niqe_modelparameters.mat").open("ab") as file:
        file.write(b"x")
    flags = folders.flags(tmp_path / "out", "--weights", tmp_path / "weights")
    assert "niqe_modelparameters.mat was altered" in said(*flags)
    (tmp_path / "weights" / "niqe_modelparameters.mat").unlink()
    assert "the weight file niqe_modelparameters.mat is neither in" in said(*flags)
    assert not (tmp_path / "out").exists()


def row(number: int, reason: Reason = Reason.LOW_QUALITY, **scores: float) -> Row:
    url = f"http://a.example/{number}.jpg"
    link = Link(position=number, key=url_key(url), url=url, source="test")
    return Row(link=link, scores=scores, reason=reason, stage=Stage.JUDGE)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A filter's store of 100 links: 80 scored, 10 of which the cascade stopped, and 20 dead."""
    store = LocalStore(tmp_path / "store")
    bounds = recipes.thresholds({"niqe": 5.5, "brisque": 45.0})
    recipe = FilterRecipe(thresholds=bounds, source="web", cascade=False)
    claims.claim(store, recipe, {"niqe": "0" * 64, "brisque": "1" * 64})
    rows = [row(n, niqe=3 + n / 8, brisque=10.0 + n) for n in range(70)]
    rows += [row(n, niqe=99.0) for n in range(70, 80)] + [row(n, Reason.TIMED_OUT) for n in range(80, 100)]
    ledger.write(store, "chunk-00000000", rows, ("niqe", "brisque"), {"recipe": recipe.to_dict()})
    return store


def test_a_yield_is_of_the_whole_ledger_and_what_was_left_out_is_said(
    store: LocalStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["calibrate", "--ledger", store.root, "--yield", 0.05, "--out", tmp_path / "out"]
    assert filter_laion.main([str(word) for word in words]) == 0
    printed = capsys.readouterr().out
    assert "left out: 20 rows that no metric saw, 10 with some of the metrics alone" in printed
    made = recipes.read_recipe(tmp_path / "out" / "recipe.json")
    assert {one.metric: one.bound for one in made.thresholds.metrics} == {"niqe": 3.5, "brisque": 14.0}
    assert made.source == "web"
    assert made.cascade  # whatever the store was made with
    assert "10 rows of the ledger have some of these metrics" in (tmp_path / "out" / "calibration.html").read_text()
    assert not (tmp_path / "out" / "scores.parquet").exists()


def test_what_a_ledger_cannot_give_is_one_sentence(store: LocalStore, said: Said, tmp_path: Path) -> None:
    flags = ("calibrate", "--ledger", store.root, "--out", tmp_path / "out")
    assert "--pass-rate is a share of good pictures" in said(*flags, "--pass-rate", 0.9)
    assert "--degrade makes bad pictures of good ones" in said(*flags, "--degrade")
    assert "has no scores of nima: it has niqe, brisque" in said(*flags, "--metrics", "niqe,nima")
    assert "90 pictures should pass and 70 can" in (short := said(*flags, "--yield", 0.9))
    assert "10 rows have some of the metrics alone: --no-cascade scores all that is large enough" in short
    for flag, value in (("--weights", "/w"), ("--engine", "fused"), ("--min-res", 9), ("--max-pixels", 9)):
        assert said(*flags, flag, value).startswith(f"{flag} is for scoring folders")
    assert "the yield is 2" in said(*flags, "--yield", 2)
    assert not (tmp_path / "out").exists()


def test_a_store_without_a_ledger_or_with_an_older_one_is_one_sentence(
    store: LocalStore, said: Said, tmp_path: Path
) -> None:
    flags = ("--out", tmp_path / "out")
    assert "has no ledger: run dynet-filter with --out" in said("calibrate", "--ledger", tmp_path / "none", *flags)
    part = Path(store.root) / "ledger" / "chunk-00000000.parquet"
    table = pq.read_table(part)
    known = {**(table.schema.metadata or {}), b"million_ird.schema_version": b"0"}
    pq.write_table(pa.Table.from_arrays(table.columns, schema=table.schema.with_metadata(known)), part)
    before = part.read_bytes()
    assert "has ledger schema 0, this program reads" in said("calibrate", "--ledger", store.root, *flags)
    assert part.read_bytes() == before and not (tmp_path / "out").exists()
