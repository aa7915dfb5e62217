"""The proof that a reply can be sent with control messages: its source address, its hop limit, and the size of the segments of
a GSO batch. A system that reports them for what is received may refuse them for what is sent, and then no reply at all could be
sent; or it may ignore them, and send a whole batch as one datagram.
"""

from __future__ import annotations

import socket
from functools import lru_cache

from udpecho.net import features
from udpecho.net.linux import cmsg, sockopt


def areTaken(family: int, feature: features.Feature) -> bool:
    """Whether the control messages of a feature, C{PKTINFO}, C{HOP_LIMIT} or C{GSO}, can be sent.

    If the test cannot be done, they are taken to be, and it is done again next time.
    """
    try:
        reason = _refusal(family, feature)
    except OSError:
        # There is no descriptor left, for example, or no loopback interface.
        return True
    if reason is not None:
        features.refused(feature, reason)
    return reason is None


def reportHopLimits(sock: socket.socket, wanted: bool) -> bool:
    """Have what is left of the hop limit of each datagram reported, if replies can be sent with one less.

    @return: whether it is.
    """
    reported = sockopt.enableRecvHopLimit(sock, wanted and areTaken(sock.family, features.HOP_LIMIT))
    if wanted and not reported:
        features.missed(features.HOP_LIMIT)
    return reported


def reportDestinations(sock: socket.socket, wanted: bool) -> bool:
    """The same for the local address that each datagram was sent to."""
    reported = sockopt.enablePktinfo(sock, wanted and areTaken(sock.family, features.PKTINFO))
    if wanted and not reported:
        features.missed(features.PKTINFO)
    return reported


def reportToConnected(sock: socket.socket, hopLimits: bool) -> bool:
    """Have the system report what a connected port needs: what ICMP reports, and perhaps hop limits.

    @return: whether it reports those.
    """
    if not sockopt.available:
        return False
    sockopt.enableRecvErr(sock)
    return hopLimits and reportHopLimits(sock, True)


@lru_cache(8)
def _refusal(family: int, feature: features.Feature) -> str | None:
    """Why they are not; C{None} if they are.

    @raise OSError: if the test cannot be done.
    """
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    controls = cmsg.replyControls(
        family == socket.AF_INET6,
        host if feature is features.PKTINFO else None,
        1 if feature is features.HOP_LIMIT else None,
        1 if feature is features.GSO else 0,
    )
    expected = [b"a", b"b"] if feature is features.GSO else [b"ab"]
    with socket.socket(family, socket.SOCK_DGRAM) as near, socket.socket(family, socket.SOCK_DGRAM) as far:
        for sock in (near, far):
            sock.bind((host, 0))
            sock.setblocking(False)
        near.sendto(b"", far.getsockname())
        try:
            far.recvmsg(1, cmsg.CONTROL_SIZE)
            far.sendmsg([b"ab"], controls, 0, near.getsockname())
        except OSError as e:
            if e.errno in features.REFUSALS:
                return e.strerror
            raise
        return None if [near.recv(2) for _ in expected] == expected else "it is ignored"
