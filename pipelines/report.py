"""The report of a ledger that Ray's workers read where there is more than one group of parts."""

from __future__ import annotations

from curation.report import write_report
from pipelines.settling import by_groups
from shards.store import Store


def reported(store: Store) -> str:
    """`curation.report.write_report`, by the cluster's workers."""
    with by_groups(store) as calls:
        return write_report(store, calls)
