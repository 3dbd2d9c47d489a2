"""A committed set, from one store to another: only what changed, every object verified, the manifest last.

A reader of the target sees the set that was there or the new one. What the target's manifest names is never
overwritten: a set that grew has new names for what is new, and of a set that was made anew, whose tars are called
alike, those with other bytes get eight digits of their SHA-256 into their names in the published manifest. The old
files go once the new manifest is there; who still reads by the old one then finds them missing, never other bytes
under their names.

Without pictures (`publish_metadata`) the target gets the metadata alone and a `metadata.json` in the manifest's place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Final

from shards import manifest
from shards.errors import StoreError
from shards.manifest import FOLDER, MANIFEST, Manifest, Part, Shard
from shards.store import Store
from shards.transfer import File, How, Transfer

CARD: Final = "README.md"
METADATA: Final = f"{FOLDER}metadata.json"  # of a set without pictures
METADATA_FORMAT: Final = "million-ird-metadata"

_OURS: Final = re.compile(r".+-\d{6}(-[0-9a-f]{8})?(-v\d+)?\.tar|(index|metadata|tombstones)(-\w+)*\.(parquet|json)")

Member = Shard | Part


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What came of it. `manifest` is the target's: of a set made anew some names differ from the source's."""

    manifest: Manifest
    sent: int  # files, the manifest and the card not counted
    skipped: int  # files that were there
    bytes: int  # of those sent


def publish(
    source: Store, target: Store, card: Callable[[Manifest], bytes], how: How, replace_other: bool = False
) -> Published:
    """Makes the source's set the target's. `card`: the bytes of README.md for the manifest as it is published.

    Raises ManifestError where the source has no set, StoreError where one of the two can't be used or the source is not
    what its manifest says, ValueError where the target has a newer version, or another set and not `replace_other`.
    """
    _check_different(source, target)
    new = manifest.read_manifest(source)
    known = _known(target)
    if known is not None:
        _check_replaceable(target, known, new, replace_other)
    names = _names(new.files, known.files if known else _metadata_files(target))
    published = _renamed(new, names)
    with Transfer(target, how) as transfer:
        sent = transfer.send(source, [_file(one, names) for one in new.files])
        transfer.put(CARD, card(published))
        transfer.put(MANIFEST, manifest.to_json(published))
        manifest.tidy(target, published)
        transfer.clear(FOLDER)
    return _published(published, sent, len(new.files))


def publish_metadata(source: Store, target: Store, card: Callable[[Manifest], bytes], how: How) -> Published:
    """The set's metadata without its pictures: for those who may not pass pictures on. Raises as `publish` does."""
    _check_different(source, target)
    new = manifest.read_manifest(source)
    if target.exists(MANIFEST):
        raise ValueError(f"{target.root} has a set with its pictures: name another place for the metadata alone")
    names = _names([new.metadata], _metadata_files(target))
    published = _renamed(new, names)
    with Transfer(target, how) as transfer:
        sent = transfer.send(source, [_file(new.metadata, names)])
        transfer.put(CARD, card(published))
        transfer.put(METADATA, _metadata_json(published))
        named = {METADATA, FOLDER + published.metadata.name}
        for name in [name for name in target.list(FOLDER) if name not in named]:
            target.delete(name)
        transfer.clear(FOLDER)
    return _published(published, sent, 1)


def _published(made: Manifest, sent: Sequence[File], files: int) -> Published:
    return Published(manifest=made, sent=len(sent), skipped=files - len(sent), bytes=sum(one.size for one in sent))


def _file(one: Member, names: dict[str, str]) -> File:
    return File(source=FOLDER + one.name, target=FOLDER + names[one.name], size=one.bytes, sha256=one.sha256)


def _check_different(source: Store, target: Store) -> None:
    if (source.root, getattr(source, "endpoint_url", None)) == (target.root, getattr(target, "endpoint_url", None)):
        raise ValueError(f"{target.root} is where the set is already: name another place to publish it in")


def _known(target: Store) -> Manifest | None:
    """The target's manifest. Raises ValueError where there is none and yet something else under its `shards/`."""
    if target.exists(MANIFEST):
        return manifest.read_manifest(target)
    if strange := [name for name in target.list(FOLDER) if not _OURS.fullmatch(name.removeprefix(FOLDER))]:
        raise ValueError(f"{target.root} has a {strange[0]} that is of no set: name an empty place")
    return None


def _check_replaceable(target: Store, known: Manifest, new: Manifest, replace_other: bool) -> None:
    if known.set == new.set and known.version > new.version:
        raise ValueError(
            f"{target.root} has version {known.version} of this set and the source only {new.version}: publishing it "
            "would bring back what was removed since; publish from the store that has the newest"
        )
    if known.set != new.set and not replace_other:
        raise ValueError(
            f"{target.root} has another set ({known.set}, {known.samples} samples; this is {new.set}, {new.samples}): "
            "add --replace to put this one in its place, or name another"
        )


def _metadata_files(target: Store) -> tuple[Part, ...]:
    """What a `metadata.json` in the target names."""
    if not target.exists(METADATA):
        return ()
    try:
        document = json.loads(target.read(METADATA))
        return (Part(**document["metadata"]),)
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{target.root}/{METADATA} can't be read: delete it and publish again") from error


def _metadata_json(published: Manifest) -> bytes:
    document = {
        "format": METADATA_FORMAT,
        "schema_version": 1,
        "set": published.set,
        "version": published.version,
        "recipe": published.recipe,
        "sources": {name: asdict(one) for name, one in published.sources.items()},
        "metadata": asdict(published.metadata),
    }
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _names(files: Sequence[Member], known: Sequence[Member]) -> dict[str, str]:
    """A file's name in the source -> its name in the target: none that is there keeps its name for other bytes."""
    there = {one.sha256: one.name for one in known}
    taken = {one.name for one in known}
    return {one.name: there.get(one.sha256) or (_other(one) if one.name in taken else one.name) for one in files}


def _other(file: Member) -> str:
    """`train-000042-1a2b3c4d.tar`."""
    name = PurePosixPath(file.name)
    return f"{name.stem}-{file.sha256[:8]}{name.suffix}"


def _renamed(new: Manifest, names: dict[str, str]) -> Manifest:
    def part(one: Part) -> Part:
        return replace(one, name=names.get(one.name, one.name))

    return replace(
        new,
        shards=tuple(replace(one, name=names.get(one.name, one.name)) for one in new.shards),
        index=part(new.index),
        metadata=part(new.metadata),
        tombstones=part(new.tombstones) if new.tombstones else None,
    )
