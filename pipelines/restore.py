"""From picture files to restored picture files.

    plan      which file becomes which; what can't be is said here, before work starts
    read      pixels with all their bits, alpha, EXIF, profile     pipelines.picture_file
    restore   whole, or in the tiles that memory allows            dynet.restore
    write     in a form without loss, under its name or not at all pipelines.picture_write

A picture that can't be restored is a `Failure`, and the rest goes on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from curation.containers import PILLOW_ERRORS
from dynet.model import Depth
from dynet.restore import Restorer
from pipelines import picture_file
from pipelines.picture_file import Unreadable
from pipelines.picture_write import ENCODERS

#: What a folder is searched for. Some can't be restored, and are named then.
PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif"})
#: What of these is written as it was read: the forms without loss (of WebP the lossless one is written).
_KEPT: Final = frozenset({".png", ".webp", ".bmp", ".tif", ".tiff"})
_PATTERN: Final = re.compile(r"[*?\[]")
#: What torch says on a CPU, in an error without a type of its own.
_NO_MEMORY: Final = re.compile(r"not enough memory|can't allocate memory")

Watch = Callable[[int, int, str], None]
Tiling = Callable[[int, int], int | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A picture and where it goes."""

    source: Path
    target: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A picture that could not be restored."""

    source: Path
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoreJob:
    """What to restore, and how. `tiling`: the tile for a height and width, None for the whole picture."""

    tasks: Sequence[Task]
    restorer: Restorer
    depth: Depth
    tiling: Tiling


def plan(words: Sequence[str], out: Path, suffix: str | None = None) -> list[Task]:
    """What files, folders and patterns become in `out`, in order; `suffix`, such as ".png", for the form of all.

    A file keeps its name, and below a folder or a pattern's fixed part its place. Forms with loss become PNG where no
    `suffix` says otherwise. Raises ValueError for what isn't there, for two pictures that would be one file, and for an
    `out` in which originals lie.
    """
    tasks = [
        Task(source=source, target=out / (name.parent / _named(name, suffix)))
        for word in words
        for source, name in _found(word, out)
    ]
    tasks = list(dict.fromkeys(tasks))
    _check(tasks, out)
    return tasks


def restore(job: RestoreJob, watch: Watch) -> list[Failure]:
    """Restores every picture; tells `watch` how many there are, how many are done and which is next."""
    failures = []
    for done, task in enumerate(job.tasks):
        watch(len(job.tasks), done, task.source.name)
        try:
            _restore(job, task, _of_tiles(watch, len(job.tasks), done, task.source.name))
        except ValueError as error:
            failures.append(Failure(source=task.source, reason=str(error)))
    watch(len(job.tasks), len(job.tasks), "")
    return failures


def first_size(tasks: Sequence[Task]) -> tuple[int, int]:
    """Height and width of the first picture that can be read. Raises ValueError where there is none."""
    for task in tasks:
        try:
            return picture_file.read(task.source).pixels.shape[:2]
        except Unreadable:
            continue
    raise ValueError(f"not one of {len(tasks)} pictures can be read, so there is none to measure with")


def _of_tiles(watch: Watch, total: int, done: int, name: str) -> Callable[[int, int], None]:
    """Has `watch` told of a picture's tiles."""
    return lambda part, parts: watch(total, done, f"{name}, tile {part}/{parts}")


def _restore(job: RestoreJob, task: Task, watch: Callable[[int, int], None]) -> None:
    """Raises ValueError for a picture that can't be read, restored or written."""
    picture = picture_file.read(task.source)
    height, width, _ = picture.pixels.shape
    tile = job.tiling(height, width)
    try:
        restored = job.restorer.restore(picture.pixels, job.depth, tile, watch)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not _NO_MEMORY.search(str(error)):
            raise
        raise ValueError(
            f"the memory is too small for {tile or 'all its'} pixels at once: give a lower --tile"
        ) from error
    encode = ENCODERS[task.target.suffix]
    try:
        data = encode(picture_file.joined(picture, restored), picture.exif, picture.profile)
    except ValueError:
        raise
    except PILLOW_ERRORS as error:  # too large for the form, or EXIF that makes no sense in it
        raise ValueError(f"no {task.target.suffix} can hold it: {error}") from error
    _write(task.target, data)


def _write(target: Path, data: bytes) -> None:
    """Under its name once it is whole. The passing name is always the same: what a killed run left is written over."""
    target.parent.mkdir(parents=True, exist_ok=True)
    passing = target.with_name(f".{target.name}.part")
    passing.write_bytes(data)
    passing.replace(target)


# ---------------------------------------------------------------- which file becomes which


def _found(word: str, out: Path) -> Iterator[tuple[Path, Path]]:
    """Files, and their place below what was named. Raises ValueError where there is none."""
    path = Path(word)
    if path.is_file():
        yield path, Path(path.name)
        return
    if path.is_dir():
        base, files = path, sorted(path.rglob("*"))
    elif _PATTERN.search(word):
        base = _fixed(path)
        files = sorted({one for match in base.glob(path.relative_to(base).as_posix()) for one in _within(match)})
    else:
        raise ValueError(f"{word}: no such file or folder")
    top, own = base.resolve(), out.resolve()
    if top == own:
        raise ValueError(f"--out {out} is where the originals lie, and they are not touched: name another folder")
    inside = top in own.parents  # what an earlier run wrote there is no original
    found = [one for one in files if _is_picture(one, base) and not (inside and own in one.resolve().parents)]
    if not found:
        raise ValueError(f"{word} has no pictures: looked for {', '.join(sorted(PICTURES))}")
    yield from ((one, one.relative_to(base)) for one in found)


def _within(path: Path) -> list[Path]:
    return list(path.rglob("*")) if path.is_dir() else [path]


def _fixed(pattern: Path) -> Path:
    """The folders in front of the first wildcard."""
    parts = pattern.parts
    first = next(place for place, part in enumerate(parts) if _PATTERN.search(part))
    return Path(*parts[:first])


def _is_picture(path: Path, base: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(base).parts)
    return not hidden and path.suffix.lower() in PICTURES and path.is_file()


def _named(name: Path, suffix: str | None) -> str:
    """The file's name in the form it is written in."""
    if suffix is None and name.suffix.lower() in _KEPT:
        return name.stem + name.suffix.lower()
    known = name.suffix.lower() in PICTURES
    return (name.stem if known else name.name) + (suffix or ".png")


def _check(tasks: Sequence[Task], out: Path) -> None:
    """Raises ValueError for two sources of one target, and where originals lie among the targets."""
    sources: dict[str, Path] = {}
    for task in tasks:
        other = sources.setdefault(os.path.normcase(task.target), task.source)
        if other.resolve() != task.source.resolve():
            raise ValueError(
                f"{other} and {task.source} would both become {task.target}: restore them into folders of their own"
            )
    own, originals = out.resolve(), {task.source.resolve() for task in tasks}
    for task in tasks:
        if task.source.resolve().parent == own or task.target.resolve() in originals:
            raise ValueError(
                f"--out {out} is where {task.source.name} lies, and originals are not touched: name another folder"
            )
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: name a folder")
