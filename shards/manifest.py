"""`shards/manifest.json`: what a data set is at this moment, and what it was at each version before.

The manifest is small (one entry a shard) and names the files beside the shards by SHA-256: the index (a row a
sample), the metadata (a row a picture), the tombstones (a row a removed sample). It is written last: a reader that
finds it has a whole set, one that doesn't has none.

A set grows by versions. Shards are added at the end, tombstones likewise, and nothing that is there moves: version 3
is the first so many shards and tombstones of version 7. That is what lets a training run that began on version 3 be
repeated exactly after the set has grown. No name is used twice for different bytes: files of later versions have
`-v<version>` in their names, so that a reader with an older manifest never meets a mixture.

A sample's place in its shard is its slot. It keeps it when others are removed; slots count for the order, so removing
samples does not change the order of those that stay.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from shards.store import Store, StoreError

FORMAT: Final = "million-ird-shards"
SCHEMA_VERSION: Final = 2
FOLDER: Final = "shards/"
MANIFEST: Final = f"{FOLDER}manifest.json"

_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_MOST: Final = 1 << 40  # of samples, or of bytes


class ManifestError(ValueError):
    """There is no manifest, or none that this version reads; the message names the remedy."""


class OutdatedManifest(ManifestError):
    """The manifest is of an earlier release's schema: the set is made anew by the command that made it."""


class OtherSet(StoreError):
    """Another set lies there now. No manifest is broken, and no newer one helps: whoever read the old set must stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A tar: its name under `shards/`, bytes, SHA-256 in hex digits.

    `samples` are in the tar; `slots` counts those that were ever in it.
    """

    name: str
    bytes: int
    sha256: str
    samples: int
    slots: int

    def __post_init__(self) -> None:
        counted = _are_counts(self.bytes, self.samples, self.slots) and self.samples <= self.slots
        if not (_FILE.fullmatch(self.name) and _SHA256.fullmatch(self.sha256) and counted):
            raise ValueError(f"{self!r:.300} is no shard")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A file beside the shards: its name under `shards/`, bytes, SHA-256 in hex digits."""

    name: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not (_FILE.fullmatch(self.name) and _SHA256.fullmatch(self.sha256) and _are_counts(self.bytes)):
            raise ValueError(f"{self!r:.300} is no part of a set")


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """What the set had at one version: the first so many of today's shards and tombstones."""

    number: int
    shards: int
    tombstones: int

    def __post_init__(self) -> None:
        if not _are_counts(self.number, self.shards, self.tombstones):
            raise ValueError(f"{self!r:.300} is no version")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What one source gave, a line of the paper's Table S1, and what became of it. What was removed later counts."""

    pictures: int  # that were to be cut
    with_patches: int  # those of which at least one patch was cut
    samples: int  # patches cut
    flat: int  # patches dropped as flat


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What there is. `recipe` is the settings of the run that made it, as JSON has them."""

    set: str  # which set this is, in all its versions: `set_id`
    recipe: dict[str, Any]
    shards: tuple[Shard, ...]
    index: Part
    metadata: Part
    versions: tuple[Version, ...]  # ascending; the last is this one
    tombstones: Part | None = None  # None where no sample was ever removed
    sources: dict[str, Source] = field(default_factory=dict)

    @property
    def version(self) -> int:
        return self.versions[-1].number

    @property
    def samples(self) -> int:
        """Those that are not removed."""
        return sum(shard.slots for shard in self.shards) - self.versions[-1].tombstones

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    @property
    def files(self) -> tuple[Shard | Part, ...]:
        """All that the set consists of, but for the manifest."""
        return (*self.shards, self.index, self.metadata, *((self.tombstones,) if self.tombstones else ()))


def _are_counts(*values: object) -> bool:
    """Whether these are numbers of things or bytes, as a manifest from a stranger may not have them."""
    return all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < _MOST for one in values)


def set_id(shards: Sequence[Shard]) -> str:
    """The name of a set by its first version's shards: 16 hex digits."""
    return hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()[:16]


def part_name(stem: str, versions: tuple[Version, ...]) -> str:
    """`index.parquet` in a set's first version, `index-v3.parquet` in a later one."""
    return f"{stem}.parquet" if len(versions) == 1 else f"{stem}-v{versions[-1].number}.parquet"


