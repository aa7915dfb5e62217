"""Round trips over time in bounded memory, for plots."""

from __future__ import annotations

from collections import OrderedDict

from udpecho.probe.outcomes import Outcome

#: The default number of time buckets: more than a plot has columns.
DEFAULT_CAPACITY = 2048
#: How many probes without a reply are remembered, for replies that may still come.
_maxMissing = 8192

_withoutReply = (Outcome.LOST, Outcome.LOST_OWN, Outcome.REFUSED, Outcome.UNREACHABLE, Outcome.NOT_SENT)


class TimeBucket:
    """The probes of one period of time. All times are in seconds.

    @ivar total: the sum of the round trips of all C{count} probes with a reply.
    @ivar low: the send time and the round trip of the probe with the shortest one; C{None} if none has a reply.
    @ivar high: the same for the longest.
    @ivar missing: for each outcome without a reply, the send time of the first such probe and how many there are.
    """

    __slots__ = ("count", "high", "low", "missing", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.low: tuple[float, float] | None = None
        self.high: tuple[float, float] | None = None
        self.missing: dict[Outcome, tuple[float, int]] = {}

    def answer(self, time: float, roundTrip: float) -> None:
        """Add a probe with a reply."""
        self._widen((time, roundTrip), (time, roundTrip))
        self.count += 1
        self.total += roundTrip

    def miss(self, outcome: Outcome, time: float, number: int = 1) -> None:
        """Add C{number} probes without a reply; below 0 to remove some."""
        first, before = self.missing.get(outcome, (time, 0))
        if before + number > 0:
            self.missing[outcome] = (min(first, time), before + number)
        else:
            self.missing.pop(outcome, None)

    def merge(self, other: TimeBucket) -> None:
        """Add the probes of another bucket."""
        if other.low is not None and other.high is not None:
            self._widen(other.low, other.high)
        self.count += other.count
        self.total += other.total
        for outcome, (time, number) in other.missing.items():
            self.miss(outcome, time, number)

    def _widen(self, low: tuple[float, float], high: tuple[float, float]) -> None:
        if self.low is None or low[1] < self.low[1]:
            self.low = low
        if self.high is None or high[1] > self.high[1]:
            self.high = high


class Timeline:
    """Keeps for each period of time the shortest, the longest and the mean round trip, and the probes without a reply: no
    extreme is lost, however many probes there are.

    All buckets have the same length, which starts at 1024 ns and doubles whenever there would be more buckets than C{capacity}.

    2048 buckets need up to 1 MB. The latest 8192 probes without a reply are remembered, at about 200 bytes each: a reply to an
    earlier one adds a round trip, and its loss stays.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        """@param capacity: the largest number of buckets, 2 or more."""
        if capacity < 2:
            raise ValueError(f"capacity must be 2 buckets or more, got {capacity}")
        self._capacity = capacity
        self._lengthNanoseconds = 1024
        self._buckets: dict[int, TimeBucket] = {}
        self._missing: OrderedDict[int, tuple[Outcome, float]] = OrderedDict()

    @property
    def bucketLength(self) -> float:
        """The length of each bucket, in seconds."""
        return self._lengthNanoseconds / 1e9

    def add(self, outcome: Outcome, sequence: int, time: float, roundTrip: float | None = None) -> None:
        """Add an outcome of a probe. A reply, or a refusal, replaces an earlier loss. Other outcomes change nothing.

        @param time: when it was sent, or scheduled if it was not, in seconds by a monotonic clock since the start.
        @param roundTrip: the round trip, in seconds; a reply must have one.
        """
        if outcome in (Outcome.ANSWERED, Outcome.LATE):
            if roundTrip is None:
                raise ValueError(f"round trip of a probe that is {outcome.value} must be in seconds, got None")
            self._takeBack(sequence)
            self._at(time).answer(time, roundTrip)
        elif outcome in _withoutReply:
            self._takeBack(sequence)
            self._missing[sequence] = (outcome, time)
            if len(self._missing) > _maxMissing:
                self._missing.popitem(last=False)
            self._at(time).miss(outcome, time)

    def buckets(self) -> list[TimeBucket]:
        """The buckets that are not empty, in order."""
        found = [self._buckets[index] for index in sorted(self._buckets)]
        return [each for each in found if each.count or each.missing]

    def _at(self, time: float) -> TimeBucket:
        index = self._indexOf(time)
        found = self._buckets.get(index)
        if found is None:
            found = self._buckets[index] = TimeBucket()
            if len(self._buckets) > self._capacity:
                self._lengthen()
                found = self._buckets[self._indexOf(time)]
        return found

    def _indexOf(self, time: float) -> int:
        return round(time * 1e9) // self._lengthNanoseconds

    def _takeBack(self, sequence: int) -> None:
        before = self._missing.pop(sequence, None)
        if before is not None:
            outcome, time = before
            self._at(time).miss(outcome, time, -1)

    def _lengthen(self) -> None:
        while len(self._buckets) > self._capacity:
            self._lengthNanoseconds *= 2
            merged: dict[int, TimeBucket] = {}
            for index in sorted(self._buckets):
                merged.setdefault(index >> 1, TimeBucket()).merge(self._buckets[index])
            self._buckets = merged
