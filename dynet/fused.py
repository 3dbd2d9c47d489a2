"""Pieces of a transformer block with gradients written by hand, for training: a step moves less memory with them.

Autograd takes a tensor apart (q, k, v; the halves of GDFN) by views, computes a gradient for each and copies those
together again; and the gradient of a row's length is several passes over all pixels. Here each gradient is written
where it belongs, into one tensor that is allocated once: on a CPU a sixth off a training step (`LOG.md`). None of it
can be differentiated twice.

B: batch, N = H W: pixels, C: channels, h: heads, c = C / h: channels of a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

SMALLEST = 1e-12  # length of a row of q or k, as in F.normalize


def gated(x: Tensor) -> Tensor:
    """gelu(a) * b of the two halves a, b of the channels: (B, 2 C, H, W) to (B, C, H, W)."""
    if _by_hand():
        return _Gated.apply(x)
    gate, value = x.chunk(2, dim=1)
    return F.gelu(gate) * value


def depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """A 3x3 convolution of each channel by itself, without bias: (B, C, H, W) to the same."""
    if _by_hand() and x.is_cpu:
        return _Depthwise.apply(x, weight)
    return _convolved(x, weight)


def attended(qkv: Tensor, temperature: Tensor, project: Tensor, heads: int) -> Tensor:
    """Restormer's attention between channels, and the 1x1 convolution behind it.

    qkv: (B, N, 3 C), temperature: (h, 1, 1), project: (out, C, 1, 1), in any types; gives (B, N, out) in that of qkv.
    """
    if _by_hand() and qkv.dtype != torch.float16:  # in which the gradient of a product by hand may vanish
        return _Attended.apply(qkv, temperature, project, heads)
    return _attend(qkv, temperature, project, heads)[0]


def widened(weight: Tensor, dim: int, parts: int, idle: int) -> Tensor:
    """`idle` rows of zeros behind each of `parts` equal parts of the weight's rows along `dim`.

    In the type that autocast would give it, so that it is converted once and not at each use.
    """
    kind = weight.device.type
    converts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # there is none on "meta"
    dtype = torch.get_autocast_dtype(kind) if converts else weight.dtype
    if _by_hand():
        return _Widened.apply(weight, dim, parts, idle, dtype)
    return _widen(weight, dim, parts, idle).to(dtype)


def _by_hand() -> bool:
    """Compilers and exporters are given the plain operations: they do as well or better with them."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _widen(weight: Tensor, dim: int, parts: int, idle: int) -> Tensor:
    behind = (0, 0) * (weight.ndim - 1 - dim) + (0, idle)
    return F.pad(weight.unflatten(dim, (parts, -1)), behind).flatten(dim, dim + 1)


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=1, groups=len(weight))


def _attend(qkv: Tensor, temperature: Tensor, project: Tensor, heads: int) -> tuple[Tensor, ...]:
    """The result, and what the gradients need besides the inputs."""
    dim = qkv.shape[-1] // 3
    # copied once, so that no product has to copy them first
    qk = rearrange(qkv[..., : 2 * dim], "b n (two h c) -> two h b n c", two=2, h=heads).contiguous()
    v = qkv[..., 2 * dim :].contiguous()
    lengths = _inverse_length(qk)  # (2, h, B, 1, c) float32
    if qkv.dtype == torch.float16:  # the product of all pixels would be too large for it
        unscaled = ((qk[0] * lengths[0]).to(qkv.dtype).mT @ qk[1]) * lengths[1]
    else:
        unscaled = (qk[0].mT @ qk[1]) * lengths[0].mT * lengths[1]
    attention = (unscaled * temperature[:, None]).softmax(dim=-1)  # (h, B, c, c) float32
    weights = rearrange(project.to(qkv.dtype), "out (h c) 1 1 -> h 1 out c", h=heads)
    mixing = rearrange(weights @ attention.to(qkv.dtype), "h b out c -> b out (h c)")
    return torch.bmm(v, mixing.mT), qk, v, weights, lengths, unscaled, attention, mixing


