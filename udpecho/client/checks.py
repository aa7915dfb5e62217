"""The checks of the client's arguments."""

from __future__ import annotations

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address

from udpecho.addresses import MAX_PAYLOAD_IPV6
from udpecho.errors import MessageTooLong


def checkPayload(payload: bytes) -> None:
    """@raise TypeError: if C{payload} is not bytes.
    @raise MessageTooLong: if no datagram can carry it.
    """
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise TypeError(f"payload must be bytes, got {type(payload).__name__}")
    if len(payload) > MAX_PAYLOAD_IPV6:
        raise tooLong("any peer", len(payload), MAX_PAYLOAD_IPV6)


def tooLong(peer: str, size: int, limit: int) -> MessageTooLong:
    """The exception for a payload of C{size} bytes that was not sent. C{limit} is what a datagram to the peer can carry."""
    if size <= limit:
        return MessageTooLong(f"this system does not send {size} bytes in a datagram to {peer}")
    return MessageTooLong(f"payload to {peer} must be at most {limit} bytes, got {size}", limit=limit)


def checkPeer(host: str, port: int) -> None:
    """@raise TypeError: if C{host} is not a string or C{port} is not an integer.
    @raise ValueError: if C{port} is not one that can be sent to.
    """
    if not isinstance(host, str):
        raise TypeError(f"host must be a string, a name or an IP address, got {host!r}")
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be an integer, got {port!r}")
    if not 1 <= port <= 65535:
        raise ValueError(f"port must be 1 to 65535, got {port}")


def checkLocalAddress(address: tuple[str, int]) -> type[IPv4Address | IPv6Address]:
    """Return the type of the peer addresses that can be reached from a local address.

    @raise TypeError: if it is not a pair of a string and an integer.
    @raise ValueError: if they are not an IP address and a port.
    """
    if not isinstance(address, tuple) or [type(item) for item in address] != [str, int]:
        raise TypeError(f"local address must be a pair of an IP address and a port, got {address!r}")
    host, port = address
    if not 0 <= port <= 65535:
        raise ValueError(f"local port must be 0 to 65535, got {port}")
    if isIPv6Address(host):
        return IPv6Address
    if isIPAddress(host):
        return IPv4Address
    raise ValueError(f"local address must be an IP address of this machine, got {host!r}")
