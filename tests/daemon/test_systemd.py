"""Tests of L{udpecho.daemon.systemd}: notifications on real sockets, the watchdog in virtual time."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import defer, task
from twisted.logger import LogEvent, capturedLogs, formatEvent

from tests.support.guards import onlyLinux
from tests.support.manager import variables
from tests.support.running import PATIENCE, openSockets
from udpecho.daemon.systemd import Notifier, Watchdog, watchdogInterval

pytestmark = onlyLinux

PID = 4711


class Log:
    """The logged events, as text."""

    def __init__(self, events: Sequence[LogEvent]) -> None:
        self._events = events

    @property
    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self._events]


@pytest.fixture
def log() -> Iterator[Log]:
    """The log."""
    with capturedLogs() as events:
        yield Log(events)


class FakeNotifySocket:
    """systemd's socket for notifications."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address)
        self.sock.settimeout(PATIENCE)

    def __enter__(self) -> FakeNotifySocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    @property
    def environment(self) -> dict[str, str]:
        """An environment with its address."""
        address = self.sock.getsockname()
        return {"NOTIFY_SOCKET": address if isinstance(address, str) else "@" + os.fsdecode(address[1:])}

    def next(self) -> dict[str, str]:
        """The variables of the next notification."""
        return variables(self.sock.recv(65536))


