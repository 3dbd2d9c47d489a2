"""What an evaluation found: a row a picture and depth, their means, and the paper's table with them in it.

pictures.csv    set, sigma, picture, depth, psnr, ssim, input_psnr, input_ssim, seconds, scores
table.csv       method, source, set, sigma, psnr, ssim, pictures: the same figures as table.md
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from dynet.published import PICTURES, SOURCE, Column, Published
from dynet.validate import Quality, mean

AVERAGE: Final = "average"
INPUT: Final = "input"  # what is restored, as it is
MEASURED: Final = "measured"
NOTHING: Final = "-"
_NO_FIGURES: Final = "The paper has no figures of these sets"
_FIELDS: Final = ("set", "sigma", "picture", "depth", "psnr", "ssim", "input_psnr", "input_ssim", "seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A picture restored at a depth. `before`: of the degraded picture. `scores`: without a reference, by metric."""

    column: Column
    picture: str
    depth: str
    quality: Quality
    before: Quality
    seconds: float  # of the network
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of a table. `source`: where its figures are from. A figure is None where there is none."""

    method: str
    source: str
    figures: tuple[Quality | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Lines with a figure for each of `columns`, each over so many `pictures`; under AVERAGE none are counted."""

    title: str
    columns: tuple[str, ...]
    pictures: tuple[int, ...]
    lines: tuple[Line, ...]
    caution: str  # where ours can't be compared with the published figures; or empty


def table(rows: Sequence[Row], published: Published) -> Table:
    """Ours beside the published ones: the paper's columns as far as we have them, then those it hasn't.

    The average is that of the paper, over its columns, and is left out unless all of them are there.
    """
    have = {row.column.key: row.column for row in rows}
    theirs = tuple(column for column in published.columns if column.key in have)
    others = tuple(column for key, column in have.items() if key not in {one.key for one in theirs})
    averaged = bool(published.averages) and theirs == published.columns
    counts = {key: len({row.picture for row in rows if row.column == column}) for key, column in have.items()}
    return Table(
        title=f"Beside table {published.number} of {SOURCE}: {published.setting}" if theirs else _NO_FIGURES,
        columns=(*map(str, theirs), *([AVERAGE] if averaged else []), *map(str, others)),
        pictures=(*(counts[one.key] for one in theirs), *([0] if averaged else []), *(counts[o.key] for o in others)),
        lines=(
            *(_published(published, theirs, averaged, len(others)) if theirs else ()),
            *_measured(rows, theirs, averaged, others),
        ),
        caution=_caution({column.set: counts[column.key] for column in theirs}),
    )


def _published(table: Published, columns: Sequence[Column], averaged: bool, others: int) -> Iterator[Line]:
    for method, figures in table.rows.items():
        had = [figure for column, figure in zip(table.columns, figures, strict=True) if column in columns]
        average = [table.averages[method]] if averaged else []
        source = f"{SOURCE}, table {table.number}"
        yield Line(method=method, source=source, figures=(*had, *average, *(None for _ in range(others))))


def _measured(
    rows: Sequence[Row], columns: Sequence[Column], averaged: bool, others: Sequence[Column]
) -> Iterator[Line]:
    for method, means in _means(rows).items():
        ours = [means[column.key] for column in columns]
        average = [mean(ours)] if averaged else []
        rest = [means[column.key] for column in others]
        yield Line(method=method, source=MEASURED, figures=(*ours, *average, *rest))


def _caution(counts: Mapping[str, int]) -> str:
    """Says where a column has the name of a published set and not its pictures."""
    there = {name: PICTURES[Column(set=name).key[0]] for name in counts}
    odd = [f"{name} {count} here and {there[name]} there" for name, count in counts.items() if count != there[name]]
    return f"What was published is of other pictures: {', '.join(odd)}" if odd else ""


