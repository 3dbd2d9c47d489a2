"""The report: one HTML page that says what is in a store, and a contact sheet of kept pictures beside it.

The page holds everything it shows (a thumbnail costs 20 KB in it, 48 of them 1 MB), loads nothing and runs nothing, so
that it can be copied out of a bucket and opened anywhere. The same store gives the same bytes.
"""

from __future__ import annotations

from typing import Final

from curation.report.mosaic import mosaic
from curation.report.page import page
from curation.report.parts import number
from curation.report.survey import KeptPicture, kept_pictures, shards, survey
from shards.store import Store

__all__ = ["PAGE", "SHEET", "mosaic", "write_report"]

PAGE: Final = "report/index.html"
SHEET: Final = "report/kept.png"


def write_report(store: Store) -> str:
    """Writes `report/index.html` and `report/kept.png` into the store; returns where the page is.

    Raises ValueError for a store without a ledger, with one of another schema, or with broken shards; nothing is
    written then.
    """
    known = survey(store)
    cut = shards(store)
    pictures = kept_pictures(store, known.tally)
    if pictures:
        store.write(SHEET, mosaic([(picture.pixels, _caption(picture)) for picture in pictures]))
    else:
        store.delete(SHEET)
    store.write(PAGE, page(known, pictures, cut, SHEET.rpartition("/")[2]))
    return f"{store.root}/{PAGE}"


def _caption(picture: KeptPicture) -> str:
    """Two scores a line, then the size."""
    row = picture.row
    scores = [f"{metric} {number(score)}" for metric, score in row.scores.items()]
    lines = ["   ".join(scores[at : at + 2]) for at in range(0, len(scores), 2)]
    return "\n".join([*lines, f"{row.width} x {row.height} {row.format}"])
