"""`dynet-evaluate`: how well a network restores test pictures, beside what was published; or what it costs.

dynet-evaluate --mode 3 --data test --checkpoint dynet.pt --out evaluation
dynet-evaluate --set kodak=kodak24 --set rain=rain100h --sigma 25 --checkpoint dynet.pt --out evaluation
dynet-evaluate --cost --depth S L 3,4,4,6
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from jobs import cost, terminal

if TYPE_CHECKING:
    import torch

    from dynet.results import Row, Table
    from dynet.testsets import PictureSet
    from pipelines.evaluate import EvaluateJob

PROGRAM = "dynet-evaluate"
_ALL_IN_ONE: Final = 3  # the mode whose published figures stand beside sets that no mode names
_TASKS: Final = ("denoise", "derain", "dehaze")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _cost(flags) if flags.cost else _evaluate(flags), again="starts again")


def _cost(flags: argparse.Namespace) -> None:
    if flags.mode is not None or flags.set:
        raise ValueError("--cost stands alone: ask for figures of test pictures in a call of its own")
    cost.show(flags)


def _evaluate(flags: argparse.Namespace) -> None:
    _check(flags)
    import dynet  # torch takes seconds, and --help needs none of it
    from dynet import results
    from pipelines.evaluate import PAGE, check, evaluate

    job = _job(flags)
    restorer = dynet.load(flags.checkpoint, device=flags.device, precision=flags.precision)
    with terminal.Bar("check", "picture") as bar:
        check(job, restorer, bar)
    out = Path(flags.out)
    out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with terminal.Bar("restore", "picture") as bar:
        rows = evaluate(job, restorer, out, bar)
    _summary(results.table(rows, job.published), rows)
    took = terminal.duration(time.monotonic() - begun)
    print(f"{took}; table: {out}/table.md  pictures: {out}/pictures.csv  page: {out}/{PAGE}")


def _check(flags: argparse.Namespace) -> None:
    """Raises ValueError for flags that don't go together."""
    if flags.mode is None and not flags.set:
        raise ValueError("nothing to do: give --mode 0, 1, 2 or 3, --set NAME=DIR, or --cost")
    for name in ("checkpoint", "out"):
        if getattr(flags, name) is None:
            raise ValueError(f"give --{name}: {'the weights' if name == 'checkpoint' else 'a folder for the results'}")
    if "://" in flags.out:
        raise ValueError(f"--out {flags.out}: results go into a folder of this machine, so name one")
    if not all(0 < sigma <= 255 for sigma in flags.sigma):
        raise ValueError("--sigma: give grey levels above 0, up to 255")


def _job(flags: argparse.Namespace) -> EvaluateJob:
    from dynet.model import depth_name, depth_of
    from dynet.published import TABLES
    from dynet.restore import device_of
    from pipelines.evaluate import EvaluateJob, no_scores, scored_by

    return EvaluateJob(
        sets=_sets(flags),
        depths=tuple(dict.fromkeys(depth_name(depth_of(word)) for word in flags.depth)),
        published=TABLES[_ALL_IN_ONE if flags.mode is None else flags.mode],
        notes=(*_notes(flags), _hardware(device_of(flags.device))),
        seed=flags.seed,
        tile=flags.tile,
        score=scored_by(flags.metrics, flags.weights) if flags.metrics else no_scores,
    )


def _sets(flags: argparse.Namespace) -> tuple[PictureSet, ...]:
    from dynet import testsets

    sigmas = tuple(dict.fromkeys(flags.sigma))
    sets: list[PictureSet] = []
    if flags.mode is not None:
        folders = {task: getattr(flags, f"{task}_path") or flags.data / task for task in _TASKS}
        sets += testsets.released(flags.mode, folders, sigmas)
    for text in flags.set:
        name, _, folder = text.partition("=")
        if not name or not folder:
            raise ValueError(f"--set {text}: write NAME=DIR, such as kodak=kodak24")
        sets.append(testsets.found(name, Path(folder), sigmas))
    return tuple(sets)


def _notes(flags: argparse.Namespace) -> tuple[str, ...]:
    """What the figures were measured with. Raises ValueError for a checkpoint that can't be read."""
    from curation.scorers import lower_better

    try:
        digest = hashlib.sha256(flags.checkpoint.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"{flags.checkpoint} can't be read: {error.strerror}") from error
    parts = f"tiles of {flags.tile} pixels that overlap by a quarter" if flags.tile else "whole pictures"
    directions = [f"{metric}: {'lower' if lower_better(metric) else 'higher'} is better" for metric in flags.metrics]
    return (
        f"checkpoint {flags.checkpoint.name}, SHA-256 {digest}",
        f"{flags.precision}, {parts}, cropped to a multiple of 16",
        f"noise of seed {flags.seed}; PSNR and SSIM on RGB, clipped to [0, 1], as scikit-image defines them",
        *directions,
    )


def _hardware(device: torch.device) -> str:
    import torch

    threads = f"the CPU, threads: {torch.get_num_threads()}"
    return f"restored on {torch.cuda.get_device_name(device) if device.type == 'cuda' else threads}"


def _summary(table: Table, rows: Sequence[Row]) -> None:
    from dynet import results

    print(f"\n{table.title}; PSNR in dB / SSIM")
    lines = [(results.named(line), *map(results.figure, line.figures)) for line in table.lines]
    counts = ("pictures", *(count or "" for count in table.pictures))
    print(terminal.table(("", *table.columns), [*lines, counts]))
    if rows[0].scores:
        print(f"\n{terminal.table(*results.scores(rows))}")
    if table.caution:
        print(f"\n{table.caution}")
    each = ", ".join(f"{depth} {seconds:.3g} s" for depth, seconds in results.seconds(rows).items())
    print(f"\n{len(rows)} pictures restored; the network took {each} a picture")


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Restores test pictures and says how close they come to their targets, beside what was published.\n"
        "With --cost: what the network costs at each depth.",
        f"{PROGRAM} --mode 3 --data test --checkpoint dynet.pt --out evaluation",
    )
    parser.add_argument("--mode", type=int, help="0 denoise, 1 derain, 2 dehaze, 3 all in one")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("test"),
        metavar="DIR",
        help="has denoise/bsd68, derain/Rain100L/{input,target}, dehaze/{input,target} (default test); "
        "mode 0 also takes denoise/urban100",
    )
    for task in _TASKS:
        parser.add_argument(
            f"--{task}_path", type=Path, metavar="DIR", help=f"in place of DATA/{task}, as in the released code"
        )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=DIR", help="another folder of pairs or pictures; repeatable"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a run's or a released one, of any depth")
    parser.add_argument("--depth", nargs="+", default=["S", "L"], help='"S", "L" or four numbers (default S L)')
    parser.add_argument("--out", metavar="DIR", help="where table, figures, pictures and the page go")
    parser.add_argument(
        "--sigma", type=float, nargs="+", default=[15, 25, 50], help="noise in grey levels (default 15 25 50)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32", help="of the network (default f32)")
    parser.add_argument(
        "--tile",
        type=int,
        metavar="N",
        help="pixels a side of overlapping tiles, for pictures too large for the memory (default: whole pictures)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU here")
    parser.add_argument(
        "--metrics", nargs="+", default=[], metavar="NAME", help="pyiqa's, without a reference, of what was restored"
    )
    parser.add_argument("--weights", type=Path, metavar="DIR", help="their weights (else pyiqa's cache)")
    cost.add_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
