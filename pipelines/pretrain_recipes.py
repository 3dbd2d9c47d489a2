"""Named pre-training runs: functions that return the dataclass a run is made from, and how one is read from a file.

Stands beside `pipelines.recipes`, which has those of curation and needs no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from dynet.degrade import Degradation
from dynet.loop import Every
from dynet.metrics import WINDOW
from dynet.model import ModelConfig, depth_name, depth_of
from dynet.train import Settings
from shards.order import DEFAULT_WINDOW
from shards.sequence import Plan

#: What a run may go on with another value of: it changes when or how something is computed, or how long.
_FREE: Final = frozenset({"steps", "lr", "compile", "accumulate", "recompute"})
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
        if self.batch < 1 or self.batch % self.settings.accumulate:
            raise ValueError(
                f"a batch of {self.batch} can't be cut into {self.settings.accumulate} parts: give a multiple of it"
            )
        if self.held_out and self.crop < WINDOW:
            raise ValueError(f"crop is {self.crop}: SSIM takes {WINDOW} pixels, so give as many, or held_out=[]")
        only = self.model.unshared
        if only and any(depth_of(word) != only for word in self.settings.depths):
            raise ValueError(
                f"blocks of model.unshared have one depth: give settings.depths={json.dumps([depth_name(only)])}"
            )

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
        entry = self.to_dict()
        flat = {name: value for name, value in entry.items() if not isinstance(value, dict)}
        for part in ("settings", "model", "degradation"):
            flat |= {f"{part}.{name}": value for name, value in entry[part].items() if name not in _FREE}
        return flat

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(json.loads(json.dumps(asdict(self))))

    @staticmethod
    def from_dict(entry: Mapping[str, Any]) -> PretrainRecipe:
        """The recipe `to_dict` gave; what is left out is the default. Raises ValueError naming a field that is none."""
        parts = {"settings": Settings, "model": ModelConfig, "degradation": Degradation, "every": Every}
        known = {name: value for name, value in entry.items() if name not in parts}
        made = {name: _made(kind, entry[name], name) for name, kind in parts.items() if name in entry}
        recipe: PretrainRecipe = _made(PretrainRecipe, {**known, **made}, "the recipe")
        return recipe


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
    """The recipe of this name, or of a JSON file as `to_dict` gives it. Raises ValueError naming what is wrong."""
    if word in NAMED:
        return NAMED[word]()
    try:
        return PretrainRecipe.from_dict(json.loads(Path(word).read_text()))
    except FileNotFoundError as error:
        raise ValueError(f"no recipe {word}: give {', '.join(NAMED)} or a JSON file") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{word} is no recipe ({error}): recipe.json of any run shows the form") from error


def changed(recipe: PretrainRecipe, words: Iterable[str]) -> PretrainRecipe:
    """The recipe with other values: `batch=64`, `settings.lr=2e-4`, `settings.depths=["S"]`.

    Values are JSON, or else words. Raises ValueError for a field that is none, or a value that can't be.
    """
    entry = recipe.to_dict()
    for word in words:
        path, mark, text = word.partition("=")
        if not mark:
            raise ValueError(f"'{word}': write FIELD=VALUE, such as settings.lr=2e-4")
        *parts, name = path.split(".")
        part = entry
        for one in parts:
            part = part.get(one, {}) if isinstance(part, dict) else {}
        if not isinstance(part, dict) or name not in part or isinstance(part[name], dict):
            raise ValueError(f"the recipe has no field {path}: it has {', '.join(_names(entry))}")
        part[name] = _value(text)
    return PretrainRecipe.from_dict(entry)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _names(entry: Mapping[str, Any], before: str = "") -> Iterable[str]:
    for name, value in entry.items():
        if isinstance(value, dict):
            yield from _names(value, f"{before}{name}.")
        else:
            yield before + name


def _made(kind: Any, entry: Mapping[str, Any], what: str) -> Any:
    """`kind` from plain values, its lists as tuples. Raises ValueError for an unknown field or a wrong type."""
    known = {one.name: one for one in fields(kind)}
    if unknown := sorted(set(entry) - set(known)):
        raise ValueError(f"{what} has no field {', '.join(unknown)}: it knows {', '.join(known)}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    kinds = get_type_hints(kind)
    for name, value in values.items():
        if not _fits(value, kinds[name]):
            raise ValueError(f"{what}: a value of the wrong kind ({name} is {value!r}, and not {known[name].type})")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{what}: a value of the wrong kind ({error})") from error


def _fits(value: Any, kind: Any) -> bool:
    """Whether a field that is annotated with `kind` can have it; a number must be finite."""
    parts = get_args(kind)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if get_origin(kind) is tuple:
        of = parts[:1] * len(value) if isinstance(value, tuple) and parts[-1] is ... else parts
        return isinstance(value, tuple) and len(value) == len(of) and all(map(_fits, value, of))
    if get_origin(kind) is Literal:
        return value in parts
    if parts:
        return any(_fits(value, part) for part in parts)
    return type(value) is kind
