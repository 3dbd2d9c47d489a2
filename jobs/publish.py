"""`dynet-publish`: a set of patches, with its card, to where others read it.

dynet-publish million-ird s3://bucket/million-ird --contact data@example.org
dynet-publish million-ird s3://bucket/links --metadata-only
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from jobs import terminal
from pipelines.publish import PublishJob, publish
from shards.manifest import MANIFEST
from shards.publish import CARD, METADATA
from shards.store import open_store
from shards.transfer import How

PROGRAM = "dynet-publish"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _publish(flags))


def _publish(flags: argparse.Namespace) -> None:
    job = PublishJob(
        source=open_store(flags.store, flags.endpoint_url),
        target=terminal.out_store(flags.target, flags.endpoint_url),
        contact=flags.contact,
        metadata_only=flags.metadata_only,
        replace=flags.replace,
    )
    with terminal.Bar("check", "file") as checked, terminal.Bar("send", terminal.BYTES) as sending:

        def sent(total: int, done: int) -> None:
            checked.close()
            sending(total, done)

        made = publish(job, How(checked=checked, sent=sent, threads=flags.threads))
    root, last = job.target.root, METADATA if flags.metadata_only else MANIFEST
    print(f"sent {made.sent} files, {terminal.scaled(made.bytes)}B; {made.skipped} were there")
    print(f"set {made.manifest.set}, version {made.manifest.version}: {root}/{last}")
    print(f"card: {root}/{CARD}")


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Publishes a set of patches: sends what the target lacks, verifies every object, writes the manifest last.\n"
        "Given again it goes on where it stopped. AWS credentials come the usual way (AWS_PROFILE, environment, role).",
        f"{PROGRAM} million-ird s3://bucket/million-ird --contact data@example.org",
    )
    parser.add_argument("store", metavar="STORE", help="what dynet-shard wrote: a folder or s3://bucket/prefix")
    parser.add_argument("target", metavar="TARGET", help="where others read it: s3://bucket/prefix or a folder")
    parser.add_argument("--endpoint-url", help="another S3 server than AWS's")
    parser.add_argument("--metadata-only", action="store_true", help="links, sizes, scores and licences, no pictures")
    parser.add_argument("--contact", default="", metavar="TEXT", help="whom the card names for removals")
    parser.add_argument("--replace", action="store_true", help="also where the target has another set: its files go")
    parser.add_argument("--threads", type=int, default=8, help="parts on their way at once (default 8)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
