"""DyNet (arXiv 2404.02154): one set of weights, and a depth that is chosen at every call.

At each of four levels a transformer block is applied as often as `depth` says; encoder and decoder share the number,
and each has its own block. DyNet-S, DyNet-L and what lies between are the same 16,613,135 weights. The same class with
blocks that are not shared and with prompts in the decoder is PromptIR (arXiv 2306.13090), to compare with.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dynet.blocks import Aligned, Downsample, Pointwise, Prompt, PromptBlock, TransformerBlock, Upsample, full

Depth = tuple[int, int, int, int]
Prompts = Literal["released", "every_skip", "decoder"]

#: How often levels 1 to 4 apply their block.
DEPTHS: Final[Mapping[str, Depth]] = {"S": (2, 3, 3, 4), "L": (4, 6, 6, 8)}
DEEPEST: Final = 32  # applications at a level
MULTIPLE: Final = 8  # of which height and width are: three levels halve them
#: Channels of a prompt at width 48, and its side in pixels, by the level whose features it joins.
PROMPTS: Final = {1: (32, 128), 2: (64, 64), 3: (128, 32), 4: (320, 16)}
_RELEASED_WIDTH: Final = 48
_PROGRAMS: Final = 64  # eight shapes of blocks, each with and without gradients, in float32 and bfloat16


def depth_of(word: str | Sequence[int]) -> Depth:
    """The depth that "S", "L", "3,4,4,6" or four numbers mean. Raises ValueError for anything else."""
    if isinstance(word, str) and word in DEPTHS:
        return DEPTHS[word]
    remedy = f'depth {word!r}: write "S", "L" or four numbers of 1 to {DEEPEST} for levels 1 to 4, such as "3,4,4,6"'
    parts: Sequence[str | int] = word.split(",") if isinstance(word, str) else word
    try:
        one, two, three, four = (int(part) for part in parts if not isinstance(part, float))
    except (TypeError, ValueError) as error:
        raise ValueError(remedy) from error
    if not all(1 <= count <= DEEPEST for count in (one, two, three, four)):
        raise ValueError(remedy)
    return one, two, three, four


def depth_name(depth: Sequence[int]) -> str:
    """What `depth_of` takes: "S", "L" or "3,4,4,6"."""
    named = {known: name for name, known in DEPTHS.items()}
    return named.get(depth_of(depth), ",".join(map(str, depth)))


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """What weights there are. How often they are applied is no part of it."""

    #: Channels of level 1; level n has 2^(n - 1) times as many.
    width: int = 48
    #: Attention heads of levels 1 to 4. Prompt blocks have those of level 3.
    heads: Depth = (1, 2, 4, 8)
    #: Hidden channels of a feed-forward network, as a multiple of its width.
    expansion: float = 2.66
    #: Blocks behind the decoder, each with weights of its own.
    refinement: int = 4
    #: Where prompts join: "released" code, on the latent and the skips of levels 3 and 2; "every_skip", the paper's
    #: wording, on that of level 1 too; "decoder", as PromptIR, on the latent and behind levels 3 and 2 of the decoder.
    prompts: Prompts = "released"
    #: Blocks of levels 1 to 4 when each has weights of its own, as PromptIR's; the depth is then this one only.
    unshared: Depth | None = None

    def __post_init__(self) -> None:
        if len(self.heads) != 4 or min(self.heads) < 1:
            raise ValueError(f"heads {self.heads}: give four numbers of at least 1, for levels 1 to 4")
        multiple = math.lcm(2, *self.heads)
        if self.width < 1 or self.width % multiple:
            raise ValueError(f"width {self.width}: give a multiple of {multiple}, so that the heads divide it")
        if not 1 <= self.expansion <= 16:
            raise ValueError(f"expansion {self.expansion}: give 1 to 16; the released networks have 2.66")
        if self.refinement < 0:
            raise ValueError(f"refinement {self.refinement}: give 0 or more blocks")
        if self.prompts not in get_args(Prompts):
            raise ValueError(f"prompts {self.prompts!r}: choose one of {', '.join(get_args(Prompts))}")
        if self.unshared is not None:
            depth_of(self.unshared)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON or a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ModelConfig:
        """What `to_dict` gave, lists for tuples included. Raises ValueError for a field that there is not."""
        unknown = sorted(fields.keys() - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"unknown field {unknown[0]!r} of a model: it was written by another version")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)

    def dim(self, level: int) -> int:
        """Channels of encoder and decoder at `level`, 1 to 4. Decoder level 1 has twice as many: it isn't reduced."""
        return self.width << (level - 1)

    def prompt_channels(self, level: int) -> int:
        """In proportion to the width, as a multiple of the heads of a prompt block."""
        share = PROMPTS[level][0] * self.width / _RELEASED_WIDTH
        return max(1, round(share / self.heads[2])) * self.heads[2]


def dynet() -> ModelConfig:
    """DyNet as released, for every depth: 16,613,135 weights."""
    return ModelConfig()


def promptir() -> ModelConfig:
    """PromptIR as released, less what it never uses: 35,376,967 weights."""
    return ModelConfig(prompts="decoder", unshared=DEPTHS["L"])


class Level(nn.ModuleList):
    """The blocks of a level: one that is applied again and again, or as many as there are to apply."""

    def forward(self, x: Tensor, count: int, apply: Callable[[TransformerBlock, Tensor, Aligned], Tensor]) -> Tensor:
        blocks = [cast(TransformerBlock, block) for block in self]
        aligned = [block.feed_forward.aligned() for block in blocks]  # once for all applications
        for number in range(count):
            x = apply(blocks[number % len(blocks)], x, aligned[number % len(blocks)])
        return x


