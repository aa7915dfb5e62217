"""The options of a socket that another program has made, and may have still.

Some have the kernel add control messages to what is received, others change what is sent. None of them is expected here, and
all are turned off. What restricts the socket stays: filters, marks, the interface, the type of service.

Sources: C{ip(7)}, C{ipv6(7)}, C{udp(7)}, C{socket(7)}, RFC 3542, and the headers that L{sockopt} names.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from udpecho.net.linux import sockopt

_IP, _IPV6, _SOCKET, _UDP = socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.SOL_SOCKET, sockopt.SOL_UDP
_UDP_CORK = 1
_SO_PROTOCOL = 38

#: Replies are joined or split. A cork that is removed sends what it has kept back.
_changesSending = ((_UDP, _UDP_CORK, 0), (_UDP, sockopt.UDP_SEGMENT, 0))
#: Options to set to 0, or to what is given, by level.
_unwanted: dict[int, dict[str, tuple[int, int]]] = {
    _SOCKET: {
        "SO_TIMESTAMP": (29, 0),
        "SO_TIMESTAMPNS": (35, 0),
        "SO_TIMESTAMPING": (sockopt.SO_TIMESTAMPING, 0),
        "SO_RXQ_OVFL": (40, 0),
        "SO_WIFI_STATUS": (41, 0),
        "SO_RCVMARK": (75, 0),
        "SO_RCVPRIORITY": (82, 0),
    },
    _UDP: {"UDP_ENCAP": (100, 0)},
    _IP: {
        "IP_RECVOPTS": (6, 0),
        "IP_RETOPTS": (7, 0),
        "IP_RECVERR": (sockopt.IP_RECVERR, 0),
        "IP_RECVTOS": (13, 0),
        "IP_PASSSEC": (18, 0),
        "IP_RECVORIGDSTADDR": (20, 0),
        "IP_CHECKSUM": (23, 0),
        "IP_RECVFRAGSIZE": (25, 0),
    },
    _IPV6: {
        "IPV6_2292PKTINFO": (2, 0),
        "IPV6_2292HOPOPTS": (3, 0),
        "IPV6_2292DSTOPTS": (4, 0),
        "IPV6_2292RTHDR": (5, 0),
        "IPV6_2292HOPLIMIT": (8, 0),
        "IPV6_FLOWINFO": (11, 0),
        # Else a reply that the link does not carry whole is refused, and not fragmented.
        "IPV6_MTU_DISCOVER": (sockopt.IPV6_MTU_DISCOVER, sockopt.IPV6_PMTUDISC_WANT),
        "IPV6_RECVERR": (sockopt.IPV6_RECVERR, 0),
        "IPV6_FLOWINFO_SEND": (33, 0),
        "IPV6_RECVHOPOPTS": (53, 0),
        "IPV6_RECVRTHDR": (56, 0),
        "IPV6_RECVDSTOPTS": (58, 0),
        "IPV6_RECVPATHMTU": (60, 0),
        "IPV6_DONTFRAG": (62, 0),
        "IPV6_RECVTCLASS": (66, 0),
        "IPV6_RECVORIGDSTADDR": (74, 0),
        "IPV6_RECVFRAGSIZE": (77, 0),
    },
}
#: What is sent with each datagram, emptied: C{IP_OPTIONS}, C{IPV6_2292PKTOPTIONS} (all extension headers), C{IPV6_PKTINFO}.
_sentAlong = ((_IP, 4, b""), (_IPV6, 6, b""), (_IPV6, sockopt.IPV6_PKTINFO, struct.pack("@16sI", bytes(16), 0)))


def isUDP(sock: socket.socket) -> bool:
    """Whether a datagram socket's protocol is UDP; C{SOCK_DGRAM} over IP may be ICMP or UDP-Lite."""
    try:
        return sock.getsockopt(_SOCKET, _SO_PROTOCOL) == socket.IPPROTO_UDP
    except OSError:
        return True


def resetOptions(sock: socket.socket) -> None:
    """Turn off what is not wanted, as far as the system lets it."""
    resetSending(sock)
    levels = set(_unwanted) if sock.family == socket.AF_INET6 else set(_unwanted) - {_IPV6}
    for level in levels:
        for option, value in _unwanted[level].values():
            with suppress(OSError):
                # Setting an option to what it is already has effects: UDP_ENCAP begins to look into each datagram.
                if sock.getsockopt(level, option) != value:
                    sock.setsockopt(level, option, value)
    for level, option, data in _sentAlong:
        if level in levels:
            with suppress(OSError):
                sock.setsockopt(level, option, data)


def resetSending(sock: socket.socket) -> None:
    """Turn off what joins or splits datagrams. Nothing that is received shows it, so that this is done before each send."""
    for level, option, value in _changesSending:
        with suppress(OSError):
            sock.setsockopt(level, option, value)
