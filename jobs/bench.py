"""What the job costs, next to what one would use instead: the same list, machine and call, so that ratios hold.

python jobs/bench.py filter --photos DIR --weights DIR --limit 16    # against img2dataset + pyiqa + PNG in a tar
python jobs/bench.py cascade --photos DIR DIR --weights DIR          # against reading and scoring everything
python jobs/bench.py memory --rows 1000 20000                        # stays flat as the list grows
python jobs/bench.py fetch                                           # against stock img2dataset
python jobs/bench.py score --photos DIR --weights DIR                # the fused engine against pyiqa
python jobs/bench.py train --peer DyNet --batch 2                    # a training step against the released code's
python jobs/bench.py plan --rows 20000 --pilot 5000                  # a plan from a pilot against the run itself
python jobs/bench.py scale                                           # on 1, 2 and 4 Ray nodes

Pictures come over HTTP from this process, so both sides of a ratio share the cores with the server. Seconds count
from the start of a contender's process to its end, imports and Ray's start included.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Final

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from curation import urls
from curation.decode import header
from curation.fetch import FetchSettings, fetch
from curation.fit import fit
from curation.records import Header
from curation.scorers import WeightFile, WeightMissing, resolve
from jobs import bench_cascade, terminal
from jobs.bench_mixture import SIDE, small_web
from jobs.bench_server import LARGE, SCORED_EVERY, SMALL, PictureServer, texture, tiny
from jobs.process_tree import Peaks, Watcher, check_platform
from jobs.terminal import ratio, shown
from pipelines import pilot, promise, recipes
from pipelines.baseline import THREADS
from pipelines.demo_pictures import make_pictures
from shards.store import open_store

PROGRAM = "bench"
ROOT: Final = Path(__file__).resolve().parents[1]
METRICS: Final = ("niqe", "brisque")  # NIMA costs both sides the same, and its weights are the hardest to have
PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif"})
CHUNK: Final = 250  # rows a unit in `memory`: 1,000 rows then already keep all cores busy
PACKAGES: Final = ("torch", "pyiqa", "ray", "img2dataset", "pyarrow", "pillow", "numpy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one contender's process, with all it started, took."""

    seconds: float
    peaks: Peaks


@dataclass(frozen=True, kw_only=True, slots=True)
class Patches:
    """What lies in the tars of a folder."""

    pictures: int
    patches: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Where the metrics' files are, and the bounds that go with them."""

    files: dict[str, tuple[WeightFile, ...]]
    bounds: dict[str, float]
    folder: Path | None  # for --weights; None: pyiqa's cache


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    if flags.command == "download":
        return terminal.guarded(PROGRAM, lambda: _download(flags.urls, flags.out))
    return terminal.guarded(PROGRAM, lambda: _bench(flags))


def _bench(flags: argparse.Namespace) -> None:
    check_platform()
    print(machine(), flush=True)
    works = {
        "filter": _filter,
        "cascade": _cascade,
        "memory": _memory,
        "fetch": _fetch,
        "score": _score,
        "stream": _stream,
        "train": _train,
        "plan": _plan,
        "scale": _scale,
    }
    work = works[flags.command]
    with tempfile.TemporaryDirectory(prefix="million-ird-bench-") as scratch:
        print(work(flags, Path(scratch)))


# ---------------------------------------------------------------- the job against the plain script


def _filter(flags: argparse.Namespace, scratch: Path) -> str:
    files, pristine = _pictures(flags.photos, flags.limit, scratch)
    weights = _weights(flags.weights, pristine, scratch)
    with PictureServer(lambda number: files[number].read_bytes()) as server:
        listed = _write_list(server, len(files), scratch)
        plain = _run(_plain_command(listed, scratch / "plain", weights), scratch)
        ours = _run(_job_command(listed, scratch / "ours", weights), scratch)
    made = (tars(scratch / "plain"), tars(scratch / "ours" / "shards"))
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    head = f"{len(files)} pictures, {megabytes:.0f} MB, metrics {', '.join(METRICS)}\n"
    return head + against("plain script", (plain, made[0]), "dynet-filter", (ours, made[1]), len(files))


def _plain_command(listed: Path, out: Path, weights: Weights) -> list[str]:
    metrics = [f"--metric={name}={weights.bounds[name]}={files[0].path}" for name, files in weights.files.items()]
    return ["-m", "pipelines.baseline", "--urls", str(listed), "--out", str(out), *metrics]


