"""Training pairs in the folders that users of PromptIR and DyNet have.

DATA/Denoise/3097.png                              clean; noise is added when it is used
DATA/Derain/rainy/rain-1.png                       with Derain/gt/norain-1.png
DATA/Dehaze/synthetic/part1/0025_0.8_0.04.jpg      with Dehaze/original/0025.jpg

The lists of the released code, which name the files to take, are optional: LISTS/noisy/denoise.txt (or
denoise_airnet.txt), LISTS/rainy/rainTrain.txt, LISTS/hazy/hazy_outside.txt.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dynet import rgb

DERAIN: Final = "derain"
DEHAZE: Final = "dehaze"
#: Grey levels of the noise of each denoising task.
NOISE: Final[Mapping[str, float]] = {"denoise_15": 15, "denoise_25": 25, "denoise_50": 50}
DE_TYPES: Final = (*NOISE, DERAIN, DEHAZE)
#: How often a picture comes in an epoch, as in the released code.
REPEATS: Final[Mapping[str, int]] = {**dict.fromkeys(NOISE, 3), DERAIN: 120, DEHAZE: 1}
_LISTS: Final = {
    "denoise": ("noisy/denoise_airnet.txt", "noisy/denoise.txt"),
    DERAIN: ("rainy/rainTrain.txt",),
    DEHAZE: ("hazy/hazy_outside.txt",),
}
_FEW: Final = 10  # files that a message names
_THREADS: Final = 8
_Size = tuple[int, int]  # width and height


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A picture to train on. `degraded` is None where noise is to be added. `name`: of the file below DATA."""

    de_type: str
    name: str
    clean: Path
    degraded: Path | None = None


class DataError(ValueError):
    """Files that can't be trained on, by name."""


def find(data: Path, de_types: Sequence[str], lists: Path | None = None) -> tuple[Source, ...]:
    """The pairs of these tasks, in the order of their names.

    Raises ValueError for an unknown task, a folder or list that there is not, or a picture without its partner, or
    with two; OSError for a folder that can't be looked into.
    """
    check_de_types(de_types)
    found: list[Source] = []
    for de_type in sorted(set(de_types), key=DE_TYPES.index):
        if de_type in NOISE:
            found += _clean(data, de_type, lists)
        else:
            found += _paired(data, de_type, lists)
    odd = [rgb.said(one.degraded or one.clean) for one in found if not _is_text(one.name)]
    _refuse(odd, "have names that are no UTF-8", "rename them: names decide the order and the noise")
    return tuple(found)


def check_de_types(de_types: Iterable[str]) -> None:
    """Raises ValueError for none, or for one that there is not."""
    given = list(de_types)
    unknown = [one for one in given if one not in DE_TYPES]
    if unknown or not given:
        raise ValueError(f"--de_type {' '.join(unknown)}: give some of {', '.join(DE_TYPES)}")


def check(sources: Sequence[Source], crop: int, watch: Callable[[int, int], None]) -> None:
    """Reads every file once, and raises DataError with those that can't be trained on, each with its cause.

    `watch(pictures in all, pictures read)` follows.
    """
    paths = list(dict.fromkeys(path for one in sources for path in (one.clean, one.degraded) if path))
    seen: dict[Path, _Size | str] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda path: _looked_at(path, crop), paths)
        for path, one in zip(paths, found, strict=True):
            seen[path] = one
            watch(len(paths), len(seen))
    unfit = [cause for cause in seen.values() if isinstance(cause, str)]
    _refuse(
        [*unfit, *_differing(sources, seen)], "can't be trained on", "mend or remove them, or name the others in a list"
    )


# ---------------------------------------------------------------- finding


def _clean(data: Path, de_type: str, lists: Path | None) -> Iterator[Source]:
    folder = _folder(data / "Denoise")
    for path in _listed(folder, _listing("denoise", lists)):
        yield Source(de_type=de_type, name=_name(path, data), clean=path)


def _paired(data: Path, de_type: str, lists: Path | None) -> Iterator[Source]:
    root, degraded, clean = {
        DERAIN: (data / "Derain", "rainy", "gt"),
        DEHAZE: (data / "Dehaze", "synthetic", "original"),
    }[de_type]
    targets: dict[str, list[Path]] = {}
    for path in sorted(_pictures(_folder(root / clean))):
        targets.setdefault(path.stem, []).append(path)
    alone: list[str] = []
    several: list[str] = []
    for path in _listed(_folder(root / degraded), _listing(de_type, lists), above=root):
        partners = _partners(path, de_type, targets)
        if len(partners) == 1:
            yield Source(de_type=de_type, name=_name(path, data), clean=partners[0], degraded=path)
        elif partners:
            several.append(f"{rgb.said(path)}: {' and '.join(_name(one, root) for one in partners)}")
        else:
            alone.append(f"{rgb.said(path)}: nothing in {clean}/ belongs to it")
    _refuse(alone, "have no partner", f"put the clean picture into {root / clean}")
    _refuse(several, "have more than one partner", "leave one of them there")


