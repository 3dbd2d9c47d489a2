"""Test sets in folders: which pictures there are, which belongs to which, and how they are read.

    DIR/denoise/bsd68/*.png              clean pictures, noise is added to them; urban100 beside it
    DIR/derain/Rain100L/{input,target}   pairs
    DIR/dehaze/{input,target}            pairs

That is the layout of PromptIR's and DyNet's released test code. Any other folder of pictures or pairs will do too.
Pictures are read as there (`dynet.rgb`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from dynet import rgb

MULTIPLE: Final = 16  # pixels: pictures are cropped to a multiple of it, and can't be smaller
#: What the released code's modes evaluate, in the order of the paper's columns.
MODES: Final[Mapping[int, tuple[str, ...]]] = {
    0: ("denoise",),
    1: ("derain",),
    2: ("dehaze",),
    3: ("dehaze", "derain", "denoise"),
}
_PAIRS: Final = (("input", "target"), ("hazy", "gt"), ("rainy", "gt"))
_CLEAN: Final = "original_png"  # where CBSD68 keeps its clean pictures, beside noisy ones


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A picture of a set. `name`: its file's, without the ending. `degraded`: None where noise is yet to be added."""

    name: str
    target: Path
    degraded: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureSet:
    """Pairs, or clean pictures for each of `sigmas` (grey levels). No two entries have the same name."""

    name: str
    entries: tuple[Entry, ...]
    sigmas: tuple[float, ...] = ()


# ---------------------------------------------------------------- finding


