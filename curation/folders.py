"""Plain folders of pictures (LSDIR, DIV2K, Flickr2K, NTIRE) as a source: their files in the ledger's terms.

A file is named by `<source>/<path in the folder>`: that is its URL, and its key follows from it. The pictures
were curated by who made the set, so they are measured and judged by size alone; they are not scored and not
copied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from curation.decode import decode
from curation.duplicates import perceptual_hash
from curation.judge import Thresholds, size
from curation.measure import refused
from curation.records import Link, Reason, Refusal, Row, Stage, url_key

_PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """A source: every picture file below `path`, hidden ones aside, in the order of their names."""

    name: str
    path: Path

    def files(self) -> list[str]:
        """Paths below `path`, with `/`, sorted. Raises ValueError for no folder, or none in it."""
        if not self.path.is_dir():
            raise ValueError(f"{self.path}: no such folder; --source takes NAME=FOLDER")
        found = sorted(name for name in _below(self.path) if Path(name).suffix.lower() in _PICTURES)
        if not found:
            raise ValueError(f"{self.path} has no pictures: looked for {', '.join(sorted(_PICTURES))}")
        return found


def links(folder: Folder, files: Sequence[str]) -> list[Link]:
    """The files as links; `position` counts within the folder."""
    return [
        Link(
            position=position,
            key=url_key(f"{folder.name}/{name}"),
            url=f"{folder.name}/{name}",
            source=folder.name,
        )
        for position, name in enumerate(files)
    ]


def body(folder: Folder, link: Link) -> bytes:
    """The file's bytes."""
    return (folder.path / link.url.removeprefix(f"{folder.name}/")).read_bytes()


def measure(folder: Folder, link: Link, min_res: int, max_pixels: int) -> Row:
    """The file's ledger row: decoded, hashed, judged by its size."""
    try:
        data = body(folder, link)
    except OSError as error:
        unread = Refusal(reason=Reason.CORRUPT, stage=Stage.FETCH, detail=f"can't be read: {error.strerror}")
        return refused(Row(link=link), unread)
    row = Row(link=link, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), attempts=1)
    picture = decode(data, max_pixels)
    if isinstance(picture, Refusal):
        return refused(row, picture)
    seen = replace(row, width=picture.width, height=picture.height, format=picture.format)
    seen = replace(seen, phash=perceptual_hash(picture.pixels))
    too_small = size(Thresholds(min_res=min_res), picture.width, picture.height)
    return seen if too_small is None else refused(seen, too_small)


def _below(path: Path) -> Iterator[str]:
    for entry in path.rglob("*"):
        name = entry.relative_to(path)
        if entry.is_file() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix()
