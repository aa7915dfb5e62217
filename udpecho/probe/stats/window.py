"""The outcomes of the latest probes, one byte each, and the counts of all."""

from __future__ import annotations

import re

from udpecho.probe.outcomes import PROBE_OUTCOMES, Outcome

#: States of probes, as bytes in the window. The window does not distinguish loss by the network from loss by our own queue.
OUTSTANDING, ANSWERED, LATE, LOST, REFUSED, UNREACHABLE, NOT_SENT = range(7)
#: The outcome of each state.
OUTCOMES = tuple(each for each in PROBE_OUTCOMES if each is not Outcome.LOST_OWN)
_notSent = bytes([NOT_SENT])
_losses = re.compile(bytes([LOST]) + b"+")


class ProbeWindow:
    """The states of probes, which are numbered from 0 without gaps.

    The latest states are kept in a ring and may change; earlier ones are final and only counted. A probe that is still
    outstanding when it leaves the window is lost.

    @ivar counts: the number of all probes in each state.
    @ivar highest: the number of the latest probe, -1 before the first.
    """

    def __init__(self, window: int) -> None:
        """@param window: the number of probes to remember, 1 or more; more than are ever outstanding."""
        if window < 1:
            raise ValueError(f"window must be 1 probe or more, got {window}")
        self.counts = [0] * len(OUTCOMES)
        self.highest = -1
        self._window = window
        self._ring = bytearray(window)
        self._oldest = 0
        self._run = 0
        self._longest = 0

    def add(self, sequence: int, state: int) -> None:
        """Add the next probe; another one raises C{ValueError}."""
        if sequence != self.highest + 1:
            raise ValueError(f"sequence must be {self.highest + 1}, the next, got {sequence}")
        slot = sequence % self._window
        if sequence >= self._window:
            self._retire(self._ring[slot])
        self._ring[slot] = state
        self.highest = sequence
        self.counts[state] += 1

    def get(self, sequence: int) -> int | None:
        """The state of a probe; C{None} if it was not added, or is forgotten."""
        if 0 <= sequence <= self.highest < sequence + self._window:
            return self._ring[sequence % self._window]
        return None

    def change(self, sequence: int, state: int) -> None:
        """Change the state of a probe in the window."""
        slot = sequence % self._window
        self.counts[self._ring[slot]] -= 1
        self.counts[state] += 1
        self._ring[slot] = state

    @property
    def oldestOutstanding(self) -> int | None:
        """The number of the first outstanding probe, or C{None}."""
        sequence = max(self._oldest, self.highest - self._window + 1)
        while sequence <= self.highest and self._ring[sequence % self._window] != OUTSTANDING:
            sequence += 1
        # No probe becomes outstanding again.
        self._oldest = sequence
        return sequence if sequence <= self.highest else None

    @property
    def longestLossRun(self) -> int:
        """The largest number of consecutive losses. Probes that were not sent are skipped, any other state ends a run."""
        first = (self.highest + 1) % self._window if self.highest >= self._window else 0
        last = min(self.highest + 1, self._window)
        inOrder = (self._ring[first:last] + self._ring[:first]) if first else self._ring[:last]
        longest = max(self._longest, self._run)
        for run in _losses.finditer(inOrder.translate(None, _notSent)):
            longest = max(longest, run.end() - run.start() + (0 if run.start() else self._run))
        return longest

    def _retire(self, state: int) -> None:
        if state == OUTSTANDING:
            self.counts[OUTSTANDING] -= 1
            self.counts[LOST] += 1
            state = LOST
        if state == LOST:
            self._run += 1
            self._longest = max(self._longest, self._run)
        elif state != NOT_SENT:
            self._run = 0
