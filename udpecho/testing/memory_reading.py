"""What Twisted's own UDP port has beyond its interfaces, and programs use: attributes, and reading that pauses."""

from __future__ import annotations

import socket
from collections import deque
from typing import Any, cast

from twisted.internet import defer, udp

from udpecho.addresses import DatagramAddress

#: How many bytes wait in a port that does not read (C{rmem_default} in C{socket(7)}).
RECEIVE_BUFFER = 212992
#: What each datagram takes of that beside its payload, so that empty ones do not wait without end (C{struct sk_buff} in Linux).
OVERHEAD = 256


class ReadingPort:
    """A port of a host in memory, as C{twisted.internet.udp.Port} has it. It has no socket, and so no descriptor.

    @ivar host: the host.
    @ivar port: the number that was asked for, 0 for any.
    @ivar interface: the address that it is bound to.
    @ivar maxPacketSize: the longest datagram that the protocol gets, in bytes.
    @ivar connected: whether it is open.
    @ivar isWaiting: whether datagrams wait in it.
    """

    host: Any
    port: int
    interface: str
    maxPacketSize: int
    connected: bool
    protocol: Any
    socketType = socket.SOCK_DGRAM
    maxThroughput = udp.Port.maxThroughput
    disconnecting = False

    def __init__(self) -> None:
        self.isWaiting = self._isPaused = False
        self._waiting: deque[tuple[bytes, DatagramAddress, DatagramAddress, int, int]] = deque()
        self._waitingBytes = self._overflowed = 0

    @property
    def reactor(self) -> Any:
        """The host."""
        return self.host

    @property
    def addressFamily(self) -> socket.AddressFamily:
        """C{AF_INET} or C{AF_INET6}."""
        return socket.AF_INET6 if ":" in self.interface else socket.AF_INET

    @property
    def disconnected(self) -> bool:
        """Whether it is closed."""
        return not self.connected

    @property
    def logstr(self) -> str:
        """How Twisted's log calls it."""
        return f"{type(self.protocol).__name__} (UDP)"

    def logPrefix(self) -> str:
        """The same."""
        return self.logstr

    def getKernelDrops(self) -> int:
        """How many datagrams were lost while the receive buffer was full: while the port did not read."""
        return self._overflowed

    def stopListening(self) -> defer.Deferred[None]:
        """Receive nothing more, and stop in the next turn."""
        raise NotImplementedError

    def loseConnection(self) -> None:
        """Stop, as L{stopListening}."""
        self.stopListening()

    def stopReading(self) -> None:
        """Let datagrams wait until L{startReading}. What does not fit into the receive buffer is lost."""
        self.isWaiting = self._isPaused = True

    def startReading(self) -> None:
        """Read again, from the next turn on."""
        if self._isPaused:
            self._isPaused = False
            self.host.callLater(0, self._read)

    pauseProducing = stopReading
    resumeProducing = startReading

    def wait(self, *arrived: Any) -> None:
        """Keep a datagram: the arguments are those of L{receive}."""
        size = len(arrived[0]) + OVERHEAD
        if self._waitingBytes + size > RECEIVE_BUFFER:
            self._overflowed += 1
            return
        self._waitingBytes += size
        self._waiting.append(cast("tuple[bytes, DatagramAddress, DatagramAddress, int, int]", arrived))

    def _read(self) -> None:
        while self._waiting and not self._isPaused:
            arrived = self._waiting.popleft()
            self._waitingBytes -= len(arrived[0]) + OVERHEAD
            self.isWaiting = False
            try:
                self.receive(*arrived)
            finally:
                self.isWaiting = True
        self.isWaiting = self._isPaused

    def receive(
        self, datagram: bytes, source: DatagramAddress, destination: DatagramAddress, hopLimit: int, ecn: int = 0
    ) -> None:
        """A datagram arrives."""
        raise NotImplementedError
