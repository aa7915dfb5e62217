"""Receive datagrams, and hand them to the protocol one by one."""

from __future__ import annotations

import errno
import sys
from collections import Counter, deque
from collections.abc import Sized
from contextlib import suppress
from enum import Enum
from mmap import mmap

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from udpecho.addresses import plainAddress
from udpecho.interfaces import IDropReceiver
from udpecho.net.endpoints import PortContext
from udpecho.net.failure_log import FailureLog
from udpecho.net.linux import cmsg, sockopt
from udpecho.net.sockets import MAX_DATAGRAM, TRY_AGAIN
from udpecho.net.sources import Sources

#: Windows reports a datagram that is longer than the buffer as an error of reading.
_truncatedOnWindows = errno.EMSGSIZE if sys.platform == "win32" else None

#: How many datagrams to take from a socket that was replaced: they may come as fast as they are read.
MAX_BACKLOG = 4096
#: After so many datagrams that came alone, look for a second one only once in so many more. The reactor finds it in the next
#: turn, and a system call less for each is a fifth of what a datagram costs.
ALONE = 8

_nothing = cmsg.Controls()

_log = Logger()


class Found(Enum):
    """What a reader knows of the receive queue when it returns: it was seen empty; there may be more, to read on; or it was not
    looked at again.
    """

    EMPTY = 1
    MORE = 2
    UNKNOWN = 3


class Handover:
    """Hands datagrams to a protocol, or drops those that are not for it.

    @cvar survives: what the protocol may raise without that this raises it.
    """

    survives: type[BaseException] = Exception

    def __init__(self, protocol: DatagramProtocol, maxPacketSize: int, dropped: Counter[str], sources: Sources) -> None:
        """@param maxPacketSize: the longest datagram to hand over, in bytes.
        @param dropped: where to count what is dropped, by reason.
        @param sources: makes what the protocol gets as the source of a datagram.
        """
        self.protocol = protocol
        self.sources = sources
        self._maxPacketSize = maxPacketSize
        self._dropped = dropped
        self.failures = FailureLog(_log)

    def deliver(self, datagram: bytes, address: tuple[str, int], reason: str | None = None) -> None:
        """Hand a datagram over, if it is not too long. What the protocol raises is logged.

        @param address: what the protocol gets.
        @param reason: why it is dropped, if it is.
        """
        if reason is None and len(datagram) > self._maxPacketSize:
            reason = "truncated"
        if reason is not None:
            self.drop(reason, len(datagram), address)
            return
        try:
            self.protocol.datagramReceived(datagram, address)
        except self.survives:
            self.failed()

    def failed(self) -> None:
        """The protocol has raised something."""
        self.failures.failure("Unhandled error in datagramReceived of {protocol}", protocol=self.protocol)

    def drop(self, reason: str, size: int, address: tuple[str, int]) -> None:
        """Count a datagram that is not handed over, and notify a protocol that counts too."""
        self._dropped[reason] += 1
        if IDropReceiver.providedBy(self.protocol):
            try:
                self.protocol.datagramDropped(reason, size, address)
            except self.survives:
                self.failures.failure("Unhandled error in datagramDropped of {protocol}", protocol=self.protocol)


class Delivery(Handover):
    """Hands datagrams to a protocol one by one, as long as it wants them and none waits for the send queue.

    @ivar wanted: whether the protocol wants datagrams.
    @ivar backlog: what was received and not handed over, each with the reason if it is dropped.
    """

    # As the stock port: the reactor would close the port, and go on.
    survives = BaseException

    def __init__(self, context: PortContext, waiting: Sized) -> None:
        super().__init__(context.protocol, context.maxPacketSize, context.dropped, context.endpoints.sources)
        self._context = context
        self._endpoints = context.endpoints
        self.waiting = waiting
        self._closed = False
        self.wanted = False
        self.backlog: deque[tuple[bytes, tuple[str, int], str | None]] = deque()

    def deliver(self, datagram: bytes, address: tuple[str, int], reason: str | None = None) -> None:
        """Hand a datagram to the protocol, if it is for it."""
        if self._context.renewal is not None:
            self._context.renewal.received()
        if self._endpoints.peer is not None and not self._endpoints.isPeer(address):
            # From another address, queued before the port was connected.
            self._dropped["not_allowed"] += 1
        else:
            super().deliver(datagram, address, reason or ("send_failed" if self._closed else None))

    def flush(self) -> None:
        """Hand over the backlog, until the turn is over. When the port is closed, count it at once: nobody gets it."""
        backlog, endpoints, turn, waiting = self.backlog, self._endpoints, self._context.turn, self.waiting
        while backlog and self.wanted and not waiting:
            datagram, address, reason = backlog.popleft()
            if reason is None and endpoints.peer is None:
                # As deliver() does; for each datagram of a flood, calls cost as much as all the rest.
                try:
                    self.protocol.datagramReceived(datagram, address)
                except BaseException:
                    self.failed()
            else:
                self.deliver(datagram, address, reason)
            if turn.seconds() >= turn.until:
                break
        while backlog and self._closed:
            self.deliver(*backlog.popleft())
        if self.wanted and not waiting:
            self.flushSoon()

    def flushSoon(self) -> None:
        """Go on with the backlog in the next turn: no event of the reactor comes for what the system has no more."""
        if self.backlog:
            self._context.turn.postpone(self.flush)

    def close(self) -> None:
        """Hand over nothing more. The backlog is dropped, and so is what is added to it."""
        self.wanted, self._closed = False, True
        self._context.turn.forget(self.flush)
        self.flush()


