"""The pace is that of the last while, pauses before it aside; an end is given only where chunks keep coming."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from curation import pace
from curation.pace import WHILE
from curation.progress import Commit
from curation.records import Reason

BEGIN = 1_800_000_000.0


def commit(ended: float, took: float = 50.0) -> Commit:
    """Of 100 rows, 10 kept; times in seconds since BEGIN."""
    return Commit(
        unit="chunk-00000000",
        reasons={Reason.KEPT: 10, Reason.TOO_SMALL: 90},
        kept_bytes=0,
        bytes_read=5000,
        retry=0,
        began=BEGIN + ended - took,
        ended=BEGIN + ended,
    )


def every(seconds: float, count: int, start: float = 0.0, took: float = 50.0) -> list[Commit]:
    """One commit after the other."""
    return [commit(start + (number + 1) * seconds, took) for number in range(count)]


def rate(commits: Sequence[Commit], *, whole: bool = True) -> float:
    """Chunks a second."""
    found = pace.recent(commits, whole=whole)
    assert found is not None
    return found.per_second(found.chunks)


@pytest.mark.parametrize(("interval", "took"), [(0.5, 5.0), (7.0, 50.0), (60.0, 60.0), (0.5, 3000.0), (60.0, 3000.0)])
def test_a_steady_run_has_the_pace_it_has(interval: float, took: float) -> None:
    """However many chunks are in flight at once (up to 6,000 here), and however long each takes."""
    length = 4 * max(WHILE, 3 * took)
    assert rate(every(interval, int(length / interval), took=took)) == pytest.approx(1 / interval, rel=0.05)


def test_the_first_chunks_are_measured_from_when_work_began() -> None:
    """Four that were done side by side and end together are no burst."""
    together = [commit(60.0 + tenth / 10, took=60.0) for tenth in range(4)]
    assert rate(together) == pytest.approx(4 / 60, rel=0.02)


def test_a_pause_before_the_last_while_is_forgotten() -> None:
    before, after = every(10, 50), every(2, 100, start=100_000.0, took=2.0)
    assert rate([*before, *after]) == pytest.approx(1 / 2, rel=0.02)


def test_of_the_last_parts_alone_the_while_ends_where_they_do() -> None:
    """Else what came before them, and was not read, would count as silence."""
    assert rate(every(1.0, 2000)[-256:], whole=False) == pytest.approx(1.0, rel=0.02)


def test_rows_and_bytes_go_with_their_chunks() -> None:
    found = pace.recent(every(10, 600), whole=True)
    assert found is not None
    assert (found.rows, found.kept, found.bytes_read) == (100 * found.chunks, 10 * found.chunks, 5000 * found.chunks)


@pytest.mark.parametrize("commits", [[], [commit(60.0)], [commit(60.0), commit(90_000.0)]])
def test_of_a_single_chunk_no_pace_can_be_told(commits: list[Commit]) -> None:
    found = pace.recent(commits, whole=True)
    assert found is None
    assert pace.outlook(commits, found, 5, BEGIN + 90_001.0).seconds is None


def test_the_end_is_what_is_left_at_that_pace() -> None:
    commits = every(10, 200)
    ahead = pace.outlook(commits, pace.recent(commits, whole=True), 90, BEGIN + 2005)
    assert ahead.seconds == pytest.approx(900, rel=0.02)
    assert ahead.silent == pytest.approx(5)


def test_after_a_long_silence_no_end_is_given() -> None:
    commits = every(10, 200)
    found = pace.recent(commits, whole=True)
    silences = {silence: pace.outlook(commits, found, 90, BEGIN + 2000 + silence) for silence in (100.0, 720.0)}
    assert silences[100.0].seconds is not None
    assert silences[720.0].seconds is None
    assert silences[720.0].silent == pytest.approx(720)


def test_chunks_that_take_long_are_waited_for_longer() -> None:
    """One core, half an hour a chunk: 40 minutes without one are no news."""
    commits = every(1800, 5, took=1800)
    ahead = pace.outlook(commits, pace.recent(commits, whole=True), 2, BEGIN + 9000 + 2400)
    assert ahead.seconds == pytest.approx(3600, rel=0.02)


def test_a_clock_that_is_behind_gives_no_negative_silence() -> None:
    commits = every(10, 200)
    assert pace.outlook(commits, pace.recent(commits, whole=True), 90, BEGIN).silent == 0


def test_one_chunk_that_was_retried_days_later_does_not_stretch_the_while() -> None:
    commits = [*every(10, 200), commit(2010.0, took=500_000.0)]
    assert rate(commits) == pytest.approx(0.1, rel=0.03)
