"""What a training job says, whatever is trained: its progress line, its summary, and where weights come from."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from dynet import checkpoint, curve, loop, pictures, weights
from dynet.loop import Stopped, Watch
from dynet.model import DEPTHS, DyNet, ModelConfig, depth_name, depth_of
from dynet.progress import Progress
from dynet.train import Diverged, Settings, check_weights
from dynet.validate import Quality
from jobs import metered, terminal
from pipelines import metering
from pipelines.pretrain import BOARD
from shards.store import LocalStore, Store
from shards.stream import StreamError

CURVE = "curve.png"
_FEW = 3  # depths whose losses a line has room for
_MANY = 10  # rows of the summary: beyond, those of the recipe alone


def told(label: str, out: Store, settings: Settings, work: Callable[[Watch], Progress]) -> None:
    """Runs `work` behind a bar, and says how it ended. Raises ValueError where it went wrong on the way, Terminated."""
    begun, before = time.monotonic(), max(checkpoint.steps(out), default=0)
    try:
        with terminal.Bar(label, "step", paced=True) as bar:
            ended = work(_Teller(bar))
    except Stopped as where:
        raise terminal.Terminated(str(where)) from where
    except (Diverged, StreamError) as error:
        raise ValueError(str(error)) from error
    _summary(out, settings, ended, ended.step - before, time.monotonic() - begun)


class _Teller:
    """Has the bar say every progress, with what the last validation found."""

    def __init__(self, bar: terminal.Bar) -> None:
        self._bar = bar
        self._qualities: Mapping[str, Quality] = {}

    def __call__(self, now: Progress) -> None:
        metering.trained(now)
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


def board(folder: Path | None, out: Store) -> str:
    """A relative folder is taken from here: ranks run in folders of their own."""
    if folder is None:
        return f"{out.root}/{BOARD}" if isinstance(out, LocalStore) else ""
    return str(folder.absolute())


def given(path: Path, model: ModelConfig, out: Store) -> dict[str, torch.Tensor]:
    """Weights to begin with. Raises ValueError for a file of another network."""
    if begun := checkpoint.steps(out):
        print(f"{out.root} has a checkpoint after step {begun[-1]}: the run goes on from there, not from {path}")
    config, values = weights.read(path)
    theirs, ours = config.to_dict(), model.to_dict()
    if other := [f"model.{name}={json.dumps(theirs[name])}" for name in ours if theirs[name] != ours[name]]:
        raise ValueError(f"{path} is of another network: to begin with it give --set {' --set '.join(other)}")
    check_weights(DyNet(model), values)
    return values


def _summary(out: Store, settings: Settings, ended: Progress, new: int, seconds: float) -> None:
    """`new`: steps of this call."""
    table = curve.read(out)
    picture = pictures.curves(curve.by_depth(table))
    out.write(CURVE, pictures.png(picture))
    ends = list(curve.ends(table).items())
    named = {depth_name(depth_of(word)) for word in settings.depths}
    rows = [
        (depth, f"{first:.4f}", f"{last:.4f}", *_quality(ended, depth))
        for depth, (first, last) in ends
        if depth in named or len(ends) <= _MANY
    ]
    print(terminal.table(("depth", "loss, first", "last", "PSNR", "SSIM"), rows))
    part = "" if new == ended.step else f", the last {new} of them" if new else ", none of them"
    print(f"{ended.step} steps{part} in {terminal.duration(seconds)}, {ended.skipped} skipped")
    root = out.root
    print(
        f"checkpoint: {root}/{checkpoint.name_of(ended.step)}  curve: {root}/{CURVE}  pictures: {root}/{loop.PICTURES}"
    )


def _quality(ended: Progress, depth: str) -> tuple[str, str]:
    one = ended.qualities.get(depth)
    return (f"{one.psnr:.2f} dB", f"{one.ssim:.4f}") if one else ("-", "-")


def arguments(parser: argparse.ArgumentParser, recipes: str) -> None:
    """The flags that training jobs have in common. `recipes`: the names of theirs, the default first."""
    first = recipes.partition(",")[0]
    parser.add_argument("--out", required=True, help="where checkpoints, curve and pictures go: a folder or s3://…")
    parser.add_argument("--recipe", default=first, help=f"{recipes}, or a JSON file such as a run's own")
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
    metered.add_flag(parser)
    parser.add_argument("--endpoint-url", help="another S3 server than AWS's")


def device(flags: argparse.Namespace) -> str:
    """The one that was asked for, or the GPU where there is one."""
    return str(flags.device or ("cuda" if torch.cuda.is_available() else "cpu"))
