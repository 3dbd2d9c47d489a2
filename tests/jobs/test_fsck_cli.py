"""`dynet-shard fsck`, `forget` and `show` as people call them: what they say, how they end, and after SIGKILL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from curation import ledger, originals
from curation.records import url_key
from jobs import shard as command
from pipelines.recipes import ShardRecipe
from pipelines.shard import ShardJob, shard
from shards import index
from shards.manifest import FOLDER, read_manifest
from shards.store import LocalStore, open_store
from tests.conftest import S3Server
from tests.jobs.test_filter_cli import PROJECT, call, contents
from tests.jobs.test_shard_cli import SIDE, filtered_store
from tests.pipelines.conftest import encoded, texture
from tests.sets import url, write_set

SHARD = (sys.executable, "-m", "jobs.shard")
FIRST = FOLDER + "train-000000.tar"


@pytest.fixture
def drawn(tmp_path: Path) -> LocalStore:
    """A small set of drawn patches, without originals."""
    store = LocalStore(tmp_path / "set")
    write_set(store, [3, 2])
    return store


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """The command in this process."""
    status = command.main([str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_fsck_of_a_whole_set_ends_with_0(drawn: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "fsck", drawn.root)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == f"{drawn.root} is whole: version 1, 2 shards, 5 samples"


def test_fsck_names_each_object_and_cause_in_a_line_and_ends_with_1(
    drawn: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn.delete(FIRST)
    drawn.write(FOLDER + "notes.txt", b"?")
    status, out, err = run(capsys, "fsck", drawn.root)
    lines = out.splitlines()
    assert (status, err) == (1, "")
    assert f"missing: {FIRST}: the manifest names it" in lines
    assert f"orphan: {FOLDER}notes.txt: the manifest doesn't name it" in lines
    table = {words[0]: words[1:] for words in map(str.split, lines)}
    assert table["all"] == ["2", "2"]


def test_fsck_without_a_manifest_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "fsck", tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith("dynet-shard fsck: no shards/manifest.json in ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("fsck", "s3x://a"), "a store is a local folder or s3://bucket/prefix"),
        (("forget", "set"), "nothing to forget: give --urls, --hosts or --sha256"),
        (("forget", "set", "--urls", "gone.txt"), "gone.txt can't be read"),
        (("forget", "set", "--hosts", "bad.txt"), "bad.txt, line 2: 'http://a.example/' is no host"),
        (("show", "set", "xyz"), "'xyz' is no key"),
        (("show", "set", "0" * 16), "it never had, or it was purged"),
        (("show", "nowhere", "0" * 16), "no shards/manifest.json"),
    ],
)
def test_a_wrong_call_stops_with_one_sentence_and_writes_nothing(
    words: Sequence[str],
    sentence: str,
    drawn: LocalStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(drawn.folder.parent)
    Path("bad.txt").write_text("a.example\nhttp://a.example/\n")
    before = contents(drawn)
    status, out, err = run(capsys, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"dynet-shard {words[0]}: ")
    assert sentence in err
    assert contents(drawn) == before


def test_a_folder_called_like_a_command_can_still_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fsck").mkdir()
    assert "fsck has no pictures" in run(capsys, "./fsck", "--out", "set")[2]


@pytest.mark.parametrize("name", ["fsck", "forget", "show"])
def test_help_has_an_example_that_would_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main([name, "--help"])
    assert ended.value.code == 0
    _, _, example = capsys.readouterr().out.partition(f"example:\n  dynet-shard {name} ")
    sys.modules[f"jobs.{name}"]._parser().parse_intermixed_args(example.split())
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert f"dynet-shard {name}" in capsys.readouterr().out


def test_show_says_where_a_patch_comes_from(drawn: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    entry = index.from_table(index.read_one(drawn, read_manifest(drawn), 1))[1]
    status, out, _ = run(capsys, "show", drawn.root, entry.sample)
    said = dict(line.split(None, 1) for line in out.splitlines() if line)
    number = next(n for n in range(5) if url_key(url(n)) == entry.key)
    assert status == 0
    assert said["url"] == url(number)
    assert (said["license"], said["source"], said["sha256"]) == ("CC0", "test", f"{number:064x}")
    assert said["niqe"] == f"{3 + number / 100:.3g}"
    assert said["crop"] == "top 0, left 0, 64 x 64"
    assert said["shard"] == f"{FOLDER}train-000001.tar, slot 1"
    assert said["bytes"].startswith(f"{entry.data_size} from {entry.data_offset}")
    assert said["removed"] == "no"
    assert run(capsys, "show", drawn.root, entry.key)[1] == out


def test_show_reads_s3(s3_server: S3Server, capsys: pytest.CaptureFixture[str]) -> None:
    root = s3_server.bucket("show")
    write_set(open_store(root, s3_server.endpoint_url), [3])
    status, out, err = run(capsys, "show", root, url_key(url(2)), "--endpoint-url", s3_server.endpoint_url)
    assert (status, err) == (0, "")
    assert url(2) in out


@pytest.mark.slow
def test_forget_says_what_is_here_and_show_since_when_it_is_not(drawn: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_text(f"# Tuesday\n{url(0)}\n{url(3)}\nhttp://gone.example/1.jpg\n")
    forgot = call(*SHARD, "forget", drawn.root, "--urls", tmp_path / "urls.txt")
    assert (forgot.status, forgot.err) == (0, "")
    assert "2 of 3 links are in the set: 2 pictures, 2 patches; 1 are not here (any more)" in forgot.out
    assert "version 2: 2 pictures, 2 patches removed" in forgot.out
    shown = call(*SHARD, "show", drawn.root, url_key(url(0)))
    assert url(0) in shown.out
    assert "since version 2" in shown.out
    again = call(*SHARD, "forget", drawn.root, "--urls", tmp_path / "urls.txt", "--purge")
    assert "2 shards written anew" in again.out
    gone = call(*SHARD, "show", drawn.root, url_key(url(0)))
    assert (gone.status, "in version 3" in gone.err) == (2, True)
    assert call(*SHARD, "fsck", drawn.root).status == 0


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """A filtered store of nine pictures in three units, with shards."""
    base = tmp_path_factory.mktemp("cut")
    bodies = {f"http://{'abc'[n % 3]}.example/{n}.jpg": encoded(texture(n, SIDE, 2 * SIDE)) for n in range(9)}
    store = filtered_store(base / "store", bodies)
    rows = ledger.read(store, "chunk-00000000")
    files = {row.link.key: base / row.link.key for row in rows}
    for unit in range(3):
        some = rows[3 * unit : 3 * unit + 3]
        originals.write(store, f"chunk-{unit:08d}", some, files, base)
        ledger.write(store, f"chunk-{unit:08d}", some, ("niqe",), {})
    recipe = ShardRecipe(min_res=SIDE, max_shard_bytes=1_000_000)
    job = ShardJob(store=store, stores=(store,), folders=(), recipe=recipe, max_pixels=1 << 24)
    shard(job, lambda total, done: None)
    return store


@pytest.mark.slow
def test_repair_ends_with_0_once_all_is_mended_and_with_1_while_something_is_left(
    cut: LocalStore, tmp_path: Path
) -> None:
    store = LocalStore(Path(shutil.copytree(cut.folder, tmp_path / "store")))
    before = contents(store)
    names = [FOLDER + one.name for one in read_manifest(store).shards]
    store.delete(names[0])
    store.write(names[1], store.read(names[1])[:5000])
    mended = call(*SHARD, "fsck", store.root, "--repair")
    assert (mended.status, mended.err) == (0, "")
    assert f"mended: {names[0]}" in mended.out
    assert contents(store) == before
    store.delete(names[0])
    for unit in ledger.units(store):
        store.delete(originals.tar_name(unit))
    left = call(*SHARD, "fsck", store.root, "--repair")
    assert left.status == 1, left.err
    assert f"can't be rebuilt: {names[0]}: " in left.out
    assert "lacks" in left.out


def killed(words: Sequence[object], folder: Path, changes: int) -> bool:
    """SIGKILL to the command when the store has changed that often since its start; False where it ended before."""
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [str(word) for word in words],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    seen, known = 0, stamps(folder)
    while process.poll() is None and seen < changes:
        now = stamps(folder)
        seen, known = seen + (now != known), now
        time.sleep(0.002)
    if process.poll() is not None:
        return False
    process.kill()
    process.wait()
    return True


def stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """Of all files that are there, those that are being written too: inode and size."""
    found = {}
    for one in folder.rglob("*"):
        with suppress(FileNotFoundError):
            at = one.stat()
            found[one] = (at.st_ino, at.st_size)
    return found


def visible(store: LocalStore) -> dict[str, bytes]:
    return {name: data for name, data in contents(store).items() if not name.startswith("folders/")}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["forget", "fsck"])
def test_killed_as_it_writes_the_end_is_that_of_an_undisturbed_run(what: str, cut: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("a.example\n")
    disturbed = {"early": (1, 1, 1), "late": (2, 1)}  # store to how many changes its commands live to see
    for name in ("calm", *disturbed):
        shutil.copytree(cut.folder, tmp_path / name)
        store = LocalStore(tmp_path / name)
        for one in read_manifest(store).shards[:2] if what == "fsck" else ():
            store.delete(FOLDER + one.name)
    rest = {"forget": ("--hosts", tmp_path / "hosts.txt", "--purge"), "fsck": ("--repair",)}[what]
    assert call(*SHARD, what, tmp_path / "calm", *rest).status == 0
    kills = 0
    for name, moments in disturbed.items():
        words = (*SHARD, what, tmp_path / name, *rest)
        kills += sum(killed(words, tmp_path / name, changes) for changes in moments)
        assert call(*words).status == 0
        assert visible(LocalStore(tmp_path / name)) == visible(LocalStore(tmp_path / "calm"))
        assert call(*SHARD, "fsck", tmp_path / name).status == 0
    assert kills >= 3
