"""What the network is built of: Restormer's transformer block (arXiv 2111.09881) and PromptIR's prompts (2306.13090).

B: batch, C: channels, H and W: height and width, N = H W: pixels, h: heads, c = C / h: channels of a head.

Every tensor is (B, C, H, W) to its caller and lies in memory as (B, H, W, C), channels last. That makes a 1x1
convolution a matrix product and LayerNorm a pass over rows, both on the tensor as it lies. Other layouts are taken too;
the first 1x1 convolution turns them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dynet.fused import attended, depthwise, gated, widened

_EPS = 1e-5  # of LayerNorm
Aligned = tuple[Tensor, Tensor, Tensor]  # the weights of a GDFN as they are applied
_ALIGNED = 16  # channels: a vector of float32 in AVX-512; tensor cores want 8


class LayerNorm(nn.Module):
    """Each pixel's channels to mean 0 and variance 1, then scaled and shifted: (B, C, H, W) to the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1)
        return F.layer_norm(rows, self.weight.shape, self.weight, self.bias, _EPS).permute(0, 3, 1, 2)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution without bias, as the matrix product that it is: (B, C, H, W) to (B, out, H, W)."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__(dim, out, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight)


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """On a CPU oneDNN's convolution has it: in float32 2.5 times as fast as MKL's product on AMD."""
    if x.is_cpu:
        return F.conv2d(x, weight)
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1)).permute(0, 3, 1, 2)


class Depthwise(nn.Conv2d):
    """A 3x3 convolution of each channel by itself, without bias: (B, C, H, W) to the same."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, kernel_size=3, padding=1, groups=dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return depthwise(x, self.weight)


def full(dim: int, out: int) -> nn.Conv2d:
    """A 3x3 convolution without bias."""
    return nn.Conv2d(dim, out, kernel_size=3, padding=1, bias=False)


class MDTA(nn.Module):
    """Multi-Dconv head transposed attention, Restormer's eq. 1: (B, C, H, W) to the same.

    In each head, with q, k, v (c, N) from a 1x1 and a depthwise 3x3 convolution, the rows of q and k of length 1:

        A = softmax(t q k^T)      (c, c), t learned
        out = P A v               P the 1x1 convolution behind it

    The map is over channels, so it costs N c C and not N^2 C. Two things are reordered, equal but for rounding: lengths
    divide the (c, c) product and not the rows, and P A is multiplied out first, which leaves one product over pixels.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = Pointwise(dim, 3 * dim)
        self.qkv_depthwise = Depthwise(3 * dim)
        self.project = Pointwise(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        qkv = rearrange(self.qkv_depthwise(self.qkv(x)), "b c h w -> b (h w) c")
        mixed = attended(qkv, self.temperature, self.project.weight, self.heads)
        return rearrange(mixed, "b (h w) c -> b c h w", h=x.shape[2])


class GDFN(nn.Module):
    """Gated-Dconv feed-forward network, Restormer's eq. 2: (B, C, H, W) to the same.

    out = W_out (gelu(a) * b), with a and b the two halves of D W_in x; D depthwise 3x3, hidden width int(expansion C).
    """

    def __init__(self, dim: int, expansion: float) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.idle = -hidden % _ALIGNED
        self.widen = Pointwise(dim, 2 * hidden)
        self.depthwise = Depthwise(2 * hidden)
        self.project = Pointwise(hidden, dim)

    def forward(self, x: Tensor, weights: Aligned | None = None) -> Tensor:
        widen, kernels, project = weights or self.aligned()
        return pointwise(gated(depthwise(pointwise(x, widen), kernels)), project)

    def aligned(self) -> Aligned:
        """The weights with rows of zeros behind either half, that make it as wide as vectors and tensor cores like.

        Width 48 has 127 hidden channels: with 128, gelu on a CPU takes an eighth of the time. Whoever applies a block
        again and again makes them once.
        """
        return (
            widened(self.widen.weight, 0, 2, self.idle),
            widened(self.depthwise.weight, 0, 2, self.idle),
            widened(self.project.weight, 1, 1, self.idle),
        )


class TransformerBlock(nn.Module):
    """x + MDTA(LN(x)), then x + GDFN(LN(x)): (B, C, H, W) to the same. Restormer, figure 2.

    `aligned` is what its feed_forward makes of its weights, for who applies the block more than once.
    """

    def __init__(self, dim: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attention = MDTA(dim, heads)
        self.norm2 = LayerNorm(dim)
        self.feed_forward = GDFN(dim, expansion)

    def forward(self, x: Tensor, aligned: Aligned | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x), aligned)


class Prompt(nn.Module):
    """PromptIR's prompt generation, eq. 2: a (B, channels, H, W) prompt for features x (B, C, H, W).

    Conv3x3(resize(sum_i w_i P_i)), with w = softmax(Linear(mean of x over pixels)) and learned components P_i.
    """

    def __init__(self, dim: int, channels: int, size: int, components: int = 5) -> None:
        super().__init__()
        self.components = nn.Parameter(torch.rand(components, channels, size, size))
        self.weigh = nn.Linear(dim, components)
        self.smooth = full(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weigh(x.mean(dim=(2, 3))).softmax(dim=1)
        prompt = torch.einsum("bi,ichw->bchw", weights.to(x.dtype), self.components)
        return self.smooth(F.interpolate(prompt, x.shape[2:], mode="bilinear", align_corners=False))


class PromptBlock(nn.Module):
    """PromptIR's prompt and its interaction with features, eq. 3: (B, C, H, W) to (B, out, H, W).

    Conv1x1(TransformerBlock([x; prompt])). The block is `dim + channels` wide.
    """

    def __init__(self, dim: int, out: int, prompt: Prompt, heads: int, expansion: float) -> None:
        super().__init__()
        wide = dim + prompt.smooth.out_channels
        self.prompt = prompt
        self.block = TransformerBlock(wide, heads, expansion)
        self.reduce = Pointwise(wide, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(self.block(torch.cat([x, self.prompt(x)], dim=1)))


class Downsample(nn.Sequential):
    """(B, C, H, W) to (B, 2 C, H / 2, W / 2): a 3x3 convolution to C / 2, then each 2x2 square into channels."""

    def __init__(self, dim: int) -> None:
        super().__init__(full(dim, dim // 2), nn.PixelUnshuffle(2))


class Upsample(nn.Sequential):
    """(B, C, H, W) to (B, C / 2, 2 H, 2 W): a 3x3 convolution to 2 C, then channels into 2x2 squares."""

    def __init__(self, dim: int) -> None:
        super().__init__(full(dim, 2 * dim), nn.PixelShuffle(2))
