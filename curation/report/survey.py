"""What is in a store today, read once: the ledger's parts, in groups that need nothing of each other, and the shards'
manifest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation import ledger
from curation.chunks import Spread, in_turn, read_plan
from curation.judge import MetricThreshold, Thresholds
from curation.report.tally import Tally
from curation.settle import groups
from shards import index, manifest
from shards.manifest import Manifest
from shards.store import Store


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
class Shards:
    """What was cut: the manifest, and the bytes of each source's patches."""

    manifest: Manifest
    bytes_of: Mapping[str, int]


def survey(store: Store, spread: Spread = in_turn) -> Survey:
    """Reads the ledger; `spread` calls what reads groups of parts. The first part says recipe and thresholds.

    Raises ValueError where there is no ledger, or one of another schema version.
    """
    units = list(ledger.units(store))
    if not units:
        raise ValueError(f"{store.root} has no ledger: run dynet-filter with --out {store.root} first")
    [(unit, part)] = _tables(store, units[:1])
    about = ledger.about_in(part.schema)
    thresholds = _thresholds(about, f"{store.root}/{ledger.part_name(unit)}")
    tally, others = Tally(thresholds), 0
    for more, differing in spread(tallied, [(store, group, thresholds, about) for group in groups(units)]):
        tally.merge(more)
        others += differing
    return Survey(
        recipe=about["recipe"],
        weights=about.get("weights", {}),
        thresholds=thresholds,
        tally=tally,
        warnings=tuple(_warnings(store, tally.units, others)),
    )


def tallied(store: Store, units: Sequence[str], thresholds: Thresholds, about: Mapping[str, Any]) -> tuple[Tally, int]:
    """The tally of these units' rows, and how many of the parts say other things than `about` of themselves."""
    tally, differing = Tally(thresholds), 0
    for unit, part in _tables(store, units):
        tally.add(unit, part)
        differing += ledger.about_in(part.schema) != about
    return tally, differing


def _tables(store: Store, units: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    for unit, data in ledger.bodies(store, units):
        yield unit, ledger.decode_table(data, f"{store.root}/{ledger.part_name(unit)}")


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


def shards(store: Store) -> Shards | None:
    """What the store's manifest says, None where nothing is cut. Raises ManifestError for a broken one."""
    if not store.exists(manifest.MANIFEST):
        return None
    known = manifest.read_manifest(store)
    bytes_of: Counter[str] = Counter()
    for table in index.read(store, known, ["source", "data_size"]):
        sums = table.group_by("source").aggregate([("data_size", "sum")])
        bytes_of.update(dict(zip(*(sums[c].to_pylist() for c in ("source", "data_size_sum")), strict=True)))
    return Shards(manifest=known, bytes_of=bytes_of)