def _means(rows: Sequence[Row]) -> dict[str, dict[tuple[str, float | None], Quality]]:
    """Of the input and of each depth, by column, over its pictures."""
    found: dict[str, dict[tuple[str, float | None], list[Quality]]] = {INPUT: {}}
    first = rows[0].depth
    for row in rows:
        found.setdefault(row.depth, {}).setdefault(row.column.key, []).append(row.quality)
        if row.depth == first:
            found[INPUT].setdefault(row.column.key, []).append(row.before)
    return {method: {key: mean(all_) for key, all_ in columns.items()} for method, columns in found.items()}


def seconds(rows: Sequence[Row]) -> dict[str, float]:
    """What a picture took at each depth, on average."""
    depths = dict.fromkeys(row.depth for row in rows)
    return {depth: float(np.mean([row.seconds for row in rows if row.depth == depth])) for depth in depths}


def scores(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and lines of a table of the scores without a reference: means by column and depth.

    Pictures that a metric has no number for are left out of its mean.
    """
    found: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    for row in rows:
        found.setdefault((str(row.column), row.depth), []).append(row.scores)
    metrics = tuple(rows[0].scores)
    lines = [
        (*key, *(_known_mean([scored[metric] for scored in all_]) for metric in metrics)) for key, all_ in found.items()
    ]
    return ("set", "depth", *metrics), lines


def _known_mean(values: Sequence[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    return f"{np.mean(known):.3f}" if known else NOTHING


# ---------------------------------------------------------------- as files


def figure(quality: Quality | None) -> str:
    """`31.51/0.980`, as the paper writes it."""
    return NOTHING if quality is None else f"{quality.psnr:.2f}/{quality.ssim:.3f}"


def named(line: Line) -> str:
    """The method, and whose figures they are."""
    return f"{line.method} ({'measured' if line.source == MEASURED else 'published'})"


def markdown(one: Table, rows: Sequence[Row], notes: Iterable[str]) -> str:
    """The table, that of the scores where there are some, and what all was measured with."""
    counted = ["pictures", *(str(count) if count else "" for count in one.pictures)]
    cells = [[named(line), *map(figure, line.figures)] for line in one.lines]
    said = [one.caution] if one.caution else []
    parts = [f"# {one.title}", _grid(["PSNR/SSIM", *one.columns], [*cells, counted])]
    parts += [_grid(*scores(rows))] if rows[0].scores else []
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in [*said, *notes])]) + "\n"


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown: the first column to the left, the others to the right."""
    marks = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, marks, *lines))


def pictures_csv(rows: Sequence[Row]) -> str:
    """A line a picture and depth, in the order of `rows`."""
    metrics = list(rows[0].scores)
    return _csv((*_FIELDS, *metrics), (_cells(row, metrics) for row in rows))


def _cells(row: Row, metrics: Sequence[str]) -> tuple[object, ...]:
    numbers = (row.quality.psnr, row.quality.ssim, row.before.psnr, row.before.ssim)
    return (
        *(row.column.set, _sigma(row.column.sigma), row.picture, row.depth),
        *(f"{number:.6f}" for number in numbers),
        f"{row.seconds:.4f}",
        *(f"{row.scores[metric]:.6f}" for metric in metrics),
    )


def table_csv(one: Table) -> str:
    """A line a method and column: that the figures can be read by programs."""
    return _csv(
        ("method", "source", "column", "psnr", "ssim", "pictures"),
        (
            (line.method, line.source, column, f"{quality.psnr:.4f}", f"{quality.ssim:.5f}", _counted(line, count))
            for line in one.lines
            for column, quality, count in zip(one.columns, line.figures, one.pictures, strict=True)
            if quality is not None
        ),
    )


def _counted(line: Line, count: int) -> str:
    """Nothing of what was published: those were other pictures, or more of them."""
    return str(count) if count and line.source == MEASURED else ""


def _sigma(sigma: float | None) -> str:
    return "" if sigma is None else f"{sigma:g}"


def _csv(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return sink.getvalue()
