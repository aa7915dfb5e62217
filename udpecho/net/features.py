"""What this system refuses: features that older kernels, imitations of Linux, filters of containers (C{seccomp(2)}) and other
systems do not have. Each is logged once in a process, when it would have been used, with what follows from that.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import NamedTuple

from twisted.logger import Logger, LogLevel

_log = Logger()

#: How a system refuses what it does not have, or does not permit. Other errors are of the moment.
REFUSALS = frozenset(
    {
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.ENOSYS,
        errno.EINVAL,
        errno.EPERM,
        errno.EACCES,
        errno.ENODEV,
        errno.EAFNOSUPPORT,
    }
)


class Feature(NamedTuple):
    """A feature of the system.

    @ivar name: as the kernel's documentation has it.
    @ivar consequence: what is different without it.
    @ivar level: C{warn} if anything but speed is.
    """

    name: str
    consequence: str
    level: LogLevel = LogLevel.warn


BATCHES = Feature("recvmmsg and sendmmsg", "datagrams are received one by one", LogLevel.info)
GRO = Feature("UDP_GRO", "the datagrams of one flow are received each for itself", LogLevel.info)
GSO = Feature("UDP_SEGMENT", "the datagrams of one flow are sent each for itself", LogLevel.info)
PKTINFO = Feature(
    "IP_PKTINFO",
    "on a wildcard address, replies may leave from another address than the one that was asked, and broadcasts are answered;"
    " --interface ADDRESS for each address mends that",
)
HOP_LIMIT = Feature("IP_RECVTTL", "replies have the system's hop limit, and the guard alone ends a loop of servers")
PMTU = Feature("IP_MTU_DISCOVER", "a forged report of a path that carries less may have long replies dropped (send_failed)")
RECVERR = Feature("IP_RECVERR", "refusals are reported, but not unreachable hosts and networks: those look like a loss")
DROPS = Feature("SO_MEMINFO", "what a full receive queue drops is not known, and not counted")
TIMESTAMPS = Feature("SO_TIMESTAMPING", "round trips are of the monotonic clock, with the time that this process needs")
TIMER = Feature("timerfd and epoll", "probes go one by one, a millisecond late at times, timed by the monotonic clock")
EPOLL = Feature("epoll", "the reactor uses poll", LogLevel.info)
MEMORY = Feature("memfd_create", "workers share their counters by a temporary file", LogLevel.info)


class Refused(OSError):
    """The system refuses a feature that is needed. C{strerror} names it, and what needs it."""


#: All, by their names.
FEATURES = {each.name: each for each in list(globals().values()) if isinstance(each, Feature)}

_refused: dict[Feature, str] = {}
_missed: dict[str, str] = {}


def refused(feature: Feature, reason: OSError | str) -> None:
    """Remember why the system refuses a feature."""
    _refused[feature] = (reason.strerror or str(reason)) if isinstance(reason, OSError) else reason


def missed(feature: Feature, reason: OSError | str | None = None) -> None:
    """Log that a feature would have been used.

    @param reason: why the system refuses it; by default what L{refused} has got.
    """
    if reason is not None:
        refused(feature, reason)
    if feature.name in _missed:
        return
    why = _missed[feature.name] = _refused.get(feature, "only Linux has it")
    _log.emit(
        feature.level,
        "this system does not have {feature} ({reason}): {consequence}",
        feature=feature.name,
        reason=why,
        consequence=feature.consequence,
    )


def lacking() -> dict[str, str]:
    """The features that would have been used, each with the reason why the system refuses it."""
    return dict(_missed)


def require(sock: socket.socket, what: str, level: int, option: int, value: int) -> None:
    """Set a socket option without which it cannot go on.

    @param what: what must be, with the name of the option.
    @raise Refused: if the system does not set it.
    """
    try:
        sock.setsockopt(level, option, value)
    except OSError as e:
        number = e.errno or errno.EIO
        raise Refused(number, f"{what}, and this system refuses it: {os.strerror(number)}") from None
