"""Functions of the C library that Python does not wrap, where this Python can call them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

ctypes: Any
try:
    import ctypes
except ImportError:
    # It is an optional part of Python.
    ctypes = None


def find(name: str, arguments: str) -> Callable[..., int]:
    """Find a function that returns a C{int}, below 0 if it fails; then L{lastError} has the number.

    @param arguments: the types of its arguments, as C{struct} names them: C{i}, C{I} or C{P}.
    @raise OSError: if there is none.
    """
    if ctypes is None:
        raise OSError(errno.ENOSYS, "this Python was built without ctypes")
    try:
        function: Any = getattr(ctypes.CDLL(None, use_errno=True), name)
    except AttributeError:
        raise OSError(errno.ENOSYS, f"the C library has no {name}") from None
    function.argtypes = [_type(each) for each in arguments]
    found: Callable[..., int] = function
    return found


def _type(name: str) -> Any:
    return {"i": ctypes.c_int, "I": ctypes.c_uint, "P": ctypes.c_void_p}[name]


def prepared(arguments: str, *values: int | None) -> tuple[Any, ...]:
    """Convert arguments for a function that is called with them again and again: that takes longer than many a call.

    @param arguments: their types, as for L{find}.
    """
    return tuple(_type(each)(value) for each, value in zip(arguments, values, strict=True))


def lastError() -> int:
    """The error number of the last function that failed in this thread."""
    number: int = ctypes.get_errno()
    return number


def checked(result: int) -> int:
    """Look at what a function has returned.

    @raise OSError: if it has failed.
    """
    if result < 0:
        number = lastError()
        raise OSError(number, os.strerror(number))
    return result


def anchor(memory: Any) -> tuple[object, int]:
    """Hold writable memory where it is.

    @return: what holds it, and its address.
    """
    held = ctypes.c_char.from_buffer(memory)
    return held, ctypes.addressof(held)
