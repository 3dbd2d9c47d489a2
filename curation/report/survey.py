"""What is in a store today, read once: ledger parts, a few kept originals, the shards' manifest.

Parts are read one at a time, and of originals at most 12 tars: a report of 170,000 chunks needs no more memory than
one of a dozen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curation import ledger, originals
from curation.chunks import read_plan
from curation.decode import decode
from curation.judge import MetricThreshold, Thresholds
from curation.records import Picture, Row
from curation.report.mosaic import thumbnail
from curation.report.tally import Tally
from shards import manifest
from shards.manifest import Manifest
from shards.store import Store
from shards.tar import TarError


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """The ledger: what its parts say of themselves, and the tally of their rows."""

    recipe: Mapping[str, Any]
    weights: Mapping[str, str]
    thresholds: Thresholds
    tally: Tally
    warnings: tuple[str, ...]

    @property
    def source(self) -> str:
        """The list's name."""
        return str(self.recipe.get("source", "unnamed"))


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptPicture:
    """A kept row and its thumbnail, (256, 256, 3) uint8."""

    row: Row
    pixels: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shards:
    """What was cut: the manifest, and the bytes of each source's patches."""

    manifest: Manifest
    bytes_of: Mapping[str, int]


def survey(store: Store) -> Survey:
    """Reads the ledger. Raises ValueError where there is none, or one of another schema version."""
    tally, about, others = None, dict[str, Any](), 0
    for unit in ledger.units(store):
        name = ledger.part_name(unit)
        data = store.read(name)
        rows, said = ledger.decode(data, f"{store.root}/{name}"), ledger.about_of(data)
        if tally is None:
            about, tally = said, Tally(_thresholds(said, f"{store.root}/{name}"))
        others += said != about
        tally.add(unit, rows)
    if tally is None:
        raise ValueError(f"{store.root} has no ledger: run dynet-filter with --out {store.root} first")
    return Survey(
        recipe=about["recipe"],
        weights=about.get("weights", {}),
        thresholds=_thresholds(about, store.root),
        tally=tally,
        warnings=tuple(_warnings(store, tally.units, others)),
    )


def _thresholds(about: Mapping[str, Any], name: str) -> Thresholds:
    try:
        bounds = dict(about["recipe"]["thresholds"])
        bounds["metrics"] = tuple(MetricThreshold(**one) for one in bounds["metrics"])
        return Thresholds(**bounds)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{name} does not say its thresholds: run dynet-filter judge on the store") from error


def _warnings(store: Store, units: int, others: int) -> Iterator[str]:
    plan = read_plan(store)
    if plan is not None and units < plan.chunks:
        yield (
            f"The run is not finished: {units:,} of {plan.chunks:,} chunks are done, and duplicates are not settled. "
            "The filter's command, given again, goes on from here."
        )
    if others:
        yield (
            f"{others:,} chunk{' was' if others == 1 else 's were'} judged by another recipe than the one shown: "
            "dynet-filter judge, given again, settles all of them alike."
        )


def kept_pictures(store: Store, tally: Tally) -> list[KeptPicture]:
    """The kept pictures to show, best score of the first metric first. Originals that can't be read are left out."""
    found = [picture for unit, rows in tally.shown() for picture in _pictures(store, unit, rows)]
    return sorted(found, key=lambda picture: _goodness(picture.row, tally))


def _pictures(store: Store, unit: str, rows: Sequence[Row]) -> Iterator[KeptPicture]:
    wanted = {row.link.key: row for row in rows}
    try:
        for key, body in originals.read(store, unit):
            row = wanted.pop(key, None)
            picture = decode(body) if row is not None else None
            if row is not None and isinstance(picture, Picture):
                yield KeptPicture(row=row, pixels=thumbnail(picture.pixels))
            if not wanted:
                return
    except TarError as error:
        part = ledger.part_name(unit)
        raise ValueError(
            f"{store.root}/{originals.tar_name(unit)}: {error}; remove it and {part} and run the filter again"
        ) from error


def _goodness(row: Row, tally: Tally) -> tuple[float, str]:
    """Ascending: best first."""
    for metric, histogram in tally.histograms.items():
        score = row.scores.get(metric, 0.0)
        return (score if histogram.threshold.lower_better else -score), row.link.key
    return 0.0, row.link.key


def shards(store: Store) -> Shards | None:
    """What the store's manifest says, None where nothing is cut. Raises ManifestError for a broken one."""
    if not store.exists(manifest.MANIFEST):
        return None
    known = manifest.read_manifest(store)
    bytes_of: Counter[str] = Counter()
    for batch in manifest.read_index(store, ["source", "data_size"]):
        sums = pa.Table.from_batches([batch]).group_by("source").aggregate([("data_size", "sum")])
        bytes_of.update(dict(zip(*(sums[c].to_pylist() for c in ("source", "data_size_sum")), strict=True)))
    return Shards(manifest=known, bytes_of=bytes_of)
