"""Many requests at once: in order, no more of them than said, and the first that fails in its turn."""

from __future__ import annotations

import threading
import time

import pyarrow as pa
import pytest

from shards import parquet
from shards.pool import pooled


def test_answers_come_in_order_and_so_many_are_under_way() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def ask(number: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02 if number % 5 else 0.05)
        with lock:
            now -= 1
        return number

    assert list(pooled(ask, range(40), at_once=8)) == list(range(40))
    assert 2 <= most <= 8


def test_no_more_is_asked_for_than_is_taken() -> None:
    asked: list[int] = []
    answers = pooled(lambda number: asked.append(number) or number, range(1000), at_once=4)
    assert [next(answers) for _ in range(3)] == [0, 1, 2]
    assert len(asked) <= 7
    answers.close()


def test_what_fails_is_raised_in_its_turn() -> None:
    def ask(number: int) -> int:
        if number == 3:
            raise FileNotFoundError("three")
        return number

    answers = pooled(ask, range(10), at_once=4)
    assert [next(answers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(FileNotFoundError, match="three"):
        next(answers)


@pytest.mark.parametrize("counts", [[], [0], [3], [5, 0, 7], [4, 4], [1] * 11, [30]])
def test_rows_are_grouped_anew_wherever_tables_ended(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """So a set that grew has the row groups of one made at once."""
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 4)
    total, tables = 0, []
    for count in counts:
        tables.append(pa.table({"n": pa.array(range(total, total + count), pa.int64())}))
        total += count
    groups = list(parquet.regrouped(tables))
    assert [n for group in groups for n in group["n"].to_pylist()] == list(range(total))
    assert [group.num_rows for group in groups] == [min(4, total - at) for at in range(0, total, 4)]
    assert list(parquet.regrouped(groups)) == groups