class NotifierTests:
    """L{Notifier}, on real sockets."""

    @pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
    def test_variables(self, abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each notification has its variables, to a socket with a path and to one in the abstract namespace."""
        monkeypatch.chdir(tmp_path)
        with FakeNotifySocket("" if abstract else "notify") as manager:
            environment = manager.environment if abstract else {"NOTIFY_SOCKET": f"/proc/{os.getpid()}/cwd/notify"}
            notifier = Notifier(environment)
            assert environment == {}
            notifications: list[tuple[bool, dict[str, str]]] = [
                (notifier.ready("answering"), {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "answering"}),
                (notifier.ready("1 %"), {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "1 %"}),
                (notifier.watchdog(), {"WATCHDOG": "1"}),
                (notifier.stopping(), {"STOPPING": "1"}),
            ]
            for sent, received in notifications:
                assert sent
                assert manager.next() == received

    def test_reloading(self) -> None:
        """A reload has the time of C{CLOCK_MONOTONIC}, in microseconds."""
        with FakeNotifySocket("") as manager:
            notifier = Notifier(manager.environment)
            before = time.monotonic_ns() // 1000
            assert notifier.reloading()
            after = time.monotonic_ns() // 1000
            notification = manager.next()
        assert notification.keys() == {"RELOADING", "MONOTONIC_USEC"}
        assert before <= int(notification["MONOTONIC_USEC"]) <= after

    def test_noAddress(self) -> None:
        """Without an address nothing is sent."""
        assert not Notifier({}).ready("x")

    def test_gone(self, tmp_path: Path, log: Log) -> None:
        """A socket that is gone does no harm, and is logged once."""
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nothing")})
        assert not notifier.ready("x")
        assert not notifier.watchdog()
        assert log.lines == ["cannot notify systemd at NOTIFY_SOCKET: [Errno 2] No such file or directory"]

    def test_full(self) -> None:
        """A full socket does not block; the states that did not fit are sent when the socket takes more, in their order, each
        in a notification of its own.
        """
        with FakeNotifySocket("") as manager:
            notifier = Notifier(manager.environment)
            filled = 0
            while notifier.watchdog():
                filled += 1
            assert not notifier.reloading()
            assert not notifier.watchdog()
            assert not notifier.ready("again")
            for _ in range(filled):
                manager.next()
            assert notifier.watchdog()
            found = [manager.next() for _ in range(3)]
        assert [next(iter(each)) for each in found] == ["RELOADING", "READY", "WATCHDOG"]
        assert found[1]["STATUS"] == "again"

    def test_pendingIsBounded(self) -> None:
        """Pending notifications do not grow without limit."""
        with FakeNotifySocket("") as manager:
            notifier = Notifier(manager.environment)
            while notifier.watchdog():
                pass
            for _ in range(1000):
                notifier.reloading()
            assert len(notifier._pending) < 100

    @given(st.text())
    def test_status(self, text: str) -> None:
        """A status is one line, whatever its text: it cannot set other variables."""
        with FakeNotifySocket("") as manager:
            assert Notifier(manager.environment).ready(text)
            assert set(manager.next()) == {"READY", "MAINPID", "STATUS"}

    @pytest.mark.parametrize("text", ["x" * 5000, "ä" * 5000, "🐢" * 5000])
    def test_longStatus(self, text: str) -> None:
        """A long status is cut short: systemd ignores notifications of more than 4096 bytes."""
        with FakeNotifySocket("") as manager:
            assert Notifier(manager.environment).ready(text)
            status = manager.next()["STATUS"]
        assert 900 < len(status.encode()) <= 1000
        assert status.endswith("...")
        assert text.startswith(status[:-3])

    @settings(deadline=None)
    @given(st.text())
    def test_anyAddress(self, address: str) -> None:
        """No address makes it raise, or block."""
        before = openSockets()
        assert not Notifier({"NOTIFY_SOCKET": "@udpecho-no-such-" + address}).ready("x")
        assert not Notifier({"NOTIFY_SOCKET": "/no/such/" + address}).ready("x")
        assert not Notifier({"NOTIFY_SOCKET": "relative" + address}).ready("x")
        assert not Notifier({"NOTIFY_SOCKET": "" if address.startswith(("/", "@")) else address}).ready("x")
        assert openSockets() == before

    @pytest.mark.parametrize("address", ["", "@", "/", "relative", "vsock:2:1234"])
    def test_wrongAddress(self, address: str, log: Log) -> None:
        """A wrong address is logged at once."""
        assert not Notifier({"NOTIFY_SOCKET": address}).watchdog()
        assert log.lines == [f"NOTIFY_SOCKET must be a path or @name, got {address!a}: systemd is not notified"]


class IntervalTests:
    """L{watchdogInterval}."""

    @pytest.mark.parametrize(
        ("environment", "seconds"),
        [
            ({}, None),
            ({"WATCHDOG_USEC": "30000000"}, 15.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, 15.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "me"}, None),
            ({"WATCHDOG_PID": str(PID)}, None),
            ({"WATCHDOG_USEC": "1"}, 5e-7),
            ({"WATCHDOG_USEC": "9999999999999999999"}, 86400.0),
        ],
    )
    def test_half(self, environment: dict[str, str], seconds: float | None) -> None:
        """It is half of the timeout, for the watched process only, and a day at the most. The variables are removed."""
        assert watchdogInterval(environment, pid=PID) == seconds
        assert environment == {}

    @pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "ten", "18446744073709551615"])
    def test_wrong(self, text: str, log: Log) -> None:
        """A wrong number is logged."""
        assert watchdogInterval({"WATCHDOG_USEC": text}) is None
        assert log.lines == [f"WATCHDOG_USEC must be a number of microseconds, got {text!a}: the watchdog is not fed"]

    @given(st.dictionaries(st.sampled_from(["WATCHDOG_USEC", "WATCHDOG_PID"]), st.text()))
    def test_anything(self, environment: dict[str, str]) -> None:
        """Nothing in the environment makes it raise."""
        found = watchdogInterval(environment)
        assert found is None or 0 < found <= 86400


class FedNotifier(Notifier):
    """Counts how often it feeds the watchdog."""

    def __init__(self) -> None:
        super().__init__({})
        self.fed = 0

    def watchdog(self) -> bool:
        self.fed += 1
        return True


class WatchdogTests:
    """L{Watchdog}, on a clock."""

    def setup_method(self) -> None:
        """A watchdog of 10 s whose checks the test finishes."""
        self.clock = task.Clock()
        self.notifier = FedNotifier()
        self.checks: list[defer.Deferred[object]] = []
        self.cancelled: list[defer.Deferred[object]] = []
        self.watchdog = Watchdog(self.clock, 10, self.check, self.notifier)

    def check(self) -> defer.Deferred[object]:
        checking: defer.Deferred[object] = defer.Deferred(self.cancelled.append)
        self.checks.append(checking)
        return checking

    def test_success(self) -> None:
        """It checks at once and then after each interval, and feeds after each check that succeeded, not before."""
        self.watchdog.start()
        for number in range(1, 4):
            assert len(self.checks) == number
            assert self.notifier.fed == number - 1
            self.checks[-1].callback(None)
            assert self.notifier.fed == number
            self.clock.advance(10)

    def test_failure(self, log: Log) -> None:
        """After a failed check it does not feed the watchdog, and logs that once; after the next check that succeeds it feeds
        it again, and logs that.
        """
        self.watchdog.start()
        for _ in range(3):
            self.checks[-1].errback(OSError("no route"))
            self.clock.advance(10)
        assert self.notifier.fed == 0
        assert log.lines == ["health check failed, the watchdog is not fed: no route"]
        self.checks[-1].callback(None)
        assert self.notifier.fed == 1
        assert log.lines[1:] == ["health check succeeded: the watchdog is fed again"]

    def test_raises(self, log: Log) -> None:
        """A check that raises is one that failed."""

        def check() -> defer.Deferred[object]:
            raise OSError("{no} socket")

        watchdog = Watchdog(self.clock, 10, check, self.notifier)
        watchdog.start()
        self.clock.advance(10)
        assert self.notifier.fed == 0
        assert log.lines == ["health check failed, the watchdog is not fed: {no} socket"]

    def test_late(self, log: Log) -> None:
        """A check that has not finished when the next one is due is cancelled and logged, and feeds nothing."""
        self.watchdog.start()
        late = self.checks[0]
        self.clock.advance(10)
        assert self.cancelled == [late]
        assert self.notifier.fed == 0
        assert log.lines == ["health check failed, the watchdog is not fed: the check has not finished within 10 s"]
        assert len(self.checks) == 2
        self.checks[1].callback(None)
        assert self.notifier.fed == 1

    def test_resultOfCancel(self) -> None:
        """A check that succeeds when it is cancelled is too late, for the next round and for a watchdog that was stopped."""
        checks: list[defer.Deferred[object]] = []

        def check() -> defer.Deferred[object]:
            checks.append(defer.Deferred(lambda checking: checking.callback(None)))
            return checks[-1]

        watchdog = Watchdog(self.clock, 10, check, self.notifier)
        watchdog.start()
        self.clock.advance(10)
        assert checks[0].called
        assert not checks[1].called
        watchdog.stop()
        assert checks[1].called
        assert self.notifier.fed == 0

    def test_stop(self) -> None:
        """The stop cancels the current check, feeds nothing, and leaves nothing in the reactor; it may be stopped twice, and
        started again.
        """
        self.watchdog.stop()
        self.watchdog.start()
        self.watchdog.start()
        assert len(self.checks) == 1
        self.watchdog.stop()
        self.watchdog.stop()
        assert self.cancelled == self.checks
        assert self.clock.getDelayedCalls() == []
        assert self.notifier.fed == 0
        self.watchdog.start()
        self.checks[-1].callback(None)
        assert self.notifier.fed == 1
        self.watchdog.stop()
