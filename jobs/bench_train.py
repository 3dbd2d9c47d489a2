"""Milliseconds a training step: this project's network beside the released code's, on the same batch and machine.

A step is forward, L1, backward, Adam; ours is that of `dynet.train`, with all it counts and checks. Each contender has
a process of its own, as its user would: on a CPU ours keeps the memory that it frees, as `dynet-pretrain` does, and the
released code leaves that to the C library. It has another turn with its memory kept, so that what the network alone
gains can be told. In every round each has its turn, so that what else the machine does hits all alike; the fastest step
counts.
"""

from __future__ import annotations

import importlib.util
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from dynet import memory
from dynet.cost import cost
from dynet.data import Pair
from dynet.model import DEPTHS, Depth, DyNet, ModelConfig, depth_name, depth_of
from dynet.train import PRECISIONS, Settings, Trainer
from jobs import terminal
from jobs.terminal import ratio

RELEASED: Final = "released code, float32"
#: The released code's file and class, by depth.
_PEERS: Final = {"S": "DyNet_small", "L": "DyNet_large"}
_STEPS: Final = 2  # a round, that are timed
_SIDE: Final = 2048  # of the square matrices whose product says what a CPU can do
_PRODUCTS: Final = 5
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
    """A network that trains. `keeps`: its process keeps the memory that it frees, as `dynet-pretrain` does on a CPU."""

    name: str
    precision: str
    released: bool = False
    compiled: bool = False
    keeps: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Seconds of a step by the clock, and bytes: of the process at its peak, or of the GPU's memory."""

    clock: float
    memory: float


def table(setting: Setting) -> str:
    """The paces of all contenders at every depth."""
    device = _device()
    depths = [depth_of(word) for word in setting.depths]
    if setting.peer is not None:
        for depth in depths:
            _check_clone(setting.peer, depth)
    parts = [_compared(setting, depth, device) for depth in depths]
    return f"batch {setting.batch}, crops of {setting.crop}, {_device_name(device)}\n" + "\n\n".join(parts)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _compared(setting: Setting, depth: Depth, device: torch.device) -> str:
    best: dict[Contender, Pace] = {}
    for _ in range(setting.rounds):
        for one in _contenders(setting, depth, device):
            pace = _in_its_own_process(one, setting, depth)
            best[one] = _fastest(best.get(one, pace), pace)
    forward = cost(ModelConfig(width=setting.width), depth, (setting.crop, setting.crop)).total
    return _table(best, depth, 3 * setting.batch * forward, device)  # backward: twice the products of forward


def _table(best: Mapping[Contender, Pace], depth: Depth, operations: int, device: torch.device) -> str:
    base = next(iter(best.values()))
    peaks = {one.precision: _peak(one.precision, device) for one in best}
    rows = []
    for one, pace in best.items():
        peak = peaks[one.precision]
        speed = operations / pace.clock
        share = f"{100 * speed / peak:.0f} %" if peak else "unknown"
        paces = (f"{1000 * pace.clock:.0f}", ratio(base.clock, pace.clock), f"{speed / 1e9:.0f}", share)
        rows.append((one.name, *paces, f"{pace.memory / 1e9:.1f}"))
    head = (f"DyNet-{depth_name(depth)}", "ms a step", "times faster", "GFLOP/s", "of peak", "GB")
    told = ", ".join(f"{precision} {peak / 1e9:.0f}" for precision, peak in peaks.items() if peak)
    return terminal.table(head, rows) + f"\npeak, GFLOP/s: {told or 'unknown'}"


