"""`dynet-shard fsck`: whether a set is what its manifest says; with `--repair` what is broken is rebuilt.

Exit status: 0 nothing is wrong (any more), 1 something is, 2 it can't be told.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence

from jobs import sources, terminal
from pipelines.repair import Repaired, RepairJob, repair
from shards import fsck, manifest
from shards.fsck import Finding, Kind
from shards.store import Store

PROGRAM = "dynet-shard fsck"
FOUND = 1


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_intermixed_args(argv)  # SOURCE may stand behind a flag
    left: list[Finding] = []
    status = terminal.guarded(PROGRAM, lambda: left.extend(_fsck(flags)), again="reads everything again")
    return status or (FOUND if left else 0)


def _fsck(flags: argparse.Namespace) -> Sequence[Finding]:
    """What is wrong in the end."""
    store = terminal.out_store(flags.store, flags.endpoint_url)
    with terminal.Bar("fsck", "shard") as bar:
        findings = fsck.check(store, bar)
    for one in findings:
        print(one)
    if not findings or not flags.repair:
        print(_summary(store, findings, findings))
        return findings
    given = sources.given(flags, store)
    job = RepairJob(store=store, stores=given.stores, folders=given.folders, max_pixels=flags.max_pixels)
    with terminal.Bar("repair", "shard") as bar:
        done = repair(job, findings, bar)
    _print_repaired(done)
    print(_summary(store, [*findings, *(one for one in done.left if one not in findings)], done.left))
    return done.left


def _print_repaired(done: Repaired) -> None:
    for name in done.mended:
        print(f"mended: {name}")
    for name, why in sorted(done.refused.items()):
        print(f"can't be rebuilt: {name}: {why}")


def _summary(store: Store, found: Sequence[Finding], left: Sequence[Finding]) -> str:
    known = manifest.read_manifest(store)
    about = f"version {known.version}, {len(known.shards)} shards, {known.samples} samples"
    if not found:
        return f"{store.root} is whole: {about}"
    before, after = Counter(one.kind for one in found), Counter(one.kind for one in left)
    rows = [(kind.value, before[kind], after[kind]) for kind in Kind if before[kind]]
    return terminal.table(("finding", "found", "left"), [*rows, ("all", len(found), len(left))]) + f"\n{about}"


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Reads a set and says what is missing, truncated, altered, unordered, double or nobody's. Exit status 0:\n"
        "nothing, or all of it mended; 1: something; 2: it can't be told.\n"
        "--repair rebuilds broken shards from the kept originals: those of STORE itself, or of the sources given as\n"
        "in the command that made the set.",
        f"{PROGRAM} million-ird --repair million-ird --source div2k=DIV2K_train_HR",
    )
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix")
    sources.add_flags(parser)
    parser.add_argument("--repair", action="store_true", help="rebuild what is broken, delete what is nobody's")
    parser.add_argument("--endpoint-url", help="another S3 server than AWS's")
    return parser
