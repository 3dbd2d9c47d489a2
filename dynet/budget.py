"""The deepest network that a time allows, by the clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from dynet import tiles
from dynet.cost import latency
from dynet.model import DEPTHS, Depth, ModelConfig, depth_name, depth_of
from dynet.restore import Restorer

_RUNGS: Final = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """What a picture takes at a depth."""

    depth: Depth
    #: Of a whole picture, all its tiles.
    seconds: float


def ladder(config: ModelConfig) -> tuple[Depth, ...]:
    """Depths from S to L, evenly, both included: what is shallower or deeper was trained nowhere.

    The only one there is, where blocks are not shared.
    """
    if config.unshared is not None:
        return (config.unshared,)
    low, high = DEPTHS["S"], DEPTHS["L"]
    steps = [number / (_RUNGS - 1) for number in range(_RUNGS)]
    return tuple(
        depth_of([round(one + t * (other - one)) for one, other in zip(low, high, strict=True)]) for t in steps
    )


def measured(
    restorer: Restorer, size: tuple[int, int], tile: int | None, seconds: float, repeats: int = 3
) -> Iterator[Timed]:
    """The ladder from its foot to the first depth that takes longer than `seconds`, or to its top.

    For pictures of height and width `size`, in tiles of `tile` pixels a side where that is not None.
    """
    parts = tiles.tiles(*size, tile) if tile else []
    shown = (min(size[0], tile), min(size[1], tile)) if tile else size
    for depth in ladder(restorer.model.config):
        with restorer.running():
            one = latency(restorer.model, depth, shown, repeats)
        found = Timed(depth=depth, seconds=one * max(len(parts), 1))
        yield found
        if found.seconds > seconds:
            return


def deepest(timed: Sequence[Timed], seconds: float) -> Depth:
    """The last that fits. Raises ValueError where not even the first does."""
    fitting = [one.depth for one in timed if one.seconds <= seconds]
    if not fitting:
        fastest = timed[0]
        raise ValueError(
            f"no depth restores a picture in {1000 * seconds:.0f} ms: the fastest, {depth_name(fastest.depth)}, takes "
            f"{1000 * fastest.seconds:.0f} ms; give a larger --budget-ms"
        )
    return fitting[-1]
