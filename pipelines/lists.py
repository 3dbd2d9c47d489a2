"""URL lists that lie on S3 are brought here first: they are read twice, and Parquet wants to seek."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shards.store import open_store


def local_copies(names: Sequence[str], endpoint_url: str | None, scratch: Path) -> tuple[Path, ...]:
    """The lists as local files, in the order given; those of `s3://` are copied into `scratch`.

    Raises ValueError where there is no such object.
    """
    return tuple(
        _copied(name, endpoint_url, scratch / f"{number:04d}") if name.startswith("s3://") else Path(name)
        for number, name in enumerate(names)
    )


def _copied(name: str, endpoint_url: str | None, folder: Path) -> Path:
    root, _, leaf = name.rpartition("/")
    try:
        data = open_store(root, endpoint_url).read(leaf)
    except FileNotFoundError as error:
        raise ValueError(f"{name}: no such list; --urls takes Parquet or CSV files") from error
    folder.mkdir()
    (folder / leaf).write_bytes(data)
    return folder / leaf
