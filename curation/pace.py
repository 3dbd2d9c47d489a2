"""How fast chunks come in, and when the last one will: from the times at which parts were committed, and no more.

A store does not say whether its run still lives. So an end is only reckoned while chunks keep coming as they came;
where nothing came for longer than that, none is given.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from curation.progress import Commit

WHILE: Final = 600.0  # seconds that the recent pace is taken over, or three times what a chunk takes
FEWEST: Final = 2  # chunks within that: of one alone, nothing can be told
_CHUNKS: Final = 3.0
_PATIENCE: Final = 120.0  # seconds of silence that say nothing yet


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """What was committed within `seconds`. A chunk that was retried counts whole."""

    seconds: float
    chunks: float
    rows: float
    kept: float
    bytes_read: float

    def per_second(self, amount: float) -> float:
        return amount / max(self.seconds, 1e-3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """When the chunks that are left will be in: `seconds` from now, None where that can't be told.

    `silent`: seconds since the last commit, None before the first; `patience`: how many of them are no cause for worry.
    """

    left: int
    seconds: float | None
    silent: float | None
    patience: float


def recent(commits: Sequence[Commit], *, whole: bool) -> Pace | None:
    """The pace over the last while before the last commit; None before the second commit of it.

    `whole`: these are all there are; else they are the last ones, and the while ends where they do.
    """
    known = _within(commits)
    if len(known) < FEWEST:
        return None
    end = known[-1].ended
    start = max(end - _length(commits), min(one.began for one in known))
    if not whole:
        start = max(start, min(one.ended for one in commits if one.ended))
    return Pace(
        seconds=end - start,
        chunks=len(known),
        rows=sum(one.rows for one in known),
        kept=sum(one.kept for one in known),
        bytes_read=sum(one.bytes_read for one in known),
    )


def outlook(commits: Sequence[Commit], pace: Pace | None, left: int, now: float) -> Outlook:
    """When `left` chunks more will be in, reckoned at `now` (seconds since 1970) by the recent pace."""
    patience = _patience(commits)
    last = max((one.ended for one in commits), default=0.0)
    silent = max(0.0, now - last) if last else None
    seconds = None
    if pace is not None and silent is not None and silent <= patience and left:
        seconds = left / pace.per_second(pace.chunks)
    return Outlook(left=left, seconds=seconds, silent=silent, patience=patience)


def _within(commits: Sequence[Commit]) -> list[Commit]:
    """Those of the last while, by their end."""
    dated = sorted((one for one in commits if one.ended), key=lambda one: one.ended)
    since = dated[-1].ended - _length(dated) if dated else 0.0
    return [one for one in dated if one.ended > since]


def _length(commits: Sequence[Commit]) -> float:
    return max(WHILE, _CHUNKS * _usual(commits))


def _usual(commits: Sequence[Commit]) -> float:
    """Seconds that a chunk usually takes. The median: a chunk that was retried seems to have taken days."""
    return statistics.median([one.ended - one.began for one in commits if one.ended] or [0.0])


def _patience(commits: Sequence[Commit]) -> float:
    """Three times the longest wait of the last while, or twice what a chunk takes."""
    ends = [one.ended for one in _within(commits)]
    longest = max((after - before for before, after in itertools.pairwise(ends)), default=0.0)
    return max(_PATIENCE, 3 * longest, 2 * _usual(commits))