class DyNet(nn.Module):
    """Restores (B, 3, H, W) pictures in [0, 1] at a depth of the caller's choice."""

    def __init__(self, config: ModelConfig | None = None, *, recompute: bool = False) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        #: Keeps only what lies between blocks for the backward pass and computes the rest again: a third more time.
        self.recompute = recompute
        dim = config.dim
        self.embed = full(3, config.width)
        self.encoder = nn.ModuleDict({str(level): _level(config, level, dim(level)) for level in (1, 2, 3)})
        self.down = nn.ModuleDict({str(level): Downsample(dim(level)) for level in (1, 2, 3)})
        self.latent = _level(config, 4, dim(4))
        self.prompts = nn.ModuleDict({str(level): _prompt(config, level) for level in _prompted(config)})
        self.up = nn.ModuleDict({str(level): Upsample(dim(min(level + 1, 3))) for level in (3, 2, 1)})
        self.merge = nn.ModuleDict({"3": Pointwise(dim(2) + dim(3), dim(3)), "2": Pointwise(2 * dim(2), dim(2))})
        self.decoder = nn.ModuleDict({str(level): _level(config, level, dim(max(level, 2))) for level in (3, 2, 1)})
        self.refinement = Level(_block(config, dim(2), config.heads[0]) for _ in range(config.refinement))
        self.restore = full(dim(2), 3)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, depth: str | Sequence[int] = "L") -> Tensor:
        """(B, 3, H, W) float in [0, 1] to the same shape, not clamped: x plus what the network finds amiss.

        Where 8 does not divide H or W, the picture is extended below and to the right by its reflection (by its last
        pixels, where it is too small for that), and the result cropped.
        """
        counts = self.checked(depth)
        padded = _padded(x).contiguous(memory_format=torch.channels_last)
        restored = self.restore(self._features(self.embed(padded), counts)) + padded
        return restored[..., : x.shape[2], : x.shape[3]]

    def compile_blocks(self, **options: Any) -> None:
        """Compiles each block by itself with `torch.compile(**options)`, in place.

        A depth is then no new program, and the first step waits for eight small programs and not for a large one.
        """
        from torch._dynamo import config as limits  # takes a second, and only those who compile need it

        # all blocks are one function to it, and past eight programs of a function it would compile no more
        limits.recompile_limit = max(limits.recompile_limit, _PROGRAMS)
        for module in self.modules():
            if isinstance(module, TransformerBlock):
                module.compile(dynamic=False, **options)

    def _features(self, x: Tensor, counts: Depth) -> Tensor:
        """(B, width, H, W) embedded to (B, 2 width, H, W) refined."""
        skips: dict[int, Tensor] = {}
        for level in (1, 2, 3):
            skips[level] = self.encoder[str(level)](x, counts[level - 1], self._apply_block)
            x = self.down[str(level)](skips[level])
        x = self._prompted(4, self.latent(x, counts[3], self._apply_block))
        in_decoder = self.config.prompts == "decoder"
        for level in (3, 2, 1):
            skip = skips.pop(level) if in_decoder else self._prompted(level, skips.pop(level))
            x = torch.cat([self.up[str(level)](x), skip], dim=1)
            x = self.merge[str(level)](x) if level > 1 else x
            x = self.decoder[str(level)](x, counts[level - 1], self._apply_block)
            x = self._prompted(level, x) if in_decoder else x
        return self.refinement(x, len(self.refinement), self._apply_block)

    def _prompted(self, level: int, x: Tensor) -> Tensor:
        name = str(level)
        return self.prompts[name](x) if name in self.prompts else x

    def _apply_block(self, block: TransformerBlock, x: Tensor, aligned: Aligned) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, x, aligned, use_reentrant=False)
        return block(x, aligned)

    def checked(self, word: str | Sequence[int]) -> Depth:
        """The depth that is meant. Raises ValueError for none, or another than that of blocks that are not shared."""
        depth = depth_of(word)
        if self.config.unshared is not None and depth != self.config.unshared:
            only = depth_name(self.config.unshared)
            raise ValueError(f"depth {depth_name(depth)}: the blocks of this network aren't shared, so give {only!r}")
        return depth


def _prompted(config: ModelConfig) -> tuple[int, ...]:
    return (4, 3, 2, 1) if config.prompts == "every_skip" else (4, 3, 2)


def _block(config: ModelConfig, dim: int, heads: int) -> TransformerBlock:
    return TransformerBlock(dim, heads, config.expansion)


def _level(config: ModelConfig, level: int, dim: int) -> Level:
    count = config.unshared[level - 1] if config.unshared else 1
    return Level(_block(config, dim, config.heads[level - 1]) for _ in range(count))


def _prompt(config: ModelConfig, level: int) -> PromptBlock:
    """The features stay as wide as they are, but for the latent's: those leave with the channels of level 3."""
    dim = config.dim(level)
    prompt = Prompt(dim, config.prompt_channels(level), PROMPTS[level][1])
    return PromptBlock(dim, config.dim(min(level, 3)), prompt, config.heads[2], config.expansion)


def _padded(x: Tensor) -> Tensor:
    """(B, 3, H, W) extended so that 8 divides both sides."""
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"shape {tuple(x.shape)}: give a batch of RGB pictures, (B, 3, H, W)")
    height, width = x.shape[2:]
    below, right = -height % MULTIPLE, -width % MULTIPLE
    if not below and not right:
        return x
    return F.pad(x, (0, right, 0, below), mode="reflect" if below < height and right < width else "replicate")
