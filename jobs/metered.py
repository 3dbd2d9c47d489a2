"""How a job is asked for its numbers: `--metrics-port`."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext

from pipelines import metering


def add_flag(parser: argparse.ArgumentParser) -> None:
    """The one that every long job has."""
    parser.add_argument(
        "--metrics-port", type=int, metavar="PORT", help="counters for Prometheus at http://HOST:PORT/metrics"
    )


def served(flags: argparse.Namespace) -> AbstractContextManager[None]:
    """The endpoint while the job runs, where one was asked for. Raises ValueError for a port that can't be had."""
    return nullcontext() if flags.metrics_port is None else metering.endpoint(flags.metrics_port)
