"""`dynet-evaluate`: what the network costs at a depth.

dynet-evaluate --cost --depth S L 3,4,4,6
dynet-evaluate --cost --size 512 --checkpoint dynet_l.ckpt
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from jobs import terminal

PROGRAM = "dynet-evaluate"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _cost(flags), again="starts again")


def _cost(flags: argparse.Namespace) -> None:
    import torch  # takes seconds, and --help needs none of it

    from dynet import cost, weights
    from dynet.model import DyNet, depth_name, depth_of, dynet

    if flags.size < 1 or flags.repeats < 1:
        raise ValueError("--size and --repeats: give 1 or more")
    depths = [depth_of(word) for word in flags.depth]
    config, given = weights.read(flags.checkpoint) if flags.checkpoint else (dynet(), None)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = DyNet(config).to(device).eval()
    if given is not None:
        model.load_state_dict(given)
    size = (flags.size, flags.size)
    rows = []
    for depth in depths:
        counted = cost.cost(config, depth, size)
        seconds = cost.latency(model, depth, size, flags.repeats)
        giga = [f"{value / 1e9:.3f}" for value in (counted.convolutions, counted.published, counted.total)]
        rows.append((depth_name(depth), f"{counted.parameters:,}", *giga, f"{1000 * seconds:.1f}"))
    head = ("depth", "parameters", "GFLOPs of convolutions", "as published", "with attention", "ms a picture")
    print(terminal.table(head, rows))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{flags.size}x{flags.size}, float32, median of {flags.repeats}; {where}, load {os.getloadavg()[0]:.1f}")


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Says what the network costs: weights, operations (two a multiply-accumulate), measured time.",
        f"{PROGRAM} --cost --depth S L 3,4,4,6",
    )
    parser.add_argument("--cost", action="store_true", required=True, help="the table of costs")
    parser.add_argument("--depth", nargs="+", default=["S", "L"], help='"S", "L" or four numbers (default S L)')
    parser.add_argument("--size", type=int, default=224, help="pixels, height and width (default 224, as published)")
    parser.add_argument(
        "--checkpoint", type=Path, help="a checkpoint, a run's or a released one (default: DyNet with random weights)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="pictures timed at each depth (default 5)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
