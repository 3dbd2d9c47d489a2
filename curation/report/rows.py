"""The sections that show single rows: nearly kept, examples of each reason, the slowest. All of it strangers' text."""

from __future__ import annotations

from curation.records import Reason, Row, Stage
from curation.report.markup import Html, element, joined, strangers
from curation.report.parts import duration, header_row, scored, section, size, tries
from curation.report.reasons import REASONS
from curation.report.survey import Survey
from curation.report.tally import Smallest, Tally, overshoot

_NONE = Html("")


def near(survey: Survey) -> Html:
    rows = survey.tally.near.items
    if not rows:
        return section("near", "Nearly kept", "No picture was refused by its scores.")
    head = header_row("Picture", "Against it", ("Beyond by", "n"))
    lines = [
        element(
            "tr",
            element("td", _who(row)),
            element("td", row.detail),
            element("td", f"{100 * overshoot(survey.thresholds, row):.1f} %", class_="n"),
        )
        for row in rows
    ]
    explained = "Refused by score alone, the closest to the thresholds first: what slightly looser ones would let in."
    return section("near", "Nearly kept", explained, rowstable(head, lines))


def examples(tally: Tally) -> Html:
    counts = {reason: sum(tally.rows[stage, reason] for stage in Stage) for reason in Reason}
    groups = [
        _example_group(reason, counts[reason], examples, tally)
        for reason, examples in tally.examples.items()
        if examples.items
    ]
    explained = (
        "A few rows for each reason, drawn by hash. Links are shown as text, on purpose: nobody vouches for them."
    )
    return section("examples", "Examples of what was refused", explained, *groups)


def _example_group(reason: Reason, count: int, examples: Smallest[Row], tally: Tally) -> Html:
    head = header_row("Link", "What was found", "Scores")
    thresholds = Thresholds(metrics=tuple(one.threshold for one in tally.histograms.values()))
    lines = [
        element(
            "tr",
            element("td", _who(row)),
            element("td", strangers(row.detail), _measured(row)),
            element("td", scored(row, thresholds)),
        )
        for row in examples.items
    ]
    title = element(
        "summary",
        element("code", reason.value),
        element("span", f"{len(lines)} of {count:,}", class_="note"),
    )
    return element("details", title, element("p", REASONS[reason], class_="note"), rowstable(head, lines))


def slow(tally: Tally) -> Html:
    head = header_row("Link", "Ended as", ("Time", "n"))
    lines = [
        element(
            "tr",
            element("td", _who(row)),
            element("td", element("code", row.reason.value), element("div", tries(row.attempts), class_="note")),
            element("td", duration(row.seconds), class_="n"),
        )
        for row in tally.slow.items
        if row.seconds > 0
    ]
    explained = "Download, decoding and scoring together."
    return section("slow", "Slowest rows", explained, rowstable(head, lines))


def _who(row: Row) -> Html:
    """A row's link, and its caption if it has one: text, not a link."""
    caption = element("div", strangers(row.link.caption, 160), class_="note") if row.link.caption else _NONE
    return joined(element("div", strangers(row.link.url), class_="url mono"), caption)


def _measured(row: Row) -> Html:
    if row.width is None or row.height is None:
        return _NONE
    return element("div", f"{row.width} × {row.height}, {size(row.bytes or 0)}", class_="note")
