"""The contracts between the packages of udpecho, and what a protocol may implement to be notified of more by a L{DatagramPort
<udpecho.net.port.DatagramPort>} than Twisted's own interfaces have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from twisted.internet.interfaces import IListeningPort, IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from zope.interface import Attribute, Interface

from udpecho.addresses import DatagramAddress
from udpecho.errors import EchoError

#: A reactor parameter of the public API. What Twisted itself calls the reactor, C{from twisted.internet import reactor}, is a
#: module to a type checker without plugins, so that no interface fits; docstrings name the interfaces that are needed.
Reactor: TypeAlias = Any

#: Called with the outcome of some datagrams of a batch: C{None} if the system took them, else the reason why not; how many they
#: are; and their payload in bytes, altogether.
BatchSendCallback = Callable[["str | None", int, int], None]
#: Called with the outcome of a datagram: C{None} if the system took it, else the reason why not.
SendCallback = Callable[["str | None"], None]


class GuardLike(Protocol):
    """What a guard must have: L{IGuard} for parameters of the public API, since a type checker without plugins takes an object
    for no provider of an interface of zope's.
    """

    def refuse(self, size: int, address: tuple[str, int], /) -> str | None:
        """Decide about one datagram, as L{IGuard.refuse} does."""


class IDatagramTransport(IUDPTransport, Interface):
    """A UDP transport that reports the outcome of each datagram that it sends."""

    def send(datagram: bytes, address: tuple[str, int] | None, callback: SendCallback) -> int:
        """Send a datagram, now or as soon as the send queue has space.

        @param datagram: the payload.
        @param address: the peer; C{None} in connected mode.
        @param callback: called exactly once, perhaps before this method returns: with C{None} when the system has taken the
            datagram, else with the reason why it never will, C{"send_failed"}, C{"send_timeout"} or C{"unanswerable"}.
        @return: the system's error number if it has rejected the datagram, else 0.
        """

    def abort() -> None:
        """Stop and close at once: when this returns, the socket is closed and the reactor does not watch it any more."""


class IDatagramReactor(Interface):
    """A reactor without file descriptors that has the ports of L{udpecho.net.open.listen} nevertheless: one in memory."""

    def listenDatagrams(
        port: int,
        protocol: DatagramProtocol,
        interface: str,
        maxPacketSize: int,
        ipv6Only: bool,
        decrementHopLimit: bool | None = None,
        listenMultiple: bool = False,
        writeRaises: bool = True,
    ) -> IListeningPort:
        """Listen, as L{udpecho.net.open.listen} does."""


class INetworkErrorReceiver(Interface):
    """A protocol that is notified of network errors about datagrams that it sent in connected mode, beyond
    C{connectionRefused}.
    """

    def networkError(reason: EchoError) -> None:
        """An earlier datagram did not arrive. Called from the reactor, never from inside C{write}.

        @param reason: L{HostUnreachable <udpecho.errors.HostUnreachable>} or its subclass L{NetworkUnreachable
            <udpecho.errors.NetworkUnreachable>}, or L{MessageTooLong <udpecho.errors.MessageTooLong>} when the path to the
            peer carries less.
        """


class IUndeliveredReceiver(Interface):
    """A protocol that wants each network error about datagrams it sent in connected mode, with the datagram, in place of
    C{connectionRefused} and L{INetworkErrorReceiver.networkError}, which are called once for several errors of a kind.
    """

    def datagramUndelivered(reason: EchoError, quoted: bytes) -> None:
        """An earlier datagram did not arrive. Called from the reactor, never from inside C{write}.

        @param reason: the error.
        @param quoted: the beginning of the datagram's payload, as far as ICMP quotes it (RFC 792, RFC 4443 section 3); empty
            where the system does not keep it, and then one call may stand for several datagrams.
        """


class IDatagramAddressReceiver(Interface):
    """A protocol that wants to know more of the source of a datagram than the plain pair C{(host, port)} that others get. The
    interface has no methods: C{datagramReceived}, and L{IDropReceiver.datagramDropped}, get a L{DatagramAddress}.
    """


class IDropReceiver(Interface):
    """A protocol that counts datagrams which its transport dropped before handing them over."""

    def datagramDropped(reason: str, size: int, address: tuple[str, int]) -> None:
        """A datagram came in and was dropped.

        @param reason: one of L{udpecho.interfaces.DROP_REASONS}.
        @param size: how many bytes of it were seen.
        @param address: where it came from.
        """


class IDatagramBatch(Interface):
    """What one receive call returned. It is good until C{datagramsReceived} returns, since the next batch takes its place.

    An I{entry} is one datagram, or a GRO batch: datagrams of one flow that the kernel kept together, all of one length, but for
    the last one, which may be shorter.
    """

    entries: int = Attribute("How many entries there are; at least one.")
    datagrams: int = Attribute("How many datagrams they are.")
    size: int = Attribute("Their payload, in bytes, altogether.")
    dropped: Mapping[int, str] = Attribute(
        "Why an entry is not to be sent back, for those that are not; the transport has its reasons too."
    )
    isIPv6: bool = Attribute("Whether the sources are IPv6 addresses; else all are IPv4.")

    def sizes() -> list[int]:
        """The payload of each entry, in bytes; of a GRO batch that of all its datagrams."""

    def counts() -> list[int]:
        """How many datagrams each entry is."""

    def longest() -> list[int]:
        """The payload of the longest datagram of each entry, in bytes."""

    def hosts() -> list[int]:
        """The source address of each entry as a number: C{int(ipaddress.ip_address(host))}."""

    def ports() -> list[int]:
        """The source port of each entry."""

    def scopes() -> list[int]:
        """The scope of each entry's source: for link-local IPv6 the index of the interface it is reached by, else 0."""

    def nonUnicast() -> Sequence[int]:
        """The entries that were sent to a broadcast or multicast address, and not to this host alone."""

    def address(entry: int) -> DatagramAddress:
        """Where an entry came from, and the local address that it was sent to."""

    def payloads(entry: int) -> list[bytes]:
        """The payload of each datagram of an entry."""

    def drop(entry: int, reason: str) -> None:
        """Do not send an entry back.

        @param reason: one of L{udpecho.interfaces.DROP_REASONS}. The first reason counts.
        @raise ValueError: if it is none, or there is no such entry, or it was taken.
        """

    def take(entry: int) -> list[bytes]:
        """Take an entry out of the batch: L{send} neither sends nor reports it.

        @return: the payload of each of its datagrams.
        @raise ValueError: if there is no such entry, or it was dropped or taken.
        @raise RuntimeError: if the batch was sent or split before.
        """

    def split() -> None:
        """Have the transport hand the datagrams over one by one, by C{datagramReceived} and
        L{IDropReceiver.datagramDropped}, as fast as its timers allow, in place of L{send}.

        @raise RuntimeError: if the batch was sent or split before, or C{datagramsReceived} has returned.
        """

    def send(callback: BatchSendCallback) -> None:
        """Send what is not dropped back to where it came from, from the address that received it. Once.

        @param callback: called with the outcome of all datagrams, also of those that were dropped; as often as needed, perhaps
            after this method has returned.
        @raise RuntimeError: if the batch was sent or split before, or C{datagramsReceived} has returned.
        """