class _Widened(Function):
    """Its gradient lies in memory as the weight does, which DDP asks for: as F.pad's doesn't, where a side is 1."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, dim: int, parts: int, idle: int, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.dim, ctx.parts = dim, parts
        return _widen(weight, dim, parts, idle).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        parted = above.unflatten(ctx.dim, (ctx.parts, -1)).narrow(ctx.dim + 1, 0, weight.shape[ctx.dim] // ctx.parts)
        return torch.empty_like(weight).copy_(parted.flatten(ctx.dim, ctx.dim + 1)), None, None, None, None


class _Gated(Function):
    """gelu(a) is kept: an exponential costs more than the memory that it takes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gate, value = x.chunk(2, dim=1)
        share = F.gelu(gate)
        ctx.save_for_backward(x, share)
        return share * value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> Tensor:
        x, share = ctx.saved_tensors
        gate, value = x.chunk(2, dim=1)
        gradient = torch.empty_like(x)
        of_gate, of_value = gradient.chunk(2, dim=1)
        torch.mul(above, value, out=of_gate)
        torch.ops.aten.gelu_backward.grad_input(of_gate, gate, grad_input=of_gate)
        torch.mul(above, share, out=of_value)
        return gradient


class _Depthwise(Function):
    """The gradient of x is a convolution too, with the kernels turned.

    As such oneDNN takes two fifths (float32) or a quarter (bfloat16) of the time on (1, 288, 128, 128).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        kernels = weight.to(x.dtype)
        ctx.save_for_backward(x, weight, kernels)
        return _convolved(x, kernels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, kernels = ctx.saved_tensors
        of_kernels = conv2d_weight(x, kernels.shape, above, padding=1, groups=len(kernels))
        return _convolved(above, kernels.flip(2, 3)), torch.empty_like(weight).copy_(of_kernels)


class _Attended(Function):
    """With G = q^T k of a head, r and s one over the lengths of q's and k's columns, and t the temperature:

    L = t r G s,  A = softmax(L),  M = P A,  out = v M^T

    and backward, from D = out'^T v (X' is the gradient of X):

    v' = out' M,  P' = D A^T,  A' = P^T D,  L' = A * (A' - rowsum(A * A')),  G' = t r L' s,
    q' = k G'^T - q diag(r^2 rowsum(L' * L)),  k' = q G' - k diag(s^2 colsum(L' * L)),  t' = sum(L' * L) / t
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, temperature: Tensor, project: Tensor, heads: int) -> Tensor:
        mixed, *more = _attend(qkv, temperature, project, heads)
        ctx.save_for_backward(temperature, project, *more)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        temperature, project, qk, v, weights, lengths, unscaled, attention, mixing = ctx.saved_tensors
        batch, pixels, dim = v.shape
        gradient = v.new_empty(batch, pixels, 3 * dim)
        torch.bmm(above, mixing, out=gradient[..., 2 * dim :])
        of_mixing = rearrange(torch.bmm(above.mT, v), "b out (h c) -> h b out c", h=len(weights))
        of_weights = (of_mixing @ attention.to(v.dtype).mT).sum(dim=1, dtype=project.dtype)
        of_project = torch.empty_like(project).copy_(rearrange(of_weights, "h out c -> out (h c) 1 1"))
        of_scaled = attention * (weights.mT @ of_mixing)
        of_scaled = of_scaled - attention * of_scaled.sum(dim=-1, keepdim=True)
        felt = of_scaled * unscaled
        of_temperature = felt.sum(dim=(1, 2, 3))[:, None, None].to(temperature.dtype)
        felt = felt * temperature[:, None]
        felt = torch.stack([felt.sum(dim=3)[:, :, None], felt.sum(dim=2)[:, :, None]])  # (2, h, B, 1, c)
        # a length that was clamped has no part in it
        shrinking = torch.where(lengths < 0.99 / SMALLEST, -felt * lengths.square(), 0).to(v.dtype)
        of_products = (of_scaled * temperature[:, None] * lengths[0].mT * lengths[1]).to(v.dtype)
        of_qk = rearrange(gradient[..., : 2 * dim], "b n (two h c) -> two h b n c", two=2, h=len(weights))
        for head, of_product in enumerate(of_products):
            q, k, of_q, of_k = qk[0, head], qk[1, head], of_qk[0, head], of_qk[1, head]
            torch.mul(q, shrinking[0, head], out=of_q).baddbmm_(k, of_product.mT)
            torch.mul(k, shrinking[1, head], out=of_k).baddbmm_(q, of_product)
        return gradient, of_temperature, of_project, None


def _inverse_length(x: Tensor) -> Tensor:
    """(..., N, C) to (..., 1, C) float32 or wider: one over the length of each channel's row of pixels."""
    wide = torch.promote_types(x.dtype, torch.float32)
    if x.is_cpu and x.dtype != torch.float16:  # whose squares may be too large for it
        # vector_norm goes down each column by itself there: two to five times as long
        return x.square().sum(dim=-2, keepdim=True, dtype=wide).clamp_min(SMALLEST**2).rsqrt()
    return 1 / torch.linalg.vector_norm(x, dim=-2, keepdim=True, dtype=wide).clamp_min(SMALLEST)
