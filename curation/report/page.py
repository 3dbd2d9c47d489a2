"""The page: sections from top to bottom, each a function of what was gathered."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from curation.judge import Thresholds
from curation.records import Reason, Stage
from curation.report import charts
from curation.report.markup import Html, element, joined
from curation.report.mosaic import THUMBNAIL, jpeg
from curation.report.reasons import REASONS, STAGES
from curation.report.style import CSS, POLICY
from curation.report.survey import KeptPicture, Shards, Survey
from curation.report.tally import SIDES, Histogram, Tally, Volume

_NONE: Final = Html("")


def page(survey: Survey, pictures: Sequence[KeptPicture], shards: Shards | None, sheet: str | None) -> bytes:
    """The whole document. `sheet`: where the contact sheet lies, seen from the page; None where there is none."""
    body = element(
        "main",
        _opening(survey, shards),
        _funnel(survey.tally),
        _scores(survey),
        _kept(survey, pictures, sheet),
        _sizes(survey.tally),
        _sources(survey.tally, shards),
        rows.near(survey),
        rows.examples(survey.tally),
        rows.slow(survey.tally),
        _recipe(survey),
    )
    return f"<!DOCTYPE html>\n{element('html', _head(survey), element('body', body), lang='en')}\n".encode()


def _head(survey: Survey) -> Html:
    return element(
        "head",
        element("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", f"Curation report: {survey.source}"),
        element("style", Html(CSS)),
    )


def _opening(survey: Survey, shards: Shards | None) -> Html:
    tally = survey.tally
    kept, total = tally.kept, tally.total
    said = f"Of {links(total)}, {kept.rows:,} ({share(kept.rows, total)}) ended as pictures worth training on"
    cut = f", cut into {shards.manifest.samples:,} patches." if shards else "."
    sections = ("funnel", "scores", "kept", "sizes", "sources", "near", "examples", "slow", "recipe")
    return joined(
        element("p", "Million-IRD", class_="eyebrow"),
        element("h1", "Curation report: ", survey.source),
        element("p", said, cut, class_="lead"),
        *(element("p", text, class_="warning") for text in survey.warnings),
        _figures(tally, shards),
        element("nav", *(element("a", name, href=f"#{name}") for name in sections), aria_label="Sections"),
    )


def _figures(tally: Tally, shards: Shards | None) -> Html:
    cards = [
        ("Links", f"{tally.total:,}", f"{tally.units:,} chunks"),
        ("Downloaded", f"{tally.downloaded.rows:,}", size(tally.downloaded.bytes)),
        ("Kept", f"{tally.kept.rows:,}", share(tally.kept.rows, tally.total)),
        ("Kept originals", size(tally.kept.bytes), f"{share(tally.kept.bytes, tally.downloaded.bytes)} of downloaded"),
        ("Time spent", duration(tally.seconds), f"{per_row(tally)} a link"),
    ]
    if shards:
        tars = len(shards.manifest.shards)
        cards.append(("Patches", f"{shards.manifest.samples:,}", f"{size(shards.manifest.bytes)} in {tars:,} shards"))
    return element(
        "dl",
        *(element("div", element("dt", n), element("dd", v, element("small", s))) for n, v, s in cards),
        class_="figures",
    )


def _funnel(tally: Tally) -> Html:
    rows: list[Html] = []
    steps: list[Html] = [_step("Listed", tally.total, tally.total)]
    left = tally.total
    for stage in Stage:
        reasons = [(reason, tally.rows[stage, reason]) for reason in Reason if tally.rows[stage, reason]]
        if not reasons:
            continue
        rows.append(element("tr", element("th", STAGES[stage], colspan="4", scope="colgroup"), class_="stage"))
        rows += [_reason(reason, count, tally.total) for reason, count in reasons]
        if stage is not Stage.KEPT:
            left -= sum(count for _, count in reasons)
            rows.append(_left(left, tally.total))
            steps.append(_step(_AFTER[stage], left, tally.total))
    head = header_row("Reason", ("Rows", "n"), ("Share", "n"), ("", "share"))
    return section(
        "funnel",
        "Where the links ended",
        "Every link ends for exactly one reason; the counts add up to the list.",
        element("ol", *steps, class_="steps"),
        element("table", element("thead", head), element("tbody", *rows), class_="funnel"),
    )


_AFTER: Final = {
    Stage.LIST: "Worth a download",
    Stage.FETCH: "Downloaded",
    Stage.DECODE: "Decoded",
    Stage.SCORE: "Measured",
    Stage.JUDGE: "Passed the thresholds",
    Stage.DUPLICATES: "No duplicates",
}


def _step(name: str, count: int, total: int) -> Html:
    number = element("span", f"{count:,}  ({share(count, total)})", class_="n")
    return element("li", element("span", name), charts.share_bar(count / max(1, total), "kept"), number)


def _reason(reason: Reason, count: int, total: int) -> Html:
    bar = charts.share_bar(count / max(1, total), "kept" if reason is Reason.KEPT else "")
    return element(
        "tr",
        element("td", element("code", reason.value), REASONS[reason]),
        element("td", f"{count:,}", class_="n"),
        element("td", share(count, total), class_="n"),
        element("td", bar, class_="share"),
    )


def _left(left: int, total: int) -> Html:
    return element("tr", element("td", f"{left:,} left, {share(left, total)} of the list", colspan="4"), class_="left")


def _scores(survey: Survey) -> Html:
    cards = [_metric(histogram) for histogram in survey.tally.histograms.values()]
    legend = element(
        "p",
        element("span", element("i", class_="key kept"), "kept"),
        element("span", element("i", class_="key"), "scored, but not kept: this metric, another one, or a duplicate"),
        class_="note legend",
    )
    explained = "A picture stays when every metric passes. The tinted side of each chart passes that metric."
    return section("scores", "What the metrics say", explained, legend, element("div", *cards, class_="cards"))


def _metric(data: Histogram) -> Html:
    title = element("h3", data.threshold.metric)
    missing = f" {data.missing:,} rows got no number." if data.missing else ""
    if not data.total:
        return element(
            "section", title, element("p", f"No picture has this score.{missing}", class_="note"), class_="card"
        )
    low, middle, high = (data.quantile(q) for q in (0.05, 0.5, 0.95))
    said = (
        f"{data.passing:,} of {data.total:,} pass ({share(data.passing, data.total)}). "
        f"Median {middle:.3g}; nine in ten between {low:.3g} and {high:.3g}.{missing}"
    )
    return element("section", title, charts.histogram(data), element("p", said, class_="note"), class_="card")


def _kept(survey: Survey, pictures: Sequence[KeptPicture], sheet: str | None) -> Html:
    if not pictures:
        return section("kept", "Kept pictures", "Nothing is kept yet.")
    total = survey.tally.kept.rows
    which = f"all {total:,}" if len(pictures) == total else f"{len(pictures)} of {total:,}, drawn by hash"
    first = survey.thresholds.metrics[0].metric if survey.thresholds.metrics else "key"
    explained = joined(
        f"The middle square of {which}; best {first} first.",
        joined(" Also as one sheet: ", element("a", sheet, href=sheet), ".") if sheet else _NONE,
    )
    wall = element("div", *(_figure(picture, survey.thresholds) for picture in pictures), class_="wall")
    return section("kept", "Kept pictures", explained, wall)


def _figure(picture: KeptPicture, thresholds: Thresholds) -> Html:
    row = picture.row
    image = element(
        "img",
        src=f"data:image/jpeg;base64,{base64.b64encode(jpeg(picture.pixels)).decode()}",
        alt=(row.link.caption or "a kept picture without a caption")[:200],
        width=THUMBNAIL,
        height=THUMBNAIL,
    )
    caption = element("figcaption", scored(row, thresholds), element("br"), f"{row.width} × {row.height} {row.format}")
    return element("figure", image, caption)


def _sizes(tally: Tally) -> Html:
    if not tally.sides:
        return section("sizes", "Sizes of kept pictures", "Nothing is kept yet.")
    sides = [(_side_class(at), tally.sides[at], _NONE) for at in range(min(tally.sides), max(tally.sides) + 1)]
    formats = [
        (name, volume.rows, Html(f", {size(volume.bytes)}"))
        for name, volume in sorted(tally.formats.items(), key=lambda item: (-item[1].rows, item[0]))
    ]
    average = size(tally.kept.bytes // tally.kept.rows)
    return section(
        "sizes",
        "Sizes of kept pictures",
        f"A kept file has {average} on average.",
        element("div", _breakdown("Shorter side, pixels", sides), _breakdown("Format", formats), class_="cards"),
    )


def _side_class(at: int) -> str:
    return f"{SIDES[at]} to {SIDES[at + 1] - 1}" if at + 1 < len(SIDES) else f"{SIDES[at]} and more"


def _breakdown(title: str, entries: Iterable[tuple[str, int, str]]) -> Html:
    lines = list(entries)
    most = max(count for _, count, _ in lines)
    items = [
        element(
            "tr",
            element("td", n),
            element("td", f"{c:,}", e, class_="n"),
            element("td", charts.share_bar(c / most, "kept"), class_="share"),
        )
        for n, c, e in lines
    ]
    return element(
        "section", element("h3", title), element("table", element("tbody", *items), class_="funnel"), class_="card"
    )


def _sources(tally: Tally, shards: Shards | None) -> Html:
    links = [
        (
            name,
            f"{count:,}",
            f"{tally.kept_of.get(name, Volume()).rows:,}",
            size(tally.kept_of.get(name, Volume()).bytes),
        )
        for name, count in sorted(tally.links.items())
    ]
    listed = table(("Source", "Links", "Kept", "Bytes kept"), links, "sources")
    if shards is None:
        explained = "No shards are cut from this store yet: dynet-shard does that."
        return section("sources", "Sources", explained, listed)
    return section(
        "sources",
        "Sources",
        "What each list gave, and below it what went into the shards (the paper's Table S1); folders have no links.",
        listed,
        _patches(shards),
    )


def _patches(shards: Shards) -> Html:
    sources = shards.manifest.sources
    lines = [
        (name, one.pictures, one.with_patches, one.samples, one.flat, shards.bytes_of.get(name, 0))
        for name, one in sources.items()
    ]
    totals = [sum(column) for column in zip(*(line[1:] for line in lines), strict=True)]
    every = [*lines, ("all", *totals)] if len(lines) > 1 else lines
    cells = [(str(line[0]), *(f"{n:,}" for n in line[1:5]), size(int(line[5]))) for line in every]
    head = ("Source", "Pictures", "With patches", "Patches", "Dropped as flat", "Bytes")
    return table(head, cells, "sources", wide=(2,))


def _recipe(survey: Survey) -> Html:
    thresholds = survey.thresholds
    bounds = [
        (str(one), element("code", survey.weights.get(one.metric, "not known"), class_="mono"))
        for one in thresholds.metrics
    ]
    settings = [
        (name, str(value)) for name, value in sorted(survey.recipe.items()) if not isinstance(value, (Mapping, list))
    ]
    limits = [
        ("shorter side", f">= {thresholds.min_res} pixels"),
        ("punsafe, as the list says", f"<= {thresholds.max_punsafe:g}"),
        ("pwatermark, as the list says", f"<= {thresholds.max_pwatermark:g}"),
    ]
    return section(
        "recipe",
        "The recipe",
        "All that decides what is kept. The same lists, this recipe and these weights give the same verdicts.",
        table(("Metric passes at", "SHA-256 of its weights"), bounds, "settings", numbers=False),
        table(("Limit", "Value"), limits, "settings", numbers=False),
        table(("Setting", "Value"), settings, "settings", numbers=False),
    )
