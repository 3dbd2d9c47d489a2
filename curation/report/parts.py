"""What sections are built from: tables, bars, and numbers as people read them."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence

from curation.records import Row
from curation.report.charts import share_bar
from curation.report.markup import Html, element, joined
from curation.report.style import CSS, policy
from curation.thumbnails import THUMBNAIL


def document(title: str, main: Html, style: str = CSS) -> bytes:
    """A whole page that loads nothing and runs nothing."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy(style)}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", Html(style)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, element('body', main), lang='en')}\n".encode()


def embedded(jpeg: bytes, said: str) -> Html:
    """A thumbnail's file as a picture in the page; `said`: what it shows, cut at 200 characters."""
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return element("img", src=source, alt=said[:200], width=THUMBNAIL, height=THUMBNAIL)


def section(name: str, title: str, explained: str, *content: str) -> Html:
    """A part of the page that `#name` leads to."""
    return element("section", element("h2", title), element("p", explained, class_="note"), *content, id=name)


def header_row(*cells: str | tuple[str, str]) -> Html:
    """A table's head; a cell may come with its class."""
    named = [(cell, "") if isinstance(cell, str) else cell for cell in cells]
    return element("tr", *(element("th", t, scope="col", **({"class_": c} if c else {})) for t, c in named))


def rows_table(head: Html, lines: Sequence[Html]) -> Html:
    """A table of single rows, which a narrow screen shows one below the other."""
    return element("table", element("thead", head), element("tbody", *lines), class_="rows")


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], class_: str, *, numbers: bool = True, wide: Sequence[int] = ()
) -> Html:
    """A table of plain cells. `numbers`: all but the first column are. `wide`: columns a narrow screen goes without."""
    classes = [("n" if numbers and at else "") + (" wide" if at in wide else "") for at in range(len(head))]
    lines = [element("tr", *(element("td", c, class_=k) for c, k in zip(row, classes, strict=True))) for row in rows]
    top = header_row(*zip(head, classes, strict=True))
    return element("table", element("thead", top), element("tbody", *lines), class_=class_)


def scored(row: Row) -> Html:
    """The row's scores in the order of the ledger's columns."""
    pairs = [(metric, element("b", number(score))) for metric, score in row.scores.items()]
    return joined(*(joined(element("span", f"{metric} ", score, class_="score"), " ") for metric, score in pairs))


def breakdown(title: str, entries: Sequence[tuple[str, int, str]]) -> Html:
    """(name, rows, what to say beside the number) with a bar each, as long as its share of the largest."""
    most = max(count for _, count, _ in entries)
    items = [
        element(
            "tr",
            element("td", name),
            element("td", f"{count:,}{note}", class_="n"),
            element("td", share_bar(count / most, "kept"), class_="share"),
        )
        for name, count, note in entries
    ]
    body = element("table", element("tbody", *items), class_="funnel")
    return element("section", element("h3", title), body, class_="card")


def counted(count: int, noun: str) -> str:
    """`1 link`, `2 links`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def share(part: float, whole: float) -> str:
    """A percentage; `0 %` is only said of nothing, `100 %` only of everything."""
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    if 99.95 <= percent < 100:
        return "over 99.9 %"
    return f"{percent:.1f} %".replace("100.0", "100") if percent >= 0.05 else "under 0.1 %"


def size(count: int) -> str:
    """Bytes, decimal."""
    for unit, worth in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= worth:
            return f"{count / worth:.1f} {unit}"
    return f"{count} bytes"


def duration(seconds: float) -> str:
    """Days, hours, minutes or seconds, whichever reads well."""
    for unit, worth in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * worth:
            return f"{seconds / worth:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 or not seconds else f"{1000 * seconds:.0f} ms"


def number(score: float) -> str:
    """A score in three digits."""
    return f"{score:#.3g}".rstrip(".") if math.isfinite(score) else "none"
