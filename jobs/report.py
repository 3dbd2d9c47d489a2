"""`dynet-report`: one HTML page that says what is in a store.

dynet-report million-ird
dynet-report s3://bucket/million-ird
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from jobs import terminal
from pipelines.report import reported
from shards.store import open_store

PROGRAM = "dynet-report"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _report(flags))


def _report(flags: argparse.Namespace) -> None:
    print(f"report: {reported(open_store(flags.store, flags.endpoint_url))}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Writes report/index.html into a store: the funnel, scores, kept pictures and what was refused.",
        epilog="example:\n  dynet-report million-ird",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", metavar="STORE", help="what dynet-filter wrote: a folder or s3://bucket/prefix")
    parser.add_argument("--endpoint-url", help="another S3 server than AWS's")
    return parser


if __name__ == "__main__":
    sys.exit(main())