class Reader:
    """A way to receive and to hand over. A batch goes back by C{sendmmsg(2)}, and what is given to C{write} by the L{Sender
    <udpecho.net.sender.Sender>}.
    """

    def __init__(self, context: PortContext, delivery: Delivery) -> None:
        self._context = context
        self._delivery = delivery
        self._alone = 0

    def read(self) -> Found:
        """Receive, and hand over what was received.

        @raise OSError: if there is nothing.
        """
        raise NotImplementedError

    def portConnected(self) -> None:
        """The port becomes connected: add to the backlog what only this reader can receive."""

    def close(self) -> None:
        """The socket is closed."""


class PlainReader(Reader):
    """Receives one datagram with one call."""

    def __init__(self, context: PortContext, delivery: Delivery, readsAll: bool = False) -> None:
        """@param readsAll: whether the socket may report more than a reply needs, as it does for batches."""
        super().__init__(context, delivery)
        self._endpoints = context.endpoints
        self._sources = context.endpoints.sources
        # One byte more than is wanted: a longer datagram is not truncated without notice. GRO batches may be longer.
        self._bufferSize = context.maxPacketSize + 1
        self._memory = mmap(-1, max(MAX_DATAGRAM, self._bufferSize))
        self._buffer = memoryview(self._memory)[: self._bufferSize]
        self._readsAll = sockopt.available and (readsAll or context.adopted)

    def read(self) -> Found:
        """Receive datagrams, as long as the protocol wants them and the turn has time."""
        if ALONE <= self._alone < 2 * ALONE:
            self._alone += 1
            self.readOne()
            return Found.UNKNOWN
        delivery, waiting, turn, endpoints = self._delivery, self._delivery.waiting, self._context.turn, self._endpoints
        self.readOne()
        self._alone = min(self._alone, ALONE - 1) + 1
        # A connected port has errors to look for, and another reader if it is new.
        while delivery.wanted and not waiting and endpoints.peer is None and turn.seconds() < turn.until:
            try:
                self.readOne()
            except OSError as e:
                if e.errno not in TRY_AGAIN:
                    raise
                return Found.EMPTY
            self._alone = 0
        return Found.MORE

    def readOne(self) -> None:
        """Receive one datagram, and hand it over."""
        datagram, address, reason = self.receive()
        delivery = self._delivery
        if delivery.backlog or self._endpoints.peer is not None or reason is not None or len(datagram) == self._bufferSize:
            delivery.backlog.append((datagram, address, reason))
            delivery.flush()
        else:
            try:
                delivery.protocol.datagramReceived(datagram, address)
            except BaseException:
                delivery.failed()

    def receive(self) -> tuple[bytes, tuple[str, int], str | None]:
        """Receive a datagram, as the backlog has it.

        @raise OSError: if there is none.
        """
        endpoints = self._endpoints
        if endpoints.pktinfo or endpoints.hopLimits or self._readsAll:
            return self._receiveWithControls()
        try:
            size, name = self._context.socket.recvfrom_into(self._buffer)
        except OSError as e:
            if e.errno != _truncatedOnWindows:
                raise
            # Windows does not report the sender.
            return bytes(self._bufferSize), plainAddress(endpoints.peer or ("", 0)), "truncated"
        if self._sources.wantsDetails or len(name) != 2:
            # The flow of IPv6 is no matter to others.
            key = name[:2] + name[3:] if not self._sources.wantsDetails else name
            name = self._sources.usual.get(key) or self._sources.handOver(key, name, endpoints.arrival(_nothing))
        return self._memory[:size], name, "truncated" if size == self._bufferSize else None

    def _receiveWithControls(self) -> tuple[bytes, tuple[str, int], str | None]:
        size, received, name = cmsg.receive(self._context.socket, self._memory)
        key, reason = (name, received[1], *received[0]), None
        address = self._sources.usual.get(key)
        if address is None:
            controls = cmsg.readControls(received)
            arrival, segment = self._endpoints.arrival(controls), controls.segment
            isUsual = controls.expected and arrival.answerable and arrival.reason is None and not segment
            address, reason = self._sources.handOver(key, name, arrival, isUsual), arrival.reason
            if not (controls.expected and arrival.answerable):
                self._context.restoreOptions()
            if segment and size > segment:
                last = (size - 1) // segment * segment
                earlier = [(self._memory[at : at + segment], address, reason) for at in range(0, last, segment)]
                self._delivery.backlog.extend(earlier)
                return self._memory[last:size], address, reason
        return self._memory[:size], address, reason

    def receiveSome(self, most: int) -> None:
        """Add to the backlog what is queued, until the turn is over or the backlog has so many datagrams."""
        with suppress(OSError):
            while len(self._delivery.backlog) < most:
                self._delivery.backlog.append(self.receive())
                if self._context.turn.isOver():
                    return
