"""A pilot's rows: as many as asked for, from everywhere, each as likely as the next, the same by the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from curation import urls
from curation.sample import STRATA, positions


@pytest.mark.parametrize(
    ("rows", "count"), [(1, 1), (10, 7), (99, 98), (101, 100), (5000, 5000), (20_000, 1000), (170_000_000, 5000)]
)
def test_as_many_as_asked_for_none_twice_from_everywhere(rows: int, count: int) -> None:
    found = positions(rows, count, seed=3)
    assert len(found) == count and np.all(np.diff(found) > 0) and found[0] >= 0 and found[-1] < rows
    per_part = np.bincount(found * 10 // rows, minlength=10) if count >= STRATA else np.array([1.0])
    assert per_part.max() <= per_part.min() * 1.2 + 1


def test_every_row_is_as_likely_as_any_other() -> None:
    counts = sum(np.bincount(positions(10, 7, seed), minlength=10) for seed in range(3000))
    assert counts == pytest.approx(np.full(10, 2100), rel=0.06)


def test_the_seed_decides() -> None:
    assert np.array_equal(positions(10_000, 100, 1), positions(10_000, 100, 1))
    assert not np.array_equal(positions(10_000, 100, 1), positions(10_000, 100, 2))


@pytest.mark.parametrize("count", [0, -1, 11])
def test_no_row_or_more_than_there_are_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="--pilot"):
        positions(10, count, 0)


def test_the_rows_are_taken_as_they_stand(tmp_path: Path) -> None:
    """Over two lists of unlike columns, and in CSV."""
    first = pa.table({"URL": [f"http://a/{n}" for n in range(9000)], "WIDTH": list(range(9000)), "other": [0] * 9000})
    pq.write_table(first, tmp_path / "a.parquet")
    pa.csv.write_csv(pa.table({"url": [f"http://b/{n}" for n in range(10)], "width": ["1.5"] * 10}), tmp_path / "b.csv")
    paths = (tmp_path / "a.parquet", tmp_path / "b.csv")
    found = urls.rows_at(paths, np.array([0, 8191, 8192, 8999, 9000, 9009]))
    assert found["url"].to_pylist() == [f"http://a/{n}" for n in (0, 8191, 8192, 8999)] + ["http://b/0", "http://b/9"]
    pq.write_table(found, tmp_path / "sample.parquet")
    links = list(urls.read_links((tmp_path / "sample.parquet",), "x"))
    whole = [link for link in urls.read_links(paths, "x") if link.position in (0, 8191, 8192, 8999, 9000, 9009)]
    assert [(one.url, one.declared_width) for one in links] == [(one.url, one.declared_width) for one in whole]


def test_columns_of_types_that_do_not_agree_are_taken_as_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"URL": ["http://a/1"], "WIDTH": [2048]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"URL": ["http://a/2"], "WIDTH": ["2048"]}), tmp_path / "b.parquet")
    paths = (tmp_path / "a.parquet", tmp_path / "b.parquet")
    pq.write_table(urls.rows_at(paths, np.array([0, 1])), tmp_path / "sample.parquet")
    assert [one.declared_width for one in urls.read_links((tmp_path / "sample.parquet",), "x")] == [2048, 2048]
