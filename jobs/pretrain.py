"""`dynet-pretrain`: one set of DyNet weights for every depth, from a published set of patches.

dynet-pretrain s3://bucket/million-ird --out s3://bucket/run-1 --device cuda --ranks 8 --set settings.precision=bf16
dynet-pretrain demo-out/store --out demo-out/run --recipe demo
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from dynet import checkpoint, curve, loop, pictures, weights
from dynet.model import DEPTHS, DyNet, depth_name, depth_of
from dynet.progress import Progress
from dynet.train import Diverged, check_weights
from dynet.validate import Quality
from jobs import terminal
from pipelines import pretrain_recipes
from pipelines.pretrain import BOARD, PretrainJob, pretrain
from pipelines.pretrain_recipes import PretrainRecipe
from shards.store import LocalStore, Store
from shards.stream import StreamError

PROGRAM = "dynet-pretrain"
CURVE = "curve.png"
_FEW = 3  # depths whose losses a line has room for
_MANY = 10  # rows of the summary: beyond, those of the recipe alone


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _pretrain(flags), again="goes on from the newest checkpoint")


def _pretrain(flags: argparse.Namespace) -> None:
    out = terminal.out_store(flags.out, flags.endpoint_url)
    recipe = pretrain_recipes.changed(pretrain_recipes.read(flags.recipe), flags.set)
    job = PretrainJob(
        store=flags.store,
        out=out,
        recipe=recipe,
        endpoint_url=flags.endpoint_url,
        ranks=flags.ranks,
        workers=flags.workers,
        device=flags.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        weights=_weights(flags.weights, recipe) if flags.weights else None,
        board=_board(flags.logs, out),
    )
    begun, before = time.monotonic(), max(checkpoint.steps(out), default=0)
    try:
        with terminal.Bar("pretrain", "step", paced=True) as bar:
            ended = pretrain(job, _Teller(bar))
    except (Diverged, StreamError) as error:
        raise ValueError(str(error)) from error
    _summary(job, ended, ended.step - before, time.monotonic() - begun)


class _Teller:
    """Has the bar say every progress, with what the last validation found."""

    def __init__(self, bar: terminal.Bar) -> None:
        self._bar = bar
        self._qualities: Mapping[str, Quality] = {}

    def __call__(self, now: Progress) -> None:
        self._qualities = now.qualities or self._qualities
        self._bar(now.steps, now.step, note(replace(now, qualities=self._qualities)))


def note(now: Progress) -> str:
    """What a progress line says beside the steps; what a narrow terminal may cut off comes last."""
    parts = [f"{terminal.shown(now.per_second)} samples/s", f"{100 * now.waits:.0f} % waiting"]
    parts += [f"{terminal.scaled(now.memory)}B"]
    if now.skipped:
        parts.append(f"{now.skipped} skipped")
    if not sys.stderr.isatty() and now.step < now.steps:  # a terminal's bar has it
        parts.append(f"{terminal.duration(now.seconds_left)} left")
    if now.qualities:
        parts.append(", ".join(f"{depth} {one.psnr:.2f} dB" for depth, one in now.qualities.items()))
    few = now.losses if len(now.losses) <= _FEW else {one: now.losses[one] for one in DEPTHS if one in now.losses}
    parts.append("loss " + ", ".join(f"{depth} {loss:.4f}" for depth, loss in few.items()) if few else "")
    return "; ".join(part for part in parts if part)


def _board(folder: Path | None, out: Store) -> str:
    """A relative folder is taken from here: ranks run in folders of their own."""
    if folder is None:
        return f"{out.root}/{BOARD}" if isinstance(out, LocalStore) else ""
    return str(folder.absolute())


def _weights(path: Path, recipe: PretrainRecipe) -> dict[str, torch.Tensor]:
    """Weights to begin with. Raises ValueError for a file of another network."""
    _, given = weights.read(path)
    check_weights(DyNet(recipe.model), given)
    return given


def _summary(job: PretrainJob, ended: Progress, new: int, seconds: float) -> None:
    """`new`: steps of this call."""
    table = curve.read(job.out)
    picture = pictures.curves(curve.by_depth(table))
    job.out.write(CURVE, pictures.png(picture))
    ends = list(curve.ends(table).items())
    named = {depth_name(depth_of(word)) for word in job.recipe.settings.depths}
    rows = [
        (depth, f"{first:.4f}", f"{last:.4f}", *_quality(ended, depth))
        for depth, (first, last) in ends
        if depth in named or len(ends) <= _MANY
    ]
    print(terminal.table(("depth", "loss, first", "last", "PSNR", "SSIM"), rows))
    part = "" if new == ended.step else f", the last {new} of them" if new else ", none of them"
    print(f"{ended.step} steps{part} in {terminal.duration(seconds)}, {ended.skipped} skipped")
    root = job.out.root
    print(
        f"checkpoint: {root}/{checkpoint.name_of(ended.step)}  curve: {root}/{CURVE}  pictures: {root}/{loop.PICTURES}"
    )


def _quality(ended: Progress, depth: str) -> tuple[str, str]:
    one = ended.qualities.get(depth)
    return (f"{one.psnr:.2f} dB", f"{one.ssim:.4f}") if one else ("-", "-")


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Trains one set of DyNet weights for every depth on a set of patches: a random crop of each, half of it\n"
        "spoilt and 30 % masked, is restored. Given again it goes on from the newest checkpoint in --out.",
        f"{PROGRAM} s3://bucket/million-ird --out s3://bucket/run-1 --ranks 8 --set settings.precision=bf16",
    )
    parser.add_argument("store", metavar="STORE", help="the set: a folder, http(s)://… or s3://bucket/prefix")
    parser.add_argument("--out", required=True, help="where checkpoints, curve and pictures go: a folder or s3://…")
    parser.add_argument("--recipe", default="paper", help="paper (default), demo, or a JSON file such as a run's own")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="another value in the recipe, several times"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU here")
    parser.add_argument("--ranks", type=int, default=0, help="processes of Ray Train; default: this one, without Ray")
    parser.add_argument("--workers", type=int, default=2, help="processes of each rank that read (default 2)")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="a checkpoint to begin with, ours or a released one"
    )
    parser.add_argument(
        "--logs", type=Path, metavar="DIR", help="folder of TensorBoard's files; default: in --out, if a folder"
    )
    parser.add_argument("--endpoint-url", help="another S3 server than AWS's")
    return parser


if __name__ == "__main__":
    sys.exit(main())
