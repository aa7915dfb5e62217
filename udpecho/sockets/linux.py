"""
What Linux can do with a datagram socket that Python's C{socket} module does not name: constants and layouts.

Sources: C{ip(7)}, C{ipv6(7)}, C{linux/in.h}, C{linux/in6.h}, C{linux/errqueue.h}, C{asm-generic/socket.h}.
"""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass

#: Whether this is Linux; everything here works there only.
available = sys.platform == "linux"

IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
IP_PMTUDISC_OMIT = 5
IP_RECVERR = 11
IPV6_RECVERR = 25
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
MSG_ERRQUEUE = 0x2000
SO_RCVBUFFORCE = 33
SO_MEMINFO = 55

SO_EE_ORIGIN_ICMP = 2
SO_EE_ORIGIN_ICMP6 = 3

#: C{struct in_pktinfo}: interface index, the local address (what a reply should come from), the header's destination.
_pktinfo4 = struct.Struct("@I4s4s")
#: C{struct in6_pktinfo}: address, interface index.
_pktinfo6 = struct.Struct("@16sI")
#: C{struct sock_extended_err}, the first 16 bytes: errno, origin, type, code, pad, info, data.
_extendedError = struct.Struct("@IBBBxII")

#: Room for one C{in_pktinfo} and one C{in6_pktinfo}: a dual-stack socket may send both.
ANCILLARY_SIZE = socket.CMSG_SPACE(_pktinfo4.size) + socket.CMSG_SPACE(_pktinfo6.size) if available else 0
_ERROR_ANCILLARY_SIZE = 512

Ancillary = list[tuple[int, int, bytes]]


@dataclass(frozen=True)
class QueuedError:
    """
    One entry of a socket's error queue.

    @ivar errno: what happened.
    @ivar info: for C{EMSGSIZE} the MTU of the path, in bytes, IP header included.
    """

    errno: int
    info: int


def askForDestination(sock: socket.socket) -> bool:
    """
    Have the kernel tell, with each datagram, the local address it was sent to.

    @return: whether it will: what imitates Linux may not.
    """
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
    except OSError:
        return False
    return True


def askForErrors(sock: socket.socket) -> None:
    """
    Have the kernel queue what the network says of datagrams that were sent: also host and network unreachable, which it
    keeps to itself otherwise (RFC 1122 section 4.1.3.3 asks for all). Where it will not, refusals still come.
    """
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)


def letRoutersFragment(sock: socket.socket) -> None:
    """
    Have IPv4 datagrams sent without "do not fragment", and whatever is said about the path's MTU ignored: nobody hears of a
    reply that was too long for the way back, and what is said may be forged.
    """
    # The kernels that do not know it are older than 3.15.
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT)


def kernelDrops(sock: socket.socket) -> int | None:
    """
    How many datagrams the kernel has dropped because the receive queue was full (C{sk_drops}, the ninth of the numbers of
    C{SO_MEMINFO}, C{linux/sock_diag.h}).

    @return: C{None} if the kernel does not tell.
    """
    try:
        numbers = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 9 * 4)
    except OSError:
        return None
    drops: int = struct.unpack("@9I", numbers)[8] if len(numbers) == 9 * 4 else 0
    return drops


def readDestination(ancillary: Ancillary) -> tuple[str | None, bool]:
    """
    Read the local address that a datagram was sent to.

    @return: the address that a reply should come from, C{None} if the kernel did not say; and whether the datagram was sent
        to this host alone.
    """
    host: str | None = None
    unicast = True
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            # For broadcast and multicast the two differ: the second is the group, the first is ours.
            _, local, destination = _pktinfo4.unpack(data)
            if local == bytes(4):
                # Queued before the kernel was asked to tell: it has the header only. A reply from a subnet's broadcast address
                # is refused.
                local = bytes(4) if destination[0] >= 224 else destination
            if host is None:
                host = socket.inet_ntop(socket.AF_INET, local)
            unicast = unicast and local == destination
        elif level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
            local, _ = _pktinfo6.unpack(data)
            host = socket.inet_ntop(socket.AF_INET6, local)
            unicast = unicast and local[0] != 0xFF
    return host, unicast


def sourceAncillary(host: str) -> Ancillary:
    """
    Make the control message that sends a datagram from a local address; the routing table still chooses the interface.
    """
    if ":" in host:
        packed = socket.inet_pton(socket.AF_INET6, host)
        return [(socket.IPPROTO_IPV6, IPV6_PKTINFO, _pktinfo6.pack(packed, 0))]
    packed = socket.inet_pton(socket.AF_INET, host)
    return [(socket.IPPROTO_IP, IP_PKTINFO, _pktinfo4.pack(0, packed, bytes(4)))]


def readErrors(sock: socket.socket, limit: int) -> list[QueuedError]:
    """
    Empty a socket's error queue.

    @param limit: how many entries to take at the most.

    @return: what the network said, oldest first; what the machine itself said about a send is left out, since that send
        has failed with the same error.
    """
    errors: list[QueuedError] = []
    for _ in range(limit):
        try:
            ancillary = sock.recvmsg(0, _ERROR_ANCILLARY_SIZE, MSG_ERRQUEUE | socket.MSG_DONTWAIT)[1]
        except OSError:
            break
        for level, kind, data in ancillary:
            if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
                number, origin, _, _, info, _ = _extendedError.unpack_from(data)
                if origin in (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6):
                    errors.append(QueuedError(number, info))
    return errors


__all__ = [
    "ANCILLARY_SIZE",
    "Ancillary",
    "QueuedError",
    "askForDestination",
    "askForErrors",
    "available",
    "kernelDrops",
    "readDestination",
    "readErrors",
    "sourceAncillary",
]
