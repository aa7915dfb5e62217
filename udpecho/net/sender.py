"""Sending: transmit, and the queue for a full send buffer."""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.logger import Logger

from udpecho.interfaces import SendCallback
from udpecho.net.linux import cmsg

_log = Logger()

#: Seconds that a datagram waits for a full send queue, as in the seed.
WRITE_TIMEOUT = 5.0
#: How many datagrams may wait for it.
MAX_WAITING = 1024
#: How often to send a datagram whose sending tells of errors of earlier ones: they may come as fast as it is sent.
_sendTries = 3


class _Waiting(NamedTuple):
    """A datagram that waits for the send queue."""

    deadline: float
    datagram: bytes
    destination: tuple[Any, ...] | None
    ancillary: cmsg.Ancillary
    callback: SendCallback


def notifySent(callback: SendCallback, reason: str | None) -> None:
    """Tell a sender what became of its datagram; what it raises is logged."""
    try:
        callback(reason)
    except Exception:
        _log.failure("Unhandled error on being told what became of a datagram")


def _forget(reason: str | None) -> None:
    """What C{write} does about a datagram's fate: nothing, since the port has counted it."""
