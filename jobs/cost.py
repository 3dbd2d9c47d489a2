"""What `dynet-evaluate --cost` says: weights, operations and measured time of the network at each depth."""

from __future__ import annotations

import argparse
import os

from jobs import terminal


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that go with --cost alone."""
    costs = parser.add_argument_group("costs")
    costs.add_argument("--cost", action="store_true", help="weights, operations (two a multiply-accumulate), time")
    costs.add_argument("--size", type=int, default=224, help="pixels, height and width (default 224, as published)")
    costs.add_argument("--repeats", type=int, default=5, help="pictures timed at each depth (default 5)")


def show(flags: argparse.Namespace) -> None:
    """Prints the table; of DyNet with random weights where no checkpoint is named."""
    import torch  # takes seconds, and --help needs none of it

    from dynet import cost, weights
    from dynet.model import DyNet, depth_name, depth_of, dynet
    from dynet.restore import device_of

    if flags.size < 1 or flags.repeats < 1:
        raise ValueError("--size and --repeats: give 1 or more")
    depths = [depth_of(word) for word in flags.depth]
    config, given = weights.read(flags.checkpoint) if flags.checkpoint else (dynet(), None)
    device = device_of(flags.device)
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
