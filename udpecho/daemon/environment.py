"""What systemd passes in the environment, read once and first: C{sd_listen_fds(3)}, C{sd_notify(3)}, C{sd_watchdog_enabled(3)}.

The variables are there for anybody. Twisted removes C{LISTEN_PID} and C{LISTEN_FDS} when C{twisted.internet.endpoints} is
first imported: for C{--metrics}, by a C{.tac} file, or by another plugin while C{twistd} makes its list of plugins, which is
before any code of ours runs. So they are read before a command line is. What is missing by then is read from the environment
that the process was started with, which nothing changes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from contextlib import suppress

_sockets = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_names = (*_sockets, "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
#: The environment of this process when it was started (C{proc_pid_environ(5)}). Only Linux has it, as only Linux has systemd.
_initial = "/proc/self/environ"


def readPassed(environment: Mapping[str, str], initial: str = _initial) -> dict[str, str]:
    """Read systemd's variables, and leave them where they are: Twisted's C{systemd:} endpoints need them too.

    @param environment: the environment of the process.
    @param initial: the file with the environment that it was started with.
    @return: those that are set, and are for this process as far as they name one. They are for L{activatedSockets
        <udpecho.daemon.socket_activation.activatedSockets>} and L{Daemon <udpecho.daemon.service.Daemon>}.
    """
    found = {name: environment[name] for name in _names if name in environment}
    if "LISTEN_PID" not in found:
        first = _readEnvironment(initial)
        # A process that was forked has the environment of its parent.
        if first.get("LISTEN_PID") == str(os.getpid()):
            found.update((name, first[name]) for name in _sockets if name in first)
    return found


def removePassed(environment: MutableMapping[str, str]) -> None:
    """Remove systemd's variables, which are for this process only: no child uses them."""
    for name in _names:
        environment.pop(name, None)


def _readEnvironment(path: str) -> dict[str, str]:
    data = b""
    with suppress(OSError), open(path, "rb") as file:
        data = file.read()
    pairs = (os.fsdecode(entry).partition("=") for entry in data.split(b"\0"))
    return {name: value for name, _, value in pairs}
