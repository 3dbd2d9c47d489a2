"""Settling on Ray where there is more than one group of parts; a small ledger is settled here, without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from curation import ledger
from curation.chunks import Spread, in_turn
from curation.judge import Thresholds
from curation.settle import GROUP, TASKS, Changes, settle
from pipelines.cluster import connected, spread
from shards.store import Store


def settled(
    store: Store,
    thresholds: Thresholds,
    max_distance: int,
    metrics: tuple[str, ...],
    about: Mapping[str, Any],
    *,
    write: bool = True,
) -> Changes:
    """`curation.settle.settle`, by the cluster's workers."""
    with by_groups(store) as calls:
        return settle(store, thresholds, max_distance, metrics, about, write=write, spread=calls)


@contextmanager
def by_groups(store: Store) -> Iterator[Spread]:
    """What calls a function with each group of the ledger's parts: the cluster, where there is more than one."""
    if len(list(islice(ledger.units(store), GROUP + 1))) <= GROUP:
        yield in_turn
        return
    with connected():
        yield partial(spread, most=TASKS)
