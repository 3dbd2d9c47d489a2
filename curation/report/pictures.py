"""The pictures of the report: of kept ones and duplicates the originals, of refused ones what `rejects/` has.

At most some dozen tars of originals are read, one at a time, and thumbnails held alone: a report of 170,000 chunks
needs no more memory than one of a dozen.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from PIL import Image

from curation import ledger, originals, rejects
from curation.decode import decode
from curation.judge import MetricThreshold, Thresholds
from curation.records import Picture, Reason, Row
from curation.report.tally import Tally
from curation.scorers.catalog import OWN
from curation.thumbnails import thumbnail
from shards.store import Store
from shards.tar import TarError

REJECT_UNITS: Final = 12  # chunks that refused pictures are shown from
REJECTS: Final = 12  # per reason
_OF: Final = re.compile(r"of (?P<key>[0-9a-f]{16}) in (?P<unit>chunk-[0-9]{8})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A row and its thumbnail, (256, 256, 3) uint8."""

    row: Row
    pixels: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A duplicate and the picture earlier in the list that it repeats, as thumbnails."""

    row: Row
    pixels: np.ndarray = field(repr=False)
    earlier: np.ndarray = field(repr=False)


def kept_pictures(store: Store, tally: Tally) -> list[Shown]:
    """The kept pictures to show, best by `ranked_by` first. Originals that can't be read are left out."""
    found: list[Shown] = []
    for unit, rows in tally.shown():
        wanted = {row.link.key: row for row in rows}
        found += [Shown(row=wanted[key], pixels=pixels) for key, pixels in _thumbnails(store, unit, wanted.keys())]
    metric = ranked_by(tally.thresholds)
    return sorted(found, key=lambda picture: _goodness(picture.row, metric))


def refused_pictures(store: Store) -> dict[Reason, list[Shown]]:
    """Reason -> a few pictures that ended so today, as thumbnails, drawn by hash."""
    found: dict[Reason, list[Shown]] = {}
    units = set(rejects.units(store)) & set(ledger.units(store))  # a chunk killed before its commit has but the first
    for unit in sorted(units, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:REJECT_UNITS]:
        small = dict(rejects.read(store, unit))
        for row in ledger.read(store, unit):
            if row.link.key in small and row.reason in rejects.SHOWN:
                pixels = np.asarray(Image.open(io.BytesIO(small.pop(row.link.key))).convert("RGB"))
                found.setdefault(row.reason, []).append(Shown(row=row, pixels=pixels))
    ranked = {reason: sorted(shown, key=lambda one: one.row.link.key) for reason, shown in found.items()}
    return {reason: ranked[reason][:REJECTS] for reason in rejects.SHOWN if reason in ranked}


def pairs(store: Store, tally: Tally) -> list[Pair]:
    """A few duplicates beside what they repeat. Originals that can't be read are left out."""
    wanted: dict[str, set[str]] = {}
    placed = [(unit, row, match) for unit, row in tally.duplicates.items if (match := _OF.fullmatch(row.detail))]
    for unit, row, match in placed:
        wanted.setdefault(unit, set()).add(row.link.key)
        wanted.setdefault(match["unit"], set()).add(match["key"])
    seen = {(unit, key): pixels for unit, keys in wanted.items() for key, pixels in _thumbnails(store, unit, keys)}
    return [
        Pair(row=row, pixels=seen[unit, row.link.key], earlier=seen[match["unit"], match["key"]])
        for unit, row, match in placed
        if (unit, row.link.key) in seen and (match["unit"], match["key"]) in seen
    ]


def _thumbnails(store: Store, unit: str, keys: Set[str]) -> Iterator[tuple[str, np.ndarray]]:
    left = set(keys)
    try:
        for key, body in originals.read(store, unit):
            if key in left and isinstance(picture := decode(body), Picture):
                yield key, thumbnail(picture.pixels)
            left.discard(key)
            if not left:
                return
    except TarError as error:
        part = ledger.part_name(unit)
        raise ValueError(
            f"{store.root}/{originals.tar_name(unit)}: {error}; remove it and {part} and run the filter again"
        ) from error


def ranked_by(thresholds: Thresholds) -> MetricThreshold | None:
    """The metric that kept pictures are ordered by: the first that says how good one is, which a detector does not."""
    return next((one for one in thresholds.metrics if one.metric not in OWN), None)


def _goodness(row: Row, metric: MetricThreshold | None) -> tuple[float, str]:
    """Ascending: best first."""
    if metric is None:
        return 0.0, row.link.key
    score = row.scores.get(metric.metric, 0.0)
    return (score if metric.lower_better else -score), row.link.key
