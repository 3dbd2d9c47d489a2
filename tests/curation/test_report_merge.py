"""Tallies of parts of a ledger, merged, are the tally of the whole; and what is counted by columns is what rows say."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import ledger, settle
from curation.records import Link, Reason, Row, Stage, url_key
from curation.report import PAGE, histogram, write_report
from curation.report.histogram import Histogram
from curation.report.tally import EXAMPLES, NEAR, PAIRS, SLOW, Host, Tally, host_names, overshoot
from shards.store import LocalStore
from tests.curation.test_report import ABOUT, METRICS, THRESHOLDS, fill, gone, scored

HOSTS = ("a.example", "B.example:80", "[::1]", "me:x@c.example", "[broken")
SCORES = (
    st.sampled_from([math.nan, math.inf, 4.5, 5.5])
    | st.floats(-(2.0**126), 2.0**126, width=32)
    | st.floats(0, 9, width=32)
)
COUNTS = st.none() | st.integers(0, 1 << 40)


@st.composite
def rows(draw: st.DrawFn, position: int) -> Row:
    """Anything that a ledger may hold."""
    url = f"http://{draw(st.sampled_from(HOSTS))}/{position}"
    link = Link(position=position, key=url_key(url), url=url, source=draw(st.sampled_from(["one", "two"])))
    return Row(
        link=link,
        width=draw(st.none() | st.integers(0, 9000)),
        height=draw(st.none() | st.integers(0, 9000)),
        bytes=draw(COUNTS),
        format=draw(st.sampled_from([None, "jpeg", "png"])),
        phash=draw(st.sampled_from([None, "0" * 16])),
        scores={metric: draw(SCORES) for metric in METRICS if draw(st.booleans())},
        reason=draw(st.sampled_from([Reason.KEPT, Reason.LOW_QUALITY, *Reason])),
        stage=draw(st.sampled_from(list(Stage))),
        seconds=draw(st.floats(0, 100, width=32)),
        bytes_read=draw(st.integers(0, 1 << 40)),
        bytes_spared=draw(st.integers(0, 1 << 40)),
        ended=draw(st.just(0.0) | st.floats(1e9, 2e9)),
    )


@st.composite
def parts(draw: st.DrawFn) -> list[list[Row]]:
    """The rows of a few ledger parts."""
    sizes = draw(st.lists(st.integers(0, 12), min_size=1, max_size=6))
    positions = iter(range(sum(sizes)))
    return [[draw(rows(next(positions))) for _ in range(size)] for size in sizes]


def tallied(found: Sequence[tuple[str, list[Row]]]) -> Tally:
    tally = Tally(THRESHOLDS)
    for unit, said in found:
        tally.add(unit, ledger.table(said, METRICS))
    return tally


def figures(tally: Tally) -> dict[str, Any]:
    """All that a page can show of it. As text: a NaN isn't itself."""
    shown = {
        "rows": sorted(tally.rows.items()),
        "answered": tally.answered,
        "histograms": [_histogram(one) for one in tally.histograms.values()],
        "examples": {reason: ranked.items for reason, ranked in tally.examples.items()},
        "near": tally.near.items,
        "slow": tally.slow.items,
        "duplicates": tally.duplicates.items,
        "hosts": (tally.hosts.slowest(99), tally.hosts.most_failed(99)),
        "timeline": (tally.timeline.width, tally.timeline.spans),
        "volumes": (tally.by_header, tally.downloaded, tally.kept),
        "named": [sorted(volumes.items()) for volumes in (tally.formats, tally.kept_of)],
        "counters": [sorted(counter.items()) for counter in (tally.sides, tally.links)],
        "sums": (tally.decoded, tally.bytes_read, tally.seconds, tally.units),
        "shown": tally.shown(),
    }
    return {name: repr(value) for name, value in shown.items()}


def _histogram(one: Histogram) -> tuple[Any, ...]:
    known = (one.missing, one.total, one.passing)
    return (*known, one.bars(), one.quantile(0.5)) if one.total else known


