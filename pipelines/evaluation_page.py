"""The page of an evaluation: the table, then the pictures, the worst first.

Nothing is loaded but what is in the page; whole restored pictures lie beside it and are links.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from curation.report.markup import Html, element, joined, strangers
from curation.report.parts import counted, document, header_row, section
from curation.report.style import CSS
from dynet import results
from dynet.published import Column
from dynet.results import INPUT, MEASURED, Row, Table
from dynet.validate import Quality
from pipelines.evaluation_views import SHOWN, TARGET, Gallery, Seen, Shown, error_map, span

_ERROR: Final = "error"
_LONGEST: Final = 80  # characters of a picture's name

#: What this page needs beside the looks of the curation report.
_MORE: Final = """
.scroll { overflow-x: auto; }
.scroll table { min-width: max-content; }
.results th, .results td { white-space: nowrap; overflow-wrap: normal; padding-right: 20px; }
.results .ours td { font-weight: 600; } .results .theirs td { color: var(--soft); }
.results tfoot td { color: var(--soft); font-size: 13px; border-bottom: 0; }
.shots { display: grid; gap: 10px; margin-top: 10px; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.shots img { width: auto; max-width: 100%; aspect-ratio: auto; border-radius: 4px; }
ul.note { padding-left: 18px; overflow-wrap: anywhere; }
.card.shot { margin-top: 16px; }
.card.shot h3 { display: flex; flex-wrap: wrap; gap: 0 14px; align-items: baseline; overflow-wrap: anywhere; }
.card.shot h3 small { margin: 0; }
.card.shot figcaption b { display: block; }
.warning { margin-top: 16px; }
.results th:first-child, .results td:first-child { position: sticky; left: 0; background: var(--paper); }
@media (max-width: 640px) {
  .shots { grid-template-columns: 1fr 1fr; } .shots img { width: 100%; }
  .shots figure:last-child:nth-child(odd) { grid-column: 1 / -1; } .shots figure:last-child img { width: auto; }
}
"""


def page(table: Table, rows: Sequence[Row], notes: Sequence[str], gallery: Gallery) -> bytes:
    """The whole document. Its links go from the folder that has the restored pictures."""
    columns = list(gallery.seen)
    ids = {column: f"set-{at}" for at, column in enumerate(columns)}
    links = [element("a", str(column), href=f"#{ids[column]}") for column in columns]
    body = element(
        "main",
        element("p", "DyNet", class_="eyebrow"),
        element("h1", "Evaluation"),
        element("p", _lead(gallery), class_="lead"),
        element("nav", *links, aria_label="Sets"),
        section("table", "Results", f"{table.title}. PSNR in dB / SSIM, means over the pictures.", _results(table)),
        *([element("p", table.caution, class_="warning")] if table.caution else []),
        *([_scores(rows)] if rows[0].scores else []),
        element("ul", *(element("li", note) for note in notes), class_="note"),
        *(_set(column, ids[column], gallery) for column in columns),
    )
    return document("Evaluation", body, CSS + _MORE)


def _lead(gallery: Gallery) -> str:
    depths = [row.depth for row in next(iter(gallery.seen.values()))[0].rows]
    cases = sum(map(len, gallery.seen.values()))
    return f"{counted(cases, 'degraded picture')}, each restored at {' and '.join(f'depth {one}' for one in depths)}."


def _results(table: Table) -> Html:
    head = header_row("Method", *((column, "n") for column in table.columns))
    counts = [str(count) if count else "" for count in table.pictures]
    return element(
        "div",
        element(
            "table",
            element("thead", head),
            element("tbody", *(_line(line) for line in table.lines)),
            element("tfoot", element("tr", *_cells("pictures", counts))),
            class_="results",
        ),
        class_="scroll",
    )


def _scores(rows: Sequence[Row]) -> Html:
    head, lines = results.scores(rows)
    drawn = [element("tr", *_cells(line[0], line[1:])) for line in lines]
    top = header_row(head[0], *((name, "n") for name in head[1:]))
    return element(
        "div", element("table", element("thead", top), element("tbody", *drawn), class_="results"), class_="scroll"
    )


def _line(line: results.Line) -> Html:
    ours = line.source == MEASURED and line.method != INPUT
    cells = _cells(results.named(line), [results.figure(one) for one in line.figures])
    return element("tr", *cells, class_="ours" if ours else "theirs")


def _cells(name: str, numbers: Sequence[str]) -> list[Html]:
    return [element("td", name), *(element("td", number, class_="n") for number in numbers)]


def _set(column: Column, name: str, gallery: Gallery) -> Html:
    every = sorted(gallery.seen[column], key=lambda one: one.psnr)
    worst = gallery.worst[column]
    brightest = span(worst)
    depth = every[0].rows[-1].depth
    which = f"The {len(worst)} worst of {len(every)} pictures" if len(every) > SHOWN else "All pictures, worst first"
    explained = (
        f"{which}, by PSNR at depth {depth}. Each is cut where depth {depth} errs most, pixel by pixel, and "
        f"leads to the whole restored picture. The error map is of the whole, with that place boxed, and brightest "
        f"from {255 * brightest:.0f} grey levels on. PSNR and SSIM are of whole pictures."
    )
    return section(
        name,
        str(column),
        explained,
        *(_shot(at, one, brightest) for at, one in enumerate(worst, start=1)),
        _all(every),
    )


def _shot(rank: int, shown: Shown, brightest: float) -> Html:
    rows = {row.depth: row for row in shown.seen.rows}
    first = shown.seen.rows[0]
    named = strangers(first.picture, _LONGEST)
    shots = []
    for what, jpeg in shown.crops.items():
        measured = first.before if what == INPUT else rows[what].quality if what in rows else None
        picture = _picture(jpeg, f"{what} of {first.picture}")
        if what in shown.seen.files:
            picture = element("a", picture, href=quote(shown.seen.files[what]))
        title = what if what in (INPUT, TARGET) else f"depth {what}"
        shots.append(_figure(picture, title, _said(measured) if measured else ""))
    drawn = _picture(error_map(shown, brightest), f"error map of {first.picture}")
    shots.append(_figure(drawn, _ERROR, f"of depth {shown.seen.rows[-1].depth}"))
    gain = shown.seen.psnr - first.before.psnr
    said = f"{abs(gain):.2f} dB {'better' if gain > 0 else 'worse'} than its input"
    title = element("h3", f"{rank}. ", named, element("small", said))
    return element("article", title, element("div", *shots, class_="shots"), class_="card shot")


def _figure(picture: Html, title: str, said: str) -> Html:
    return element("figure", picture, element("figcaption", element("b", title), said))


def _picture(jpeg: bytes, said: str) -> Html:
    return element("img", src=f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}", alt=said[:200])


def _all(every: Sequence[Seen]) -> Html:
    """Every picture's figures, folded away."""
    depths = [row.depth for row in every[0].rows]
    head = header_row("Picture", *((what, "n") for what in (INPUT, *(f"depth {depth}" for depth in depths))))
    body = element("tbody", *(_figures(one) for one in every))
    table = element("div", element("table", element("thead", head), body, class_="results"), class_="scroll")
    return element("details", element("summary", f"All {counted(len(every), 'picture')} in numbers"), table)


def _figures(one: Seen) -> Html:
    first = one.rows[0]
    return element(
        "tr",
        element("td", strangers(first.picture, _LONGEST)),
        element("td", results.figure(first.before), class_="n"),
        *(element("td", _link(row, one.files[row.depth]), class_="n") for row in one.rows),
    )


def _link(row: Row, file: str) -> Html:
    return joined(element("a", results.figure(row.quality), href=quote(file)))


def _said(quality: Quality) -> str:
    return f"{quality.psnr:.2f} dB · {quality.ssim:.3f}"
