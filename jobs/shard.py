"""`dynet-shard`: kept originals and plain folders to 512x512 patch shards.

dynet-shard --min-res 1024 --out million-ird million-ird --source lsdir=LSDIR/HR --source div2k=DIV2K
python jobs/shard.py --out million-ird --source div2k=DIV2K_train_HR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from curation import ledger
from curation.decode import DEFAULT_MAX_PIXELS
from curation.folders import Folder
from jobs import terminal
from pipelines.recipes import ShardRecipe
from pipelines.shard import ShardJob, shard
from shards.store import Store, open_store

PROGRAM = "dynet-shard"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _shard(flags))


def _shard(flags: argparse.Namespace) -> None:
    store = terminal.out_store(flags.out, flags.endpoint_url)
    stores, plain = _sorted_out(flags.sources, flags.endpoint_url)
    if not flags.sources and not flags.source and _is_filtered(store):
        stores = (store,)
    named = tuple(_named_folder(text) for text in flags.source)
    recipe = shard_recipe(flags, min_res=flags.min_res)
    shard_and_report(
        ShardJob(store=store, stores=stores, folders=plain + named, recipe=recipe, max_pixels=flags.max_pixels)
    )


def _sorted_out(names: Sequence[str], endpoint_url: str | None) -> tuple[tuple[Store, ...], tuple[Folder, ...]]:
    """SOURCE is a store where it holds a ledger, else a folder called by its last part."""
    stores, plain = [], []
    for name in names:
        store = open_store(name, endpoint_url)
        if _is_filtered(store):
            stores.append(store)
        elif "://" in name:
            raise ValueError(f"{name} has no ledger: run dynet-filter with --out {name} first")
        else:
            plain.append(_folder(Path(name).resolve().name.lower(), name))
    return tuple(stores), tuple(plain)


def _is_filtered(store: Store) -> bool:
    return next(ledger.units(store), None) is not None


def _named_folder(text: str) -> Folder:
    name, _, path = text.partition("=")
    if not path:
        raise ValueError(f"--source {text}: write NAME=FOLDER, such as div2k=DIV2K_train_HR")
    return _folder(name, path)


def _folder(name: str, path: str) -> Folder:
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in name) or not name[0].isalnum():
        raise ValueError(f"'{name}' is no name for a source: give letters, digits, '-', '_', '.' (NAME=FOLDER)")
    return Folder(name=name, path=Path(path))


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
        "Cuts lossless 512x512 patches from what dynet-filter kept and from plain folders of pictures.",
        f"{PROGRAM} --min-res 1024 --out million-ird million-ird --source div2k=DIV2K_train_HR",
    )
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="a store of dynet-filter, or a folder of pictures")
    parser.add_argument("--source", action="append", default=[], metavar="NAME=FOLDER", help="a folder under a name")
    parser.add_argument("--out", required=True, help="the store: a folder or s3://bucket/prefix")
    parser.add_argument("--endpoint-url", help="another S3 server than AWS's")
    parser.add_argument("--min-res", type=int, default=1024, help="both sides, pixels (default 1024)")
    parser.add_argument("--max-pixels", type=int, default=DEFAULT_MAX_PIXELS, help="larger pictures are refused")
    add_shard_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
