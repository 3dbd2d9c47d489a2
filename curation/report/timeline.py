"""Work done over time as counts, in memory that does not grow with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from curation.records import Reason

_MOST_SPANS: Final = 60


class Timeline:
    """Work done over time, in spans of equal length: one second at first, doubling until there are few enough."""

    def __init__(self) -> None:
        self.width = 1.0  # seconds
        self._spans: dict[int, tuple[int, int, int]] = {}  # span since 1970 -> rows, kept, bytes read

    def add(self, part: pa.Table) -> None:
        """The rows of a ledger part that were worked on."""
        columns = {
            "at": pc.floor(pc.divide(part["ended"], self.width)),
            "kept": pc.equal(part["reason"], Reason.KEPT.value),
            "bytes_read": part["bytes_read"],
        }
        sums = [("at", "count"), ("kept", "sum"), ("bytes_read", "sum")]
        for one in pa.table(columns).group_by("at", use_threads=False).aggregate(sums).to_pylist():
            self._put(int(one["at"]), (one["at_count"], one["kept_sum"], one["bytes_read_sum"]))
        self._bound()

    def merge(self, other: Timeline) -> None:
        """Work that was counted elsewhere."""
        while self.width < other.width:
            self._double()
        finer = int(self.width / other.width)
        for at, counts in other._spans.items():
            self._put(at // finer, counts)
        self._bound()

    def _bound(self) -> None:
        while self._spans and max(self._spans) - min(self._spans) >= _MOST_SPANS:
            self._double()

    def _double(self) -> None:
        old, self._spans = self._spans, {}
        self.width *= 2
        for at, counts in old.items():
            self._put(at // 2, counts)

    def _put(self, at: int, counts: tuple[int, int, int]) -> None:
        before = self._spans.get(at, (0, 0, 0))
        self._spans[at] = (before[0] + counts[0], before[1] + counts[1], before[2] + counts[2])

    @property
    def spans(self) -> list[Span]:
        """Every span from the first to the last, those without work too."""
        if not self._spans:
            return []
        between = range(min(self._spans), max(self._spans) + 1)
        found = ((at, self._spans.get(at, (0, 0, 0))) for at in between)
        return [Span(start=at * self.width, rows=r, kept=k, bytes_read=b) for at, (r, k, b) in found]


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """What ended within one span of time that began at `start`, seconds since 1970."""

    start: float
    rows: int
    kept: int
    bytes_read: int