def _peak(precision: str, device: torch.device) -> float:
    """Operations a second: of a GPU as its maker states, 0 where unknown; of a CPU as one large product reaches."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((peaks[precision == "bf16"] for part, peaks in _PEAKS.items() if part in name), 0.0)
    one, other = (torch.randn(_SIDE, _SIDE, dtype=PRECISIONS[precision]) for _ in range(2))
    seconds = []
    for _ in range(_PRODUCTS):
        begun = time.perf_counter()
        one @ other
        seconds.append(time.perf_counter() - begun)
    return 2 * _SIDE**3 / min(seconds)


def _fastest(one: Pace, other: Pace) -> Pace:
    return Pace(clock=min(one.clock, other.clock), memory=max(one.memory, other.memory))


# ---------------------------------------------------------------- the contenders


def _contenders(setting: Setting, depth: Depth, device: torch.device) -> list[Contender]:
    made = []
    if setting.peer is not None and depth in DEPTHS.values():
        made.append(Contender(name=RELEASED, precision="f32", released=True))
        if device.type == "cpu":
            made.append(Contender(name=f"{RELEASED}, memory kept", precision="f32", released=True, keeps=True))
    for compiled in (False, True)[: 1 + setting.compiled]:
        word = ", compiled" if compiled else ""
        for precision, name in (("f32", "float32"), ("bf16", "bfloat16")):
            one = Contender(name=f"this project, {name}{word}", precision=precision, compiled=compiled, keeps=True)
            made.append(one)
    return made


def _in_its_own_process(one: Contender, setting: Setting, depth: Depth) -> Pace:
    """What one contender did to its allocator and its caches is nothing to the next."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_timed, one, setting, depth).result()


def _timed(one: Contender, setting: Setting, depth: Depth) -> Pace:
    """The fastest of some steps, after one that allocates, and compiles."""
    device = _device()
    torch.set_float32_matmul_precision("high")  # TF32 on CUDA, for all contenders
    if one.keeps and device.type == "cpu":
        memory.keep_freed()
    torch.manual_seed(0)
    shape = (setting.batch, 3, setting.crop, setting.crop)
    pictures, targets = (torch.rand(shape, device=device).to(memory_format=torch.channels_last) for _ in range(2))
    pair = Pair(degraded=pictures, clean=targets)
    step = _step(one, setting, depth, device)
    seconds = []
    for _ in range(1 + _STEPS):
        _wait(device)
        begun = time.perf_counter()
        step(pair)
        _wait(device)
        seconds.append(time.perf_counter() - begun)
    return Pace(clock=min(seconds[1:]), memory=_memory(device))


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _step(one: Contender, setting: Setting, depth: Depth, device: torch.device) -> Callable[[Pair], object]:
    if one.released:
        assert setting.peer is not None, "there is no such contender else"
        return _peer(_released(setting.peer, depth).to(device))
    settings = Settings(steps=1, depths=(depth_name(depth),), precision=one.precision, compile=one.compiled)
    return Trainer(DyNet(ModelConfig(width=setting.width)), settings, seed=0, device=device).take_step


def _peer(network: nn.Module) -> Callable[[Pair], object]:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step(pair: Pair) -> None:
        optimizer.zero_grad(set_to_none=True)
        F.l1_loss(network(pair.degraded), pair.clean).backward()
        optimizer.step()

    return step


def _check_clone(clone: Path, depth: Depth) -> None:
    """Raises ValueError where the released code of that depth isn't there. Other depths it hasn't."""
    if depth in DEPTHS.values() and not (path := _file(clone, depth)).is_file():
        raise ValueError(f"{path} is not there: give a clone of github.com/akshaydudhane16/DyNet as --peer")


def _file(clone: Path, depth: Depth) -> Path:
    return clone / "net" / f"{_PEERS[depth_name(depth)]}.py"


def _released(clone: Path, depth: Depth) -> nn.Module:
    """The network of a clone of the released repository. Its code runs: it is the user's to trust."""
    name = _PEERS[depth_name(depth)]
    spec = importlib.util.spec_from_file_location(name, _file(clone, depth))
    assert spec is not None and spec.loader is not None, "it is a file of Python"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)(decoder=True)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU with {torch.get_num_threads()} threads"
