"""How far a picture is measured: no further than it stands, and the kept ones are the same either way."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from curation.judge import JPEG_QUALITY, MetricThreshold, Thresholds
from curation.measure import Scale, measure, promised
from curation.records import Header, Link, Reason, Row
from curation.scorers.panel import Panel
from curation.scorers.protocol import Measure, Unmeasurable


class Statistics(Panel):
    """Real statistics of the luma under made-up names; counts what was computed."""

    def __init__(self) -> None:
        super().__init__({})
        self._metrics = ("contrast", "mean", "fussy")
        self.computed: list[str] = []

    def measure(self, pixels: np.ndarray, sure: Sequence[str]) -> Measure:
        def by(metric: str) -> float:
            self.computed.append(metric)
            if metric == "fussy" and pixels.shape[1] % 2:
                raise Unmeasurable("an odd width")
            return float({"contrast": pixels.std(), "mean": pixels.mean(), "fussy": 1.0}[metric])

        return by


BOUNDS = (
    MetricThreshold(metric=JPEG_QUALITY, bound=50.0, lower_better=False),
    MetricThreshold(metric="contrast", bound=20.0, lower_better=False),
    MetricThreshold(metric="mean", bound=140.0, lower_better=True),
    MetricThreshold(metric="fussy", bound=2.0, lower_better=True),
)
SCALE = Scale(thresholds=Thresholds(min_res=100, metrics=BOUNDS), max_pixels=1 << 20, cascade=True)


def jpeg(spread: float, middle: float, quality: int = 90, width: int = 128) -> bytes:
    noise = np.random.default_rng(7).normal(middle, spread, (128, width, 1))
    image = Image.fromarray(np.repeat(noise.clip(0, 255).astype(np.uint8), 3, 2)).filter(ImageFilter.GaussianBlur(0.5))
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def rows(count: int) -> Iterator[Row]:
    for n in range(count):
        link = Link(position=n, key=f"{n:016x}", url=f"http://a.example/{n}.jpg", source="test")
        yield Row(link=link, reason=Reason.NOT_MEASURED)


BODIES = (
    jpeg(60, 128),
    jpeg(60, 128, quality=30),
    jpeg(12, 128),
    jpeg(60, 190),
    jpeg(60, 128, width=129),
    jpeg(60, 128, width=90),
    b"no picture",
)


def test_the_first_vote_against_is_the_last_metric_computed() -> None:
    panel = Statistics()
    seen = measure(list(rows(4)), BODIES[:4], panel, SCALE)
    assert [set(row.scores) for row in seen] == [
        {JPEG_QUALITY, "contrast", "mean", "fussy"},
        {JPEG_QUALITY},
        {JPEG_QUALITY, "contrast"},
        {JPEG_QUALITY, "contrast", "mean"},
    ]
    assert panel.computed == ["contrast", "mean", "fussy", "contrast", "contrast", "mean"]
    assert [row.reason for row in seen] == [Reason.NOT_STORED] + [Reason.LOW_QUALITY] * 3
    assert seen[2].detail.endswith("not computed: mean, fussy")


def test_what_is_kept_does_not_depend_on_the_cascade() -> None:
    both = [
        measure(list(rows(len(BODIES))), BODIES, Statistics(), replace(SCALE, cascade=cascade))
        for cascade in (True, False)
    ]
    kept = [[row.link.key for row in seen if row.reason is Reason.NOT_STORED] for seen in both]
    assert kept[0] == kept[1] == [f"{0:016x}"]
    for short, full in zip(*both, strict=True):
        assert all(full.scores[metric] == score or math.isnan(score) for metric, score in short.scores.items())
    assert [len(row.scores) for row in both[1]] == [4, 4, 4, 4, 4, 1, 0]


@pytest.mark.parametrize("body", [BODIES[6], BODIES[1]])
def test_nothing_is_left_of_what_the_url_gave_before(body: bytes) -> None:
    [before] = measure(list(rows(1)), BODIES[:1], Statistics(), SCALE)
    [after] = measure([before], [body], Statistics(), SCALE)
    [anew] = measure(list(rows(1)), [body], Statistics(), SCALE)
    assert replace(after, seconds=0.0) == replace(anew, seconds=0.0)
    small = promised(before, Header(format="webp", width=9, height=8, orientation=1), SCALE.thresholds)
    assert (small.width, small.height, small.format, small.scores) == (9, 8, "webp", {JPEG_QUALITY: 100.0})
    assert small.bytes is small.sha256 is small.phash is None


def test_a_metric_without_a_number_ends_it() -> None:
    [row] = measure(list(rows(1)), BODIES[4:5], Statistics(), SCALE)
    assert (row.reason, row.detail) == (Reason.UNSCORABLE, "fussy: an odd width")
    assert math.isnan(row.scores["fussy"])


def test_scores_are_what_the_ledger_can_hold() -> None:
    [row] = measure(list(rows(1)), BODIES[:1], Statistics(), SCALE)
    assert all(float(np.float32(score)) == score for score in row.scores.values())


@pytest.mark.parametrize("cascade", [True, False])
def test_nothing_is_scored_of_what_is_too_small_or_no_picture(cascade: bool) -> None:
    panel = Statistics()
    seen = measure(list(rows(2)), BODIES[5:], panel, replace(SCALE, cascade=cascade))
    assert [row.reason for row in seen] == [Reason.TOO_SMALL, Reason.NOT_AN_IMAGE]
    assert panel.computed == []
