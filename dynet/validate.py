"""How well a network restores what it was not trained on: PSNR and SSIM per depth, and a picture to look at.

The pairs are those of a held-out shard, the same ones each time: crops and degradations of epoch 0 of an own plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from dynet.data import Pair, pair
from dynet.metrics import psnr, ssim
from dynet.model import DyNet
from shards.stream import Batch

Context = Callable[[], AbstractContextManager[Any]]
SHOWN: Final = 6  # rows of a picture grid
_INPUT: Final = "input"


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Of one picture, or the mean of several. `psnr` in dB, `ssim` at most 1."""

    psnr: float
    ssim: float


def quality(picture: np.ndarray, target: np.ndarray) -> Quality:
    """Each (H, W, 3), uint8 or floats in [0, 1]."""
    return Quality(psnr=psnr(picture, target), ssim=ssim(picture, target))


def mean(all_: Sequence[Quality]) -> Quality:
    """Of one or more."""
    return Quality(
        psnr=float(np.mean([one.psnr for one in all_])),
        ssim=float(np.mean([one.ssim for one in all_])),
    )


def held_out(batches: Iterable[Batch], count: int) -> list[Batch]:
    """The batches that hold the first `count` samples."""
    kept: list[Batch] = []
    for batch in batches:
        kept.append(batch)
        if sum(len(one.samples) for one in kept) >= count:
            break
    return kept


def qualities(
    model: DyNet, batches: Sequence[Batch], depths: Sequence[str], device: torch.device, context: Context
) -> dict[str, Quality]:
    """By depth, and under "input" that of the degraded crops as they are."""
    made: dict[str, list[Quality]] = {depth: [] for depth in (_INPUT, *depths)}
    for one, restored in _restored(model, batches, depths, device, context):
        target = _pixels(one.clean)
        for depth, pixels in {_INPUT: _pixels(one.degraded), **restored}.items():
            made[depth] += [quality(a, b) for a, b in zip(pixels, target, strict=True)]
    return {depth: mean(all_) for depth, all_ in made.items()}


def shown(
    model: DyNet, batches: Sequence[Batch], depths: Sequence[str], device: torch.device, context: Context
) -> dict[str, np.ndarray]:
    """Columns of a picture grid: each (n, H, W, 3) uint8 of the first held-out samples."""
    one, restored = next(_restored(model, batches, depths, device, context))
    columns = {"clean": _pixels(one.clean), "degraded": _pixels(one.degraded), **restored}
    return {name: np.rint(255 * pixels[:SHOWN]).astype(np.uint8) for name, pixels in columns.items()}


def _restored(
    model: DyNet, batches: Sequence[Batch], depths: Sequence[str], device: torch.device, context: Context
) -> Iterator[tuple[Pair, Mapping[str, np.ndarray]]]:
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            one = pair(batch, device)
            with torch.inference_mode(), context():  # left before the caller goes on
                restored = {depth: _pixels(model(one.degraded, depth)) for depth in depths}
            yield one, restored
    finally:
        model.train(was_training)


def _pixels(pictures: torch.Tensor) -> np.ndarray:
    """(B, 3, H, W) to (B, H, W, 3) float32 in [0, 1]."""
    return pictures.float().clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
