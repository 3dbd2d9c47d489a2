"""The fused engine next to pyiqa: one process, one core, the same decoded pictures.

Seconds are the least of up to three runs (a run of pyiqa that takes longer than two seconds is not repeated), from
pixels to score, the look for flat pictures included. Decoding is measured apart: with one read of the pixels it is
the floor, what no scorer can go below.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import cv2
import numpy as np
import psutil
import torch

from curation.decode import decode
from curation.records import Picture
from curation.scorers import FusedScorer, PyiqaScorer, Scorer, WeightFile
from curation.scorers.mscn import luma
from curation.scorers.nima import Nima
from curation.scorers.pyiqa_build import build, without_backbone_weights
from curation.scorers.weights import SUMS, pinned
from jobs.terminal import Bar, ratio, shown, table

ROOT: Final = Path(__file__).resolve().parents[1]
METRICS: Final = ("niqe", "brisque")
BATCH: Final = 8  # pictures in one forward of NIMA
#: Megapixels at which a class of pictures ends.
CLASSES: Final = (3.0, 6.0, 12.0, math.inf)
PYIQA_BYTES: Final = 490  # a pixel: its NIQE's peak
ENOUGH_SECONDS: Final = 2.0

Weights = Mapping[str, tuple[WeightFile, ...]]
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One engine on one picture, by metric (and `both`)."""

    seconds: dict[str, float]
    scores: dict[str, float]  # NaN where there is none


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One picture, measured. Seconds."""

    name: str
    megapixels: float
    decode: float
    read: float
    pyiqa: Side
    fused: Side
    exact: float  # BRISQUE by pyiqa in float64


def one_core() -> None:
    """Holds this process, and those that it starts, to one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def measure(files: Sequence[Path], weights: Weights) -> list[Shot]:
    """Scores every picture by both engines; those that can't be decoded are left out, or for which memory is short."""
    engines = PyiqaScorer(weights), FusedScorer(weights)
    for engine in engines:
        engine.setup()
    exact = _in_float64(weights["brisque"])
    shots = []
    with Bar("scoring", "picture") as bar:
        for done, path in enumerate(files, start=1):
            if (shot := _shot(path, *engines, exact)) is not None:
                shots.append(shot)
            bar(len(files), done, path.name)
    return shots


def speed(shots: Sequence[Shot]) -> str:
    """Seconds per megapixel of both engines, by size."""
    rows = []
    for label, some in _by_size(shots):
        pixels = sum(shot.megapixels for shot in some)
        for metric in (*METRICS, "both"):
            pyiqa, fused = (
                sum(side.seconds[metric] for side in sides) / pixels
                for sides in ([shot.pyiqa for shot in some], [shot.fused for shot in some])
            )
            first = metric == METRICS[0]
            row = (f"{len(some)} of {label}" if first else "", metric, shown(pyiqa), shown(fused), ratio(pyiqa, fused))
            rows.append(row)
    return table(("pictures", "metric", "pyiqa, s/MP", "fused, s/MP", "times"), rows)


def floor(shots: Sequence[Shot]) -> str:
    """What a picture costs before it is scored, next to the fused scores of both metrics."""
    rows = []
    for label, some in _by_size(shots):
        pixels = sum(shot.megapixels for shot in some)
        decoding, reading, scoring = (
            sum(values) / pixels
            for values in zip(*((shot.decode, shot.read, shot.fused.seconds["both"]) for shot in some), strict=True)
        )
        whole = decoding + reading
        figures = (*map(shown, (decoding, reading, scoring)), ratio(whole + scoring, whole))
        rows.append((f"{len(some)} of {label}", *figures))
    return table(("pictures", "decode, s/MP", "one read, s/MP", "both scores, s/MP", "all / floor"), rows)


def equality(shots: Sequence[Shot], bounds: Mapping[str, float]) -> str:
    """The largest differences, and how many verdicts change."""
    gaps: dict[str, Callable[[Shot], float]] = {
        "NIQE, fused - pyiqa": lambda shot: _apart(shot.fused.scores["niqe"], shot.pyiqa.scores["niqe"]),
        "BRISQUE, fused - pyiqa": lambda shot: _apart(shot.fused.scores["brisque"], shot.pyiqa.scores["brisque"]),
        "BRISQUE, fused - pyiqa in float64": lambda shot: _apart(shot.fused.scores["brisque"], shot.exact),
        "BRISQUE, pyiqa - pyiqa in float64": lambda shot: _apart(shot.pyiqa.scores["brisque"], shot.exact),
    }
    rows = []
    for name, gap in gaps.items():
        worst = max(shots, key=gap)
        rows.append((name, f"{gap(worst):.2e}", worst.name))
    changed = [shot.name for shot in shots if _verdict(shot.fused, bounds) != _verdict(shot.pyiqa, bounds)]
    words = ", ".join(f"{metric} <= {bound:g}" for metric, bound in bounds.items())
    verdicts = f"verdicts at {words} that differ: {len(changed)} of {len(shots)} {' '.join(changed)}".rstrip()
    return table(("largest difference", "", "picture"), rows) + f"\n{verdicts}"


def memory(path: Path, folder: Path | None, scratch: Path) -> str:
    """Peak memory of one picture by each engine, in a process of its own."""
    pixels = _pixels(path.read_bytes())
    assert pixels is not None, "it was decoded before"
    np.save(scratch / "pixels.npy", pixels)
    rows = []
    for engine in ("pyiqa", "fused"):
        words = ["-m", "jobs.peak_memory", engine, str(scratch / "pixels.npy"), *([str(folder)] if folder else [])]
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words[1:3])} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        peak = json.loads(done.stdout)
        figures = (peak["peak"] - peak["before"], peak["peak"], peak["before"])
        rows.append((engine, *(shown(figure / 1e6) for figure in figures)))
    head = f"{path.name}, {pixels.size / 3e6:.1f} MP, whose pixels take {pixels.size / 1e6:.0f} MB\n"
    return head + table(("MB", "picture and scoring", "process at peak", "process before"), rows)


