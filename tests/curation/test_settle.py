"""Settling by columns and in groups, against the rule row by row that it stands for: the same parts, to the byte."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from curation import ledger, settle, verdicts
from curation.duplicates import find_duplicates
from curation.judge import MetricThreshold, Thresholds, is_unscored, judge, missing
from curation.records import Link, Reason, Row, Stage, url_key
from shards.store import LocalStore, Store

BOUNDS = (
    MetricThreshold(metric="niqe", bound=5.5, lower_better=True),
    MetricThreshold(metric="nima", bound=4.5, lower_better=False),
)
OLD = Thresholds(metrics=BOUNDS[:1])
NEW = Thresholds(min_res=800, max_punsafe=0.25, metrics=BOUNDS)


def a_row(position: int, rng: random.Random) -> Row:
    """Anything a ledger may hold, and a little more: nulls, NaN, every reason in every stage, look-alikes."""
    url = f"http://{position}.example/"
    link = Link(
        position=position,
        key=url_key(url),
        url=url,
        source="test",
        declared_width=rng.choice([None, 0, 500, 900, 2000]),
        declared_height=rng.choice([None, 900, 2000]),
        punsafe=rng.choice([None, 0.125, 0.375, float("nan")]),
        pwatermark=rng.choice([None, 0.125, 0.875]),
    )
    known = {"niqe": rng.choice([2.0, 5.5, 9.0, float("nan")]), "nima": rng.choice([3.0, 4.5, 6.0]), "old": 1.0}
    row = Row(
        link=link,
        width=rng.choice([None, 900, 1200, 1200]),
        height=rng.choice([900, 1200, 1200]),
        sha256=f"{rng.randrange(12):064x}",
        phash=f"{rng.randrange(1 << 16) << 20:016x}",
        scores={name: known[name] for name in sorted(known) if rng.random() < 0.85},
        stored=rng.random() < 0.8,
        reason=rng.choice([reason for reason in Reason if reason is not Reason.KEPT]),
        stage=rng.choice(list(Stage)),
        detail=rng.choice(["", "a"]),
    )
    kind = rng.random()
    if kind < 0.3:
        return row
    kept = Row(**{**{n: getattr(row, n) for n in Row.__slots__}, "reason": Reason.KEPT, "stage": Stage.KEPT})
    return judge(kept, OLD) if kind < 0.8 else kept


def a_ledger(folder: Path, seed: int, parts: int = 7, size: int = 40) -> Store:
    rng, store = random.Random(seed), LocalStore(folder)
    for number in range(parts):
        rows = [a_row(number * size + at, rng) for at in range(size)]
        ledger.write(store, f"chunk-{number:08d}", rows, ("niqe", "nima"), {"made": "before"})
    return store


def settled_row_by_row(store: Store, thresholds: Thresholds, bits: int) -> tuple[dict[str, list[Row]], settle.Changes]:
    """The rule as it reads: judge every row, then go through what is kept in list order."""
    before = {unit: ledger.read(store, unit) for unit in ledger.units(store)}
    kept = [(row, unit) for unit, rows in before.items() for row in rows if judge(row, thresholds).was_kept]
    kept.sort(key=lambda one: one[0].link.position)
    found = find_duplicates([row.sha256 or "" for row, _ in kept], [row.phash or "" for row, _ in kept], bits)
    ends = {
        row.link.position: (match.reason, f"of {kept[match.of][0].link.key} in {kept[match.of][1]}")
        for (row, _), match in zip(kept, found, strict=True)
        if match is not None
    }
    moves: Counter[tuple[Reason, Reason]] = Counter()
    unscored: Counter[tuple[tuple[str, ...], bool]] = Counter()
    after: dict[str, list[Row]] = {}
    for unit, rows in before.items():
        after[unit] = []
        for old in rows:
            row = judge(old, thresholds)
            if row.reason is Reason.KEPT and row.link.position in ends:
                reason, detail = ends[row.link.position]
                values = {name: getattr(row, name) for name in Row.__slots__}
                row = Row(**{**values, "reason": reason, "stage": Stage.DUPLICATES, "detail": detail})
            moves[old.reason, row.reason] += 1
            if is_unscored(row):
                unscored[missing(row, thresholds), row.stored] += 1
            after[unit].append(row)
    return after, settle.Changes(moves=moves, unscored=unscored)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("metrics", [("niqe", "nima"), ("nima",)])
def test_the_same_parts_as_row_by_row(
    tmp_path: Path, seed: int, metrics: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_ledger(tmp_path, seed)
    rows, changes = settled_row_by_row(store, NEW, 4)
    monkeypatch.setattr(settle, "GROUP", 3)
    assert settle.settle(store, NEW, 4, metrics, {"made": "now"}, write=False) == changes
    assert settle.settle(store, NEW, 4, metrics, {"made": "now"}) == changes
    assert changes.funnel[Reason.DUPLICATE_EXACT] + changes.funnel[Reason.DUPLICATE_NEAR] and changes.unscored
    for unit, wanted in rows.items():
        assert store.read(ledger.part_name(unit)) == ledger.encode(wanted, metrics, {"made": "now"})


def test_verdicts_by_column_are_those_of_each_row(tmp_path: Path) -> None:
    store = a_ledger(tmp_path, seed=9, parts=1, size=2000)
    [(unit, data)] = ledger.bodies(store, ["chunk-00000000"])
    part = ledger.decode_table(data, unit)
    for thresholds in (OLD, NEW, Thresholds()):
        rows = ledger.rows_of(part)
        expected = [judge(row, thresholds).was_kept for row in rows]
        assert verdicts.was_kept(part, thresholds).tolist() == expected
        assert 20 < sum(expected) < 1980
        can_change = verdicts.open_rows(part)
        assert all(judge(row, thresholds) is row for row, is_open in zip(rows, can_change, strict=True) if not is_open)


def test_groups_need_nothing_of_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Done in any order, elsewhere, a second time: the same."""
    monkeypatch.setattr(settle, "GROUP", 2)
    one, other = a_ledger(tmp_path / "a", 5), a_ledger(tmp_path / "b", 5)
    settle.settle(one, NEW, 4, ("niqe",), {})

    def backwards(function, calls):  # noqa: ANN001, ANN202
        return iter([function(*call) for call in reversed([*calls, *calls])][::-1][: len(calls)])

    settle.settle(other, NEW, 4, ("niqe",), {}, spread=backwards)
    for unit in ledger.units(one):
        assert one.read(ledger.part_name(unit)) == other.read(ledger.part_name(unit))


def test_a_kept_row_without_a_perceptual_hash_is_refused_by_name(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    link = Link(position=0, key=url_key("a"), url="a", source="test")
    ledger.write(store, "chunk-00000000", [Row(link=link, width=2000, height=2000, stored=True)], (), {})
    with pytest.raises(ValueError, match="is no perceptual hash"):
        settle.settle(store, Thresholds(), 4, (), {})
    assert np.array_equal(settle.settle(LocalStore(tmp_path / "none"), Thresholds(), 4, (), {}).moves, Counter())
