"""How many requests a run makes of S3, by kind: counted on small runs, and told from chunks, shards and bytes.

The factors are counts, not guesses: `tests/pipelines/test_s3_requests.py` runs the flow on an S3 server and counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from curation.forecast import Interval, exactly

PART: Final = 8 << 20  # bytes: boto3 sends larger objects in parts of this size
PAGE: Final = 1000  # names in an answer to LIST
#: Of a chunk, its originals' and patches' parts apart: the link chunk, originals, the ledger; cutting's three files.
PUTS_A_CHUNK: Final = 6.0
#: HEAD included. The unit; settling; cutting and packing; the report.
GETS_A_CHUNK: Final = 21.0
#: Listings from begin to end, as if all were of the ledger.
LISTS: Final = 13.0
PUTS_A_SHARD: Final = 1.0
GETS_A_SHARD: Final = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Requests:
    """Requests of a whole run, retries aside. `get` has HEAD too."""

    put: Interval
    get: Interval
    list: Interval


def requests(*, chunks: int, shards: Interval, bytes_kept: Interval, bytes_shards: Interval) -> Requests:
    """Of a run in `chunks` chunks that ends in `shards` shards."""
    kept, cut = bytes_kept.times(1 / chunks), bytes_shards.times(1 / chunks)
    more = _parts(kept).plus(_parts(cut)).times(chunks)  # originals, patches
    in_shards = bytes_shards.times(1 / PART)
    return Requests(
        put=exactly(PUTS_A_CHUNK * chunks).plus(more).plus(shards.times(PUTS_A_SHARD)).plus(in_shards),
        get=exactly(GETS_A_CHUNK * chunks).plus(shards.times(GETS_A_SHARD)),
        list=exactly(LISTS * math.ceil(chunks / PAGE)),
    )


def _parts(size: Interval) -> Interval:
    """Requests beyond the first that an object of this size takes: begin, parts, end."""
    return Interval(low=_beyond(size.low), mid=_beyond(size.mid), high=_beyond(size.high))


def _beyond(size: float) -> float:
    return math.ceil(size / PART) + 1.0 if size >= PART else 0.0
