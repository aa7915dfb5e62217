"""What is the same as on the stock port, call by call, and what is not: the table of C{docs/migrate.rst}."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from twisted.internet import error, udp
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from tests.support.guards import loopbacks, needsIPv6, onlyLinux
from tests.support.hosts import until
from tests.support.ports import address, path, script  # noqa: F401
from tests.support.running import CuriousRecorder, Recorder, Run, udpSocket, unusedPort
from udpecho.net.open import listen
from udpecho.net.port import DatagramPort


def stock(reactor: Any, protocol: DatagramProtocol, interface: str = "127.0.0.1") -> Any:
    opened = udp.Port(0, protocol, interface, 8192, reactor)
    opened.startListening()
    return opened


def ours(reactor: Any, protocol: DatagramProtocol, interface: str = "127.0.0.1") -> Any:
    return listen(reactor, 0, protocol, interface)


def raised(function: Callable[..., object], *arguments: Any) -> object:
    """The type of what a call raises, and the error number of the system; C{None} if it raises nothing."""
    try:
        function(*arguments)
    except Exception as e:
        return type(e), getattr(e, "errno", None)
    return None


#: Datagrams and addresses that the stock port sends, or raises for.
WRITES: list[tuple[Any, Any]] = [
    (b"x", ("{host}", 0)),
    (b"x", ("{host}", 65536)),
    (b"x", ("{host}", -1)),
    (b"x", ("{host}", "9")),
    (b"x", ("{host}", None)),
    (b"x", ("{host}",)),
    (b"x", ()),
    (b"x", ("localhost", 9)),
    (b"x", ("", 9)),
    (b"x", ("127.0.0.1", 0)),
    (b"x", ("::1", 0)),
    (b"x", ("<broadcast>", 9)),
    (b"x", ("255.255.255.255", 9)),
    (b"x", ("127.255.255.255", 9)),
    (b"x", (None, 9)),
    (b"x", (5, 9)),
    (bytes(65536), ("{host}", 9)),
    (bytes(2**20), ("{host}", 9)),
    ("text", ("{host}", 9)),
    (None, ("{host}", 9)),
    (5, ("{host}", 9)),
    (bytearray(b"x"), ("{host}", 0)),
    (memoryview(b"x"), ("{host}", 0)),
    (bytearray(b"x"), ("{host}", 9)),
    (memoryview(b"x"), ("{host}", 9)),
    (b"", ("{host}", 9)),
    (b"x", ("{host}", 9, 0, 0)),
    (b"x", ("{host}", 9, 0, 0, 0)),
]


class WriteTests:
    """C{write} raises what it raises on the stock port."""

    @loopbacks
    def test_sameErrors(self, runOnce: Run, host: str) -> None:
        """On an unconnected port: the same types, and the same errors of the system."""

        async def test(reactor: Any) -> None:
            ports = [opener(reactor, Recorder(), host) for opener in (stock, ours)]
            for datagram, where in WRITES:
                where = tuple(host if each == "{host}" else each for each in where)
                expected, found = (raised(port.write, datagram, where) for port in ports)
                assert (datagram, where, found) == (datagram, where, expected)
            for port in ports:
                await port.stopListening()

        runOnce(test)

    @loopbacks
    def test_assertions(self, runOnce: Run, host: str) -> None:
        """What the stock port asserts is an C{AssertionError} here, too, and a named one: with C{python -O}, too."""

        async def test(reactor: Any) -> None:
            for opener in (stock, ours):
                port = opener(reactor, Recorder(), host)
                with pytest.raises(AssertionError) as caught:
                    port.write(b"to whom?")
                assert opener is stock or isinstance(caught.value, error.InvalidAddressError)
                with udpSocket(host) as sock:
                    port.connect(*sock.getsockname()[:2])
                    with pytest.raises(AssertionError) as caught:
                        port.write(b"elsewhere", (host, 9))
                    assert opener is stock or isinstance(caught.value, error.InvalidAddressError)
                    assert raised(port.connect, host, 9) == (RuntimeError, None)
                    port.write(b"one")
                    port.write(b"two", sock.getsockname()[:2])
                    port.writeSequence([b"th", b"ree"], None)
                    assert [sock.recv(10) for _ in range(3)] == [b"one", b"two", b"three"]
                    assert raised(port.write, bytes(65536)) == (error.MessageLengthError, None)
                await port.stopListening()

        runOnce(test)

    @onlyLinux
    def test_counted(self, runOnce: Run) -> None:
        """What is raised is counted, too; without C{writeRaises} it is only counted."""

        async def test(reactor: Any) -> None:
            for raises in (True, False):
                port = listen(reactor, 0, Recorder(), writeRaises=raises)
                for where, number in ((("127.0.0.1", 0), errno.EINVAL), (("<broadcast>", 9), errno.EACCES)):
                    found = raised(port.write, b"x", where)
                    assert found == ((PermissionError if number == errno.EACCES else OSError, number) if raises else None)
                assert port.dropped == {"send_failed": 2}
                assert raised(port.write, bytes(65536), ("127.0.0.1", 9)) == (error.MessageLengthError, None)
                await port.stopListening()

        runOnce(test)

    def test_broadcast(self, runOnce: Run) -> None:
        """A broadcast is sent once it is allowed."""

        async def test(reactor: Any) -> None:
            for opener in (stock, ours):
                port = opener(reactor, Recorder(), "0.0.0.0")
                assert port.getBroadcastAllowed() is False
                port.setBroadcastAllowed(True)
                assert port.getBroadcastAllowed() is True
                # Where nothing has a route to it, that is what the system says.
                assert raised(port.write, b"x", ("127.255.255.255", 9)) in (None, (OSError, errno.ENETUNREACH))
                await port.stopListening()

        runOnce(test)

    @pytest.mark.parametrize(("protocol", "notified"), [(Recorder, False), (CuriousRecorder, True)])
    def test_firewall(self, runOnce: Run, protocol: type[Recorder], notified: bool) -> None:
        """On a connected port a datagram that this machine does not send raises; a protocol with C{networkError} is notified
        instead.
        """

        async def test(reactor: Any) -> None:
            port, recorder = None, protocol()
            port = ours(reactor, recorder)
            with udpSocket() as sock:
                port.connect(*sock.getsockname())
                script(port, sends=[errno.EPERM])
                assert raised(port.write, b"x") == (None if notified else (PermissionError, errno.EPERM))
                if isinstance(recorder, CuriousRecorder):
                    await recorder.until(lambda: len(recorder.errors) == 1)
                port.write(b"hello")
                assert sock.recv(10) == b"hello"
                sock.sendto(b"welcome", address(port))
                await recorder.count(1)
                assert recorder.refusals == 0
            await port.stopListening()

        runOnce(test)

    def test_waitsWithItsBytes(self, run: Run) -> None:
        """A bytearray that waits for the send queue is sent as it was when it was written."""

        async def test(reactor: Any) -> None:
            port = ours(reactor, Recorder())
            with udpSocket() as sock:
                script(port, sends=[errno.EAGAIN])
                datagram = bytearray(b"before")
                port.write(datagram, sock.getsockname())
                datagram[:] = b"after!"
                await _readable(reactor, sock)
                assert sock.recv(10) == b"before"
            await port.stopListening()

        run(test)

    @needsIPv6
    @onlyLinux
    def test_scopes(self, runOnce: Run) -> None:
        """An address of IPv6 may have its flow and its scope, as in Python's C{socket} module."""

        async def test(reactor: Any) -> None:
            for opener in (stock, ours):
                port = opener(reactor, Recorder(), "::1")
                with udpSocket("::1") as sock:
                    where = sock.getsockname()
                    for each in (where, where[:3], where[:2], (where[0].encode(), where[1])):
                        port.write(b"hello", each)
                        assert sock.recv(10) == b"hello"
                await port.stopListening()

        runOnce(test)


