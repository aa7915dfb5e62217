"""Send an ICMP port unreachable, as a host does where nothing listens. It takes the right to open raw sockets.

Sources: RFC 792 (destination unreachable), RFC 4443 section 3.1, C{raw(7)}, C{icmp(7)}.
"""

from __future__ import annotations

import socket
import struct

from udpecho.addresses import DatagramAddress

#: C{struct icmphdr}: type, code, checksum, unused.
_icmphdr = struct.Struct("!BBHI")
#: C{struct iphdr}: version and length, TOS, total length, id, fragment, TTL, protocol, checksum, source, destination.
_iphdr = struct.Struct("!BBHHHBBH4s4s")
#: C{struct ipv6hdr}: version and flow, payload length, next header, hop limit, source, destination.
_ipv6hdr = struct.Struct("!IHBB16s16s")
#: C{struct udphdr}: source port, destination port, length, checksum.
_udphdr = struct.Struct("!HHHH")

_PORT_UNREACHABLE = (3, 3)
_PORT_UNREACHABLE6 = (1, 4)


def refuse(client: DatagramAddress, local: tuple[str, int], size: int) -> bool:
    """Report port unreachable to a client, about a datagram that it sent.

    @param local: where it was sent to.
    @param size: its payload in bytes.
    @return: whether the system sent it.
    """
    # An IPv4 client of a socket for both families (RFC 4291 section 2.5.5.2) is one of IPv4 to ICMP.
    clientHost, localHost = (host.removeprefix("::ffff:") if "." in host else host for host in (client.host, local[0]))
    ipv6 = ":" in clientHost
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    try:
        source, destination = (socket.inet_pton(family, host) for host in (clientHost, localHost))
    except OSError:
        # Where the system does not report the destination, the local address may be of the other family.
        return False
    udp = _udphdr.pack(client.port, local[1], _udphdr.size + size, 0)
    if ipv6:
        # The kernel fills in the checksum, which covers addresses that it chooses.
        quoted = _ipv6hdr.pack(6 << 28, len(udp) + size, socket.IPPROTO_UDP, 64, source, destination) + udp
        message = _icmphdr.pack(*_PORT_UNREACHABLE6, 0, 0) + quoted
    else:
        length = _iphdr.size + len(udp) + size
        quoted = _iphdr.pack(0x45, 0, length & 0xFFFF, 0, 0, 64, socket.IPPROTO_UDP, 0, source, destination) + udp
        message = _icmphdr.pack(*_PORT_UNREACHABLE, 0, 0) + quoted
        message = _icmphdr.pack(*_PORT_UNREACHABLE, checksum(message), 0) + quoted
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
