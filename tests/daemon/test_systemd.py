"""
Tests of L{udpecho.daemon.systemd} and L{udpecho.daemon.socket_activation}: sockets on real descriptors and real processes,
notifications on real sockets, the watchdog in virtual time.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import defer, task
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

import udpecho
from tests.support.manager import Manager, variables
from tests.support.processes import Processes, tool
from tests.support.running import PATIENCE, hasIPv6, openSockets, unusedPort
from udpecho.daemon.socket_activation import ActivationError, activatedSockets
from udpecho.daemon.systemd import Notifier, Watchdog, watchdogInterval
from udpecho.net.sockets import hasBoth

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is on Linux only")

PID = 4711


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes in a directory of the test's own."""
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What is logged, as people read it."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def bound(host: str = "127.0.0.1", kind: int = socket.SOCK_DGRAM) -> socket.socket:
    """A socket that is bound to any free port."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    sock.settimeout(PATIENCE)
    sock.bind((host, 0))
    return sock


class Passed:
    """
    Sockets at descriptors that follow each other, as systemd leaves them.

    @ivar first: the first of these descriptors.
    @ivar number: how many there are.
    """

    def __init__(self, first: int, number: int) -> None:
        self.first = first
        self.number = number

    def take(self, *selection: str, names: str | None = None, **environment: str) -> list[socket.socket]:
        """
        Take sockets over.

        @param names: C{LISTEN_FDNAMES}.
        @param environment: what else is different from how it should be.
        """
        variables = {"LISTEN_PID": str(PID), "LISTEN_FDS": str(self.number)}
        if names is not None:
            variables["LISTEN_FDNAMES"] = names
        variables.update(environment)
        return activatedSockets(variables, selection or ["all"], pid=PID, firstDescriptor=self.first)

    def refusal(self, *selection: str, names: str | None = None, **environment: str) -> str:
        """Why nothing is taken over; it is one line, and the descriptors are still open."""
        with pytest.raises(ActivationError) as caught:
            self.take(*selection, names=names, **environment)
        for descriptor in range(self.first, self.first + self.number):
            os.fstat(descriptor)
        told = str(caught.value)
        assert told.isprintable()
        return told


@contextmanager
def passed(*sockets: Any) -> Iterator[Passed]:
    """Leave duplicates of sockets, which are closed, at descriptors that follow each other."""
    # Above all that a test has open.
    first = 600
    number = len(sockets)
    try:
        for place, sock in enumerate(sockets):
            os.dup2(sock.fileno(), first + place)
            sock.close()
        yield Passed(first, number)
    finally:
        for descriptor in range(first, first + number):
            # Those that were taken over have been closed.
            with suppress(OSError):
                os.close(descriptor)


@contextmanager
def taken(sockets: list[socket.socket]) -> Iterator[list[socket.socket]]:
    """Close sockets at the end."""
    with ExitStack() as stack:
        for sock in sockets:
            stack.enter_context(sock)
        yield sockets


class ActivationTests:
    """L{activatedSockets}, on descriptors of this process."""

    def test_all(self) -> None:
        """
        Without a selection all sockets are taken over, in their order; they are those that were passed, and neither block nor
        are inherited.
        """
        first, second = bound(), bound("127.0.0.2")
        addresses = [first.getsockname(), second.getsockname()]
        with passed(first, second) as there, taken(there.take()) as sockets:
            assert [sock.getsockname() for sock in sockets] == addresses
            assert [sock.fileno() for sock in sockets] == [there.first, there.first + 1]
            assert not any(sock.getblocking() or os.get_inheritable(sock.fileno()) for sock in sockets)

    @pytest.mark.skipif(not hasIPv6(), reason="this machine has no ::1")
    def test_ipv6(self) -> None:
        """Sockets for IPv6 are as good, and it is known which of them has datagrams of IPv4 as well."""
        both, alone = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        for sock, only in ((both, 0), (alone, 1)):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            sock.bind(("::", 0))
        with passed(both, alone, bound()) as there, taken(there.take()) as sockets:
            assert [sock.family for sock in sockets] == [socket.AF_INET6, socket.AF_INET6, socket.AF_INET]
            assert [hasBoth(sock) for sock in sockets] == [True, False, False]

    def test_selection(self) -> None:
        """
        Names select all sockets of that name, numbers go by the order, names come first, and the order is the selection's. What
        is not selected stays open, but no program inherits it.
        """
        with passed(bound(), bound(), bound(), bound()) as there:
            with taken(there.take("b", "0", names="a:b:3:b")) as sockets:
                assert [sock.fileno() - there.first for sock in sockets] == [1, 3, 0]
            assert not os.get_inheritable(there.first + 2)
            os.set_inheritable(there.first + 2, True)
        with passed(bound(), bound()) as there, taken(there.take("0", names="1:0")) as sockets:
            assert [sock.fileno() - there.first for sock in sockets] == [1]

    def test_environment(self) -> None:
        """The variables are gone from the environment afterwards, whether it went well or not, and no other ones."""
        for pid in (PID, PID + 1):
            environment = {"LISTEN_PID": str(pid), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a", "LISTEN_PIDFDID": "7", "HOME": "/"}
            with passed(bound()) as there:
                try:
                    found = activatedSockets(environment, pid=PID, firstDescriptor=there.first)
                except ActivationError:
                    assert pid != PID
                else:
                    found[0].close()
            assert environment == {"HOME": "/"}

    @pytest.mark.parametrize(
        ("environment", "sentence"),
        [
            ({"LISTEN_PID": ""}, "LISTEN_PID is '': the identifier of a process would be right"),
            ({"LISTEN_PID": "-1"}, "LISTEN_PID is '-1': the identifier of a process would be right"),
            (
                {"LISTEN_PID": "12"},
                f"the sockets are passed to process 12, and this is process {PID}: nothing may stand between systemd and the"
                " server, and it runs with --nodaemon",
            ),
            ({"LISTEN_FDS": "two"}, "LISTEN_FDS is 'two': the number of sockets would be right"),
            ({"LISTEN_FDS": "-1"}, "LISTEN_FDS is '-1': the number of sockets would be right"),
            ({"LISTEN_FDS": "0"}, "no sockets are passed: LISTEN_FDS is 0; the .socket unit needs a ListenDatagram= line"),
            (
                {"LISTEN_FDNAMES": "a:b"},
                "LISTEN_FDNAMES has 2 names and LISTEN_FDS says 1 sockets: one name for each, with colons between them, would"
                " be right",
            ),
        ],
    )
    def test_badEnvironment(self, environment: dict[str, str], sentence: str) -> None:
        """What is wrong in the environment is said, and what would be right."""
        with passed(bound()) as there:
            assert there.refusal(**environment) == sentence

    @pytest.mark.parametrize("name", ["LISTEN_PID", "LISTEN_FDS"])
    def test_noEnvironment(self, name: str) -> None:
        """Started by hand there are no sockets, and that is said."""
        environment = {"LISTEN_PID": str(PID), "LISTEN_FDS": "1"}
        del environment[name]
        with pytest.raises(ActivationError, match=rf"^no sockets are passed: {name} is not set; start the \.socket unit"):
            activatedSockets(environment, pid=PID)

    @pytest.mark.parametrize("number", ["2", "9999999999"])
    def test_missing(self, number: str) -> None:
        """A descriptor that is not open is named, however many there should be."""
        with passed(bound()) as there:
            told = there.refusal(LISTEN_FDS=number)
            assert told == (
                f"LISTEN_FDS is {number}, but descriptor {there.first + 1} is not open: socket 1 was not passed, or was closed"
            )

    @pytest.mark.parametrize(
        ("make", "complaint"),
        [
            (lambda: bound(kind=socket.SOCK_STREAM), "is a stream socket: ListenDatagram="),
            (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), "is not for IPv4 or IPv6: ListenDatagram="),
            (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "is not bound to a port: ListenDatagram="),
            (tempfile.TemporaryFile, "is no socket: a UDP socket would be right"),
        ],
        ids=["stream", "unix", "unbound", "file"],
    )
    def test_wrongKind(self, make: Callable[[], Any], complaint: str) -> None:
        """A descriptor of another kind is named by its place and its name, even if the first ones are right."""
        with passed(bound(), make()) as there:
            assert there.refusal(names="one:two").startswith(f"socket 1 (two) {complaint}")

    def test_connected(self) -> None:
        """A socket that hears one peer only is refused."""
        sock = bound()
        sock.connect(("127.0.0.1", 9))
        with passed(sock) as there:
            assert there.refusal().startswith("socket 0 (unknown) is connected to 127.0.0.1:9: ")

    def test_streamBeside(self) -> None:
        """A stream socket may be passed for something else, if it is not selected."""
        with passed(bound(kind=socket.SOCK_STREAM), bound()) as there, taken(there.take("udp", names="tcp:udp")) as (sock,):
            assert sock.type == socket.SOCK_DGRAM

    @pytest.mark.parametrize(
        ("selection", "sentence"),
        [
            (["nobody"], "no socket 'nobody' is passed: there is socket 0 (a), socket 1 (b)"),
            (["2"], "no socket '2' is passed: there is socket 0 (a), socket 1 (b)"),
            (["a", "0"], "socket '0' is selected already: once is enough"),
            (["all", "a"], "socket 'a' is selected already: once is enough"),
        ],
    )
    def test_badSelection(self, selection: list[str], sentence: str) -> None:
        """Names and numbers that no socket has are told with those that there are."""
        with passed(bound(), bound()) as there:
            assert there.refusal(*selection, names="a:b") == sentence

    def test_nothingSelected(self) -> None:
        """A selection of nothing is none."""
        with passed(bound()) as there, pytest.raises(ActivationError, match=r"^no socket is selected"):
            activatedSockets({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, [], pid=1, firstDescriptor=there.first)

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]),
            st.one_of(st.text(), st.sampled_from(["0", "1", "2", str(PID), "a:b", "1\n", "٣", "a\udcff:b", "+1", " 1"])),
        ),
        st.lists(st.one_of(st.text(), st.sampled_from(["all", "a", "b", "0", "1"])), max_size=3),
    )
    def test_anything(self, environment: dict[str, str], selection: list[str]) -> None:
        """
        Whatever is in the environment, and whatever is selected: either there are usable sockets, or one line says why not;
        nothing is left open, and the environment is clean.
        """
        before = openSockets()
        environment = {"LISTEN_PID": str(PID), "LISTEN_FDS": "2", **environment}
        with passed(bound(), bound()) as there:
            sockets: list[socket.socket] = []
            told = ""
            try:
                sockets = activatedSockets(environment, selection, pid=PID, firstDescriptor=there.first)
            except ActivationError as e:
                told = str(e)
            with taken(sockets):
                assert bool(sockets) != bool(told)
                assert told.isprintable()
                assert all(sock.getsockname()[1] for sock in sockets)
        assert environment == {}
        assert openSockets() == before


class FakeNotifySocket:
    """Where notifications go to."""

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
        """Has it in C{NOTIFY_SOCKET}."""
        address = self.sock.getsockname()
        return {"NOTIFY_SOCKET": address if isinstance(address, str) else "@" + os.fsdecode(address[1:])}

    def next(self) -> dict[str, str]:
        """The variables of the next notification."""
        return variables(self.sock.recv(65536))


class NotifierTests:
    """L{Notifier}, on real sockets."""

    @pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
    def test_says(self, abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each notification has its variables, to a socket with a path and to one in the abstract namespace."""
        monkeypatch.chdir(tmp_path)
        with FakeNotifySocket("" if abstract else "notify") as manager:
            environment = manager.environment if abstract else {"NOTIFY_SOCKET": f"/proc/{os.getpid()}/cwd/notify"}
            notifier = Notifier(environment, nanoseconds=lambda: 123456789, pid=lambda: PID)
            assert environment == {}
            assert notifier.listening
            said: list[tuple[bool, dict[str, str]]] = [
                (notifier.ready("answering"), {"READY": "1", "MAINPID": str(PID), "STATUS": "answering"}),
                (notifier.reloading(), {"RELOADING": "1", "MONOTONIC_USEC": "123456"}),
                (notifier.ready(), {"READY": "1", "MAINPID": str(PID)}),
                (notifier.status("1 %"), {"STATUS": "1 %"}),
                (notifier.watchdog(), {"WATCHDOG": "1"}),
                (notifier.stopping("draining"), {"STOPPING": "1", "STATUS": "draining"}),
            ]
            for sent, heard in said:
                assert sent
                assert manager.next() == heard

    def test_nobody(self) -> None:
        """Without a manager nothing is sent, and no socket is opened."""
        notifier = Notifier({})
        assert not notifier.listening
        assert not notifier.ready("x")

    def test_gone(self, tmp_path: Path, log: list[str]) -> None:
        """A manager that has gone does no harm, and is told of once."""
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nothing")})
        assert not notifier.ready()
        assert not notifier.watchdog()
        assert len(log) == 1
        assert log[0].startswith("the manager at NOTIFY_SOCKET does not hear: ")

    def test_full(self) -> None:
        """
        A socket that is full keeps nobody waiting; that the daemon is ready or stops is told as soon as there is room, in
        order, and each in a notification of its own.
        """
        with FakeNotifySocket("") as manager:
            notifier = Notifier(manager.environment)
            filled = 0
            while notifier.status("x" * 1000):
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

    def test_keptAreBounded(self) -> None:
        """What waits for room does not grow."""
        with FakeNotifySocket("") as manager:
            notifier = Notifier(manager.environment)
            while notifier.watchdog():
                pass
            for _ in range(1000):
                notifier.reloading()
            assert len(notifier._kept) < 100

    @given(st.text())
    def test_status(self, text: str) -> None:
        """A status is one line, whatever is in it: nobody can have other variables set by it."""
        with FakeNotifySocket("") as manager:
            assert Notifier(manager.environment).status(text)
            assert set(manager.next()) == {"STATUS"}

    @settings(deadline=None)
    @given(st.text())
    def test_anyAddress(self, address: str) -> None:
        """No address makes it raise, or wait."""
        before = openSockets()
        assert not Notifier({"NOTIFY_SOCKET": "@udpecho-no-such-" + address}).ready()
        assert not Notifier({"NOTIFY_SOCKET": "/no/such/" + address}).ready()
        assert not Notifier({"NOTIFY_SOCKET": "relative" + address}).ready()
        assert not Notifier({"NOTIFY_SOCKET": "" if address.startswith(("/", "@")) else address}).ready()
        assert openSockets() == before

    @pytest.mark.parametrize("address", ["", "@", "/", "relative", "vsock:2:1234"])
    def test_wrongAddress(self, address: str, log: list[str]) -> None:
        """An address that is none is told of at once."""
        assert not Notifier({"NOTIFY_SOCKET": address}).listening
        assert log == [f"NOTIFY_SOCKET is {address!a}: a path or @name would be right; the manager is told nothing"]


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
        """
        It is half of what the manager waits, for the process that is watched only, and a day at the most. The variables are
        taken out.
        """
        assert watchdogInterval(environment, pid=PID) == seconds
        assert environment == {}

    @pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "ten", "18446744073709551615"])
    def test_wrong(self, text: str, log: list[str]) -> None:
        """What is no time is said to be none."""
        assert watchdogInterval({"WATCHDOG_USEC": text}) is None
        assert log == [f"WATCHDOG_USEC is {text!a}: a number of microseconds would be right; the watchdog is not fed"]

    @given(st.dictionaries(st.sampled_from(["WATCHDOG_USEC", "WATCHDOG_PID"]), st.text()))
    def test_anything(self, environment: dict[str, str]) -> None:
        """Nothing in the environment makes it raise."""
        found = watchdogInterval(environment)
        assert found is None or 0 < found <= 86400


