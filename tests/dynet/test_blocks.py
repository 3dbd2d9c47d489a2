"""The blocks against the equations of their papers, in plain float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynet.blocks import GDFN, MDTA, Downsample, LayerNorm, Pointwise, Prompt, PromptBlock, TransformerBlock, Upsample


def _picture(channels: int, height: int = 5, width: int = 7) -> Tensor:
    return torch.randn(2, channels, height, width, dtype=torch.float64)


def _lively(module: nn.Module) -> nn.Module:
    """With weights that are not 0 and 1, so that a forgotten one shows."""
    for parameter in module.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3 + 0.1
    return module.double()


def _layer_norm(x: Tensor, module: LayerNorm) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], module.weight, module.bias).permute(0, 3, 1, 2)


def _mdta(x: Tensor, module: MDTA) -> Tensor:
    """Restormer, eq. 1, head by head."""
    qkv = F.conv2d(F.conv2d(x, module.qkv.weight), module.qkv_depthwise.weight, padding=1, groups=3 * x.shape[1])
    heads = [one.flatten(2).chunk(module.heads, dim=1) for one in qkv.chunk(3, dim=1)]
    mixed = []
    for q, k, v, temperature in zip(*heads, module.temperature.flatten(), strict=True):
        products = torch.einsum("bin,bjn->bij", F.normalize(q, dim=-1), F.normalize(k, dim=-1))
        mixed.append(torch.einsum("bij,bjn->bin", (products * temperature).softmax(dim=-1), v))
    return F.conv2d(torch.cat(mixed, dim=1).view_as(x), module.project.weight)


def _gdfn(x: Tensor, module: GDFN) -> Tensor:
    """Restormer, eq. 2."""
    wide = F.conv2d(x, module.widen.weight)
    gate, value = F.conv2d(wide, module.depthwise.weight, padding=1, groups=wide.shape[1]).chunk(2, dim=1)
    return F.conv2d(F.gelu(gate) * value, module.project.weight)


def test_layer_norm_is_that_of_torch_over_channels() -> None:
    module = _lively(LayerNorm(6))
    reference = nn.LayerNorm(6).double()
    reference.load_state_dict(module.state_dict())
    x = _picture(6)
    torch.testing.assert_close(module(x), reference(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def test_a_pointwise_convolution_is_one() -> None:
    module = _lively(Pointwise(6, 4))
    x = _picture(6)
    torch.testing.assert_close(module(x), F.conv2d(x, module.weight))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_mdta_is_the_papers_equation(heads: int) -> None:
    module = _lively(MDTA(8, heads))
    x = _picture(8)
    torch.testing.assert_close(module(x), _mdta(x, module))


def test_mdta_stands_channels_that_are_zero_everywhere() -> None:
    module = _lively(MDTA(8, 2))
    module.qkv.weight.data[0] = 0  # the first row of q has no length
    x = _picture(8).requires_grad_()
    out = module(x)
    torch.testing.assert_close(out, _mdta(x, module))
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dim", [6, 8, 48])  # 15, 21 and 127 hidden channels: none is a multiple of 16
def test_gdfn_is_the_papers_equation(dim: int) -> None:
    module = _lively(GDFN(dim, 2.66))
    x = _picture(dim)
    torch.testing.assert_close(module(x), _gdfn(x, module))


def test_a_transformer_block_adds_attention_then_feed_forward() -> None:
    block = _lively(TransformerBlock(8, 2, 2.66))
    x = _picture(8)
    attended = x + _mdta(_layer_norm(x, block.norm1), block.attention)
    expected = attended + _gdfn(_layer_norm(attended, block.norm2), block.feed_forward)
    torch.testing.assert_close(block(x), expected)


def test_gradients_are_those_of_the_equations() -> None:
    block = _lively(TransformerBlock(4, 2, 2.66))
    x = _picture(4, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(block, (x,))


def test_the_memory_format_changes_no_value() -> None:
    block = _lively(TransformerBlock(8, 2, 2.66))
    x = _picture(8)
    torch.testing.assert_close(block(x.contiguous(memory_format=torch.channels_last)), block(x))


def test_what_comes_channels_last_leaves_so() -> None:
    block = TransformerBlock(8, 2, 2.66)
    out = block(torch.randn(2, 8, 6, 5).contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_a_prompt_is_a_mixture_of_its_components_resized() -> None:
    prompt = _lively(Prompt(6, 4, size=3))
    x = _picture(6)
    weights = F.linear(x.mean(dim=(2, 3)), prompt.weigh.weight, prompt.weigh.bias).softmax(dim=1)
    mixed = sum(weights[:, number, None, None, None] * one for number, one in enumerate(prompt.components))
    resized = F.interpolate(mixed, (5, 7), mode="bilinear")
    torch.testing.assert_close(prompt(x), F.conv2d(resized, prompt.smooth.weight, padding=1), atol=1e-6, rtol=1e-6)


def test_a_prompt_block_appends_mixes_and_reduces() -> None:
    block = _lively(PromptBlock(6, 3, Prompt(6, 2, size=4), 2, 2.66))
    x = _picture(6)
    both = torch.cat([x, block.prompt(x)], dim=1)
    torch.testing.assert_close(block(x), F.conv2d(block.block(both), block.reduce.weight))


def test_down_halves_and_up_doubles() -> None:
    assert Downsample(8)(torch.zeros(1, 8, 6, 4)).shape == (1, 16, 3, 2)
    assert Upsample(8)(torch.zeros(1, 8, 6, 4)).shape == (1, 4, 12, 8)
