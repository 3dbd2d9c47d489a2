"""The sections of pictures: what was kept, what was refused by reason, what came twice (the paper's Figure 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from curation.records import Reason, Row
from curation.report.markup import Html, element, joined
from curation.report.parts import counted, embedded, scored, section
from curation.report.pictures import Pair, Shown, ranked_by
from curation.report.reasons import REASONS
from curation.report.survey import Survey
from curation.report.tally import Tally
from curation.thumbnails import jpeg


def kept(survey: Survey, pictures: Sequence[Shown], sheet: str) -> Html:
    """Kept pictures; `sheet` is where they all lie as one PNG, seen from the page."""
    if not pictures:
        return section("kept", "Kept pictures", "Nothing is kept yet.")
    total = survey.tally.kept.rows
    which = "all of them" if len(pictures) == total else f"{len(pictures)} of {total:,}, drawn by hash"
    metric = ranked_by(survey.thresholds)
    order = f", best {metric.metric} first" if metric else ""
    explained = joined(f"The middle squares of {which}{order}. As one sheet: ", element("a", sheet, href=sheet), ".")
    return section("kept", "Kept pictures", explained, _wall(pictures))


def refused(tally: Tally, pictures: Mapping[Reason, Sequence[Shown]], sheets: Mapping[Reason, str]) -> Html:
    """A wall for each reason that left pictures to look at."""
    if not pictures:
        return section("refused", "Refused pictures", "No refused picture was decoded, so there is none to show.")
    walls = [_reason(tally, reason, shown, sheets[reason]) for reason, shown in pictures.items()]
    explained = "A few of each reason with the scores that were computed: no further than it took to refuse them."
    return section("refused", "Refused pictures", explained, *walls)


def _reason(tally: Tally, reason: Reason, shown: Sequence[Shown], sheet: str) -> Html:
    total = sum(count for (_, ended), count in tally.rows.items() if ended is reason)
    note = joined(REASONS[reason], f" {len(shown)} of {total:,}, ", element("a", sheet, href=sheet), ".")
    title = element("h3", element("code", reason.value))
    return joined(title, element("p", note, class_="note"), _wall(shown))


def duplicates(tally: Tally, pairs: Sequence[Pair]) -> Html:
    """Pairs of a duplicate and what it repeats, side by side."""
    counts = {
        reason: sum(count for (_, ended), count in tally.rows.items() if ended is reason)
        for reason in (Reason.DUPLICATE_EXACT, Reason.DUPLICATE_NEAR)
    }
    if not any(counts.values()):
        return section("duplicates", "Duplicates", "No picture came twice.")
    said = (
        f"{counted(counts[Reason.DUPLICATE_EXACT], 'row')} with the bytes of an earlier picture, "
        f"{counted(counts[Reason.DUPLICATE_NEAR], 'row')} that look like one. The earlier of the list stays."
    )
    wall = element("div", *map(_pair, pairs), class_="wall pairs")
    return section("duplicates", "Duplicates", said, wall)


def _pair(pair: Pair) -> Html:
    caption = element("figcaption", element("code", pair.row.reason.value), element("br"), "left stays, right repeats")
    images = embedded(jpeg(pair.earlier), "the earlier picture"), embedded(jpeg(pair.pixels), "its duplicate")
    return element("figure", element("div", *images, class_="pair"), caption)


def _wall(pictures: Sequence[Shown]) -> Html:
    return element("div", *(_figure(one.row, one.pixels) for one in pictures), class_="wall")


def _figure(row: Row, pixels: np.ndarray) -> Html:
    image = embedded(jpeg(pixels), row.link.caption or "a picture without a caption")
    caption = element("figcaption", scored(row), element("br"), f"{row.width} × {row.height} {row.format}")
    return element("figure", image, caption)