def _partners(path: Path, de_type: str, targets: Mapping[str, list[Path]]) -> list[Path]:
    """The clean pictures that may be its own; where several have the name, those that have its ending too."""
    named = next((targets[stem] for stem in _stems(path.stem, de_type) if stem in targets), [])
    return [one for one in named if one.suffix.lower() == path.suffix.lower()] or named


def _stems(stem: str, de_type: str) -> tuple[str, ...]:
    """What the clean picture may be called: as in the data sets' own names, or just the same."""
    if de_type == DERAIN:
        return f"no{stem}", stem.replace("rain-", "norain-", 1), stem
    return stem, stem.partition("_")[0]


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"{path} is no folder: --data and --valid name one that holds Denoise/, Derain/ and Dehaze/")
    return path


def _pictures(folder: Path) -> Iterator[Path]:
    """Those below it, also behind links to other folders; a folder with two names counts once.

    A link to nothing is among them, so that it is missed by name and not in silence.
    """
    been: set[str] = set()
    for here, below, names in os.walk(folder, onerror=_raised, followlinks=True):
        real = os.path.realpath(here)
        if real in been:  # links may lead in a circle
            below.clear()
            continue
        been.add(real)
        below.sort()
        for path in (Path(here, name) for name in names):
            if path.suffix.lower() in rgb.ENDINGS and (path.is_file() or not path.exists()):
                yield path


def _raised(error: OSError) -> None:
    raise error


def _is_text(name: str) -> bool:
    """Whether it is UTF-8: Python has other bytes of a file's name as halves of characters."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _listing(task: str, lists: Path | None) -> list[str] | None:
    """The names in the released code's list of a task; None where no lists were given."""
    if lists is None:
        return None
    there = [lists / name for name in _LISTS[task] if (lists / name).is_file()]
    if not there:
        raise ValueError(f"{lists} has no {' or '.join(_LISTS[task])}: leave --lists out to take every picture")
    text = there[0].read_text("utf-8-sig", errors="replace")  # a name that is spoilt so is a missing one
    return [line.strip() for line in text.splitlines() if line.strip()]


def _listed(folder: Path, names: list[str] | None, above: Path | None = None) -> list[Path]:
    """The pictures of a folder, by name; or those that a list names, as they lie below `above` (or the folder)."""
    found = sorted(_pictures(folder))
    if names is not None:
        base = above or folder
        there = {_name(path, base): path for path in found}
        _refuse([f"{base / name}" for name in names if name not in there], "are missing", "or leave --lists out")
        found = [there[name] for name in dict.fromkeys(names)]
    if not found:
        raise ValueError(f"{folder} holds no picture: put some there ({', '.join(sorted(rgb.ENDINGS))})")
    return found


def _name(path: Path, below: Path) -> str:
    return path.relative_to(below).as_posix()


# ---------------------------------------------------------------- checking


def _looked_at(path: Path, crop: int) -> _Size | str:
    """How large it is, or why it can't be trained on."""
    try:
        height, width = rgb.read(path).shape[:2]
    except ValueError as error:
        return str(error)
    if min(width, height) < crop:
        return f"{rgb.said(path)}: {width} x {height} pixels, less than a crop of {crop}"
    return width, height


def _differing(sources: Sequence[Source], seen: Mapping[Path, _Size | str]) -> Iterator[str]:
    """Pairs whose two pictures are of different sizes."""
    for one in sources:
        if one.degraded is None:
            continue
        ours, theirs = seen[one.degraded], seen[one.clean]
        if not isinstance(ours, str) and not isinstance(theirs, str) and ours != theirs:
            yield (
                f"{rgb.said(one.degraded)}: {ours[0]} x {ours[1]} pixels,"
                f" {rgb.said(one.clean)} has {theirs[0]} x {theirs[1]}"
            )


def _refuse(amiss: Sequence[str], what: str, remedy: str) -> None:
    if not amiss:
        return
    more = f" and {len(amiss) - _FEW} more" if len(amiss) > _FEW else ""
    raise DataError(f"{len(amiss)} pictures {what}: {'; '.join(amiss[:_FEW])}{more}. Then: {remedy}")
