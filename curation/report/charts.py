"""Charts as inline SVG, without a script: colours come from the page's style sheet, so that they follow its theme.

Drawn 360 wide with letters of 12: on a telephone of 390 pixels they are still 11 high.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from curation.judge import MetricThreshold
from curation.report.histogram import Bar, Histogram
from curation.report.markup import Html, element, joined

_WIDTH: Final = 360
_HEIGHT: Final = 190
_LEFT: Final = 38
_RIGHT: Final = 354
_TOP: Final = 28
_BASE: Final = 166


def share_bar(share: float, class_: str = "") -> Html:
    """A bar over `share` (0 to 1) of its place's width; anything above nothing is seen."""
    filled = element("rect", class_=f"fill {class_}".strip(), width=max(100 * share, 0.4) if share else 0, height=8)
    track = element("rect", class_="track", width=100, height=8)
    box = {"viewBox": "0 0 100 8", "preserveAspectRatio": "none", "aria_hidden": "true"}
    return element("svg", track, filled, class_="bar", **box)


def histogram(data: Histogram) -> Html:
    """The scores of a metric, the kept rows among them, and where its threshold lies. Needs a score."""
    bars, threshold = data.bars(), data.threshold
    low, high = bars[0].low, bars[-1].high
    tallest = max(bar.kept + bar.others for bar in bars)
    label = f"{threshold.metric}: {data.passing} of {data.total} scores pass, {threshold}"
    return element(
        "svg",
        _passing_side(threshold, low, high),
        _grid(tallest),
        joined(*(_column(bar, low, high, tallest) for bar in bars)),
        _scale(low, high),
        _mark(threshold, low, high),
        class_="chart",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=label,
    )


def columns(values: Sequence[float], ends: tuple[str, str], said: Sequence[str], label: str) -> Html:
    """One column for each value, over an axis from one end to the other; `said` is each column's own text."""
    tallest = max(values) or 1.0
    width = (_RIGHT - _LEFT) / len(values)
    bars = [
        element(
            "g",
            element("title", text),
            element(
                "rect",
                class_="kept",
                x=_LEFT + at * width,
                width=max(0.5, width - 0.5),
                y=_y(v, tallest),
                height=_BASE - _y(v, tallest),
            ),
        )
        for at, (v, text) in enumerate(zip(values, said, strict=True))
    ]
    return element(
        "svg",
        joined(*(_line(value, tallest) for value in ticks(0, tallest, 3))),
        *bars,
        element("line", class_="base", x1=_LEFT, x2=_RIGHT, y1=_BASE, y2=_BASE),
        element("text", ends[0], class_="tick", x=_LEFT, y=_BASE + 18, text_anchor="start"),
        element("text", ends[1], class_="tick", x=_RIGHT, y=_BASE + 18, text_anchor="end"),
        class_="chart",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{label}: at most {tallest:.3g}",
    )


def _line(value: float, tallest: float) -> Html:
    y = _y(value, tallest)
    mark = element("text", f"{value:.3g}", class_="tick", x=_LEFT - 6, y=y + 4, text_anchor="end")
    return joined(element("line", class_="grid", x1=_LEFT, x2=_RIGHT, y1=y, y2=y), mark)


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """About `wanted` round numbers from `low` to `high`, both finite and `low` < `high`."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * at for at in range(first, math.floor(high / step + 1e-9) + 1)]


def _x(score: float, low: float, high: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * (score - low) / (high - low)


def _y(rows: float, tallest: float) -> float:
    return _BASE - (_BASE - _TOP) * rows / tallest


def _column(bar: Bar, low: float, high: float, tallest: int) -> Html:
    """Kept rows below, the others on top of them."""
    left, right = _x(bar.low, low, high), _x(bar.high, low, high)
    middle, top = _y(bar.kept, tallest), _y(bar.kept + bar.others, tallest)
    said = element("title", f"{bar.low:.4g} to {bar.high:.4g}: {bar.kept + bar.others:,} rows, {bar.kept:,} kept")
    size = {"x": left + 0.5, "width": max(0.5, right - left - 1)}
    return element(
        "g",
        said,
        *([element("rect", class_="others", y=top, height=middle - top, **size)] if bar.others else []),
        *([element("rect", class_="kept", y=middle, height=_BASE - middle, **size)] if bar.kept else []),
    )


def _passing_side(threshold: MetricThreshold, low: float, high: float) -> Html:
    at = _x(threshold.bound, low, high)
    left, right = (_LEFT, at) if threshold.lower_better else (at, _RIGHT)
    return element("rect", class_="passing", x=left, y=_TOP, width=right - left, height=_BASE - _TOP)


def _mark(threshold: MetricThreshold, low: float, high: float) -> Html:
    """The threshold, its number above it on the side that has the room."""
    at = _x(threshold.bound, low, high)
    left = at < _WIDTH / 2
    text = f"passes at {threshold.bound:g} or {'less' if threshold.lower_better else 'more'}"
    return joined(
        element("line", class_="threshold", x1=at, x2=at, y1=_TOP - 8, y2=_BASE),
        element("text", text, class_="bound", x=at + (5 if left else -5), y=_TOP - 10, text_anchor=_anchor(left)),
    )


def _anchor(start: bool) -> str:
    return "start" if start else "end"


def _grid(tallest: int) -> Html:
    lines: list[Html] = []
    for rows in _whole(ticks(0, tallest, 3)):
        y = _y(rows, tallest)
        lines.append(element("line", class_="grid", x1=_LEFT, x2=_RIGHT, y1=y, y2=y))
        lines.append(element("text", f"{rows:,}", class_="tick", x=_LEFT - 6, y=y + 4, text_anchor="end"))
    return joined(*lines)


def _whole(numbers: Sequence[float]) -> list[int]:
    """The counts among them: there are no half rows."""
    return [round(number) for number in numbers if abs(number - round(number)) < 1e-6]


def _scale(low: float, high: float) -> Html:
    marks = [
        element("text", f"{score:.10g}", class_="tick", x=_x(score, low, high), y=_BASE + 18, text_anchor="middle")
        for score in ticks(low, high, 5)
    ]
    base = element("line", class_="base", x1=_LEFT, x2=_RIGHT, y1=_BASE, y2=_BASE)
    return joined(base, *marks)
