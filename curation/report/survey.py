"""What is in a store today, read once: ledger parts, one at a time, and the shards' manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from curation import ledger
from curation.chunks import read_plan
from curation.judge import MetricThreshold, Thresholds
from curation.report.tally import Tally
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


def survey(store: Store) -> Survey:
    """Reads the ledger. Raises ValueError where there is none, or one of another schema version."""
    tally, about, others = None, dict[str, Any](), 0
    for unit, data in ledger.bodies(store, ledger.units(store)):
        name = ledger.part_name(unit)
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
