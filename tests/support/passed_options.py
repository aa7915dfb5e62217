"""Options that a program may set on a socket before it passes the socket on, and afterwards."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any

from udpecho.net.linux import sockopt

_IP, _IPV6, _SOCKET, _UDP = socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.SOL_SOCKET, sockopt.SOL_UDP
# Timestamps of both directions, with numbers and C{SCM_TIMESTAMPING_PKTINFO}.
_ALL_TIMESTAMPS = 0x1 | 0x2 | 0x8 | 0x10 | 0x80 | 0x800 | 0x2000
#: Level, number and value of the options that add control messages, and of those that change what is sent.
OPTIONS: dict[str, tuple[int, int, Any]] = {
    "SO_TIMESTAMP": (_SOCKET, 29, 1),
    "SO_TIMESTAMPNS": (_SOCKET, 35, 1),
    "SO_TIMESTAMPING": (_SOCKET, 37, _ALL_TIMESTAMPS),
    "SO_RXQ_OVFL": (_SOCKET, 40, 1),
    "SO_SELECT_ERR_QUEUE": (_SOCKET, 45, 1),
    "SO_RCVMARK": (_SOCKET, 75, 1),
    "SO_RCVPRIORITY": (_SOCKET, 82, 1),
    "SO_PEEK_OFF": (_SOCKET, 42, 0),
    "SO_RCVLOWAT": (_SOCKET, 18, 1000),
    "SO_BROADCAST": (_SOCKET, 6, 1),
    "SO_RCVTIMEO": (_SOCKET, 20, struct.pack("@qq", 1, 0)),
    "IPOPTIONS": (_IP, 4, b"\x07\x0b\x04" + bytes(9)),
    "IP_RECVOPTS": (_IP, 6, 1),
    "IP_RETOPTS": (_IP, 7, 1),
    "IP_PKTINFO": (_IP, 8, 1),
    "IP_MTU_DISCOVER": (_IP, 10, 2),
    "IP_RECVERR": (_IP, 11, 1),
    "IP_RECVTTL": (_IP, 12, 1),
    "IP_RECVTOS": (_IP, 13, 1),
    "IP_FREEBIND": (_IP, 15, 1),
    "IP_PASSSEC": (_IP, 18, 1),
    "IP_TRANSPARENT": (_IP, 19, 1),
    "IP_RECVORIGDSTADDR": (_IP, 20, 1),
    "IP_CHECKSUM": (_IP, 23, 1),
    "IP_RECVFRAGSIZE": (_IP, 25, 1),
    "UDP_CORK": (_UDP, 1, 1),
    "UDP_SEGMENT": (_UDP, 103, 9),
    "UDP_GRO": (_UDP, 104, 1),
    "IPV6_2292PKTINFO": (_IPV6, 2, 1),
    "IPV6_2292HOPOPTS": (_IPV6, 3, 1),
    "IPV6_2292DSTOPTS": (_IPV6, 4, 1),
    "IPV6_2292RTHDR": (_IPV6, 5, 1),
    "IPV6_2292HOPLIMIT": (_IPV6, 8, 1),
    "IPV6_FLOWINFO": (_IPV6, 11, 1),
    "IPV6_MTU_DISCOVER": (_IPV6, 23, 2),
    "IPV6_RECVERR": (_IPV6, 25, 1),
    "IPV6_FLOWINFO_SEND": (_IPV6, 33, 1),
    "IPV6_RECVPKTINFO": (_IPV6, 49, 1),
    "IPV6_RECVHOPLIMIT": (_IPV6, 51, 1),
    "IPV6_RECVHOPOPTS": (_IPV6, 53, 1),
    "IPV6_HOPOPTS": (_IPV6, 54, b"\0\0\x01\x04" + bytes(4)),
    "IPV6_RECVRTHDR": (_IPV6, 56, 1),
    "IPV6_RECVDSTOPTS": (_IPV6, 58, 1),
    "IPV6_RECVPATHMTU": (_IPV6, 60, 1),
    "IPV6_DONTFRAG": (_IPV6, 62, 1),
    "IPV6_RECVTCLASS": (_IPV6, 66, 1),
    "IPV6_RECVORIGDSTADDR": (_IPV6, 74, 1),
    "IPV6_RECVFRAGSIZE": (_IPV6, 77, 1),
}
#: Options that are needed, turned off.
MISSING = {
    "no IP_PKTINFO": (_IP, 8, 0),
    "no IP_RECVTTL": (_IP, 12, 0),
    "no IPV6_RECVPKTINFO": (_IPV6, 49, 0),
    "no IPV6_RECVHOPLIMIT": (_IPV6, 51, 0),
}


def change(sock: socket.socket, *names: str) -> None:
    """Set options of a socket, as far as the system lets it."""
    for name in names:
        with suppress(OSError):
            sock.setsockopt(*(OPTIONS | MISSING)[name])
