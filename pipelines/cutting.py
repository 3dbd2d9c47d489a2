"""Cutting a unit's pictures into patches: one Ray task a unit, its result a tar and (last, the commit) an index.

A unit's fingerprint covers which pictures it has and how they are cut. An index with the same fingerprint means
the unit is done; with another, it is done again.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from curation import forgotten, metadata
from curation.decode import decode
from curation.forgotten import Requests
from curation.records import Reason, Refusal, Row
from curation.sources import Source
from pipelines.recipes import ShardRecipe
from shards import codec, tar
from shards.format import Description, sample_name, to_json
from shards.pool import pooled
from shards.store import Store

FOLDER: Final = "patches/"
#: Of what cutting does: part of the fingerprint. Patches say how long their rows are since a release within version 2.
VERSION: Final = 2
_ABOUT: Final = b"million_ird.cut"
_SCHEMA: Final = pa.schema(
    [(name, pa.string()) for name in ("sample", "source", "suffix", "digest")]
    + [(name, pa.int64()) for name in ("data_offset", "data_size", "json_offset", "json_size")]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CutUnit:
    """One unit of one source. `skip`: keys of pictures that an earlier source has."""

    source: Source
    unit: str
    name: str  # in the store of the shards
    skip: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A patch in its unit's tar: where its two members' data lie, in bytes."""

    sample: str
    source: str
    suffix: str
    digest: str  # of the data: `tar.digest`
    data_offset: int
    data_size: int
    json_offset: int
    json_size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cuttings:
    """What a unit gave. Counts are per source: a store may hold more than one."""

    name: str
    fingerprint: str
    pictures: dict[str, int]
    with_patches: dict[str, int]  # pictures with at least one patch
    patches: dict[str, int]
    flat: dict[str, int]  # patches dropped
    stored: Sequence[int]  # per patch: bytes that its members take in a tar; an array, as there are millions
    suffixes: tuple[str, ...]  # per patch: "jpg" or "png"


@ray.remote(num_cpus=1, max_retries=20)
def cut_unit(unit: CutUnit, store: Store, recipe: ShardRecipe, max_pixels: int) -> Cuttings:
    """Cuts what the unit keeps, unless that is done. Raises ValueError where a kept picture can't be had."""
    rows = wanted(unit, recipe)
    fingerprint = _fingerprint(rows, recipe)
    known = _read(store, unit.name)
    if known is not None and known.fingerprint == fingerprint:
        return known
    rows = remaining(rows, forgotten.read(store))
    with tempfile.TemporaryDirectory(prefix="million-ird-") as scratch:
        return _cut(unit, rows, fingerprint, store, recipe, max_pixels, Path(scratch) / "patches.tar")


@ray.remote(num_cpus=1, max_retries=20)
def fingerprint_unit(unit: CutUnit, recipe: ShardRecipe) -> str:
    """What cutting the unit would be made of, without cutting it."""
    return _fingerprint(wanted(unit, recipe), recipe)


def wanted(unit: CutUnit, recipe: ShardRecipe) -> list[Row]:
    """What the unit keeps. Forgotten pictures too: its print stays, and the set can go on growing behind it."""
    return [
        row
        for row in unit.source.rows(unit.unit)
        if row.was_kept and min(row.width or 0, row.height or 0) >= recipe.min_res and row.link.key not in unit.skip
    ]


def remaining(rows: Sequence[Row], asked: Requests) -> list[Row]:
    """Those of the rows that are not forgotten."""
    return [row for row in rows if row.reason is Reason.KEPT and not asked.cover(row.link.url, row.sha256)]


def _fingerprint(rows: Sequence[Row], recipe: ShardRecipe) -> str:
    pictures = [[row.link.key, row.sha256, sorted(row.scores.items())] for row in rows]
    how = [VERSION, recipe.size, recipe.max_flat]
    return hashlib.sha256(json.dumps([how, pictures]).encode()).hexdigest()


def _cut(
    unit: CutUnit,
    rows: Sequence[Row],
    fingerprint: str,
    store: Store,
    recipe: ShardRecipe,
    max_pixels: int,
    target: Path,
) -> Cuttings:
    flat: Counter[str] = Counter()
    sources: dict[str, str] = {}

    def members() -> Iterator[tuple[str, bytes]]:
        for row, body in unit.source.bodies(unit.unit, rows):
            cut = patches_of(row, body, recipe, max_pixels)
            flat[row.link.source] += cut.flat
            sources[row.link.key] = row.link.source
            yield from members_of(row, cut)

    pieces = _pieces(tar.write(target, members()), sources)
    made = Cuttings(
        name=unit.name,
        fingerprint=fingerprint,
        pictures=dict(Counter(row.link.source for row in rows)),
        with_patches=dict(Counter(sources[key] for key in {piece.sample[:16] for piece in pieces})),
        patches=dict(Counter(piece.source for piece in pieces)),
        flat=dict(flat),
        stored=array("q", (tar.stored_size(piece.data_size, piece.json_size) for piece in pieces)),
        suffixes=tuple(piece.suffix for piece in pieces),
    )
    per_picture = Counter(piece.sample.partition("_")[0] for piece in pieces)
    store.write(_tar_name(unit.name), target)
    store.write(_metadata_name(unit.name), _parquet(metadata.table(rows, unit.name, per_picture)))
    store.write(_index_name(unit.name), _encoded(made, pieces))
    return made


