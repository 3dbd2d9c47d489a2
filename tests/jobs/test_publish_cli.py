"""`dynet-publish` as people call it: what it says and sends, a card that is true, one sentence when it can't go on."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation import ledger
from curation.records import Link, Reason, Row, Stage, url_key
from jobs import publish as command
from jobs.s3_proxy import S3Proxy, What
from pipelines import card, claims
from pipelines.recipes import demo
from shards import s3
from shards.manifest import MANIFEST, read_manifest
from shards.store import LocalStore, open_store
from tests.conftest import S3Server
from tests.jobs.test_filter_cli import call, contents
from tests.sets import write_set

SAMPLES = 9


def _row(number: int, reason: Reason, stage: Stage) -> Row:
    url = f"http://a.example/{number}"
    return Row(link=Link(position=number, key=url_key(url), url=url, source="test"), reason=reason, stage=stage)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """A set of three shards, with the ledger and the claim of a filter."""
    store = LocalStore(tmp_path_factory.mktemp("published") / "store")
    write_set(store, [3, 2, 4])
    claims.claim(store, demo(), {"niqe": "a" * 64})
    rows = [_row(0, Reason.KEPT, Stage.KEPT), _row(1, Reason.TIMED_OUT, Stage.FETCH), _row(2, Reason.FLAT, Stage.SCORE)]
    ledger.write(store, "chunk-00000000", rows, ("niqe",), {})
    return store


@pytest.fixture
def bucket(s3_server: S3Server, tmp_path: Path) -> str:
    return s3_server.bucket("c" + re.sub("[^a-z0-9]", "", tmp_path.name.lower())[-40:])


def run(*words: object) -> int:
    return command.main([str(word) for word in words])


def test_it_says_what_it_sent_and_again_that_there_was_nothing_to_send(
    source: LocalStore, bucket: str, s3_server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (source.root, f"{bucket}/set", "--endpoint-url", s3_server.endpoint_url)
    assert run(*words) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert re.search(r"send: (\S+ kB) of \1, .*B/s\n", said.out)
    assert re.search(r"sent 5 files, \S+ kB; 0 were there\n", said.out)
    assert f"version 1: {bucket}/set/shards/manifest.json\n" in said.out
    assert run(*words) == 0
    assert "sent 0 files, 0 B; 5 were there\n" in capsys.readouterr().out
    target = open_store(f"{bucket}/set", s3_server.endpoint_url)
    assert target.read(MANIFEST) == source.read(MANIFEST)
    assert not list(target.list("ledger/"))


@pytest.fixture
def published(source: LocalStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> LocalStore:
    target = LocalStore(tmp_path / "target")
    assert run(source.root, target.root, "--contact", "data@example.org") == 0
    capsys.readouterr()
    return target


def test_the_card_has_counts_recipe_thresholds_funnel_licences_and_whom_to_ask(published: LocalStore) -> None:
    text = published.read("README.md").decode()
    for line in (
        "# 9 patches of 64×64 pixels",
        "| test | 9 | 9 | 9 | 0 |",
        "both sides have at least 1024 pixels",
        f"| niqe | ≤ 17 | {'a' * 64} |",
        '"size": 64',
        "| fetch | timed_out | 1 | 33.33 % | The host fell silent",
        "|  | all | 3 |",
        "| CC0 | 9 |",
        "Write to data@example.org,",
    ):
        assert line in text
    assert not re.search(r"20\d\d-", text)


def test_the_card_is_a_function_of_the_set(source: LocalStore, published: LocalStore, tmp_path: Path) -> None:
    again = LocalStore(tmp_path / "again")
    assert run(source.root, again.root, "--contact", "data@example.org") == 0
    assert contents(again) == contents(published)


def snippet(store: LocalStore, kind: str, having: str) -> str:
    text = store.read("README.md").decode()
    return next(code for code in re.findall(rf"```{kind}\n(.*?)\n```", text, re.S) if having in code)


@pytest.fixture
def served(published: LocalStore) -> Iterator[str]:
    """The published folder over HTTP."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=published.root)
    handler.log_message = lambda *words: None  # type: ignore[attr-defined]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("over", ["folder", pytest.param("http", marks=pytest.mark.slow)])
