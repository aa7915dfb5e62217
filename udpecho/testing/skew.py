"""The clock of a host in memory that is not exact."""

from __future__ import annotations

import math

from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from udpecho.faults.models import number
from udpecho.testing.clock import NetworkClock


class HostClock:
    """A clock that is ahead of the network's, and goes faster or slower. All times are in seconds.

    @ivar rate: how many of its seconds are in one of the network's.
    @ivar isExact: whether it shows the time of the network.
    """

    def __init__(self, network: NetworkClock) -> None:
        self._network = network
        self._offset = self._since = 0.0
        self.rate = 1.0
        self.isExact = True

    def set(self, offset: float, drift: float) -> None:
        """@see: L{udpecho.testing.lifecycle.HostLife.setClock}"""
        if not math.isfinite(number("offset", offset)):
            raise ValueError(f"offset must be a finite number of seconds, got {offset!r}")
        if not -1 < number("drift", drift) < math.inf:
            raise ValueError(f"drift must be a finite number, more than -1, got {drift!r}")
        self._offset, self._since, self.rate = offset, self._network.rightNow, 1.0 + drift
        self.isExact = not offset and not drift

    def seconds(self) -> float:
        """The time that it shows."""
        now = self._network.rightNow
        return now if self.isExact else self.at(now)

    def at(self, networkTime: float) -> float:
        """The time that it shows at a time of the network."""
        return networkTime + self._offset + (networkTime - self._since) * (self.rate - 1.0)

    def delayOf(self, seconds: float) -> float:
        """The seconds of the network in which so many pass on this clock. At the end of them it shows no less: who has waited
        expects that.
        """
        now = self._network.rightNow
        due, delay = self.at(now) + seconds, seconds / self.rate
        while math.isfinite(delay) and self.at(now + delay) < due:
            delay += math.ulp(now + delay)
        return delay


@implementer(IDelayedCall)
class HostCall:
    """A delayed call by the clock of a host."""

    def __init__(self, clock: HostClock, call: IDelayedCall) -> None:
        """@param call: the call by the clock of the network."""
        self._clock, self._call = clock, call

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HostCall) and self._call is other._call

    def __hash__(self) -> int:
        return hash(self._call)

    def getTime(self) -> float:
        """When it is made, in seconds on the host's clock."""
        return self._clock.at(self._call.getTime())

    def cancel(self) -> None:
        """@see: C{IDelayedCall.cancel}"""
        self._call.cancel()

    def delay(self, secondsLater: float) -> None:
        """@see: C{IDelayedCall.delay}"""
        self._call.delay(secondsLater / self._clock.rate)

    def reset(self, secondsFromNow: float) -> None:
        """@see: C{IDelayedCall.reset}"""
        self._call.reset(self._clock.delayOf(secondsFromNow))

    def active(self) -> bool:
        """@see: C{IDelayedCall.active}"""
        return self._call.active()
