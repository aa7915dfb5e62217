"""
What systemd and a daemon tell each other: sockets that are bound already, C{sd_listen_fds(3)}; what the daemon is doing,
C{sd_notify(3)}; and that it is still well, C{sd_watchdog_enabled(3)}.

All of it is passed in the environment, which is a parameter here. It is meant for one process, so what is read is taken out of
it, and no child is misled.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, MutableMapping
from itertools import count

from twisted.internet import defer, task
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from udpecho.daemon.socket_activation import _natural

_log = Logger()
# Those that change what systemd thinks of the daemon; another status, or another sign of life, follows anyway.
_lasting = ("READY=", "RELOADING=", "STOPPING=")
_mostKept = 16
#: The longest time between two signs of life, in seconds, whatever the manager would be content with.
_longestInterval = 86400.0


class Notifier:
    """
    Tells systemd what the daemon is doing.

    Nothing here waits, and nothing raises: a daemon is as well without a manager that listens. Where there is none, nothing is
    sent.
    """

    def __init__(
        self,
        environment: MutableMapping[str, str],
        *,
        nanoseconds: Callable[[], int] = time.monotonic_ns,
        pid: Callable[[], int] = os.getpid,
    ) -> None:
        """
        @param environment: the process's; C{NOTIFY_SOCKET} is taken out of it. It is a path, or with an C{@} in front a name in
            Linux's abstract namespace (C{unix(7)}).
        @param nanoseconds: C{CLOCK_MONOTONIC}, in nanoseconds.
        @param pid: tells the identifier of this process, which another has after it has gone to the background.
        """
        self._nanoseconds = nanoseconds
        self._pid = pid
        self._kept: list[str] = []
        self._complained = False
        address = environment.pop("NOTIFY_SOCKET", None)
        self._address = None if address is None else _notifyAddress(address)
        if address is not None and self._address is None:
            _log.warn(
                "NOTIFY_SOCKET is {address!a}: a path or @name would be right; the manager is told nothing", address=address
            )

    @property
    def listening(self) -> bool:
        """Whether there is a manager to tell."""
        return self._address is not None

    def ready(self, status: str | None = None) -> bool:
        """
        The daemon serves, for the first time or after L{reloading}.

        @param status: what to show in C{systemctl status} from now on.

        @return: whether the manager has been told.
        """
        return self._send("READY=1", f"MAINPID={self._pid()}", *_statusLine(status))

    def reloading(self, status: str | None = None) -> bool:
        """The daemon reads its configuration again; L{ready} follows, also if it could not."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={self._nanoseconds() // 1000}", *_statusLine(status))

    def stopping(self, status: str | None = None) -> bool:
        """The daemon has begun to stop."""
        return self._send("STOPPING=1", *_statusLine(status))

    def status(self, text: str) -> bool:
        """Have C{systemctl status} show one line."""
        return self._send(*_statusLine(text))

    def watchdog(self) -> bool:
        """The daemon is well."""
        return self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> bool:
        if self._address is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                # What did not fit before goes first, on its own: a notification has each variable once.
                while self._kept:
                    sock.sendto(self._kept[0].encode(), self._address)
                    del self._kept[0]
                sock.sendto("\n".join(assignments).encode(), self._address)
        except (OSError, ValueError) as e:
            if isinstance(e, BlockingIOError) and assignments[0].startswith(_lasting):
                self._kept = [*self._kept, "\n".join(assignments)][-_mostKept:]
            self._complain(e)
            return False
        return True

    def _complain(self, reason: Exception) -> None:
        if not self._complained:
            self._complained = True
            _log.warn("the manager at NOTIFY_SOCKET does not hear: {reason}", reason=str(reason))


def _notifyAddress(text: str) -> str | bytes | None:
    """The address to send to, or C{None} if there can be none."""
    if not hasattr(socket, "AF_UNIX") or len(text) < 2:
        return None
    if text.startswith("/"):
        return text
    return b"\0" + os.fsencode(text[1:]) if text.startswith("@") else None


