"""`dynet-pretrain`: one set of DyNet weights for every depth, from a published set of patches.

dynet-pretrain s3://bucket/million-ird --out s3://bucket/run-1 --device cuda --ranks 8 --set settings.precision=bf16
dynet-pretrain demo-out/store --out demo-out/run --recipe demo
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from jobs import metered, terminal, training
from pipelines import pretrain_recipes, recipe_files
from pipelines.pretrain import PretrainJob, pretrain

PROGRAM = "dynet-pretrain"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _pretrain(flags), again="goes on from the newest checkpoint")


def _pretrain(flags: argparse.Namespace) -> None:
    out = terminal.out_store(flags.out, flags.endpoint_url)
    recipe = recipe_files.changed(pretrain_recipes.read(flags.recipe), flags.set)
    job = PretrainJob(
        store=flags.store,
        out=out,
        recipe=recipe,
        endpoint_url=flags.endpoint_url,
        ranks=flags.ranks,
        workers=flags.workers,
        device=training.device(flags),
        weights=training.given(flags.weights, recipe.model, out) if flags.weights else None,
        board=training.board(flags.logs, out),
    )
    with metered.served(flags):
        training.told("pretrain", out, recipe.settings, functools.partial(pretrain, job))


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Trains one set of DyNet weights for every depth on a set of patches: a random crop of each, half of it\n"
        "spoilt and 30 % masked, is restored. Given again it goes on from the newest checkpoint in --out.",
        f"{PROGRAM} s3://bucket/million-ird --out s3://bucket/run-1 --ranks 8 --set settings.precision=bf16",
    )
    parser.add_argument("store", metavar="STORE", help="the set: a folder, http(s)://… or s3://bucket/prefix")
    training.arguments(parser, "paper, demo")
    return parser


if __name__ == "__main__":
    sys.exit(main())
