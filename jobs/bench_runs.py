"""A contender of the bench as a process of its own, and what both sides are given: pictures, weights, a list."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.fit import fit
from curation.scorers import WeightFile, WeightMissing, resolve
from jobs.bench_server import PictureServer
from jobs.process_tree import Peaks, Watcher
from pipelines import recipes
from pipelines.baseline import THREADS
from pipelines.demo_pictures import make_pictures

_ROOT: Final = Path(__file__).resolve().parents[1]
METRICS: Final = ("niqe", "brisque")  # NIMA costs both sides the same, and its weights are the hardest to have
PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one contender's process, with all it started, took."""

    seconds: float
    peaks: Peaks


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Where the metrics' files are, and the bounds that go with them."""

    files: dict[str, tuple[WeightFile, ...]]
    bounds: dict[str, float]
    folder: Path | None  # for --weights; None: pyiqa's cache


def job_command(listed: Path, out: Path, weights: Weights, *more: str) -> list[str]:
    """The filter's command line, as Python's arguments."""
    words = ["jobs/filter_laion.py", "--urls", str(listed), "--out", str(out), "--metrics", ",".join(weights.bounds)]
    words += [f"--threshold={name}={bound}" for name, bound in weights.bounds.items()]
    words += ["--weights", str(weights.folder)] if weights.folder else []
    # one host has all pictures here, which no real list has: it may be asked as often at once as by the plain script
    return [*words, "--allow-private-hosts", "--per-host", str(THREADS), *more]


def run(words: Sequence[str], scratch: Path, address: str = "local") -> Run:
    """Runs Python with `words` in a process of its own; on a Ray of its own as well, unless `address` names another.

    Raises RuntimeError with its last words where it fails.
    """
    log = scratch / "log.txt"
    quiet = {"NO_ALBUMENTATIONS_UPDATE": "1", "RAY_ADDRESS": address}
    started = time.monotonic()
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=_ROOT, env=os.environ | quiet, stdout=sink, stderr=subprocess.STDOUT
        )
        with Watcher(process.pid) as peaks:
            status = process.wait()
    seconds = time.monotonic() - started
    if status:
        raise RuntimeError(f"{' '.join(words[:2])} ended with {status}:\n{log.read_text(errors='replace')[-3000:]}")
    return Run(seconds=seconds, peaks=peaks)


def pictures(photos: Path | None, limit: int | None, scratch: Path) -> tuple[list[Path], list[Path]]:
    """The pictures to serve, spread evenly over all there are, and some that models can be fitted to."""
    if photos is None:
        print("drawing pictures, since no --photos DIR was given", flush=True)
        drawn = make_pictures(scratch / "pictures")
        files = [scratch / "pictures" / one.name for one in drawn]
        pristine = [file for file, one in zip(files, drawn, strict=True) if one.kind == "good"]
    else:
        files = pristine = sorted(path for path in photos.rglob("*") if path.suffix.lower() in PICTURES)
    if not files:
        raise ValueError(f"{photos} holds no pictures: give a folder of JPEG, PNG, WebP or AVIF files")
    count = min(limit or len(files), len(files))
    return [files[number * len(files) // count] for number in range(count)], pristine[:12]


def weights_for(given: Path | None, pristine: Sequence[Path | np.ndarray], scratch: Path) -> Weights:
    """The official weights, or else models fitted here; the latter is said."""
    official = {one.metric: one.bound for one in recipes.laion_hr().thresholds.metrics if one.metric in METRICS}
    try:
        return Weights(files=resolve(METRICS, given), bounds=official, folder=given)
    except WeightMissing:
        if given is not None:
            raise
    folder = scratch / "weights"
    fit(pristine, folder)
    print(f"official weights could not be had: both sides score with models fitted to {len(pristine)} pictures here")
    fitted = {one.metric: one.bound for one in recipes.demo().thresholds.metrics}
    return Weights(files=resolve(METRICS, folder), bounds=fitted, folder=folder)


def write_list(server: PictureServer, rows: int, scratch: Path) -> Path:
    """A list of the server's first so many pictures."""
    path = scratch / "list.parquet"
    pq.write_table(pa.table({"URL": [server.url(number) for number in range(rows)]}), path)
    return path


def check_answers(server: PictureServer, rows: int) -> None:
    """More there may be: a task that Ray had to start again asks anew."""
    if server.answers < rows:
        raise RuntimeError(f"only {server.answers} of {rows} pictures were asked for: this is a defect")
