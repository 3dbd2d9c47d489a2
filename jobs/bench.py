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
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Final

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import psutil

from curation import urls
from curation.decode import header
from curation.fetch import FetchSettings, fetch
from curation.records import Header
from curation.scorers import WeightFile, WeightMissing, resolve
from jobs import bench_cascade, bench_filter, bench_plan, terminal
from jobs.bench_runs import METRICS, Weights, check_answers, job_command, pictures, run, weights_for, write_list
from jobs.bench_server import LARGE, PictureServer, texture
from jobs.process_tree import check_platform
from pipelines.baseline import THREADS
from shards.store import open_store

PROGRAM = "bench"
PACKAGES: Final = ("torch", "pyiqa", "ray", "img2dataset", "pyarrow", "pillow", "numpy")


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
        "filter": bench_filter.filtering,
        "cascade": _cascade,
        "memory": bench_filter.memory,
        "fetch": bench_filter.downloads,
        "score": _score,
        "stream": _stream,
        "train": _train,
        "plan": bench_plan.planning,
        "scale": _scale,
    }
    work = works[flags.command]
    with tempfile.TemporaryDirectory(prefix="million-ird-bench-") as scratch:
        print(work(flags, Path(scratch)))


def _cascade(flags: argparse.Namespace, _: Path) -> str:
    return bench_cascade.table(flags.photos, flags.weights, tuple(terminal.names(flags.metrics)))


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

    files, pristine = pictures(flags.photos, None, scratch)
    files = spread(sorted(files, key=_area), flags.limit)
    weights = weights_for(flags.weights, pristine, scratch)
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


# ---------------------------------------------------------------- on several nodes


def _scale(flags: argparse.Namespace, scratch: Path) -> str:
    from jobs import bench_scale  # Ray takes seconds to import, and the other commands need none of it here

    weights = weights_for(flags.weights, [texture(seed, 768, 960) for seed in range(1, 7)], scratch)
    loose = Weights(files=weights.files, bounds=dict.fromkeys(METRICS, 1e6), folder=weights.folder)
    words = ["--min-res", str(LARGE), "--chunk-size", str(bench_scale.CHUNK), "--no-shards"]
    words += ["--threads", str(bench_scale.THREADS), "--per-host", "1000"]

    def job(address: str, server: PictureServer, rows: int) -> None:
        with tempfile.TemporaryDirectory(dir=scratch) as out:
            run(job_command(write_list(server, rows, scratch), Path(out), loose, *words), scratch, address)
        check_answers(server, rows)

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
    seven.add_argument("--rounds", type=int, default=3, help="turns of each contender, of two timed steps (default 3)")
    seven.add_argument("--compile", action="store_true", help="with torch.compile too: minutes before the first step")
    eight = commands.add_parser("scale", help="rows a second on 1, 2 and 4 Ray nodes of one core, on this machine")
    eight.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4], help="nodes (default 1 2 4)")
    eight.add_argument("--rows", type=int, default=700, help="pictures for each unit in work (default 700)")
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