def _job_command(listed: Path, out: Path, weights: Weights, *more: str) -> list[str]:
    words = ["jobs/filter_laion.py", "--urls", str(listed), "--out", str(out), "--metrics", ",".join(weights.bounds)]
    words += [f"--threshold={name}={bound}" for name, bound in weights.bounds.items()]
    words += ["--weights", str(weights.folder)] if weights.folder else []
    # one host has all pictures here, which no real list has: it may be asked as often at once as by the plain script
    return [*words, "--allow-private-hosts", "--per-host", str(THREADS), *more]


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


def _cascade(flags: argparse.Namespace, _: Path) -> str:
    return bench_cascade.table(flags.photos, flags.weights, tuple(terminal.names(flags.metrics)))


# ---------------------------------------------------------------- memory as the list grows


def _memory(flags: argparse.Namespace, scratch: Path) -> str:
    weights = _weights(flags.weights, [texture(seed, 768, 960) for seed in range(1, 7)], scratch)
    loose = Weights(files=weights.files, bounds=dict.fromkeys(METRICS, 1e6), folder=weights.folder)
    small = ("--min-res", str(LARGE), "--chunk-size", str(CHUNK), "--no-shards")
    runs = []
    for rows in flags.rows:
        with PictureServer(tiny) as server:
            listed = _write_list(server, rows, scratch)
            runs.append(_run(_job_command(listed, scratch / f"store-{rows}", loose, *small), scratch))
            _check_answers(server, rows)
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


def _fetch(flags: argparse.Namespace, scratch: Path) -> str:
    files, _ = _pictures(flags.photos, flags.limit, scratch)
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
        _run([*command, "--urls", str(_write_list(server, rows, scratch)), "--out", out], scratch)
        _check_answers(server, rows)
        return rows / server.seconds


def _check_answers(server: PictureServer, rows: int) -> None:
    """More there may be: a task that Ray had to start again asks anew."""
    if server.answers < rows:
        raise RuntimeError(f"only {server.answers} of {rows} pictures were asked for: this is a defect")


def _download(listed: Path, out: Path) -> None:
    """Our side of `fetch`, in a process of its own."""
    links = list(urls.read_links([listed], "bench"))
    for one in fetch(links, FetchSettings(threads=THREADS, per_host=THREADS, allow_private_hosts=True)):
        if one.body is None:
            raise RuntimeError(f"{one.refusal}: nothing here should be refused")
        (out / one.key).write_bytes(one.body)


# ---------------------------------------------------------------- the engines


def _score(flags: argparse.Namespace, scratch: Path) -> str:
    from jobs import bench_score  # torch and pyiqa take seconds to import, and the other commands need neither

    files, pristine = _pictures(flags.photos, None, scratch)
    files = spread(sorted(files, key=_area), flags.limit)
    weights = _weights(flags.weights, pristine, scratch)
    bench_score.one_core()
    shots = bench_score.measure(files, weights.files)
    if not shots:
        raise ValueError("none of these pictures can be scored here: give others, or a machine with more memory")
    scored = [file for file in files if file.name in {shot.name for shot in shots}]
    parts = [
        bench_score.speed(shots),
        bench_score.floor(shots),
        bench_score.equality(shots, weights.bounds),
        bench_score.memory(scored[-1], weights.folder, scratch),
        bench_score.nima(spread([file for file in scored if _area(file) < 4e6], 16), _nima(flags.weights, scratch)),
    ]
    return "\n\n".join(parts)


def _stream(flags: argparse.Namespace, scratch: Path) -> str:
    from jobs import bench_stream  # torch and webdataset take seconds to import, and the other commands need neither

    store = bench_stream.made(flags.photos, scratch)
    paces = bench_stream.table(store, scratch, flags.seconds)
    if flags.out is None:
        return paces
    print(paces, flush=True)
    return "\n" + bench_stream.cold_start(store, open_store(flags.out, flags.endpoint_url), flags.endpoint_url, scratch)


def _train(flags: argparse.Namespace, _scratch: Path) -> str:
    from jobs import bench_train  # torch takes seconds to import, and the other commands need none of it

    return bench_train.table(
        bench_train.Setting(
            peer=flags.peer,
            depths=flags.depth,
            batch=flags.batch,
            crop=flags.crop,
            width=flags.width,
            rounds=flags.rounds,
            compiled=flags.compile,
        )
    )


