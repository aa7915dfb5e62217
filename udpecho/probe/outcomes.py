"""
What can become of a probe, and of a datagram that comes back.
"""

from __future__ import annotations

from enum import Enum


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


__all__ = ["Outcome"]
