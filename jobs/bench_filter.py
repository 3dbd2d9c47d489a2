"""The job against the plain script, its memory as the list grows, and its downloads against stock img2dataset."""

from __future__ import annotations

import argparse
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs import terminal
from jobs.bench_runs import METRICS, Run, Weights, check_answers, job_command, pictures, run, weights_for, write_list
from jobs.bench_server import LARGE, SCORED_EVERY, SMALL, PictureServer, texture, tiny
from jobs.terminal import ratio, shown
from pipelines.baseline import THREADS

CHUNK: Final = 250  # rows a unit in `memory`: 1,000 rows then already keep all cores busy


@dataclass(frozen=True, kw_only=True, slots=True)
class Patches:
    """What lies in the tars of a folder."""

    pictures: int
    patches: int
    bytes: int


# ---------------------------------------------------------------- the job against the plain script


def filtering(flags: argparse.Namespace, scratch: Path) -> str:
    """Links to shards by either."""
    files, pristine = pictures(flags.photos, flags.limit, scratch)
    weights = weights_for(flags.weights, pristine, scratch)
    with PictureServer(lambda number: files[number].read_bytes()) as server:
        listed = write_list(server, len(files), scratch)
        plain = run(_plain_command(listed, scratch / "plain", weights), scratch)
        ours = run(job_command(listed, scratch / "ours", weights), scratch)
    made = (tars(scratch / "plain"), tars(scratch / "ours" / "shards"))
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    head = f"{len(files)} pictures, {megabytes:.0f} MB, metrics {', '.join(METRICS)}\n"
    return head + against("plain script", (plain, made[0]), "dynet-filter", (ours, made[1]), len(files))


def _plain_command(listed: Path, out: Path, weights: Weights) -> list[str]:
    metrics = [f"--metric={name}={weights.bounds[name]}={files[0].path}" for name, files in weights.files.items()]
    return ["-m", "pipelines.baseline", "--urls", str(listed), "--out", str(out), *metrics]


def against(name: str, base: tuple[Run, Patches], other_name: str, other: tuple[Run, Patches], pictures: int) -> str:
    """The table of two contenders, with the ratio of the second to the first."""

    def figures(run: Run, made: Patches) -> dict[str, float]:
        return {
            "pictures/s": pictures / run.seconds,
            "seconds": run.seconds,
            "CPU seconds": run.peaks.cpu_seconds,
            "peak memory, MB": run.peaks.tree / 1e6,
            "pictures with patches": made.pictures,
            "patches": made.patches,
            "patches, MB": made.bytes / 1e6,
            "KB a patch": made.bytes / 1e3 / max(1, made.patches),
        }

    left, right = figures(*base), figures(*other)
    rows = [(key, shown(left[key]), shown(right[key]), ratio(right[key], left[key])) for key in left]
    return terminal.table(("", name, other_name, "ratio"), rows)


def tars(folder: Path) -> Patches:
    """Counts the patches (all that is no JSON) in the tars of `folder`, and the pictures they are from."""
    pictures, count, size = set(), 0, 0
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if not member.name.endswith(".json"):
                    pictures.add(member.name.partition("_")[0])
                    count, size = count + 1, size + member.size
    return Patches(pictures=len(pictures), patches=count, bytes=size)


# ---------------------------------------------------------------- memory as the list grows


def memory(flags: argparse.Namespace, scratch: Path) -> str:
    """Peaks of the job on lists of some lengths."""
    weights = weights_for(flags.weights, [texture(seed, 768, 960) for seed in range(1, 7)], scratch)
    loose = Weights(files=weights.files, bounds=dict.fromkeys(METRICS, 1e6), folder=weights.folder)
    small = ("--min-res", str(LARGE), "--chunk-size", str(CHUNK), "--no-shards")
    runs = []
    for rows in flags.rows:
        with PictureServer(tiny) as server:
            listed = write_list(server, rows, scratch)
            runs.append(run(job_command(listed, scratch / f"store-{rows}", loose, *small), scratch))
            check_answers(server, rows)
    head = f"one row in {SCORED_EVERY} is a picture of {LARGE} px that is scored and kept, the others have {SMALL} px "
    return (
        head
        + f"and are\nrefused as too small once decoded; {CHUNK} rows a chunk; memory in MB\n"
        + grown(flags.rows, runs)
    )


def grown(rows: Sequence[int], runs: Sequence[Run]) -> str:
    """The table of one run per list length, with the ratio of the last to the first."""
    figures: dict[str, Callable[[Run], float]] = {
        "CPU seconds": lambda run: run.peaks.cpu_seconds,
        "workers, most at once": lambda run: run.peaks.workers,
        "driver, peak": lambda run: run.peaks.role["driver"] / 1e6,
        "driver, heap at the end": lambda run: run.peaks.driver_heap / 1e6,
        "largest worker, peak": lambda run: run.peaks.role.get("worker", 0) / 1e6,
        "object store, peak": lambda run: run.peaks.object_store / 1e6,
        "all processes, peak": lambda run: run.peaks.tree / 1e6,
    }
    table = {
        "seconds": [run.seconds for run in runs],
        "rows/s": [count / run.seconds for count, run in zip(rows, runs, strict=True)],
        **{name: [of(run) for run in runs] for name, of in figures.items()},
    }
    lines = [(name, *map(shown, values), ratio(values[-1], values[0])) for name, values in table.items()]
    return terminal.table(("", *(f"{count} rows" for count in rows), "ratio"), lines)


# ---------------------------------------------------------------- downloads alone


def downloads(flags: argparse.Namespace, scratch: Path) -> str:
    """Pictures a second by either, large ones and small ones."""
    files, _ = pictures(flags.photos, flags.limit, scratch)
    photos = [file.read_bytes() for file in files]
    sets: dict[str, Callable[[int], bytes]] = {
        f"of {sum(map(len, photos)) / len(photos) / 1e3:.0f} KB": lambda number: photos[number % len(photos)],
        f"of {len(tiny(1)) / 1e3:.1f} KB": lambda number: tiny(1),
    }
    rows = []
    for name, body in sets.items():
        stock = _downloads(body, flags.rows, scratch, ["-m", "pipelines.baseline", "--download-only"])
        ours = _downloads(body, flags.rows, scratch, ["jobs/bench.py", "download"])
        rows.append((f"{flags.rows} {name}", shown(stock), shown(ours), ratio(ours, stock)))
    head = f"pictures/s from the first request to the last answer, {THREADS} threads, written to files\n"
    return head + terminal.table(("pictures", "img2dataset", "curation.fetch", "ratio"), rows)


def _downloads(body: Callable[[int], bytes], rows: int, scratch: Path, command: Sequence[str]) -> float:
    """Pictures per second, start-up not counted."""
    with PictureServer(body) as server, tempfile.TemporaryDirectory(dir=scratch) as out:
        run([*command, "--urls", str(write_list(server, rows, scratch)), "--out", out], scratch)
        check_answers(server, rows)
        return rows / server.seconds