class FedNotifier(Notifier):
    """Counts how often the watchdog was fed."""

    def __init__(self) -> None:
        super().__init__({})
        self.fed = 0

    def watchdog(self) -> bool:
        self.fed += 1
        return True


class WatchdogTests:
    """L{Watchdog}, on a clock."""

    def setup_method(self) -> None:
        """A watchdog of 10 s whose checks are answered by the test."""
        self.clock = task.Clock()
        self.notifier = FedNotifier()
        self.checks: list[defer.Deferred[object]] = []
        self.cancelled: list[defer.Deferred[object]] = []
        self.watchdog = Watchdog(self.clock, 10, self.check, self.notifier)

    def check(self) -> defer.Deferred[object]:
        """A check that goes on until the test ends it."""
        checking: defer.Deferred[object] = defer.Deferred(self.cancelled.append)
        self.checks.append(checking)
        return checking

    def test_feeds(self) -> None:
        """It checks at once and then after each interval, and feeds after each check that succeeded, not before."""
        self.watchdog.start()
        for number in range(1, 4):
            assert len(self.checks) == number
            assert self.notifier.fed == number - 1
            self.checks[-1].callback(None)
            assert self.notifier.fed == number
            self.clock.advance(10)

    def test_failure(self, log: list[str]) -> None:
        """
        After a check that failed it does not feed, says so once, and goes on checking; when the server is well again it feeds
        again, and says so.
        """
        self.watchdog.start()
        for _ in range(3):
            self.checks[-1].errback(OSError("no route"))
            self.clock.advance(10)
        assert self.notifier.fed == 0
        assert log == ["the server does not answer itself: the watchdog is not fed: no route"]
        self.checks[-1].callback(None)
        assert self.notifier.fed == 1
        assert log[1:] == ["the server is well again: the watchdog is fed"]

    def test_raises(self, log: list[str]) -> None:
        """A check that raises is one that failed."""

        def check() -> defer.Deferred[object]:
            raise OSError("{no} socket")

        watchdog = Watchdog(self.clock, 10, check, self.notifier)
        watchdog.start()
        self.clock.advance(10)
        assert self.notifier.fed == 0
        assert log == ["the server does not answer itself: the watchdog is not fed: {no} socket"]

    def test_late(self, log: list[str]) -> None:
        """A check that is not over when the next is due is cancelled, told of, and its answer comes too late to count."""
        self.watchdog.start()
        late = self.checks[0]
        self.clock.advance(10)
        assert self.cancelled == [late]
        assert log == ["the server does not answer itself: the watchdog is not fed: the check is not over after 10 s"]
        assert len(self.checks) == 2
        self.checks[1].callback(None)
        assert self.notifier.fed == 1

    def test_tooLate(self) -> None:
        """
        A check that says, when it is cancelled, that all is well, says it too late: for the next round, and for a watchdog that
        has been stopped.
        """
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
        """
        Stopped, it cancels the check under way, does not feed, and leaves nothing in the reactor; stopping twice is as good,
        and it can be started again.
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


#: A server as small as one can be that does all that systemd expects of it.
SERVER = textwrap.dedent(
    """
    import os, sys
    from twisted.internet import defer, reactor
    from udpecho.client.connect import echo
    from udpecho.server.protocol import EchoServer
    from udpecho.daemon.socket_activation import activatedSockets
    from udpecho.daemon.systemd import Notifier, Watchdog, watchdogInterval

    notifier, interval = Notifier(os.environ), watchdogInterval(os.environ)
    ports = []
    for sock in activatedSockets(os.environ, sys.argv[1:] or ["all"]):
        ports.append(reactor.adoptDatagramPort(sock.fileno(), sock.family, EchoServer()))
        sock.close()
    assert not [name for name in os.environ if name.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))]
    host = ports[0].getHost()
    if interval is not None:
        Watchdog(reactor, interval, lambda: echo(reactor, host.host, host.port, b"well?"), notifier).start()
    reactor.callWhenRunning(notifier.ready, f"answering on {len(ports)} sockets")
    reactor.addSystemEventTrigger("before", "shutdown", notifier.stopping)
    reactor.run()
    """
)


class StandInTests:
    """A real process, started as systemd does it."""

    def start(self, manager: Manager, processes: Processes, *arguments: str) -> Any:
        """Start the server."""
        return manager.start(processes, sys.executable, "-c", SERVER, *arguments)

    def test_life(self, processes: Processes) -> None:
        """
        It answers on the sockets that it was passed, is ready then, is alive while it answers itself, and says that it stops.
        """
        sockets = [("one", bound()), ("two", bound("127.0.0.2"))]
        with Manager(sockets, watchdog=0.2) as manager:
            process = self.start(manager, processes)
            ready = manager.until("READY=1")
            assert ready == {"READY": "1", "MAINPID": str(process.pid), "STATUS": "answering on 2 sockets"}
            for _, sock in sockets:
                with closing(bound()) as client:
                    client.connect(sock.getsockname())
                    client.send(b"hello")
                    assert client.recv(100) == b"hello"
            for _ in range(3):
                manager.until("WATCHDOG=1")
            process.stop()
            manager.until("STOPPING=1")
            assert process.status == 0, process

    def test_selects(self, processes: Processes) -> None:
        """It answers on the socket that is selected by its name, although a stream socket was passed as well."""
        with Manager([("metrics", bound(kind=socket.SOCK_STREAM)), ("echo", bound())]) as manager:
            process = self.start(manager, processes, "echo")
            assert manager.until("READY=1")["STATUS"] == "answering on 1 sockets"
            process.stop()

    def test_refuses(self, processes: Processes) -> None:
        """With a stream socket for all, it does not start."""
        with Manager([("metrics", bound(kind=socket.SOCK_STREAM))]) as manager:
            process = self.start(manager, processes).finish()
            assert process.status
            assert "socket 0 (metrics) is a stream socket" in process.stderr
            assert manager.pending() == []

    def test_restart(self, processes: Processes) -> None:
        """The manager keeps the socket: what comes while there is no server is answered by the next one."""
        served = bound()
        with Manager([("echo", served)]) as manager, closing(bound()) as client:
            client.connect(served.getsockname())
            for number in range(3):
                client.send(b"%d" % number)
                process = self.start(manager, processes)
                assert client.recv(100) == b"%d" % number
                manager.until("READY=1")
                process.stop()
                assert process.status == 0, process


class SystemdTests:
    """systemd's own program for activation by sockets."""

    def test_socketActivate(self, processes: Processes) -> None:
        """C{systemd-socket-activate} starts the server with the first datagram, which the server echoes."""
        port = unusedPort()
        activate = [tool("systemd-socket-activate"), "--datagram", f"--listen=127.0.0.1:{port}", "--fdname=echo"]
        environment = [f"--setenv=PYTHONPATH={Path(udpecho.__file__).parents[1]}"]
        process = processes.start(*activate, *environment, sys.executable, "-c", SERVER, "echo")
        process.until("Listening on ", "stderr")
        with closing(bound()) as client:
            client.connect(("127.0.0.1", port))
            client.send(b"hello")
            assert client.recv(100) == b"hello"
        process.stop()
        assert process.status == 0, process
