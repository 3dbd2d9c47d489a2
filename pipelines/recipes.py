"""Named runs: functions that return the dataclasses a run is made from. A field is documented where it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from curation.chunks import DEFAULT_SIZE
from curation.decode import DEFAULT_MAX_PIXELS
from curation.duplicates import DEFAULT_MAX_DISTANCE
from curation.judge import MetricThreshold, Thresholds
from curation.measure import Scale
from curation.scorers import ENGINES, lower_better

GIGABYTE: Final = 1_000_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterRecipe:
    """All that decides which pictures are kept. Two runs into one store must agree on it."""

    thresholds: Thresholds
    cascade: bool = True  # no further than a picture stands; else whole files, and every metric of every picture
    engine: str = "fused"  # who computes NIQE, BRISQUE and NIMA: this project, or "pyiqa"
    source: str = "laion-hr"  # the name in the ledger and in the paper's Table S1
    chunk_size: int = DEFAULT_SIZE  # URLs in a work unit: what a killed run loses at most, per unit in flight
    max_pixels: int = DEFAULT_MAX_PIXELS  # above: refused from the header, before any memory is taken
    near_duplicate_bits: int = DEFAULT_MAX_DISTANCE  # Hamming distance of two 64-bit perceptual hashes

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"engine is '{self.engine}': give {' or '.join(ENGINES)}")
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size is {self.chunk_size}: give at least 1 URL")
        if not self.source or not all(c.isalnum() or c in "-_." for c in self.source):
            raise ValueError(f"source is '{self.source}': give letters, digits, '-', '_', '.'")
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels is {self.max_pixels}: give at least 1 pixel")

    @property
    def scale(self) -> Scale:
        """What pictures are measured against."""
        return Scale(thresholds=self.thresholds, max_pixels=self.max_pixels, cascade=self.cascade)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that vote, in the order in which they are computed, and of the ledger's columns."""
        return tuple(threshold.metric for threshold in self.thresholds.metrics)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(json.loads(json.dumps(asdict(self))))

    @staticmethod
    def from_dict(entry: Mapping[str, Any]) -> FilterRecipe:
        """The recipe `to_dict` gave. Raises ValueError for a field that is none."""
        known = {field.name for field in fields(FilterRecipe)}
        if unknown := sorted(set(entry) - known):
            raise ValueError(f"the recipe has no field {', '.join(unknown)}: it knows {', '.join(sorted(known))}")
        bounds = dict(entry["thresholds"])
        bounds["metrics"] = tuple(MetricThreshold(**one) for one in bounds.get("metrics", ()))
        return FilterRecipe(**{**entry, "thresholds": Thresholds(**bounds)})


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecipe:
    """How pictures become patches and patches become shards."""

    min_res: int = 1024  # pixels, both sides: smaller pictures give no patch
    size: int = 512  # pixels, a patch's side
    max_flat: float = 0.5  # share of a patch's area: above, it is dropped
    max_shard_bytes: int = GIGABYTE  # a tar is at most this long (one sample alone may be longer)
    split: str = "train"  # shards/<split>-000042.tar

    def __post_init__(self) -> None:
        if self.min_res < 1:
            raise ValueError(f"min_res is {self.min_res}: give at least 1 pixel")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.split):
            raise ValueError(f"split is '{self.split}': give letters, digits, '-', '_', such as train")
        if self.size < 32 or self.size % 32:
            raise ValueError(f"a patch of {self.size} pixels can't be cut losslessly: give a multiple of 32")
        if not 0.0 <= self.max_flat <= 1.0:
            raise ValueError(f"max_flat is {self.max_flat}: a share of the area lies between 0 and 1")
        if self.max_shard_bytes < 1_000_000:
            raise ValueError(f"shards of {self.max_shard_bytes} bytes are too small: give at least 1 MB")


def thresholds(bounds: Mapping[str, float], **rest: Any) -> Thresholds:
    """`bounds`: metric -> threshold; which side passes comes from `curation.scorers.lower_better`."""
    metrics = (MetricThreshold(metric=m, bound=b, lower_better=lower_better(m)) for m, b in bounds.items())
    return Thresholds(metrics=tuple(metrics), **rest)


def laion_hr() -> FilterRecipe:
    """The paper's filter: both sides at least 1024, and NIQE, BRISQUE and NIMA all agree; with three votes beside them.

    The paper gives no thresholds ("empirically defined"). These were set on 56 photographs, 22 bad files large enough
    to be scored, and 18 sorts of degraded copies of the photographs (`LOG.md`, calibration). NIQE and BRISQUE let 41
    photographs pass, and of copies up-scaled to twice their sides 28 %, saved as JPEG 20 and 40 41 %, cut out and
    put on 30 % white 36 %. For these stand `upscaling`, `jpeg_quality` and `uniform_border`: they cost no photograph
    that the two would keep, and leave 0 %. What still passes: watermarks (the list's `pwatermark` is the means), 5 of
    56 with noise of 10 grey levels, 2 of 56 blurred by one pixel, and 6 of the 22 bad files: two grey, a thermal and an
    overexposed one, a game's screenshot, a photograph. The cheapest refusals come first. NIMA's bound is near the
    middle of its scale of 1 to 10, untested, since its weights could not be had.
    """
    bounds = {"jpeg_quality": 60.0, "uniform_border": 0.9, "niqe": 5.5, "brisque": 48.0, "upscaling": 12.0, "nima": 4.5}
    return FilterRecipe(thresholds=thresholds(bounds))


def demo() -> FilterRecipe:
    """The demo's fallback: bounds for models fitted to its own drawn pictures, and no NIMA.

    On those pictures any NIQE bound from 9 to 19 and any BRISQUE bound from 30 to 52 part good from spoilt; these let
    most photographs pass too (of the middles of ten, eight score under 17 and seven under 50).
    """
    return FilterRecipe(thresholds=thresholds({"niqe": 17.0, "brisque": 50.0}), source="demo", chunk_size=12)


def read_recipe(path: Path) -> FilterRecipe:
    """A recipe from a JSON file, as `to_dict` gives it. Raises ValueError naming what is wrong with it."""
    try:
        entry = json.loads(path.read_text())
        return FilterRecipe.from_dict(entry.get("recipe", entry))
    except (OSError, json.JSONDecodeError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no recipe ({error}): see recipe.json in any store for the form") from error
