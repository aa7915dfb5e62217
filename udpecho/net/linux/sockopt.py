"""
What Linux can do with a datagram socket that Python's C{socket} module does not name: constants and layouts.

Sources: C{ip(7)}, C{ipv6(7)}, C{linux/in.h}, C{linux/in6.h}, C{linux/errqueue.h}, C{asm-generic/socket.h}.
"""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from ipaddress import ip_address

#: Whether this is Linux; everything here works there only.
available = sys.platform == "linux"

IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
IP_PMTUDISC_DO = 2
IP_PMTUDISC_OMIT = 5
IP_RECVERR = 11
IPV6_MTU_DISCOVER = 23
IPV6_RECVERR = 25
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
MSG_ERRQUEUE = 0x2000
SO_RCVBUFFORCE = 33
SO_TIMESTAMPING = 37
SO_MEMINFO = 55

IP_TTL = 2
IP_RECVTTL = 12
IPV6_RECVHOPLIMIT = 51
IPV6_HOPLIMIT = 52
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104

SO_EE_ORIGIN_ICMP = 2
SO_EE_ORIGIN_ICMP6 = 3
SO_EE_ORIGIN_TIMESTAMPING = 4

# What SO_TIMESTAMPING is given (C{linux/net_tstamp.h}): stamps in software of what is sent and received, told; those of what is
# sent numbered, and without the datagram.
SOF_TIMESTAMPING_TX_SOFTWARE = 1 << 1
SOF_TIMESTAMPING_RX_SOFTWARE = 1 << 3
SOF_TIMESTAMPING_SOFTWARE = 1 << 4
SOF_TIMESTAMPING_OPT_ID = 1 << 7
SOF_TIMESTAMPING_OPT_TSONLY = 1 << 11


def enablePktinfo(sock: socket.socket, wanted: bool = True) -> bool:
    """
    Have the kernel tell, with each datagram, the local address it was sent to, or tell it no more.

    @return: whether it will: what imitates Linux may not.
    """
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, int(wanted))
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, int(wanted))
    except OSError:
        return False
    return wanted


def enableRecvHopLimit(sock: socket.socket, wanted: bool = True) -> bool:
    """
    Have the kernel tell, with each datagram, what was left of its time to live (RFC 791) or hop limit (RFC 8200), or tell it no
    more.

    @return: whether it will.
    """
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, int(wanted))
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVHOPLIMIT, int(wanted))
    except OSError:
        return False
    return wanted


def enableGRO(sock: socket.socket, wanted: bool) -> bool:
    """
    Have the kernel hand over datagrams of one flow that came together as one (C{UDP_GRO} in C{udp(7)}), or each for itself
    again; those that are queued already stay as they are.

    @return: whether it will: kernels older than 5.0 do not know it.
    """
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, int(wanted))
    except OSError:
        return False
    return wanted


def isForSeveral(host: str) -> bool:
    """
    Whether a local address is that of a group, or of all hosts of a network, instead of one of this host's own: C{connect(2)}
    tells, and sends nothing.
    """
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    except OSError:
        # Nobody can tell, and whoever takes it for several only asks for more than is needed.
        return True
    with sock:
        try:
            sock.connect((host.partition("%")[0], 9))
        except PermissionError:
            return True
        except OSError:
            pass
    return ip_address(host.partition("%")[0]).is_multicast


def enableRecvErr(sock: socket.socket) -> None:
    """
    Have the kernel queue what the network says of datagrams that were sent: also host and network unreachable, which it
    keeps to itself otherwise (RFC 1122 section 4.1.3.3 asks for all). Where it will not, refusals still come.
    """
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)


def disablePathMTUDiscovery(sock: socket.socket) -> None:
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