def released(mode: int, folders: Mapping[str, Path], sigmas: Sequence[float]) -> tuple[PictureSet, ...]:
    """The sets of a mode, named as in the paper. `folders`: of "denoise", "derain" and "dehaze".

    Urban100 has no place in the paper's all-in-one table: only mode 0 takes it, where it is there.
    Raises ValueError for an unknown mode, and as `found` does.
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode}: give 0 (denoise), 1 (derain), 2 (dehaze) or 3 (all in one)")
    sets: list[PictureSet] = []
    for task in MODES[mode]:
        folder = folders[task]
        if task == "denoise":
            sets.append(found("BSD68", _needed(folder, "bsd68", "cbsd68"), sigmas))
            if mode == 0 and (urban := _inside(folder, "urban100")):
                sets.append(found("Urban100", urban, sigmas))
        elif task == "derain":
            sets.append(_paired("Rain100L", *_pair_folders(_needed(folder, "rain100l"))))
        else:
            sets.append(_paired("SOTS", *_pair_folders(folder)))
    return tuple(sets)


def found(name: str, folder: Path, sigmas: Sequence[float]) -> PictureSet:
    """The set in `folder`: pairs in input and target (or hazy, rainy and gt), or else clean pictures.

    Raises ValueError where there is none, and for pictures that lack their other half.
    """
    if any(_inside(folder, word) for pair in _PAIRS for word in pair):
        return _paired(name, *_pair_folders(folder))
    clean = _inside(folder, _CLEAN) or folder
    entries = [Entry(name=_name(path), target=path) for path in _pictures(clean)]
    return PictureSet(name=name, entries=_distinct(entries), sigmas=tuple(sigmas))


def _pair_folders(folder: Path) -> tuple[Path, Path]:
    for degraded, clean in _PAIRS:
        one, other = _inside(folder, degraded), _inside(folder, clean)
        if one and other:
            return one, other
    raise ValueError(f"{folder} has no pairs: put degraded pictures into input/ and clean ones into target/ there")


def _paired(name: str, degraded: Path, clean: Path) -> PictureSet:
    targets = _pictures(clean)
    by_name = {path.name: path for path in targets}
    by_stem = {path.stem: path for path in targets}
    matched = {
        path: by_name.get(path.name) or next((by_stem[stem] for stem in _stems(path) if stem in by_stem), None)
        for path in _pictures(degraded)
    }
    if alone := [path for path, target in matched.items() if target is None]:
        raise ValueError(f"{rgb.said(alone[0])} has no target in {clean}{_more(len(alone))}")
    if left := sorted(set(targets) - set(matched.values())):
        raise ValueError(f"{rgb.said(left[0])} is a target without its input in {degraded}{_more(len(left))}")
    entries = [Entry(name=_name(path), target=target, degraded=path) for path, target in matched.items() if target]
    return PictureSet(name=name, entries=_distinct(entries))


def _stems(degraded: Path) -> tuple[str, str, str]:
    """What its target may be called: the same; `norain-001` of `rain-001_x`; `0001` of `0001_0.8_0.2`."""
    first = degraded.stem.partition("_")[0]
    return degraded.stem, f"no{first}", first


def _distinct(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """By name, which decides the noise and where the restored picture goes."""
    counts = Counter(one.name for one in entries)
    if twice := [one.degraded or one.target for one in entries if counts[one.name] > 1]:
        raise ValueError(f"{rgb.said(twice[0])}: another picture there has the same name, so rename one")
    return tuple(sorted(entries, key=lambda one: one.name))


def _pictures(folder: Path) -> list[Path]:
    """Its picture files, by name. Raises ValueError where there is none."""
    found = sorted(path for path in _listed(folder) if rgb.is_named(path))
    if not found:
        raise ValueError(f"{folder} has no pictures: {', '.join(sorted(rgb.ENDINGS))} are taken")
    return found


def _needed(folder: Path, *names: str) -> Path:
    if inside := _inside(folder, *names):
        return inside
    raise ValueError(f"{folder} has no folder {names[0]}: put the test pictures there, or name them by --set NAME=DIR")


def _inside(folder: Path, *names: str) -> Path | None:
    """The first of these folders in `folder`, in capitals or not."""
    there = {path.name.casefold(): path for path in _listed(folder) if path.is_dir()}
    return next((there[name] for name in names if name in there), None)


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, but for hidden files. Raises ValueError for a folder that isn't there."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ValueError(f"{folder} can't be opened: {error.strerror}; give the folder that has the pictures") from None


def _name(path: Path) -> str:
    """The stem, also of a name that is no text: it goes into tables and file names."""
    return path.stem.encode("utf-8", "backslashreplace").decode()


def _more(count: int) -> str:
    return f" ({count} such pictures)" if count > 1 else ""


# ---------------------------------------------------------------- reading


def check(sets: Sequence[PictureSet], told: Callable[[int, int], None]) -> None:
    """Reads every picture once, so that nothing is amiss when work starts. `told`: of how many, how many are read.

    Raises ValueError that names the first one that can't be used, and says how many there are.
    """
    entries = [entry for one in sets for entry in one.entries]
    faults: list[str] = []
    for done, entry in enumerate(entries, start=1):
        faults += _faults(entry)
        told(len(entries), done)
    if faults:
        raise ValueError(faults[0] + (f"; {len(faults)} such faults in all" if len(faults) > 1 else ""))


def _faults(entry: Entry) -> Iterator[str]:
    try:
        shapes = [rgb.read(path).shape[:2] for path in (entry.degraded, entry.target) if path is not None]
    except ValueError as error:
        yield str(error)
        return
    here = rgb.said(entry.degraded or entry.target)
    sizes = [f"{width} x {height}" for height, width in shapes]
    if len(set(shapes)) > 1:
        yield f"{here} is {sizes[0]} pixels and its target {rgb.said(entry.target)} {sizes[1]}: give pairs of one size"
    elif min(shapes[0]) < MULTIPLE:
        yield f"{here} is {sizes[0]} pixels: give pictures of at least {MULTIPLE} a side"


def largest(sets: Sequence[PictureSet]) -> tuple[int, int]:
    """Height and width of the picture with the most pixels; of pictures that `check` has read."""

    def size(path: Path) -> tuple[int, int]:
        with Image.open(path) as image:
            return image.height, image.width

    return max((size(entry.target) for one in sets for entry in one.entries), key=math.prod)


def cropped(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) cut to multiples of 16: half of what is over above and left, an odd pixel more below and right."""
    height, width = pixels.shape[:2]
    top, left = height % MULTIPLE // 2, width % MULTIPLE // 2
    return pixels[top : top + height - height % MULTIPLE, left : left + width - width % MULTIPLE]
