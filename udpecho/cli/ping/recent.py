"""The last seconds of a run, as the live view draws them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from udpecho.probe.stats.summary import Statistics

#: How many seconds the moving histogram reaches back.
SPAN = 60
#: Over how many seconds the rates are.
_RATE_SPAN = 5
#: Each power of two of nanoseconds has 2 to the power of this bins.
_BITS = 7
#: How high the histogram of a single target is, in lines.
_HEIGHT = 8
_columns = ("sent/s", "recv/s", "sent", "received", "loss", "95 %", "p50", "p90", "p99", "max ms")
_blocks = " ▁▂▃▄▅▆▇█"


class Second(NamedTuple):
    """
    What came in about a second.

    @ivar time: when it ended, in seconds.
    @ivar sent: how many probes were sent until then, of all.
    @ivar received: how many had a reply.
    @ivar bins: how many round trips fell in each bin, in this second alone.
    """

    time: float
    sent: int
    received: int
    bins: dict[int, int]


class Recent:
    """
    The last minute of a target: what its sums grew by, second by second. There are at most 62 seconds of it, and each
    has no more bins than there are different round trips in it: some hundreds, and less than 8000 in any case.
    """

    def __init__(self, statistics: Statistics, started: float) -> None:
        """@param started: when the first probe left, in seconds."""
        self._statistics = statistics
        self._before: dict[int, int] = {}
        self._seconds: deque[Second] = deque([Second(started, 0, 0, {})])

    def update(self, now: float) -> None:
        """Look at the sums, if it is a second since the last look."""
        if now - self._seconds[-1].time < 1:
            return
        counts = _binned(self._statistics)
        new = {each: number - self._before.get(each, 0) for each, number in counts.items()}
        grown = {each: number for each, number in new.items() if number}
        self._before = counts
        self._seconds.append(Second(now, self._statistics.sent, self._statistics.received, grown))
        while len(self._seconds) > 2 and self._seconds[1].time <= now - SPAN:
            self._seconds.popleft()

    def rates(self, now: float) -> tuple[float, float] | None:
        """How many probes a second were sent and received lately; C{None} in the first half of a second."""
        before = [each for each in self._seconds if now - each.time >= 0.5]
        if not before:
            return None
        since = next((each for each in before if now - each.time <= _RATE_SPAN), before[-1])
        elapsed = now - since.time
        return (self._statistics.sent - since.sent) / elapsed, (self._statistics.received - since.received) / elapsed

    def bins(self) -> dict[int, int]:
        """How many round trips of the last minute fell in each bin."""
        found: dict[int, int] = {}
        # The first is where the minute begins.
        for each in islice(self._seconds, 1, None):
            for index, number in each.bins.items():
                found[index] = found.get(index, 0) + number
        return found


def _binned(statistics: Statistics) -> dict[int, int]:
    """How many round trips fell in each bin, of all."""
    found: dict[int, int] = {}
    for low, _, number in statistics.roundTrips.buckets():
        index = binOf(low)
        found[index] = found.get(index, 0) + number
    return found


def binOf(nanoseconds: int) -> int:
    """The number of the bin that a time is in: 128 to each power of two, all of one width within it."""
    shift = max(0, nanoseconds.bit_length() - _BITS - 1)
    return (shift << _BITS) + (nanoseconds >> shift)


def lowOf(index: int) -> int:
    """The lowest time in a bin, in ns."""
    shift = max(0, (index >> _BITS) - 1)
    return (index - (shift << _BITS)) << shift


def most(bins: dict[int, int], share: float) -> dict[int, int]:
    """The lowest of the bins in which there is so large a share of all, and those just above that are no gap away."""
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
    """
    Bring bins into no more columns than there is room for, all of one width in time.

    The width of a bin is a power of two, and its ends are multiples of it. So are the columns' of the widest bin: no bin is in
    two columns, and none has more bins than it should.

    @return: the number in each column, and where each begins and the last ends, in ns. Both empty if nothing is in the bins.
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
    """Draw columns, from the top line to the bottom. What is not 0 is seen."""
    most = max(numbers, default=0)
    eighths = [max(1, round(8 * height * number / most)) if number else 0 for number in numbers]
    return ["".join(_blocks[min(8, max(0, each - 8 * line))] for each in eighths) for line in reversed(range(height))]
