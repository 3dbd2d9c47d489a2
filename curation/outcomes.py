"""A pilot's ledger as arrays, a row of the list each: what ended how, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

import numpy as np

from curation.forecast import Interval, number_hosts, share
from curation.judge import MetricThreshold, Thresholds, is_unscored, judge
from curation.records import Reason, Row, Stage

#: Ends of rows that pass all thresholds: which of two alike stays can only be said of the whole list.
PASSED: Final = frozenset({Reason.KEPT, Reason.DUPLICATE_EXACT, Reason.DUPLICATE_NEAR})
#: Ends before a body came.
UNTRIED: Final = frozenset(
    {
        *(Reason.URL_MALFORMED, Reason.URL_NOT_HTTP, Reason.URL_REPEATED, Reason.NOT_MEASURED),
        *(Reason.DECLARED_TOO_SMALL, Reason.DECLARED_UNSAFE, Reason.DECLARED_WATERMARK),
    }
)
FAILED: Final = frozenset(
    {
        *(Reason.PRIVATE_ADDRESS, Reason.DNS_UNKNOWN_HOST, Reason.DNS_NO_ANSWER, Reason.CONNECT_FAILED),
        *(Reason.CONNECTION_RESET, Reason.TLS_FAILED, Reason.TIMED_OUT, Reason.TOO_SLOW, Reason.HTTP_FORBIDDEN),
        *(Reason.HTTP_NOT_FOUND, Reason.HTTP_RATE_LIMITED, Reason.HTTP_CLIENT_ERROR, Reason.HTTP_SERVER_ERROR),
        *(Reason.HTTP_PROTOCOL_ERROR, Reason.OPTED_OUT, Reason.BODY_TRUNCATED, Reason.BODY_TOO_LARGE),
        Reason.BODY_EMPTY,
    }
)
#: A bound is tried this much stricter and looser, times its value.
STEPS: Final = (0.2, 0.1, 0.0, -0.1, -0.2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcomes:
    """(rows,) arrays. `answered`: a body came, or so much of it that its header refused the rest."""

    hosts: np.ndarray  # int, numbered from 0
    tried: np.ndarray  # bool: not refused by the list itself
    answered: np.ndarray  # bool
    scored: np.ndarray  # bool: decoded, on a core
    passed: np.ndarray  # bool
    pixels: np.ndarray  # float, of what was decoded
    seconds: np.ndarray  # float: waited, decoded, scored
    bytes_down: np.ndarray  # float
    bytes_kept: np.ndarray  # float
    ended: np.ndarray  # float, seconds since 1970; 0 for rows that no run looked at


def outcomes(rows: Sequence[Row]) -> Outcomes:
    """Of a ledger's rows."""
    passed = np.array([row.reason in PASSED for row in rows], dtype=bool)
    scored = np.array([row.sha256 is not None for row in rows], dtype=bool)
    sizes = np.array([(row.width or 0) * (row.height or 0) for row in rows], dtype=float)
    return Outcomes(
        hosts=number_hosts([host(row.link.url) for row in rows]),
        tried=np.array([row.reason not in UNTRIED for row in rows], dtype=bool),
        answered=np.array([row.reason not in UNTRIED | FAILED for row in rows], dtype=bool),
        scored=scored,
        passed=passed,
        pixels=sizes * scored,
        seconds=np.array([row.seconds for row in rows], dtype=float),
        bytes_down=np.array([row.bytes_read for row in rows], dtype=float),
        bytes_kept=np.array([row.bytes or 0 for row in rows], dtype=float) * passed,
        ended=np.array([row.ended for row in rows], dtype=float),
    )


def host(url: str) -> str:
    """The host of a URL in small letters, empty where it has none that can be read."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Yield:
    """What is kept where one metric's bound is another. `unknown`: the share whose other scores were never computed."""

    metric: str
    bound: float
    step: float  # 0 at the recipe's bound; above it stricter, below looser
    share: Interval
    unknown: float


def yields(rows: Sequence[Row], hosts: np.ndarray, thresholds: Thresholds) -> list[Yield]:
    """Per metric and step, by the stored scores. The upper end counts the unknown as kept: they may all pass."""
    return [_yield(rows, hosts, thresholds, metric, step) for metric in thresholds.metrics for step in STEPS]


def _yield(rows: Sequence[Row], hosts: np.ndarray, now: Thresholds, metric: MetricThreshold, step: float) -> Yield:
    toward = -step if metric.lower_better else step
    moved = replace(metric, bound=metric.bound + toward * abs(metric.bound))
    bounds = replace(now, metrics=tuple(moved if one is metric else one for one in now.metrics))
    judged = [judge(row, bounds) for row in rows]
    certain = np.array([row.reason is Reason.KEPT or _passes_unstored(row) for row in judged], dtype=bool)
    unknown = np.array([is_unscored(row) for row in judged], dtype=bool)
    low, high = share(certain, hosts), share(certain | unknown, hosts)
    return Yield(
        metric=metric.metric,
        bound=moved.bound,
        step=step,
        share=Interval(low=low.low, mid=low.mid, high=high.high),
        unknown=float(unknown.mean()),
    )


def _passes_unstored(row: Row) -> bool:
    return row.reason is Reason.NOT_STORED and row.stage is Stage.JUDGE
