"""Reordering, jitter and delay variation.

Each class gets the first reply to each probe, in the order of arrival, without duplicates.
"""

from __future__ import annotations

from collections import deque

#: Shares are kept for so many degrees of n-reordering. TCP retransmits after three duplicate acknowledgments (RFC 5681 section
#: 3.2), so it would take the share of degree 3 for loss (RFC 4737 section 5).
DEGREES = 3
#: How many arrivals, and how many round trips, are remembered.
_MEMORY = 1024


class Reordering:
    """Reordered replies, by RFC 4737.

    An arrival is I{reordered} if its number is lower than an earlier arrival's (section 3.3: C{s < NextExp}). It is
    I{n-reordered} if each of the C{n} arrivals immediately before it has a higher number (section 5.3).

    The latest 1024 arrivals that no later arrival was below are remembered. Whether an arrival is reordered is exact, and so is
    n up to 1023. Beyond that n is a lower bound of 1023 or more: the number of arrivals since the last forgotten one.

    @ivar reordered: how many of the C{arrivals} were reordered.
    @ivar greatest: the greatest n for which an arrival was n-reordered.
    """

    def __init__(self) -> None:
        self.arrivals = 0
        self.reordered = 0
        self.greatest = 0
        self._byDegree = [0] * DEGREES
        self._next = 0
        # Sequence numbers that no later arrival was below, with their arrival index: only these can end a run.
        self._below: deque[tuple[int, int]] = deque()
        self._forgotten = 0

    def arrive(self, sequence: int) -> bool:
        """Add a reply, and return whether it is reordered."""
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
        """The share of arrivals that were reordered (RFC 4737 section 4.1), or C{None} before the first."""
        return self.reordered / self.arrivals if self.arrivals else None

    def degree(self, n: int) -> float | None:
        """The share of arrivals that were n-reordered, n from 1 to L{DEGREES} (RFC 4737 section 5.3)."""
        return self._byDegree[n - 1] / self.arrivals if self.arrivals else None

    def _remember(self, sequence: int) -> None:
        self._below.append((sequence, self.arrivals))
        if len(self._below) > _MEMORY:
            self._forgotten = self._below.popleft()[1]


class Jitter:
    """Interarrival jitter of round trips, by RFC 3550 section 6.4.1 and appendix A.8: C{J += (|D| - J)/16}, where D is the
    difference of the transit times of two consecutive arrivals.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._nanoseconds: float | None = None

    def arrive(self, nanoseconds: int) -> None:
        """Add the round trip of a reply."""
        if self._last is not None:
            before = self._nanoseconds or 0.0
            self._nanoseconds = before + (abs(nanoseconds - self._last) - before) / 16
        self._last = nanoseconds

    @property
    def value(self) -> float | None:
        """The jitter, in seconds; C{None} before the second reply."""
        return None if self._nanoseconds is None else self._nanoseconds / 1e9


class Variation:
    """Delay variation, by RFC 3393 section 2: the round trip of a probe minus that of the probe sent before it, if both have a
    reply (IPDV with consecutive packets as the selection function). Signed values cancel in the mean, so absolute values are
    kept.

    A pair whose replies come more than 1024 probes apart is left out. C{count} is the number of pairs.
    """

    def __init__(self) -> None:
        self.count = 0
        self._maxNanoseconds = 0
        self._sumNanoseconds = 0
        self._sequences = [-2] * _MEMORY
        self._roundTrips = [0] * _MEMORY

    def arrive(self, sequence: int, nanoseconds: int) -> None:
        """Add the round trip of a reply."""
        slot = sequence % _MEMORY
        self._sequences[slot] = sequence
        self._roundTrips[slot] = nanoseconds
        before = slot - 1
        if self._sequences[before] == sequence - 1:
            self._pair(abs(nanoseconds - self._roundTrips[before]))
        after = (slot + 1) % _MEMORY
        if self._sequences[after] == sequence + 1:
            self._pair(abs(nanoseconds - self._roundTrips[after]))

    @property
    def mean(self) -> float | None:
        """The mean absolute variation, in seconds; C{None} if there is no pair."""
        return self._sumNanoseconds / self.count / 1e9 if self.count else None

    @property
    def max(self) -> float | None:
        """The largest absolute variation, in seconds; C{None} if there is no pair."""
        return self._maxNanoseconds / 1e9 if self.count else None

    def _pair(self, nanoseconds: int) -> None:
        self.count += 1
        self._sumNanoseconds += nanoseconds
        self._maxNanoseconds = max(self._maxNanoseconds, nanoseconds)