def at_version(manifest: Manifest, number: int) -> Manifest:
    """The set as it was at version `number`: its shards as they are called today.

    Raises ManifestError where the set has no such version (any more).
    """
    known = {version.number: place for place, version in enumerate(manifest.versions)}
    if number not in known:
        raise ManifestError(
            f"the set has no version {number}, only {min(known)} to {max(known)}: it was made anew since, or this is "
            "another set"
        )
    then = manifest.versions[known[number]]
    return replace(manifest, shards=manifest.shards[: then.shards], versions=manifest.versions[: known[number] + 1])


def commit(store: Store, manifest: Manifest) -> None:
    """Writes the manifest: from now on a reader sees this set. All that it names must be there."""
    store.write(MANIFEST, to_json(manifest))


def unnamed(store: Store, manifest: Manifest) -> Iterator[str]:
    """The objects under `shards/` that the manifest doesn't name: of earlier versions, or of a killed run."""
    named = {MANIFEST, *(FOLDER + one.name for one in manifest.files)}
    return (name for name in store.list(FOLDER) if name not in named)


def tidy(store: Store, manifest: Manifest) -> None:
    """Deletes those. After `commit`, and only where no other process writes shards."""
    for name in list(unnamed(store, manifest)):
        store.delete(name)


def to_json(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`: a function of the manifest alone."""
    document = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "version": manifest.version,
        "totals": {"shards": len(manifest.shards), "samples": manifest.samples, "bytes": manifest.bytes},
        **asdict(manifest),
    }
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def read_manifest(store: Store) -> Manifest:
    """The set's manifest. Raises ManifestError where there is none, a newer one, or something else."""
    try:
        data = store.read(MANIFEST)
    except FileNotFoundError as error:
        raise ManifestError(
            f"no {MANIFEST} in {store.root}: the run isn't finished there, give its command again"
        ) from error
    return from_json(data, store.root)


def read_again(store: Store, known: Manifest) -> Manifest:
    """The manifest of the `known` set as it is now. Raises OtherSet, ManifestError."""
    newest = read_manifest(store)
    if newest.set != known.set:
        raise OtherSet(f"the set in {store.root} was made anew: begin anew, or read another copy of it")
    return newest


def from_json(data: bytes, root: str) -> Manifest:
    """The manifest in these bytes; `root` is for the messages. Raises ManifestError."""
    try:
        document = json.loads(data)
        schema = document["schema_version"] if document["format"] == FORMAT else None
    except (ValueError, TypeError, KeyError, RecursionError):
        schema = None
    if isinstance(schema, bool) or not isinstance(schema, int):
        raise _garbage(root)
    if schema > SCHEMA_VERSION:
        raise ManifestError(
            f"{MANIFEST} in {root} has schema version {schema}, this reads up to {SCHEMA_VERSION}: upgrade million-ird"
        )
    if schema < SCHEMA_VERSION:
        raise OutdatedManifest(f"{MANIFEST} in {root} was written by an earlier release: run dynet-shard there again")
    return _from_document(root, document)


def _from_document(root: str, document: dict[str, Any]) -> Manifest:
    try:
        manifest = Manifest(
            set=str(document["set"]),
            recipe=dict(document["recipe"]),
            shards=tuple(Shard(**shard) for shard in document["shards"]),
            sources={name: Source(**source) for name, source in document["sources"].items()},
            index=Part(**document["index"]),
            metadata=Part(**document["metadata"]),
            tombstones=Part(**document["tombstones"]) if document["tombstones"] else None,
            versions=tuple(Version(**version) for version in document["versions"]),
        )
        consistent = _is_consistent(manifest) and document["totals"]["samples"] == manifest.samples
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise _garbage(root) from error
    if not consistent:
        raise _garbage(root)
    return manifest


def _is_consistent(manifest: Manifest) -> bool:
    """Whether versions grow, the last one is this set, and no name stands twice."""
    versions = [(one.number, one.shards, one.tombstones) for one in manifest.versions]
    grows = all(a[0] < b[0] and a[1] <= b[1] and a[2] <= b[2] for a, b in itertools.pairwise(versions))
    names = [one.name for one in manifest.files]
    return bool(
        versions
        and grows
        and versions[-1][1] == len(manifest.shards)
        and bool(versions[-1][2]) == (manifest.tombstones is not None)
        and len(set(names)) == len(names)
    )


def _garbage(root: str) -> ManifestError:
    return ManifestError(f"{MANIFEST} in {root} is no manifest of shards: delete it and run the job again")
