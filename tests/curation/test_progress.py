"""What is read of a ledger to tell how far it is, what of it is sampled, and how much memory that takes."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from curation import chunks, ledger, progress
from curation.progress import ALL, LAST, MOST_LAST, SPREAD
from curation.records import Reason, Row
from curation.report.tally import Hosts, host_names
from shards.store import LocalStore, Store
from tests import ledgers


def seen(store: Store, *, full: bool = False) -> progress.Seen:
    return progress.read(store, progress.choose(list(ledger.units(store)), in_flight=0, full=full))


def test_the_sums_are_those_of_the_rows(store: Store) -> None:
    plan = ledgers.plan(store, 3, 40)
    ledgers.commit(store, plan, [0, 1, 2])
    rows = [row for unit in plan.units() for row in ledger.read(store, unit)]
    counts = seen(store).counts
    assert counts.rows == len(rows) == plan.rows
    assert counts.reasons[Reason.KEPT] == sum(row.reason is Reason.KEPT for row in rows)
    assert counts.bytes_read == sum(row.bytes_read for row in rows)
    assert counts.kept_bytes == sum(row.bytes or 0 for row in rows if row.reason is Reason.KEPT)
    assert (counts.retry_rows, counts.retry_parts) == (sum(row.reason is Reason.TIMED_OUT for row in rows), 3)


def test_hosts_are_those_that_the_report_would_name(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    urls = [
        "HTTP://Good.Example/a",
        "https://me:x@good.example:1/b",
        "http://[::1]:80/c",
        "http://1.2.3.4?d#e",
        "nothing",
    ]
    rows = [
        replace(row, link=replace(row.link, url=url)) for row, url in zip(ledgers.rows(0, 9)[4:], urls, strict=True)
    ]
    ledger.write(store, chunks.unit_name(0), rows, (), {})
    reported = Hosts()
    part = ledger.table(rows, ())
    reported.add(host_names(part), part)
    names = {name.strip("[]"): host for name, host in seen(store).counts.hosts.slowest(9)}
    assert names == dict(reported.slowest(9))


def test_a_row_that_nobody_looked_at_is_no_failure_of_its_host(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    row: Row = replace(ledgers.rows(0, 2)[1], reason=Reason.NOT_MEASURED)
    ledger.write(store, chunks.unit_name(0), [row], (), {})
    assert seen(store).counts.hosts.slowest(9) == []


def test_what_waits_for_a_retry_is_what_a_retry_takes(tmp_path: Path) -> None:
    """A row whose original is here waits for scores alone, and no download."""
    store = LocalStore(tmp_path)
    row = replace(ledgers.rows(0, 4)[3], reason=Reason.NOT_MEASURED)
    ledger.write(store, chunks.unit_name(0), [row, replace(row, stored=True)], (), {})
    assert seen(store).counts.retry_rows == 1


def test_a_part_that_cannot_be_read_is_named_and_the_others_count(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    plan = ledgers.plan(store, 2, 10)
    ledgers.commit(store, plan, [0])
    store.write(ledger.part_name(chunks.unit_name(1)), b"no Parquet")
    found = seen(store)
    assert list(found.broken) == ["ledger/chunk-00000001.parquet"]
    assert found.counts.rows == 10


@pytest.mark.parametrize("count", [0, 1, ALL])
def test_few_parts_are_all_read(count: int) -> None:
    units = [chunks.unit_name(number) for number in range(count)]
    choice = progress.choose(units, in_flight=0, full=False)
    assert choice.whole
    assert choice.spread == choice.last == tuple(units)


@pytest.mark.parametrize("count", [ALL + 1, 17_000, 100_000])
def test_of_many_the_ends_an_even_spread_and_the_last_are_read(count: int) -> None:
    units = [chunks.unit_name(number) for number in range(count)]
    choice = progress.choose(units, in_flight=0, full=False)
    places = [units.index(unit) for unit in choice.spread]
    steps = {after - before for before, after in itertools.pairwise(places)}
    assert not choice.whole
    assert (places[0], places[-1], len(set(places))) == (0, count - 1, SPREAD)
    assert max(steps) - min(steps) <= 1
    assert choice.last == tuple(units[-LAST:])
    assert progress.choose(units, in_flight=0, full=True).spread == tuple(units)


def test_the_more_is_worked_on_the_more_of_the_last_are_read() -> None:
    units = [chunks.unit_name(number) for number in range(17_000)]
    lengths = [len(progress.choose(units, in_flight=flying, full=False).last) for flying in (10, 100, 10_000)]
    assert lengths == [LAST, 400, MOST_LAST]


def test_memory_does_not_grow_with_parts(tmp_path: Path) -> None:
    """All parts of 2,000 rows each: 60 of them take hardly more than 10, where their rows would take six times that."""
    store = LocalStore(tmp_path)
    plan = ledgers.plan(store, 60, 2000)
    ledgers.commit(store, plan, [0])
    part = store.read(ledger.part_name(chunks.unit_name(0)))
    peaks = []
    for count in (10, 60):
        for number in range(count):
            store.write(ledger.part_name(chunks.unit_name(number)), part)
        peaks.append(_peak(store))
    assert peaks[1] < 1.5 * peaks[0]


def _peak(store: Store) -> int:
    """Bytes: the parts are read into Python's memory."""
    tracemalloc.start()
    seen(store, full=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak
