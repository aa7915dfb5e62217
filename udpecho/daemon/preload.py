"""Load what a daemon may need later, while it can read its files: C{twistd --uid} and C{--chroot} may put them out of reach."""

from __future__ import annotations

import socket
from contextlib import suppress
from importlib import import_module
from typing import Any

from twisted.internet import tcp
from twisted.python import usage

#: What this package, Twisted and Python import when they first need it.
_modules = (
    "encodings.idna",
    "encodings.punycode",
    "twisted.python.threadpool",
    "udpecho.daemon.command_line",
    "udpecho.daemon.health",
)


def isRestricted(options: usage.Options) -> bool:
    """Whether C{twistd} will take privileges or the file system away.

    @param options: those of a command of C{twistd}.
    """
    twistd = options.parent
    return twistd is not None and any(twistd.get(name) is not None for name in ("uid", "gid", "chroot"))


def preload(options: usage.Options) -> None:
    """Load all that may be needed later, if it may be out of reach then. Called before C{twistd} changes its root directory."""
    if not isRestricted(options):
        return
    for name in _modules:
        import_module(name)
    # Twisted keeps a file open, to close it when it has no descriptor left.
    reservation: Any = tcp._reservedFD
    reservation.reserve()
    # The C library loads its resolver, and the file that configures it, for the first name (nsswitch.conf(5)).
    with suppress(OSError):
        socket.getaddrinfo("localhost", None)
