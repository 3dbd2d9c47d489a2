"""`dynet-shard` as people call it: a filtered store and plain folders in, shards and the paper's Table S1 out."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from curation import ledger, originals
from curation.decode import decode
from curation.duplicates import perceptual_hash
from curation.records import Link, Picture, Reason, Row, url_key
from curation.sources import survey_name
from jobs import shard as command
from pipelines import shard as pipeline
from shards import index, manifest, parquet
from shards.store import LocalStore
from tests.jobs.conftest import Said
from tests.jobs.test_filter_cli import BIN, Outcome, call, contents
from tests.pipelines.conftest import encoded, texture

SIDE = 512  # pixels, a patch's side


def filtered_store(folder: Path, bodies: dict[str, bytes]) -> LocalStore:
    """A store as the filter leaves it, with these pictures kept: URL -> bytes."""
    store = LocalStore(folder)
    rows = [_row(position, url, body) for position, (url, body) in enumerate(bodies.items())]
    paths = {row.link.key: folder.parent / row.link.key for row in rows}
    for row in rows:
        paths[row.link.key].write_bytes(bodies[row.link.url])
    originals.write(store, "chunk-00000000", rows, paths, folder.parent)
    ledger.write(store, "chunk-00000000", rows, ("niqe",), {})
    return store


def _row(position: int, url: str, body: bytes) -> Row:
    picture = decode(body, 1 << 24)
    assert isinstance(picture, Picture)
    return Row(
        link=Link(position=position, key=url_key(url), url=url, source="laion-hr"),
        width=picture.width,
        height=picture.height,
        format=picture.format,
        bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        phash=perceptual_hash(picture.pixels),
        scores={"niqe": 3.0},
        stored=True,
    )


@dataclass(frozen=True)
class Sharded:
    """A store that the command filled, with what, and how that went."""

    store: LocalStore
    words: tuple[object, ...]
    outcome: Outcome
    seconds: float


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Sharded:
    """A filtered store and two folders; what is in more than one of them, and what is no picture, among it."""
    base = tmp_path_factory.mktemp("sharded")
    wide, large, other = encoded(texture(1, 512, 1024)), encoded(texture(2, 600, 700), "PNG"), texture(3, 1040, 520)
    store = filtered_store(base / "store", {"http://a.example/1.jpg": wide, "http://a.example/2.png": large})
    div2k = {"0001.png": encoded(other, "PNG"), "sub/0002.JPG": wide, "small.png": encoded(texture(4, 500, 900), "PNG")}
    div2k |= {"broken.jpg": wide[:9000], "page.png": b"<html></html>", ".hidden.jpg": large, "notes.txt": b"hello"}
    div2k |= {"flat.png": encoded(texture(5, 512, 512) // 255, "PNG")}
    flickr = {"same.png": encoded(other, "PNG", compress_level=1), "new.jpg": encoded(texture(6, 512, 512))}
    for folder, files in (("div2k", div2k), ("flickr", flickr)):
        for name, body in files.items():
            (base / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (base / folder / name).write_bytes(body)
    words: tuple[object, ...] = ("--min-res", SIDE, "--out", store.root, store.root)
    words += ("--source", f"div2k={base / 'div2k'}", "--source", f"flickr2k={base / 'flickr'}")
    started = time.monotonic()
    outcome = call(BIN / "dynet-shard", *words)
    return Sharded(store=store, words=words, outcome=outcome, seconds=time.monotonic() - started)


@pytest.mark.slow
def test_it_prints_the_count_per_source(sharded: Sharded) -> None:
    outcome = sharded.outcome
    assert (outcome.status, outcome.err) == (0, "")
    assert "\r" not in outcome.out
    table = {words[0]: words[1:] for words in map(str.split, outcome.out.splitlines()) if words}
    # pictures, of these with a patch, patches, dropped as flat
    assert table["laion-hr"] == ["2", "2", "3", "0"]
    assert table["div2k"] == ["2", "1", "2", "1"]
    assert table["flickr2k"] == ["1", "1", "1", "0"]
    assert table["all"] == ["5", "4", "6", "1"]
    made = manifest.read_manifest(sharded.store)
    assert {name: (one.pictures, one.samples) for name, one in made.sources.items()} == {
        "laion-hr": (2, 3),
        "div2k": (2, 2),
        "flickr2k": (1, 1),
    }
    assert made.samples == 6
    assert not list(sharded.store.list("patches/"))


@pytest.mark.slow
def test_every_file_of_a_folder_has_a_reason(sharded: Sharded) -> None:
    rows = ledger.decode(sharded.store.read(survey_name("div2k-00000000")), "div2k")
    rows += ledger.decode(sharded.store.read(survey_name("flickr2k-00000000")), "flickr2k")
    assert {row.link.url: row.reason for row in rows} == {
        "div2k/0001.png": Reason.KEPT,
        "div2k/broken.jpg": Reason.TRUNCATED,
        "div2k/flat.png": Reason.KEPT,  # its patch is what is dropped
        "div2k/page.png": Reason.NOT_AN_IMAGE,
        "div2k/small.png": Reason.TOO_SMALL,
        "div2k/sub/0002.JPG": Reason.DUPLICATE_EXACT,
        "flickr2k/new.jpg": Reason.KEPT,
        "flickr2k/same.png": Reason.DUPLICATE_NEAR,
    }
    assert {row.detail for row in rows if row.reason is Reason.DUPLICATE_NEAR} == {"of div2k/0001.png"}


@pytest.mark.slow
def test_again_is_quick_and_the_same_and_a_new_picture_counts(sharded: Sharded, tmp_path: Path) -> None:
    before = contents(sharded.store)
    sharded.store.write("patches/00-left.tar", b"by a run that was killed after its manifest")
    written = {path: path.stat().st_mtime_ns for path in sharded.store.folder.rglob("*.*") if "left" not in path.name}
    again = call(sys.executable, "jobs/shard.py", *sharded.words)
    assert (again.status, again.err) == (0, "")
    assert again.out.splitlines()[-6:] == sharded.outcome.out.splitlines()[-6:]
    assert contents(sharded.store) == before
    assert {path: path.stat().st_mtime_ns for path in sharded.store.folder.rglob("*.*")} == written
    copied = Path(shutil.copytree(sharded.store.folder, tmp_path / "store"))
    rows = ledger.read(LocalStore(copied), "chunk-00000000")[:1]
    ledger.write(LocalStore(copied), "chunk-00000000", rows, ("niqe",), {})
    fewer = call(BIN / "dynet-shard", "--min-res", SIDE, "--out", copied)  # its own ledger is the source
    assert fewer.status == 0, fewer.err
    made = manifest.read_manifest(LocalStore(copied))
    assert {name: one.samples for name, one in made.sources.items()} == {"laion-hr": 2}
    assert len(list(LocalStore(copied).list("shards/"))) == 4  # a tar, index, metadata, manifest: none of before


@pytest.mark.slow
def test_a_source_behind_the_others_is_added_and_nothing_that_is_there_moves(sharded: Sharded, tmp_path: Path) -> None:
    store = LocalStore(Path(shutil.copytree(sharded.store.folder, tmp_path / "store")))
    url = "http://a.example/1.jpg"  # the first source has it too, with other bytes
    more = filtered_store(tmp_path / "more", {url: encoded(texture(8)), "http://b.example/9.jpg": encoded(texture(9))})
    before = manifest.read_manifest(store)
    words = [store.root if word == sharded.store.root else word for word in sharded.words]
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "new.png").write_bytes(encoded(texture(7, 520, 520), "PNG"))
    sources = ("--source", f"last={tmp_path / 'last'}")
    grown = call(BIN / "dynet-shard", *words, *sources)
    assert (grown.status, grown.err) == (0, "")
    made = manifest.read_manifest(store)
    assert (made.set, made.version, made.samples) == (before.set, 2, before.samples + 1)
    assert made.shards[:-1] == before.shards
    assert manifest.at_version(made, 1).samples == before.samples
    described = [row for table in parquet.read(store, made.metadata) for row in table.to_pylist()]
    assert Counter(row["source"] for row in described) == {"laion-hr": 2, "div2k": 2, "flickr2k": 1, "last": 1}
    assert sum(row["patches"] for row in described) == made.samples
    other = call(
        BIN / "dynet-shard", *words[:5], more.root, *words[5:]
    )  # stores come before folders: not behind the others
    assert (other.status, other.err) == (0, "")
    anew = manifest.read_manifest(store)
    assert (anew.set != before.set, anew.version) == (True, 1)
    names = [name for table in index.read(store, anew) for name in table["sample"].to_pylist()]
    assert len(set(names)) == len(names) == anew.samples


@pytest.fixture
def said(refusal: Callable[[ModuleType, ModuleType], Said]) -> Said:
    return refusal(command, pipeline)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with one picture."""
    (tmp_path / "hr").mkdir()
    (tmp_path / "hr" / "a.png").write_bytes(encoded(texture(1), "PNG"))
    return tmp_path / "hr"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--source", "a=gone"), "gone: no such folder; --source takes NAME=FOLDER"),
        (("gone",), "gone: no such folder"),
        (("--source", "hr"), "--source hr: write NAME=FOLDER"),
        (("--source", "a b=hr"), "'a b' is no name for a source"),
        (("--source", "=hr"), "'' is no name for a source"),
        (("--source", "a=empty"), "empty has no pictures: looked for .avif"),
        (("hr", "other/HR"), "more than one folder is called hr"),
        (("--source", "a=hr", "--source", "a=other/HR"), "more than one folder is called a"),
        ((), "no source: name a store or a folder"),
        (("s3x://bucket/a",), "a store is a local folder or s3://bucket/prefix"),
        (("hr", "--max-flat", "-1"), "max_flat is -1.0"),
        (("hr", "--max-shard-mb", "0"), "too small: give at least 1 MB"),
        (("hr", "--min-res", "0"), "min_res is 0"),
        (("hr", "--max-pixels", "0"), "max_pixels is 0"),
        (("hr", "--split", "a/b"), "split is 'a/b'"),
    ],
)
def test_a_wrong_call_stops_before_work_starts(
    words: tuple[str, ...],
    sentence: str,
    said: Said,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(pictures.parent)
    Path("empty").mkdir()
    Path("empty/notes.txt").write_text("hello")
    Path("other/HR").mkdir(parents=True)
    assert sentence in said("--out", "store", *words)
    assert not Path("store").exists()


def test_help_has_an_example_that_would_parse(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    _, _, example = capsys.readouterr().out.partition("example:\n  dynet-shard ")
    command._parser().parse_args(example.split())


@pytest.mark.slow
def test_what_only_shows_at_work_is_one_sentence_too(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (pictures / "a.png").write_bytes(encoded(texture(1, 400, 400), "PNG"))
    for out, sentence in (("file/store", "name another place"), ("store", "nothing kept is large enough")):
        ended = call(BIN / "dynet-shard", "--out", tmp_path / out, pictures)
        assert ended.status == 2
        assert ended.err.startswith("dynet-shard: ")
        assert sentence in ended.err
        assert ended.err.count("\n") == 1
    assert not (tmp_path / "store" / "shards").exists()
