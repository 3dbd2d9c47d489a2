"""The page of a calibration: how far the metrics part good from bad, the bounds, and every picture they get wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from curation.calibrate import Cost, LedgerScores, Line, Scores, areas, auc, distribution, passing, roc
from curation.judge import MetricThreshold
from curation.report.curves import mirrored, roc_curves
from curation.report.markup import Html, element, joined
from curation.report.parts import counted, document, duration, embedded, number, section, share, table

SHOWN: Final = 48  # wrongly judged pictures of each sort


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrong:
    """A picture on the wrong side, and the scores that put it there."""

    name: str
    group: str
    scores: Mapping[str, float]
    against: tuple[str, ...]  # metrics that vote against it
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """All that the page says. `folders` and `ledger`: what was scored; at least one is there."""

    wish: str
    thresholds: tuple[MetricThreshold, ...]
    lines: tuple[Line, ...]
    costs: tuple[Cost, ...] = ()
    folders: Scores | None = None
    ledger: LedgerScores | None = None
    refused: tuple[Wrong, ...] = ()  # good ones
    passed: tuple[Wrong, ...] = ()  # bad ones
    left_out: tuple[tuple[str, str], ...] = ()  # file, why it has no scores


def page(findings: Findings) -> bytes:
    """The whole document."""
    parts = [_opening(findings), _metrics(findings), _confusion(findings)]
    if findings.folders is not None:
        parts.append(_areas(findings, findings.folders))
        parts.append(_costs(findings.costs))
        parts.append(_wall("refused", "Good pictures it refuses", findings.refused))
        parts.append(_wall("passed", "Bad pictures it lets through", findings.passed))
        parts.append(_left_out(findings.left_out))
    return document("Calibration", element("main", *parts))


def _opening(findings: Findings) -> Html:
    rules = "; ".join(map(str, findings.thresholds))
    return joined(
        element("p", "Million-IRD · thresholds", class_="eyebrow"),
        element("h1", "Calibration"),
        element("p", f"Bounds that {findings.wish} pass, all metrics together: {rules}.", class_="lead"),
        *(element("p", text, class_="warning") for text in _warnings(findings)),
        _figures(findings),
    )


def _warnings(findings: Findings) -> Iterator[str]:
    known = findings.ledger
    if known is not None and known.partly:
        yield (
            f"{counted(known.partly, 'row')} of the ledger have some of these metrics and not all, since the filter "
            "stopped at one that voted against. They count as refused: a bound looser than the filter's own would "
            "keep more than is said here."
        )


def _figures(findings: Findings) -> Html:
    said = {True: "Good pictures", False: "Bad pictures", None: "Rows of the ledger"}
    cards = []
    for good, title in said.items():
        lines = [line for line in findings.lines if line.good is good]
        pictures, together = sum(line.pictures for line in lines), sum(line.together for line in lines)
        if lines:
            cards.append((title, f"{pictures:,}", f"{together:,} pass, {share(together, pictures)}"))
    if findings.costs:
        cost = 1000 * sum(one.per_megapixel for one in findings.costs)
        cards.append(("Cost", f"{cost:.0f} ms", "a megapixel, all metrics, one core"))
    boxes = [element("div", element("dt", n), element("dd", v, element("small", s))) for n, v, s in cards]
    return element("dl", *boxes, class_="figures")


def _metrics(findings: Findings) -> Html:
    legend = element(
        "p",
        element("span", element("i", class_="key kept"), "good, upwards"),
        element("span", element("i", class_="key bad"), "bad, downwards"),
        class_="note legend",
    )
    if findings.folders is None or findings.folders.good is None:
        return joined()
    cards = [_metric(findings.folders, findings.folders.good, one) for one in findings.thresholds]
    explained = (
        "Above: shares of the good and of the bad pictures by score; the tinted side passes. Below: what each bound "
        "would let pass, against all bad pictures and (thin) against each group; the dot is the bound chosen, the "
        "diagonal a metric that sees nothing."
    )
    return section(
        "metrics", "How far each metric parts them", explained, legend, element("div", *cards, class_="cards two")
    )


def _metric(scores: Scores, good: np.ndarray, threshold: MetricThreshold) -> Html:
    values = scores.of(threshold.metric)
    title = element("h3", threshold.metric, element("small", _better(threshold)))
    if np.isnan(values).all():
        return element("section", title, element("p", "No picture has this score.", class_="note"), class_="card")
    charts = [mirrored(values[good], values[~good], threshold)]
    sides = {"Good": values[good], "Bad": values[~good]}
    said = " ".join(f"{name}: {_described(side, threshold)}." for name, side in sides.items() if len(side))
    if good.any() and not good.all():
        charts.append(_curves(scores, good, threshold))
    return element("section", title, *charts, element("p", said, class_="note"), class_="card")


def _curves(scores: Scores, good: np.ndarray, threshold: MetricThreshold) -> Html:
    """All bad pictures' curve, and each group's."""
    badness = scores.badness[:, [one.name for one in scores.metrics].index(threshold.metric)]
    groups = {str(group): badness[~good & (scores.groups == group)] for group in dict.fromkeys(scores.groups[~good])}
    thin = {f"{name}, area {auc(badness[good], bad):.3f}": roc(badness[good], bad) for name, bad in groups.items()}
    passes = passing(scores, [threshold])[:, 0]
    at = (float(passes[~good].mean()), float(passes[good].mean()))
    return roc_curves(roc(badness[good], badness[~good]), thin, at, f"ROC curves of {threshold.metric}")


def _better(threshold: MetricThreshold) -> str:
    return f" {'lower' if threshold.lower_better else 'higher'} is better"


def _described(values: np.ndarray, threshold: MetricThreshold) -> str:
    found = distribution(values)
    low, _, middle, _, high = (number(one) for one in found.quantiles)
    missing = f", {found.missing} without a number" if found.missing else ""
    passes = sum(threshold.passes(value) for value in values.tolist())
    return f"{share(passes, len(values))} pass; median {middle}, nine in ten from {low} to {high}{missing}"


def _confusion(findings: Findings) -> Html:
    metrics = [one.metric for one in findings.thresholds]
    rows = [
        (
            f"{line.group}{_LABELS[line.good]}",
            f"{line.pictures:,}",
            *(share(line.passing[metric], line.pictures) for metric in metrics),
            f"{share(line.together, line.pictures)}",
        )
        for line in findings.lines
    ]
    explained = "Of each group, the share that passes each metric, and the share that passes all of them."
    head = ("Group", "Pictures", *metrics, "All")
    wide = tuple(range(2, 2 + len(metrics)))
    return section("groups", "What passes", explained, table(head, rows, "sources", wide=wide))


_LABELS: Final = {True: " (good)", False: "", None: " (ledger)"}


def _areas(findings: Findings, scores: Scores) -> Html:
    metrics = [one.metric for one in findings.thresholds]
    rows = [(group, *(f"{by_metric[metric]:.2f}" for metric in metrics)) for group, by_metric in areas(scores).items()]
    explained = (
        "The area under each curve: the chance that a metric puts a good picture before one of the group. 1 is always, "
        "0.5 is by luck; less means that it likes the bad ones better."
    )
    head = ("Group", *(metric.replace("_", "_\u200b") for metric in metrics))  # may break there on a narrow screen
    return section("areas", "What each metric sees", explained, table(head, rows, "sources areas"))


def _costs(costs: Sequence[Cost]) -> Html:
    rows = [
        (
            cost.metric,
            f"{1000 * cost.per_megapixel:.1f}",
            share(cost.rejects, 1.0),
            duration(cost.per_rejection) if math.isfinite(cost.per_rejection) else "never",
        )
        for cost in costs
    ]
    explained = (
        "In the order of the recipe: what refuses a picture for the least time comes first, since a cascade stops at "
        "the first vote against. Times are one core's, each metric alone."
    )
    head = ("Metric", "ms a megapixel", "Refuses", "Time a refusal")
    return section("costs", "What it costs", explained, table(head, rows, "sources"))


def _wall(name: str, title: str, pictures: Sequence[Wrong]) -> Html:
    if not pictures:
        return section(name, title, "None.")
    shown = pictures[:SHOWN]
    which = "All of them" if len(shown) == len(pictures) else f"{len(shown)} of {len(pictures):,}"
    explained = f"{which}; the middle squares."
    return section(name, title, explained, element("div", *map(_figure, shown), class_="wall"))


def _figure(picture: Wrong) -> Html:
    scores = [
        joined(element("span", f"{metric} ", element("b", number(score)), class_=_vote(metric in picture.against)), " ")
        for metric, score in picture.scores.items()
    ]
    caption = element("figcaption", element("b", picture.group), " ", picture.name, element("br"), *scores)
    return element("figure", embedded(picture.jpeg, f"{picture.group} {picture.name}"), caption)


def _vote(against: bool) -> str:
    return "score against" if against else "score"


def _left_out(files: Sequence[tuple[str, str]]) -> Html:
    if not files:
        return section("left-out", "Files without scores", "None.")
    return section(
        "left-out",
        "Files without scores",
        "No pictures, broken ones, or too small for the filter: they count nowhere above.",
        table(("File", "Why"), files, "settings", numbers=False),
    )
