"""Round trips over time in memory that does not grow, for pictures."""

from __future__ import annotations

from collections import OrderedDict

from udpecho.probe.outcomes import Outcome

#: How many stretches of time are told apart if the caller does not say: more than a picture has columns.
DEFAULT_CAPACITY = 2048
#: How many lost probes are remembered, for the replies that may yet come.
_MOST_LOST = 8192

_withoutReply = (Outcome.LOST, Outcome.LOST_OWN, Outcome.REFUSED, Outcome.UNREACHABLE, Outcome.NOT_SENT)


class TimeBucket:
    """
    What became of the probes of one stretch of time.

    @ivar count: how many of them have a reply.
    @ivar total: the sum of their round trips, in ns.
    @ivar low: when the one with the shortest round trip was sent, and that, in ns; C{None} if none has a reply.
    @ivar high: the same of the longest.
    @ivar missing: when the first one without a reply was sent, in ns, by its outcome, and how many there are.
    """

    __slots__ = ("count", "high", "low", "missing", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.low: tuple[int, int] | None = None
        self.high: tuple[int, int] | None = None
        self.missing: dict[Outcome, tuple[int, int]] = {}

    def answer(self, time: int, roundTrip: int) -> None:
        """One has a reply."""
        self._widen((time, roundTrip), (time, roundTrip))
        self.count += 1
        self.total += roundTrip

    def miss(self, outcome: Outcome, time: int, number: int = 1) -> None:
        """
        Some more have none.

        @param number: how many more; below 0 for fewer.
        """
        first, before = self.missing.get(outcome, (time, 0))
        if before + number > 0:
            self.missing[outcome] = (min(first, time), before + number)
        else:
            self.missing.pop(outcome, None)

    def merge(self, other: TimeBucket) -> None:
        """Add another stretch to this one."""
        if other.low is not None and other.high is not None:
            self._widen(other.low, other.high)
        self.count += other.count
        self.total += other.total
        for outcome, (time, number) in other.missing.items():
            self.miss(outcome, time, number)

    def _widen(self, low: tuple[int, int], high: tuple[int, int]) -> None:
        if self.low is None or low[1] < self.low[1]:
            self.low = low
        if self.high is None or high[1] > self.high[1]:
            self.high = high


class Samples:
    """
    Is told of each probe, and keeps of each stretch of time the shortest and the longest round trip, the mean, and what has no
    reply: no extreme is lost, however many probes there are.

    Stretches are of one length, a power of two of nanoseconds, which doubles whenever there would be more of them than there is
    room for; two neighbours become one then. As long as there are fewer probes than room, each has a stretch of its own, but
    for those sent within the same microsecond.

    2048 stretches take up to 1 MB. A lost probe is remembered until 8192 more were lost, at about 200 bytes each: a reply that
    comes after that adds a round trip and leaves the loss in place.

    @ivar capacity: for how many stretches there is room.
    @ivar shift: the length of each is 2 to the power of this, in ns.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        """@raise ValueError: if there is room for fewer than two stretches."""
        if capacity < 2:
            raise ValueError(f"{capacity} is not a number of stretches: 2 or more is")
        self.capacity = capacity
        self.shift = 10
        self._stretches: dict[int, TimeBucket] = {}
        self._lost: OrderedDict[int, tuple[Outcome, int]] = OrderedDict()

    def add(self, outcome: Outcome, sequence: int, time: int, roundTrip: int | None = None) -> None:
        """
        Something became of a probe. A reply to one that was told to be lost, refused or unreachable takes that back. What is
        neither a first reply nor the lack of one changes nothing.

        @param sequence: its number.
        @param time: when it was sent, or should have been, in ns since the first; by a clock that does not step.
        @param roundTrip: its time in ns, if it has a reply.

        @raise ValueError: if a reply has no time.
        """
        if outcome in (Outcome.ANSWERED, Outcome.LATE):
            if roundTrip is None:
                raise ValueError(f"None is not the round trip of a probe that is {outcome.value}: a number of nanoseconds is")
            self._takeBack(sequence)
            self._at(time).answer(time, roundTrip)
        elif outcome in _withoutReply:
            # What was lost may be refused yet, and is one probe still.
            self._takeBack(sequence)
            self._lost[sequence] = (outcome, time)
            if len(self._lost) > _MOST_LOST:
                self._lost.popitem(last=False)
            self._at(time).miss(outcome, time)

    def stretches(self) -> list[TimeBucket]:
        """Those in which there is something, in order."""
        found = [self._stretches[index] for index in sorted(self._stretches)]
        return [each for each in found if each.count or each.missing]

    def _at(self, time: int) -> TimeBucket:
        index = time >> self.shift
        found = self._stretches.get(index)
        if found is None:
            found = self._stretches[index] = TimeBucket()
            if len(self._stretches) > self.capacity:
                self._shorten()
                found = self._stretches[time >> self.shift]
        return found

    def _takeBack(self, sequence: int) -> None:
        before = self._lost.pop(sequence, None)
        if before is not None:
            outcome, time = before
            self._at(time).miss(outcome, time, -1)

    def _shorten(self) -> None:
        """Make fewer stretches, and longer ones."""
        while len(self._stretches) > self.capacity:
            self.shift += 1
            merged: dict[int, TimeBucket] = {}
            for index in sorted(self._stretches):
                merged.setdefault(index >> 1, TimeBucket()).merge(self._stretches[index])
            self._stretches = merged
