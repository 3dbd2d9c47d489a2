"""From kept originals and plain folders to patch shards, on Ray.

    sources     what `filter_laion` kept, then folders, in the order given
    survey      folders: decoded, hashed, judged by size             folders/<unit>.parquet
    duplicates  across all sources: the earlier source keeps its picture
    cut         per unit, in tasks: lossless 512x512 patches         patches/<unit>.tar, .parquet (its commit)
    pack        patch sizes to shards, a pure function
    shards      per shard, in tasks: members brought together        shards/train-000042.tar
    manifest    index, metadata, then manifest, last                 shards/manifest.json

Where the pictures of the set that is there come first and unchanged, the new ones are added: shards behind its shards,
a new version of the manifest, and a reader sees the old set or the new one. Otherwise the set is made anew: the old
manifest goes before the first shard is touched, and a reader sees the old set, no set, or the new one.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray

from curation import folders, ledger
from curation.duplicates import DEFAULT_MAX_DISTANCE
from curation.folders import Folder
from curation.records import Link, Row
from curation.sources import (
    FILES_PER_UNIT,
    FilteredStore,
    PictureFolder,
    Place,
    Source,
    duplicates_across,
    survey_name,
)
from pipelines import cutting, packing
from pipelines.cluster import connected, each
from pipelines.cutting import Cuttings, CutUnit, cut_unit, fingerprint_unit
from pipelines.recipes import ShardRecipe
from shards import manifest
from shards.manifest import Manifest
from shards.store import Store

Watch = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardJob:
    """One run: the stores and folders that give pictures, in this order, and the store that gets the shards."""

    store: Store
    stores: tuple[Store, ...]
    folders: tuple[Folder, ...]
    recipe: ShardRecipe
    max_pixels: int

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels is {self.max_pixels}: give at least 1 pixel")


def shard(job: ShardJob, watch: Watch) -> Manifest:
    """The whole flow; nothing is written where the store's manifest was made of the same pictures in the same way.

    `watch(units in all, units done)` follows the cutting, which is what takes time. Raises ValueError for sources
    without a picture, StoreError where the store can't be used.
    """
    files = _listed(job)
    job.store.sweep()
    with connected():
        sources = _sources(job, files)
        units = cut_units(sources, _skipped(job, sources))
        prints = _prints(units, job)
        known = _known(job.store)
        base = known if known is not None and _begins_with(known, job, prints) else None
        if base is not None and base.recipe[_UNITS] == len(units):
            made = base
        else:
            made = _made(job, units[base.recipe[_UNITS] if base else 0 :], prints, base, watch)
    cutting.clear(job.store)  # of a run that was killed between its manifest and this, too
    return made


def _listed(job: ShardJob) -> list[list[str]]:
    """The files of each folder. Raises ValueError where there is nothing to cut: before anything is begun."""
    if not job.stores and not job.folders:
        raise ValueError("no source: name a store or a folder")
    for store in job.stores:
        if next(ledger.units(store), None) is None:
            raise ValueError(f"{store.root} has no ledger: run dynet-filter first, or name a folder with --source")
    names = Counter(folder.name for folder in job.folders)
    if shared := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"more than one folder is called {shared[0]}: give each a name, --source NAME=FOLDER")
    return [folder.files() for folder in job.folders]


def _sources(job: ShardJob, files: Sequence[Sequence[str]]) -> list[Source]:
    """In the order given. Surveys folders on the way, once each."""
    found: list[Source] = [FilteredStore(store=store) for store in job.stores]
    for folder, names in zip(job.folders, files, strict=True):
        units = PictureFolder(folder=folder, store=job.store, files=len(names))
        _survey(job, units, folders.links(folder, names))
        found.append(units)
    return found


def _survey(job: ShardJob, source: PictureFolder, links: Sequence[Link]) -> None:
    parts = [
        (unit, links[at : at + FILES_PER_UNIT])
        for unit, at in zip(source.units(), range(0, len(links), FILES_PER_UNIT), strict=True)
    ]
    for _ in each(survey_unit, [(source.folder, unit, part, job) for unit, part in parts], lambda total, done: None):
        pass


@ray.remote(num_cpus=1, max_retries=20)
def survey_unit(folder: Folder, unit: str, links: Sequence[Link], job: ShardJob) -> None:
    """Measures a folder's unit and writes its rows; a unit surveyed before with the same files is left as it is."""
    states = [_file_state(folder, link.url) for link in links]
    about = {"files": states, "min_res": job.recipe.min_res, "max_pixels": job.max_pixels}
    name = survey_name(unit)
    if job.store.exists(name) and ledger.about_of(job.store.read(name)) == about:
        return
    rows = [folders.measure(folder, link, job.recipe.min_res, job.max_pixels) for link in links]
    job.store.write(name, ledger.encode(rows, (), about))


