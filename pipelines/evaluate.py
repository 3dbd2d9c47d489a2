"""How well a network restores: test sets in, a table, every picture's figures, restored pictures and a page out.

sets       dynet.testsets      pairs, and clean pictures to add noise to
degrade    dynet.noise         N(0, σ), a function of (seed, picture, σ)
restore    dynet.restore       the whole picture, at each depth
measure    dynet.metrics       PSNR and SSIM on RGB, clipped to [0, 1]; metrics without a reference where asked for
show       pipelines.evaluation_page

OUT/table.md, table.csv                       in the shape of the paper's tables, published figures beside ours
OUT/pictures.csv                              a line a picture and depth
OUT/restored/SET[/SIGMA]/DEPTH/PICTURE.png    what the network made of it
OUT/index.html                                the worst pictures to look at
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from dynet import results, testsets
from dynet.metrics import psnr, ssim
from dynet.noise import noise_of, noisy
from dynet.published import Column, Published
from dynet.restore import Restorer
from dynet.results import Row
from dynet.testsets import Entry, PictureSet
from dynet.validate import Quality
from pipelines.evaluation_page import page
from pipelines.evaluation_views import Gallery, Seen

PAGE: Final = "index.html"
RESTORED: Final = "restored"

#: Scores of a picture, (H, W, 3) uint8, by metric.
Score = Callable[[np.ndarray], Mapping[str, float]]


def no_scores(_pixels: np.ndarray) -> Mapping[str, float]:
    """A `Score` by no metric."""
    return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateJob:
    """What is to be evaluated. Raises ValueError for names that two sets share or that are no names of folders."""

    sets: tuple[PictureSet, ...]
    depths: tuple[str, ...]  # as `dynet.model.depth_name` writes them; the last is the one that is shown
    published: Published
    notes: tuple[str, ...] = ()  # what the table says below: checkpoint, precision and the like
    seed: int = 0  # of the noise
    score: Score = no_scores

    def __post_init__(self) -> None:
        if not self.sets or not self.depths:
            raise ValueError("nothing to evaluate: give --mode, or --set NAME=DIR, and a depth")
        names = [one.name for one in self.sets]
        for name in names:
            if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
                raise ValueError(f"a set's name is {name!r}: take letters, digits, '-', '_' and '.'")
            if [other.casefold() for other in names].count(name.casefold()) > 1:
                raise ValueError(f"two sets are called {name}: give each a name of its own")


def evaluate(job: EvaluateJob, restorer: Restorer, out: Path, told: Callable[[int, int, str], None]) -> list[Row]:
    """Restores every picture at every depth and writes what came out into `out`.

    `told` hears (cases, done, what comes next); a case is a picture, with one noise where it has some.
    Raises ValueError where the network gives something else than numbers; see `dynet.testsets.check` for the rest.
    """
    cases = [
        (Column(set=one.name, sigma=sigma), entry)
        for one in job.sets
        for sigma in one.sigmas or (None,)
        for entry in one.entries
    ]
    rows: list[Row] = []
    gallery = Gallery()
    for done, (column, entry) in enumerate(cases):
        told(len(cases), done, str(column))
        target, degraded = pair(entry, column.sigma, job.seed)
        restored = {depth: _restored(restorer, degraded, depth) for depth in job.depths}
        new = _rows(job, column, entry, target, degraded, restored)
        files = {depth: _place(column, depth, entry) for depth in job.depths}
        pictures = {depth: _bytes(pixels) for depth, (pixels, _) in restored.items()}
        for depth, name in files.items():
            _write(out / name, pictures[depth])
        gallery.add(Seen(rows=tuple(new), files=files), target, degraded, pictures)
        rows += new
    told(len(cases), len(cases), "")
    _report(job, rows, gallery, out)
    return rows


def pair(entry: Entry, sigma: float | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Target and degraded picture, each (H, W, 3) uint8, H and W multiples of 16. Noise is added behind the crop."""
    target = testsets.cropped(testsets.read(entry.target))
    if entry.degraded is not None:
        return target, testsets.cropped(testsets.read(entry.degraded))
    assert sigma is not None, entry
    return target, noisy(target, sigma, noise_of(seed, entry.name, sigma))


def _restored(restorer: Restorer, degraded: np.ndarray, depth: str) -> tuple[np.ndarray, float]:
    """(H, W, 3) float32 in [0, 1], not rounded, and the seconds that the network took."""
    begun = time.perf_counter()
    restored = restorer.floats(degraded.astype(np.float32) / 255, depth)
    return restored.clip(0, 1), time.perf_counter() - begun


def _rows(
    job: EvaluateJob,
    column: Column,
    entry: Entry,
    target: np.ndarray,
    degraded: np.ndarray,
    restored: Mapping[str, tuple[np.ndarray, float]],
) -> list[Row]:
    try:
        before = quality(degraded, target)
        return [
            Row(
                column=column,
                picture=entry.name,
                depth=depth,
                quality=quality(pixels, target),
                before=before,
                seconds=seconds,
                scores=job.score(_bytes(pixels)),
            )
            for depth, (pixels, seconds) in restored.items()
        ]
    except ValueError as error:
        raise ValueError(f"{column}, {ascii(entry.name)[1:-1]}: {error}") from error


def quality(picture: np.ndarray, target: np.ndarray) -> Quality:
    """Each (H, W, 3), uint8 or floats in [0, 1]."""
    return Quality(psnr=psnr(picture, target), ssim=ssim(picture, target))


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return np.rint(255 * pixels).astype(np.uint8)


def _place(column: Column, depth: str, entry: Entry) -> str:
    """Where a restored picture lies in OUT, and never outside: a file's stem holds no slash, and an ending follows."""
    noise = [] if column.sigma is None else [f"{column.sigma:g}"]
    return "/".join([RESTORED, column.set, *noise, depth, f"{entry.name}.png"])


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _report(job: EvaluateJob, rows: Sequence[Row], gallery: Gallery, out: Path) -> None:
    table = results.table(rows, job.published)
    (out / "table.md").write_text(results.markdown(table, job.notes), "utf-8")
    (out / "table.csv").write_text(results.table_csv(table), "utf-8")
    (out / "pictures.csv").write_text(results.pictures_csv(rows), "utf-8")
    (out / PAGE).write_bytes(page(table, job.notes, gallery))
