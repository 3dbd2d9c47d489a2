"""The sections that show single rows: nearly kept, examples of each reason, the slowest. All of it strangers' text."""

from __future__ import annotations

from curation.records import Reason, Row, Stage
from curation.report.markup import Html, element, joined, strangers
from curation.report.parts import duration, header_row, rows_table, scored, section, share, size
from curation.report.reasons import REASONS
from curation.report.survey import Survey
from curation.report.tally import Tally, overshoot


def near(survey: Survey) -> Html:
    """Refused by score alone, the closest to the thresholds first."""
    rows = survey.tally.near.items
    if not rows:
        return section("near", "Nearly kept", "No picture was refused by its scores.")
    head = header_row("Picture", "Against it", ("Beyond by", "n"))
    lines = [
        element(
            "tr",
            element("td", _who(row)),
            element("td", strangers(row.detail)),
            element("td", share(overshoot(survey.thresholds, row.scores), 1), class_="n", data_label="Beyond by"),
        )
        for row in rows
    ]
    explained = "Refused by score alone, the closest to the thresholds first: what slightly looser ones would let in."
    return section("near", "Nearly kept", explained, rows_table(head, lines))


def examples(tally: Tally) -> Html:
    """Up to ten rows of each reason that occurs."""
    counts = {reason: sum(tally.rows[stage, reason] for stage in Stage) for reason in Reason}
    drawn = [(reason, rows.items) for reason, rows in tally.examples.items() if rows.items]
    if not drawn:
        return section("examples", "Examples of what was refused", "Nothing was refused.")
    explained = "A few rows of each reason, drawn by hash. Links are text on purpose: nobody vouches for their targets."
    groups = [_group(reason, counts[reason], rows) for reason, rows in drawn]
    return section("examples", "Examples of what was refused", explained, *groups)


def slow(tally: Tally) -> Html:
    """The rows that took longest."""
    head = header_row("Link", "Ended as", ("Time", "n"))
    lines = [
        element(
            "tr",
            element("td", _who(row)),
            element("td", element("code", row.reason.value), element("div", f"tries: {row.attempts}", class_="note")),
            element("td", duration(row.seconds), class_="n", data_label="Time"),
        )
        for row in tally.slow.items
        if row.seconds > 0
    ]
    if not lines:
        return section("slow", "Slowest links", "No link has cost any time.")
    return section("slow", "Slowest links", "Download, decoding and scoring together.", rows_table(head, lines))


def _group(reason: Reason, count: int, rows: list[Row]) -> Html:
    with_scores = any(row.scores for row in rows)
    head = header_row("Link", "What was found", *(["Scores"] if with_scores else []))
    lines = [
        element(
            "tr",
            element("td", _who(row)),
            element("td", strangers(row.detail), _measured(row)),
            *([element("td", scored(row))] if with_scores else []),
        )
        for row in rows
    ]
    number = element("span", f"{len(lines)} of {count:,}", class_="note")
    title = element("summary", element("code", reason.value), number)
    return element("details", title, element("p", REASONS[reason], class_="note"), rows_table(head, lines))


def _who(row: Row) -> Html:
    """A row's link, and its caption if it has one: text, not a link."""
    caption = [element("div", strangers(row.link.caption, 160), class_="note")] if row.link.caption else []
    return joined(element("div", strangers(row.link.url), class_="url mono"), *caption)


def _measured(row: Row) -> Html:
    if row.width is None or row.height is None:
        return Html("")
    return element("div", f"{row.width} × {row.height}, {size(row.bytes or 0)}", class_="note")
