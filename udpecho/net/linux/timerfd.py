"""Timers in ns that are descriptors (C{timerfd_create(2)}), which Python wraps from 3.13 on."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from udpecho.net.linux import library

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
#: C{struct itimerspec}: the interval, which is none, and the time, in seconds and ns each. The functions of these names take a
#: C{time_t} that is as wide as a C{long}; those with a wider one have other names (C{__timerfd_settime64} in glibc).
_itimerspec = struct.Struct("@llll")
_second = 1_000_000_000
#: The latest time in seconds that any of them can have, 68 years after the start of the system.
_latest = 2**31 - 1


class _Functions(NamedTuple):
    create: Callable[..., int]
    settime: Callable[..., int]
    gettime: Callable[..., int]


@lru_cache(1)
def _functions() -> _Functions:
    find = library.find
    return _Functions(find("timerfd_create", "ii"), find("timerfd_settime", "iiPP"), find("timerfd_gettime", "iP"))


class Timerfd:
    """A timer on the monotonic clock.

    @ivar descriptor: can be read from the time on, until another time is set.
    """

    def __init__(self) -> None:
        """@raise OSError: if the system makes none."""
        self._calls = _functions()
        self.descriptor = library.checked(self._calls.create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))

    def set(self, time: int | None) -> None:
        """Set the time, in ns; C{None} for never. What is later than possible is the latest possible.

        @raise OSError: if the system refuses.
        """
        # 0 would be never.
        seconds, nanoseconds = (0, 0) if time is None else divmod(max(1, time), _second)
        spec = _itimerspec.pack(0, 0, min(seconds, _latest), nanoseconds)
        library.checked(self._calls.settime(self.descriptor, _TFD_TIMER_ABSTIME, spec, None))

    def remaining(self) -> int:
        """How many ns are left; 0 if no time is set.

        @raise OSError: if the system refuses.
        """
        spec = bytearray(_itimerspec.size)
        held, address = library.anchor(spec)
        library.checked(self._calls.gettime(self.descriptor, address))
        del held
        _, _, seconds, nanoseconds = _itimerspec.unpack(spec)
        return int(seconds * _second + nanoseconds)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)
