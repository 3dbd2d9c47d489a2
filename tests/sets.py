"""Small data sets of drawn patches, written in seconds and without Ray: for what reads, publishes and repairs them."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from curation import metadata
from curation.records import Link, Row, url_key
from shards import index, manifest, parquet, tar
from shards.format import Description, sample_name, to_json
from shards.manifest import FOLDER, Manifest, Shard, Source, Version
from shards.store import Store


def url(number: int) -> str:
    """Three hosts in turn."""
    return f"http://{'abc'[number % 3]}.example/{number}.jpg"


def patch(number: int, size: int, suffix: str = "jpg") -> bytes:
    """A picture like no other: smooth waves, and a level that says its number."""
    rows, columns = np.mgrid[0:size, 0:size]
    waves = 60 * np.sin((number % 7 + 1) * rows / 11.0) + 60 * np.cos((number % 5 + 1) * columns / 13.0)
    pixels = np.stack([128 + waves, 128 - waves, np.full_like(waves, number % 256)], axis=2)
    sink = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
        sink, {"jpg": "JPEG", "png": "PNG"}[suffix], **({"quality": 90} if suffix == "jpg" else {})
    )
    return sink.getvalue()


def write_set(
    store: Store,
    counts: Sequence[int],
    size: int = 64,
    suffix: str = "jpg",
    base: Manifest | None = None,
    per_picture: int = 1,
) -> Manifest:
    """A committed set of shards with so many samples each, behind those of `base`.

    So many patches in a row are one picture's, also across a shard's end.
    """
    old = base.shards if base else ()
    first = base.samples if base else 0
    shards, tables, rows = list(old), list(index.read(store, base)) if base else [], []
    for count in counts:
        numbers = range(first, first + count)
        one, table = _write_shard(store, len(shards), numbers, size, suffix, per_picture)
        rows += [_row(number, size) for number in numbers if not number % per_picture]
        shards.append(one)
        tables.append(table)
        first += count
    versions = (*(base.versions if base else ()),)
    number, removed = len(versions) + 1, versions[-1].tombstones if versions else 0
    versions = (*versions, Version(number=number, shards=len(shards), tombstones=removed))
    described = metadata.table(rows, "00-chunk-00000000", {row.link.key: per_picture for row in rows})
    if base is not None:
        described = pa.concat_tables([*parquet.read(store, base.metadata), described])
    set_id = base.set if base else manifest.set_id(shards)
    made = Manifest(
        set=set_id,
        recipe={"size": size},
        shards=tuple(shards),
        sources={"test": Source(pictures=first, with_patches=first, samples=first, flat=0)},
        index=index.write(store, set_id, versions, tables),
        metadata=parquet.write(store, manifest.part_name("metadata", versions), described.schema, [described]),
        tombstones=base.tombstones if base else None,
        versions=versions,
    )
    manifest.commit(store, made)
    return made


def _row(number: int, size: int) -> Row:
    link = Link(position=number, key=url_key(url(number)), url=url(number), source="test", license="CC0")
    scores = {"niqe": 3.0 + number / 100}
    return Row(link=link, width=size, height=size, format="jpeg", sha256=f"{number:064x}", scores=scores)


def _write_shard(
    store: Store, place: int, numbers: Sequence[int], size: int, suffix: str, per_picture: int
) -> tuple[Shard, pa.Table]:
    samples = sorted(
        (sample_name(url_key(url(number - number % per_picture)), 0, number % per_picture * size), number)
        for number in numbers
    )
    members = []
    for sample, number in samples:
        description = Description(
            key=sample[:16],
            url=url(number - number % per_picture),
            source="test",
            width=size * per_picture,
            height=size,
            top=0,
            left=number % per_picture * size,
            size=size,
            flat_fraction=0.0,
            codec={"jpg": "jpeg-dct", "png": "png"}[suffix],
            scores={"niqe": 3.0 + number / 100},
        )
        two = [(f"{sample}.{suffix}", patch(number, size, suffix)), (f"{sample}.json", to_json(description))]
        members += sorted(two)
    name = f"train-{place:06d}.tar"
    with tempfile.TemporaryDirectory() as folder:
        placed = {one.name: one for one in tar.write(Path(folder) / name, members)}
        written = store.write(FOLDER + name, Path(folder) / name)
    entries = [
        index.Entry(
            sample=sample,
            key=sample[:16],
            source="test",
            shard=place,
            slot=slot,
            suffix=suffix,
            digest=placed[f"{sample}.{suffix}"].digest,
            data_offset=placed[f"{sample}.{suffix}"].offset,
            data_size=placed[f"{sample}.{suffix}"].size,
            json_offset=placed[f"{sample}.json"].offset,
            json_size=placed[f"{sample}.json"].size,
        )
        for slot, (sample, _) in enumerate(samples)
    ]
    count = len(entries)
    one = Shard(name=name, bytes=written.size, sha256=written.sha256, samples=count, slots=count)
    return one, index.to_table(entries)