def patches_of(row: Row, body: bytes, recipe: ShardRecipe, max_pixels: int) -> codec.Cut:
    """A picture's patches. Raises ValueError where its bytes are not those of the row, or can't be decoded."""
    if hashlib.sha256(body).hexdigest() != row.sha256:
        raise ValueError(f"{row.link.url}: its bytes are not those of the ledger any more; run the filter again")
    picture = decode(body, max_pixels)
    if isinstance(picture, Refusal):
        raise ValueError(f"{row.link.url} was decoded once and is {picture.reason.value} now: see --max-pixels")
    return codec.cut(body, picture.pixels, format=picture.format, size=recipe.size, max_flat=recipe.max_flat)


def members_of(row: Row, cut: codec.Cut) -> Iterator[tuple[str, bytes]]:
    """The (name, bytes) of the members that a picture's patches make in a tar: two a patch."""
    for patch in cut.patches:
        name = sample_name(row.link.key, patch.top, patch.left)
        yield f"{name}.{codec.SUFFIX[patch.codec]}", patch.data
        yield f"{name}.json", to_json(_description(row, patch))


def _description(row: Row, patch: codec.Patch) -> Description:
    assert row.width is not None and row.height is not None, "a kept row was measured"
    return Description(
        key=row.link.key,
        url=row.link.url,
        source=row.link.source,
        width=row.width,
        height=row.height,
        top=patch.top,
        left=patch.left,
        size=patch.size,
        flat_fraction=round(patch.flat_fraction, 6),
        codec=patch.codec,
        scores=row.scores,
    )


def _pieces(placed: Sequence[tar.Placed], sources: dict[str, str]) -> list[Piece]:
    return [
        Piece(
            sample=data.name.partition(".")[0],
            source=sources[data.name.partition("_")[0]],
            suffix=data.name.partition(".")[2],
            digest=data.digest,
            data_offset=data.offset,
            data_size=data.size,
            json_offset=text.offset,
            json_size=text.size,
        )
        for data, text in zip(placed[::2], placed[1::2], strict=True)
    ]


def _encoded(made: Cuttings, pieces: Sequence[Piece]) -> bytes:
    about = {
        "fingerprint": made.fingerprint,
        "pictures": made.pictures,
        "with_patches": made.with_patches,
        "patches": made.patches,
        "flat": made.flat,
    }
    schema = _SCHEMA.with_metadata({_ABOUT: json.dumps(about, sort_keys=True).encode()})
    columns = {name: [getattr(piece, name) for piece in pieces] for name in _SCHEMA.names}
    return _parquet(pa.table(columns, schema=schema))


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _read(store: Store, name: str) -> Cuttings | None:
    if not store.exists(_index_name(name)):
        return None
    table = pq.read_table(io.BytesIO(store.read(_index_name(name))))
    about = json.loads(table.schema.metadata[_ABOUT])
    sizes = zip(table["data_size"].to_pylist(), table["json_size"].to_pylist(), strict=True)
    stored = array("q", (tar.stored_size(*pair) for pair in sizes))
    return Cuttings(name=name, **about, stored=stored, suffixes=tuple(table["suffix"].to_pylist()))


def read_members(store: Store, name: str, which: Sequence[int]) -> Iterator[tuple[Piece, bytes, bytes]]:
    """The unit's patches number `which`, ascending: (piece, image bytes, JSON bytes), by one read of the tar."""
    table = pq.read_table(io.BytesIO(store.read(_index_name(name)))).take(which)
    pieces = [Piece(**entry) for entry in table.to_pylist()]
    start = pieces[0].data_offset
    window = store.read(_tar_name(name), start, pieces[-1].json_offset + pieces[-1].json_size - start)
    for piece in pieces:
        data_at, json_at = piece.data_offset - start, piece.json_offset - start
        yield piece, window[data_at : data_at + piece.data_size], window[json_at : json_at + piece.json_size]


def metadata_tables(store: Store, names: Sequence[str]) -> Iterator[pa.Table]:
    """What these units say of their pictures: a row each, as `curation.metadata` has them, a unit at a time."""
    for data in pooled(store.read, map(_metadata_name, names)):
        yield pq.ParquetFile(io.BytesIO(data), pre_buffer=False).read(use_threads=False)


def clear(store: Store) -> None:
    """Removes all cuttings: once the shards are made of them they only take room."""
    for _ in pooled(store.delete, list(store.list(FOLDER))):
        pass


def _tar_name(name: str) -> str:
    return f"{FOLDER}{name}.tar"


def _metadata_name(name: str) -> str:
    return f"{FOLDER}{name}.metadata.parquet"


def _index_name(name: str) -> str:
    return f"{FOLDER}{name}.parquet"