def _file_state(folder: Folder, url: str) -> list[Any]:
    state = (folder.path / url.removeprefix(f"{folder.name}/")).stat()
    return [url, state.st_size, state.st_mtime_ns]


def _skipped(job: ShardJob, sources: Sequence[Source]) -> dict[Place, Row]:
    """Pictures an earlier source has; the surveys of folders say so from now on."""
    ended = duplicates_across(sources, DEFAULT_MAX_DISTANCE)
    for number, source in enumerate(sources):
        if isinstance(source, PictureFolder):
            for unit in source.units():
                rows = source.rows(unit)
                after = [ended.get(Place(source=number, unit=unit, key=row.link.key), row) for row in rows]
                source.mark(unit, after)
    return ended


def cut_units(sources: Sequence[Source], skipped: dict[Place, Row]) -> list[CutUnit]:
    """All units of all sources, in order. `skipped`: the pictures that an earlier one makes redundant."""
    by_unit: dict[tuple[int, str], set[str]] = {}
    for place in skipped:
        by_unit.setdefault((place.source, place.unit), set()).add(place.key)
    return [
        CutUnit(
            source=source,
            unit=unit,
            name=f"{number:02d}-{unit}",
            skip=frozenset(by_unit.get((number, unit), ())),
        )
        for number, source in enumerate(sources)
        for unit in source.units()
    ]


def _prints(units: Sequence[CutUnit], job: ShardJob) -> list[tuple[str, str]]:
    """Each unit's name, and what it would be cut from and how, in a hash."""
    prints = each(fingerprint_unit, [(unit, job.recipe) for unit in units], lambda total, done: None)
    return [(unit.name, fingerprint) for unit, fingerprint in zip(units, prints, strict=True)]


#: How many units the set was made of, and their names and fingerprints in one hash: in the manifest's recipe.
_UNITS, _INPUTS = "units", "inputs"


def _recipe(job: ShardJob, prints: Sequence[tuple[str, str]]) -> dict[str, Any]:
    inputs = hashlib.sha256(json.dumps(prints).encode()).hexdigest()
    return {**asdict(job.recipe), _UNITS: len(prints), _INPUTS: inputs}


def _known(store: Store) -> Manifest | None:
    if not store.exists(manifest.MANIFEST):
        return None
    try:
        return manifest.read_manifest(store)
    except manifest.OutdatedManifest:
        return None


def _begins_with(known: Manifest, job: ShardJob, prints: Sequence[tuple[str, str]]) -> bool:
    """Whether the set is whole and was made of the first of these units, in the same way."""
    count = known.recipe.get(_UNITS, 0)
    return known.recipe == _recipe(job, prints[:count]) and _is_whole(job.store, known)


def _is_whole(store: Store, known: Manifest) -> bool:
    """Every file is there in its full length; `dynet-shard fsck` reads them."""
    files = [(manifest.FOLDER + one.name, one.bytes) for one in known.files]
    return all(store.exists(name) and store.size(name) == size for name, size in files)


def _made(
    job: ShardJob, units: Sequence[CutUnit], prints: Sequence[tuple[str, str]], base: Manifest | None, watch: Watch
) -> Manifest:
    """Cuts `units` and commits them: behind `base`, or as a set of their own."""
    calls = [(unit, job.store, job.recipe, job.max_pixels) for unit in units]
    cuttings: list[Cuttings] = list(each(cut_unit, calls, watch))
    if base is None and not any(one.stored for one in cuttings):
        names = ", ".join(sorted({unit.source.name for unit in units}))
        raise ValueError(f"no patch came of {names}: nothing kept is large enough")
    return packing.add(job.store, cuttings, _recipe(job, prints), job.recipe, base)
