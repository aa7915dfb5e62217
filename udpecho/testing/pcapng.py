"""The datagrams of a network in memory as a file for Wireshark.

The format is C{draft-ietf-opsawg-pcapng}. Our own writer, since it is a page: python-pcapng has no types, and no release since
2022; dpkt writes no interface names and no comments; scapy is GPL and has 24 MB.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from typing import IO, NamedTuple

from udpecho._version import __version__
from udpecho.addresses import DatagramAddress

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_MAGIC = 0x1A2B3C4D
#: Packets start with the IP header (C{LINKTYPE_RAW}).
_RAW = 101
# Options: of all blocks, of the section, of an interface, of a packet.
_COMMENT = 1
_APPLICATION = 4
_NAME, _RESOLUTION = 2, 9
_FLAGS = 2
_INBOUND, _OUTBOUND = 1, 2
_NANOSECONDS = 9
_UDP = 17
_HOPS = 64


class Packet(NamedTuple):
    """A datagram as an interface has seen it.

    @ivar time: when, in seconds.
    @ivar interface: the name of the interface.
    @ivar isInbound: whether it came in.
    @ivar size: its payload in bytes.
    @ivar payload: its payload, C{None} if that is forgotten: then there are only headers.
    @ivar comment: a remark about it.
    """

    time: float
    interface: str
    isInbound: bool
    source: DatagramAddress
    destination: DatagramAddress
    size: int
    payload: bytes | None
    comment: str


def write(file: IO[bytes], packets: Iterable[Packet]) -> None:
    """Write a section with its interfaces, and the packets in the order of time.

    @param file: a binary file.
    """
    packets = sorted(packets, key=lambda packet: packet.time)
    names = sorted({packet.interface for packet in packets})
    # Of a length that is not written here.
    _block(file, _SECTION, struct.pack("<IHHq", _MAGIC, 1, 0, -1), {_APPLICATION: f"udpecho {__version__}".encode()})
    for name in names:
        _block(file, _INTERFACE, struct.pack("<HHI", _RAW, 0, 0), {_NAME: name.encode(), _RESOLUTION: bytes([_NANOSECONDS])})
    numbers = {name: number for number, name in enumerate(names)}
    for packet in packets:
        data, length = _bytes(packet)
        when = round(packet.time * 10**9)
        head = struct.pack("<IIIII", numbers[packet.interface], when >> 32, when & 0xFFFFFFFF, len(data), length)
        direction = struct.pack("<I", _INBOUND if packet.isInbound else _OUTBOUND)
        _block(file, _PACKET, head + _padded(data), {_COMMENT: packet.comment.encode(), _FLAGS: direction})


def _block(file: IO[bytes], kind: int, body: bytes, options: dict[int, bytes]) -> None:
    for code, value in options.items():
        body += struct.pack("<HH", code, len(value)) + _padded(value)
    body += bytes(4)
    length = struct.pack("<I", len(body) + 12)
    file.write(struct.pack("<I", kind) + length + body + length)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _bytes(packet: Packet) -> tuple[bytes, int]:
    """A datagram with its headers.

    @return: the bytes, and how many there would be with a payload that is forgotten.
    """
    hosts = packet.source.host.partition("%")[0], packet.destination.host.partition("%")[0]
    isIPv6 = ":" in hosts[0] or ":" in hosts[1]
    family = socket.AF_INET6 if isIPv6 else socket.AF_INET
    source, destination = (socket.inet_pton(family, _ofFamily(host, isIPv6)) for host in hosts)
    length = 8 + packet.size
    # What is too long for UDP was not sent, but is shown.
    udp = struct.pack("!HHHH", packet.source.port, packet.destination.port, length & 0xFFFF, 0)
    if packet.payload is not None:
        pseudo = source + destination + struct.pack("!IBBBB", length, 0, 0, 0, _UDP)
        # Zero is for none (RFC 768).
        checksum = _checksum(pseudo + udp + packet.payload) or 0xFFFF
        udp = udp[:6] + struct.pack("!H", checksum) + packet.payload
    if isIPv6:
        ip = struct.pack("!IHBB", 6 << 28, length & 0xFFFF, _UDP, _HOPS) + source + destination
    else:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, (20 + length) & 0xFFFF, 0, 0, _HOPS, _UDP, 0) + source + destination
        ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
    return ip + udp, len(ip) + length


def _ofFamily(host: str, isIPv6: bool) -> str:
    return f"::ffff:{host}" if isIPv6 and ":" not in host else host


def _checksum(data: bytes) -> int:
    """The checksum of the internet (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
