"""Named pre-training runs: functions that return the dataclass a run is made from.

Stands beside `pipelines.recipes`, which has those of curation and needs no torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dynet.degrade import Degradation
from dynet.loop import Every
from dynet.metrics import WINDOW
from dynet.model import ModelConfig, depth_name, depth_of
from dynet.train import Settings
from pipelines import recipe_files
from shards.order import DEFAULT_WINDOW
from shards.sequence import Plan

#: What a run may go on with another value of: it changes when or how something is computed, or how long.
FREE: Final = frozenset(
    {"every", *(f"settings.{one}" for one in ("steps", "lr", "compile", "accumulate", "recompute"))}
)
_VALID_SEED: Final = 1  # added to the run's: validation draws its own crops and degradations


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainRecipe:
    """All that decides what a pre-training run makes of a set. Fields of the parts: see their classes."""

    settings: Settings = field(default_factory=lambda: Settings(steps=1_000_000))
    model: ModelConfig = field(default_factory=ModelConfig)
    degradation: Degradation = field(default_factory=Degradation)
    every: Every = field(default_factory=Every)
    batch: int = 32  # samples of a step, all ranks together
    crop: int = 128  # pixels a side
    seed: int = 0
    window: int = DEFAULT_WINDOW  # samples among which is shuffled
    held_out: tuple[int, ...] = (0,)  # shards that are not trained on, for validation; none: no validation
    valid: int = 64  # samples of them to validate on

    def __post_init__(self) -> None:
        if self.valid < 1:
            raise ValueError(f"valid is {self.valid}: give at least 1 sample, or held_out=[] for no validation")
        check_parts(self.batch, self.settings)
        if self.held_out and self.crop < WINDOW:
            raise ValueError(f"crop is {self.crop}: SSIM takes {WINDOW} pixels, so give as many, or held_out=[]")
        check_depths(self.model, self.settings)

    @property
    def plan(self) -> Plan:
        """Of what is trained on."""
        return Plan(batch=self.batch, seed=self.seed, window=self.window, crop=self.crop, held_out=self.held_out)

    @property
    def valid_plan(self) -> Plan:
        """Of what is validated on."""
        return replace(self.plan, batch=min(self.batch, self.valid), seed=self.seed + _VALID_SEED, part="valid")

    @property
    def fixed(self) -> dict[str, Any]:
        """What a run that goes on must have the same, as `part.field` -> plain value."""
        return recipe_files.flat(self, without=FREE)


def check_parts(batch: int, settings: Settings) -> None:
    """Raises ValueError for a batch that `accumulate` doesn't divide."""
    if batch < 1 or batch % settings.accumulate:
        raise ValueError(f"a batch of {batch} can't be cut into {settings.accumulate} parts: give a multiple of it")


def check_depths(model: ModelConfig, settings: Settings) -> None:
    """Raises ValueError for a depth that the network doesn't have."""
    only = model.unshared
    if only and any(depth_of(word) != only for word in settings.depths):
        raise ValueError(
            f"blocks of model.unshared have one depth: give settings.depths={json.dumps([depth_name(only)])}"
        )


def paper() -> PretrainRecipe:
    """The paper's pre-training: L1, Adam (0.9, 0.999) at 1e-4, batch 32 of 128² crops, S or L at each of 1 M steps."""
    return PretrainRecipe()


def demo() -> PretrainRecipe:
    """About a minute on two CPU cores: a network of a sixth of the width, small crops and batches, a higher rate."""
    return PretrainRecipe(
        settings=Settings(steps=160, lr=1e-3),
        model=ModelConfig(width=8),
        every=Every(checkpoint=40, validate=80, pictures=80),
        batch=4,
        crop=64,
        held_out=(1,),
        valid=16,
    )


NAMED: Final = {"paper": paper, "demo": demo}


def read(word: str) -> PretrainRecipe:
    """The recipe of this name, or of a JSON file such as a run's own. Raises ValueError naming what is wrong."""
    return recipe_files.read(word, NAMED, PretrainRecipe)
