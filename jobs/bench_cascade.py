"""What stopping at the first vote against saves: bytes, scores and CPU seconds, for the same kept pictures.

In one process, one core and CPU seconds: starting Ray would cost more than all of the pictures of a bench.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from curation.decode import DEFAULT_MAX_PIXELS
from curation.glance import LOOKS, Glance, Look, unseen
from curation.judge import Thresholds
from curation.measure import Scale, measure
from curation.records import Link, Reason, Row
from curation.scorers import Panel, resolve
from jobs import terminal
from jobs.terminal import ratio, shown
from pipelines import recipes
from pipelines.units import BATCH_PICTURES


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What it took to come to the verdicts on some files."""

    kept: tuple[Path, ...]
    cpu_seconds: float  # of decoding and scoring
    bytes_read: int
    by_header: int  # files refused by their first bytes
    scores: Counter[str]  # metric -> how often it was computed


def table(folders: Sequence[Path], weights: Path | None, names: tuple[str, ...]) -> str:
    """Every file below `folders`, by metrics of the default recipe. Raises ValueError for one that it does not have."""
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    bounds = {one.metric: one.bound for one in recipes.laion_hr().thresholds.metrics}
    if unknown := [name for name in names if name not in bounds]:
        raise ValueError(f"the default recipe has no {', '.join(unknown)}: choose from {', '.join(bounds)}")
    panel = Panel(resolve(names, weights))
    panel.setup()
    thresholds = recipes.thresholds({name: bounds[name] for name in names})
    work = [measured(files, panel, thresholds, cascade) for cascade in (False, True, False, True)]
    return f"{len(files)} files, metrics {', '.join(names)}, one core\n" + saved(min_of(work[::2]), min_of(work[1::2]))


def measured(files: Sequence[Path], panel: Panel, thresholds: Thresholds, cascade: bool) -> Work:
    """Looks at, decodes and scores the files as a worker does, four at a time."""
    scale = Scale(thresholds=thresholds, max_pixels=DEFAULT_MAX_PIXELS, cascade=cascade)
    look = Glance(thresholds=thresholds, max_pixels=DEFAULT_MAX_PIXELS) if cascade else unseen
    started = time.process_time()
    whole, read = [], 0
    for file in files:
        length = _looked_at(file.read_bytes(), look)
        read += length or file.stat().st_size
        whole += [] if length else [file]
    rows: list[Row] = []
    for at in range(0, len(whole), BATCH_PICTURES):
        batch = whole[at : at + BATCH_PICTURES]
        links = [Link(position=n, key=f"{n:016x}", url=one.as_uri(), source="bench") for n, one in enumerate(batch)]
        blank = [Row(link=link, reason=Reason.NOT_MEASURED) for link in links]
        rows += measure(blank, [one.read_bytes() for one in batch], panel, scale)
    return Work(
        kept=tuple(one for one, row in zip(whole, rows, strict=True) if row.reason is Reason.NOT_STORED),
        cpu_seconds=time.process_time() - started,
        bytes_read=read,
        by_header=len(files) - len(whole),
        scores=Counter(metric for row in rows for metric in row.scores),
    )


def _looked_at(body: bytes, look: Look) -> int:
    """The bytes it took to refuse a file by its first ones, 0 where it is read whole."""
    for length in (one for one in LOOKS if one < len(body)):
        seen = look(body[:length])
        if seen is not None:
            return length if seen.refusal is not None else 0
    return 0


def min_of(runs: Sequence[Work]) -> Work:
    """The quickest: all come to the same."""
    return min(runs, key=lambda run: run.cpu_seconds)


def saved(full: Work, short: Work) -> str:
    """The table of doing everything and of stopping at the first vote against. Raises where they keep other files."""
    if full.kept != short.kept:
        raise RuntimeError(f"{len(full.kept)} kept without the cascade, {len(short.kept)} with it: this is a defect")

    def figures(work: Work) -> dict[str, float]:
        count = max(1, len(work.kept))
        return {
            "kept pictures": len(work.kept),
            "refused by their header": work.by_header,
            "MB read": work.bytes_read / 1e6,
            "MB read a kept picture": work.bytes_read / 1e6 / count,
            "CPU seconds": work.cpu_seconds,
            "CPU seconds a kept picture": work.cpu_seconds / count,
            **{f"scores of {metric}": work.scores[metric] for metric in full.scores},
        }

    left, right = figures(full), figures(short)
    rows = [(key, shown(left[key]), shown(right[key]), ratio(right[key], left[key])) for key in left]
    return terminal.table(("", "everything", "cascade", "ratio"), rows)
