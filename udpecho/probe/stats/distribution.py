"""
What is said of a sample: of times, and of a share.

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

#: The quantiles of reports, beside the median, by their names there.
QUANTILES = {"p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
#: How sure intervals are, and how sure it must be that a sample reaches beyond a quantile.
CONFIDENCE = 0.95

_second = 1_000_000_000
_z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class Interval(NamedTuple):
    """
    A share, and between what it is.

    @ivar ratio: the share that was seen.
    @ivar low: the lower end of its 95 % interval.
    @ivar high: the upper end.
    """

    ratio: float
    low: float
    high: float


def wilson(some: int, all: int) -> Interval | None:
    """
    The share of C{some} in C{all}, and Wilson's score interval of 95 % about it (Wilson 1927; Brown, Cai and DasGupta 2001,
    equation 4), which holds for shares near 0 and for small samples too::

        (p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n)

    @return: C{None} of nothing.
    """
    if not all:
        return None
    ratio = some / all
    weight = _z * _z / all
    middle = (ratio + weight / 2) / (1 + weight)
    reach = _z * sqrt(ratio * (1 - ratio) / all + weight / (4 * all)) / (1 + weight)
    # The ends that are 0 and 1 by the formula are so but for their last bits.
    return Interval(ratio, middle - reach if some else 0.0, middle + reach if some < all else 1.0)


def leastCount(q: float) -> int:
    """
    How many values a sample needs for its quantile C{q} to be told: so many that with 95 % confidence one of them lies beyond
    it (Wilks 1941), C{1 - q**n >= 0.95}. Of fewer the highest alone would stand for it.

    These are 29 for p90, 59 for p95, 299 for p99 and 2995 for p99.9.
    """
    count = max(1, int(log(1 - CONFIDENCE) / log(q)) - 1)
    while q**count > 1 - CONFIDENCE:
        count += 1
    return count


_least = {q: leastCount(q) for q in QUANTILES.values()}


class Distribution(Histogram):
    """
    A sample of times in whole nanoseconds, in constant memory.

    Mean and standard deviation come from the sum and the sum of squares, which are exact as they are whole numbers without a
    limit: what Welford's recurrence is for, that no digits are lost, they do not need.
    """

    @property
    def mean(self) -> float | None:
        """The mean, in ns."""
        return self.total / self.count if self.count else None

    @property
    def deviation(self) -> float | None:
        """
        The standard deviation of the sample, in ns: the root of the sum of squared distances from the mean, over C{n - 1}.
        """
        n = self.count
        return sqrt((n * self.squares - self.total * self.total) / (n * (n - 1))) if n > 1 else None

    def knownQuantile(self, q: float) -> int | None:
        """
        A quantile, in ns, to within 0.05 %.

        @param q: above 0 and below 1.

        @return: C{None} where the sample is too small to tell (L{leastCount}).
        """
        least = _least.get(q) or leastCount(q)
        return self.quantile(q) if self.count >= least else None

    def asDict(self) -> dict[str, float | None]:
        """What reports say of it, in seconds."""
        return {
            "min": seconds(self.min),
            "mean": seconds(self.mean),
            "median": seconds(self.median()),
            **{name: seconds(self.knownQuantile(q)) for name, q in QUANTILES.items()},
            "max": seconds(self.max),
            "stddev": seconds(self.deviation),
        }


def seconds(nanoseconds: float | None) -> float | None:
    """Nanoseconds as seconds; C{None} stays."""
    return None if nanoseconds is None else nanoseconds / _second
