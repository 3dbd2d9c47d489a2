"""The page: sections from top to bottom, each a function of what was gathered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from curation.records import Reason, Stage
from curation.report import charts, walls, work
from curation.report.histogram import Histogram
from curation.report.markup import Html, element, joined
from curation.report.parts import breakdown, counted, document, duration, header_row, section, share, size, table
from curation.report.pictures import Pair, Shown
from curation.report.reasons import REASONS, STAGES
from curation.report.rows import examples, near, slow
from curation.report.survey import Shards, Survey
from curation.report.tally import SIDES, Tally, Volume

_SECTIONS: Final = {
    "funnel": "Where links ended",
    "scores": "Metrics",
    "kept": "Kept pictures",
    "refused": "Refused pictures",
    "duplicates": "Duplicates",
    "sizes": "Sizes",
    "sources": "Sources",
    "near": "Nearly kept",
    "examples": "Examples",
    "throughput": "Throughput",
    "saved": "Saved",
    "hosts": "Hosts",
    "slow": "Slowest",
    "recipe": "Recipe",
}

#: What a row that went on from a stage can be called.
_AFTER: Final = {
    Stage.LIST: "Worth a download",
    Stage.FETCH: "Downloaded",
    Stage.DECODE: "Decoded",
    Stage.SCORE: "Fit to be judged",
    Stage.JUDGE: "Passed the thresholds",
    Stage.DUPLICATES: "Not a duplicate",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """All pictures on the page, and where the contact sheets lie, seen from it."""

    kept: Sequence[Shown]
    refused: Mapping[Reason, Sequence[Shown]]
    pairs: Sequence[Pair]
    kept_sheet: str
    refused_sheets: Mapping[Reason, str]


def page(survey: Survey, gallery: Gallery, shards: Shards | None) -> bytes:
    """The whole document."""
    body = element(
        "main",
        _opening(survey, shards),
        _funnel(survey.tally),
        _scores(survey.tally),
        walls.kept(survey, gallery.kept, gallery.kept_sheet),
        walls.refused(survey.tally, gallery.refused, gallery.refused_sheets),
        walls.duplicates(survey.tally, gallery.pairs),
        _sizes(survey.tally),
        _sources(survey.tally, shards),
        near(survey),
        examples(survey.tally),
        work.throughput(survey.tally),
        work.saved(survey.tally),
        work.hosts(survey.tally),
        slow(survey.tally),
        _recipe(survey),
    )
    return document(f"Curation report: {survey.source}", body)


def _opening(survey: Survey, shards: Shards | None) -> Html:
    kept, total = survey.tally.kept.rows, survey.tally.total
    said = f"Of {counted(total, 'link')}, {kept:,} ({share(kept, total)}) ended as pictures worth training on"
    cut = f", cut into {shards.manifest.samples:,} patches." if shards else "."
    bounds = [f"both sides at least {survey.thresholds.min_res} pixels", *map(str, survey.thresholds.metrics)]
    rules = f"A picture is kept where all of this holds: {'; '.join(bounds)}. "
    return joined(
        element("p", "Million-IRD · source ", element("b", survey.source), class_="eyebrow"),
        element("h1", "Curation report"),
        element("p", said, cut, class_="lead"),
        element("p", rules, element("a", "The recipe", href="#recipe")),
        *(element("p", text, class_="warning") for text in survey.warnings),
        _figures(survey.tally, shards),
        element(
            "nav", *(element("a", title, href=f"#{name}") for name, title in _SECTIONS.items()), aria_label="Sections"
        ),
    )


def _figures(tally: Tally, shards: Shards | None) -> Html:
    average = duration(tally.seconds / max(1, tally.total))
    cards = [
        ("Links", f"{tally.total:,}", counted(tally.units, "chunk")),
        ("Downloaded", f"{tally.answered:,}", f"{size(tally.downloaded.bytes)} in whole files"),
        ("Kept", f"{tally.kept.rows:,}", f"{share(tally.kept.rows, tally.total)} of links"),
        ("Kept files", size(tally.kept.bytes), f"{share(tally.kept.bytes, tally.downloaded.bytes)} of bytes"),
        ("Time spent", duration(tally.seconds), f"{average} a link"),
    ]
    if shards:
        tars = len(shards.manifest.shards)
        cards.append(
            ("Patches", f"{shards.manifest.samples:,}", f"{size(shards.manifest.bytes)}, {counted(tars, 'shard')}")
        )
    boxes = [element("div", element("dt", n), element("dd", v, element("small", s))) for n, v, s in cards]
    return element("dl", *boxes, class_="figures")


def _funnel(tally: Tally) -> Html:
    rows: list[Html] = []
    steps = [_step("Listed", tally.total, tally.total)]
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
    return section(
        "funnel",
        "Where the links ended",
        "Every link ends for exactly one reason; the counts add up to the list.",
        element("ol", *steps, class_="steps"),
        element(
            "table",
            element("thead", header_row("Reason", ("Rows", "n"), ("Share", "n"), ("", "share"))),
            element("tbody", *rows),
            class_="funnel",
        ),
    )


def _step(name: str, count: int, total: int) -> Html:
    number = element("span", element("b", f"{count:,}"), f" · {share(count, total)}", class_="n")
    return element("li", element("span", name), charts.share_bar(count / max(1, total), "kept"), number)


def _reason(reason: Reason, count: int, total: int) -> Html:
    bar = charts.share_bar(count / max(1, total), "kept" if reason is Reason.KEPT else "")
    return element(
        "tr",
        element("td", element("div", element("code", reason.value), element("span", REASONS[reason]), class_="why")),
        element("td", f"{count:,}", class_="n"),
        element("td", share(count, total), class_="n"),
        element("td", bar, class_="share"),
    )


def _left(left: int, total: int) -> Html:
    return element("tr", element("td", f"{left:,} left, {share(left, total)} of the list", colspan="4"), class_="left")


def _scores(tally: Tally) -> Html:
    if not tally.histograms:
        return section("scores", "What the metrics say", "No metric votes in this recipe.")
    legend = element(
        "p",
        element("span", element("i", class_="key kept"), "kept"),
        element("span", element("i", class_="key"), "scored, not kept"),
        class_="note legend",
    )
    cards = [_metric(histogram) for histogram in tally.histograms.values()]
    explained = (
        "A picture stays when every metric passes. The tinted side of a chart passes that metric; what is not kept "
        "there fell to another metric or is a duplicate."
    )
    return section("scores", "What the metrics say", explained, legend, element("div", *cards, class_="cards"))


def _metric(data: Histogram) -> Html:
    better = f" {'lower' if data.threshold.lower_better else 'higher'} is better"
    title = element("h3", data.threshold.metric, element("small", better))
    missing = f" {data.missing:,} rows got no number." if data.missing else ""
    if not data.total:
        nothing = element("p", f"No picture has this score.{missing}", class_="note")
        return element("section", title, nothing, class_="card")
    low, middle, high = (data.quantile(q) for q in (0.05, 0.5, 0.95))
    said = (
        f"{data.passing:,} of {data.total:,} pass ({share(data.passing, data.total)}). "
        f"Median {middle:.3g}; nine in ten from {low:.3g} to {high:.3g}.{missing}"
    )
    return element("section", title, charts.histogram(data), element("p", said, class_="note"), class_="card")


def _sizes(tally: Tally) -> Html:
    if not tally.kept.rows:
        return section("sizes", "Sizes of kept pictures", "Nothing is kept yet.")
    sides = [(_side_class(at), tally.sides[at], "") for at in range(min(tally.sides), max(tally.sides) + 1)]
    by_rows = sorted(tally.formats.items(), key=lambda item: (-item[1].rows, item[0]))
    formats = [(name, volume.rows, f" · {size(volume.bytes)}") for name, volume in by_rows]
    return section(
        "sizes",
        "Sizes of kept pictures",
        f"A kept file has {size(tally.kept.bytes // tally.kept.rows)} on average.",
        element("div", breakdown("Shorter side, pixels", sides), breakdown("Format", formats), class_="cards"),
    )


def _side_class(at: int) -> str:
    return f"{SIDES[at]} to {SIDES[at + 1] - 1}" if at + 1 < len(SIDES) else f"{SIDES[at]} and more"


def _sources(tally: Tally, shards: Shards | None) -> Html:
    given = [(name, count, tally.kept_of.get(name, Volume())) for name, count in sorted(tally.links.items())]
    cells = [(name, f"{count:,}", f"{kept.rows:,}", size(kept.bytes)) for name, count, kept in given]
    listed = table(("Source", "Links", "Kept", "Bytes kept"), cells, "sources")
    if shards is None:
        explained = "No shards are cut from this store yet: dynet-shard does that."
        return section("sources", "Sources", explained, listed)
    explained = "What the list gave, then what went into the shards (the paper's Table S1). Folders have no links."
    return section("sources", "Sources", explained, listed, _patches(shards))


def _patches(shards: Shards) -> Html:
    lines: dict[str, tuple[int, ...]] = {
        name: (one.pictures, one.with_patches, one.samples, one.flat, shards.bytes_of.get(name, 0))
        for name, one in shards.manifest.sources.items()
    }
    if len(lines) > 1:
        lines["all"] = tuple(map(sum, zip(*lines.values(), strict=True)))
    cells = [(name, *(f"{count:,}" for count in line[:4]), size(line[4])) for name, line in lines.items()]
    head = ("Source", "Pictures", "With patches", "Patches", "Dropped as flat", "Bytes")
    return table(head, cells, "sources", wide=(2,))


def _recipe(survey: Survey) -> Html:
    thresholds = survey.thresholds
    bounds = [(str(one), element("code", survey.weights.get(one.metric, "not known"))) for one in thresholds.metrics]
    limits = [
        ("shorter side", f"at least {thresholds.min_res} pixels"),
        ("punsafe, where the list says it", f"at most {thresholds.max_punsafe:g}"),
        ("pwatermark, where the list says it", f"at most {thresholds.max_pwatermark:g}"),
    ]
    plain = [(name, str(value)) for name, value in sorted(survey.recipe.items()) if not isinstance(value, Mapping)]
    return section(
        "recipe",
        "The recipe",
        "All that decides what is kept. The same lists, this recipe and these weights give the same verdicts.",
        table(("Metric passes at", "SHA-256 of its weights"), bounds, "settings", numbers=False),
        table(("Limit or setting", "Value"), [*limits, *plain], "settings", numbers=False),
    )
