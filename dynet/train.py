"""One training step, and all that it changes: weights, optimizer, averages, and what was skipped.

What is drawn for a step (the depth) is a function of the seed and the step's number, so that every rank draws the same
and a resumed run draws it again. So is the learning rate: no schedule has a state.

A step whose loss or gradient is not finite, or whose loss is far above what that depth had lately, changes nothing but
its count. Too many of them in a row stop the run.

Axes: B pictures of a rank, H and W pixels.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dynet.data import Pair
from dynet.model import Depth, DyNet, depth_name, depth_of
from shards.order import shuffled

PRECISIONS: Final = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
OPTIMIZERS: Final = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
EXPLODED: Final = 10.0  # times the middle of the last losses of that depth
_LATELY: Final = 50  # losses
_ENOUGH: Final = 20  # losses of a depth before one can be told to be too high
MOST_SKIPPED_IN_A_ROW: Final = 20
BETWEEN: Final = "between"  # hundreds of depths, of which each has its turn too seldom for a history of its own


class Diverged(RuntimeError):
    """Step after step has no use; the message says since when, and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a network is trained. Raises ValueError for what can't be."""

    steps: int  # of the optimizer, in all
    depths: tuple[str, ...] = ("S", "L")  # one is drawn for each step; see `dynet.model.depth_of`
    between: bool = False  # also every depth that lies between those
    lr: float = 1e-4  # the highest
    warmup: int = 0  # steps, over which the rate climbs from 0
    cosine: int = 0  # steps, at which a cosine that begins behind the climb reaches 0; 0: the rate stays as it is
    optimizer: str = "adam"  # or adamw
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    precision: str = "f32"  # of the forward pass: f32, bf16 or f16; weights stay float32
    compile: bool = False  # torch.compile, block by block
    accumulate: int = 1  # parts that a rank's batch is cut into, one after the other: less memory
    recompute: bool = False  # blocks again in the backward pass instead of their activations kept: less memory
    ema: float = 0.0  # decay of an average of the weights over the steps; 0: none

    def __post_init__(self) -> None:
        if self.steps < 1 or self.accumulate < 1:
            raise ValueError(f"steps is {self.steps} and accumulate {self.accumulate}: give at least 1")
        if not self.depths:
            raise ValueError("no depth to train: give S, L or four numbers such as 3,4,4,6")
        # one name for each, which a checkpoint, the curve and the validation have in common
        object.__setattr__(self, "depths", tuple(depth_name(depth_of(word)) for word in self.depths))
        if not 0 < self.lr < 1:
            raise ValueError(f"lr is {self.lr}: give a number between 0 and 1, such as 1e-4")
        if self.warmup < 0 or (self.cosine and self.cosine <= self.warmup):
            raise ValueError(f"warmup is {self.warmup} and cosine {self.cosine}: a cosine ends behind the warm-up")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer is '{self.optimizer}': give {' or '.join(OPTIMIZERS)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {self.betas}: give two numbers from 0 to below 1, such as 0.9 and 0.999")
        if not 0 <= self.weight_decay < 1:
            raise ValueError(f"weight_decay is {self.weight_decay}: give at least 0 and less than 1")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is '{self.precision}': give {', '.join(PRECISIONS)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}: give at least 0 and less than 1")

    def lr_at(self, step: int) -> float:
        """The rate of step number `step`, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if not self.cosine:
            return self.lr
        share = (step - self.warmup) / (self.cosine - self.warmup)
        return self.lr * (1 + math.cos(math.pi * min(share, 1.0))) / 2

    def depth_at(self, seed: int, step: int) -> Depth:
        """The depth of step number `step`: each of `depths` equally likely, or each level's count where `between`."""
        ends = [depth_of(word) for word in self.depths]
        if not self.between:
            return ends[int(shuffled(len(ends), f"{seed}/depth/{step}")[0])]
        levels = [range(min(counts), max(counts) + 1) for counts in zip(*ends, strict=True)]
        one, two, three, four = (
            counts[int(shuffled(len(counts), f"{seed}/depth/{step}/{level}")[0])] for level, counts in enumerate(levels)
        )
        return one, two, three, four


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a step did. `loss`: L1 of all ranks, before the step. `norm`: of the gradient. `taken`: or skipped."""

    step: int
    depth: str
    loss: float
    norm: float
    taken: bool


class Trainer:
    """A network in training, one of `world` ranks; where there are several, torch.distributed is up.

    The network is moved to `device`. Deterministic on a CPU for a given number of threads and ranks.
    """

    def __init__(self, model: DyNet, settings: Settings, *, seed: int, device: torch.device, world: int = 1) -> None:
        self.settings, self.device = settings, device
        self.model = model.to(device)
        self.step = 0
        self.skipped = 0
        self._seed, self._world = seed, world
        self._skipped_in_a_row = 0
        self._lately: dict[str, deque[float]] = {}
        self._average = _average(self.model, settings.ema) if settings.ema else None
        self._optimizer = _optimizer(self.model, settings)
        self._scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "f16")
        self.model.recompute = settings.recompute
        if settings.compile:
            self.model.compile_blocks()
        self._net: nn.Module = self.model
        if world > 1:
            self._net = DistributedDataParallel(self.model, gradient_as_bucket_view=True)

    @property
    def best(self) -> DyNet:
        """The network to look at and to give away: the average where there is one."""
        if self._average is None:
            return self.model
        average = self._average.module
        assert isinstance(average, DyNet)
        return average

    def take_step(self, pair: Pair) -> Outcome:
        """One step on this rank's part of a global batch; every rank takes it at once.

        Raises Diverged, ValueError for a batch that `accumulate` doesn't divide.
        """
        depth = self.settings.depth_at(self._seed, self.step)
        name = depth_name(depth)
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.lr_at(self.step)
        mean = self._backward(pair, depth)
        self._scaler.unscale_(self._optimizer)
        gradients = [one.grad for one in self.model.parameters() if one.grad is not None]
        # waits for the device: once a step
        loss, norm = torch.stack([mean, nn.utils.get_total_norm(gradients)]).tolist()
        taken = self._is_sound(name, loss, norm)
        if taken:
            self._scaler.step(self._optimizer)
            if self._average is not None:
                self._average.update_parameters(self.model)
        if self._scaler.is_enabled():
            self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._count(taken, loss, norm)
        return Outcome(step=self.step, depth=name, loss=loss, norm=norm, taken=taken)

    def _backward(self, pair: Pair, depth: Depth) -> torch.Tensor:
        """Gradients of the mean L1 over all ranks; gives that mean, () float32 on the device."""
        parts = self.settings.accumulate
        if len(pair.clean) % parts:
            raise ValueError(f"a rank's batch of {len(pair.clean)} can't be cut into {parts} parts: change accumulate")
        whole = torch.zeros((), device=self.device)
        pieces = list(zip(pair.degraded.chunk(parts), pair.clean.chunk(parts), strict=True))
        for number, (degraded, clean) in enumerate(pieces):
            with self._alone(last=number == parts - 1):
                with self.autocast():
                    loss = functional.l1_loss(self._net(degraded, depth).float(), clean)
                whole += loss.detach()
                self._scaler.scale(loss / parts).backward()
        whole /= parts
        if self._world > 1:
            torch.distributed.all_reduce(whole)
            whole /= self._world
        return whole

    def autocast(self) -> AbstractContextManager[Any]:
        """In here the network computes in the precision of the settings."""
        precision = PRECISIONS[self.settings.precision]
        return torch.autocast(self.device.type, dtype=precision, enabled=precision != torch.float32)

    def _alone(self, last: bool) -> AbstractContextManager[Any]:
        """Ranks exchange gradients once a step, with the last part."""
        return nullcontext() if last or not isinstance(self._net, DistributedDataParallel) else self._net.no_sync()

    def _is_sound(self, depth: str, loss: float, norm: float) -> bool:
        """The same on every rank: both numbers are of all ranks together."""
        lately = self._lately.setdefault(BETWEEN if self.settings.between else depth, deque(maxlen=_LATELY))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return False
        if len(lately) >= _ENOUGH and loss > EXPLODED * statistics.median(lately):
            return False
        lately.append(loss)
        return True

    def _count(self, taken: bool, loss: float, norm: float) -> None:
        self._skipped_in_a_row = 0 if taken else self._skipped_in_a_row + 1
        self.skipped += not taken
        if self._skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise Diverged(
                f"{self._skipped_in_a_row} steps in a row had no use up to step {self.step} (loss {loss:.3g}, gradient"
                f" {norm:.3g}): go on from the last checkpoint with a lower lr than {self.settings.lr:g}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; of every rank the same."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "step": self.step,
            "skipped": self.skipped,
            "skipped_in_a_row": self._skipped_in_a_row,
            "lately": {depth: list(losses) for depth, losses in self._lately.items()},
            "generator": torch.get_rng_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from there. Raises ValueError for the state of another network."""
        check_weights(self.model, state["model"])
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._scaler.is_enabled() and state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        if self._average is not None and state["average"] is not None:
            self._average.load_state_dict(state["average"])
        self.step, self.skipped = state["step"], state["skipped"]
        self._skipped_in_a_row = state["skipped_in_a_row"]
        self._lately = {depth: deque(losses, maxlen=_LATELY) for depth, losses in state["lately"].items()}
        torch.set_rng_state(state["generator"])


def check_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Raises ValueError where these are another network's weights, naming the first that differs."""
    ours = model.state_dict()
    for name in dict.fromkeys((*ours, *weights)):
        mine, theirs = (tuple(some[name].shape) if name in some else None for some in (ours, weights))
        if mine != theirs:
            told = f"has {name} of shape {theirs}" if theirs else f"lacks {name}"
            raise ValueError(f"the checkpoint is of another network: it {told}, this one has {mine or 'none'}")


def _optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    kind = OPTIMIZERS[settings.optimizer]
    return kind(
        model.parameters(), lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )


def _average(model: DyNet, decay: float) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
