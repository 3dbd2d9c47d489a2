"""Charts of a calibration: good above bad by score, and what a bound trades. Inline SVG, as in `charts`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from curation.calibrate import Roc
from curation.judge import MetricThreshold
from curation.report.charts import ticks
from curation.report.markup import Html, element, joined

_WIDTH: Final = 360
_HEIGHT: Final = 230
_LEFT: Final = 46
_RIGHT: Final = 346  # room for half a number
_TOP: Final = 28
_BASE: Final = 204
_MIDDLE: Final = (_TOP + _BASE) / 2
_BINS: Final = 40
_SIDE: Final = 170  # of a ROC's square


def mirrored(good: np.ndarray, bad: np.ndarray, threshold: MetricThreshold) -> Html:
    """Shares of the good pictures' scores upwards and of the bad ones' downwards; (n,) float64 each, not all NaN.

    The outermost bars also hold what lies beyond them.
    """
    low, high = _span(np.concatenate([good, bad]), threshold.bound)
    edges = np.linspace(low, high, _BINS + 1)
    up, down = (_shares(side, edges) for side in (good, bad))
    tallest = max(up.max(), down.max())
    return element(
        "svg",
        _passing_side(threshold, low, high),
        _shares_scale(tallest),
        *(_bar(edges[at], edges[at + 1], up[at], down[at], (low, high, tallest)) for at in range(_BINS)),
        _scores_scale(low, high),
        _mark(threshold, low, high),
        class_="chart",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{threshold.metric} of good pictures above and of bad pictures below, {threshold}",
    )


def roc_curves(bold: Roc, thin: Mapping[str, Roc], at: tuple[float, float], said: str) -> Html:
    """Good pictures that pass over bad ones that pass; `at` is the threshold's pair of shares, (bad, good)."""
    return element(
        "svg",
        *(_roc_lines(share) for share in (0.0, 0.5, 1.0)),
        element("line", class_="chance", x1=_across(0), y1=_up(0), x2=_across(1), y2=_up(1)),
        *(_curve(curve, "roc thin", name) for name, curve in thin.items()),
        _curve(bold, "roc", "all bad pictures"),
        element("circle", class_="at", cx=_across(at[0]), cy=_up(at[1]), r=5),
        element("text", "bad that passes", class_="tick", x=_across(0.5), y=_BASE + 20, text_anchor="middle"),
        element("text", "good that passes", class_="tick", x=_across(0), y=_up(1) - 14, text_anchor="middle"),
        class_="chart",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=said,
    )


def _curve(curve: Roc, class_: str, name: str) -> Html:
    points = " ".join(f"{_across(b):.1f},{_up(g):.1f}" for b, g in _corners(curve))
    return element("polyline", element("title", name), class_=class_, points=points)


def _corners(curve: Roc) -> list[tuple[float, float]]:
    """The curve's points that are not on a straight line between their neighbours."""
    pairs = list(zip(curve.bad.tolist(), curve.good.tolist(), strict=True))
    kept = [pairs[0]]
    for before, here, after in zip(pairs, pairs[1:], pairs[2:], strict=False):
        turn = (here[0] - before[0]) * (after[1] - here[1]) - (here[1] - before[1]) * (after[0] - here[0])
        if abs(turn) > 1e-12:
            kept.append(here)
    return [*kept, pairs[-1]]


def _across(share: float) -> float:
    return (_WIDTH - _SIDE) / 2 + _SIDE * share


def _up(share: float) -> float:
    return _BASE - _SIDE * share


def _roc_lines(share: float) -> Html:
    text = f"{100 * share:.0f} %"
    return joined(
        element("line", class_="grid", x1=_across(0), x2=_across(1), y1=_up(share), y2=_up(share)),
        element("line", class_="grid", x1=_across(share), x2=_across(share), y1=_up(0), y2=_up(1)),
        element("text", text, class_="tick", x=_across(0) - 6, y=_up(share) + 4, text_anchor="end"),
    )


def _span(scores: np.ndarray, bound: float) -> tuple[float, float]:
    """First and last score to show: nearly all of them, and the bound with room at both sides."""
    low, high = np.nanquantile(scores, (0.005, 0.96))
    room = max(high - low, abs(bound) * 0.2, 1e-6) * 0.06
    return float(min(low, bound - 3 * room)), float(max(high, bound + 3 * room))


def _shares(scores: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(_BINS,) float64: of all `scores`, those without a number included, the share in each bin."""
    inside = np.clip(scores[~np.isnan(scores)], edges[0], edges[-1])
    return np.histogram(inside, edges)[0] / max(1, len(scores))


def _x(score: float, low: float, high: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * (score - low) / (high - low)


def _bar(left: float, right: float, good: float, bad: float, scale: tuple[float, float, float]) -> Html:
    low, high, tallest = scale
    size = {"x": _x(left, low, high) + 0.5, "width": _x(right, low, high) - _x(left, low, high) - 1}
    unit = (_MIDDLE - _TOP) / tallest
    said = f"{left:.4g} to {right:.4g}: {100 * good:.1f} % of good, {100 * bad:.1f} % of bad"
    return element(
        "g",
        element("title", said),
        *([element("rect", class_="kept", y=_MIDDLE - good * unit, height=good * unit, **size)] if good else []),
        *([element("rect", class_="bad", y=_MIDDLE, height=bad * unit, **size)] if bad else []),
    )


def _passing_side(threshold: MetricThreshold, low: float, high: float) -> Html:
    at = _x(threshold.bound, low, high)
    left, right = (_LEFT, at) if threshold.lower_better else (at, _RIGHT)
    return element("rect", class_="passing", x=left, y=_TOP, width=right - left, height=_BASE - _TOP)


def _shares_scale(tallest: float) -> Html:
    lines: list[Html] = []
    for share in [one for one in ticks(0, 100 * tallest, 2) if one > 0]:
        for y in (
            _MIDDLE - share / 100 / tallest * (_MIDDLE - _TOP),
            _MIDDLE + share / 100 / tallest * (_BASE - _MIDDLE),
        ):
            lines.append(element("line", class_="grid", x1=_LEFT, x2=_RIGHT, y1=y, y2=y))
            lines.append(element("text", f"{share:g} %", class_="tick", x=_LEFT - 6, y=y + 4, text_anchor="end"))
    return joined(*lines)


def _scores_scale(low: float, high: float) -> Html:
    marks = [
        element("text", f"{score:.10g}", class_="tick", x=_x(score, low, high), y=_BASE + 18, text_anchor="middle")
        for score in ticks(low, high, 5)
    ]
    return joined(element("line", class_="base", x1=_LEFT, x2=_RIGHT, y1=_MIDDLE, y2=_MIDDLE), *marks)


def _mark(threshold: MetricThreshold, low: float, high: float) -> Html:
    at = _x(threshold.bound, low, high)
    left = at < _WIDTH / 2
    place = {"x": at + (5 if left else -5), "y": _TOP - 10, "text_anchor": "start" if left else "end"}
    text = f"passes at {threshold.bound:g} or {'less' if threshold.lower_better else 'more'}"
    return joined(
        element("line", class_="threshold", x1=at, x2=at, y1=_TOP - 8, y2=_BASE),
        element("text", text, class_="bound", **place),
    )
