"""`dynet-finetune`: one network for noise, rain and haze, from pre-trained weights.

dynet-finetune --data data/Train --weights run-1/checkpoints/step-001000000.pt --out run-2 --depth S L --device cuda
dynet-finetune --data data/Train --de_type denoise_15 denoise_25 denoise_50 --shards s3://bucket/million-ird --out run-3
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dynet.folders import DE_TYPES
from dynet.loop import Watch
from dynet.model import promptir
from dynet.progress import Progress
from jobs import metered, terminal, training
from pipelines import finetune_recipes, recipe_files
from pipelines.finetune import FinetuneJob, finetune
from pipelines.finetune_recipes import FinetuneRecipe

PROGRAM = "dynet-finetune"
#: Flags, most of them of the released code, and the fields of a recipe that they are.
_FIELDS = {
    "de_type": "de_types",
    "epochs": "epochs",
    "batch_size": "batch",
    "patch_size": "crop",
    "lr": "settings.lr",
    "depth": "settings.depths",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _finetune(flags), again="goes on from the newest checkpoint")


def _finetune(flags: argparse.Namespace) -> None:
    out = terminal.out_store(flags.out, flags.endpoint_url)
    recipe = _recipe(flags)
    job = FinetuneJob(
        out=out,
        recipe=recipe,
        data=flags.data,
        lists=flags.lists,
        shards=flags.shards or "",
        endpoint_url=flags.endpoint_url,
        valid=flags.valid,
        ranks=flags.ranks,
        workers=flags.workers,
        device=training.device(flags),
        weights=training.given(flags.weights, recipe.model, out) if flags.weights else None,
        board=training.board(flags.logs, out),
    )

    def work(watch: Watch) -> Progress:
        with terminal.Bar("check", "picture") as bar:
            return finetune(job, _closing(bar), watch)

    with metered.served(flags):
        training.told("finetune", out, recipe.settings, work)


class _closing:
    """Has the bar end with the last picture: the one of the training comes next."""

    def __init__(self, bar: terminal.Bar) -> None:
        self._bar = bar

    def __call__(self, total: int, done: int) -> None:
        self._bar(total, done)
        if done == total:
            self._bar.close()


def _recipe(flags: argparse.Namespace) -> FinetuneRecipe:
    """The named one, with what the flags say; --set has the last word."""
    said = {field: getattr(flags, flag) for flag, field in _FIELDS.items()}
    if flags.net == "promptir":
        network = promptir()
        said |= {"model.prompts": network.prompts, "model.unshared": network.unshared}
        said["settings.depths"] = flags.depth or ["L"]
    words = [f"{field}={json.dumps(value)}" for field, value in said.items() if value is not None]
    return recipe_files.changed(finetune_recipes.read(flags.recipe), [*words, *flags.set])


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Trains weights on pictures with noise, rain and haze: any of these tasks, at any depth or several at once.\n"
        "Every picture is read once before it begins. Given again it goes on from the newest checkpoint in --out.",
        f"{PROGRAM} --data data/Train --weights run-1/checkpoints/step-001000000.pt --out run-2 --depth S L",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="the folder with Denoise/, Derain/ and Dehaze/")
    parser.add_argument(
        "--de_type", nargs="+", metavar="TASK", help=f"some of {', '.join(DE_TYPES)} (default: all of them)"
    )
    parser.add_argument("--shards", metavar="STORE", help="a set, whose clean patches are taken for denoising")
    parser.add_argument(
        "--lists", type=Path, metavar="DIR", help="the released code's data_dir: lists of files to take"
    )
    parser.add_argument("--valid", type=Path, metavar="DIR", help="a folder like --data, to validate on")
    parser.add_argument(
        "--depth", nargs="+", metavar="DEPTH", help='"S", "L" or "3,4,4,6"; several at once (default S L)'
    )
    parser.add_argument("--net", choices=("dynet", "promptir"), default="dynet", help="PromptIR has depth L alone")
    parser.add_argument("--epochs", type=float, help="over all pairs (default 120; the paper's Table 6 has 80)")
    parser.add_argument("--lr", type=float, help="the highest learning rate (default 2e-4)")
    parser.add_argument("--batch_size", type=int, help="pairs of a step, all ranks together (default 32)")
    parser.add_argument("--patch_size", type=int, help="pixels a side of a crop (default 128)")
    training.arguments(parser, "released, demo")
    return parser


if __name__ == "__main__":
    sys.exit(main())
