"""Socket options of Linux that Python's C{socket} module does not name.

Sources: C{ip(7)}, C{ipv6(7)}, C{linux/in.h}, C{linux/in6.h}, C{linux/errqueue.h}, C{asm-generic/socket.h}.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from contextlib import suppress
from ipaddress import ip_address

from udpecho.net import features

#: Whether this is Linux. Everything here works there only.
available = sys.platform == "linux"

IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
IP_PMTUDISC_DO = 2
IP_PMTUDISC_OMIT = 5
IP_RECVERR = 11
IPV6_MTU_DISCOVER = 23
IPV6_PMTUDISC_WANT = 1
IPV6_RECVERR = 25
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
MSG_ERRQUEUE = 0x2000
# Plain numbers: to combine members of Python's enumeration takes microseconds. No call blocks, even where another program that
# has the socket has made it block.
MSG_CTRUNC, MSG_TRUNC, MSG_DONTWAIT = (int(getattr(socket, name, 0)) for name in ("MSG_CTRUNC", "MSG_TRUNC", "MSG_DONTWAIT"))
SO_RCVBUFFORCE = 33
# Where a C{long} has 32 bits the one with times of 64, SO_TIMESTAMPING_NEW, from Linux 5.1 on.
SO_TIMESTAMPING = 37 if struct.calcsize("@l") == 8 else 65
SO_MEMINFO = 55
SO_NETNS_COOKIE = 71

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

# Flags of SO_TIMESTAMPING (C{linux/net_tstamp.h}): make timestamps in software when sending and receiving, and report them;
# number those of sending, and report them without the datagram.
SOF_TIMESTAMPING_TX_SOFTWARE = 1 << 1
SOF_TIMESTAMPING_RX_SOFTWARE = 1 << 3
SOF_TIMESTAMPING_SOFTWARE = 1 << 4
SOF_TIMESTAMPING_OPT_ID = 1 << 7
SOF_TIMESTAMPING_OPT_TSONLY = 1 << 11


def _enable(sock: socket.socket, feature: features.Feature, option4: int, option6: int, wanted: bool) -> bool:
    """Set the option of IPv4, and that of IPv6 on a socket that may receive both.

    @return: whether it is set now.
    """
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, option6, int(wanted))
        sock.setsockopt(socket.IPPROTO_IP, option4, int(wanted))
    except OSError as e:
        # A socket for IPv6 only does not need the option of IPv4.
        if e.errno in features.REFUSALS and _isIPv6Only(sock):
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, option6, int(wanted))
                return wanted
        features.refused(feature, e)
        return False
    return wanted


def _isIPv6Only(sock: socket.socket) -> bool:
    with suppress(OSError):
        return sock.family == socket.AF_INET6 and bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
    return False


def enablePktinfo(sock: socket.socket, wanted: bool = True) -> bool:
    """Report with each datagram the local address it was sent to, if the kernel can; an imitation of Linux may not."""
    return _enable(sock, features.PKTINFO, IP_PKTINFO, IPV6_RECVPKTINFO, wanted)


def enableRecvHopLimit(sock: socket.socket, wanted: bool = True) -> bool:
    """Report with each datagram what is left of its time to live (RFC 791) or hop limit (RFC 8200), if the kernel can."""
    return _enable(sock, features.HOP_LIMIT, IP_RECVTTL, IPV6_RECVHOPLIMIT, wanted)


def enableRecvErr(sock: socket.socket) -> bool:
    """Queue what ICMP reports about datagrams that were sent: also host and network unreachable, which the kernel ignores
    otherwise (RFC 1122 section 4.1.3.3 requires all). Where it cannot, refusals still come, as errors of the socket.

    @return: whether it can.
    """
    can = _enable(sock, features.RECVERR, IP_RECVERR, IPV6_RECVERR, True)
    if not can:
        features.missed(features.RECVERR)
    return can


def enableGRO(sock: socket.socket) -> bool:
    """Receive datagrams of one flow that came together as one batch (C{UDP_GRO} in C{udp(7)}), if the kernel can, from 5.0 on.
    It is never disabled: a batch that is queued then comes as one long datagram, without a word about the datagrams in it.
    """
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    except OSError as e:
        features.missed(features.GRO, e)
        return False
    return True


def disablePathMTUDiscovery(sock: socket.socket) -> None:
    """Send IPv4 datagrams without "do not fragment", and ignore reports about the path's MTU: nobody is notified of a reply
    that was too long for the way back, and the reports may be forged.
    """
    # Kernels before 3.15 do not have it.
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT)
    except OSError as e:
        features.missed(features.PMTU, e)


def isNonUnicast(host: str) -> bool:
    """Whether a local address is multicast or broadcast, and not this host's own: C{connect(2)} knows, and sends nothing."""
    host = host.partition("%")[0]
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    except OSError:
        # Unknown; if it is taken for one, more is reported than is needed, and nothing is wrong.
        return True
    with sock:
        try:
            sock.connect((host, 9))
        except PermissionError:
            return True
        except OSError:
            pass
    return ip_address(host).is_multicast


