"""
The system calls that take many datagrams at once, which Python does not wrap: C{recvmmsg(2)} and C{sendmmsg(2)}.
"""

from __future__ import annotations

import ctypes
import errno
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from udpecho.sockets import linux


class SystemCalls(NamedTuple):
    """
    The two system calls, as the C library has them: they return -1, and leave the error number to C{lastError}.
    """

    recvmmsg: Callable[..., int]
    sendmmsg: Callable[..., int]
    lastError: Callable[[], int]


@lru_cache(1)
def systemCalls() -> SystemCalls:
    """
    Find the system calls.

    @raise OSError: if there are none with the layouts that this module knows.
    """
    if not linux.available or sys.maxsize < 2**32 or sys.byteorder != "little":
        raise OSError(errno.ENOSYS, "only Linux with 64 bits, little-endian, has them as they are used here")
    library = ctypes.CDLL(None, use_errno=True)
    try:
        receive, send = library.recvmmsg, library.sendmmsg
    except AttributeError:
        raise OSError(errno.ENOSYS, "the C library has no recvmmsg and sendmmsg") from None
    receive.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
    send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
    return SystemCalls(receive, send, ctypes.get_errno)


__all__ = ["SystemCalls", "systemCalls"]
