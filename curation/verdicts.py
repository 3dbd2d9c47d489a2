"""Verdicts on a ledger part as a whole, by its columns: what `curation.judge` says of each row, for many at once.

A list of 1.7e8 rows is judged twice when it is settled. Of most rows a glance at the columns says that nothing can
change; the others go through `judge` itself, so there is one rule and not two.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import ledger
from curation.judge import Thresholds, is_fact, judge
from curation.records import METRIC_PREFIX, Reason, Row, Stage

#: All that a verdict depends on, and what no row can do without; the scores are beside these.
_NEEDED: Final = (
    *("position", "key", "url", "source", "declared_width", "declared_height", "punsafe", "pwatermark"),
    *("width", "height", "stored", "reason", "stage", "detail"),
)
_FACTS: Final = pa.array([f"{s.value}/{r.value}" for s in Stage for r in Reason if is_fact(s, r)])


def judged(part: pa.Table, thresholds: Thresholds, which: np.ndarray) -> list[Row]:
    """Those of the rows for which `which` (rows,) bool says so, judged anew; with what verdicts need, and no more."""
    scores = [name for name in part.column_names if name.startswith(METRIC_PREFIX)]
    return [judge(row, thresholds) for row in ledger.rows_of(part.select([*_NEEDED, *scores]).filter(pa.array(which)))]


def open_rows(part: pa.Table) -> np.ndarray:
    """(rows,) bool: whose verdict depends on thresholds. What happened to the others is a fact."""
    ends = pc.binary_join_element_wise(part["stage"], part["reason"], "/")
    return ~np.asarray(pc.is_in(ends, _FACTS))


def was_kept(part: pa.Table, thresholds: Thresholds) -> np.ndarray:
    """(rows,) bool: which of them are kept after `judge`, or were before they were forgotten."""
    return np.where(open_rows(part), _passes(part, thresholds), were_kept(part))


def were_kept(part: pa.Table) -> np.ndarray:
    """(rows,) bool: `Row.was_kept` of each as it stands."""
    forgotten = np.asarray(pc.equal(part["reason"], Reason.FORGOTTEN.value))
    ended = np.asarray(pc.equal(part["stage"], Stage.KEPT.value))
    return np.asarray(pc.equal(part["reason"], Reason.KEPT.value)) | (forgotten & ended)


def _passes(part: pa.Table, thresholds: Thresholds) -> np.ndarray:
    """(rows,) bool: nothing speaks against the row, and nothing is missing. Null is NaN here, and never passes."""
    passes = np.asarray(part["stored"]) & True
    for side in ("declared_width", "declared_height"):
        said = _numbers(part, side)
        passes &= ~((said > 0) & (said < thresholds.min_res))
    for name, most in (("punsafe", thresholds.max_punsafe), ("pwatermark", thresholds.max_pwatermark)):
        passes &= ~(_numbers(part, name) > most)
    for side in ("width", "height"):
        passes &= _numbers(part, side) >= thresholds.min_res
    for one in thresholds.metrics:
        if METRIC_PREFIX + one.metric not in part.column_names:
            return np.zeros(part.num_rows, bool)
        score = _numbers(part, METRIC_PREFIX + one.metric)
        passes &= score <= one.bound if one.lower_better else score >= one.bound
    return passes


def _numbers(part: pa.Table, name: str) -> np.ndarray:
    """(rows,) float64, exact for whole numbers of 32 bits and for float32; NaN for null."""
    return np.asarray(part[name].cast(pa.float64()).to_numpy(), np.float64)
