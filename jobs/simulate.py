"""A run of 10^4 to 1.7 * 10^8 URLs before it is begun: how long, how large, and what breaks first at each power of ten.

python jobs/simulate.py --pilot million-ird/report/pilot.json --nodes 16 --cores 16
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from curation import limits
from curation.limits import Demand
from curation.pilot import Pilot
from curation.simulation import Cluster, Simulated, simulate
from jobs import terminal

PROGRAM: Final = "simulate.py"
SMALLEST: Final = 10_000
LARGEST: Final = 170_000_000  # LAION-HR
HEAD: Final = (
    "URLs",
    "chunks",
    "in flight",
    "hours",
    "cores busy",
    "last 1 %",
    "largest host",
    "PUT/s",
    "GET/s settling",
)
FILES: Final = ("URLs", "kept", "patches", "ledger", "index", "metadata", "manifest", "driver")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _simulate(flags), again="simulates anew")


def _simulate(flags: argparse.Namespace) -> None:
    pilot = read_pilot(flags.pilot)
    names = ("nodes", "cores", "threads", "per_host", "chunk_size", "zipf")
    cluster = Cluster(**{name: getattr(flags, name) for name in names})
    runs = [simulate(pilot, rows, cluster, flags.seed) for rows in powers(flags.urls)]
    print(terminal.table(HEAD, [_paces(run, cluster) for run in runs]))
    print()
    print(terminal.table(FILES, [_files(pilot, run) for run in runs]))
    print()
    print(terminal.table(("URLs", "breaks", "nearest to its limit"), _breaks(pilot, runs, cluster, flags)))


def read_pilot(path: Path) -> Pilot:
    """The pilot of a file. Raises ValueError where there is none."""
    try:
        return Pilot.from_json(path.read_bytes())
    except OSError as error:
        raise ValueError(
            f"{path} can't be read ({error.strerror}): give report/pilot.json of a pilot's store"
        ) from error


def powers(most: int) -> list[int]:
    """Powers of ten from 10,000, and `most` itself."""
    return [*(10**n for n in range(4, 19) if SMALLEST <= 10**n < most), most]


def _paces(run: Simulated, cluster: Cluster) -> tuple[object, ...]:
    return (
        f"{run.rows:,}",
        f"{run.chunks:,}",
        run.in_flight,
        f"{run.seconds / 3600:.3g}",
        f"{100 * run.core_seconds / run.seconds / (cluster.nodes * cluster.cores):.0f} %",
        terminal.duration(run.last_hundredth),
        f"{100 * run.host_share:.1f} %, {100 * run.host_seconds / run.seconds:.0f} % of the time",
        f"{limits.put_rate(run):.3g}",
        f"{limits.get_rate(run, cluster):.3g}",
    )


def _files(pilot: Pilot, run: Simulated) -> tuple[object, ...]:
    found = limits.sizes(pilot, run)
    written = (found.ledger, found.index, found.metadata, found.manifest, found.driver)
    return f"{run.rows:,}", f"{run.kept:,}", f"{run.patches:,}", *(f"{terminal.scaled(size)}B" for size in written)


def _breaks(
    pilot: Pilot, runs: Sequence[Simulated], cluster: Cluster, flags: argparse.Namespace
) -> Iterator[tuple[str, str, str]]:
    for run in runs:
        asked = limits.demands(pilot, run, cluster, driver_bytes=flags.driver_gb * 1e9, days=flags.days)
        first = limits.broken(asked)
        yield f"{run.rows:,}", _said(first) if first else "nothing", _said(asked[0])


def _said(one: Demand) -> str:
    amounts = f"{terminal.scaled(one.value)}{one.unit} of {terminal.scaled(one.bound)}{one.unit}"
    return f"{one.what}: {amounts} ({100 * one.share:.3g} %)"


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Carries a pilot's measured times to lists of 10,000 to 170,000,000 URLs, and says what breaks first.\n"
        "A pilot is what dynet-filter plan leaves as report/pilot.json.",
        f"python jobs/{PROGRAM} --pilot million-ird/report/pilot.json --nodes 16 --cores 16",
    )
    parser.add_argument("--pilot", type=Path, required=True, help="a pilot's JSON")
    parser.add_argument("--urls", type=int, default=LARGEST, help="the longest list (default 170,000,000)")
    parser.add_argument("--nodes", type=int, default=16, help="(default 16)")
    parser.add_argument("--cores", type=int, default=16, help="of each node (default 16)")
    parser.add_argument("--threads", type=int, default=64, help="downloads at once, per chunk in work (default 64)")
    parser.add_argument("--per-host", type=int, default=4, help="at once, per host and node (default 4)")
    parser.add_argument("--chunk-size", type=int, default=1000, help="URLs in a work unit (default 1000)")
    parser.add_argument("--zipf", type=float, default=1.0, help="how unequal hosts are; 0: all alike (default 1)")
    parser.add_argument("--driver-gb", type=float, default=4.0, help="memory of the driver (default 4)")
    parser.add_argument("--days", type=float, default=30.0, help="that the downloads may take (default 30)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
