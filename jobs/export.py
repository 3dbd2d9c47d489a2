"""`dynet-export`: a checkpoint to files that run elsewhere, compared with the network before they have their names.

dynet-export step-001000000.pt --out exported --depth S L --format torch onnx
dynet-export step-001000000.pt --out exported --format weights
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from jobs import terminal

if TYPE_CHECKING:
    from dynet.export import Exported, Program

PROGRAM = "dynet-export"
DYNAMIC: Final = "dynamic"
_FORMS: Final = ("torch", "onnx", "weights", "released")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _export(flags), again="starts again")


def _export(flags: argparse.Namespace) -> None:
    import torch  # takes seconds, and --help needs none of it

    import dynet
    from dynet import export
    from dynet.model import depth_name, depth_of

    size = _size(flags.size)
    depths = list(dict.fromkeys(depth_of(word) for word in flags.depth))
    forms = list(dict.fromkeys(flags.format))
    for form in forms:
        export.check_form(form)
    if flags.out.exists() and not flags.out.is_dir():
        raise ValueError(f"--out {flags.out} is a file: name a folder")
    model = dynet.load(flags.checkpoint, device="cpu").model
    jobs = [(form, model.checked(depth)) for form in forms if form in export.PROGRAMS for depth in depths]
    programs: list[Program] = []
    with terminal.Bar("export", "file", paced=True) as bar:
        for done, (form, depth) in enumerate(jobs):
            bar(len(jobs), done, f"{form}, depth {depth_name(depth)}")
            programs.append(export.export_program(model, depth, form, flags.out, size))
            bar(len(jobs), done + 1)
    files = [export.export_weights(model, form, flags.out) for form in forms if form in export.FILES]
    print(
        terminal.table(
            _HEAD, [*map(_row, programs), *((one.path.name, _scaled(one), "0", "-", "-", "-") for one in files)]
        )
    )
    print(f"loaded back and compared; float32, CPU, {torch.get_num_threads()} threads: {flags.out}")


_HEAD: Final = ("file", "size", "largest difference", "ms a picture", "the network's", "at")


def _row(one: Program) -> tuple[str, ...]:
    times = [f"{1000 * seconds:.1f}" for seconds in (one.program_seconds, one.network_seconds)]
    return (one.path.name, _scaled(one), f"{one.difference:.1e}", *times, f"{one.size[0]}x{one.size[1]}")


def _scaled(one: Exported) -> str:
    return f"{terminal.scaled(one.bytes)}B"


def _size(word: str) -> tuple[int, int] | None:
    """Height and width; None for any. Raises ValueError for another form."""
    if word == DYNAMIC:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", word)
    if found is None:
        raise ValueError(f"--size {word}: write dynamic, or height and width such as 480x640")
    return int(found[1]), int(found[2])


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Writes a checkpoint as files that run elsewhere, each loaded back and compared before it has its name.\n\n"
        "torch     (.pt2, torch.export) and\n"
        "onnx      one file for each depth, float32: (1, 3, H, W) RGB in [0, 1] to the same, not clamped; for any H\n"
        "          and W of at least 16 that 8 divides, or for one size\n"
        "weights   one small file for every depth, for dynet.load and the other commands\n"
        "released  the same for the code that DyNet's authors released",
        f"{PROGRAM} step-001000000.pt --out exported --depth S L --format torch onnx",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's, an exported or a released one")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--depth", nargs="+", default=["S", "L"], help='"S", "L" or four numbers (default S L)')
    parser.add_argument("--format", nargs="+", choices=_FORMS, default=["torch"], help="default torch")
    parser.add_argument(
        "--size", default=DYNAMIC, metavar="HxW", help="one size; dynamic (default): any that 8 divides"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
