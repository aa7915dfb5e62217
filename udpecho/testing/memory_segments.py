"""TCP of a network in memory: a stream of bytes in each direction, in segments that are sent again until acknowledged.

The rules are those of RFC 9293, without congestion control: a window of bytes may be on their way, and what is lost is sent
again after a pause.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple, Protocol

from twisted.internet.interfaces import IDelayedCall

#: The payload of a segment in bytes: what Ethernet carries. A plan with a lower MTU gets shorter ones.
SEGMENT = 1460
#: How many bytes may be on their way to a peer, or wait there to be read.
WINDOW = 65536
#: After how many seconds a segment is sent again (RFC 6298 section 2), as long as the round trip time is unknown, and the
#: shortest and longest time; twice as long each time.
FIRST_PAUSE, SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 0.2, 120.0
#: How often a segment is sent again, and the first one of a connection (C{tcp_retries2}, C{tcp_syn_retries} in C{tcp(7)}).
RETRIES, SYN_RETRIES = 15, 6
#: Likewise if the program has closed a connection and not read everything (C{tcp_orphan_retries}).
ORPHAN_RETRIES = 8

#: An IP address and a port.
Endpoint = tuple[str, int]


class Segment(NamedTuple):
    """A TCP segment.

    @ivar number: the number of its first byte. SYN and FIN count as a byte each.
    @ivar acknowledged: the number that its sender expects next, C{None} in the first segment of a connection.
    @ivar time: when it was sent, on its sender's clock, and C{echo} that of the last segment that this one had got (RFC 7323).
    """

    source: Endpoint
    destination: Endpoint
    number: int
    acknowledged: int | None
    data: bytes = b""
    isSyn: bool = False
    isFin: bool = False
    isReset: bool = False
    time: float = 0.0
    echo: float = 0.0

    @property
    def end(self) -> int:
        """The number behind its last byte."""
        return self.number + len(self.data) + self.isSyn + self.isFin

    def reset(self) -> Segment:
        """The answer of a host that knows nothing of the connection."""
        return Segment(self.destination, self.source, self.acknowledged or 0, self.end, isReset=True)


class SegmentHost(Protocol):
    """What a connection needs of its host."""

    def firstNumber(self) -> int:
        """The first number of a new connection, far from those of others."""

    def seconds(self) -> float:
        """The time in seconds."""

    def segmentLater(self, delay: float, what: Callable[[], object]) -> IDelayedCall:
        """Call something of this host's system later, which no program sees."""

    def segmentSize(self, destination: str) -> int:
        """The longest payload of a segment to an address, in bytes."""

    def sendSegment(self, segment: Segment) -> None:
        """Send a segment, which may be lost."""

    def streamOver(self, stream: Exchange) -> None:
        """A connection needs its addresses no more."""

    def streamChanged(self, stream: Exchange) -> None:
        """A connection may be readable or writable now."""


