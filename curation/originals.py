"""Kept originals: `images/<unit>.tar`, the bytes exactly as they came, each beside a JSON that says what it is.

The tar may hold more than the ledger keeps (after stricter thresholds, or a duplicate found later): the ledger
says what is kept, the tar only has the bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Final

from curation.records import Row
from shards import tar
from shards.store import Store
from shards.thinning import thin

FOLDER: Final = "images/"
_SUFFIX: Final = {"jpeg": "jpg", "png": "png", "webp": "webp", "avif": "avif"}


def tar_name(unit: str) -> str:
    """`images/chunk-00000123.tar`."""
    return f"{FOLDER}{unit}.tar"


def write(store: Store, unit: str, rows: Sequence[Row], bodies: Mapping[str, Path], scratch: Path) -> None:
    """Puts the unit's tar there: `rows` in list order, each with the file in `bodies` under its key.

    The bytes are a function of the rows and files alone.
    """
    target = scratch / f"{unit}.tar"
    tar.write(target, _members(rows, bodies))
    store.write(tar_name(unit), target)
    target.unlink()


def read(store: Store, unit: str) -> Iterator[tuple[str, bytes]]:
    """(key, original bytes) of each picture in the unit's tar; nothing where there is no tar."""
    if not store.exists(tar_name(unit)):
        return
    for member in tar.members(store.read(tar_name(unit))):
        key, _, suffix = member.name.partition(".")
        if suffix != "json":
            yield key, member.data


def remove(store: Store, unit: str, keys: Set[str]) -> int:
    """Rewrites the unit's tar without these pictures. How many of its members went."""
    return thin(store, tar_name(unit), keys)


def _members(rows: Sequence[Row], bodies: Mapping[str, Path]) -> Iterator[tuple[str, bytes]]:
    for row in rows:
        yield f"{row.link.key}.{_SUFFIX[row.format or '']}", bodies[row.link.key].read_bytes()
        yield f"{row.link.key}.json", _about(row)


def _about(row: Row) -> bytes:
    entry: dict[str, Any] = {
        "key": row.link.key,
        "url": row.link.url,
        "source": row.link.source,
        "caption": row.link.caption,
        "width": row.width,
        "height": row.height,
        "format": row.format,
        "sha256": row.sha256,
        "scores": {metric: None if math.isnan(score) else score for metric, score in sorted(row.scores.items())},
    }
    return json.dumps(entry, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
