"""Milliseconds a training step: this project's network beside the released code's, on the same batch, in one process.

A step is forward, L1, backward, Adam; ours is that of `dynet.train`, with all it counts and checks. In every round each
contender has its turn, so that what else the machine does hits all alike; the fastest round counts. On a CPU the time
that the cores worked is given too: on a busy machine that is the steadier number. OMP_WAIT_POLICY=passive keeps waiting
out of it.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from dynet.cost import cost
from dynet.data import Pair
from dynet.model import DEPTHS, Depth, DyNet, ModelConfig, depth_name, depth_of
from dynet.train import Settings, Trainer
from jobs import terminal
from jobs.terminal import ratio

RELEASED: Final = "released code, float32"
#: The released code's file and class, by depth.
_PEERS: Final = {"S": "DyNet_small", "L": "DyNet_large"}
#: Operations a second that the makers state, dense, in TF32 and bfloat16, by a part of the device's name.
_PEAKS: Final = {
    "B200": (1.1e15, 2.25e15),
    "H200": (494.7e12, 989.4e12),
    "H100 PCIe": (378e12, 756e12),
    "H100": (494.7e12, 989.4e12),
    "A100": (156e12, 312e12),
    "L40S": (183e12, 362e12),
    "RTX 4090": (82.6e12, 165.2e12),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What is compared."""

    peer: Path | None
    depths: Sequence[str]
    batch: int
    crop: int
    width: int
    rounds: int
    compiled: bool

    def __post_init__(self) -> None:
        if min(self.batch, self.crop, self.rounds) < 1:
            raise ValueError("--batch, --crop and --rounds: give 1 or more")
        if self.peer is not None and self.width != ModelConfig().width:
            raise ValueError("the released code is 48 wide only: leave out --peer or --width")


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """A network that trains."""

    name: str
    step: Callable[[Pair], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Seconds a step took: by the clock, and of the cores that worked on it."""

    clock: float
    cores: float


def table(setting: Setting) -> str:
    """The paces of all contenders at every depth."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")  # TF32 on CUDA, for all contenders
    parts = [_compared(setting, depth_of(word), device) for word in setting.depths]
    return f"batch {setting.batch}, crops of {setting.crop}, {_device_name(device)}\n" + "\n\n".join(parts)


def _compared(setting: Setting, depth: Depth, device: torch.device) -> str:
    torch.manual_seed(0)
    shape = (setting.batch, 3, setting.crop, setting.crop)
    pictures, targets = (torch.rand(shape, device=device).to(memory_format=torch.channels_last) for _ in range(2))
    pair = Pair(degraded=pictures, clean=targets)
    contenders = _contenders(setting, depth, device)
    best: dict[str, Pace] = {}
    for number in range(setting.rounds + 1):
        for one in contenders:
            pace = _timed(one, pair)
            if number:  # the first step allocates, and compiles
                best[one.name] = _fastest(best.get(one.name, pace), pace)
    forward = cost(ModelConfig(width=setting.width), depth, shape[2:]).total
    return _table(best, depth, 3 * setting.batch * forward, device)  # backward: twice the products of forward


def _table(best: dict[str, Pace], depth: Depth, operations: int, device: torch.device) -> str:
    base = best.get(RELEASED, next(iter(best.values())))
    rows = []
    for name, pace in best.items():
        row = [name, f"{1000 * pace.clock:.0f}", ratio(base.clock, pace.clock)]
        if device.type == "cuda":
            row += [
                f"{operations / pace.clock / 1e12:.1f}",
                _share(operations / pace.clock, "bfloat16" in name, device),
            ]
        else:
            row += [f"{1000 * pace.cores:.0f}", ratio(base.cores, pace.cores)]
        rows.append(row)
    more = ("TFLOP/s", "of peak") if device.type == "cuda" else ("core ms", "times faster")
    return terminal.table((f"DyNet-{depth_name(depth)}", "ms a step", "times faster", *more), rows)


def _share(pace: float, bfloat16: bool, device: torch.device) -> str:
    name = torch.cuda.get_device_name(device)
    peak = next((peaks[bfloat16] for part, peaks in _PEAKS.items() if part in name), None)
    return f"{100 * pace / peak:.1f} %" if peak else "unknown"


def _fastest(one: Pace, other: Pace) -> Pace:
    return Pace(clock=min(one.clock, other.clock), cores=min(one.cores, other.cores))


def _timed(one: Contender, pair: Pair) -> Pace:
    _wait(pair.clean.device)
    clock, cores = time.perf_counter(), time.process_time()
    one.step(pair)
    _wait(pair.clean.device)
    return Pace(clock=time.perf_counter() - clock, cores=time.process_time() - cores)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---------------------------------------------------------------- the contenders


def _contenders(setting: Setting, depth: Depth, device: torch.device) -> list[Contender]:
    made = []
    if setting.peer is not None and depth in DEPTHS.values():
        made.append(_peer(_released(setting.peer, _PEERS[depth_name(depth)]).to(device)))
    for compiled in (False, True)[: 1 + setting.compiled]:
        word = ", compiled" if compiled else ""
        for precision, name in (("f32", "float32"), ("bf16", "bfloat16")):
            settings = Settings(steps=1, depths=(depth_name(depth),), precision=precision, compile=compiled)
            trainer = Trainer(DyNet(ModelConfig(width=setting.width)), settings, seed=0, device=device)
            made.append(Contender(name=f"this project, {name}{word}", step=trainer.take_step))
    return made


def _peer(network: nn.Module) -> Contender:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step(pair: Pair) -> None:
        optimizer.zero_grad(set_to_none=True)
        F.l1_loss(network(pair.degraded), pair.clean).backward()
        optimizer.step()

    return Contender(name=RELEASED, step=step)


def _released(clone: Path, name: str) -> nn.Module:
    """The network of a clone of the released repository. Its code runs: it is the user's to trust."""
    path = clone / "net" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"{path} is not there: give a clone of github.com/akshaydudhane16/DyNet as --peer")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)(decoder=True)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU with {torch.get_num_threads()} threads, OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', 'unset')}"