def nima(files: Sequence[Path], weights: tuple[WeightFile, ...]) -> str:
    """Seconds per picture of pyiqa, one at a time, and of batches."""
    oracle, ours = PyiqaScorer({"nima": weights}), Nima("nima", weights)
    oracle.setup()
    ours.setup()
    pictures = [pixels for path in files if (pixels := _pixels(path.read_bytes())) is not None]
    theirs = [_timed(partial(oracle.score, pixels)) for pixels in pictures]
    reduced = [_timed(partial(ours.reduced, pixels)) for pixels in pictures]
    batches = [[one for _, one in reduced[at : at + BATCH]] for at in range(0, len(reduced), BATCH)]
    forwards = [_timed(partial(ours.score, batch)) for batch in batches]
    scores = [score for _, batch in forwards for score in batch]
    before, shrinking, network = (sum(s for s, _ in timed) / len(pictures) for timed in (theirs, reduced, forwards))
    gap = max(_apart(score, scored.scores["nima"]) for score, (_, scored) in zip(scores, theirs, strict=True))
    megapixels = sum(pixels.size for pixels in pictures) / 3e6 / len(pictures)
    row = (f"{len(pictures)} of {megapixels:.1f} MP", *map(shown, (before, shrinking, network)))
    head = ("pictures", "pyiqa, s", "reduced, s", f"network in batches of {BATCH}, s", "times", "largest difference")
    return table(head, [(*row, ratio(before, shrinking + network), f"{gap:.2e}")])


def random_nima(folder: Path) -> Path:
    """Puts NIMA's file with random weights, and its digest, into a new folder; returns the folder."""
    from pyiqa.archs.nima_arch import NIMA

    folder.mkdir()
    with without_backbone_weights():
        network = NIMA("inception_resnet_v2", pretrained=False)
    file = folder / "NIMA_InceptionV2_ava-b0c77c00.pth"
    torch.save({"params": network.state_dict()}, file)
    (folder / SUMS).write_text(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n")
    return folder


def _in_float64(files: tuple[WeightFile, ...]) -> Callable[[np.ndarray], float]:
    """pyiqa's BRISQUE in float64, of the luma that its float32 gives: half-way colours round apart in the two."""
    model = build("brisque", device=torch.device("cpu"), find=pinned(files))

    def score(pixels: np.ndarray) -> float:
        try:
            return float(model(torch.from_numpy(luma(pixels) / 255.0)[None, None]))
        except AssertionError:  # no variance
            return math.nan

    return score


def _shot(path: Path, pyiqa: Scorer, fused: Scorer, exact: Callable[[np.ndarray], float]) -> Shot | None:
    body = path.read_bytes()
    decoding, pixels = _timed(partial(_pixels, body))
    if pixels is None:
        return None
    if pixels.size / 3 * PYIQA_BYTES > psutil.virtual_memory().available:
        print(f"{path.name} is left out: pyiqa needs {pixels.size / 3 * PYIQA_BYTES / 1e9:.1f} GB for it", flush=True)
        return None
    reading, _ = _timed(pixels.max)
    ours = _side(fused, pixels)
    theirs = _side(pyiqa, pixels)
    return Shot(
        name=path.name,
        megapixels=pixels.size / 3e6,
        decode=decoding,
        read=reading,
        pyiqa=theirs,
        fused=ours,
        exact=exact(pixels) if math.isfinite(theirs.scores["brisque"]) else math.nan,
    )


def _side(scorer: Scorer, pixels: np.ndarray) -> Side:
    """Each metric alone, and both together."""
    seconds, scores = {}, {}
    for metric in METRICS:
        seconds[metric], scored = _timed(partial(scorer.score, pixels, (metric,)))
        scores[metric] = scored.scores[metric]
    if isinstance(scorer, FusedScorer):
        seconds["both"], _ = _timed(partial(scorer.score, pixels, METRICS))
    else:  # shares nothing between the two
        seconds["both"] = sum(seconds.values())
    return Side(seconds=seconds, scores=scores)


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """The least seconds of up to three runs, and the result."""
    least, began = math.inf, time.perf_counter()
    for _ in range(3):
        start = time.perf_counter()
        result = work()
        least = min(least, time.perf_counter() - start)
        if time.perf_counter() - began > ENOUGH_SECONDS:
            break
    return least, result


def _pixels(body: bytes) -> np.ndarray | None:
    picture = decode(body)
    return picture.pixels if isinstance(picture, Picture) else None


def _by_size(shots: Sequence[Shot]) -> Iterator[tuple[str, list[Shot]]]:
    """The classes that have pictures, and at last all together."""
    lowest = 0.0
    for highest in CLASSES:
        some = [shot for shot in shots if lowest <= shot.megapixels < highest]
        if some:
            yield f"{lowest:g} to {highest:g} MP" if highest < math.inf else f"{lowest:g} MP and more", some
        lowest = highest
    yield "all sizes", list(shots)


def _apart(one: float, other: float) -> float:
    """Their distance; 0 where both are no number, infinite where one is."""
    if math.isnan(one) or math.isnan(other):
        return 0.0 if math.isnan(one) and math.isnan(other) else math.inf
    return abs(one - other)


def _verdict(side: Side, bounds: Mapping[str, float]) -> list[bool]:
    return [side.scores[metric] <= bound for metric, bound in bounds.items()]