async def _readable(reactor: Any, sock: socket.socket) -> None:
    """Wait until something comes, while the reactor turns."""
    sock.setblocking(False)

    def there() -> bool:
        with suppress(BlockingIOError):
            return bool(sock.recv(1, socket.MSG_PEEK))
        return False

    await until(reactor, there, "something comes")


class LifeTests:
    """From the beginning to the end of a port."""

    @pytest.mark.parametrize("connected", [False, True])
    def test_sameLines(self, runOnce: Run, connected: bool) -> None:
        """The lines in the log, the representation and the attributes are the same at each step."""

        class Protocol(DatagramProtocol):
            def __repr__(self) -> str:
                return "<Protocol>"

        async def life(reactor: Any, opener: Callable[..., Any]) -> list[object]:
            steps: list[object] = []

            @implementer(ILogObserver)
            def observe(event: dict[str, Any]) -> None:
                steps.append(event.get("log_text") or event["log_format"].format(**event))

            globalLogPublisher.addObserver(observe)
            try:
                protocol = Protocol()
                port = opener(reactor, protocol)
                number = port.getHost().port
                steps += [repr(port), str(port), port.logPrefix(), port.logstr, port._realPortNumber, port.connected]
                steps += [protocol.transport is port, port.protocol is protocol, port.interface, port.port]
                steps += [port.getHandle().getsockname()[1] == number, port.fileno() == port.getHandle().fileno()]
                steps += [port.addressFamily, port.socketType, raised(port.connect, "localhost", 9)]
                if connected:
                    port.connect("127.0.0.1", number)
                    steps.append(port._connectedAddr == ("127.0.0.1", number))
                port.setLogStr()
                done = maybeDeferred(port.stopListening)
                steps += [isinstance(done, Deferred), protocol.transport is port]
                steps.append(await done)
                steps += [repr(port), port._realPortNumber, port.connected, port.disconnected, protocol.transport]
                steps += [hasattr(port, "socket"), await maybeDeferred(port.stopListening)]
            finally:
                globalLogPublisher.removeObserver(observe)
            return [
                step.replace(str(number), "N") if isinstance(step, str) else (step if step != number else "N") for step in steps
            ]

        async def test(reactor: Any) -> None:
            # What this system does not have is logged once in a process.
            await ours(reactor, Recorder()).stopListening()
            assert await life(reactor, ours) == await life(reactor, stock)

        runOnce(test)

    def test_adopted(self, run: Run) -> None:
        """C{_fromListeningDescriptor}, which C{adoptDatagramPort} calls, makes one of ours."""

        async def test(reactor: Any) -> None:
            with udpSocket() as sock:
                sock.setblocking(False)
                protocol = Recorder()
                port = DatagramPort._fromListeningDescriptor(reactor, sock.fileno(), sock.family, protocol, 8192)
                port.startListening()
                assert port.getHost().port == sock.getsockname()[1]
                port.write(b"to itself", address(port))
                await protocol.count(1)
                await port.stopListening()

        run(test)


