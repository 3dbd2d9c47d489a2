"""A few of the refused pictures, small, so that a verdict can be looked at: `rejects/<unit>.tar`.

What was refused is not kept, and scores alone convince nobody. Of the first 16 chunks and one in 64 after them, up to
six pictures a reason stay as thumbnails of 256 pixels: 15 KB each, 11 MB for a million URLs, under 1 GB for 170
million. Which ones is a function of their keys, not of timing. What the cascade refuses by its header is never here
as a whole: of TOO_SMALL it leaves files under 4 KB, AVIF, and those whose header came late.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Final

from curation.decode import decode
from curation.records import Picture, Reason, Row
from curation.thumbnails import jpeg, thumbnail
from shards import tar
from shards.store import Store
from shards.thinning import thin

FOLDER: Final = "rejects/"
PER_REASON: Final = 6
FIRST_UNITS: Final = 16
ONE_IN: Final = 64
#: Larger ones are not shown: they are decoded in the unit's own task, for which no memory is reserved.
MOST_PIXELS: Final = 1 << 25
#: Reasons with a whole picture to show.
SHOWN: Final = (Reason.TOO_SMALL, Reason.FLAT, Reason.UNSCORABLE, Reason.LOW_QUALITY)


def tar_name(unit: str) -> str:
    """`rejects/chunk-00000123.tar`."""
    return f"{FOLDER}{unit}.tar"


def is_shown(unit: str) -> bool:
    """Whether a unit's refused pictures are among those to be looked at."""
    number = int(unit.rpartition("-")[2])
    return number < FIRST_UNITS or number % ONE_IN == 0


class Rejects:
    """Files of refused pictures, no more of them at a time than can be needed."""

    def __init__(self) -> None:
        self._files: dict[Reason, dict[str, Path]] = {reason: {} for reason in SHOWN}

    def offer(self, row: Row, path: Path) -> None:
        """Takes the file, or deletes it where it is not to be shown."""
        files = self._files.get(row.reason)
        if files is None or row.sha256 is None:  # without a digest: it killed who measured it
            path.unlink()
            return
        files[row.link.key] = path
        if len(files) > PER_REASON:
            files.pop(max(files)).unlink()

    def write(self, store: Store, unit: str, rows: Sequence[Row], scratch: Path) -> None:
        """The unit's tar, of these files and of what an earlier run left in it; none where there is nothing."""
        before = dict(read(store, unit))
        files = {key: path for files in self._files.values() for key, path in files.items()}
        chosen = list(_chosen(rows, {*before, *files}))
        if not chosen or set(chosen) == set(before):
            return
        tar.write(scratch / "rejects.tar", _members(chosen, before, files))
        store.write(tar_name(unit), scratch / "rejects.tar")


def read(store: Store, unit: str) -> Iterator[tuple[str, bytes]]:
    """(key, JPEG of 256 x 256) of each picture in the unit's tar; nothing where there is no tar."""
    if not store.exists(tar_name(unit)):
        return
    for member in tar.members(store.read(tar_name(unit))):
        yield member.name.removesuffix(".jpg"), member.data


def remove(store: Store, unit: str, keys: Set[str]) -> int:
    """Rewrites the unit's tar without these pictures. How many went."""
    return thin(store, tar_name(unit), keys)


def units(store: Store) -> Iterator[str]:
    """The units with a tar of refused pictures, in ascending order."""
    for name in store.list(FOLDER):
        if name.endswith(".tar"):
            yield name.removeprefix(FOLDER).removesuffix(".tar")


def _chosen(rows: Sequence[Row], known: set[str]) -> Iterator[str]:
    for reason in SHOWN:
        keys = {row.link.key for row in rows if row.reason is reason and row.link.key in known}
        yield from sorted(keys)[:PER_REASON]


def _members(
    keys: Sequence[str], before: Mapping[str, bytes], files: Mapping[str, Path]
) -> Iterator[tuple[str, bytes]]:
    for key in sorted(keys):
        if key in files:
            picture = decode(files[key].read_bytes(), MOST_PIXELS)
            if isinstance(picture, Picture):
                yield f"{key}.jpg", jpeg(thumbnail(picture.pixels))
        else:
            yield f"{key}.jpg", before[key]