class Exchange:
    """One end of a connection.

    @ivar received: what has arrived and was not read. It is acknowledged when it is read, so that a writer waits for a reader.
    @ivar ended: whether the peer has sent its last byte.
    @ivar failure: why the connection is broken, or was not made: an error number, or 0.
    @ivar isConnected: whether it is made, and not broken.
    @ivar isClosed: whether the program has closed it. What was written before is sent nevertheless.
    """

    def __init__(self, host: SegmentHost) -> None:
        self.host = host
        self.local: Endpoint = ("", 0)
        self.remote: Endpoint = ("", 0)
        self.received = bytearray()
        self.ended = self.isConnected = self.isClosed = False
        self.failure = 0
        self._expected: int | None = None
        self._early: dict[int, Segment] = {}
        # The first number that is not acknowledged, and what is sent from there on.
        self._number = 0
        self._out = bytearray()
        self._isOpening = self._isFinished = self._finWasTaken = False
        self._echo = 0.0
        self._shortest = self._pause = FIRST_PAUSE
        self._tries = 0
        self._timer: IDelayedCall | None = None

    # What a program does

    @property
    def space(self) -> int:
        """How many bytes may be written now."""
        return WINDOW - len(self._out) if self.isConnected and not self._isFinished else 0

    def open(self, request: Segment | None = None) -> None:
        """Ask a peer for a connection, or answer its request."""
        if request is not None:
            self._expected, self._echo = request.end, request.time
        self._number = self.host.firstNumber()
        self._isOpening = True
        self._sendFrom(0)

    def write(self, data: bytes) -> None:
        """Send bytes, for which there must be space."""
        place = len(self._out)
        self._out += data
        self._sendFrom(place)

    def finish(self) -> None:
        """Send nothing more: the peer gets to know after all that was written before."""
        if self.isConnected and not self._isFinished:
            self._isFinished = True
            self._sendFrom(len(self._out))

    def acknowledge(self) -> None:
        """Let the peer know what was read."""
        if self._isOpening:
            self._sendFrom(0)
        elif not self.failure:
            self._send(self._end)

    def abort(self) -> None:
        """Break the connection: the peer gets C{ECONNRESET}, unless that is lost."""
        if self._expected is not None and not self.failure:
            self.host.sendSegment(Segment(self.local, self.remote, self._end, self._taken, isReset=True))
        self.fail(errno.ECONNABORTED)

    def fail(self, failure: int) -> None:
        """The connection is broken, and the peer is not notified."""
        if self.failure:
            return
        self.failure, self.isConnected = failure, False
        self._out.clear()
        self._early.clear()
        self._stopTimer()
        self.host.streamOver(self)
        self.host.streamChanged(self)

    def leave(self) -> None:
        """Free the addresses, if it is closed and the peer has all that was written. A peer that wrote what nobody reads gets a
        reset. Linux sends that at once, and what was lost of this side's data stays so (RFC 9293 section 3.10.4, RFC 2525).
        """
        if self.isClosed and self._finWasTaken:
            if self.received:
                self.abort()
            elif self.ended:
                self.host.streamOver(self)

    def made(self) -> None:
        """The connection is made."""

    # What arrives

    def arrive(self, segment: Segment) -> None:
        """A segment of the peer arrives."""
        self._echo = segment.time
        if not self._isUnwanted:
            self._tries = 0
        if segment.isReset:
            if self._isMeant(segment):
                self.fail(errno.ECONNREFUSED if self._expected is None else errno.ECONNRESET)
            return
        if self._expected is None:
            if not segment.isSyn:
                # Of a connection that was before this one.
                self.host.sendSegment(segment.reset())
                return
            self._expected = segment.number
        if segment.acknowledged is not None:
            self._acknowledged(segment.acknowledged, segment.echo)
        if segment.end > segment.number:
            self._take(segment)
        self.leave()
        self.host.streamChanged(self)

    def _isMeant(self, reset: Segment) -> bool:
        """Whether a reset is for this connection, not for an earlier one of the same addresses (RFC 9293 section 3.5.3)."""
        if self._expected is None:
            return reset.acknowledged == self._end
        return abs(reset.number - self._expected) <= WINDOW

    def _acknowledged(self, number: int, echo: float) -> None:
        """The peer expects a number next, and has got a segment that was sent at a time."""
        if not self._number < number <= self._end:
            return
        if self._isOpening:
            self._isOpening = False
            self._number += 1
            # RFC 6298 section 2.2, of the first round trip time alone.
            self._shortest = min(max(SHORTEST_PAUSE, 3 * (self.host.seconds() - echo)), LONGEST_PAUSE)
            self.isConnected = True
            self.made()
        count = number - self._number
        self._finWasTaken = count > len(self._out)
        del self._out[:count]
        self._number = number
        self._pause = self._shortest
        self._tries = 0
        self._stopTimer()
        self._startTimer()

    def _take(self, segment: Segment) -> None:
        """Take the bytes of a segment, if it is their turn, else when it is."""
        assert self._expected is not None
        isNew = segment.end > self._expected
        if isNew and segment.number < self._expected + WINDOW:
            self._early[segment.number] = segment
            for number in sorted(self._early):
                if number > self._expected:
                    break
                self._append(self._early.pop(number))
        if not isNew or segment.isSyn or self.ended:
            self.acknowledge()

    def _append(self, segment: Segment) -> None:
        assert self._expected is not None
        if segment.end > self._expected:
            self.received += segment.data[self._expected - segment.number :]
            self.ended = segment.isFin
            self._expected = segment.end

    # What is sent

    @property
    def _isUnwanted(self) -> bool:
        """Whether the peer has written what nobody will read."""
        return self.isClosed and bool(self.received)

    @property
    def _end(self) -> int:
        """The number behind all that was sent."""
        return self._number + self._isOpening + len(self._out) + (self._isFinished and not self._finWasTaken)

    @property
    def _taken(self) -> int | None:
        """The number behind what was read."""
        return None if self._expected is None else self._expected - len(self.received)

    def _sendFrom(self, place: int) -> None:
        """Send what is not acknowledged, from a place in it on."""
        if self._isOpening:
            self._send(self._number, isSyn=True)
        else:
            size = self.host.segmentSize(self.remote[0])
            for begin in range(place, len(self._out), size):
                self._send(self._number + begin, bytes(self._out[begin : begin + size]))
            if self._isFinished and not self._finWasTaken:
                self._send(self._number + len(self._out), isFin=True)
        self._startTimer()

    def _send(self, number: int, data: bytes = b"", isSyn: bool = False, isFin: bool = False) -> None:
        now = self.host.seconds()
        self.host.sendSegment(
            Segment(self.local, self.remote, number, self._taken, data, isSyn, isFin, time=now, echo=self._echo)
        )

    def _startTimer(self) -> None:
        if self._timer is None and self._end > self._number:
            self._timer = self.host.segmentLater(self._pause, self._sendAgain)

    def _stopTimer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sendAgain(self) -> None:
        self._timer = None
        self._tries += 1
        if self._isUnwanted and self._tries > ORPHAN_RETRIES:
            self.abort()
        elif self._tries > (SYN_RETRIES if self._isOpening else RETRIES):
            self.fail(errno.ETIMEDOUT)
        else:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._sendFrom(0)
