"""One line of JSON for each unit that a run commits: what became of its rows, and what it took where.

It goes to Python's logger `million_ird.units`, at INFO; `written` puts that into a file. It is no part of the store:
clocks and nodes are in it, and a store is the same however it was made.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from curation.records import Reason
from pipelines.unit_tally import Done

LOGGER: Final = "million_ird.units"
_log = logging.getLogger(LOGGER)


def landed(done: Done) -> None:
    """A unit was committed."""
    entry = {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "unit": done.unit,
        "rows": done.reasons.total(),
        "kept": done.reasons[Reason.KEPT.value],
        "reasons": dict(sorted(done.reasons.items())),
        "scored": done.scored,
        "seconds": {stage: round(seconds, 3) for stage, seconds in done.seconds.items()},
        "bytes": {"read": done.bytes_read, "kept": done.bytes_kept},
        "node": done.node,
        "tries": done.tries,
    }
    _log.info(json.dumps(entry))


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Puts the lines behind what is in the file. Raises ValueError for one that can't be written."""
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"--log {path} can't be written ({error.strerror}): give another file") from error
    level = _log.level
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(level)
        handler.close()
