"""From a sample of a list's rows to the whole: shares and means with 95 % intervals, pure functions.

Failures cluster by host: a host that is down takes all its rows with it. Had every host the same answer tomorrow as
today, rows drawn at random would need no heed of that. They don't: hosts die, wake, and limit. So rows of one host
count as one draw of that host (the "ultimate cluster" variance: squared sums of residuals per host), and never as less
spread than rows on their own have. That is as wide as it must be where half of what parts hosts belongs to the day and
half to the host; wider than needed for hosts that don't change.

Shares: Wilson's score interval (1927) with Kish's effective sample size, n divided by the design effect (Kish 1965),
and Student's t. It stays inside 0 and 1, and says something of nothing: 0 of 1,000 is 0 to 0.4 %. Means of bytes and
seconds: the delta method on the logarithm, since they are positive and a few rows have most of the sum. Degrees of
freedom: Satterthwaite's, with as many hosts as there would be if all were of one size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import stdtrit

LEVEL: Final = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A prediction, and the bounds that hold what is predicted in 95 of 100 cases."""

    low: float
    mid: float
    high: float

    def times(self, factor: float) -> Interval:
        """Of so many rows, at such a price. `factor` is not negative."""
        return Interval(low=self.low * factor, mid=self.mid * factor, high=self.high * factor)

    def plus(self, other: Interval) -> Interval:
        """The sum. Ends are added to ends: what goes up may go up together."""
        return Interval(low=self.low + other.low, mid=self.mid + other.mid, high=self.high + other.high)

    def over(self, other: Interval) -> Interval:
        """The quotient of two that err independently; on the logarithm, where errors add as squares."""
        if not self.low > 0:
            return self.times(1 / other.mid)
        mid = self.mid / other.mid
        down = math.hypot(math.log(self.mid / self.low), math.log(other.high / other.mid))
        up = math.hypot(math.log(self.high / self.mid), math.log(other.mid / other.low))
        return Interval(low=mid * math.exp(-down), mid=mid, high=mid * math.exp(up))

    def holds(self, value: float) -> bool:
        """Whether `value` lies in it, its ends included."""
        return self.low <= value <= self.high


def exactly(value: float) -> Interval:
    """What is known, as an interval."""
    return Interval(low=value, mid=value, high=value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Variance of a mean, and the degrees of freedom it is known with. `effect`: its ratio to that of lone rows."""

    variance: float
    freedom: float
    effect: float

    @property
    def quantile(self) -> float:
        """Student's t for 95 %."""
        return float(stdtrit(self.freedom, 0.5 + LEVEL / 2))


def spread(values: np.ndarray, hosts: np.ndarray) -> Spread:
    """Of the mean of `values` (rows,) of rows on `hosts` (rows,) int, numbered from 0. Raises ValueError for no row."""
    count = len(values)
    if count == 0:
        raise ValueError("no row to tell anything from: give a larger --pilot")
    residuals = values.astype(np.float64) - values.mean()
    alone = float(residuals @ residuals) / max(1, count - 1) / count
    sizes = np.bincount(hosts)
    sizes = sizes[sizes > 0]
    if len(sizes) < 2 or alone == 0.0:
        return Spread(variance=alone, freedom=max(1, count - 1), effect=1.0)
    sums = np.bincount(hosts, weights=residuals)
    together = float(sums @ sums) * len(sizes) / (len(sizes) - 1) / count**2
    variance = max(alone, together)
    between = variance - alone
    equal_hosts = count**2 / float(sizes @ sizes)
    terms = between**2 / max(1e-3, equal_hosts - 1) + alone**2 / max(1, count - 1)
    return Spread(variance=variance, freedom=max(1.0, variance**2 / terms), effect=variance / alone)


def share(hits: np.ndarray, hosts: np.ndarray) -> Interval:
    """The share of `hits` (rows,) bool among rows like these."""
    seen = spread(hits, hosts)
    return wilson(float(hits.mean()), len(hits) / seen.effect, seen.quantile)


def wilson(part: float, count: float, quantile: float) -> Interval:
    """Wilson's score interval for a share `part` of `count` rows."""
    square = quantile**2
    centre = (part + square / (2 * count)) / (1 + square / count)
    half = quantile / (1 + square / count) * math.sqrt(part * (1 - part) / count + square / (4 * count**2))
    return Interval(low=max(0.0, min(part, centre - half)), mid=part, high=min(1.0, max(part, centre + half)))


def mean(values: np.ndarray, hosts: np.ndarray) -> Interval:
    """The mean of `values` (rows,), none negative, among rows like these. Nothing but zeros tells nothing but zero."""
    seen = spread(values, hosts)
    middle = float(values.mean())
    return around(middle, math.sqrt(seen.variance) / middle * seen.quantile) if middle > 0 else exactly(0.0)


def around(middle: float, relative: float) -> Interval:
    """`middle` times or divided by exp(`relative`): `relative` is half of the interval, on the logarithm."""
    factor = math.exp(min(relative, 50.0))
    return Interval(low=middle / factor, mid=middle, high=middle * factor)


def number_hosts(names: list[str]) -> np.ndarray:
    """(rows,) int: the hosts' names, numbered."""
    return np.unique(np.asarray(names, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)
