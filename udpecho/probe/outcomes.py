"""What can become of a probe, and what a received datagram can be."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Outcome(Enum):
    """What became of a probe, or what a received datagram was. The value is the name in records.

    The first eight (L{PROBE_OUTCOMES}) are of probes: each probe has exactly one of them at a time. The others
    (L{EXTRA_DATAGRAMS}) are of datagrams that are not the first valid reply to a probe.

    @cvar OUTSTANDING: neither a reply nor the timeout has come.
    @cvar ANSWERED: the reply came in time.
    @cvar LATE: the reply came after the timeout.
    @cvar LOST: no reply came within the timeout.
    @cvar LOST_OWN: the reply came to this machine, whose receive queue was full.
    @cvar REFUSED: the peer's host reported that nothing listens on that port.
    @cvar UNREACHABLE: a router, or this machine, reported that the peer cannot be reached.
    @cvar NOT_SENT: this machine could not send it.
    @cvar DUPLICATE: another reply to a probe that already has one.
    @cvar CORRUPT: a reply whose bytes are not those of its probe.
    @cvar TRUNCATED: only the beginning of a reply.
    @cvar OVERSIZED: a reply with additional bytes at its end.
    @cvar UNRELATED: not a reply to a probe of this session.
    @cvar UNMATCHED: a reply to a probe that was not sent, or so long ago that its outcome is forgotten.
    """

    OUTSTANDING = "outstanding"
    ANSWERED = "answered"
    LATE = "late"
    LOST = "lost"
    LOST_OWN = "lost_own"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    NOT_SENT = "not_sent"
    DUPLICATE = "duplicate"
    CORRUPT = "corrupt"
    TRUNCATED = "truncated"
    OVERSIZED = "oversized"
    UNRELATED = "unrelated"
    UNMATCHED = "unmatched"


PROBE_OUTCOMES = tuple(Outcome)[:8]
EXTRA_DATAGRAMS = tuple(Outcome)[8:]

#: Where round trips come from: the kernel's timestamps, the process's monotonic clock, or some from each.
TIMESTAMP_SOURCES = ("kernel", "monotonic", "mixed")


class Event(NamedTuple):
    """A new outcome of a probe, or a received datagram.

    @ivar target: the address of the target as the user wrote it.
    @ivar peer: the address that was sent to, as text.
    @ivar sequence: the probe's number, or C{None} if the datagram does not contain it.
    @ivar size: the length of the probe, or of the received datagram, in bytes.
    @ivar roundTrip: the round-trip time, in seconds, or C{None} if there is none.
    @ivar reordered: whether a reply to a later probe came before this one.
    @ivar scheduleDeviation: how long after its scheduled time the probe was sent, in seconds, below 0 if before; C{None} if it
        was not sent or is not known.
    @ivar sentAt: when the probe was sent, in seconds since 1970 by this machine's clock, for information; or C{None}.
    @ivar detail: what the system or a router reported, for a person, or C{None}.
    @ivar source: the local address that was sent from, or C{None}.
    """

    target: str
    peer: str
    outcome: Outcome
    sequence: int | None
    size: int
    roundTrip: float | None = None
    reordered: bool = False
    scheduleDeviation: float | None = None
    sentAt: float | None = None
    detail: str | None = None
    source: str | None = None
