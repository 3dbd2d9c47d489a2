"""One set of weights at every depth, and what is asked wrongly is said."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynet.model import DEPTHS, DyNet, ModelConfig, depth_name, depth_of, dynet, promptir

NARROW = ModelConfig(width=8)
DEPTH = ("S", "L", "3,4,4,6", (1, 1, 1, 1))


def _picture(height: int = 16, width: int = 24, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def _by_hand(model: DyNet, x: Tensor, depth: Sequence[int]) -> Tensor:
    """The network with shared blocks, written out."""
    feature = model.embed(x)
    skips = []
    for level in "123":
        for _ in range(depth[int(level) - 1]):
            feature = model.encoder[level][0](feature)
        skips.append(feature)
        feature = model.down[level](feature)
    for _ in range(depth[3]):
        feature = model.latent[0](feature)
    feature = model.up["3"](model.prompts["4"](feature))
    feature = model.merge["3"](torch.cat([feature, model.prompts["3"](skips[2])], dim=1))
    for _ in range(depth[2]):
        feature = model.decoder["3"][0](feature)
    feature = model.merge["2"](torch.cat([model.up["2"](feature), model.prompts["2"](skips[1])], dim=1))
    for _ in range(depth[1]):
        feature = model.decoder["2"][0](feature)
    feature = torch.cat([model.up["1"](feature), skips[0]], dim=1)
    for _ in range(depth[0]):
        feature = model.decoder["1"][0](feature)
    for block in model.refinement:
        feature = block(feature)
    return model.restore(feature) + x


# ---------------------------------------------------------------- depths


@pytest.mark.parametrize("depth", ["S", "L", "3,4,4,6", [1, 2, 1, 3]])
def test_a_depth_is_how_often_the_blocks_are_applied(depth: str | list[int]) -> None:
    model = DyNet(NARROW)
    x = _picture()
    with torch.no_grad():
        torch.testing.assert_close(model(x, depth), _by_hand(model, x, depth_of(depth)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_depth_has_a_name_that_means_it(depth: str) -> None:
    assert depth_name(depth_of(depth)) == depth
    assert depth_of(depth_name((3, 4, 4, 6))) == (3, 4, 4, 6) == depth_of(" 3, 4,4,6 ") == depth_of([3, 4, 4, 6])


@pytest.mark.parametrize(
    "wrong", ["XL", "s", "", "1,2,3", "1,2,3,4,5", "0,1,1,1", "1,1,1,33", (1, 2), [1, 2, 3.0, 4], 4]
)
def test_another_depth_is_refused_with_the_remedy(wrong: str | Sequence[int]) -> None:
    with pytest.raises(ValueError, match=r'write "S", "L" or four numbers of 1 to 32'):
        depth_of(wrong)


def test_blocks_that_are_not_shared_have_one_depth() -> None:
    model = DyNet(ModelConfig(width=8, prompts="decoder", unshared=(1, 2, 1, 1)))
    assert model(_picture(), (1, 2, 1, 1)).shape == (1, 3, 16, 24)
    with pytest.raises(ValueError, match="depth L: the blocks of this network aren't shared, so give '1,2,1,1'"):
        model(_picture())


# ---------------------------------------------------------------- weights


def test_the_networks_have_the_weights_that_the_released_ones_use() -> None:
    with torch.device("meta"):
        counts = [sum(one.numel() for one in DyNet(config).parameters()) for config in (dynet(), promptir())]
    assert counts == [16_613_135, 35_376_967]


@pytest.mark.parametrize("prompts", ["released", "every_skip", "decoder"])
@pytest.mark.parametrize("depth", DEPTH)
def test_every_weight_has_a_gradient_at_every_depth(prompts: str, depth: str | Sequence[int]) -> None:
    model = DyNet(ModelConfig.from_dict({"width": 8, "prompts": prompts}))
    F.l1_loss(model(_picture(), depth), torch.zeros(1, 3, 16, 24)).backward()
    idle = [name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()]
    assert not idle


@pytest.mark.parametrize("width", [8, 16, 48])
def test_prompts_are_as_wide_as_released_and_narrower_in_proportion(width: int) -> None:
    config = ModelConfig(width=width)
    widths = [config.prompt_channels(level) for level in (2, 3, 4)]
    if width == 48:
        assert widths == [64, 128, 320]
    assert all(math.isclose(has, of * width / 48, abs_tol=2) for has, of in zip(widths, (64, 128, 320), strict=True))


def test_blocks_computed_again_give_the_same_gradients() -> None:
    plain, frugal = DyNet(NARROW), DyNet(NARROW, recompute=True)
    frugal.load_state_dict(plain.state_dict())
    for model in (plain, frugal):
        model(_picture(), "S").square().mean().backward()
    for one, other in zip(plain.parameters(), frugal.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.slow
def test_another_depth_compiles_nothing_again() -> None:
    model = DyNet(ModelConfig(width=8, refinement=1))
    before = model(_picture(), "L")
    model.compile_blocks(backend="eager")
    model(_picture(), "S")
    with torch.compiler.set_stance("fail_on_recompile"):
        torch.testing.assert_close(model(_picture(), "L"), before)


@pytest.mark.slow
def test_compiled_blocks_know_their_sizes() -> None:
    """Inductor can't order the strides of a block of a later level whose sizes it is left to guess."""
    unknown: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: Sequence[object]) -> Callable[..., object]:
        unknown.extend(one for one in inputs if isinstance(one, torch.SymInt))
        return graph.forward

    model = DyNet(ModelConfig(width=8, refinement=1))
    model.compile_blocks(backend=backend)
    model(_picture(), "S")
    assert not unknown


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize(("height", "width", "mode"), [(13, 30, "reflect"), (17, 16, "reflect"), (3, 9, "replicate")])
def test_sizes_that_8_does_not_divide_are_extended_and_cropped(height: int, width: int, mode: str) -> None:
    model = DyNet(NARROW)
    x = _picture(height, width)
    extended = F.pad(x, (0, -width % 8, 0, -height % 8), mode=mode)
    with torch.no_grad():
        torch.testing.assert_close(model(x, "S"), model(extended, "S")[..., :height, :width])


