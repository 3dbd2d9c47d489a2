"""The ledger gives back what was written, and refuses what it did not write."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation import ledger
from curation.records import Link, Reason, Row, Stage
from shards.store import LocalStore

FULL = Row(
    link=Link(position=7, key="a" * 16, url="http://a/ü", source="s", caption="x", declared_width=5, punsafe=0.5),
    width=1024,
    height=2048,
    bytes=10,
    format="jpeg",
    sha256="f" * 64,
    phash="0" * 16,
    scores={"niqe": 4.5, "nima": 5.25},
    stored=True,
    reason=Reason.LOW_QUALITY,
    stage=Stage.JUDGE,
    detail="because",
    attempts=2,
    seconds=1.5,
)
BARE = Row(link=Link(position=8, key="b" * 16, url="", source="s"), reason=Reason.URL_MALFORMED, stage=Stage.LIST)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    ledger.write(store, "chunk-00000000", [FULL, BARE], ("niqe", "nima"), {"recipe": 1})
    assert ledger.read(store, "chunk-00000000") == [FULL, BARE]
    assert ledger.about(store, "chunk-00000000") == {"recipe": 1}
    assert list(ledger.units(store)) == ["chunk-00000000"]


def test_a_metric_without_a_number_is_not_a_metric_that_was_not_computed(tmp_path: Path) -> None:
    rows = [replace(FULL, scores={"niqe": math.nan})]
    [row] = ledger.decode(ledger.encode(rows, ("niqe", "nima"), {}), "x")
    assert math.isnan(row.scores["niqe"])
    assert "nima" not in row.scores


def test_bytes_are_a_function_of_the_rows() -> None:
    assert ledger.encode([FULL, BARE], ("niqe",), {"a": 1}) == ledger.encode([FULL, BARE], ("niqe",), {"a": 1})


def test_any_parquet_reader_sees_the_columns_of_the_contract(tmp_path: Path) -> None:
    ledger.write(LocalStore(tmp_path), "chunk-00000000", [FULL], ("niqe", "nima"), {})
    table = pq.read_table(tmp_path / "ledger" / "chunk-00000000.parquet")
    contract = "key url caption source width height bytes format sha256 phash reason stage detail attempts seconds"
    assert set(contract.split()) <= set(table.column_names)
    assert str(table.schema.field("score_niqe").type) == "float"


def test_a_part_without_one_of_its_columns_is_named(tmp_path: Path) -> None:
    path = _written(tmp_path)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["detail", "ended"]), path)
    with pytest.raises(ValueError, match="has no column detail, ended: remove it"):
        ledger.decode(path.read_bytes(), path.name)


def test_another_schema_and_garbage_are_named(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pq.read_table(_written(tmp_path)).replace_schema_metadata({}), path)
    with pytest.raises(ValueError, match="schema none"):
        ledger.decode(path.read_bytes(), "other.parquet")
    with pytest.raises(ValueError, match="no ledger part"):
        ledger.decode(b"garbage", "x.parquet")


def _written(folder: Path) -> Path:
    ledger.write(LocalStore(folder), "chunk-00000000", [FULL], ("niqe",), {})
    return folder / "ledger" / "chunk-00000000.parquet"


def test_a_metric_name_that_could_not_be_a_column_is_refused() -> None:
    with pytest.raises(ValueError, match="no metric name"):
        ledger.encode([], ("../niqe",), {})
