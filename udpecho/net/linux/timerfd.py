"""Timers in ns that are descriptors (C{timerfd_create(2)}), which Python wraps from 3.13 on."""

from __future__ import annotations

import ctypes
import os
import struct
from functools import lru_cache
from typing import Any

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK = 0o4000
_TFD_CLOEXEC = 0o2000000
_TFD_TIMER_ABSTIME = 1
#: C{struct itimerspec}: the interval, which is none, and the time, in seconds and ns each.
_itimerspec = struct.Struct("@qqqq")
_never = _itimerspec.pack(0, 0, 0, 0)
_second = 1_000_000_000


@lru_cache(1)
def _library() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    library.timerfd_create.argtypes = [ctypes.c_int, ctypes.c_int]
    library.timerfd_settime.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
    return library


class Timerfd:
    """A timer on the monotonic clock.

    @ivar descriptor: can be read from the time on, until another time is set.
    """

    def __init__(self) -> None:
        """@raise AttributeError: if the C library has no such timers.
        @raise OSError: if the system makes none.
        """
        library = _library()
        self._settime = library.timerfd_settime
        self.descriptor: int = library.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self.descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def set(self, time: int | None) -> None:
        """Set the time, in ns; C{None} for never."""
        # 0 would be never.
        spec = _never if time is None else _itimerspec.pack(0, 0, *divmod(max(1, time), _second))
        self._settime(self.descriptor, _TFD_TIMER_ABSTIME, spec, None)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)
