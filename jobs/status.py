"""`dynet-filter status`: how far a run is, from anywhere that reads its store. Starts no Ray and writes nothing.

dynet-filter status million-ird
dynet-filter status s3://bucket/million-ird --json
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from curation.pace import Pace
from curation.records import Reason
from curation.report.tally import Host
from jobs import plan_tables, terminal
from pipelines import promise
from pipelines.status import Status, Step, status
from shards.store import Store, open_store

PROGRAM: Final = "dynet-filter status"
ORDER: Final = [reason.value for reason in Reason]


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _status(flags), again="looks anew")


def _status(flags: argparse.Namespace) -> None:
    if "://" not in flags.store and not Path(flags.store).is_dir():
        raise ValueError(f"{flags.store}: no such folder; give what dynet-filter's --out was")
    store = open_store(flags.store, flags.endpoint_url)
    found = status(store, full=flags.full)
    if flags.json:
        print(json.dumps(asdict(found), indent=1))
        return
    print("\n".join(_lines(found)))
    if table := _against_plan(store, found):
        print(f"\n{table}")


def _against_plan(store: Store, found: Status) -> str:
    """What was promised of this run (`dynet-filter plan --for`), and what came; empty where nothing was."""
    kept = promise.kept(store, found, promise.read(store), None)
    if not kept:
        return ""
    part = promise.share_in(found)
    scaled = "" if part >= 1 else f"\nactual: scaled to the whole list, of which {100 * part:.1f} % are in"
    return plan_tables.compared(kept) + scaled


def _lines(found: Status) -> Iterator[str]:
    yield f"{found.store}: {_step(found)}"
    if found.committed or found.planned:
        yield _chunks(found)
        yield from _paces(found)
        yield _end(found)
    if found.committed:
        yield ""
        yield from _rows(found)
    if found.cut.shards or found.cut.units:
        yield _cut(found)
    for name, why in found.broken.items():
        yield f"can't be read: {name}: {why}; remove it and give the filter's command again"


def _step(found: Status) -> str:
    """The stage, and how much of it a store can't show."""
    return {
        Step.PLANNING: f"planning, {found.chunks_written:,} chunks of the list written",
        Step.SETTLING: "all chunks are in, no shards: they are being settled, or the run ended here (--no-shards)",
        Step.CUTTING: f"cutting, {found.cut.units:,} units cut",
        Step.SHARDING: f"sharding, {found.cut.unnamed:,} shards written and not yet in a manifest",
        Step.PUBLISHED: "a published set; its run is followed where it was made",
    }.get(found.step, found.step.value)


def _chunks(found: Status) -> str:
    if found.planned is None:
        return f"chunks: {found.committed:,} committed, of a plan that is not there any more"
    share = 100 * found.committed / found.planned
    urls = f"{found.rows.committed:,} of {found.rows_planned:,} URLs"
    return f"chunks: {found.committed:,} of {found.planned:,} committed ({share:.1f} %), {urls}"


def _paces(found: Status) -> Iterator[str]:
    if found.recent is not None:
        yield f"pace in the last {terminal.duration(found.recent.seconds)} of work: {_pace(found.recent)}"
    if found.overall is not None:
        yield f"pace overall, {terminal.duration(found.overall.seconds)} with all pauses: {_pace(found.overall)}"


def _pace(one: Pace) -> str:
    urls, kept = one.per_second(one.rows), one.per_second(one.kept)
    read = terminal.scaled(one.per_second(one.bytes_read))
    return f"{terminal.shown(round(urls, 2))} URLs/s, {terminal.shown(round(kept, 3))} kept/s, {read}B/s read"


def _end(found: Status) -> str:
    """When the downloads will end, or why that can't be told."""
    ahead = found.outlook
    if not ahead.left:
        return f"end: every chunk is in, the last row {_ago(ahead.silent)}"
    if ahead.silent is None:
        return "end: can't be told yet, nothing of a download is in the ledger"
    if ahead.silent > ahead.patience:
        silent = terminal.duration(ahead.silent)
        return f"end: can't be told, nothing came for {silent}: the run is slow, stuck or ended"
    if ahead.seconds is None:
        return f"end: can't be told yet, too few chunks came lately; the last row {_ago(ahead.silent)}"
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.at + ahead.seconds))
    left, last = terminal.duration(ahead.seconds), _ago(ahead.silent)
    return f"end: downloads in {left} at the recent pace ({when}); settling and cutting follow. Last row {last}"


def _ago(seconds: float | None) -> str:
    return "at no time" if seconds is None else f"{terminal.duration(seconds)} ago"


def _rows(found: Status) -> Iterator[str]:
    if found.sampled:
        yield (
            f"From {found.read:,} of {found.committed:,} ledger parts; what follows is estimated from those of them "
            "that lie evenly over the list (--full reads all)."
        )
    counted = Counter({reason.value: count for reason, count in found.rows.reasons.items()})
    yield terminal.shares(counted, ORDER, "reason")
    kept, read = terminal.scaled(found.rows.kept_bytes), terminal.scaled(found.rows.bytes_read)
    yield f"kept: {kept}B; read from the network: {read}B"
    yield f"waiting for --retry-failed: {found.rows.retry_rows:,} URLs in {found.rows.retry_chunks:,} chunks"
    if found.hosts:
        yield ""
        yield terminal.table(("worst hosts", "rows", "failed", "seconds"), map(_host, found.hosts.items()))


def _host(one: tuple[str, Host]) -> tuple[str, int, int, str]:
    name, host = one
    return name, host.rows, host.failed, terminal.shown(host.seconds)


def _cut(found: Status) -> str:
    version = "" if found.cut.version is None else f", version {found.cut.version} with {found.cut.samples:,} samples"
    return f"shards: {found.cut.shards:,}{version}; {found.cut.units:,} units cut and not yet packed"


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Says how far a run is, its pace, its worst hosts and when it will end, from its store alone.\n"
        "Of more than 512 ledger parts a sample is read, and the output says so.",
        f"{PROGRAM} s3://bucket/million-ird",
    )
    parser.add_argument("store", metavar="STORE", help="what dynet-filter has as --out: a folder or s3://bucket/prefix")
    parser.add_argument("--endpoint-url", help="another S3 server than AWS's")
    parser.add_argument("--full", action="store_true", help="read every ledger part, however many there are")
    parser.add_argument("--json", action="store_true", help="one JSON object, for machines")
    return parser
