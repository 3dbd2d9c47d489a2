"""What the run did: throughput over time, what the cascade saved, the hosts that took longest."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Final

from curation.report.charts import columns
from curation.report.markup import Html, element, strangers
from curation.report.parts import counted, duration, section, share, size, table
from curation.report.tally import Tally
from curation.report.timeline import Span

SLOWEST: Final = 12  # hosts


def throughput(tally: Tally) -> Html:
    """Rows and bytes by time."""
    spans, width = tally.timeline.spans, tally.timeline.width
    if not spans:
        return section("throughput", "Throughput", "No row was worked on.")
    busy = sum(1 for span in spans if span.rows) * width
    rows, read = sum(span.rows for span in spans), sum(span.bytes_read for span in spans)
    said = (
        f"From {_time(spans[0].start)} to {_time(spans[-1].start + width)} UTC, at work for {duration(busy)} of it: "
        f"{rows / busy:.3g} links and {size(round(read / busy))} a second."
    )
    charts = [
        _chart("Links a second", spans, [span.rows / width for span in spans]),
        _chart("Megabytes a second", spans, [span.bytes_read / width / 1e6 for span in spans]),
    ]
    return section("throughput", "Throughput", said, element("div", *charts, class_="cards"))


def _chart(title: str, spans: list[Span], values: list[float]) -> Html:
    ends = _time(spans[0].start), _time(spans[-1].start)
    chart = columns(
        values, ends, [f"{_time(span.start)}: {value:.3g}" for span, value in zip(spans, values, strict=True)], title
    )
    return element("section", element("h3", title), chart, class_="card")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%m-%d %H:%M:%S")


def saved(tally: Tally) -> Html:
    """What was never read or computed, since it could not change a verdict."""
    kept = max(1, tally.kept.rows)
    spared = tally.by_header
    said = (
        f"{counted(spared.rows, 'file')} could not be kept by their first kilobytes: {size(spared.bytes)} of them were "
        f"not read ({share(spared.bytes, spared.bytes + tally.bytes_read)} of all, {size(spared.bytes // kept)} for "
        f"each kept picture). {size(tally.bytes_read)} were, {size(tally.bytes_read // kept)} for each."
    )
    cells = [
        (metric, f"{one.total + one.missing:,}", f"{max(0, tally.decoded - one.total - one.missing):,}")
        for metric, one in tally.histograms.items()
    ]
    head = ("Metric, in the order of its turn", "Computed for", "Not needed for")
    return section("saved", "What the cascade saved", said, table(head, cells, "sources"))


def hosts(tally: Tally) -> Html:
    """Where the time went, by host."""
    slowest = [(name, host) for name, host in tally.hosts.slowest(SLOWEST) if host.seconds > 0]
    if not slowest:
        return section("hosts", "Slowest hosts", "No host has cost any time.")
    cells = [
        (
            strangers(name, 60),
            f"{host.rows:,}",
            f"{host.failed:,}",
            size(host.bytes_read),
            duration(host.seconds),
            duration(host.seconds / host.rows),
        )
        for name, host in slowest
    ]
    head = ("Host", "Links", "Not downloaded", "Bytes read", "Time", "A link")
    explained = "By the time that all their links took: download with its waits, decoding and scoring."
    return section("hosts", "Slowest hosts", explained, table(head, cells, "sources", wide=(2, 3)))