# ---------------------------------------------------------------- a plan against the run


def _plan(flags: argparse.Namespace, scratch: Path) -> str:
    fitted = flags.weights or scratch / "weights"
    if flags.weights is None:
        fit([texture(seed, 768, 960) for seed in range(1, 7)], fitted)
    bounds = {one.metric: one.bound for one in recipes.demo().thresholds.metrics}
    weights = Weights(files=resolve(METRICS, fitted), bounds=bounds, folder=fitted)
    # no second tries; as patient as ever, or a busy machine's own server would count as a slow host
    once = ("--attempts", "1", "--deadline", "30", "--min-res", str(SIDE))
    with small_web(flags.rows, flags.wait) as urls_there:
        listed = scratch / "list.parquet"
        pq.write_table(pa.table({"URL": urls_there}), listed)
        store = scratch / "store"
        run = _job_command(listed, store, weights, *once)
        script, *words = _job_command(listed, scratch / "pilot", weights, *once)
        planned = _run([script, "plan", *words, "--pilot", str(flags.pilot), "--for", str(store)], scratch)
        said = (scratch / "log.txt").read_text()
        measured = (scratch / "pilot" / pilot.PILOT).read_text()  # what jobs/simulate.py takes
        done = _run(run, scratch)
    head = f"{said}\n{pilot.PILOT}: {measured}\n\n"
    head += f"pilot of {flags.pilot}: {planned.seconds:.0f} s; run of {flags.rows}: {done.seconds:.0f} s\n\n"
    return head + (store / promise.COMPARED).read_text()


# ---------------------------------------------------------------- on several nodes


def _scale(flags: argparse.Namespace, scratch: Path) -> str:
    from jobs import bench_scale  # Ray takes seconds to import, and the other commands need none of it here

    weights = _weights(flags.weights, [texture(seed, 768, 960) for seed in range(1, 7)], scratch)
    loose = Weights(files=weights.files, bounds=dict.fromkeys(METRICS, 1e6), folder=weights.folder)
    words = ["--min-res", str(LARGE), "--chunk-size", str(bench_scale.CHUNK), "--no-shards"]
    words += ["--threads", str(bench_scale.THREADS), "--per-host", "1000"]

    def job(address: str, server: PictureServer, rows: int) -> None:
        with tempfile.TemporaryDirectory(dir=scratch) as out:
            _run(_job_command(_write_list(server, rows, scratch), Path(out), loose, *words), scratch, address)
        _check_answers(server, rows)

    return bench_scale.table(flags.nodes, flags.rows, job)


def spread(files: Sequence[Path], limit: int | None) -> list[Path]:
    """At most `limit` files at even distances, the first and the last among them."""
    if limit is None or limit >= len(files):
        return list(files)
    return [files[round(number * (len(files) - 1) / max(1, limit - 1))] for number in range(limit)]


def _area(path: Path) -> int:
    measured = header(path.read_bytes())
    return measured.width * measured.height if isinstance(measured, Header) else 0


def _nima(given: Path | None, scratch: Path) -> tuple[WeightFile, ...]:
    """NIMA's weights, or random ones; the latter is said."""
    from jobs import bench_score

    try:
        return resolve(("nima",), given)["nima"]
    except WeightMissing:
        print("NIMA's weights could not be had: both sides score with random ones", flush=True)
    return resolve(("nima",), bench_score.random_nima(scratch / "nima"))["nima"]


# ---------------------------------------------------------------- what all share


def machine() -> str:
    """Hardware, date and versions, in three lines."""
    model = next((x.partition(":")[2] for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "")
    memory = psutil.virtual_memory().total / 1e9
    busy = os.getloadavg()[0]
    return "\n".join(
        (
            f"{model.strip() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GB",
            f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, load before the start {busy:.1f}",
            f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        )
    )


def _run(words: Sequence[str], scratch: Path, address: str = "local") -> Run:
    """Runs Python with `words` in a process of its own; on a Ray of its own as well, unless `address` names another.

    Raises RuntimeError with its last words where it fails.
    """
    log = scratch / "log.txt"
    quiet = {"NO_ALBUMENTATIONS_UPDATE": "1", "RAY_ADDRESS": address}
    started = time.monotonic()
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=os.environ | quiet, stdout=sink, stderr=subprocess.STDOUT
        )
        with Watcher(process.pid) as peaks:
            status = process.wait()
    seconds = time.monotonic() - started
    if status:
        raise RuntimeError(f"{' '.join(words[:2])} ended with {status}:\n{log.read_text(errors='replace')[-3000:]}")
    return Run(seconds=seconds, peaks=peaks)