def _statusLine(status: str | None) -> list[str]:
    """A status in one line: a line more would be another variable, and a surrogate is nothing that can be sent."""
    if status is None:
        return []
    return ["STATUS=" + re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]+", " ", status).strip()]


def watchdogInterval(environment: MutableMapping[str, str], *, pid: int | None = None) -> float | None:
    """
    How often to tell the manager that the daemon is well: half of what it waits for it, as C{sd_watchdog_enabled(3)} advises.

    @param environment: the process's; C{WATCHDOG_USEC} and C{WATCHDOG_PID} are taken out of it.
    @param pid: the identifier of this process.

    @return: seconds, or C{None} if the manager does not watch this process.
    """
    wait, meant = environment.pop("WATCHDOG_USEC", None), environment.pop("WATCHDOG_PID", None)
    if wait is None or (meant is not None and _natural(meant) != (os.getpid() if pid is None else pid)):
        return None
    # USEC_INFINITY, 2**64 - 1, is no watchdog.
    if not re.fullmatch("[0-9]{1,19}", wait, re.ASCII) or not int(wait):
        _log.warn("WATCHDOG_USEC is {wait!a}: a number of microseconds would be right; the watchdog is not fed", wait=wait)
        return None
    return min(int(wait) / 2e6, _longestInterval)


class Watchdog:
    """
    Tells the manager again and again that the daemon is well, each time after having made sure.

    A check that fails, or that is not over when the next is due, is not told of. The manager ends a daemon from which it hears
    nothing for two intervals.
    """

    def __init__(
        self,
        clock: IReactorTime,
        interval: float,
        check: Callable[[], defer.Deferred[object]],
        notifier: Notifier,
    ) -> None:
        """
        @param clock: tells the time.
        @param interval: seconds from one check to the next, as L{watchdogInterval} has them.
        @param check: makes sure; its Deferred fires if the daemon is well and fails if not. It is cancelled after an interval.
        @param notifier: tells the manager.
        """
        self._clock = clock
        self._interval = interval
        self._check = check
        self._notifier = notifier
        self._call: task.LoopingCall | None = None
        self._checking: defer.Deferred[object] | None = None
        self._rounds = count(1)
        self._round = 0
        self._ill = False

    def start(self) -> None:
        """Check now, and then after each interval."""
        if self._call is not None:
            return
        self._call = task.LoopingCall(self._turn)
        self._call.clock = self._clock
        self._call.start(self._interval)

    def stop(self) -> None:
        """Check no more; a check under way is cancelled."""
        call, self._call = self._call, None
        self._round = next(self._rounds)
        if call is not None and call.running:
            call.stop()
        checking, self._checking = self._checking, None
        if checking is not None:
            checking.cancel()

    def _turn(self) -> None:
        late, self._checking = self._checking, None
        self._round = this = next(self._rounds)
        if late is not None:
            # Its answer, if it still comes, is of the round before, and not listened to.
            late.cancel()
            self._isIll("the check is not over after {seconds:g} s", seconds=self._interval)
        checking: defer.Deferred[object] = defer.maybeDeferred(self._check)
        self._checking = checking
        checking.addCallbacks(self._succeeded, self._failed, callbackArgs=(this,), errbackArgs=(this,))

    def _succeeded(self, _: object, number: int) -> None:
        if number == self._round:
            self._checking = None
            if self._ill:
                self._ill = False
                _log.info("the server is well again: the watchdog is fed")
            self._notifier.watchdog()

    def _failed(self, reason: Failure, number: int) -> None:
        if number == self._round:
            self._checking = None
            self._isIll("{reason}", reason=reason.getErrorMessage())

    def _isIll(self, why: str, **fields: object) -> None:
        """Say that the watchdog is not fed, once until it is again."""
        if not self._ill:
            self._ill = True
            _log.warn(f"the server does not answer itself: the watchdog is not fed: {why}", **fields)
