"""The report says what is in the store, believes no stranger, and is a page that people can read."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curation import ledger, originals
from curation.chunks import PLAN
from curation.judge import MetricThreshold, Thresholds, judge
from curation.records import Link, Reason, Row, Stage, url_key
from curation.rejects import PER_REASON, Rejects
from curation.report import PAGE, SHEET, write_report
from curation.report.parts import share
from curation.report.reasons import REASONS, STAGES
from curation.thumbnails import thumbnail
from shards import index, manifest
from shards.index import Entry
from shards.manifest import Manifest, Shard, Source, Version
from shards.store import LocalStore, Store, open_store
from tests.browser import BINARY, browser
from tests.conftest import S3Server

BOUNDS: list[dict[str, Any]] = [
    {"metric": "niqe", "bound": 5.5, "lower_better": True},
    {"metric": "nima", "bound": 4.5, "lower_better": False},
]
METRICS = ("niqe", "nima")
THRESHOLDS = Thresholds(metrics=tuple(MetricThreshold(**one) for one in BOUNDS))
ABOUT: dict[str, Any] = {
    "recipe": {
        "source": "laion-hr",
        "chunk_size": 20,
        "thresholds": {"min_res": 1024, "max_punsafe": 0.5, "max_pwatermark": 0.8, "metrics": BOUNDS},
    },
    "weights": {"niqe": "1f" * 32, "nima": "2e" * 32},
}
HOSTILE = 'http://x/"><script>alert(1)</script><img src=http://evil/ onerror=alert(2)>&amp;\u202egnp.exe\x00'


def link(position: int, url: str = "", caption: str | None = None) -> Link:
    url = url or f"http://host-{position}/picture.jpg"
    return Link(position=position, key=url_key(url), url=url, source="laion-hr", caption=caption)


def scored(position: int, niqe: float, nima: float, **rest: Any) -> Row:
    """A stored picture with the verdict that the thresholds give it."""
    row = Row(
        link=link(position, **rest),
        width=1100 + position,
        height=1300,
        bytes=500_000,
        format="jpeg",
        sha256="0" * 64,
        phash="0" * 16,
        scores={"niqe": niqe, "nima": nima},
        stored=True,
        attempts=1,
        seconds=0.5 + position / 100,
    )
    return judge(row, THRESHOLDS)


def gone(position: int, **rest: Any) -> Row:
    return Row(
        link=link(position, **rest),
        reason=Reason.HTTP_NOT_FOUND,
        stage=Stage.FETCH,
        detail="404",
        attempts=1,
        seconds=0.1,
    )


def drawn(seed: int) -> bytes:
    """A JPEG of 300 x 200 pixels."""
    noise = np.random.default_rng(seed).integers(0, 256, (10, 15, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((300, 200), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def put(store: Store, unit: str, rows: Sequence[Row], scratch: Path) -> None:
    """A unit's originals and its ledger part."""
    kept = [row for row in rows if row.reason is Reason.KEPT]
    bodies = {row.link.key: scratch / f"{row.link.key}.jpg" for row in kept}
    for row in kept:
        bodies[row.link.key].write_bytes(drawn(row.link.position))
    if kept:
        originals.write(store, unit, kept, bodies, scratch)
    ledger.write(store, unit, rows, METRICS, ABOUT)


def fill(store: Store, scratch: Path, caption: str | None = "a caption", url: str = "") -> None:
    """40 links in two units: 24 that are scored, 5 of them kept, 14 that are gone, 2 malformed."""
    scratch.mkdir(parents=True, exist_ok=True)
    rows = [scored(at, 3.0 + at / 4, 5.0 - (at % 2), caption=caption) for at in range(17)]
    rows += [scored(at, 5.6 + at / 10, 5.2) for at in range(17, 24)]
    rows[2] = replace(rows[2], reason=Reason.DUPLICATE_NEAR, stage=Stage.DUPLICATES)
    rows += [gone(24, url=url or "http://gone/1"), *(gone(at) for at in range(25, 38))]
    rows += [replace(gone(at), reason=Reason.URL_MALFORMED, stage=Stage.LIST, seconds=0.0) for at in (38, 39)]
    put(store, "chunk-00000000", rows[:20], scratch)
    put(store, "chunk-00000001", rows[20:], scratch)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    made = LocalStore(tmp_path / "store")
    fill(made, tmp_path / "scratch")
    return made


