"""Before money is spent: the whole flow in small on your cluster, each fault injected in turn, and a pass table.

Draws a dozen pictures, serves them, filters, shards, publishes, streams and trains a few steps, once undisturbed. Then
each fault, against what came out then. Exit status 1 where one fails.

python jobs/drill.py
RAY_ADDRESS=auto python jobs/drill.py --out /shared/drill --serve-on 10.0.0.5 --s3 s3://bucket/drill
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import secrets
import shutil
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs import drill_kills, drill_links, drill_store, drill_training, terminal
from jobs.drill_fault import Fault, Result, Verdict, tried
from jobs.drill_hunt import MARK
from jobs.drill_toy import S3Place, Toy, add_pictures, make_weights, undisturbed
from jobs.hostile_server import HttpServer
from jobs.loopback_s3 import is_installed, loopback_s3, make_bucket
from pipelines.cluster import connected
from shards.store import open_store

PROGRAM: Final = "python jobs/drill.py"
FAULTS: Final = (*drill_links.FAULTS, *drill_kills.FAULTS, *drill_store.FAULTS, *drill_training.FAULTS)
FAILED: Final = 1
_LOOPBACK: Final = "127.0.0.1"
_WIDTH: Final = max(len(fault.name) for fault in FAULTS)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, 1 where a fault fails, 2 where the drill can't be held."""
    flags = _parser().parse_args(argv)
    results: list[Result] = []
    status = terminal.guarded(PROGRAM, lambda: _drill(flags, results), again="begins anew")
    return status or FAILED * any(one.verdict is Verdict.FAIL for one in results)


def _drill(flags: argparse.Namespace, results: list[Result]) -> None:
    faults = _chosen(flags.only)
    if flags.list:
        print("\n".join(f"{fault.name.ljust(_WIDTH)}  {fault.does}" for fault in faults))
        return
    begun = time.monotonic()
    say = functools.partial(print, file=sys.stdout, flush=True)  # as it is now: the table has it for itself
    with _toy(flags) as toy, _quiet(toy.folder / "log"):
        say(_row("undisturbed", "done", time.monotonic() - begun, f"in {toy.folder}, {toy.machines} machine(s)"))
        for fault in faults:
            results.append(tried(fault, toy))
            one = results[-1]
            say(_row(one.name, one.verdict.value, one.seconds, one.words))
    counts = Counter(one.verdict.value for one in results)
    print(f"{', '.join(f'{count} {word}' for word, count in counts.items())}; {time.monotonic() - begun:.0f} s")
    if not flags.out and counts[Verdict.FAIL.value]:
        print("give --out DIR to keep what a failed one left")


@contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """What Ray has to say meanwhile of killed workers goes into a file, not into the table."""
    kept = os.dup(2)
    try:
        with log.open("a") as sink, contextlib.redirect_stdout(sink):
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _chosen(only: Sequence[str]) -> list[Fault]:
    """In the order of the list. Raises ValueError for a name that is none."""
    if unknown := sorted(set(only) - {fault.name for fault in FAULTS}):
        raise ValueError(f"there is no fault {', '.join(unknown)}: --list has their names")
    return [fault for fault in FAULTS if not only or fault.name in only]


def _row(name: str, verdict: str, seconds: float, words: str) -> str:
    """A row of the table, its last column folded to the terminal."""
    head = f"{name.ljust(_WIDTH)}  {verdict.ljust(7)}  {seconds:5.1f} s  "
    width = max(40, shutil.get_terminal_size().columns - len(head))
    folded = "\n".join(textwrap.fill(one, width) for one in words.splitlines())
    return head + textwrap.indent(folded, " " * len(head)).lstrip(" ")


