"""`dynet-shard show`: from a patch's name to its link, hash, scores, crop and shard."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from curation.records import METRIC_PREFIX
from jobs import terminal
from shards import lookup, manifest
from shards.lookup import Place
from shards.manifest import FOLDER

PROGRAM = "dynet-shard show"


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _show(flags))


def _show(flags: argparse.Namespace) -> None:
    store = terminal.out_store(flags.store, flags.endpoint_url)
    key = lookup.key_of(flags.key)
    known = manifest.read_manifest(store)
    places = list(lookup.patches(store, known, flags.key))
    picture = lookup.picture(store, known, key)
    if not places and (picture is None or flags.key != key):
        raise ValueError(f"{store.root} has no {flags.key} in version {known.version}: it never had, or it was purged")
    described = _picture(picture) if picture else _removed(places[0])
    blocks = [described, *(_patch(place) for place in places)]
    print("\n\n".join(_lines(dict(block)) for block in blocks))


def _picture(row: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    yield from ((name, row[name]) for name in ("key", "url", "source", "license", "sha256"))
    yield "size", f"{row['width']} x {row['height']} {row['format']}, {row['bytes'] or '?'} bytes"
    yield "unit", row["unit"]
    yield "patches", row["patches"]
    scores = [(name.removeprefix(METRIC_PREFIX), row[name]) for name in row if name.startswith(METRIC_PREFIX)]
    yield from ((name, terminal.shown(score)) for name, score in scores if score is not None)


def _removed(place: Place) -> Iterator[tuple[str, object]]:
    """What the tar still says of a picture that the metadata doesn't have any more."""
    said = place.description
    yield from (("key", said.key), ("url", said.url), ("source", said.source))
    yield "size", f"{said.width} x {said.height}"
    yield from ((name, terminal.shown(score)) for name, score in said.scores.items())


def _patch(place: Place) -> Iterator[tuple[str, object]]:
    one, said = place.entry, place.description
    yield "patch", one.sample
    yield "crop", f"top {said.top}, left {said.left}, {said.size} x {said.size}"
    yield "flat", f"{100 * said.flat_fraction:.1f} %"
    yield "codec", said.codec
    yield "digest", one.digest
    yield "shard", f"{FOLDER}{place.shard.name}, slot {one.slot}"
    yield "bytes", f"{one.data_size} from {one.data_offset}, JSON {one.json_size} from {one.json_offset}"
    yield "removed", "no" if place.removed is None else f"since version {place.removed}"


def _lines(fields: Mapping[str, object]) -> str:
    width = max(map(len, fields))
    return "\n".join(f"{name.ljust(width)}  {'-' if value is None else value}" for name, value in fields.items())


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Says where a patch comes from: link, licence, hash and scores of its picture, crop, shard, place in it.",
        f"{PROGRAM} million-ird 0123456789abcdef_00512_01024",
    )
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix")
    parser.add_argument("key", metavar="KEY", help="a patch's name, or a picture's key: all of its patches")
    parser.add_argument("--endpoint-url", help="another S3 server than AWS's")
    return parser
