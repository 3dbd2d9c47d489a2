"""What `bench.py stream` starts for a cold start: one stream in a process of its own, and what that holds."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Final

from shards.stream import Cache, Plan, Stream

BATCH: Final = 32
CROP: Final = 128
_MORE: Final = 50  # batches


def main(root: str, endpoint_url: str, cache: str) -> None:
    """Prints seconds to the first batch, and peak bytes before and after, as JSON."""
    loaded = _peak()
    started = time.perf_counter()
    stream = Stream(
        root, Plan(batch=BATCH, crop=CROP), endpoint_url=endpoint_url or None, cache=Cache(folder=Path(cache))
    )
    batches = iter(stream)
    next(batches)
    first = time.perf_counter() - started
    for _ in range(_MORE):
        next(batches)
    print(json.dumps({"first_batch": first, "loaded": loaded, "peak": _peak()}))
    stream.close()


def _peak() -> float:
    """Bytes that this process held at most. (`ru_maxrss` counts what its parent held when it forked.)"""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