@contextmanager
def _toy(flags: argparse.Namespace) -> Iterator[Toy]:
    """Everything the faults need, and the undisturbed run done. Raises ValueError where the cluster can't reach it."""
    torch.set_num_threads(1)  # as its processes: weights are compared to the bit
    # S3 on loopback takes any keys, and Ray's own workers then stay warm from one fault to the next
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    os.environ.setdefault("RAY_num_workers_soft_limit", "6")
    mark = secrets.token_hex(8)
    with ExitStack() as stack:
        folder = _folder(flags.out, stack)
        server = stack.enter_context(_served(flags.serve_on))
        stack.enter_context(connected({MARK: mark}))
        machines = _check_reach(server, folder)
        s3, no_s3 = _s3(flags, stack)
        toy = Toy(
            folder=folder,
            server=server,
            urls=add_pictures(server),
            weights=make_weights(folder / "weights"),
            machines=machines,
            address=ray.get_runtime_context().gcs_address,
            mark=mark,
            s3=s3,
            no_s3=no_s3,
        )
        undisturbed(toy)
        yield toy


def _served(address: str) -> HttpServer:
    """Raises ValueError for an address that isn't this machine's."""
    try:
        return HttpServer(address=address)
    except OSError as error:
        raise ValueError(f"--serve-on {address}: this machine can't listen there ({error.strerror})") from error


def _folder(out: Path | None, stack: ExitStack) -> Path:
    """A new one in --out, or a temporary one that goes with the drill."""
    if out is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="million-ird-drill-")))
    out.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="drill-", dir=out.absolute()))


def lacks(url: str, file: str) -> str:
    """What this machine lacks of what the drill's workers need: empty for nothing."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError as error:
        return f"can't reach {url} ({error}): give --serve-on with an address of this machine that every node reaches"
    return "" if Path(file).is_file() else f"has no {file}: give --out with a folder that all nodes share"


def _check_reach(server: HttpServer, folder: Path) -> int:
    """How many machines the cluster has. Raises ValueError for a node that can't take part, naming the remedy."""
    seen = folder / "seen"
    seen.touch()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        ray.remote(lacks)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(server.url("/pixel/reach"), str(seen))
        for node in nodes
    ]
    for node, missing in zip(nodes, ray.get(asked), strict=True):
        if missing:
            raise ValueError(f"node {node['NodeManagerAddress']} {missing}")
    return len({node["NodeManagerAddress"] for node in nodes})


def _s3(flags: argparse.Namespace, stack: ExitStack) -> tuple[S3Place | None, str]:
    """Where the faults of S3 are tried: the user's, else a server on loopback, else nowhere, and why."""
    if flags.s3:
        place = S3Place(root=f"{flags.s3.rstrip('/')}/{secrets.token_hex(8)}", endpoint_url=flags.endpoint_url)
        stack.callback(_emptied, place)
        return place, ""
    if not is_installed():
        return None, "needs --s3 s3://bucket/prefix, or a server here: pip install 'moto[server]'"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.setdefault(name, "drill")
    endpoint_url = stack.enter_context(loopback_s3())
    return S3Place(root=make_bucket(endpoint_url, "drill"), endpoint_url=endpoint_url), ""


def _emptied(place: S3Place) -> None:
    """Takes away what the drill wrote, and nothing else."""
    store = open_store(place.root, place.endpoint_url)
    for name in list(store.list("")):
        store.delete(name)


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "The whole flow in small, on the cluster of RAY_ADDRESS or on a Ray of its own, with each fault injected in\n"
        "turn: what was injected, what held, PASS or FAIL, seconds. Exit status 1 where one fails.",
        f"{PROGRAM} --out /shared/drill --serve-on 10.0.0.5 --s3 s3://bucket/drill",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these faults alone")
    parser.add_argument("--list", action="store_true", help="the faults and what each does; nothing is run")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to keep what it makes; default: a temporary one")
    parser.add_argument(
        "--serve-on",
        default=_LOOPBACK,
        metavar="ADDRESS",
        help="this machine's address for its web server, where workers are on other machines (default 127.0.0.1)",
    )
    parser.add_argument("--s3", metavar="URL", help="s3://bucket/prefix of yours; default: a server on loopback (moto)")
    parser.add_argument("--endpoint-url", help="of --s3: another S3 server than AWS's")
    return parser


if __name__ == "__main__":
    sys.exit(main())
