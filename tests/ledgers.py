"""Stores as a run leaves them on its way, written by code: a plan, and ledger parts with known numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace

from curation import chunks, ledger
from curation.chunks import Plan
from curation.records import Link, Reason, Row, Stage, url_key
from shards.store import Store

BEGIN = 1_800_000_000.0  # seconds since 1970
CHUNK_SECONDS = 60.0  # one chunk after the other


def plan(store: Store, chunk_count: int, size: int) -> Plan:
    """Writes a plan of full chunks, but for the last, which lacks a row."""
    made = Plan(lists=(), source="test", chunk_size=size, rows=chunk_count * size - 1)
    store.write(chunks.PLAN, json.dumps(asdict(made)).encode())
    return made


def rows(number: int, size: int) -> list[Row]:
    """Of ten rows: 1 refused by the list, 2 failed for good on one host, 1 timed out on another, 6 kept on a third.

    They end one after the other within the chunk's minute.
    """
    made = [_row(number * size + at, at % 10) for at in range(size)]
    step = CHUNK_SECONDS / size
    start = BEGIN + number * CHUNK_SECONDS
    return [
        row if row.stage is Stage.LIST else replace(row, ended=start + (at + 1) * step) for at, row in enumerate(made)
    ]


def _row(position: int, kind: int) -> Row:
    host = "gone" if kind in (1, 2) else "slow" if kind == 3 else "good"
    url = f"http://{host}.example:8080/{position}.jpg"
    link = Link(position=position, key=url_key(url), url=url, source="test")
    if kind == 0:
        return Row(link=link, reason=Reason.URL_REPEATED, stage=Stage.LIST)
    if host == "gone":
        return Row(link=link, reason=Reason.HTTP_NOT_FOUND, stage=Stage.FETCH, seconds=0.25, bytes_read=100)
    if host == "slow":
        return Row(link=link, reason=Reason.TIMED_OUT, stage=Stage.FETCH, seconds=30.0)
    return Row(link=link, bytes=1000, bytes_read=1100, seconds=0.5, stored=True)


def commit(store: Store, made: Plan, numbers: Iterable[int]) -> None:
    """Writes these chunks' ledger parts."""
    for number in numbers:
        size = min(made.chunk_size, made.rows - number * made.chunk_size)
        ledger.write(store, chunks.unit_name(number), rows(number, made.chunk_size)[:size], (), {})
