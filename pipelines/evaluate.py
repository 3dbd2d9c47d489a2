"""How well a network restores: test sets in, a table, every picture's figures, restored pictures and a page out.

sets       dynet.testsets      pairs, and clean pictures to add noise to
degrade    dynet.noise         N(0, σ), a function of (seed, picture, σ)
restore    dynet.restore       the whole picture or tiles of it, at each depth
measure    dynet.metrics       PSNR and SSIM on RGB, clipped to [0, 1]; metrics without a reference where asked for
show       pipelines.evaluation_page

OUT/table.md, table.csv                       in the shape of the paper's tables, published figures beside ours
OUT/pictures.csv                              a line a picture and depth
OUT/restored/SET[/SIGMA]/DEPTH/PICTURE.png    what the network made of it
OUT/index.html                                the worst pictures to look at
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image

from curation.scorers import Panel, resolve
from dynet import results, rgb, testsets, tiles
from dynet.noise import noise_of, noisy
from dynet.published import Column, Published
from dynet.restore import Restorer
from dynet.results import Row
from dynet.testsets import Entry, PictureSet
from dynet.validate import quality
from pipelines.evaluation_page import page
from pipelines.evaluation_views import Gallery, Seen

PAGE: Final = "index.html"
RESTORED: Final = "restored"
_NAME: Final = re.compile(r"[\w-]{1,64}", re.ASCII)  # of a folder

#: Scores of a picture, (H, W, 3) uint8, by metric.
Score = Callable[[np.ndarray], Mapping[str, float]]


def no_scores(_pixels: np.ndarray) -> Mapping[str, float]:
    """A `Score` by no metric."""
    return {}


def scored_by(metrics: Sequence[str], weights: Path | None) -> Score:
    """A `Score` by metrics without a reference, whose weights lie in the folder `weights` or in pyiqa's cache.

    Raises ValueError for a metric or a weight that can't be had.
    """
    panel = Panel(resolve(metrics, weights))
    threads = torch.get_num_threads()
    panel.setup()
    torch.set_num_threads(threads)  # scorers leave one, for they expect to be many
    return lambda pixels: panel.score(pixels).scores


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateJob:
    """What is to be evaluated. Raises ValueError for names that two sets share or that are no names of folders."""

    sets: tuple[PictureSet, ...]
    depths: tuple[str, ...]  # as `dynet.model.depth_name` writes them; the last is the one that is shown
    published: Published
    notes: tuple[str, ...] = ()  # what the table says below: checkpoint, precision and the like
    seed: int = 0  # of the noise
    tile: int | None = None  # pixels a side of overlapping tiles; None: whole pictures, as the protocol has it
    score: Score = no_scores

    def __post_init__(self) -> None:
        if self.tile is not None:
            tiles.check(self.tile)
        if not self.sets or not self.depths:
            raise ValueError("nothing to evaluate: give --mode, or --set NAME=DIR, and a depth")
        for one in self.sets:
            if not _NAME.fullmatch(one.name):
                raise ValueError(f"a set can't be called {one.name!r}: take letters, digits, '-' and '_'")
        counts = Counter(Column(set=one.name).key for one in self.sets)
        if twice := [one.name for one in self.sets if counts[Column(set=one.name).key] > 1]:
            raise ValueError(f"{' and '.join(twice)} would be one column of the table: give them other names")


def check(job: EvaluateJob, restorer: Restorer, told: Callable[[int, int], None]) -> None:
    """Raises ValueError, before work starts, for what can't be evaluated; `told` hears (pictures, pictures read).

    That is a depth that the network hasn't, a picture or pair that can't be used, and one too large for the memory.
    """
    for depth in job.depths:  # which takes what a first call takes: the first picture isn't charged with it
        restorer.floats(np.zeros((testsets.MULTIPLE, testsets.MULTIPLE, 3), np.float32), depth)
    testsets.check(job.sets, told)
    if job.tile is not None:
        return
    height, width = testsets.largest(job.sets)
    if (side := restorer.fitting_tile(height, width)) is not None:
        raise ValueError(f"{width} x {height} pixels may not fit into the memory that is free: give --tile {side}")


def evaluate(job: EvaluateJob, restorer: Restorer, out: Path, told: Callable[[int, int, str], None]) -> list[Row]:
    """Restores every picture at every depth and writes what came out into `out`.

    `told` hears (pictures, done, what comes next); with noise a picture counts once a level.
    Raises ValueError where the network gives something else than numbers; see `check` for the rest.
    """
    work = [
        (Column(set=one.name, sigma=sigma), entry)
        for one in job.sets
        for sigma in one.sigmas or (None,)
        for entry in one.entries
    ]
    rows: list[Row] = []
    gallery = Gallery()
    for done, (column, entry) in enumerate(work):
        told(len(work), done, str(column))
        case = _case(job, restorer, column, entry)
        new = _measured(job, case)
        files = {depth: _place(case, depth) for depth in job.depths}
        pictures = {depth: _bytes(pixels) for depth, pixels in case.restored.items()}
        for depth, name in files.items():
            _write(out / name, pictures[depth])
        gallery.add(Seen(rows=new, files=files), case.target, case.degraded, pictures)
        rows += new
    told(len(work), len(work), "")
    _report(job, rows, gallery, out)
    return rows


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """A picture, what was made of it, and how long each depth took. `restored`: (H, W, 3) float32 in [0, 1]."""

    column: Column
    entry: Entry
    target: np.ndarray
    degraded: np.ndarray
    restored: Mapping[str, np.ndarray]
    seconds: Mapping[str, float]


def pair(entry: Entry, sigma: float | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Target and degraded picture, each (H, W, 3) uint8, H and W multiples of 16. Noise is added behind the crop."""
    target = testsets.cropped(rgb.read(entry.target))
    if entry.degraded is not None:
        return target, testsets.cropped(rgb.read(entry.degraded))
    assert sigma is not None, entry
    return target, noisy(target, sigma, noise_of(seed, entry.name, sigma))


