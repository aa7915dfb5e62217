"""Summary statistics of a sample of times, and of a share.

References: S. S. Wilks, I{Determination of sample sizes for setting tolerance limits}, Annals of Mathematical Statistics 12
(1941); E. B. Wilson, I{Probable inference, the law of succession, and statistical inference}, Journal of the American
Statistical Association 22 (1927); L. D. Brown, T. T. Cai and A. DasGupta, I{Interval estimation for a binomial proportion},
Statistical Science 16 (2001).
"""

from __future__ import annotations

from math import log, sqrt
from statistics import NormalDist
from typing import NamedTuple

from udpecho.probe.stats.histogram import Histogram

#: The quantiles of reports, in addition to the median, by their names there.
QUANTILES = {"p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
#: The confidence level of intervals, and of the claim that a sample reaches beyond a quantile.
CONFIDENCE = 0.95

_second = 1_000_000_000
_z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class Interval(NamedTuple):
    """An observed share, C{ratio}, with the ends of its 95 % confidence interval; all from 0 to 1."""

    ratio: float
    low: float
    high: float


def wilson(some: int, all: int) -> Interval | None:
    """The share of C{some} in C{all} with Wilson's score interval of 95 % (Wilson 1927; Brown, Cai and DasGupta 2001, equation
    4), which also holds for shares near 0 and for small samples::

        (p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n)

    @return: C{None} if C{all} is 0.
    """
    if not all:
        return None
    ratio = some / all
    weight = _z * _z / all
    middle = (ratio + weight / 2) / (1 + weight)
    reach = _z * sqrt(ratio * (1 - ratio) / all + weight / (4 * all)) / (1 + weight)
    # The formula gives exactly 0 and 1 here, floating point does not.
    return Interval(ratio, middle - reach if some else 0.0, middle + reach if some < all else 1.0)


def leastCount(q: float) -> int:
    """The number of values a sample needs before its quantile C{q} is reported: one of them lies beyond the quantile with 95 %
    confidence (Wilks 1941), C{1 - q**n >= 0.95}. In a smaller sample the maximum alone would stand for it.

    29 for p90, 59 for p95, 299 for p99 and 2995 for p99.9.
    """
    count = max(1, int(log(1 - CONFIDENCE) / log(q)) - 1)
    while q**count > 1 - CONFIDENCE:
        count += 1
    return count


_least = {q: leastCount(q) for q in QUANTILES.values()}


class Distribution:
    """A sample of times in constant memory. All figures are in seconds; those that a sample is too small for are C{None}.

    Times are recorded in whole nanoseconds. So the sum and the sum of squares, from which mean and standard deviation come,
    are exact, and Welford's recurrence is not needed.

    @ivar nanoseconds: the histogram of the sample, in ns.
    """

    def __init__(self) -> None:
        self.nanoseconds = Histogram()
        #: Adds a time in ns, as L{Histogram.record} does.
        self.recordNanoseconds = self.nanoseconds.record

    @property
    def count(self) -> int:
        """The number of times in the sample."""
        return self.nanoseconds.count

    @property
    def total(self) -> float:
        """The sum, in seconds."""
        return self.nanoseconds.total / _second

    @property
    def min(self) -> float | None:
        """The minimum, in seconds."""
        return seconds(self.nanoseconds.min)

    @property
    def max(self) -> float | None:
        """The maximum, in seconds."""
        return seconds(self.nanoseconds.max)

    @property
    def mean(self) -> float | None:
        """The mean, in seconds."""
        return self.nanoseconds.total / self.count / _second if self.count else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the sample, in seconds, with C{n - 1} in the denominator."""
        n, total, squares = self.count, self.nanoseconds.total, self.nanoseconds.squares
        return sqrt((n * squares - total * total) / (n * (n - 1))) / _second if n > 1 else None

    def median(self) -> float | None:
        """The median (RFC 2330 section 11.3), in seconds, to within 0.05 %."""
        return seconds(self.nanoseconds.median())

    def quantile(self, q: float) -> float | None:
        """A quantile (RFC 2330 section 11.3), in seconds, to within 0.05 %; C{None} if the sample is too small (L{leastCount}).
        C{q} must be above 0 and below 1.
        """
        least = _least.get(q) or leastCount(q)
        return seconds(self.nanoseconds.quantile(q)) if self.count >= least else None

    def asDict(self) -> dict[str, float | None]:
        """The figures as reports have them, in seconds."""
        return {
            "min": self.min,
            "mean": self.mean,
            "median": self.median(),
            **{name: self.quantile(q) for name, q in QUANTILES.items()},
            "max": self.max,
            "stddev": self.deviation,
        }


def seconds(nanoseconds: float | None) -> float | None:
    """Nanoseconds as seconds; C{None} stays C{None}."""
    return None if nanoseconds is None else nanoseconds / _second
