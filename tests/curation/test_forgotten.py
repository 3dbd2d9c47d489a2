"""What was asked to be forgotten: lists are read line by line, links matched by key, host and bytes, rows marked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from curation import forgotten, ledger
from curation.forgotten import Requests, hosts_in, marked, sha256_in, urls_in
from curation.judge import Thresholds, judge
from curation.records import Link, Reason, Row, Stage, url_key
from curation.settle import settle
from curation.sources import FilteredStore, duplicates_across
from shards.store import LocalStore

URL = "https://www.Example.com:8080/a.jpg?x=1"
ROW = Row(
    link=Link(position=0, key=url_key(URL), url=URL, source="s"),
    sha256="ab" * 32,
    phash="0f" * 8,
    width=2000,
    height=2000,
)


def listed(tmp_path: Path, text: str) -> Path:
    (tmp_path / "list.txt").write_text(text)
    return tmp_path / "list.txt"


@pytest.mark.parametrize(
    ("asked", "covered"),
    [
        (Requests(), False),
        (Requests(keys=frozenset({url_key(URL)})), True),
        (Requests(keys=frozenset({url_key(URL + "&y")})), False),
        (Requests(hosts=frozenset({"example.com"})), True),
        (Requests(hosts=frozenset({"www.example.com"})), True),
        (Requests(hosts=frozenset({"w.example.com", "ample.com", "ww.example.com"})), False),
        (Requests(sha256=frozenset({"ab" * 32})), True),
        (Requests(sha256=frozenset({"cd" * 32})), False),
    ],
)
def test_a_picture_goes_by_its_link_its_host_or_its_bytes(asked: Requests, covered: bool) -> None:
    assert asked.cover(URL, "ab" * 32) is covered
    assert (marked(ROW, asked).reason is Reason.FORGOTTEN) is covered


@pytest.mark.parametrize("url", ["lsdir/a b/1.png", "http://[::1/x.jpg", "", "http:///x"])
def test_a_link_without_a_host_is_of_none(url: str) -> None:
    assert not Requests(hosts=frozenset({"example.com"})).cover(url, None)


def test_an_international_host_is_found_in_either_form() -> None:
    plain = Requests(hosts=frozenset({"xn--bcher-kva.example"}))
    assert plain.cover("http://bücher.example/x.jpg", None)
    assert plain.cover("http://XN--BCHER-KVA.example./x.jpg", None)


def test_lists_are_one_entry_a_line(tmp_path: Path) -> None:
    text = "\ufeff# asked on Monday\n\n  http://a.example/x y.jpg\n"
    with pytest.raises(ValueError, match=r"list\.txt, line 3: .* is no link"):
        urls_in(listed(tmp_path, text))
    assert urls_in(listed(tmp_path, "div2k/my pictures/0801.png\r\nhttp://a.example/1\n")) == {
        "div2k/my pictures/0801.png",
        "http://a.example/1",
    }
    assert hosts_in(listed(tmp_path, "Example.COM.\nbücher.example\n1.2.3.4\n")) == {
        "example.com",
        "xn--bcher-kva.example",
        "1.2.3.4",
    }
    assert sha256_in(listed(tmp_path, "AB" * 32)) == {"ab" * 32}


@pytest.mark.parametrize(
    ("read", "line", "said"),
    [
        (urls_in, "a.example", "no link"),
        (urls_in, "ftp://a.example/x", "no link"),
        (hosts_in, "com", "no host"),
        (hosts_in, "http://a.example/", "no host"),
        (hosts_in, "*.a.example", "whose subdomains go with it"),
        (sha256_in, "ab" * 8, "no SHA-256"),
        (sha256_in, "zz" * 32, "64 hex digits"),
    ],
)
def test_a_bad_line_is_named(read: Callable[[Path], object], line: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"list\.txt, line 2: .*{said}"):
        read(listed(tmp_path, f"# first\n{line}\n"))


def test_a_list_without_entries_or_that_is_no_text_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no entries"):
        urls_in(listed(tmp_path, "# nothing\n\n"))
    with pytest.raises(ValueError, match="can't be read"):
        urls_in(tmp_path / "gone")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no text"):
        urls_in(tmp_path / "binary")


def test_requests_go_there_and_back(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert forgotten.read(store) == Requests()
    asked = Requests(keys=frozenset({"0" * 16}), hosts=frozenset({"b.example"}), sha256=frozenset({"ab" * 32}))
    forgotten.write(store, asked | Requests(hosts=frozenset({"a.example"})))
    assert forgotten.read(store) == replace(asked, hosts=frozenset({"a.example", "b.example"}))
    store.write(forgotten.NAME, b"nonsense")
    with pytest.raises(ValueError, match="can't be read"):
        forgotten.read(store)


@pytest.mark.parametrize(
    ("reason", "stage"),
    [(Reason.KEPT, Stage.KEPT), (Reason.LOW_QUALITY, Stage.JUDGE), (Reason.NOT_MEASURED, Stage.FETCH)],
)
def test_no_threshold_brings_a_forgotten_row_back(reason: Reason, stage: Stage) -> None:
    before = replace(ROW, reason=reason, stage=stage, stored=True)
    row = marked(before, Requests(sha256=frozenset({"ab" * 32})))
    assert (row.reason, row.stage, row.detail) == (Reason.FORGOTTEN, stage, f"was {reason.value}")
    assert judge(row, Thresholds(min_res=1)) is row
    assert row.was_kept is before.was_kept is (reason is Reason.KEPT)


def test_a_copy_does_not_take_the_place_of_a_forgotten_picture(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    rows = [
        replace(ROW, link=replace(ROW.link, position=at, key=f"{at:016x}", url=f"http://{host}/x"), stored=True)
        for at, host in enumerate(("a.example", "b.example"))
    ]
    ledger.write(store, "chunk-00000000", rows, (), {})
    settle(store, Thresholds(), 4, (), {})
    asked = Requests(hosts=frozenset({"a.example"}))
    ledger.rewrite(store, "chunk-00000000", [marked(row, asked) for row in ledger.read(store, "chunk-00000000")])
    settle(store, Thresholds(), 4, (), {})
    assert [row.reason for row in ledger.read(store, "chunk-00000000")] == [Reason.FORGOTTEN, Reason.DUPLICATE_EXACT]
    other = LocalStore(tmp_path / "other")
    ledger.write(other, "chunk-00000000", rows[1:], (), {})
    sources = [FilteredStore(store=store), FilteredStore(store=other)]
    assert [row.reason for row in duplicates_across(sources, 4).values()] == [Reason.DUPLICATE_EXACT]
