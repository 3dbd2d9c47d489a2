"""Gradients written by hand are those of the plain formulation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynet.blocks import TransformerBlock
from dynet.fused import attended, depthwise, gated, widened


def _gated(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, dim=1)
    return F.gelu(gate) * value


def _attended(qkv: Tensor, temperature: Tensor, project: Tensor, heads: int) -> Tensor:
    """Restormer, eq. 1, head by head."""
    split = [one.chunk(heads, dim=-1) for one in qkv.chunk(3, dim=-1)]
    mixed = []
    for q, k, v, scale in zip(*split, temperature.flatten(), strict=True):
        products = F.normalize(q, dim=1).mT @ F.normalize(k, dim=1)
        mixed.append(v @ (products * scale).softmax(dim=-1).mT)
    return torch.cat(mixed, dim=-1) @ project.flatten(1).mT


def _inputs(heads: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """qkv of 2 pictures of 5 pixels with 4 channels, temperature, projection to 3."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 5, 12), (heads, 1, 1), (3, 4, 1, 1))
    qkv, temperature, project = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return qkv.requires_grad_(), (temperature + 1).requires_grad_(), project.requires_grad_()


def _gradients(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    out = function(*inputs)
    return torch.autograd.grad(out, inputs, torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gate_is_that_of_the_equation(layout: torch.memory_format) -> None:
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    torch.testing.assert_close(gated(x), _gated(x))
    torch.testing.assert_close(_gradients(gated, x), _gradients(_gated, x))
    assert torch.autograd.gradcheck(gated, (x,))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_that_of_the_equation(heads: int) -> None:
    inputs = _inputs(heads)
    torch.testing.assert_close(attended(*inputs, heads), _attended(*inputs, heads))
    for ours, plain in zip(
        _gradients(lambda *given: attended(*given, heads), *inputs),
        _gradients(lambda *given: _attended(*given, heads), *inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain)
    assert torch.autograd.gradcheck(lambda *given: attended(*given, heads), inputs)


def test_a_row_without_length_has_a_gradient_as_in_the_equation() -> None:
    inputs = _inputs(2)
    inputs[0].data[:, :, 0] = 0
    inputs[0].data[:, :, 5] = 1e-14
    ours = _gradients(lambda *given: attended(*given, 2), *inputs)
    plain = _gradients(lambda *given: _attended(*given, 2), *inputs)
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("learns", [True, False])
def test_float16_holds_what_many_pixels_sum_up_to(learns: bool) -> None:
    """q^T k of 16,384 pixels of 3 each is twice what float16 can hold."""
    torch.manual_seed(0)
    pixels = 3 * torch.randn(1, 128 * 128, 1).repeat(1, 1, 24)  # q and k alike
    temperature, project = torch.ones(2, 1, 1), torch.randn(8, 8, 1, 1)
    with torch.set_grad_enabled(learns):
        half = pixels.half().requires_grad_(learns)
        mixed = attended(half, temperature, project, 2)
        expected = attended(pixels, temperature, project, 2)
    assert mixed.dtype == torch.float16
    assert (mixed.float() - expected).norm() < 0.01 * expected.norm()
    if learns:
        mixed.float().square().mean().backward()
        assert half.grad is not None and half.grad.isfinite().all() and half.grad.any()


def test_bfloat16_is_near_float32() -> None:
    inputs = _inputs(2, torch.float32)
    rough = [inputs[0].detach().bfloat16().requires_grad_(), *inputs[1:]]
    ours = _gradients(lambda *given: attended(*given, 2).float(), *rough)
    assert [one.dtype for one in ours] == [torch.bfloat16, torch.float32, torch.float32]
    for near, exact in zip(ours, _gradients(lambda *given: attended(*given, 2), *inputs), strict=True):
        assert (near - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(("dim", "parts", "idle"), [(0, 2, 3), (0, 1, 0), (1, 1, 2)])
def test_a_widened_weight_has_zeros_behind_each_part(dim: int, parts: int, idle: int) -> None:
    weight = torch.randn(4, 6, 1, 1, dtype=torch.float64, requires_grad=True)
    wide = widened(weight, dim, parts, idle)
    for part, known in zip(wide.chunk(parts, dim), weight.chunk(parts, dim), strict=True):
        assert torch.equal(part.narrow(dim, 0, known.shape[dim]), known)
        assert part.shape[dim] == known.shape[dim] + idle
        assert not part.narrow(dim, known.shape[dim], idle).any()
    assert torch.autograd.gradcheck(lambda one: widened(one, dim, parts, idle), (weight,))


def test_under_autocast_it_is_converted_at_once_and_its_gradient_is_not() -> None:
    weight = torch.randn(4, 6, 1, 1, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        wide = widened(weight, 0, 2, 1)
    assert wide.dtype == torch.bfloat16
    wide.sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones(4, 6, 1, 1))


@pytest.mark.parametrize("shape", [(4, 6, 1, 1), (4, 1, 3, 3)])
def test_its_gradient_lies_as_the_weight_does(shape: tuple[int, ...]) -> None:
    """DDP warns of strides that differ, even along a side of 1."""
    weight = torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
    widened(weight, 0, 2, 1).square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.stride() == weight.stride()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_depthwise_convolution_is_one(layout: torch.memory_format) -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(3, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(depthwise(x, weight), F.conv2d(x, weight, padding=1, groups=3))
    assert torch.autograd.gradcheck(depthwise, (x, weight))


@pytest.mark.slow
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_compilers_see_all_of_a_block_and_its_gradients(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    block, x = TransformerBlock(8, 2, 2.66), torch.randn(2, 8, 6, 5)
    results = []
    for function in (block, torch.compile(block, backend="eager", fullgraph=True)):
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            out = function(x)
        results.append((out, *torch.autograd.grad(out.float().square().sum(), list(block.parameters()))))
    for compiled, ours in zip(*results, strict=True):
        assert (compiled - ours).norm() < (0.05 if precision == torch.bfloat16 else 1e-4) * ours.norm()