class IBatchReceiver(IDatagramAddressReceiver, Interface):
    """A protocol that takes datagrams by the batch from a transport that has them so, instead of by C{datagramReceived}."""

    def datagramsReceived(batch: IDatagramBatch) -> None:
        """A batch came in."""


class IGuard(Interface):
    """Decides who is answered."""

    def refuse(size: int, address: tuple[str, int]) -> str | None:
        """Look at one datagram.

        @param size: its bytes.
        @param address: where it came from.
        @return: C{None} to answer it, else the reason to drop it, one of L{udpecho.interfaces.DROP_REASONS}.
        """


class IBatchGuard(IGuard, Interface):
    """A guard that decides about many at once."""

    def refuseEntries(batch: IDatagramBatch) -> None:
        """Look at a batch, and drop what is not to be answered."""


class IDatagramLog(Interface):
    """Logs the datagrams of a server."""

    def wantsLines() -> int:
        """How many of the next datagrams would get their lines: a number, C{True} for all of them, 0 or C{False} for none."""

    def addUnlogged(received: int, receivedBytes: int, written: int, writtenBytes: int) -> None:
        """Add datagrams that get no line to the sum."""

    def received(size: int, address: tuple[str, int]) -> bool:
        """A datagram of C{size} bytes came from C{address}.

        @return: whether it got its line; pass it to L{written} with the reply.
        """

    def written(size: int, address: tuple[str, int], logged: bool) -> None:
        """A datagram of C{size} bytes went to C{address}.

        @param logged: whether to write a line, or only to add it to the sum.
        """

    def close() -> None:
        """Write the sum. May be called often."""


#: Every reason for which a datagram is not answered.
DROP_REASONS = (
    "loop_guard",
    "not_allowed",
    "rate_limited",
    "too_large",
    "truncated",
    "unanswerable",
    "send_failed",
    "send_timeout",
)


def dropReason(reason: object) -> str:
    """Check a reason that somebody else gives.

    @return: one of L{DROP_REASONS}, as a plain string.
    @raise ValueError: if it is none.
    """
    text = str.__str__(reason) if isinstance(reason, str) else None
    if text not in DROP_REASONS:
        raise ValueError(f"reason must be one of {', '.join(DROP_REASONS)}, got {reason!r}")
    return text
