"""What the report is made from: bounded counts that no order changes, charts, and sheets of pictures."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation import ledger
from curation.judge import MetricThreshold
from curation.records import Link, Reason, Row, Stage
from curation.report import tally
from curation.report.charts import ticks
from curation.report.histogram import Histogram
from curation.report.mosaic import TILE, mosaic
from curation.report.parts import share, size
from curation.report.tally import EXAMPLES, PICTURE_UNITS, PICTURES, Hosts, Tally, host_names
from curation.report.timeline import Timeline
from curation.thumbnails import thumbnail
from tests.curation.test_report import METRICS, THRESHOLDS, gone, scored


def test_each_reason_shows_a_few_rows_drawn_alike_in_every_order() -> None:
    rows = [gone(at) for at in range(200)]
    forwards, backwards = Tally(THRESHOLDS), Tally(THRESHOLDS)
    forwards.add("chunk-00000000", part(rows))
    backwards.add("chunk-00000000", part(rows[::-1]))
    drawn_rows = forwards.examples[Reason.HTTP_NOT_FOUND].items
    assert drawn_rows == backwards.examples[Reason.HTTP_NOT_FOUND].items
    assert [row.link.key for row in drawn_rows] == sorted(row.link.key for row in rows)[:EXAMPLES]


def test_pictures_come_from_few_units_as_evenly_as_can_be() -> None:
    tally = Tally(THRESHOLDS)
    for unit in range(100):
        tally.add(f"chunk-{unit:08d}", part([scored(unit * 10 + at, 3.0, 5.0) for at in range(10)]))
    shown = tally.shown()
    assert len(shown) == PICTURE_UNITS
    assert [len(rows) for _, rows in shown] == [PICTURES // PICTURE_UNITS] * PICTURE_UNITS
    few = Tally(THRESHOLDS)
    few.add("chunk-00000000", part([scored(at, 3.0, 5.0) for at in range(100)]))
    few.add("chunk-00000001", part([scored(at, 3.0, 5.0) for at in range(100, 105)]))
    assert sorted(len(rows) for _, rows in few.shown()) == [5, PICTURES - 5]


@pytest.mark.parametrize("lower_better", [True, False])
@pytest.mark.parametrize("bound", [5.5, 0.3, -2.0, 0.0, 45.0])
def test_a_histogram_parts_scores_exactly_at_the_threshold(lower_better: bool, bound: float) -> None:
    threshold = MetricThreshold(metric="m", bound=bound, lower_better=lower_better)
    generator = random.Random(1)
    close = [bound, math.nextafter(bound, math.inf), math.nextafter(bound, -math.inf)]
    scores = close + [float(np.float32(bound + generator.gauss(0, 3))) for _ in range(3000)]
    made = [Histogram(threshold), Histogram(threshold)]
    for histogram, order in zip(made, (scores, scores[::-1]), strict=True):
        put(histogram, [*order, math.nan, math.inf], threshold.passes)
    bars = made[0].bars()
    assert made[0].passing == sum(map(threshold.passes, scores))
    assert made[0].total == len(scores) == sum(bar.kept + bar.others for bar in bars)
    assert made[0].missing == 2
    for bar in bars:
        passes = bar.high <= bound if lower_better else bar.low >= bound
        assert (bar.others if passes else bar.kept) == 0
    assert bars == made[1].bars()
    assert made[0].quantile(0.5) == pytest.approx(np.median(scores), abs=0.02)


def test_a_histogram_of_a_hundred_thousand_scores_stays_small_in_any_order() -> None:
    threshold = MetricThreshold(metric="m", bound=1.0, lower_better=True)
    scores = np.random.default_rng(3).lognormal(2, 2, 100_000).tolist()
    made = [Histogram(threshold), Histogram(threshold)]
    for histogram, order in zip(made, (scores, sorted(scores)), strict=True):
        for at in range(0, len(order), 1000):
            put(histogram, order[at : at + 1000])
    assert made[0].bars() == made[1].bars()
    assert len(made[0]._bins) <= 4096
    assert 10 <= len(made[0].bars()) <= 42


@pytest.mark.parametrize("bound", [1.0, 20.0])
def test_the_threshold_is_in_the_chart_where_all_scores_lie_on_one_side_of_it(bound: float) -> None:
    histogram = Histogram(MetricThreshold(metric="m", bound=bound, lower_better=True))
    put(histogram, np.linspace(5, 8, 50).tolist())
    assert histogram.bars()[0].low < bound < histogram.bars()[-1].high


def test_an_outlier_does_not_squeeze_the_chart() -> None:
    histogram = Histogram(MetricThreshold(metric="m", bound=5.0, lower_better=True))
    put(histogram, [*np.linspace(3, 8, 50).tolist(), 1e9])
    assert histogram.bars()[-1].high < 100
    assert sum(bar.others for bar in histogram.bars()) == 51


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 151.0), (4.49, 4.52), (0, 170_000_000)])
def test_ticks_are_few_round_and_within(low: float, high: float) -> None:
    found = ticks(low, high, 5)
    assert 2 <= len(found) <= 6
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    assert all(len(f"{tick:.10g}".strip("-").replace(".", "").strip("0")) <= 3 for tick in found)


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(0, 9, "0 %"), (9, 9, "100 %"), (1, 10**6, "under 0.1 %"), (10**6 - 1, 10**6, "over 99.9 %"), (1, 3, "33.3 %")],
)
def test_a_share_is_only_nothing_or_everything_where_it_is(part: int, whole: int, said: str) -> None:
    assert share(part, whole) == said


def test_sizes_are_decimal() -> None:
    counts = (999, 1500, 2_000_000, 50 * 10**12)
    assert [size(count) for count in counts] == [
        "999 bytes",
        "1.5 kB",
        "2.0 MB",
        "50.0 TB",
    ]


def test_a_contact_sheet_has_each_picture_in_its_place() -> None:
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    pictures = [(np.full((40, 90, 3), colour, np.uint8), f"number {at}\nü → 漢") for at, colour in enumerate(colours)]
    sheet = np.asarray(Image.open(io.BytesIO(mosaic(pictures))).convert("RGB"))
    assert sheet.shape[1] > 3 * TILE and sheet.shape[0] > TILE + 30
    for at, colour in enumerate(colours):
        assert tuple(sheet[TILE // 2, at * (TILE + 8) + TILE // 2]) == colour
    assert sheet[TILE + 10 : TILE + 40, :TILE].min() < 100, "its caption is there"
    assert mosaic(pictures) == mosaic(pictures)
    with pytest.raises(ValueError, match="at least one"):
        mosaic([])


def test_a_thumbnail_is_the_middle_square() -> None:
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, 100:200] = 255
    assert thumbnail(pixels, 50).min() >= 250


def test_time_is_cut_into_few_spans_in_any_order() -> None:
    moments = [1_700_000_000 + 37.0 * n for n in range(900)]
    timelines = []
    for order in (moments, moments[::-1], sorted(moments, key=lambda at: at % 7)):
        timeline = Timeline()
        rows = [timed(at, kept=at == moments[0]) for at in order]
        for at in range(0, len(rows), 100):
            timeline.add(part(rows[at : at + 100]))
        timelines.append((timeline.width, timeline.spans))
    assert timelines[0] == timelines[1] == timelines[2]
    width, spans = timelines[0]
    assert 30 <= len(spans) <= 60
    assert sum(span.rows for span in spans) == 900 and sum(span.bytes_read for span in spans) == 9000
    assert spans[0].kept == 1 and spans[0].start <= moments[0] < spans[0].start + width


def test_the_costliest_hosts_are_exact_and_the_cheapest_of_too_many_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "_MOST_HOSTS", 50)
    hosts = Hosts()
    for n in range(400):
        rows = part([row_of(f"http://h{n}.example/1", 1.0 + n), row_of("http://slow.example/1", 5.0)])
        hosts.add(host_names(rows), rows)
    assert [name for name, _ in hosts.slowest(2)] == ["slow.example", "h399.example"]
    assert hosts.slowest(1)[0][1].rows == 400
    assert len(hosts.slowest(1000)) <= 101


def part(rows: Sequence[Row]) -> pa.Table:
    return ledger.table(rows, METRICS)


def put(histogram: Histogram, scores: Sequence[float], kept: Callable[[float], bool] = lambda score: False) -> None:
    histogram.add(np.array(scores), np.array([kept(score) for score in scores], bool))


def timed(ended: float, kept: bool) -> Row:
    row = replace(row_of("http://a.example/1", 1.0), ended=ended, bytes_read=10)
    return replace(row, reason=Reason.KEPT, stage=Stage.KEPT) if kept else row


def row_of(url: str, seconds: float) -> Row:
    link = Link(position=0, key="0" * 16, url=url, source="test")
    return Row(link=link, seconds=seconds, reason=Reason.HTTP_NOT_FOUND, stage=Stage.FETCH)
