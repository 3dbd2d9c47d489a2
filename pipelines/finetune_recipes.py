"""Named fine-tuning runs: functions that return the dataclass a run is made from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from dynet.folders import DE_TYPES, REPEATS, check_de_types
from dynet.loop import Every
from dynet.metrics import WINDOW
from dynet.model import ModelConfig
from dynet.train import Settings
from pipelines import recipe_files
from pipelines.pretrain_recipes import FREE, check_depths, check_parts


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeats:
    """How often a picture of a task comes in an epoch, each time with another crop."""

    denoise: int = REPEATS["denoise_15"]  # at each level of noise
    derain: int = REPEATS["derain"]
    dehaze: int = REPEATS["dehaze"]

    def __post_init__(self) -> None:
        if min(self.denoise, self.derain, self.dehaze) < 1:
            raise ValueError("repeats: give at least 1 for each task")

    def of(self, de_type: str) -> int:
        """For one of `dynet.folders.DE_TYPES`."""
        return int(getattr(self, de_type.partition("_")[0]))


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneRecipe:
    """All that decides what a fine-tuning run makes of its pairs. Fields of the parts: see their classes.

    `steps`, `warmup` and `cosine` of the settings follow from epochs and pairs (see `settled`): they stay 1, 0 and 0.
    """

    de_types: tuple[str, ...] = DE_TYPES
    epochs: float = 120.0
    warmup_epochs: float = 15.0
    cosine_epochs: float = 150.0  # at which the rate would be 0: a run of 120 ends before
    settings: Settings = field(default_factory=lambda: Settings(steps=1, lr=2e-4, optimizer="adamw", weight_decay=0.01))
    model: ModelConfig = field(default_factory=ModelConfig)
    every: Every = field(default_factory=Every)
    repeats: Repeats = field(default_factory=Repeats)
    batch: int = 32  # pairs of a step, all ranks together
    crop: int = 128  # pixels a side
    seed: int = 0
    denoise_share: float = 0.25  # of a batch, where clean patches come from shards and other pairs from folders
    valid: int = 64  # crops to validate on, where there are pictures for it

    def __post_init__(self) -> None:
        check_de_types(self.de_types)
        # one order, so that a run goes on whichever way round they are given
        object.__setattr__(self, "de_types", tuple(sorted(set(self.de_types), key=DE_TYPES.index)))
        if (self.settings.steps, self.settings.warmup, self.settings.cosine) != (1, 0, 0):
            raise ValueError(
                "settings.steps, .warmup and .cosine follow from the pairs: give epochs, warmup_epochs, cosine_epochs"
            )
        if self.epochs <= 0 or self.warmup_epochs < 0 or self.cosine_epochs <= self.warmup_epochs:
            raise ValueError("epochs must be above 0, and cosine_epochs above warmup_epochs")
        if self.epochs > self.cosine_epochs:
            raise ValueError(
                f"epochs is {self.epochs:g} and the rate is 0 from epoch {self.cosine_epochs:g} on: give cosine_epochs"
                f" of {self.epochs:g} or more"
            )
        if not 0 < self.denoise_share < 1:
            raise ValueError(f"denoise_share is {self.denoise_share}: give a part of the batch, between 0 and 1")
        if self.valid < 1 or self.crop < WINDOW:
            raise ValueError(f"valid is {self.valid} and crop {self.crop}: give at least 1 and {WINDOW}")
        check_parts(self.batch, self.settings)
        check_depths(self.model, self.settings)

    def settled(self, pairs: int) -> Settings:
        """The settings of a run over so many pairs an epoch."""
        of_an_epoch = pairs / self.batch
        return replace(
            self.settings,
            steps=max(1, round(self.epochs * of_an_epoch)),
            warmup=round(self.warmup_epochs * of_an_epoch),
            cosine=max(1 + round(self.warmup_epochs * of_an_epoch), round(self.cosine_epochs * of_an_epoch)),
        )

    @property
    def fixed(self) -> dict[str, Any]:
        """What a run that goes on must have the same, as `part.field` -> plain value."""
        return recipe_files.flat(self, without=(*FREE, "epochs"))


def released() -> FinetuneRecipe:
    """As the released code: AdamW at 2e-4, 15 epochs of warm-up, then a cosine to 150, of which 120 are run.

    Three things are other than there. The rate changes with each step, where theirs stays for an epoch and begins at 0.
    Any tasks can be chosen, where theirs takes the three levels of noise together or not at all. The loss is of what
    the network gives, where theirs cuts that to 0..1 first, and has no gradient beyond.
    """
    return FinetuneRecipe()


def demo() -> FinetuneRecipe:
    """A narrow network, small crops and few epochs: minutes on two CPU cores, to see that all is in its place."""
    return FinetuneRecipe(
        epochs=2,
        warmup_epochs=0.25,
        cosine_epochs=2.5,
        settings=Settings(steps=1, lr=1e-3, optimizer="adamw", weight_decay=0.01),
        model=ModelConfig(width=8),
        every=Every(checkpoint=50, validate=50, pictures=50),
        repeats=Repeats(derain=3),
        batch=4,
        crop=64,
        valid=16,
    )


NAMED: Final = {"released": released, "demo": demo}


def read(word: str) -> FinetuneRecipe:
    """The recipe of this name, or of a JSON file such as a run's own. Raises ValueError naming what is wrong."""
    return recipe_files.read(word, NAMED, FinetuneRecipe)
