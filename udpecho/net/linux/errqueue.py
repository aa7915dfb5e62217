"""Entries of the error queue (C{IP_RECVERR} in C{ip(7)})."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import NamedTuple

from udpecho.net.linux.cmsg import Ancillary, _extendedError, _whole, timespec
from udpecho.net.linux.sockopt import (
    IP_RECVERR,
    IPV6_RECVERR,
    MSG_ERRQUEUE,
    SO_EE_ORIGIN_ICMP,
    SO_EE_ORIGIN_ICMP6,
    SO_EE_ORIGIN_TIMESTAMPING,
    SO_TIMESTAMPING,
)

_ERROR_ANCILLARY_SIZE = 512


@dataclass(frozen=True)
class QueuedError:
    """
    One entry of a socket's error queue.

    @ivar errno: what happened.
    @ivar info: for C{EMSGSIZE} the MTU of the path, in bytes, IP header included.
    @ivar quoted: the beginning of the datagram that it happened to, as far as whoever said so has quoted it.
    """

    errno: int
    info: int
    quoted: bytes = b""


class QueuedStamp(NamedTuple):
    """
    What the error queue says of a datagram that was sent.

    @ivar id: its number: 0 for the first one since numbers were asked for, of 32 bits.
    @ivar time: when the kernel handed it to the device, in ns of the wall clock.
    """

    id: int
    time: int


def readQueued(ancillary: Ancillary, quoted: bytes = b"") -> QueuedError | QueuedStamp | None:
    """
    Read an entry of the error queue.

    @param quoted: the payload that it came with.

    @return: C{None} if it is of a kind that is not known here.
    """
    time = 0
    ancillary = _whole(ancillary)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPING:
            whole, rest = timespec.unpack_from(data)
            time = whole * 1_000_000_000 + rest
    for level, kind, data in ancillary:
        if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
            number, origin, _, _, info, datum = _extendedError.unpack_from(data)
            if origin in (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6):
                return QueuedError(number, info, quoted)
            if origin == SO_EE_ORIGIN_TIMESTAMPING and time:
                return QueuedStamp(datum, time)
    return None


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
        for level, kind, data in _whole(ancillary):
            if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
                number, origin, _, _, info, _ = _extendedError.unpack_from(data)
                if origin in (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6):
                    errors.append(QueuedError(number, info))
    return errors