def _case(job: EvaluateJob, restorer: Restorer, column: Column, entry: Entry) -> _Case:
    target, degraded = pair(entry, column.sigma, job.seed)
    restored, seconds = {}, {}
    for depth in job.depths:
        begun = time.perf_counter()
        restored[depth] = restorer.floats(degraded.astype(np.float32) / 255, depth, job.tile).clip(0, 1)
        seconds[depth] = time.perf_counter() - begun
    return _Case(column=column, entry=entry, target=target, degraded=degraded, restored=restored, seconds=seconds)


def _measured(job: EvaluateJob, case: _Case) -> tuple[Row, ...]:
    try:
        before = quality(case.degraded, case.target)
        found = {depth: quality(pixels, case.target) for depth, pixels in case.restored.items()}
    except ValueError as error:
        raise ValueError(f"{case.column}, {ascii(case.entry.name)[1:-1]}: {error}") from error
    return tuple(
        Row(
            column=case.column,
            picture=case.entry.name,
            depth=depth,
            quality=one,
            before=before,
            seconds=case.seconds[depth],
            scores=job.score(_bytes(case.restored[depth])),
        )
        for depth, one in found.items()
    )


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return np.rint(255 * pixels).astype(np.uint8)


def _place(case: _Case, depth: str) -> str:
    """Where a restored picture lies in OUT, and never outside: a file's stem holds no slash, and an ending follows."""
    noise = [] if case.column.sigma is None else [f"{case.column.sigma:g}"]
    return "/".join([RESTORED, case.column.set, *noise, depth, f"{case.entry.name}.png"])


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _report(job: EvaluateJob, rows: Sequence[Row], gallery: Gallery, out: Path) -> None:
    table = results.table(rows, job.published)
    (out / "table.md").write_text(results.markdown(table, rows, job.notes), "utf-8")
    (out / "table.csv").write_text(results.table_csv(table), "utf-8")
    (out / "pictures.csv").write_text(results.pictures_csv(rows), "utf-8")
    (out / PAGE).write_bytes(page(table, rows, job.notes, gallery))
