"""URL lists: what is read from them, and what is refused before a byte is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from curation import urls
from curation.judge import Thresholds
from curation.records import Reason, url_key

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def _parquet(path: Path, **columns: list) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_columns_are_found_in_any_case_and_the_rest_may_be_missing(tmp_path: Path) -> None:
    upper = _parquet(
        tmp_path / "a.parquet", URL=["http://a/1"], WIDTH=[2048], HEIGHT=[1024.0], TEXT=["a cat"], hash=[-(2**62) - 1]
    )
    lower = _parquet(tmp_path / "b.parquet", url=["http://b/1"], pwatermark=[0.25])
    one, two = urls.read_links([upper, lower], "test")
    assert (one.url, one.declared_width, one.declared_height, one.caption) == ("http://a/1", 2048, 1024, "a cat")
    assert (one.hash, one.language) == (-(2**62) - 1, None)
    assert (two.position, two.url, two.pwatermark, two.declared_width) == (1, "http://b/1", 0.25, None)


def test_csv_reads_like_parquet(tmp_path: Path) -> None:
    table = pa.table({"URL": ["http://a/1", "http://a/2"], "WIDTH": [1, 2], "punsafe": [0.5, None]})
    pyarrow.csv.write_csv(table, tmp_path / "list.csv")
    pq.write_table(table, tmp_path / "list.parquet")
    from_csv = list(urls.read_links([tmp_path / "list.csv"], "test"))
    assert from_csv == list(urls.read_links([tmp_path / "list.parquet"], "test"))


def test_the_first_of_equal_urls_is_the_first_also_across_lists(tmp_path: Path) -> None:
    one = _parquet(tmp_path / "a.parquet", URL=["http://a/1", "http://a/2", "http://a/1"])
    two = _parquet(tmp_path / "b.parquet", URL=["http://a/2", "http://a/3"])
    assert urls.first_occurrences([one, two]).tolist() == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://a.example/1.jpg", None),
        ("https://a.example:8443/1.jpg?x=1#y", None),
        ("HTTP://A.EXAMPLE/1.jpg", None),
        ("http://bücher.example/ü.jpg", None),
        ("", Reason.URL_MALFORMED),
        ("http://", Reason.URL_MALFORMED),
        ("http:///1.jpg", Reason.URL_MALFORMED),
        ("http://a b/1.jpg", Reason.URL_MALFORMED),
        ("http://a/\r\nHost: b", Reason.URL_MALFORMED),
        ("http://a:99999/1.jpg", Reason.URL_MALFORMED),
        ("http://[::1/1.jpg", Reason.URL_MALFORMED),
        ("http://a/" + "x" * 5000, Reason.URL_MALFORMED),
        ("ftp://a.example/1.jpg", Reason.URL_NOT_HTTP),
        ("file:///etc/passwd", Reason.URL_NOT_HTTP),
        ("data:image/png;base64,AAAA", Reason.URL_NOT_HTTP),
        ("a.example/1.jpg", Reason.URL_NOT_HTTP),
        ("http://127.0.0.1/1.jpg", Reason.PRIVATE_ADDRESS),
        ("http://localhost/1.jpg", Reason.PRIVATE_ADDRESS),
        ("http://10.0.0.7/1.jpg", Reason.PRIVATE_ADDRESS),
        ("http://2130706433/1.jpg", Reason.PRIVATE_ADDRESS),
        ("http://[::1]/1.jpg", Reason.PRIVATE_ADDRESS),
        ("http://169.254.169.254/latest/meta-data", Reason.PRIVATE_ADDRESS),
    ],
)
def test_a_url_is_refused_for_its_own_reason(url: str, reason: Reason | None) -> None:
    refusal = urls.refuse_url(url, allow_private=False)
    assert (refusal and refusal.reason) == reason


def test_private_addresses_can_be_allowed() -> None:
    assert urls.refuse_url("http://127.0.0.1:8000/1.jpg", allow_private=True) is None


def test_a_row_starts_with_the_lists_verdict(tmp_path: Path) -> None:
    path = _parquet(
        tmp_path / "a.parquet",
        URL=["http://a/1", "http://a/1", "http://a/2", "http://a/3", None],
        WIDTH=[2000, 2000, 500, 2000, 2000],
        punsafe=[0.1, 0.1, 0.1, 0.9, 0.1],
    )
    first = urls.first_occurrences([path])
    rows = [
        urls.first_row(link, bool(first[link.position]), Thresholds(), allow_private=False)
        for link in urls.read_links([path], "test")
    ]
    assert [row.reason for row in rows] == [
        Reason.NOT_MEASURED,
        Reason.URL_REPEATED,
        Reason.DECLARED_TOO_SMALL,
        Reason.DECLARED_UNSAFE,
        Reason.URL_MALFORMED,
    ]


def test_hostile_bytes_in_a_text_column_are_read_not_raised(tmp_path: Path) -> None:
    broken = pa.array([b"http://a/\xff\xfe.jpg"], pa.binary()).view(pa.string())
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"URL": broken, "TEXT": broken}), path)
    [link] = urls.read_links([path], "test")
    assert link.url == "http://a/\ufffd\ufffd.jpg"


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("none.parquet", None, "no such list"),
        ("bad.parquet", b"PAR1 not really", "can't be read"),
        ("empty.parquet", b"", "can't be read"),
        ("bad.csv", b"a,b\n1,2\n", "no URL column"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_in_one_sentence(
    tmp_path: Path, name: str, content: bytes | None, word: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=word):
        urls.check_list(tmp_path / name)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real LAION list in ../shared")
def test_ten_thousand_real_laion_links_are_read_whole() -> None:
    path = SHARED / "data" / "laion" / "test_10000.parquet"
    links = list(urls.read_links([path], "laion"))
    assert len(links) == 10_000
    refusals = [urls.refuse_url(link.url, allow_private=False) for link in links]
    assert sum(refusal is None for refusal in refusals) > 9_900
    assert all(link.key == url_key(link.url) for link in links)


@pytest.mark.parametrize("size", [1, 3, 5, 100])
def test_pieces_of_lists_are_their_lines_in_order(tmp_path: Path, size: int) -> None:
    """Also across the end of one list and of a batch, where the lists have other columns."""
    pq.write_table(pa.table({"URL": [f"http://a/{n}" for n in range(7)], "WIDTH": range(7)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"url": [f"http://b/{n}" for n in range(4)]}), tmp_path / "b.parquet")
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    pieces = list(urls.cut(paths, size))
    assert [sum(map(len, piece)) for piece in pieces] == [min(size, 11 - at) for at in range(0, 11, size)]
    found = [link for n, piece in enumerate(pieces) for link in urls.links_of(piece, "test", n * size)]
    assert found == list(urls.read_links(paths, "test"))


def test_repeats_are_found_in_every_part_of_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 URLs of 900, in windows of 64 keys: as a set that grows says."""
    drawn = np.random.default_rng(0).integers(0, 900, 2000).tolist()
    pq.write_table(pa.table({"url": [f"http://a/{n}" for n in drawn]}), tmp_path / "a.parquet")
    monkeypatch.setattr(urls, "_AT_A_TIME", 64)
    known: set[int] = set()
    assert urls.first_occurrences([tmp_path / "a.parquet"]).tolist() == [
        n not in known and not known.add(n) for n in drawn
    ]
