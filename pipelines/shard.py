"""From kept originals and plain folders to patch shards, on Ray.

    sources     what `filter_laion` kept, then folders, in the order given
    survey      folders: decoded, hashed, judged by size             folders/<unit>.parquet
    duplicates  across all sources: the earlier source keeps its picture
    cut         per unit, in tasks: lossless 512x512 patches         patches/<unit>.tar, .parquet (its commit)
    pack        patch sizes to shards, a pure function
    shards      per shard, in tasks: members brought together        shards/train-000042.tar
    manifest    index, then manifest, last                           shards/manifest.json

The old manifest goes before the first shard is touched: a reader sees the old set, no set, or the new one.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
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
from pipelines import cutting
from pipelines.cluster import connected, each
from pipelines.cutting import Cuttings, CutUnit, cut_unit, fingerprint_unit
from pipelines.recipes import ShardRecipe
from shards import codec, manifest, tar
from shards.manifest import Entry, Manifest, Shard
from shards.store import Store

FOLDER = "shards/"
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
        units = _cut_units(sources, _skipped(job, sources))
        recipe = {**asdict(job.recipe), "inputs": _inputs(units, job)}
        known = _known(job.store)
        if known is not None and known.recipe == recipe and _is_whole(job.store, known):
            cutting.clear(job.store)  # of a run that was killed between its manifest and this
            return known
        calls = [(unit, job.store, job.recipe, job.max_pixels) for unit in units]
        cuttings: list[Cuttings] = list(each(cut_unit, calls, watch))
        if not any(one.stored for one in cuttings):
            raise ValueError(f"no patch came of {', '.join(one.name for one in sources)}: nothing kept is large enough")
        made = _published(job, cuttings, recipe)
    cutting.clear(job.store)
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


def _cut_units(sources: Sequence[Source], skipped: dict[Place, Row]) -> list[CutUnit]:
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


def _inputs(units: Sequence[CutUnit], job: ShardJob) -> str:
    """What the shards are made of, in one hash."""
    prints = each(fingerprint_unit, [(unit, job.recipe) for unit in units], lambda total, done: None)
    named = [[unit.name, fingerprint] for unit, fingerprint in zip(units, prints, strict=True)]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _counts(cuttings: Sequence[Cuttings]) -> dict[str, manifest.Source]:
    """Source -> what it gave, by name: the manifest has them in that order too."""
    names = sorted({name for one in cuttings for name in one.pictures})
    return {
        name: manifest.Source(
            pictures=sum(one.pictures.get(name, 0) for one in cuttings),
            with_patches=sum(one.with_patches.get(name, 0) for one in cuttings),
            samples=sum(one.patches.get(name, 0) for one in cuttings),
            flat=sum(one.flat.get(name, 0) for one in cuttings),
        )
        for name in names
    }


def _published(job: ShardJob, cuttings: Sequence[Cuttings], recipe: dict[str, Any]) -> Manifest:
    """Shards, then index, then manifest; no reader takes what lies there in between for a data set."""
    job.store.delete(manifest.MANIFEST)
    spans = list(_spans(cuttings, job.recipe.max_shard_bytes))
    names = [f"{job.recipe.split}-{number:06d}.tar" for number in range(len(spans))]
    tasks = [(job.store, name, number, span) for number, (name, span) in enumerate(zip(names, spans, strict=True))]
    written: list[tuple[Shard, list[Entry]]] = list(each(write_shard, tasks, lambda total, done: None))
    for name in set(job.store.list(FOLDER)) - {FOLDER + name for name in names}:
        job.store.delete(name)
    made = Manifest(recipe=recipe, shards=tuple(one for one, _ in written), sources=_counts(cuttings))
    return manifest.write(job.store, made, (entry for _, entries in written for entry in entries))


def _known(store: Store) -> Manifest | None:
    return manifest.read_manifest(store) if store.exists(manifest.MANIFEST) else None


def _is_whole(store: Store, known: Manifest) -> bool:
    """Every shard is there in its full length; `dynet-shard fsck` reads them."""
    names = [(FOLDER + one.name, one.bytes) for one in known.shards]
    return all(store.exists(name) and store.size(name) == size for name, size in names)


Span = list[tuple[str, list[int]]]  # patches (numbers, ascending) of consecutive units


def _spans(cuttings: Sequence[Cuttings], max_bytes: int) -> Iterator[Span]:
    """Which patches go into which shard: in the order of units, as many as fit, JPEG and PNG apart.

    Apart, because `ray.data.read_webdataset` can't read a tar whose samples have different members.
    """
    for suffix in codec.SUFFIX.values():
        owned = [
            (one.name, number, size)
            for one in cuttings
            for number, (size, of) in enumerate(zip(one.stored, one.suffixes, strict=True))
            if of == suffix
        ]
        for packed in tar.pack([size for _, _, size in owned], max_bytes):
            span: dict[str, list[int]] = {}
            for name, number, _ in owned[packed.start : packed.stop]:
                span.setdefault(name, []).append(number)
            yield list(span.items())


@ray.remote(num_cpus=1, max_retries=20)
def write_shard(store: Store, name: str, number: int, span: Span) -> tuple[Shard, list[Entry]]:
    """Brings a shard's members together, sorted by name, and writes it."""
    pieces = [triple for unit, which in span for triple in cutting.read_members(store, unit, which)]
    pieces.sort(key=lambda triple: triple[0].sample)
    with tempfile.TemporaryDirectory(prefix="million-ird-") as scratch:
        target = Path(scratch) / name
        placed = {one.name: one for one in tar.write(target, _members(pieces))}
        written = store.write(FOLDER + name, target)
    entries = [_entry(piece, number, placed) for piece, _, _ in pieces]
    return Shard(name=name, bytes=written.size, sha256=written.sha256, samples=len(pieces)), entries


def _members(pieces: Sequence[tuple[cutting.Piece, bytes, bytes]]) -> Iterator[tuple[str, bytes]]:
    for piece, data, text in pieces:
        yield from sorted(((f"{piece.sample}.{piece.suffix}", data), (f"{piece.sample}.json", text)))


def _entry(piece: cutting.Piece, shard_number: int, placed: dict[str, tar.Placed]) -> Entry:
    data, text = placed[f"{piece.sample}.{piece.suffix}"], placed[f"{piece.sample}.json"]
    return Entry(
        sample=piece.sample,
        key=piece.sample.partition("_")[0],
        source=piece.source,
        shard=shard_number,
        suffix=piece.suffix,
        data_offset=data.offset,
        data_size=data.size,
        json_offset=text.offset,
        json_size=text.size,
    )