def test_one_pixel_is_a_picture() -> None:
    assert DyNet(NARROW)(_picture(1, 1), "S").shape == (1, 3, 1, 1)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 1, 16, 16), (1, 16, 16, 3)])
def test_what_is_no_batch_of_pictures_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"give a batch of RGB pictures, \(B, 3, H, W\)"):
        DyNet(NARROW)(torch.zeros(shape))


def test_pictures_of_a_batch_do_not_meet() -> None:
    model = DyNet(NARROW)
    x = _picture(batch=2)
    with torch.no_grad():
        alone = torch.cat([model(one, "S") for one in x.split(1)])
        torch.testing.assert_close(model(x, "S"), alone, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_near_float32() -> None:
    model = DyNet(NARROW)
    x = _picture()
    with torch.no_grad():
        exact = model(x, "S")
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(x, "S")
    assert rough.dtype == torch.float32  # the picture is added in its own type
    assert (rough - exact).norm() / exact.norm() < 0.01


# ---------------------------------------------------------------- configurations


@pytest.mark.parametrize("config", [dynet(), promptir(), ModelConfig(width=16, prompts="every_skip")])
def test_a_configuration_survives_json(config: ModelConfig) -> None:
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_field_of_another_version_is_named() -> None:
    with pytest.raises(ValueError, match="unknown field 'depth'"):
        ModelConfig.from_dict({"depth": "L"})


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"width": 12}, "give a multiple of 8"),
        ({"width": 0}, "give a multiple of 8"),
        ({"heads": [1, 2]}, "give four numbers"),
        ({"expansion": 0.5}, "give 1 to 16"),
        ({"refinement": -1}, "give 0 or more"),
        ({"prompts": "none"}, "choose one of released, every_skip, decoder"),
        ({"unshared": [1, 2, 3, 0]}, 'write "S", "L" or four numbers'),
    ],
)
def test_a_wrong_configuration_names_the_remedy(wrong: dict[str, object], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        ModelConfig.from_dict(wrong)
