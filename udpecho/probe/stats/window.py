"""What became of the latest probes, one byte for each, and the count of all there ever were."""

from __future__ import annotations

import re

from udpecho.probe.outcomes import Outcome

#: The fates of probes, numbers as they are looked at for each. Of a probe that timed out the window does not know whose loss it
#: is.
OUTSTANDING, ANSWERED, LATE, LOST, REFUSED, UNREACHABLE, NOT_SENT = range(7)
#: What they are in reports.
FATES = (
    Outcome.OUTSTANDING,
    Outcome.ANSWERED,
    Outcome.LATE,
    Outcome.LOST,
    Outcome.REFUSED,
    Outcome.UNREACHABLE,
    Outcome.NOT_SENT,
)
_notSent = bytes([NOT_SENT])
_losses = re.compile(bytes([LOST]) + b"+")


class ProbeWindow:
    """
    The fates of probes that are numbered from 0, without gaps.

    The latest are remembered, in a ring; what became of those before is final, and only counted. One that is still outstanding
    when its place is needed is lost.

    @ivar counts: how many probes have each fate now, of all there ever were.
    @ivar highest: the number of the last probe, -1 before the first.
    """

    def __init__(self, window: int) -> None:
        """
        @param window: how many probes are remembered; more than are ever outstanding.

        @raise ValueError: if there is not one.
        """
        if window < 1:
            raise ValueError(f"{window} is not a window: a number of probes from 1 is")
        self.counts = [0] * len(FATES)
        self.highest = -1
        self._window = window
        self._ring = bytearray(window)
        self._oldest = 0
        self._run = 0
        self._longest = 0

    def add(self, sequence: int, fate: int) -> None:
        """
        The next probe has its turn.

        @raise ValueError: if it is not the next.
        """
        if sequence != self.highest + 1:
            raise ValueError(f"{sequence} is not the number of the next probe: {self.highest + 1} is")
        slot = sequence % self._window
        if sequence >= self._window:
            self._retire(self._ring[slot])
        self._ring[slot] = fate
        self.highest = sequence
        self.counts[fate] += 1

    def get(self, sequence: int) -> int | None:
        """What became of a probe, so far; C{None} if that is forgotten, or it had no turn."""
        if 0 <= sequence <= self.highest < sequence + self._window:
            return self._ring[sequence % self._window]
        return None

    def change(self, sequence: int, fate: int) -> None:
        """Another thing became of a probe that is remembered."""
        slot = sequence % self._window
        self.counts[self._ring[slot]] -= 1
        self.counts[fate] += 1
        self._ring[slot] = fate

    @property
    def oldestOutstanding(self) -> int | None:
        """The number of the first probe that is under way, or C{None}."""
        sequence = max(self._oldest, self.highest - self._window + 1)
        while sequence <= self.highest and self._ring[sequence % self._window] != OUTSTANDING:
            sequence += 1
        # A probe that is under way no more is never under way again.
        self._oldest = sequence
        return sequence if sequence <= self.highest else None

    @property
    def longestLossRun(self) -> int:
        """
        How many probes were lost one after the other, at most. Those that were not sent do not count, and end no run; any other
        fate ends it.
        """
        first = (self.highest + 1) % self._window if self.highest >= self._window else 0
        last = min(self.highest + 1, self._window)
        inOrder = (self._ring[first:last] + self._ring[:first]) if first else self._ring[:last]
        longest = max(self._longest, self._run)
        for run in _losses.finditer(inOrder.translate(None, _notSent)):
            longest = max(longest, run.end() - run.start() + (0 if run.start() else self._run))
        return longest

    def inWindow(self) -> list[int]:
        """How many of those remembered have each fate, counted afresh."""
        remembered = self._ring[: self.highest + 1]
        return [remembered.count(fate) for fate in range(len(FATES))]

    def _retire(self, fate: int) -> None:
        if fate == OUTSTANDING:
            self.counts[OUTSTANDING] -= 1
            self.counts[LOST] += 1
            fate = LOST
        if fate == LOST:
            self._run += 1
            self._longest = max(self._longest, self._run)
        elif fate != NOT_SENT:
            self._run = 0
