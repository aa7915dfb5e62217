"""Notifications to systemd, C{sd_notify(3)}, and its watchdog, C{sd_watchdog_enabled(3)}.

systemd passes both in the environment. They are for this process only: reading removes them, so that no child uses them.
"""

from __future__ import annotations

import os
import re
import socket
import time
import weakref
from collections.abc import Callable, MutableMapping
from contextlib import suppress

from twisted.internet import defer, task
from twisted.logger import Logger
from twisted.python.failure import Failure

from udpecho.daemon.socket_activation import parseNatural
from udpecho.interfaces import Reactor
from udpecho.net.delayed_calls import SingleCall

_log = Logger()
# Notifications of a state are kept until systemd takes them; another status or WATCHDOG=1 follows anyway.
_stateVariables = ("READY=", "RELOADING=", "STOPPING=")
_maxPending = 16
#: The longest status, in bytes: systemd ignores a notification of more than 4096 bytes (C{NOTIFY_BUFFER_MAX}).
_maxStatus = 1000
#: The longest watchdog interval, in seconds.
_maxInterval = 86400.0


class Notifier:
    """Notifies systemd of the state of the daemon.

    No method blocks or raises: a daemon works without systemd too. Each returns whether it has sent the notification.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """@param environment: its C{NOTIFY_SOCKET} is a path, or C{@} and a name in Linux's abstract namespace (C{unix(7)})."""
        self._pending: list[str] = []
        self._warned = False
        address = environment.pop("NOTIFY_SOCKET", None)
        self._address = None if address is None else _notifyAddress(address)
        if address is not None and self._address is None:
            _log.warn("NOTIFY_SOCKET must be a path or @name, got {address!a}: systemd is not notified", address=address)
        # In a new root directory the path is another one.
        self._early: socket.socket | None = None
        if self._address is not None:
            with suppress(OSError, ValueError):
                self._early = _connect(self._address)
                weakref.finalize(self, self._early.close)

    def ready(self, status: str) -> bool:
        """The daemon serves, for the first time or after L{reloading}. C{status} is one line for C{systemctl status}."""
        # A second line would be another variable, and a surrogate cannot be encoded.
        line = re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]+", " ", status).strip()
        if len(line.encode()) > _maxStatus:
            line = line.encode()[: _maxStatus - 3].decode(errors="ignore") + "..."
        # The identifier changes when the process goes to the background.
        return self._send("READY=1", f"MAINPID={os.getpid()}", f"STATUS={line}")

    def reloading(self) -> bool:
        """The daemon reloads its configuration; L{ready} must follow, even if it fails."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> bool:
        """The daemon has begun to stop."""
        return self._send("STOPPING=1")

    def watchdog(self) -> bool:
        """The daemon works."""
        return self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> bool:
        if self._address is None:
            return False
        try:
            with self._open(self._address) as sock:
                # Pending notifications go first, one by one: a notification has each variable once.
                while self._pending:
                    sock.send(self._pending[0].encode())
                    del self._pending[0]
                sock.send("\n".join(assignments).encode())
        except (OSError, ValueError) as e:
            if isinstance(e, BlockingIOError) and assignments[0].startswith(_stateVariables):
                self._pending = [*self._pending, "\n".join(assignments)][-_maxPending:]
            if not self._warned:
                self._warned = True
                _log.warn("cannot notify systemd at NOTIFY_SOCKET: {reason}", reason=str(e))
            return False
        return True

    def _open(self, address: str | bytes) -> socket.socket:
        try:
            return _connect(address)
        except OSError:
            if self._early is None:
                raise
            return self._early.dup()


def _connect(address: str | bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _notifyAddress(text: str) -> str | bytes | None:
    if not hasattr(socket, "AF_UNIX") or len(text) < 2:
        return None
    if text.startswith("/"):
        return text
    return b"\0" + os.fsencode(text[1:]) if text.startswith("@") else None


def watchdogInterval(environment: MutableMapping[str, str], *, pid: int | None = None) -> float | None:
    """The interval in which to feed the watchdog: half of its timeout, as C{sd_watchdog_enabled(3)} advises.

    @return: seconds, or C{None} if systemd does not watch this process.
    """
    timeout, watched = environment.pop("WATCHDOG_USEC", None), environment.pop("WATCHDOG_PID", None)
    if timeout is None or (watched is not None and parseNatural(watched) != (os.getpid() if pid is None else pid)):
        return None
    # USEC_INFINITY, 2**64 - 1, is no watchdog.
    if not re.fullmatch("[0-9]{1,19}", timeout, re.ASCII) or not int(timeout):
        _log.warn("WATCHDOG_USEC must be a number of microseconds, got {timeout!a}: the watchdog is not fed", timeout=timeout)
        return None
    return min(int(timeout) / 2e6, _maxInterval)


#: How often in an interval a check that fails is repeated.
_repetitions = 5


class Watchdog:
    """Feeds systemd's watchdog after each check that succeeds.

    A check that fails, or that has not finished when the next one is due, does not feed it. One that fails is repeated soon: it
    may have met what lasts a moment only, and systemd ends a daemon that does not feed its watchdog for two intervals.
    """

    def __init__(
        self, reactor: Reactor, interval: float, check: Callable[[], defer.Deferred[object]], notifier: Notifier
    ) -> None:
        """@param reactor: an C{IReactorTime} provider.
        @param interval: seconds from one check to the next.
        @param check: its Deferred fires if the daemon works and fails if not. It is cancelled after an interval.
        """
        self._reactor = reactor
        self._interval = interval
        self._check = check
        self._notifier = notifier
        self._call: task.LoopingCall | None = None
        self._checking: defer.Deferred[object] | None = None
        self._failing = False
        self._repeating = SingleCall(reactor, self._turn)

    def start(self) -> None:
        """Check now, and then once in each interval."""
        if self._call is not None:
            return
        self._call = task.LoopingCall(self._turn)
        self._call.clock = self._reactor
        self._call.start(self._interval)

    def stop(self) -> None:
        """Stop, and cancel the current check."""
        call, self._call = self._call, None
        if call is not None and call.running:
            call.stop()
        self._repeating.cancel()
        checking, self._checking = self._checking, None
        if checking is not None:
            checking.cancel()

    def _turn(self) -> None:
        self._repeating.cancel()
        late, self._checking = self._checking, None
        if late is not None:
            late.cancel()
            self._reportFailure("the check has not finished within {seconds:g} s", seconds=self._interval)
        checking: defer.Deferred[object] = defer.maybeDeferred(self._check)
        self._checking = checking
        checking.addCallbacks(self._succeeded, self._failed, callbackArgs=(checking,), errbackArgs=(checking,))

    # The result of a check that was cancelled is ignored.

    def _succeeded(self, _: object, checking: defer.Deferred[object]) -> None:
        if checking is self._checking:
            self._checking = None
            if self._failing:
                self._failing = False
                _log.info("health check succeeded: the watchdog is fed again")
            self._notifier.watchdog()

    def _failed(self, failure: Failure, checking: defer.Deferred[object]) -> None:
        if checking is self._checking:
            self._checking = None
            self._reportFailure("{reason}", reason=failure.getErrorMessage())
            self._repeating.schedule(self._interval / _repetitions)

    def _reportFailure(self, format: str, **fields: object) -> None:
        if not self._failing:
            self._failing = True
            _log.warn(f"health check failed, the watchdog is not fed: {format}", **fields)