def page_of(store: Store) -> str:
    write_report(store)
    return store.read(PAGE).decode()


def text_of(page: str) -> str:
    """What a reader sees, on one line."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_funnel_counts_every_row_once_and_in_the_order_of_stages(store: LocalStore) -> None:
    text = text_of(page_of(store))
    rows = [row for unit in ledger.units(store) for row in ledger.read(store, unit)]
    counts = Counter(row.reason for row in rows)
    assert counts.total() == 40
    places = []
    for reason, count in counts.items():
        said = f"{reason.value} {REASONS[reason]} {count:,} {share(count, 40)}"
        assert text.count(said) == 1, said
        places.append((list(Stage).index(next(row.stage for row in rows if row.reason is reason)), text.index(said)))
    assert [place for _, place in sorted(places)] == sorted(place for _, place in places)
    assert "38 left, 95.0 % of the list" in text
    assert "24 left, 60.0 % of the list" in text


def test_it_says_thresholds_weights_and_scores(store: LocalStore) -> None:
    text = text_of(page_of(store))
    for said in ("niqe <= 5.5", "nima >= 4.5", "1f" * 32, "2e" * 32, "passes at 5.5 or less", "passes at 4.5 or more"):
        assert said in text.replace("&lt;", "<").replace("&gt;", ">")
    assert "11 of 24 pass (45.8 %)" in text  # niqe: 3.0 + at / 4 <= 5.5
    assert "16 of 24 pass (66.7 %)" in text  # nima


def test_every_reason_and_stage_has_a_sentence_of_its_own() -> None:
    assert set(REASONS) == set(Reason)
    assert set(STAGES) == set(Stage)
    assert len(set(REASONS.values())) == len(Reason)


def test_kept_pictures_are_in_the_page_best_first(store: LocalStore) -> None:
    page = page_of(store)
    pictures = [attributes for tag, attributes in Elements(page).found if tag == "img"]
    kept = [row for unit in ledger.units(store) for row in ledger.read(store, unit) if row.reason is Reason.KEPT]
    assert len(pictures) == len(kept) > 0
    best = min(kept, key=lambda row: row.scores["niqe"])
    first = Image.open(io.BytesIO(base64.b64decode((pictures[0]["src"] or "").partition(",")[2])))
    expected = thumbnail(np.asarray(Image.open(io.BytesIO(drawn(best.link.position)))))
    assert np.abs(np.asarray(first).astype(int) - expected).mean() < 4
    assert Image.open(io.BytesIO(store.read(SHEET))).format == "PNG"


def test_the_best_of_a_metric_where_more_is_better_has_the_highest_score(store: LocalStore) -> None:
    recipe = {**ABOUT["recipe"], "thresholds": {**ABOUT["recipe"]["thresholds"], "metrics": BOUNDS[::-1]}}
    rows = [scored(at, 3.0, nima) for at, nima in enumerate((4.6, 9.1, 5.5))]
    put(store, "chunk-00000000", rows, Path(store.root).parent / "scratch")
    ledger.write(store, "chunk-00000000", rows, METRICS, {**ABOUT, "recipe": recipe})
    store.delete(ledger.part_name("chunk-00000001"))
    page = page_of(store)
    wall = text_of(page[page.index('id="kept"') : page.index('id="sizes"')])
    assert re.findall(r"nima ([\d.]+)", wall.partition("kept.png")[2]) == ["9.10", "5.50", "4.60"]


def test_links_captions_and_details_are_text_and_nothing_else(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    fill(store, tmp_path / "scratch", caption=HOSTILE, url=HOSTILE)
    rows = ledger.read(store, "chunk-00000001")
    ledger.write(store, "chunk-00000001", [replace(row, detail=HOSTILE) for row in rows], METRICS, ABOUT)
    page = page_of(store)
    assert "<script" not in page
    assert "\u202e" not in page and "\0" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&amp;amp;\\u202egnp.exe\\u0000" in page
    for tag, attributes in Elements(page).found:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)


def test_a_link_of_a_megabyte_is_cut(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    fill(store, tmp_path / "scratch", url=f"http://x/{'a' * 1_000_000}")
    page = page_of(store)
    assert len(page) < 500_000
    assert "(1,000,009 characters)" in page


def test_the_page_loads_nothing_and_runs_nothing(store: LocalStore) -> None:
    page = page_of(store)
    style = page[page.index("<style>") + 7 : page.index("</style>")]
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    for tag, attributes in Elements(page).found:
        assert tag not in ("script", "iframe", "object", "form", "base"), tag
        assert "style" not in attributes
        if "src" in attributes:
            assert (attributes["src"] or "").startswith("data:image/jpeg;base64,")
        if tag == "a":
            assert (attributes["href"] or "").startswith("#") or attributes["href"] == "kept.png"
    policy = next(a["content"] for t, a in Elements(page).found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy and f"style-src 'sha256-{allowed}'" in policy
    assert "url(" not in style and "@import" not in style


def test_every_link_within_the_page_leads_somewhere(store: LocalStore) -> None:
    elements = Elements(page_of(store)).found
    targets = {f"#{attributes['id']}" for _, attributes in elements if "id" in attributes}
    links = {attributes["href"] for tag, attributes in elements if tag == "a"} - {"kept.png"}
    assert links == targets


def test_the_same_store_gives_the_same_bytes_wherever_it_lies(store: LocalStore, tmp_path: Path) -> None:
    other = LocalStore(tmp_path / "elsewhere")
    fill(other, tmp_path / "scratch")
    for one in (store, other, store):
        write_report(one)
    assert store.read(PAGE) == other.read(PAGE)
    assert store.read(SHEET) == other.read(SHEET)


def test_it_goes_into_s3_like_into_a_folder(store: LocalStore, s3_server: S3Server, tmp_path: Path) -> None:
    remote = open_store(f"{s3_server.bucket('report')}/set", s3_server.endpoint_url)
    fill(remote, tmp_path / "scratch")
    assert write_report(remote) == "s3://report/set/report/index.html"
    write_report(store)
    assert remote.read(PAGE) == store.read(PAGE)
    assert remote.read(SHEET) == store.read(SHEET)


def test_nothing_kept_is_said_and_an_old_sheet_goes(store: LocalStore) -> None:
    write_report(store)
    for unit in list(ledger.units(store)):
        refused = [replace(row, reason=Reason.FLAT, stage=Stage.SCORE) for row in ledger.read(store, unit)]
        ledger.write(store, unit, refused, METRICS, ABOUT)
    assert "Nothing is kept yet" in page_of(store)
    assert not store.exists(SHEET)


def test_refused_pictures_are_shown_by_reason_with_their_scores_and_as_sheets(
    store: LocalStore, tmp_path: Path
) -> None:
    rows = ledger.read(store, "chunk-00000001")
    shown = [row for row in rows if row.reason is Reason.LOW_QUALITY]
    refused = Rejects()
    for row in shown:
        path = tmp_path / row.link.key
        path.write_bytes(drawn(row.link.position))
        refused.offer(row, path)
    refused.write(store, "chunk-00000001", rows, tmp_path)
    assert len(shown) < PER_REASON
    text = text_of(page_of(store))
    wall = text.partition("Refused pictures A few")[2].partition("Duplicates 0 rows")[0]
    for row in shown:
        assert f"niqe {row.scores['niqe']:.2f}" in wall
    assert "low_quality At least one metric votes against it." in wall
    sheet = Image.open(io.BytesIO(store.read("report/low_quality.png")))
    assert sheet.format == "PNG" and sheet.width > 2 * 192
    store.delete("rejects/chunk-00000001.tar")
    assert "there is none to show" in text_of(page_of(store))
    assert not store.exists("report/low_quality.png")


def test_refused_pictures_of_a_chunk_that_was_never_committed_are_passed_over(
    store: LocalStore, tmp_path: Path
) -> None:
    row = next(row for row in ledger.read(store, "chunk-00000001") if row.reason is Reason.LOW_QUALITY)
    refused = Rejects()
    path = tmp_path / row.link.key
    path.write_bytes(drawn(row.link.position))
    refused.offer(row, path)
    refused.write(store, "chunk-00000002", [row], tmp_path)
    assert "there is none to show" in text_of(page_of(store))


def test_a_duplicate_is_shown_beside_what_it_repeats(store: LocalStore, tmp_path: Path) -> None:
    rows = ledger.read(store, "chunk-00000000")
    at = next(at for at, row in enumerate(rows) if row.reason is Reason.DUPLICATE_NEAR)
    earlier = next(row for row in rows if row.reason is Reason.KEPT)
    rows[at] = replace(rows[at], detail=f"of {earlier.link.key} in chunk-00000000")
    kept = [row for row in rows if row.reason in (Reason.KEPT, Reason.DUPLICATE_NEAR)]
    bodies = {row.link.key: tmp_path / row.link.key for row in kept}
    for row in kept:
        bodies[row.link.key].write_bytes(drawn(row.link.position))
    originals.write(store, "chunk-00000000", kept, bodies, tmp_path)
    ledger.write(store, "chunk-00000000", rows, METRICS, ABOUT)
    page = page_of(store)
    pair = page.partition('class="pair"')[2].partition("</figure>")[0]
    shown = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]+)", pair)]
    assert len(shown) == 2
    for image, row in zip(shown, (earlier, rows[at]), strict=True):
        expected = thumbnail(np.asarray(Image.open(io.BytesIO(drawn(row.link.position)))))
        assert np.abs(np.asarray(image, int) - expected).mean() < 4
    assert "1 row that look like one" in text_of(page)


def test_what_the_run_did_is_told_over_time_and_by_host(store: LocalStore) -> None:
    rows = ledger.read(store, "chunk-00000001")
    timed = [replace(row, ended=1_700_000_000.0 + 10 * at, bytes_read=2_000_000) for at, row in enumerate(rows)]
    for at, spared in enumerate((2_000_000, 1_000_000, 0)):  # the third's length was not declared
        ended = replace(timed[at], reason=Reason.TOO_SMALL, stage=Stage.JUDGE)
        timed[at] = replace(ended, width=300, height=200, bytes=None, bytes_spared=spared, scores={})
    ledger.write(store, "chunk-00000001", timed, METRICS, ABOUT)
    text = text_of(page_of(store))
    assert "From 11-14 22:13:20 to 11-14 22:1" in text
    assert "3 files could not be kept by their first kilobytes: 3.0 MB of them were not read" in text
    assert "Downloaded 24 10.5 MB in whole files" in text and "Downloaded 24 · 60.0 %" in text
    assert "Links a second" in text and "Megabytes a second" in text
    slowest = text.partition("Slowest hosts")[2].partition("Slowest links")[0]
    assert "host-23 1 0 2.0 MB 730 ms 730 ms" in slowest


def test_the_nearest_misses_come_first(store: LocalStore) -> None:
    page = page_of(store)
    near = text_of(page[page.index('id="near"') : page.index('id="examples"')])
    beyond = [float(found) for found in re.findall(r"([\d.]+) %", near)]
    assert beyond == sorted(beyond) and len(beyond) == 12
    assert near.index("niqe 5.750, wanted niqe") < near.index("niqe 6.250, wanted niqe")


def test_sources_of_shards_are_a_table_with_their_bytes(store: LocalStore) -> None:
    assert "No shards are cut" in page_of(store)
    entries = [
        Entry(
            sample=f"{at:016x}_00",
            key=f"{at:016x}",
            source="div2k" if at < 3 else "laion-hr",
            shard=0,
            slot=at,
            suffix="jpg",
            digest="0" * 16,
            data_offset=512,
            data_size=1_000_000,
            json_offset=1,
            json_size=1,
        )
        for at in range(10)
    ]
    versions = (Version(number=1, shards=1, tombstones=0),)
    part = index.write(store, "0" * 16, versions, [index.to_table(entries)])
    made = Manifest(
        set="0" * 16,
        recipe={},
        shards=(Shard(name="train-000000.tar", bytes=11_000_000, sha256="0" * 64, samples=10, slots=10),),
        index=part,
        metadata=replace(part, name="metadata.parquet"),
        versions=versions,
        sources={
            "laion-hr": Source(pictures=5, with_patches=4, samples=7, flat=2),
            "div2k": Source(pictures=2, with_patches=2, samples=3, flat=1),
        },
    )
    manifest.commit(store, made)
    text = text_of(page_of(store))
    assert "laion-hr 5 4 7 2 7.0 MB" in text
    assert "div2k 2 2 3 1 3.0 MB" in text
    assert "all 7 6 10 3 10.0 MB" in text
    assert "cut into 10 patches" in text


def test_an_unfinished_run_and_a_ledger_of_two_minds_are_pointed_out(store: LocalStore) -> None:
    assert "not finished" not in page_of(store)
    plan = {"lists": [], "source": "laion-hr", "chunk_size": 20, "rows": 100}
    store.write(PLAN, json.dumps(plan).encode())
    other = {**ABOUT, "weights": {}}
    ledger.write(store, "chunk-00000001", ledger.read(store, "chunk-00000001"), METRICS, other)
    text = text_of(page_of(store))
    assert "2 of 5 chunks are done" in text
    assert "1 chunk was judged by another recipe" in text


def test_without_a_ledger_it_says_what_to_do_and_writes_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "empty")
    with pytest.raises(ValueError, match="has no ledger: run dynet-filter"):
        write_report(store)
    assert not list(store.list(""))


def test_another_schema_and_broken_parts_are_refused(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "SCHEMA_VERSION", 0)
        ledger.write(store, "chunk-00000001", [gone(1)], METRICS, ABOUT)
    with pytest.raises(ValueError, match="ledger schema 0"):
        write_report(store)
    ledger.write(store, "chunk-00000001", [gone(1)], METRICS, ABOUT)
    tar = store.read(originals.tar_name("chunk-00000000"))
    store.write(originals.tar_name("chunk-00000000"), tar[: len(tar) // 2])
    with pytest.raises(ValueError, match=r"chunk-00000000\.tar: the tar is truncated"):
        write_report(store)
    store.write(manifest.MANIFEST, b"{}")
    with pytest.raises(ValueError, match="no manifest of shards"):
        write_report(store)
    assert not store.exists(PAGE)


def test_a_ledger_without_thresholds_is_refused(store: LocalStore) -> None:
    ledger.write(store, "chunk-00000000", [gone(1)], METRICS, {})
    with pytest.raises(ValueError, match="does not say its thresholds"):
        write_report(store)


@pytest.mark.slow
@pytest.mark.skipif(BINARY is None, reason="needs Chromium (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it_without_complaint_and_without_scrolling_sideways(
    tmp_path: Path, width: int, dark: bool
) -> None:
    store = LocalStore(tmp_path / "store")
    fill(store, tmp_path / "scratch", caption=HOSTILE + "m" * 300, url=HOSTILE + "w" * 5000)
    where = write_report(store)
    with browser(tmp_path / "profile") as tab:
        tab.open(Path(where).as_uri(), width, dark)
        assert tab.ask("innerWidth") == width
        tab.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert tab.ask("document.documentElement.scrollWidth") == width
        assert tab.ask("document.images.length") == 5
        assert tab.ask("[...document.images].every(one => one.complete && one.naturalWidth === 256)")
        assert tab.ask("document.querySelectorAll('script').length") == 0
        light = sum(map(int, re.findall(r"\d+", tab.ask("getComputedStyle(document.body).backgroundColor"))[:3])) / 3
        assert (light < 80) == dark, "the style sheet is let through by the policy"
        assert tab.complaints == []


@pytest.mark.slow
@pytest.mark.skipif(BINARY is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_the_browser_would_complain(tmp_path: Path) -> None:
    """The test above can fail: a style that the policy refuses and a line too wide are noticed."""
    page = tmp_path / "bad.html"
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    page.write_text(f"<!DOCTYPE html>{policy}<style>p {{ color: red }}</style><pre>{'w' * 1000}</pre>")
    with browser(tmp_path / "profile") as tab:
        tab.open(page.as_uri(), 390)
        assert tab.ask("document.documentElement.scrollWidth") > 390
        assert any("style" in one for one in tab.complaints)
