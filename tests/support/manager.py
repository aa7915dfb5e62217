"""A stand-in for systemd: it holds sockets, passes them to a command as in C{sd_listen_fds(3)}, and receives its
notifications.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from tests.support.processes import Late, Process, Processes, command
from tests.support.running import PATIENCE

# The last step before the command, as systemd's: the descriptors get their places, and the process knows that they are its own.
_launcher = """
import fcntl, os, sys
end = sys.argv.index("--")
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1:end]]
for place, descriptor in enumerate(high):
    os.dup2(descriptor, 3 + place)
    os.close(descriptor)
os.environ["LISTEN_PID"] = os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execvp(sys.argv[end + 1], sys.argv[end + 1:])
"""


class Manager:
    """Holds sockets while commands come and go; as a context manager closes them at its end.

    @ivar sockets: the sockets, by the names they are passed with.
    @ivar heard: all notifications so far, each as its variables.
    """

    def __init__(self, sockets: Sequence[tuple[str, socket.socket]] = (), watchdog: float | None = None) -> None:
        """@param sockets: names and sockets; the sockets are closed at the end.
        @param watchdog: C{WatchdogSec=}, in seconds.
        """
        self.sockets = list(sockets)
        self.heard: list[dict[str, str]] = []
        self._watchdog = watchdog
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # The system chooses a name in the abstract namespace, unix(7).
        self._notified.bind("")

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        with ExitStack() as stack:
            for _, sock in self.sockets:
                stack.enter_context(sock)
            stack.enter_context(self._notified)

    @property
    def environment(self) -> dict[str, str]:
        """What a command has in its environment, in addition to the identifiers of its process."""
        environment = {"NOTIFY_SOCKET": "@" + os.fsdecode(self._notified.getsockname()[1:])}
        if self.sockets:
            environment["LISTEN_FDS"] = str(len(self.sockets))
            environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in self.sockets)
        if self._watchdog is not None:
            environment["WATCHDOG_USEC"] = str(int(self._watchdog * 1e6))
        return environment

    def start(self, processes: Processes, *arguments: str, **how: Any) -> Process:
        """Start a command as a service.

        @param arguments: its name and its arguments, as for L{Processes.start}.
        """
        name, *rest = arguments
        whole = [*(command(name) if name in ("udpecho", "twistd", "twist") else [name]), *rest]
        numbers = [sock.fileno() for _, sock in self.sockets]
        how.setdefault("environment", self.environment)
        return processes.start(sys.executable, "-c", _launcher, *map(str, numbers), "--", *whole, descriptors=numbers, **how)

    def until(self, assignment: str) -> dict[str, str]:
        """Wait for a notification.

        @param assignment: what it has in it, as in C{READY=1}, or a variable's name alone.
        @return: its variables.
        @raise Late: if it does not come.
        """
        name, equals, value = assignment.partition("=")
        deadline = time.monotonic() + PATIENCE
        while select.select([self._notified], [], [], max(0, deadline - time.monotonic()))[0]:
            found = variables(self._notified.recv(65536))
            self.heard.append(found)
            if name in found and (not equals or found[name] == value):
                return found
        raise Late(f"no {assignment} in {self.heard}")

    def pending(self) -> list[dict[str, str]]:
        """The notifications that nobody has waited for."""
        found = []
        while select.select([self._notified], [], [], 0)[0]:
            found.append(variables(self._notified.recv(65536)))
        self.heard += found
        return found


def variables(notification: bytes) -> dict[str, str]:
    """Parse a notification, C{sd_notify(3)}.

    @raise ValueError: if it has a variable twice, or a line that is none.
    """
    pairs = [line.split("=", 1) for line in notification.decode().split("\n")]
    if any(len(pair) != 2 for pair in pairs) or len({pair[0] for pair in pairs}) != len(pairs):
        raise ValueError(f"not a notification: {notification!r}")
    return {pair[0]: pair[1] for pair in pairs}
