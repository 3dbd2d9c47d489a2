"""Scoring for a calibration, on Ray: two folders, each file by itself with its degraded copies, each metric timed.

Workers read the files themselves, so on several machines the folders and weights must lie where all of them look.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from curation.calibrate import Metric, Scores, passing
from curation.decode import decode, header
from curation.degradations import Degradation, degrade
from curation.judge import JPEG_QUALITY, MetricThreshold, Thresholds, size
from curation.records import METRIC_PREFIX, Picture, Refusal
from curation.report.calibration import Wrong
from curation.scorers import Panel
from curation.scorers.protocol import refuse_flat
from curation.thumbnails import jpeg, thumbnail
from pipelines.cluster import connected, each, memory
from pipelines.scoring import ScorerSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFile:
    """A file that somebody put among the good or among the bad. `group`: the folder it lies in."""

    path: Path
    good: bool
    group: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrateJob:
    """What to score, and with what."""

    good: Path
    bad: Path
    metrics: tuple[Metric, ...]
    scoring: ScorerSpec  # of `metrics`
    degradations: tuple[Degradation, ...]  # made of each good picture
    min_res: int  # pixels, both sides: smaller ones are not scored, as in the filter
    max_pixels: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Specimen:
    """A picture, or a degraded copy of one, with all its scores. A NaN: the metric gave no number."""

    name: str  # its path below the folder
    group: str
    good: bool
    width: int
    height: int
    scores: tuple[float, ...]  # in the order of the job's metrics
    seconds: tuple[float, ...]
    jpeg: bytes = field(repr=False)  # a thumbnail


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A file that has no scores, and why."""

    name: str
    refusal: Refusal

    @property
    def why(self) -> str:
        """The reason in the ledger's words, and its detail."""
        return f"{self.refusal.reason.value}: {self.refusal.detail}".rstrip(": ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """What the folders gave."""

    specimens: tuple[Specimen, ...]
    left_out: tuple[LeftOut, ...]

    def table(self, metrics: tuple[Metric, ...]) -> Scores:
        """All scores as arrays."""
        found = self.specimens
        shape = (len(found), len(metrics))
        return Scores(
            metrics=metrics,
            values=np.array([one.scores for one in found], np.float64).reshape(shape),
            groups=np.array([one.group for one in found], dtype=object),
            good=np.array([one.good for one in found], dtype=bool),
            seconds=np.array([one.seconds for one in found], np.float64).reshape(shape),
            megapixels=np.array([one.width * one.height / 1e6 for one in found]),
        )


def score_folders(job: CalibrateJob, watch: Callable[[int, int], None]) -> Gathered:
    """Scores every picture of both folders. `watch(files in all, files done)` follows.

    Raises ValueError before any work: no such folder, an empty one, a picture that is in both.
    """
    good, bad = files_of(job.good, good=True), files_of(job.bad, good=False)
    _check_apart(good, bad)
    calls = [(file, job) for file in [*good, *bad]]
    specimens: list[Specimen] = []
    left_out: list[LeftOut] = []
    most = max(_pixels(file.path, job.max_pixels) for file in [*good, *bad])
    with connected():
        task = score_file.options(memory=memory(job.scoring.bytes_per_pixel * most))
        for found in each(task, calls, watch):
            if isinstance(found, LeftOut):
                left_out.append(found)
            else:
                specimens += found
    return Gathered(specimens=tuple(specimens), left_out=tuple(left_out))


def files_of(folder: Path, *, good: bool) -> list[PictureFile]:
    """Every file below a folder, hidden ones aside, by name. Raises ValueError where there is none."""
    flag = "--good" if good else "--bad"
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; {flag} takes one with pictures")
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    if not paths:
        raise ValueError(f"{folder} has no file: give {flag} a folder with {'good' if good else 'bad'} pictures")
    return [PictureFile(path=path, good=good, group=path.parent.name) for path in paths]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _check_apart(good: Sequence[PictureFile], bad: Sequence[PictureFile]) -> None:
    known = {_digest(file.path): file.path for file in good}
    both = [(known[digest], file.path) for file in bad if (digest := _digest(file.path)) in known]
    if both:
        more = f" ({len(both)} pictures are in both)" if len(both) > 1 else ""
        raise ValueError(f"{both[0][1]} is the same picture as {both[0][0]}: take it out of --good or --bad{more}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _pixels(path: Path, most: int) -> int:
    """What scoring will hold: nothing for what is not scored."""
    seen = header(path.read_bytes())
    pixels = 0 if isinstance(seen, Refusal) else seen.width * seen.height
    return pixels if pixels <= most else 0


@ray.remote(num_cpus=1, max_retries=2)
def score_file(file: PictureFile, job: CalibrateJob) -> list[Specimen] | LeftOut:
    """The picture's scores, then those of its degraded copies where it is a good one."""
    picture = decode(file.path.read_bytes(), job.max_pixels)
    if isinstance(picture, Refusal):
        return LeftOut(name=str(file.path), refusal=picture)
    too_small = size(Thresholds(min_res=job.min_res), picture.width, picture.height)
    if too_small is not None:
        return LeftOut(name=str(file.path), refusal=too_small)
    name = file.path.relative_to(job.good if file.good else job.bad).as_posix()
    made = [_scored(picture, name, file.group, file.good, job)]
    seed = int(_digest(file.path)[:8], 16)  # the same noise for a picture, whatever lies beside it
    for kind in job.degradations if file.good else ():
        worse = degrade(picture.pixels, kind.kind, kind.amount, seed=seed)
        quality = kind.amount if kind.kind == "jpeg" else picture.jpeg_quality  # as if saved again alike
        copy = Picture(pixels=worse, format=picture.format, jpeg_quality=quality)
        made.append(_scored(copy, name, kind.name, False, job))
    return made


def _scored(picture: Picture, name: str, group: str, good: bool, job: CalibrateJob) -> Specimen:
    """All of a picture's scores, none of them a number where it is flat: the filter refuses it then before any."""
    flat = refuse_flat((), picture.pixels) is not None
    timed = [(math.nan, 0.0) if flat else _timed(picture, metric.name, job.scoring) for metric in job.metrics]
    return Specimen(
        name=name,
        group=group,
        good=good,
        width=picture.width,
        height=picture.height,
        scores=tuple(score for score, _ in timed),
        seconds=tuple(seconds for _, seconds in timed),
        jpeg=jpeg(thumbnail(picture.pixels)),
    )


def _timed(picture: Picture, metric: str, spec: ScorerSpec) -> tuple[float, float]:
    """The score, as the ledger would hold it, and the seconds that it took."""
    panel = _panel(spec)
    started = time.perf_counter()
    score = float(np.float32(_score(picture, metric, panel)))
    return score, time.perf_counter() - started


def _score(picture: Picture, metric: str, panel: Panel) -> float:
    if metric == JPEG_QUALITY:
        return picture.jpeg_quality
    return panel.score(picture.pixels, (metric,)).scores[metric]


@functools.lru_cache(maxsize=1)
def _panel(spec: ScorerSpec) -> Panel:
    panel = Panel(dict(spec.weights), spec.engine)
    panel.setup()
    return panel


def misjudged(
    gathered: Gathered, metrics: tuple[Metric, ...], bounds: Sequence[MetricThreshold], *, good: bool
) -> list[Wrong]:
    """The good pictures that are refused, or the bad ones that pass: one of each group, then the next of each."""
    seen: Counter[str] = Counter()
    turns: list[tuple[int, Wrong]] = []
    for one, votes in zip(gathered.specimens, passing(gathered.table(metrics), bounds), strict=True):
        if one.good is good and votes.all() != good:
            turns.append((seen[one.group], _wrong(one, metrics, bounds, votes)))
            seen[one.group] += 1
    return [wrong for _, wrong in sorted(turns, key=itemgetter(0))]


def _wrong(one: Specimen, metrics: tuple[Metric, ...], bounds: Sequence[MetricThreshold], votes: np.ndarray) -> Wrong:
    return Wrong(
        name=one.name,
        group=one.group,
        scores=dict(zip((metric.name for metric in metrics), one.scores, strict=True)),
        against=tuple(bound.metric for bound, vote in zip(bounds, votes, strict=True) if not vote),
        jpeg=one.jpeg,
    )


def to_parquet(gathered: Gathered, metrics: Sequence[Metric]) -> bytes:
    """A Parquet file with a row per picture: path, label, group, size, and each metric's score and seconds."""
    found = gathered.specimens
    columns: dict[str, list[object]] = {
        "path": [one.name for one in found],
        "label": ["good" if one.good else "bad" for one in found],
        "group": [one.group for one in found],
        "width": [one.width for one in found],
        "height": [one.height for one in found],
    }
    for at, metric in enumerate(metrics):
        columns[METRIC_PREFIX + metric.name] = [one.scores[at] for one in found]
        columns[f"seconds_{metric.name}"] = [one.seconds[at] for one in found]
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()
