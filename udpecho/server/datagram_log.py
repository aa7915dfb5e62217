"""The log lines of datagrams: a limited number a second, and one line with the sum of the others."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from udpecho.addresses import formatAddress
from udpecho.interfaces import IDatagramLog
from udpecho.net.monotonic import useMonotonicTime

_log = Logger(namespace="udpecho.server.protocol")

#: How many datagrams a second get their lines in the log.
DEFAULT_LOG_RATE = 10


@implementer(IDatagramLog)
class DatagramLog:
    """Logs a line for a datagram that came in and one for its reply, for the first datagrams of each second. The others are
    added up in one line a second.
    """

    def __init__(self, rate: int | None = DEFAULT_LOG_RATE, clock: IReactorTime | None = None) -> None:
        """@param rate: how many datagrams a second get their lines; C{None} for all of them.
        @param clock: measures the seconds, and calls for the sum at the end of each. Without one the sum is written with the
            next datagram, or on closing.
        """
        if clock is not None:
            useMonotonicTime(clock)
        self._rate = rate
        self._clock = clock
        self._seconds: Callable[[], float] = time.monotonic if clock is None else clock.seconds
        self._windowEnds: float | None = None
        self._left = 0
        self._timer: IDelayedCall | None = None
        self._sums = [0, 0, 0, 0]

    def setRate(self, rate: int | None) -> None:
        """Change the rate, in datagrams a second, C{None} for all of them. A new second begins."""
        self.close()
        self._rate = rate
        self._windowEnds = None

    def received(self, size: int, address: tuple[str, int]) -> bool:
        """Log a datagram that came in, or add it to the sum. Returns whether it got its line."""
        if not self.wantsLines():
            self.addUnlogged(1, size, 0, 0)
            return False
        self._left -= 1
        self._logReceived(size, address)
        return True

    def written(self, size: int, address: tuple[str, int], logged: bool) -> None:
        """Log a reply if its datagram was C{logged}, or add it to the sum."""
        if logged:
            self._logWritten(size, address)
        else:
            self.addUnlogged(0, 0, 1, size)

    def wantsLines(self) -> int:
        """How many of the next datagrams would get their lines; C{True} for all of them."""
        if not self._rate:
            return self._rate is None
        now = self._seconds()
        if self._windowEnds is None or now >= self._windowEnds:
            self._writeSums()
            self._windowEnds = now + 1
            self._left = self._rate
        return self._left

    def addUnlogged(self, received: int, receivedBytes: int, written: int, writtenBytes: int) -> None:
        """Add to the sum."""
        if self._rate:
            sums = self._sums
            sums[0] += received
            sums[1] += receivedBytes
            sums[2] += written
            sums[3] += writtenBytes
            if self._timer is None and self._clock is not None and self._windowEnds is not None:
                left = max(0.0, self._windowEnds - self._clock.seconds())
                self._timer = self._clock.callLater(left, self._secondEnded)

    def close(self) -> None:
        """Write the sum. May be called often."""
        if self._timer is not None:
            self._timer.cancel()
        self._secondEnded()

    def _secondEnded(self) -> None:
        self._timer = None
        self._writeSums()

    def _writeSums(self) -> None:
        received, receivedBytes, written, writtenBytes = self._sums
        if received or written:
            self._sums = [0, 0, 0, 0]
            self._logSums(received, receivedBytes, written, writtenBytes)

    # Where the lines go

    def _logReceived(self, size: int, address: tuple[str, int]) -> None:
        _log.info("packet-received: bytes={bytes} from={from}", bytes=size, **{"from": formatAddress(address)})

    def _logWritten(self, size: int, address: tuple[str, int]) -> None:
        _log.info("packet-written: bytes={bytes} to={to}", bytes=size, to=formatAddress(address))

    def _logSums(self, received: int, receivedBytes: int, written: int, writtenBytes: int) -> None:
        _log.info(
            "datagrams-not-logged: received={received} bytes={receivedBytes} written={written} bytes={writtenBytes}",
            received=received,
            receivedBytes=receivedBytes,
            written=written,
            writtenBytes=writtenBytes,
        )
