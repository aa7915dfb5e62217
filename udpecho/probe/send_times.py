"""When the probes of a flow were sent, and the round trips that follow from it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from udpecho.probe.io.timestamps import StampIds, StepWatch, roundTrip


class SendTimes:
    """The send times of the latest probes, by the monotonic clock and by the kernel's timestamps. All times are in ns.

    It needs 16 bytes for each probe.

    @ivar last: when the latest send call ended, by the monotonic clock.
    """

    def __init__(self, window: int, steps: StepWatch) -> None:
        self._window = window
        self._steps = steps
        self._monotonic = array("q", bytes(8 * window))
        self._kernel = array("q", bytes(8 * window))
        self._ids = StampIds()
        # Kernel timestamps of probes below this are from before the wall clock was set.
        self._firstTrusted = 0
        self._sources: set[str] = set()
        self.last = 0

    def record(self, first: int, count: int, before: int, after: int) -> list[int]:
        """Remember C{count} probes from number C{first} on, which were sent by a call from C{before} to C{after}.

        @return: when each was sent: they leave one after the other, so they are spread over the duration of the call.
        """
        window, monotonic, kernel = self._window, self._monotonic, self._kernel
        for sequence in range(first, first + count):
            monotonic[sequence % window] = before
            kernel[sequence % window] = 0
        self._ids.sent(first, count)
        self.last = after
        return [before + (after - before) * index // count for index in range(count)]

    @property
    def taken(self) -> int:
        """How many datagrams the kernel has taken so far, by all sockets."""
        return self._ids.taken

    def of(self, sequence: int) -> int:
        """When the send call of a probe in the window began, by the monotonic clock."""
        return self._monotonic[sequence % self._window]

    def wallTime(self, sequence: int) -> float:
        """The same by the wall clock, in seconds since 1970."""
        return (self.of(sequence) + self._steps.offset) / 1e9

    def addTimestamps(self, stamps: Iterable[tuple[int, int]]) -> None:
        """Add kernel timestamps of sending, with the number of datagrams that the kernel had taken before each."""
        for number, time in stamps:
            sequence = self._ids.sequenceOf(number)
            if sequence is not None and sequence >= self._firstTrusted:
                self._kernel[sequence % self._window] = time

    def checkClock(self, highest: int) -> None:
        """If the wall clock was set, drop the kernel timestamps of all probes so far, up to the number C{highest}."""
        if self._steps.stepped():
            self._firstTrusted = highest + 1
            self._kernel = array("q", bytes(8 * self._window))

    def arrival(self, stamp: int, now: int) -> int:
        """When a datagram came, by the monotonic clock; the parameters are those of L{roundTrip}."""
        return min(now, stamp - self._steps.offset) if stamp else now

    def roundTrip(self, sequence: int, stamp: int, now: int) -> tuple[int, bool]:
        """The round trip of a probe in the window, by kernel timestamps if they are plausible, else by the monotonic clock.

        @param stamp: the kernel timestamp of the reply, 0 if there is none.
        @param now: when the reply was read, by the monotonic clock.
        @return: ns; and whether kernel timestamps gave it.
        """
        monotonic = now - self.of(sequence)
        kernel = roundTrip(self._kernel[sequence % self._window], stamp, monotonic)
        return (monotonic, False) if kernel is None else (kernel, True)

    def noteSource(self, byKernel: bool) -> None:
        """Note where the round trip of a first reply came from."""
        self._sources.add("kernel" if byKernel else "monotonic")

    @property
    def source(self) -> str | None:
        """Where all round trips so far came from: one of L{TIMESTAMP_SOURCES}, or C{None} before the first."""
        return "mixed" if len(self._sources) > 1 else next(iter(self._sources), None)
