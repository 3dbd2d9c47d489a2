"""From cuttings to shards and their manifest: which patch goes where, tars written in tasks, the manifest last."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from curation import metadata
from pipelines import cutting
from pipelines.cluster import each
from pipelines.cutting import Cuttings
from pipelines.recipes import ShardRecipe
from shards import codec, index, manifest, parquet, tar
from shards.index import Entry
from shards.manifest import Manifest, Shard, Source, Version
from shards.store import Store


def add(
    store: Store, cuttings: Sequence[Cuttings], recipe: dict[str, Any], how: ShardRecipe, base: Manifest | None
) -> Manifest:
    """Shards, then index and metadata, then the manifest: behind what `base` has, or as a set of their own."""
    if base is None:
        store.delete(manifest.MANIFEST)  # its shards' names are about to get other bytes
    old = base.shards if base else ()
    spans = list(_spans(cuttings, how.max_shard_bytes))
    numbers = range(len(old), len(old) + len(spans))
    tasks = [
        (store, f"{how.split}-{number:06d}.tar", number, span) for number, span in zip(numbers, spans, strict=True)
    ]
    with tempfile.TemporaryDirectory(prefix="million-ird-") as scratch:
        added = Path(scratch) / "index.arrow"
        shards = (*old, *_spooled(each(write_shard, tasks, lambda total, done: None), added))
        versions, set_id = _versions(base, len(shards)), base.set if base else manifest.set_id(shards)
        made = Manifest(
            set=set_id,
            recipe=recipe,
            shards=shards,
            sources=_counts(base.sources if base else {}, cuttings),
            index=index.write(store, set_id, versions, _index(store, base, added)),
            metadata=_write_metadata(store, versions, base, cuttings),
            tombstones=base.tombstones if base else None,
            versions=versions,
        )
    manifest.commit(store, made)
    manifest.tidy(store, made)
    return made


def _spooled(written: Iterator[tuple[Shard, pa.Table]], path: Path) -> list[Shard]:
    """The shards. Their rows of the index, 1.8 GB of 14 million, wait in a file: the set's name needs every shard."""
    shards: list[Shard] = []
    with pa.ipc.new_file(str(path), index.SCHEMA) as file:
        for one, table in written:
            file.write_table(table.combine_chunks())
            shards.append(one)
    return shards


def _versions(base: Manifest | None, shards: int) -> tuple[Version, ...]:
    if base is None:
        return (Version(number=1, shards=shards, tombstones=0),)
    removed = base.versions[-1].tombstones
    return (*base.versions, Version(number=base.version + 1, shards=shards, tombstones=removed))


def _index(store: Store, base: Manifest | None, added: Path) -> Iterator[pa.Table]:
    if base is not None:
        yield from index.read(store, base)
    with pa.memory_map(str(added)) as mapped, pa.ipc.open_file(mapped) as file:
        for number in range(file.num_record_batches):
            yield pa.Table.from_batches([file.get_batch(number)])


def _write_metadata(
    store: Store, versions: tuple[Version, ...], base: Manifest | None, cuttings: Sequence[Cuttings]
) -> manifest.Part:
    """A row a picture, in the order of the units, with the columns of all units together."""
    names = [one.name for one in cuttings]

    def tables() -> Iterator[pa.Table]:
        if base is not None:
            yield from parquet.read(store, base.metadata)
        yield from cutting.metadata_tables(store, names)

    schemas = {parquet.schema_of(store, base.metadata)} if base else set()
    schemas |= {table.schema for table in cutting.metadata_tables(store, names)}
    schema = metadata.common_schema(sorted(schemas, key=lambda one: one.names))
    name = manifest.part_name("metadata", versions)
    conformed = (metadata.conformed(table, schema) for table in tables())
    return parquet.write(store, name, schema, parquet.regrouped(conformed))


def _counts(old: Mapping[str, Source], cuttings: Sequence[Cuttings]) -> dict[str, Source]:
    """Source -> what it gave in all, by name: the manifest has them in that order too."""
    names = sorted({*old, *(name for one in cuttings for name in one.pictures)})
    none = Source(pictures=0, with_patches=0, samples=0, flat=0)
    return {
        name: Source(
            pictures=old.get(name, none).pictures + sum(one.pictures.get(name, 0) for one in cuttings),
            with_patches=old.get(name, none).with_patches + sum(one.with_patches.get(name, 0) for one in cuttings),
            samples=old.get(name, none).samples + sum(one.patches.get(name, 0) for one in cuttings),
            flat=old.get(name, none).flat + sum(one.flat.get(name, 0) for one in cuttings),
        )
        for name in names
    }


Span = list[tuple[str, list[int]]]  # patches (numbers, ascending) of consecutive units


def _spans(cuttings: Sequence[Cuttings], max_bytes: int) -> Iterator[Span]:
    """Which patches go into which shard: in the order of units, as many as fit, JPEG and PNG apart.

    Apart, because `ray.data.read_webdataset` can't read a tar whose samples have different members.
    """
    for suffix in codec.SUFFIX.values():
        units, numbers, sizes = array("l"), array("l"), array("q")  # 24 bytes a patch
        for place, one in enumerate(cuttings):
            for number, (size, of) in enumerate(zip(one.stored, one.suffixes, strict=True)):
                if of == suffix:
                    units.append(place)
                    numbers.append(number)
                    sizes.append(size)
        for packed in tar.pack(sizes, max_bytes):
            span: dict[str, list[int]] = {}
            for at in packed:
                span.setdefault(cuttings[units[at]].name, []).append(numbers[at])
            yield list(span.items())


@ray.remote(num_cpus=1, max_retries=20)
def write_shard(store: Store, name: str, number: int, span: Span) -> tuple[Shard, pa.Table]:
    """Brings a shard's members together, sorted by name, and writes it; with its rows of the index."""
    pieces = [triple for unit, which in span for triple in cutting.read_members(store, unit, which)]
    pieces.sort(key=lambda triple: triple[0].sample)
    with tempfile.TemporaryDirectory(prefix="million-ird-") as scratch:
        target = Path(scratch) / name
        placed = {one.name: one for one in tar.write(target, _members(pieces))}
        written = store.write(manifest.FOLDER + name, target)
    entries = [_entry(piece, number, slot, placed) for slot, (piece, _, _) in enumerate(pieces)]
    count = len(entries)
    one = Shard(name=name, bytes=written.size, sha256=written.sha256, samples=count, slots=count)
    return one, index.to_table(entries)


def _members(pieces: Sequence[tuple[cutting.Piece, bytes, bytes]]) -> Iterator[tuple[str, bytes]]:
    for piece, data, text in pieces:
        yield from sorted(((f"{piece.sample}.{piece.suffix}", data), (f"{piece.sample}.json", text)))


def _entry(piece: cutting.Piece, shard_number: int, slot: int, placed: dict[str, tar.Placed]) -> Entry:
    data, text = placed[f"{piece.sample}.{piece.suffix}"], placed[f"{piece.sample}.json"]
    return Entry(
        sample=piece.sample,
        key=piece.sample.partition("_")[0],
        source=piece.source,
        shard=shard_number,
        slot=slot,
        suffix=piece.suffix,
        digest=data.digest,
        data_offset=data.offset,
        data_size=data.size,
        json_offset=text.offset,
        json_size=text.size,
    )
