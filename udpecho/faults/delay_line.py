"""What waits inside a proxy: for its time, and how many bytes that may be."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from udpecho.net.alarm import Alarm

#: Seconds of releasing after which the reactor has its turn.
_TURN = 0.005
#: What a datagram that waits takes in addition to its payload, in bytes: its address, and its places in lists.
OVERHEAD = 512


class DelayLine:
    """Calls functions at their times, in seconds, and in the order of addition where these are equal: a reactor's delayed calls
    promise no order among equals.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._held: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._wake = Alarm(clock, self._release)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def late(self) -> bool:
        """Whether a function is due that was not called yet: what comes now has to wait behind it."""
        return bool(self._held) and self._held[0][0] <= self._clock.seconds()

    def hold(self, due: float, release: Callable[[], None]) -> None:
        """Call C{release} at the time C{due}."""
        entry = due, next(self._order), release
        heappush(self._held, entry)
        if self._held[0] is entry:
            self._setWake()

    def close(self) -> list[Callable[[], None]]:
        """Call nothing any more, and return the functions that were waiting, in their order."""
        held = [heappop(self._held)[2] for _ in range(len(self._held))]
        self._wake.cancel()
        return held

    def _setWake(self) -> None:
        if self._held:
            self._wake.schedule(max(0.0, self._held[0][0] - self._clock.seconds()))

    def _release(self) -> None:
        begin = now = self._clock.seconds()
        try:
            while self._held and self._held[0][0] <= begin and now - begin < _TURN:
                heappop(self._held)[2]()
                now = self._clock.seconds()
        finally:
            self._setWake()


class Holder(Protocol):
    """Something that has datagrams which wait.

    @ivar held: the bytes that they take.
    """

    held: int


class HeldBytes:
    """How many bytes may wait. Each holder may have as many as are left for others, so that one never takes all: one alone has
    half, two have a third each, and so on (A. K. Choudhury and E. L. Hahne, I{Dynamic queue length thresholds for
    shared-memory packet switches}, 1998).
    """

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, holder: Holder, size: int) -> bool:
        """A datagram of C{size} bytes begins to wait.

        @return: whether it may.
        """
        size += OVERHEAD
        if holder.held + size > self._left:
            return False
        holder.held += size
        self._left -= size
        return True

    def mayTake(self, holder: Holder, size: int) -> bool:
        """Whether a datagram of C{size} bytes may begin to wait."""
        return holder.held + size + OVERHEAD <= self._left

    def give(self, holder: Holder, size: int) -> None:
        """It waits no longer."""
        holder.held -= size + OVERHEAD
        self._left += size + OVERHEAD
