"""`dynet-shard`: kept originals and plain folders to 512x512 patch shards.

dynet-shard --min-res 1024 --out million-ird million-ird --source lsdir=LSDIR/HR --source div2k=DIV2K
python jobs/shard.py --out million-ird --source div2k=DIV2K_train_HR
dynet-shard fsck million-ird --repair
dynet-shard forget million-ird --urls removals.txt --purge
dynet-shard show million-ird 0123456789abcdef_00512_01024
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from jobs import forget, fsck, show, sources, terminal
from pipelines.recipes import ShardRecipe
from pipelines.shard import ShardJob, shard

PROGRAM = "dynet-shard"
COMMANDS = {"fsck": fsck.main, "forget": forget.main, "show": show.main}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]](words[1:])
    flags = _parser().parse_args(words)
    return terminal.guarded(PROGRAM, lambda: _shard(flags))


def _shard(flags: argparse.Namespace) -> None:
    store = terminal.out_store(flags.out, flags.endpoint_url)
    given = sources.given(flags, store)
    recipe = shard_recipe(flags, min_res=flags.min_res)
    shard_and_report(
        ShardJob(store=store, stores=given.stores, folders=given.folders, recipe=recipe, max_pixels=flags.max_pixels)
    )


def shard_recipe(flags: argparse.Namespace, min_res: int) -> ShardRecipe:
    """What the shard flags say, on top of the defaults."""
    return ShardRecipe(
        min_res=min_res,
        max_flat=flags.max_flat,
        max_shard_bytes=int(flags.max_shard_mb * 1e6),
        split=flags.split,
    )


def shard_and_report(job: ShardJob) -> None:
    """Runs the job with a progress bar and prints the paper's Table S1 for it."""
    with terminal.Bar("shard", "unit") as bar:
        made = shard(job, bar)
    rows = [(name, one.pictures, one.with_patches, one.samples, one.flat) for name, one in made.sources.items()]
    total = ("all", *(sum(numbers) for numbers in zip(*(row[1:] for row in rows), strict=True)))
    head = ("source", "pictures", "with patches", "patches", "dropped as flat")
    print(terminal.table(head, [*rows, total]))
    print(f"shards: {job.store.root}/shards/  {len(made.shards)} tars, {made.bytes / 1e6:.1f} MB, manifest.json")


def add_shard_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `dynet-filter` shares."""
    group = parser.add_argument_group("shards")
    group.add_argument(
        "--max-flat", type=float, default=0.5, help="share of flat area that drops a patch (default 0.5)"
    )
    group.add_argument("--max-shard-mb", type=float, default=1000.0, help="MB a tar at most (default 1000)")
    group.add_argument("--split", default="train", help="shards/<split>-000042.tar (default train)")


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Cuts lossless 512x512 patches from what dynet-filter kept and from plain folders of pictures.\n"
        "Commands beside it, each with its --help:\n"
        "  dynet-shard fsck    finds what is broken in a set, and rebuilds it\n"
        "  dynet-shard forget  removes pictures on request\n"
        "  dynet-shard show    says where a patch comes from\n"
        "A folder with such a name is ./fsck.",
        f"{PROGRAM} --min-res 1024 --out million-ird million-ird --source div2k=DIV2K_train_HR",
    )
    sources.add_flags(parser)
    parser.add_argument("--out", required=True, help="the store: a folder or s3://bucket/prefix")
    parser.add_argument("--endpoint-url", help="another S3 server than AWS's")
    parser.add_argument("--min-res", type=int, default=1024, help="both sides, pixels (default 1024)")
    add_shard_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
