"""Addresses of datagrams: the pair that Twisted uses, what it leaves out, and how people write it."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address

#: The longest payload of a datagram, in bytes: 65535 less the UDP header (RFC 768), and less the IPv4 header (RFC 791). The
#: IPv6 payload length does not include the IPv6 header (RFC 8200 section 3).
MAX_PAYLOAD_IPV4 = 65507
MAX_PAYLOAD_IPV6 = 65527


class DatagramAddress(tuple[str, int]):
    """The source of a datagram, as a protocol gets it that provides L{IDatagramAddressReceiver
    <udpecho.interfaces.IDatagramAddressReceiver>}. It equals the C{(host, port)} pair that Twisted passes to
    C{datagramReceived}, and has in addition what a correct reply needs (as Twisted's ticket 6826 wishes). Several datagrams may
    have the same object: do not change it.

    Write to this object, not to a copy of its two items, and the reply leaves from C{localHost}.

    @ivar scopeID: the index of the interface for a link-local IPv6 host, else 0 (RFC 4007).
    @ivar flowInfo: the IPv6 flow label and traffic class as received, else 0.
    @ivar localHost: the local address that the datagram was sent to, or C{None} if the system does not report it.
    @ivar unicast: whether the datagram was sent to this host only; C{False} for broadcast and multicast.
    @ivar interface: the index of the interface that the datagram came by, 0 if the system does not report it.
    @ivar answerable: whether the system reported all that a reply needs. If not, nothing is sent to this object.
    @ivar hopLimit: the IPv4 time to live or IPv6 hop limit as received, if the transport asks for it, else C{None}. The reply
        then has one less.
    @ivar ecn: the ECN codepoint as received, 0 to 3 (RFC 3168), from a port in memory that is asked for it, else C{None}.
    """

    scopeID: int = 0
    flowInfo: int = 0
    localHost: str | None = None
    unicast: bool = True
    hopLimit: int | None = None
    ecn: int | None = None
    interface: int = 0
    answerable: bool = True

    @property
    def host(self) -> str:
        """The address, without a scope."""
        return self[0]

    @property
    def port(self) -> int:
        """The port number."""
        return self[1]

    def withHops(self, hopLimit: int | None) -> DatagramAddress:
        """The same address, for a datagram with another hop limit."""
        address = DatagramAddress(self)
        vars(address).update(vars(self), hopLimit=hopLimit)
        return address

    def __str__(self) -> str:
        return formatAddress(self)


def plainAddress(address: tuple[str, int]) -> tuple[str, int]:
    """What an ordinary protocol gets in place of a L{DatagramAddress}: the pair C{(host, port)}, as a plain tuple. A scope is
    part of the host, as in C{fe80::1%2}, so that the pair can be written to. A plain tuple is returned as it is.
    """
    if type(address) is tuple:
        return address
    host, port = address
    scopeID = getattr(address, "scopeID", 0)
    return (f"{host}%{scopeID}" if scopeID and "%" not in host else host, port)


def formatAddress(address: tuple[str, int]) -> str:
    """Write an address as people do: C{127.0.0.1:1234}, C{[::1]:1234}, C{[fe80::1%2]:1234}.

    @param address: a C{(host, port)} pair or a L{DatagramAddress}.
    """
    host, port = address[0], address[1]
    if ":" not in host:
        return f"{host}:{port}"
    scopeID = getattr(address, "scopeID", 0)
    if scopeID and "%" not in host:
        host = f"{host}%{scopeID}"
    return f"[{host}]:{port}"


@lru_cache(4096)
def isGroup(host: str) -> bool:
    """Whether an IP address is a multicast group or the limited broadcast address."""
    return host == "255.255.255.255" or ip_address(host).is_multicast


def isLinkLocal(host: str) -> bool:
    """Whether an IP address, as the system writes it, means something on one link only (RFC 3927, RFC 4291 section 2.5.6)."""
    host = host.removeprefix("::ffff:")
    return host.startswith("169.254.") or (host.startswith(("fe8", "fe9", "fea", "feb")) and host[4:5] == ":")
