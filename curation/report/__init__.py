"""The report: one HTML page that says what is in a store, and contact sheets of kept and refused pictures beside it.

The page holds everything it shows (a thumbnail costs 20 KB in it, 120 of them 2.4 MB), loads nothing and runs
nothing, so that it can be copied out of a bucket and opened anywhere. The same store gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from curation.chunks import Spread, in_turn
from curation.records import Reason
from curation.rejects import SHOWN
from curation.report.mosaic import mosaic
from curation.report.page import Gallery, page
from curation.report.parts import number
from curation.report.pictures import Shown, kept_pictures, pairs, refused_pictures
from curation.report.survey import shards, survey
from shards.store import Store

__all__ = ["PAGE", "SHEET", "mosaic", "write_report"]

PAGE: Final = "report/index.html"
SHEET: Final = "report/kept.png"


def write_report(store: Store, spread: Spread = in_turn) -> str:
    """Writes `report/index.html`, `report/kept.png` and `report/<reason>.png` into the store.

    `spread` calls what reads groups of the ledger's parts. Returns where the page is. Raises ValueError for a store
    without a ledger, with one of another schema, or with broken shards; nothing is written then.
    """
    known = survey(store, spread)
    cut = shards(store)
    refused = refused_pictures(store)
    gallery = Gallery(
        kept=kept_pictures(store, known.tally),
        refused=refused,
        pairs=pairs(store, known.tally),
        kept_sheet=_seen_from_page(SHEET),
        refused_sheets={reason: _seen_from_page(_sheet(reason)) for reason in refused},
    )
    _write_sheet(store, SHEET, gallery.kept)
    for reason in SHOWN:
        _write_sheet(store, _sheet(reason), refused.get(reason, ()))
    store.write(PAGE, page(known, gallery, cut))
    return f"{store.root}/{PAGE}"


def _sheet(reason: Reason) -> str:
    return f"report/{reason.value}.png"


def _seen_from_page(name: str) -> str:
    return name.rpartition("/")[2]


def _write_sheet(store: Store, name: str, pictures: Sequence[Shown]) -> None:
    """The contact sheet; without pictures an older one goes."""
    if pictures:
        store.write(name, mosaic([(picture.pixels, _caption(picture)) for picture in pictures]))
    else:
        store.delete(name)


def _caption(picture: Shown) -> str:
    """Two scores a line, then the size."""
    row = picture.row
    scores = [f"{metric} {number(score)}" for metric, score in row.scores.items()]
    lines = ["   ".join(scores[at : at + 2]) for at in range(0, len(scores), 2)]
    return "\n".join([*lines, f"{row.width} x {row.height} {row.format}"])
