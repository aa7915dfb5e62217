"""Load what a daemon may need later, while it can read its files: C{twistd --uid} and C{--chroot} may put them out of reach."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from importlib import import_module
from typing import Any

from twisted.internet import tcp
from twisted.python import usage

from udpecho.daemon.paths import newRoot
from udpecho.daemon.start_errors import CannotStart

#: What this package, Twisted and Python import when they first need it.
_modules = (
    "encodings.idna",
    "encodings.punycode",
    "twisted.python.threadpool",
)


def isRestricted(options: usage.Options) -> bool:
    """Whether C{twistd} will take privileges or the file system away.

    @param options: those of a command of C{twistd}.
    """
    twistd = options.parent
    return twistd is not None and any(twistd.get(name) is not None for name in ("uid", "gid", "chroot"))


def preload(options: usage.Options) -> None:
    """Load all that may be needed later, if it may be out of reach then. Called before C{twistd} changes its root directory.

    @raise CannotStart: if C{twistd} will need a file that the new root directory does not have.
    """
    if not isRestricted(options):
        return
    problem = rootProblem(options)
    if problem is not None:
        raise CannotStart(problem)
    for name in _modules:
        import_module(name)
    # Twisted keeps a file open, to close it when it has no descriptor left.
    reservation: Any = tcp._reservedFD
    reservation.reserve()
    # The C library loads its resolver, and the file that configures it, for the first name (nsswitch.conf(5)).
    with suppress(OSError):
        socket.getaddrinfo("localhost", None)


def rootProblem(options: usage.Options) -> str | None:
    """What C{twistd} will need and the new root directory does not have, if there is such a thing."""
    root, twistd = newRoot(options), options.parent
    if root is None or twistd is None:
        return None
    uid, inBackground = twistd["uid"], not twistd["nodaemon"]
    if inBackground and not os.path.exists(f"{root}/dev/null"):
        return f"--chroot must have /dev/null for a daemon in the background, got {root} without it"
    if uid is not None:
        # twistd looks up the groups of the user.
        known: list[str] = []
        with suppress(OSError), open(f"{root}/etc/passwd") as file:
            known = [line.split(":")[2] for line in file if line.count(":") == 6]
        if str(uid) not in known:
            return f"--chroot must have /etc/passwd with the user of --uid, {uid}, got {root} without it"
    return None