def setHopLimit(sock: socket.socket, hops: int) -> None:
    """Set the IPv4 time to live or IPv6 hop limit of what is sent.

    @raise features.Refused: if the system does not set it; so do the next two.
    """
    _setBoth(sock, "a hop limit must have IP_TTL", socket.IP_TTL, getattr(socket, "IPV6_UNICAST_HOPS", 0), hops)


def setTrafficClass(sock: socket.socket, trafficClass: int) -> None:
    """Set the IPv4 type of service or IPv6 traffic class of what is sent."""
    _setBoth(sock, "a traffic class must have IP_TOS", socket.IP_TOS, getattr(socket, "IPV6_TCLASS", 0), trafficClass)


def forbidFragments(sock: socket.socket) -> None:
    """Send each datagram whole or not at all."""
    needed = '"do not fragment" must have IP_MTU_DISCOVER'
    if not available:
        raise features.Refused(errno.ENOPROTOOPT, f"{needed}, and only Linux has it")
    ipv6 = sock.family == socket.AF_INET6
    level, option = (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER) if ipv6 else (socket.IPPROTO_IP, IP_MTU_DISCOVER)
    features.require(sock, needed, level, option, IP_PMTUDISC_DO)


def _setBoth(sock: socket.socket, needed: str, ipv4: int, ipv6: int, value: int) -> None:
    if sock.family == socket.AF_INET:
        features.require(sock, needed, socket.IPPROTO_IP, ipv4, value)
        return
    features.require(sock, needed, socket.IPPROTO_IPV6, ipv6, value)
    # To a mapped address it sends IPv4, where the system lets it (RFC 4291 section 2.5.5.2).
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, ipv4, value)


def sameNetwork(first: socket.socket, second: socket.socket) -> bool:
    """Whether two sockets are in one network namespace (C{network_namespaces(7)}), where the kernel reports it (from 5.14)."""
    cookies = set()
    for sock in (first, second):
        with suppress(OSError):
            cookies.add(sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8) if available else b"")
    return len(cookies) < 2


def kernelDrops(sock: socket.socket) -> int | None:
    """How many datagrams the kernel has dropped because the receive queue was full (C{sk_drops}, the ninth number of
    C{SO_MEMINFO}, C{linux/sock_diag.h}); C{None} if the system does not report it.
    """
    if not available:
        return None
    try:
        numbers = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 9 * 4)
    except OSError as e:
        features.missed(features.DROPS, e)
        return None
    if len(numbers) < 9 * 4:
        # Linux 4.6 has eight.
        features.missed(features.DROPS, "an old kernel, which does not report drops")
        return None
    drops: int = struct.unpack("@9I", numbers)[8]
    return drops
