"""What a unit took, and how far the units of a run are.

A unit tells `Progress` while it works, and gives a `Done` when it ends.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import ray

from curation.records import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A unit's end, and what it took. What a try took that was killed is lost with it, as is a killed batch's time."""

    unit: str
    reasons: Counter[str]  # of all its rows, those of an earlier run included
    #: "unit": from begin to end. "fetch": what its downloads waited, all added up. "score": of the cores that scored,
    #: models built before; "gpu": those of them with a share of a GPU. "store": reads and writes, but of refused
    #: pictures to be shown. "cpu": of a core, by the unit itself: what downloads, tars and the ledger compute.
    seconds: Mapping[str, float]
    scored: int  # pictures that were decoded and scored, or refused by that
    bytes_read: int
    bytes_kept: int  # of originals new to the store
    node: str = ""  # Ray's name of it, where the unit ended
    tries: int = 1  # how often it was begun in this run, by what `Progress` knows


@dataclass(slots=True)
class Tally:
    """What becomes a `Done`, as it grows."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    scored: int = 0
    bytes_read: int = 0
    batches: int = 0  # being scored now, or waiting for it

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds what the block takes."""
        begun = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - begun

    def done(self, unit: str, rows: Sequence[Row], kept: Mapping[str, Path]) -> Done:
        """At the end: the unit's rows, and the files of the pictures that were kept, by key."""
        return Done(
            unit=unit,
            reasons=Counter(row.reason.value for row in rows),
            seconds={stage: self.seconds[stage] for stage in ("unit", "fetch", "score", "gpu", "store", "cpu")},
            scored=self.scored,
            bytes_read=self.bytes_read,
            bytes_kept=sum(row.bytes or 0 for row in rows if row.link.key in kept),
            node=ray.get_runtime_context().get_node_id(),
        )


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Progress:
    """Rows done per unit, told by the units, asked by the driver. A unit that starts again starts from nothing.

    So does this: where its process dies, the numbers on the screen fall back and the job goes on.
    """

    def __init__(self) -> None:
        self._units: dict[str, Counter[str]] = {}
        self._sum: Counter[str] = Counter()  # of 170,000 units: to add them up anew takes half a second each time
        self._begun: Counter[str] = Counter()
        self._batches: dict[str, int] = {}  # of units that have some

    def begin(self, unit: str) -> None:
        self._begun[unit] += 1

    def tell(self, unit: str, reasons: Counter[str], batches: int = 0) -> None:
        self._sum.subtract(self._units.get(unit, {}))
        self._sum.update(reasons)
        self._units[unit] = reasons
        self._batches.pop(unit, None)
        if batches:
            self._batches[unit] = batches

    def land(self, unit: str, reasons: Counter[str]) -> int:
        """The driver has it. How often it was begun: 1 also where the first try was told to one that died."""
        self.tell(unit, reasons)
        return self._begun.pop(unit, 1)

    def batches(self) -> int:
        """Those that wait for scores in all units."""
        return sum(self._batches.values())

    def so_far(self) -> Counter[str]:
        return +self._sum
