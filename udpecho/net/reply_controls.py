"""The proof that a reply can be sent with control messages: its source address, and its hop limit. A system that reports both
for what is received may refuse them for what is sent, and then no reply at all could be sent.
"""

from __future__ import annotations

import socket
from functools import lru_cache

from udpecho.net import features
from udpecho.net.linux import cmsg


def areTaken(family: int, feature: features.Feature) -> bool:
    """Whether the control messages of a feature, C{PKTINFO} or C{HOP_LIMIT}, can be received and sent. If the test cannot be
    done, it is done again next time, and they are taken to be.
    """
    try:
        reason = _refusal(family, feature)
    except OSError:
        # There is no descriptor left, for example, or no loopback interface.
        return True
    if reason is not None:
        features.refused(feature, reason)
    return reason is None


@lru_cache(8)
def _refusal(family: int, feature: features.Feature) -> str | None:
    """Why they are not; C{None} if they are.

    @raise OSError: if the test cannot be done.
    """
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    hopLimit, local = (None, host) if feature is features.PKTINFO else (1, None)
    with socket.socket(family, socket.SOCK_DGRAM) as near, socket.socket(family, socket.SOCK_DGRAM) as far:
        for sock in (near, far):
            sock.bind((host, 0))
            sock.setblocking(False)
        near.sendto(b"", far.getsockname())
        try:
            far.recvmsg(1, cmsg.ANCILLARY_SIZE)
            far.sendmsg([b""], cmsg.replyControls(family == socket.AF_INET6, local, hopLimit), 0, near.getsockname())
        except OSError as e:
            if e.errno in features.REFUSALS:
                return e.strerror
            raise
    return None
