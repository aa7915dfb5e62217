"""The interface of a socket for probes."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from zope.interface import Attribute, Interface

from udpecho.addresses import DatagramAddress
from udpecho.errors import EchoError
from udpecho.net.linux import sockopt
from udpecho.net.sockets import TRY_AGAIN


class SocketOptions(NamedTuple):
    """What probes are sent with.

    @ivar bindAddress: the local C{(host, port)}; by default the system chooses.
    @ivar trafficClass: the byte of RFC 2474 and RFC 3168 (DSCP and ECN) that was once the type of service; C{None} for the
        system's.
    @ivar hopLimit: the time to live, or hop limit; C{None} for the system's.
    @ivar dontFragment: send each datagram whole or not at all.
    """

    bindAddress: tuple[str, int] | None = None
    trafficClass: int | None = None
    hopLimit: int | None = None
    dontFragment: bool = False

    @property
    def family(self) -> int | None:
        """4 or 6 if only peers of that family can be reached from the local address."""
        return None if self.bindAddress is None else 6 if ":" in self.bindAddress[0] else 4

    def apply(self, sock: socket.socket) -> None:
        """Set the options on a socket.

        @raise features.Refused: if the system rejects it.
        """
        if self.trafficClass is not None:
            sockopt.setTrafficClass(sock, self.trafficClass)
        if self.hopLimit is not None:
            sockopt.setHopLimit(sock, self.hopLimit)
        if self.dontFragment:
            sockopt.forbidFragments(sock)


class Undelivered(NamedTuple):
    """What the network reported about a probe; C{quoted} is the beginning of the probe, if the report has it."""

    reason: EchoError
    quoted: bytes = b""


class Taken(NamedTuple):
    """What a send call did.

    @ivar number: how many datagrams the system took.
    @ivar error: the error number for the next one; 0 if it took all.
    """

    number: int
    error: int = 0

    @property
    def full(self) -> bool:
        """Whether the send queue is full: the next one may go later."""
        return self.error in TRY_AGAIN


class Arrivals(NamedTuple):
    """What a receive call returned.

    @ivar datagrams: good until the next such call.
    @ivar stamps: when each came, in ns of the wall clock, 0 without a timestamp.
    """

    datagrams: Sequence[bytes | memoryview]
    stamps: Sequence[int]


class IProbeReceiver(Interface):
    """Is called by a probe socket that has no descriptor to be watched."""

    def datagramsArrived(arrivals: Arrivals) -> None:
        """Datagrams came."""

    def probeUndelivered(undelivered: Undelivered) -> None:
        """The network reported that a probe did not arrive."""


class IProbeSocket(Interface):
    """A socket that is connected to one peer."""

    source: DatagramAddress = Attribute("The local address.")
    stamped: bool = Attribute("Whether the kernel makes timestamps of what is sent and received.")
    most: int = Attribute("How many datagrams to send with one call.")

    def fileno() -> int:
        """The descriptor to watch, and to read when there is something; -1 if the socket calls its receiver."""

    def slot(index: int, size: int) -> memoryview | bytearray:
        """Where to write the datagram of C{size} bytes that is number C{index} of the next call. What was written there for
        earlier calls is still there.
        """

    def send(count: int) -> Taken:
        """Send the first so many slots, each with the size that L{slot} last got."""

    def receive() -> Arrivals:
        """Receive what is there, up to 64 datagrams."""

    def readErrors() -> tuple[list[tuple[int, int]], list[Undelivered]]:
        """Read all that the error queue has.

        @return: when datagrams were sent, as pairs of the number of datagrams taken before and ns of the wall clock; and what
            the network reported.
        """

    def drops() -> int | None:
        """How many datagrams the receive queue has dropped; C{None} where the system does not report it."""

    def close() -> None:
        """Close it. May be called twice."""


def explain(number: int) -> str:
    """Why the system did not send a datagram, by the error number."""
    if number == errno.EMSGSIZE:
        return "too long for the path, or for any datagram"
    return os.strerror(number) if number else "unknown error"
