"""`dynet-filter plan`: a pilot of a run, and what it says of the whole; and, once that has run, how it compares.

dynet-filter plan --urls laion_hr.parquet --pilot 5000 --nodes 8 --cores 32 --for s3://bucket/million-ird
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from jobs import plan_tables, terminal
from pipelines import cutting, pilot, promise
from pipelines.capacity import Cluster
from pipelines.filter_laion import FilterJob
from pipelines.pilot import PilotJob
from pipelines.plan import Plan, plan, write
from pipelines.prices import Prices, read_prices
from pipelines.recipes import ShardRecipe
from pipelines.status import status
from shards import manifest
from shards.store import Store

DEFAULT_PILOT = 5000


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What the flags of this command say. `cluster` has what was said alone: the pilot's own machine has the rest."""

    count: int
    seed: int
    cluster: dict[str, Any]
    prices: Prices
    target: Store | None
    json: bool


def wanted(flags: argparse.Namespace) -> Wanted:
    """Checked before any work. Raises ValueError."""
    said = {name: getattr(flags, name) for name in ("nodes", "cores", "gpus", "gbits", "threads", "per_host")}
    cluster = {name: value for name, value in said.items() if value is not None}
    Cluster(**{"nodes": 1, "cores": 1, **cluster})
    if flags.pilot < 1:
        raise ValueError(f"a pilot of {flags.pilot} URLs tells nothing: give --pilot 1 or more")
    if flags.retry_failed:
        raise ValueError("--retry-failed is for a run: a plan is made of a list that was not begun")
    return Wanted(
        count=flags.pilot,
        seed=flags.seed,
        cluster=cluster,
        prices=read_prices(flags.prices) if flags.prices else Prices(),
        target=terminal.out_store(flags.target, flags.endpoint_url) if flags.target else None,
        json=flags.json,
    )


def pilot_store(lists: Sequence[str]) -> str:
    """Where a pilot goes that was given no --out. Raises ValueError without a list."""
    if not lists:
        raise ValueError("no URL list: give --urls with Parquet or CSV lists to plan for")
    return f"{Path(lists[0]).stem}-pilot"


def make(words: Wanted, whole: FilterJob, cut: ShardRecipe | None, scratch: Path) -> None:
    """Runs the pilot, prints the plan and writes it: into the pilot's store, and into the one it is for."""
    job = PilotJob(whole=whole, cut=cut, count=words.count, seed=words.seed)
    with redirect_stdout(sys.stderr if words.json else sys.stdout):  # a plain bar prints, and JSON wants to be alone
        seen = _piloted(job, scratch)
    said = {"threads": whole.fetching.threads, "per_host": whole.fetching.per_host, **words.cluster}
    cluster = Cluster(**{"nodes": 1, "cores": seen.cores, **said})
    made = plan(job, seen, cluster, words.prices)
    stores = [whole.store] if words.target is None else [whole.store, words.target]
    for store in stores:
        write(store, made)
    print(made.to_json() if words.json else plan_tables.text(made))
    if not words.json:
        _print_places(made, stores)


def _print_places(made: Plan, stores: Sequence[Store]) -> None:
    print()
    for store in stores:
        print(f"plan: {store.root}/{promise.PLAN}")
    if len(stores) == 1:
        print("with --for STORE the run into that store shows this plan against what comes")


def _piloted(job: PilotJob, scratch: Path) -> pilot.Observed:
    with terminal.Bar("pilot", "url") as filtering, terminal.Bar("cut", "unit") as cut:

        def cutting(total: int, done: int) -> None:
            filtering.close()
            cut(total, done)

        watches = pilot.Watches(
            filtering=lambda rows, so_far: filtering(rows, so_far.total(), terminal.kept_so_far(so_far)),
            cutting=cutting,
        )
        return pilot.run(job, scratch, watches)


class Stopwatch:
    """Seconds of cutting and packing. None where an earlier run had begun with it: then they are of a part."""

    def __init__(self, store: Store) -> None:
        self._fresh = not store.exists(manifest.MANIFEST) and next(iter(store.list(cutting.FOLDER)), None) is None
        self.seconds: float | None = None

    def __enter__(self) -> Stopwatch:
        self._begun = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fresh:
            self.seconds = time.monotonic() - self._begun


def compare(store: Store, cut_seconds: float | None) -> None:
    """Prints and writes plan against actual, where the store has a plan."""
    promises = promise.read(store)
    if not promises:
        return
    table = plan_tables.compared(promise.kept(store, status(store), promises, cut_seconds))
    store.write(promise.COMPARED, (table + "\n").encode())
    print(f"\n{table}\nplan against actual: {store.root}/{promise.COMPARED}")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that a run has not."""
    own = parser.add_argument_group("the plan")
    own.add_argument("--pilot", type=int, default=DEFAULT_PILOT, metavar="N", help="URLs to try (default 5000)")
    own.add_argument("--seed", type=int, default=0, help="which ones (default 0)")
    own.add_argument("--for", dest="target", metavar="STORE", help="the run's own store: it will show plan and actual")
    own.add_argument("--prices", type=Path, metavar="FILE", help="a JSON price table; without it, example prices")
    own.add_argument("--nodes", type=int, help="workers of the cluster to plan for (default: the pilot's machine)")
    own.add_argument("--cores", type=int, help="of each worker (default: what the pilot had)")
    own.add_argument("--gpus", type=float, help="of each worker (default 0)")
    own.add_argument("--gbits", type=float, help="of each worker's line, gigabits per second (default 1)")
    own.add_argument("--json", action="store_true", help="one JSON object, for machines")
