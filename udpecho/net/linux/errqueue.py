"""Entries of the error queue of a socket (C{IP_RECVERR} in C{ip(7)})."""

from __future__ import annotations

import socket
from typing import NamedTuple

from udpecho.net.linux import sockopt
from udpecho.net.linux.cmsg import RECVERR, Ancillary, complete, extendedError, readTimestamp

#: Bytes for the control messages of an entry.
ANCILLARY_SIZE = 512
#: How much of a quoted datagram to read, in bytes.
QUOTE_SIZE = 64


class QueuedError(NamedTuple):
    """What ICMP reported.

    @ivar errno: C{ee_errno}.
    @ivar info: C{ee_info}: for C{EMSGSIZE} the MTU of the path, in bytes, IP header included.
    @ivar quoted: the beginning of the datagram that it is about.
    """

    errno: int
    info: int
    quoted: bytes = b""


class SendTimestamp(NamedTuple):
    """When a datagram was sent.

    @ivar id: C{ee_data}: 0 for the first datagram since C{SOF_TIMESTAMPING_OPT_ID} was set, of 32 bits.
    @ivar time: when the kernel handed it to the device, in ns of the wall clock.
    """

    id: int
    time: int


def readEntry(ancillary: Ancillary, quoted: bytes = b"") -> QueuedError | SendTimestamp | None:
    """Read an entry; C{None} if it is of another kind, as the errors of this machine itself are: the send that met one has
    failed with the same number.
    """
    for level, kind, data in complete(ancillary):
        if (level, kind) in RECVERR:
            number, origin, _, _, info, datum = extendedError.unpack_from(data)
            if origin in (sockopt.SO_EE_ORIGIN_ICMP, sockopt.SO_EE_ORIGIN_ICMP6):
                return QueuedError(number, info, quoted)
            time = readTimestamp(ancillary)
            if origin == sockopt.SO_EE_ORIGIN_TIMESTAMPING and time:
                return SendTimestamp(datum, time)
    return None


def readErrors(sock: socket.socket, limit: int) -> list[QueuedError]:
    """Take what ICMP reported from the error queue, C{limit} entries at the most, oldest first."""
    errors: list[QueuedError] = []
    for _ in range(limit):
        try:
            quoted, ancillary, _, _ = sock.recvmsg(QUOTE_SIZE, ANCILLARY_SIZE, sockopt.MSG_ERRQUEUE | sockopt.MSG_DONTWAIT)
        except OSError:
            break
        entry = readEntry(ancillary, quoted)
        if isinstance(entry, QueuedError):
            errors.append(entry)
    return errors
