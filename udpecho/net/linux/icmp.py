"""
Telling a client that its datagram was refused, as a host does where nothing listens; it takes the right to open raw sockets.

Sources: RFC 792 (destination unreachable), RFC 4443 section 3.1, C{raw(7)}, C{icmp(7)}.
"""

from __future__ import annotations

import socket
import struct

from udpecho.addresses import DatagramAddress

_unreachable4 = struct.Struct("!BBHI")
_header4 = struct.Struct("!BBHHHBBH4s4s")
_header6 = struct.Struct("!IHBB16s16s")
_udp = struct.Struct("!HHHH")

_PORT_UNREACHABLE = (3, 3)
_PORT_UNREACHABLE6 = (1, 4)


def refuse(client: DatagramAddress, local: tuple[str, int], size: int) -> bool:
    """
    Send an ICMP port unreachable to a client, about a datagram that it sent.

    @param client: where the datagram came from.
    @param local: where it was sent to.
    @param size: its payload in bytes.

    @return: whether the system let it be sent.
    """
    # An IPv4 client of a socket for both families (RFC 4291 section 2.5.5.2) is one of IPv4 to ICMP.
    clientHost, localHost = (host.removeprefix("::ffff:") if "." in host else host for host in (client.host, local[0]))
    ipv6 = ":" in clientHost
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    try:
        source, destination = (socket.inet_pton(family, host) for host in (clientHost, localHost))
    except OSError:
        # Where the system does not tell what was asked, the local address may be of the other family.
        return False
    udp = _udp.pack(client.port, local[1], _udp.size + size, 0)
    if ipv6:
        # The kernel fills in the checksum, which covers addresses that it chooses.
        quoted = _header6.pack(6 << 28, len(udp) + size, socket.IPPROTO_UDP, 64, source, destination) + udp
        message = _unreachable4.pack(*_PORT_UNREACHABLE6, 0, 0) + quoted
    else:
        length = _header4.size + len(udp) + size
        quoted = _header4.pack(0x45, 0, length & 0xFFFF, 0, 0, 64, socket.IPPROTO_UDP, 0, source, destination) + udp
        message = _unreachable4.pack(*_PORT_UNREACHABLE, 0, 0) + quoted
        message = _unreachable4.pack(*_PORT_UNREACHABLE, checksum(message), 0) + quoted
    protocol = socket.IPPROTO_ICMPV6 if ipv6 else socket.IPPROTO_ICMP
    try:
        with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
            raw.setblocking(False)
            raw.bind((localHost, 0, 0, client.scopeID) if ipv6 else (localHost, 0))
            raw.sendto(message, (clientHost, 0, 0, client.scopeID) if ipv6 else (clientHost, 0))
    except OSError:
        return False
    return True


def checksum(message: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(message) % 2:
        message += b"\0"
    total: int = sum(struct.unpack(f"!{len(message) // 2}H", message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
