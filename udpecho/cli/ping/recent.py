"""The last minute of a run, for the live view."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from udpecho.probe.stats.summary import Statistics

#: How many seconds the histogram covers.
SPAN = 60
#: How many seconds the rates cover.
_RATE_SPAN = 5
#: Each power of two (of ns) has 2 to the power of this many bins.
_BITS = 7
_blocks = " ▁▂▃▄▅▆▇█"


class Second(NamedTuple):
    """The end of about one more second, and how many probes were sent and answered by then.

    @ivar bins: how many round trips of this second alone are in each bin.
    """

    time: float
    sent: int
    received: int
    bins: Counter[int]


class Recent:
    """The last minute of a target: how its counts grew, second by second. It keeps at most 62 seconds, each with at most 8000
    bins and usually some hundreds.
    """

    def __init__(self, statistics: Statistics, started: float) -> None:
        """@param started: when the first probe was sent, in seconds."""
        self._statistics = statistics
        self._before: Counter[int] = Counter()
        self._seconds: deque[Second] = deque([Second(started, 0, 0, Counter())])

    def update(self, now: float) -> None:
        """Read the counts, if a second has passed since the last time."""
        if now - self._seconds[-1].time < 1:
            return
        counts = _binned(self._statistics)
        self._seconds.append(Second(now, self._statistics.sent, self._statistics.received, counts - self._before))
        self._before = counts
        while len(self._seconds) > 2 and self._seconds[1].time <= now - SPAN:
            self._seconds.popleft()

    def rates(self, now: float) -> tuple[float, float] | None:
        """The probes sent and answered per second in the last seconds; C{None} in the first half of a second."""
        before = [each for each in self._seconds if now - each.time >= 0.5]
        if not before:
            return None
        since = next((each for each in before if now - each.time <= _RATE_SPAN), before[-1])
        elapsed = now - since.time
        return (self._statistics.sent - since.sent) / elapsed, (self._statistics.received - since.received) / elapsed

    def bins(self) -> dict[int, int]:
        """How many round trips of the last minute are in each bin."""
        found: Counter[int] = Counter()
        # The first is the start of the minute.
        for each in islice(self._seconds, 1, None):
            found.update(each.bins)
        return found


def _binned(statistics: Statistics) -> Counter[int]:
    found: Counter[int] = Counter()
    for low, _, number in statistics.roundTrips.nanoseconds.buckets():
        found[binOf(low)] += number
    return found


def binOf(nanoseconds: int) -> int:
    """The number of the bin that a time is in. Each power of two has 128 bins of equal width."""
    shift = max(0, nanoseconds.bit_length() - _BITS - 1)
    return (shift << _BITS) + (nanoseconds >> shift)


def lowOf(index: int) -> int:
    """The lowest time of a bin, in ns."""
    shift = max(0, (index >> _BITS) - 1)
    return (index - (shift << _BITS)) << shift


def lowest(bins: dict[int, int], share: float) -> dict[int, int]:
    """The lowest bins that contain a share of all round trips, and those above them up to the first gap."""
    needed = share * sum(bins.values())
    found: dict[int, int] = {}
    total = 0
    for index in sorted(bins):
        if total >= needed and index - 1 not in found:
            break
        found[index] = bins[index]
        total += bins[index]
    return found


def columns(bins: dict[int, int], width: int) -> tuple[list[int], list[int]]:
    """Merge bins into columns of equal width in time.

    The width of a bin is a power of two, and its ends are multiples of it. The ends of columns are multiples of the widest
    bin's width, so that no bin is split.

    @return: the number of round trips in each of at most C{width} columns, and the edges of the columns, in ns. Both are empty
        if the bins are.
    """
    if not bins:
        return [], []
    first, last = min(bins), max(bins)
    widest = lowOf(last + 1) - lowOf(last)
    start = lowOf(first) // widest * widest
    span = (lowOf(last + 1) - start) // widest
    step = -(-span // width) * widest
    numbers = [0] * -(-span * widest // step)
    for index, number in bins.items():
        numbers[(lowOf(index) - start) // step] += number
    return numbers, [start + column * step for column in range(len(numbers) + 1)]


def bars(numbers: Sequence[int], height: int) -> list[str]:
    """Draw columns, as lines from top to bottom. Every column that is not 0 is visible."""
    most = max(numbers, default=0)
    eighths = [max(1, round(8 * height * number / most)) if number else 0 for number in numbers]
    return ["".join(_blocks[min(8, max(0, each - 8 * line))] for each in eighths) for line in reversed(range(height))]