def _pictures(photos: Path | None, limit: int | None, scratch: Path) -> tuple[list[Path], list[Path]]:
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


def _weights(given: Path | None, pristine: Sequence[Path | np.ndarray], scratch: Path) -> Weights:
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


def _write_list(server: PictureServer, rows: int, scratch: Path) -> Path:
    path = scratch / "list.parquet"
    pq.write_table(pa.table({"URL": [server.url(number) for number in range(rows)]}), path)
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{filter,cascade,memory,fetch,score,stream,train,scale,plan}"
    )
    one = commands.add_parser("filter", help="throughput and peak memory next to a plain script")
    two = commands.add_parser("memory", help="peak memory as the list grows")
    three = commands.add_parser("fetch", help="downloads next to img2dataset's")
    for command in (one, three):
        command.add_argument("--photos", type=Path, help="folder of pictures (default: drawn ones)")
        command.add_argument("--limit", type=int, help="pictures at most, spread over the folder (default: all)")
    four = commands.add_parser("cascade", help="what stopping at the first vote against saves")
    four.add_argument("--metrics", default=",".join(METRICS), help="of the default recipe (default niqe,brisque)")
    four.add_argument("--photos", type=Path, nargs="+", required=True, help="folders of files, good and bad")
    five = commands.add_parser("score", help="NIQE, BRISQUE and NIMA by the fused engine next to pyiqa")
    five.add_argument("--photos", type=Path, help="folder of pictures (default: drawn ones)")
    five.add_argument("--limit", type=int, default=12, help="pictures, spread over all sizes (default 12: minutes)")
    six = commands.add_parser("stream", help="crops for training, next to stock webdataset and mosaicml-streaming")
    six.add_argument("--photos", type=Path, required=True, help="folder of pictures to cut")
    six.add_argument("--seconds", type=float, default=5.0, help="a contender's turn, of three (default 5)")
    six.add_argument("--out", help="for a cold start too: an empty s3://bucket/prefix that takes 2 GB")
    six.add_argument("--endpoint-url", help="another S3 server than AWS's")
    seven = commands.add_parser("train", help="a training step next to the released code's")
    seven.add_argument("--peer", type=Path, help="a clone of akshaydudhane16/DyNet (default: this project alone)")
    seven.add_argument("--depth", nargs="+", default=["S", "L"], help='"S", "L" or four numbers (default S L)')
    seven.add_argument("--batch", type=int, default=2, help="crops a step (default 2; the paper has 32)")
    seven.add_argument("--crop", type=int, default=128, help="pixels, height and width (default 128, the paper's)")
    seven.add_argument("--width", type=int, default=48, help="channels of level 1 (default 48; the peer has no other)")
    seven.add_argument("--rounds", type=int, default=5, help="steps timed of each contender, in turns (default 5)")
    seven.add_argument("--compile", action="store_true", help="with torch.compile too: minutes before the first step")
    eight = commands.add_parser("scale", help="rows a second on 1, 2 and 4 Ray nodes of one core, on this machine")
    eight.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4], help="nodes (default 1 2 4)")
    eight.add_argument("--rows", type=int, default=600, help="pictures for each unit in work (default 600)")
    nine = commands.add_parser("plan", help="a plan from a pilot against the run that it is of")
    nine.add_argument("--rows", type=int, default=20_000, help="URLs of the list (default 20000)")
    nine.add_argument("--pilot", type=int, default=5000, help="of them, for the pilot (default 5000)")
    nine.add_argument("--wait", type=float, default=0.5, help="seconds until a URL answers, on average (default 0.5)")
    nine.add_argument("--weights", type=Path, help="folder with models fitted to its own pictures, by an earlier call")
    for command in (one, two, four, five, eight):
        command.add_argument("--weights", type=Path, help="folder with the metrics' weights (else pyiqa's cache)")
    two.add_argument("--rows", type=int, nargs="+", default=[1000, 20000], help="list lengths, ascending")
    three.add_argument("--rows", type=int, default=1000, help="downloads (default 1000)")
    alone = commands.add_parser("download")  # what `fetch` starts; no help text: not listed
    for flag in ("--urls", "--out"):
        alone.add_argument(flag, type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
