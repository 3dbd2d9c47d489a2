"""What every scorer promises: pixels in, one number per metric out, and no picture that crashes it.

Scorers stand behind this interface because the libraries they wrap come and go: pyiqa has been
PolyForm-Noncommercial since 2026-04, and a faster one may take its place without a word changing elsewhere.

Metrics are computed one by one, in the order asked for, and no further than a picture stands: who is rejected by
the first need not wait for the last. A score is a float32, as the ledger stores it, so that a verdict here and one
from the ledger never differ.

A picture that has no statistics to measure is told from one that a metric merely could not handle:

* `FLAT`: fewer than 1 % of its 32 x 32 blocks have any texture (standard deviation of luma of at least 2 of
  255 grey levels). It is decided before any metric runs, so it does not depend on which metrics were asked for,
  and costs 2 ms per megapixel that has to be looked at: all of a flat picture, some rows of most others.
* `UNSCORABLE`: it has texture, but at least one metric gave no finite number: too small for NIQE's 96 px blocks,
  or a smooth ramp without a single block that NIQE can describe. The detail names each metric and why. The other
  metrics' scores are kept.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from curation.records import Reason, Refusal, Stage

FLAT_BLOCK: Final = 32  # pixels
FLAT_DEVIATION: Final = 2.0  # grey levels of 255: JPEG leaves up to 1 in a constant area
FLAT_SHARE: Final = 0.01  # of the blocks
_LUMA: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One entry per metric computed, finite, or NaN where there is no number; `refusal` is set when any is NaN."""

    scores: dict[str, float]
    refusal: Refusal | None = None


class Unmeasurable(Exception):
    """This picture has no score by this metric; the message says why."""


#: One picture's score by a metric's name. Raises Unmeasurable.
Measure = Callable[[str], float]
#: Whether a picture with this score by this metric may still be kept: what is not need not be scored on.
Stands = Callable[[str, float], bool]


def always(metric: str, score: float) -> bool:
    """A `Stands` that wants every metric computed."""
    return True


class Scorer(ABC):
    """Cheap to construct and to pickle; `setup()` builds the models, once per worker."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """The names of the scores."""

    @abstractmethod
    def setup(self) -> None:
        """Build the models. Raises ValueError where a weight is missing, altered or no weight at all."""

    @abstractmethod
    def measure(self, pixels: np.ndarray, sure: Sequence[str]) -> Measure:
        """What measures this one picture, (H, W, 3) uint8 RGB. The metrics in `sure` will all be asked for."""

    def score(self, pixels: np.ndarray, wanted: Sequence[str] | None = None, stands: Stands = always) -> Scored:
        """Score one picture, (H, W, 3) uint8 RGB, by `wanted` (else all metrics), in order, as long as it `stands`.

        A score that is no number never stands. The result is a function of the pixels, `wanted` and `stands`.
        """
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3, pixels.shape
        names = self.metrics if wanted is None else tuple(wanted)
        flat = refuse_flat(names, pixels)
        sure = names if stands is always else names[:1]
        return flat or in_turn(self.measure(pixels, sure), names, stands)


def _finite(value: float) -> float:
    stored = float(np.float32(value))
    if not math.isfinite(stored):
        raise Unmeasurable(f"gives {value}")
    return stored


def in_turn(measure: Measure, metrics: Sequence[str], stands: Stands) -> Scored:
    """One metric after the other; the rest is left out once one of them says that the picture can't be kept."""
    scores: dict[str, float] = {}
    failures: dict[str, str] = {}
    for metric in metrics:
        try:
            scores[metric] = _finite(measure(metric))
        except Unmeasurable as error:
            scores[metric], failures[metric] = math.nan, str(error)
        if not stands(metric, scores[metric]):
            break
    return scored(scores, failures)


def textured_share(pixels: np.ndarray) -> float:
    """The share of 32 x 32 blocks of (H, W, 3) uint8 RGB whose luma deviates by 2 grey levels or more, in [0, 1].

    Borders that fill no block are left out, unless a side is shorter than a block.
    """
    return max(_growing_share(pixels))


def _growing_share(pixels: np.ndarray) -> Iterator[float]:
    """The same, of the whole picture's blocks, after each strip of them: 22 MP are never held as floats."""
    height, width = pixels.shape[:2]
    block_h, block_w = min(FLAT_BLOCK, height), min(FLAT_BLOCK, width)
    rows, columns = height // block_h, width // block_w
    textured = 0
    for row in range(rows):
        strip = pixels[row * block_h : (row + 1) * block_h, : columns * block_w] @ _LUMA
        blocks = strip.reshape(block_h, columns, block_w)
        textured += int(np.count_nonzero(blocks.std(axis=(0, 2)) >= FLAT_DEVIATION))
        yield textured / (rows * columns)


def refuse_flat(metrics: tuple[str, ...], pixels: np.ndarray) -> Scored | None:
    """A FLAT verdict for a picture of nothing but near-constant areas, None for any other.

    Most pictures show enough texture in their first strips: the rest is then not looked at.
    """
    for share in _growing_share(pixels):
        if share >= FLAT_SHARE:
            return None
    detail = f"texture in {share:.1%} of the picture"
    return Scored(
        scores=dict.fromkeys(metrics, math.nan),
        refusal=Refusal(reason=Reason.FLAT, stage=Stage.SCORE, detail=detail),
    )


def scored(scores: dict[str, float], failures: Mapping[str, str]) -> Scored:
    """Scores with NaN for every metric in `failures` (metric to why); refused as UNSCORABLE where there is one."""
    if not failures:
        return Scored(scores=scores)
    detail = "; ".join(f"{metric}: {why}" for metric, why in failures.items())
    refusal = Refusal(reason=Reason.UNSCORABLE, stage=Stage.SCORE, detail=detail)
    return Scored(scores={**scores, **dict.fromkeys(failures, math.nan)}, refusal=refusal)
