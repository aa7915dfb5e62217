"""
What the order of replies, and each after the other, say of a path: reordering, jitter and delay variation.

Each of these is fed with the first reply to each probe, in the order of arrival; duplicates are left out.
"""

from __future__ import annotations

from collections import deque

#: For so many degrees of n-reordering the shares are kept; three duplicate acknowledgments are what makes TCP send again (RFC
#: 5681 section 3.2), so that the share of 3 is what TCP would take for loss (RFC 4737 section 5).
DEGREES = 3
#: How many arrivals, and how many neighbours' round trips, are remembered.
_MEMORY = 1024


class Reordering:
    """
    Replies that were overtaken, by RFC 4737.

    An arrival is I{reordered} if its number is below that of one before (section 3.3: C{s < NextExp}). It is I{n-reordered} if
    each of the C{n} that came right before it has a higher number (section 5.3), and so is n'-reordered for each n' below n.

    Of the arrivals that none after them was below, the latest 1024 are remembered. Whether one is reordered is exact, and so is
    n up to 1023; of one that was overtaken by more, n is the number that came since the last that is forgotten, which is 1023
    or more and never too many.

    @ivar arrivals: how many there were.
    @ivar reordered: how many of them were reordered.
    @ivar greatest: the greatest n for which one was n-reordered.
    """

    def __init__(self) -> None:
        self.arrivals = 0
        self.reordered = 0
        self.greatest = 0
        self._byDegree = [0] * DEGREES
        self._next = 0
        # Numbers that no later arrival was below, and when they came: those in between cannot end anyone's run.
        self._below: deque[tuple[int, int]] = deque()
        self._forgotten = 0

    def arrive(self, sequence: int) -> bool:
        """
        A reply came.

        @return: whether it is reordered.
        """
        self.arrivals += 1
        below = self._below
        if sequence >= self._next:
            self._next = sequence + 1
            self._remember(sequence)
            return False
        self.reordered += 1
        while below and below[-1][0] > sequence:
            below.pop()
        degree = self.arrivals - (below[-1][1] if below else self._forgotten) - 1
        self._remember(sequence)
        self.greatest = max(self.greatest, degree)
        for n in range(min(degree, DEGREES)):
            self._byDegree[n] += 1
        return True

    @property
    def ratio(self) -> float | None:
        """The share of arrivals that were reordered (RFC 4737 section 4.1)."""
        return self.reordered / self.arrivals if self.arrivals else None

    def degree(self, n: int) -> float | None:
        """
        The share of arrivals that were n-reordered (RFC 4737 section 5.3, "degree of n-reordering").

        @param n: from 1 to L{DEGREES}.
        """
        return self._byDegree[n - 1] / self.arrivals if self.arrivals else None

    def _remember(self, sequence: int) -> None:
        self._below.append((sequence, self.arrivals))
        if len(self._below) > _MEMORY:
            self._forgotten = self._below.popleft()[1]


class Jitter:
    """
    Interarrival jitter, by RFC 3550 section 6.4.1 and its appendix A.8: C{J += (|D| - J)/16}, where D is by how much the
    transit times of two arrivals differ, one after the other as they came. Of what goes there and back that is the round trip.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._jitter = 0.0
        self._known = False

    def arrive(self, roundTrip: int) -> None:
        """
        A reply came.

        @param roundTrip: its time, in ns.
        """
        if self._last is not None:
            self._jitter += (abs(roundTrip - self._last) - self._jitter) / 16
            self._known = True
        self._last = roundTrip

    @property
    def value(self) -> float | None:
        """The jitter, in ns; C{None} before there are two replies."""
        return self._jitter if self._known else None


class Variation:
    """
    Delay variation, by RFC 3393 section 2: the round trip of a probe less that of the probe sent before it, where both have a
    reply (IPDV with consecutive packets as its selection function). Their signed mean is next to nothing, as they cancel; what
    is kept is how large they are.

    Of neighbours whose replies come more than 1024 probes apart, the variation is left out.

    @ivar count: of how many pairs.
    @ivar max: the largest, without its sign, in ns; C{None} where there is no pair.
    """

    def __init__(self) -> None:
        self.count = 0
        self.max: int | None = None
        self._sum = 0
        self._sequences = [-2] * _MEMORY
        self._roundTrips = [0] * _MEMORY

    def arrive(self, sequence: int, roundTrip: int) -> None:
        """
        A reply came.

        @param sequence: its number.
        @param roundTrip: its time, in ns.
        """
        slot = sequence % _MEMORY
        self._sequences[slot] = sequence
        self._roundTrips[slot] = roundTrip
        before = slot - 1
        if self._sequences[before] == sequence - 1:
            self._pair(roundTrip - self._roundTrips[before])
        after = (slot + 1) % _MEMORY
        if self._sequences[after] == sequence + 1:
            self._pair(self._roundTrips[after] - roundTrip)

    @property
    def mean(self) -> float | None:
        """The mean of them without their signs, in ns."""
        return self._sum / self.count if self.count else None

    def _pair(self, variation: int) -> None:
        size = abs(variation)
        self.count += 1
        self._sum += size
        if self.max is None or size > self.max:
            self.max = size