def test_the_cards_code_reads_every_sample(
    over: str, published: LocalStore, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if over == "http" and shutil.which("curl") is None:
        pytest.skip("webdataset reads http with curl, which is not installed")
    root = published.root if over == "folder" else request.getfixturevalue("served")
    code = snippet(published, "python", "import webdataset").replace('root = "."', f'root = "{root}"')
    code = code.replace("    break", '    print(sample["__key__"], sample["jpg"].shape, sample["json"]["source"])')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(set(lines)) == SAMPLES
    assert all(line.endswith("(64, 64, 3) test") for line in lines)


def test_the_cards_check_finds_a_changed_file(published: LocalStore) -> None:
    check = snippet(published, "sh", "sha256sum")
    folder = published.folder / "shards"
    assert subprocess.run(["sh", "-c", check], cwd=folder, timeout=60, capture_output=True).returncode == 0
    (folder / "index.parquet").write_bytes(b"another")
    done = subprocess.run(["sh", "-c", check], cwd=folder, timeout=60, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stdout == "index.parquet: FAILED\n"


def test_links_and_scores_alone(source: LocalStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = LocalStore(tmp_path / "links")
    assert run(source.root, target.root, "--metadata-only") == 0
    assert list(target.list("")) == ["README.md", "shards/metadata.json", "shards/metadata.parquet"]
    assert "**The pictures are not here**" in target.read("README.md").decode()
    rows = pq.read_table(target.folder / "shards" / "metadata.parquet").to_pylist()
    assert len(rows) == SAMPLES
    assert {"url", "width", "height", "sha256", "source", "license", "score_niqe"} <= set(rows[0])
    about = json.loads(target.read("shards/metadata.json"))
    assert (about["version"], about["metadata"]["name"]) == (1, "metadata.parquet")
    assert run(source.root, target.root) == 0
    capsys.readouterr()
    assert run(source.root, target.root, "--metadata-only") == 2
    assert "has a set with its pictures: name another place" in capsys.readouterr().err


def test_the_heading_counts_the_pictures_that_are_there_and_not_those_that_were_cut(source: LocalStore) -> None:
    made = read_manifest(source)
    licences = Counter({"CC0": SAMPLES - 3, None: 1})  # two were forgotten
    about = card.About(licences=licences, funnel=Counter(), thresholds=None, weights={}, contact="", pictures=False)
    assert card.card(made, about).decode().startswith(f"# Links and scores of {SAMPLES - 2} pictures\n")
    assert made.sources["test"].pictures == SAMPLES


def test_what_strangers_wrote_does_not_break_the_cards_tables() -> None:
    assert card._cell("a | b\n# <img src=x>") == "a \\| b # &lt;img src=x>"


@pytest.fixture
def stopped(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Calls the command; the one sentence that it stops with."""

    def of(*words: object) -> str:
        status = run(*words)
        said = capsys.readouterr()
        assert (status, said.err.count("\n")) == (2, 1), said.err
        assert said.err.startswith("dynet-publish: ")
        return said.err.removeprefix("dynet-publish: ")

    return of


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("empty", "target"), "no shards/manifest.json in "),
        (("store", "store"), "is where the set is already"),
        (("store", "gs://bucket/x"), "a store is a local folder or s3://bucket/prefix"),
        (("store", "target", "--threads", "0"), "threads is 0: give at least 1"),
        (("store", "file/below"), "file/below (Not a directory): name another place"),
        (("store", "s3://no-such-bucket/x"), "there is no bucket for s3://no-such-bucket/x"),
        (("store", "s3://B/x"), "s3://B/x"),
    ],
)
def test_a_wrong_call_is_one_sentence(
    words: tuple[str, ...],
    sentence: str,
    stopped: Callable[..., str],
    source: LocalStore,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("store").symlink_to(source.root)
    Path("file").write_bytes(b"")
    assert sentence in stopped(*words, "--endpoint-url", s3_server.endpoint_url)


def test_without_credentials_it_says_how_to_give_them(
    stopped: Callable[..., str], source: LocalStore, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with S3Proxy(s3_server.endpoint_url) as proxy:
        assert "set AWS_PROFILE, or AWS_ACCESS_KEY_ID" in stopped(
            source.root, "s3://bucket/x", "--endpoint-url", proxy.endpoint_url
        )


def test_no_message_has_a_credential(
    source: LocalStore, bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
        "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEXAMPLETOKEN",
    }
    with S3Proxy(s3_server.endpoint_url) as proxy:
        proxy.fail(What.EXPIRED, match="PUT .*train-000001", times=-1)
        words = (sys.executable, "jobs/publish.py", source.root, f"{bucket}/x", "--endpoint-url", proxy.endpoint_url)
        done = call(*words, env=secrets, timeout=120)
        assert done.status == 2
        assert done.err == (
            f"dynet-publish: S3 no longer takes these credentials for {bucket}/x/shards/train-000001.tar "
            "(ExpiredToken): renew them, then give the same command again\n"
        )
        assert not [secret for secret in (*secrets.values(), "Signature=") if secret in done.out + done.err]
        assert set(proxy.signers) == {secrets["AWS_ACCESS_KEY_ID"]}


def test_a_server_in_trouble_for_good_is_named(
    stopped: Callable[..., str], source: LocalStore, bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "TRIES", 2)
    monkeypatch.setattr(s3, "REQUESTS", 1)
    with S3Proxy(s3_server.endpoint_url) as proxy:
        proxy.fail(What.SLOW_DOWN, match="PUT .*index", times=-1)
        said = stopped(source.root, f"{bucket}/x", "--endpoint-url", proxy.endpoint_url)
    assert f"S3 answers SlowDown for {bucket}/x/shards/index.parquet" in said


def test_help_has_an_example_that_would_parse(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    _, _, example = capsys.readouterr().out.partition("example:\n  dynet-publish ")
    command._parser().parse_args(example.split())