class DifferenceTests:
    """What differs on purpose."""

    def test_closed(self, runOnce: Run) -> None:
        """What is written to a closed port is counted; the stock port raises C{AttributeError}."""

        async def test(reactor: Any) -> None:
            found = []
            for opener in (stock, ours):
                port = opener(reactor, Recorder())
                await port.stopListening()
                found.append(raised(port.write, b"late", ("127.0.0.1", 9)))
            assert found == [(AttributeError, None), None]
            assert port.dropped == {"send_failed": 1}

        runOnce(test)

    def test_refused(self, runOnce: Run) -> None:
        """No write raises because an earlier datagram was refused, and none calls C{connectionRefused} by itself."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = ours(reactor, protocol)
            port.connect("127.0.0.1", unusedPort())
            for _ in range(3):
                port.write(b"anybody there?")
                assert protocol.refusals == 0
            await protocol.until(lambda: protocol.refusals >= 1)
            await port.stopListening()

        runOnce(test)

    def test_failedConnect(self, runOnce: Run) -> None:
        """After a C{connect} that failed the port is not connected; the stock one says that it is."""

        async def test(reactor: Any) -> None:
            for opener in (stock, ours):
                port = opener(reactor, Recorder())
                assert raised(port.connect, "255.255.255.255", 9) is not None
                assert (port._connectedAddr is None) == (opener is ours)
                await port.stopListening()

        runOnce(test)
