"""Pictures taken out of a tar whose members are named by them: kept originals, thumbnails of refused ones."""

from __future__ import annotations

import tempfile
from collections.abc import Set
from pathlib import Path

from shards import tar
from shards.spool import spool
from shards.store import Store


def thin(store: Store, name: str, keys: Set[str]) -> int:
    """Rewrites the tar without the members called `<key>.…`; without any member left it goes. How many were there.

    Nothing is written where it has none of them, or isn't there. Raises TarError for a broken one.
    """
    if not keys or not store.exists(name):
        return 0
    with tempfile.TemporaryDirectory(prefix="million-ird-") as folder:
        old, new = Path(folder) / "old.tar", Path(folder) / "new.tar"
        spool(store, name, old)
        with old.open("rb") as file:
            here = [member.name for member in tar.members(file)]
        stay = {member for member in here if member.partition(".")[0] not in keys}
        if len(stay) == len(here):
            return 0
        if not stay:
            store.delete(name)
            return len(here)
        with old.open("rb") as file:
            tar.write(new, ((one.name, one.data) for one in tar.members(file) if one.name in stay))
        store.write(name, new)
    return len(here) - len(stay)
