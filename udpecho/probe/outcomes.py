"""What can become of a probe, and of a datagram that comes back."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Outcome(Enum):
    """
    What became of a probe, or what a datagram was that came back. The value is the name in reports.

    The first eight are fates: each probe has one of them at a time. The others are of datagrams which came beside.

    @cvar OUTSTANDING: it is under way.
    @cvar ANSWERED: its reply came in time.
    @cvar LATE: its reply came after its timeout.
    @cvar LOST: no reply came within its timeout.
    @cvar LOST_OWN: its reply came to this machine, whose receive queue had no room for it.
    @cvar REFUSED: the peer's host said that nothing listens on that port.
    @cvar UNREACHABLE: a router, or this machine, said that the peer cannot be reached.
    @cvar NOT_SENT: this machine could not send it.
    @cvar DUPLICATE: one more reply to a probe that has one.
    @cvar CORRUPT: a reply with other bytes than its probe's.
    @cvar CUT: the beginning of a reply.
    @cvar LONGER: a reply with something behind it.
    @cvar FOREIGN: no reply to a probe of this session.
    @cvar UNMATCHED: a reply to a probe so long ago that what became of it is forgotten, or to none that was sent.
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
    CUT = "cut"
    LONGER = "longer"
    FOREIGN = "foreign"
    UNMATCHED = "unmatched"


#: Where the times come from: the kernel's stamps of sending and receiving; the process's monotonic clock; for some the one, for
#: some the other.
TIMESTAMP_SOURCES = ("kernel", "monotonic", "mixed")


class Event(NamedTuple):
    """
    What became of one probe, or a datagram that came.

    @ivar target: the address that was asked for, as the user wrote it.
    @ivar peer: the address that was sent to, as people read it.
    @ivar outcome: what became of it.
    @ivar sequence: the probe's number, or C{None} where the datagram does not tell.
    @ivar size: how many bytes the probe has, or the datagram that came.
    @ivar roundTrip: its time in ns, or C{None} if it has none.
    @ivar reordered: whether a reply to a later probe came before.
    @ivar sendError: by how many ns the probe left after its schedule, below 0 for before; C{None} if it was not sent, or is not
        known.
    @ivar sentAt: when it was sent, in seconds since 1970 by this machine's clock, for information; or C{None}.
    @ivar detail: what the system or a router said, for a person, or C{None}.
    @ivar source: the local address that was sent from, or C{None}.
    """

    target: str
    peer: str
    outcome: Outcome
    sequence: int | None
    size: int
    roundTrip: int | None = None
    reordered: bool = False
    sendError: int | None = None
    sentAt: float | None = None
    detail: str | None = None
    source: str | None = None
