"""What a run of any length asks of its driver, its store and the hosts, against what these can give.

The figures a row, a picture or a patch were measured on generated ledgers and sets on 2026-11-22 (`LOG.md`): resident
anonymous memory at its peak, and bytes of files. Where one was not measured its comment says what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from curation.pilot import Pilot
from curation.settle import GROUP, TASKS
from curation.simulation import Cluster, Simulated
from shards.pool import AT_ONCE

DRIVER_BASE: Final = 350e6  # bytes: modules and Ray's connection; the driver's peak on short lists is twice that
PLAN_ROW: Final = 4.9  # bytes a URL while repeats are looked for (2e7 keys)
SETTLE_TABLES: Final = 252e6  # bytes: 15 tables of two million buckets, begins and ends; computed
SETTLE_KEPT: Final = 150.0  # bytes a kept row while duplicates are found (3.4e5 rows, the tables apart)
CUT_PATCH: Final = 67.0  # bytes a patch while shards are packed (8e6 patches)
UNIT: Final = 400.0  # bytes a chunk: its name in a list and two sets; computed

INDEX_SAMPLE: Final = 51.0  # bytes a patch of index.parquet (15,000 rows)
METADATA_PICTURE: Final = 93.0  # bytes a picture of metadata.parquet (1,949 rows); captions longer than 60 add to it
METADATA_GROUP: Final = 2068.0  # bytes of its footer a row group, 24 columns
MANIFEST_SHARD: Final = 185.0  # bytes a shard of manifest.json
SHARD_BYTES: Final = 1e9  # `ShardRecipe.max_shard_bytes`

SETTLE_SECONDS: Final = 28e-6  # of a core a row, both passes together (1e5 rows)
LIST_PAGE: Final = 1000  # names a request, by S3's documentation
S3_PUTS: Final = 3500.0  # a second and prefix, by S3's documentation; GETs likewise
S3_GETS: Final = 5500.0
REQUEST_SECONDS: Final = 0.03  # of one to S3 from the same region; assumed


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """Something that is asked for, and what there is of it."""

    what: str
    value: float
    bound: float
    unit: str

    @property
    def share(self) -> float:
        """Of the bound; above 1 it breaks."""
        return self.value / self.bound


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Bytes of what a run leaves, and of what its driver holds at its peak."""

    ledger: float
    index: float
    metadata: float
    manifest: float
    driver: float


def sizes(pilot: Pilot, run: Simulated) -> Sizes:
    """What comes of the run, from the pilot's bytes a row and the measured ones above."""
    shards = max(1.0, run.patches * pilot.bytes_shards / max(1, pilot.patches) / SHARD_BYTES)
    units = UNIT * run.chunks
    planning = PLAN_ROW * run.rows
    settling = SETTLE_KEPT * run.kept + min(SETTLE_TABLES, 64.0 * 15 * max(1, run.kept))
    return Sizes(
        ledger=pilot.bytes_ledger / pilot.rows * run.rows,
        index=INDEX_SAMPLE * run.patches,
        metadata=METADATA_PICTURE * run.kept + METADATA_GROUP * (1 + run.kept // 8192),
        manifest=MANIFEST_SHARD * shards,
        driver=DRIVER_BASE + units + max(planning, settling, CUT_PATCH * run.patches),
    )


def put_rate(run: Simulated) -> float:
    """PUTs a second while URLs are downloaded: originals, thumbnails and ledger part of each chunk."""
    return 3 * run.chunks / max(run.seconds, 1e-9)


def get_rate(run: Simulated, cluster: Cluster) -> float:
    """GETs a second while the ledger is settled: what the pools ask for at most, or the cores can use."""
    cores = cluster.nodes * cluster.cores
    tasks = min(cores, TASKS, -(-run.chunks // GROUP))
    used = tasks / (SETTLE_SECONDS / 2 * cluster.chunk_size)
    return min(tasks * AT_ONCE / REQUEST_SECONDS, used)


def demands(pilot: Pilot, run: Simulated, cluster: Cluster, *, driver_bytes: float, days: float) -> list[Demand]:
    """All that could break, that which is nearest to it first."""
    found = sizes(pilot, run)
    asked = [
        Demand(what="driver memory", value=found.driver, bound=driver_bytes, unit="B"),
        Demand(what="S3 PUTs of a prefix", value=put_rate(run), bound=S3_PUTS, unit="/s"),
        Demand(what="S3 GETs of a prefix, settling", value=get_rate(run, cluster), bound=S3_GETS, unit="/s"),
        Demand(what="days of downloads", value=run.seconds / 86400, bound=days, unit="d"),
    ]
    return sorted(asked, key=lambda one: -one.share)


def broken(asked: Sequence[Demand]) -> Demand | None:
    """What breaks first, None where nothing does."""
    return next((one for one in asked if one.share > 1), None)
