"""`dynet-restore`: picture files to restored picture files.

dynet-restore photo.jpg scans/ 'old/**/*.tif' --out restored --depth L --checkpoint step-001000000.pt
dynet-restore scans/ --out restored --depth auto --budget-ms 500 --checkpoint step-001000000.pt
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from jobs import terminal

if TYPE_CHECKING:
    from dynet.model import Depth
    from dynet.restore import Restorer
    from pipelines.restore import Task, Tiling

PROGRAM = "dynet-restore"
AUTO: Final = "auto"
_SUFFIXES: Final = {"png": ".png", "tiff": ".tif", "webp": ".webp", "bmp": ".bmp", "jpeg": ".jpg"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _restore(flags), again="does the same again")


def _restore(flags: argparse.Namespace) -> None:
    import dynet  # torch takes seconds, and --help needs none of it
    from dynet.model import depth_name, depth_of
    from pipelines.restore import RestoreJob, plan, restore

    _check(flags)
    depth = None if flags.depth == AUTO else depth_of(flags.depth)
    tasks = plan(flags.inputs, flags.out, _SUFFIXES.get(flags.format))
    restorer = dynet.load(flags.checkpoint, device=flags.device, precision=flags.precision)
    tiling = _tiling(flags.tile, restorer)
    depth = restorer.model.checked(depth) if depth else _within_budget(tasks, restorer, tiling, flags.budget_ms / 1000)
    begun = time.monotonic()
    with terminal.Bar("restore", "picture", paced=True) as bar:
        failures = restore(RestoreJob(tasks=tasks, restorer=restorer, depth=depth, tiling=tiling), bar)
    done = len(tasks) - len(failures)
    print(
        f"{done} of {len(tasks)} pictures restored at depth {depth_name(depth)} on {restorer.device.type} "
        f"in {terminal.duration(time.monotonic() - begun)}: {flags.out}"
    )
    for failure in failures:
        print(f"  {failure.source}: {' '.join(failure.reason.split())}", file=sys.stderr)
    if failures:
        raise ValueError(f"{len(failures)} of {len(tasks)} pictures could not be restored, named above")


def _check(flags: argparse.Namespace) -> None:
    """Raises ValueError for words that don't go together, before anything is loaded."""
    from dynet import tiles

    if (flags.depth == AUTO) != (flags.budget_ms is not None):
        raise ValueError("--depth auto and --budget-ms go together: give both, or a depth alone")
    if flags.budget_ms is not None and not flags.budget_ms > 0:
        raise ValueError(f"--budget-ms {flags.budget_ms:g}: give more than 0")
    if flags.tile not in (AUTO, "0"):
        if not flags.tile.isdecimal():
            raise ValueError(f"--tile {flags.tile}: give auto, 0 for whole pictures, or pixels a side")
        tiles.check(int(flags.tile))


def _tiling(word: str, restorer: Restorer) -> Tiling:
    if word == AUTO:
        return restorer.fitting_tile
    side = int(word) or None
    return lambda _height, _width: side


def _within_budget(tasks: Sequence[Task], restorer: Restorer, tiling: Tiling, seconds: float) -> Depth:
    """Says what each depth takes on the first picture, and gives the deepest that fits."""
    from dynet import budget
    from dynet.model import depth_name
    from pipelines.restore import first_size

    size = first_size(tasks)
    tile = tiling(*size)
    rungs = len(budget.ladder(restorer.model.config))
    timed = []
    with terminal.Bar("time", "depth", paced=True) as bar:
        bar(rungs, 0)
        for one in budget.measured(restorer, size, tile, seconds):
            timed.append(one)
            bar(rungs, len(timed), depth_name(one.depth))
    shown = f"{size[1]}x{size[0]}" + (f" in tiles of {tile}" if tile else "")
    rows = [
        (depth_name(one.depth), f"{1000 * one.seconds:.1f}", "yes" if one.seconds <= seconds else "no") for one in timed
    ]
    print(terminal.table(("depth", f"ms a picture, {shown}", f"within {1000 * seconds:g}"), rows))
    return budget.deepest(timed, seconds)


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Restores pictures: files, folders with all below them, patterns in quotes. Names and places below a folder\n"
        "are kept, and EXIF, colour profile, alpha, grey and 16 bits. What is without loss keeps its form (PNG, TIFF,\n"
        "BMP, WebP, the last always written lossless); JPEG and AVIF become PNG, for a second compression would undo\n"
        "some of it. Originals are never written over; what an earlier run wrote is. A picture that can't be read is\n"
        "named, and the rest goes on; the exit status is then 2.",
        f"{PROGRAM} photo.jpg scans/ 'old/**/*.tif' --out restored --depth L --checkpoint step-001000000.pt",
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="IN", help="a file, a folder, or a pattern such as 'scans/**/*.png'"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for what is restored")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a run's, an exported or a released one")
    parser.add_argument("--depth", default="L", help='"S", "L", four numbers such as 3,4,4,6, or auto (default L)')
    parser.add_argument(
        "--budget-ms", type=float, metavar="N", help="with --depth auto: the deepest that takes so long at the most"
    )
    parser.add_argument(
        "--tile",
        default=AUTO,
        metavar="N",
        help="pixels a side of overlapping tiles; auto (default): whole, or as large as memory allows; 0: whole",
    )
    parser.add_argument(
        "--format", choices=(AUTO, *_SUFFIXES), default=AUTO, help="of all that is written (default auto)"
    )
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32", help="default f32")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