@settings(deadline=None, max_examples=25)
@given(parts(), st.data())
def test_tallies_of_any_split_merged_are_the_tally_of_one_pass(made: list[list[Row]], data: st.DataObject) -> None:
    units = [(f"chunk-{number:08d}", said) for number, said in enumerate(made)]
    who = [data.draw(st.integers(0, 2)) for _ in units]
    merged = Tally(THRESHOLDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(histogram, "_MOST_BINS", 6)  # so that few scores make widths differ
        for taker in data.draw(st.permutations(range(3))):
            taken = [one for one, by in zip(units, who, strict=True) if by == taker]
            merged.merge(pickle.loads(pickle.dumps(tallied(taken))))
        assert figures(merged) == figures(tallied(units))


@settings(deadline=None, max_examples=25)
@given(parts())
def test_what_is_counted_by_columns_is_what_the_rows_say(made: list[list[Row]]) -> None:
    tally = tallied([(f"chunk-{number:08d}", said) for number, said in enumerate(made)])
    every = [row for said in made for row in said]
    kept = [row for row in every if row.reason is Reason.KEPT]
    assert tally.rows == Counter((row.stage, row.reason) for row in every)
    assert tally.links == Counter(row.link.source for row in every)
    assert tally.seconds == pytest.approx(sum(row.seconds for row in every), abs=1e-4)
    assert tally.bytes_read == sum(row.bytes_read for row in every)
    assert tally.decoded == sum(row.phash is not None for row in every)
    by_header = [r for r in every if r.bytes is None and (r.width is not None or r.stage is Stage.DECODE)]
    assert asdict(tally.by_header) == {"rows": len(by_header), "bytes": sum(row.bytes_spared for row in by_header)}
    assert asdict(tally.kept) == {"rows": len(kept), "bytes": sum(row.bytes or 0 for row in kept)}
    assert asdict(tally.downloaded)["rows"] == sum(row.bytes is not None for row in every)
    assert sum(tally.sides.values()) == len(kept) == sum(volume.rows for volume in tally.formats.values())
    for metric, known in tally.histograms.items():
        scores = [row.scores[metric] for row in every if metric in row.scores]
        assert known.missing == sum(not math.isfinite(score) for score in scores)
        passing = [score for score in scores if math.isfinite(score) and known.threshold.passes(score)]
        assert (known.total + known.missing, known.passing) == (len(scores), len(passing))
    timed = [row for row in every if row.ended]
    assert sum(span.rows for span in tally.timeline.spans) == len(timed)
    assert sum(span.kept for span in tally.timeline.spans) == sum(row.reason is Reason.KEPT for row in timed)


@given(st.text("htp:/?#@[].\\ %a1\t\n\0é℀", max_size=20), st.sampled_from(["", "http://", "//", "http://a.b"]))
def test_hosts_are_those_of_the_standard_library(text: str, start: str) -> None:
    try:
        expected = urlsplit(start + text).hostname or "none"
    except ValueError:
        expected = "none"
    assert host_names(pa.table({"url": [start + text]})).to_pylist() == [expected]


@settings(deadline=None, max_examples=25)
@given(parts())
def test_the_rows_shown_are_those_of_lowest_rank(made: list[list[Row]]) -> None:
    tally = tallied([(f"chunk-{number:08d}", said) for number, said in enumerate(made)])
    every = sorted((row for said in made for row in said), key=lambda row: row.link.key)
    assert keys(tally.slow.items) == keys(sorted(every, key=lambda row: -row.seconds)[:SLOW])
    assert keys([row for _, row in tally.duplicates.items]) == keys(
        [row for row in every if row.stage is Stage.DUPLICATES][:PAIRS]
    )
    for reason in set(Reason) - {Reason.KEPT}:
        assert keys(tally.examples[reason].items) == keys([row for row in every if row.reason is reason][:EXAMPLES])
    low = [row for row in every if row.reason is Reason.LOW_QUALITY]
    ranked = sorted((overshoot(THRESHOLDS, row.scores), row.link.key) for row in low)
    assert keys(tally.near.items) == [key for beyond, key in ranked if math.isfinite(beyond)][:NEAR]


def keys(found: Sequence[Row]) -> list[str]:
    return [row.link.key for row in found]


def test_merging_leaves_the_other_as_it_was_and_shares_nothing_with_it() -> None:
    one = Row(link=Link(position=0, key="0" * 16, url="http://a.example/", source="one"), bytes=7, seconds=1.0)
    mine, other = Tally(THRESHOLDS), tallied([("chunk-00000000", [one])])
    before = figures(other)
    mine.merge(other)
    mine.merge(other)
    assert figures(other) == before
    assert mine.hosts.slowest(1) == [("a.example", Host(rows=2, seconds=2.0))]
    assert mine.kept_of["one"].bytes == 14


def test_the_page_of_several_groups_is_that_of_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path / "store")
    fill(store, tmp_path / "scratch")
    for number in range(2, 9):
        rows = [replace(gone(number * 20 + at), ended=1.7e9 + 1000.0 * number + at) for at in range(20)]
        ledger.write(store, f"chunk-{number:08d}", rows, METRICS, ABOUT if number % 3 else {**ABOUT, "weights": {}})
    write_report(store)
    page = store.read(PAGE)
    assert b"2 chunks were judged by another recipe" in page
    for size in (1, 2, 5):
        monkeypatch.setattr(settle, "GROUP", size)
        store.delete(PAGE)
        write_report(store)
        assert store.read(PAGE) == page


def test_a_tally_is_small_however_many_rows_it_is_of() -> None:
    sizes = [len(pickle.dumps(tallied([_part(number) for number in range(parts)]))) for parts in (20, 60)]
    assert sizes[1] < 1.05 * sizes[0] < 300_000


def _part(number: int) -> tuple[str, list[Row]]:
    rows = [
        scored(at, 3.0 + at % 100 / 16, 5.0, url=f"http://a/{at}") for at in range(100 * number, 100 * number + 100)
    ]
    return f"chunk-{number:08d}", rows
