"""What a picture costs: operations by count, seconds by the clock.

A multiply-accumulate is two operations. The count is of the network as its papers draw it, one product after the
other; what runs differs by a few percent (`dynet.blocks` merges two products and pads channels). The paper's 242.355
and 166.38 GFLOPs at 224x224 are the convolutions (242.153 and 166.248 here) and one operation for each GELU (0.201
and 0.131); its attention products, another 9 %, were not counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dynet.blocks import MDTA, TransformerBlock
from dynet.model import DyNet, ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Of one picture."""

    #: Weights that are stored.
    parameters: int
    #: Operations of convolutions, two a multiply-accumulate.
    convolutions: int
    #: Values that pass GELU.
    gelus: int
    #: Operations of the products q k^T and A v.
    attention: int

    @property
    def published(self) -> int:
        """Operations as the paper counts them."""
        return self.convolutions + self.gelus

    @property
    def total(self) -> int:
        """Operations of convolutions and attention."""
        return self.convolutions + self.attention


def cost(config: ModelConfig, depth: str | Sequence[int], size: tuple[int, int]) -> Cost:
    """Of a picture of height and width `size` at a depth; counted on shapes, nothing is computed."""
    convolutions = gelus = attention = 0

    def count(module: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal convolutions, gelus, attention
        pixels = output.shape[2] * output.shape[3]
        if isinstance(module, TransformerBlock):
            convolutions += (
                2 * pixels * sum(one.weight.numel() for one in module.modules() if isinstance(one, nn.Conv2d))
            )
            gelus += pixels * module.feed_forward.project.in_channels
            attention += 4 * pixels * _map_size(module.attention)
        else:
            assert isinstance(module, nn.Conv2d)
            convolutions += 2 * pixels * module.weight.numel()

    with torch.device("meta"):
        model = DyNet(config)
        inside = {one for block in model.modules() if isinstance(block, TransformerBlock) for one in block.modules()}
        for module in model.modules():
            if isinstance(module, TransformerBlock) or (isinstance(module, nn.Conv2d) and module not in inside):
                module.register_forward_hook(count)
        model(torch.empty(1, 3, *size), depth)
    parameters = sum(one.numel() for one in model.parameters())
    return Cost(parameters=parameters, convolutions=convolutions, gelus=gelus, attention=attention)


def latency(model: DyNet, depth: str | Sequence[int], size: tuple[int, int], repeats: int = 5) -> float:
    """Seconds a picture takes, the median of `repeats` behind one that doesn't count, where the model is."""
    device = next(model.parameters()).device
    picture = torch.rand(1, 3, *size, device=device)
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            started = time.perf_counter()
            model(picture, depth)
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # a launch returns before its work is done
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _map_size(attention: MDTA) -> int:
    """Entries of A, all heads: what each pixel is multiplied with, by q k^T and by A v."""
    dim = attention.project.in_channels
    return dim * dim // attention.heads
