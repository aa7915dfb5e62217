"""Tests of L{udpecho.net.sender}, on real sockets and each kind of reactor."""

from __future__ import annotations

import errno
import socket
from functools import partial
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock

from tests.support.hosts import until
from tests.support.ports import address, open_, path, script  # noqa: F401
from tests.support.running import Recorder, Run, sleep, udpSocket
from udpecho.net.endpoints import Endpoints, PortContext
from udpecho.net.network_errors import NetworkErrors
from udpecho.net.options import PortOptions
from udpecho.net.sender import Sender
from udpecho.net.sources import Sources


class SendQueueTests:
    """The send queue is full, or the system refuses."""

    def test_waits(self, run: Run) -> None:
        """A datagram waits until there is space, later ones behind it in order, reading pauses, and all are reported."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol)
            script(port, [errno.EAGAIN])
            outcomes: list[Any] = []
            with udpSocket() as sock:
                for number in (1, 2, 3):
                    port.send(b"%d" % number, sock.getsockname(), outcomes.append)
                assert outcomes == []
                assert port not in reactor.getReaders()
                sock.sendto(b"meanwhile", address(port))
                await until(reactor, lambda: len(outcomes) == 3, "all are sent")
                assert [sock.recv(100) for _ in range(3)] == [b"1", b"2", b"3"]
                assert outcomes == [None, None, None]
                await protocol.count(1)
            assert port not in reactor.getWriters()
            await port.stopListening()

        run(test)

    def test_tooLongWhileOthersWait(self, runOnce: Run) -> None:
        """What no datagram can carry is refused at once also when it would have to wait."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            script(port, [errno.EAGAIN])
            with udpSocket() as sock:
                port.write(b"waits", sock.getsockname())
                with pytest.raises(error.MessageLengthError):
                    port.write(bytes(65508), sock.getsockname())
                await until(reactor, lambda: not port._sender.waiting, "it is sent")
                assert sock.recv(100) == b"waits"
            await port.stopListening()

        runOnce(test)

    def test_timeout(self, runOnce: Run) -> None:
        """What did not get out in time is counted and reported, and reading goes on."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol, writeTimeout=0.02, maxWaiting=2)
            failing = script(port, [errno.EAGAIN] * 1_000_000)
            outcomes: list[Any] = []
            with udpSocket() as sock:
                for _ in range(3):
                    port.send(b"stuck", sock.getsockname(), outcomes.append)
                assert outcomes == ["send_timeout"]
                sock.sendto(b"meanwhile", address(port))
                await protocol.count(1)
                assert outcomes == ["send_timeout"] * 3
                assert port.dropped == {"send_timeout": 3}
                failing.sends.clear()
                port.write(b"again", sock.getsockname())
                assert sock.recv(100) == b"again"
            await port.stopListening()

        runOnce(test)

    def test_queueOfAnInterface(self, run: Run) -> None:
        """A datagram waits while the queue of an interface is full, which no event reports the end of, connected or not."""

        async def test(reactor: Any) -> None:
            for connected in (False, True):
                port = open_(reactor, Recorder())
                with udpSocket() as sock:
                    if connected:
                        port.connect(*sock.getsockname())
                    script(port, [errno.ENOBUFS] * 3)
                    outcomes: list[Any] = []
                    port.send(b"patient", None if connected else sock.getsockname(), outcomes.append)
                    assert outcomes == []
                    while not outcomes:
                        await sleep(reactor, 0.01)
                    assert outcomes == [None]
                    assert sock.recv(100) == b"patient"
                assert port not in reactor.getWriters()
                await port.stopListening()

        run(test)

    def test_stopWhileWaiting(self, run: Run) -> None:
        """What still waits when the port stops is reported."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            script(port, [errno.EAGAIN] * 1_000_000)
            outcomes: list[Any] = []
            port.send(b"stuck", ("127.0.0.1", 9), outcomes.append)
            await port.stopListening()
            assert outcomes == ["send_timeout"]
            port.send(b"too late", ("127.0.0.1", 9), outcomes.append)
            assert outcomes == ["send_timeout", "send_failed"]

        run(test)

    @pytest.mark.parametrize("number", [errno.EPERM, errno.ENETUNREACH, errno.EINVAL, errno.ENOMEM])
    def test_refusedBySystem(self, runOnce: Run, number: int) -> None:
        """A datagram that the system refuses is counted and reported, and costs nothing else."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            script(port, [number])
            outcomes: list[Any] = []
            with udpSocket() as sock:
                port.send(b"refused", sock.getsockname(), outcomes.append)
                port.send(b"sent", sock.getsockname(), outcomes.append)
                assert sock.recv(100) == b"sent"
            assert outcomes == ["send_failed", None]
            assert port.dropped == {"send_failed": 1}
            await port.stopListening()

        runOnce(test)

    def test_portZero(self, runOnce: Run) -> None:
        """A datagram to port 0 raises nothing where that is wanted, and is counted."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder(), writeRaises=False)
            port.write(b"to nowhere", ("127.0.0.1", 0))
            assert port.dropped == {"send_failed": 1}
            await port.stopListening()

        runOnce(test)

    def test_tooLong(self, run: Run) -> None:
        """What no datagram can carry raises the stock port's exception, connected or not, and hurts nothing."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol)
            with udpSocket() as sock:
                for connected in (False, True):
                    if connected:
                        port.connect(*sock.getsockname())
                    for size in (65508, 70000):
                        with pytest.raises(error.MessageLengthError):
                            port.write(b"x" * size, sock.getsockname())
                await sleep(reactor, 0.01)
                port.write(b"fits")
                assert sock.recv(100) == b"fits"
            await port.stopListening()

        run(test)

    def test_callbackRaises(self, run: Run, caught: Any) -> None:
        """A callback that raises hurts nothing else."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            script(port, [errno.EAGAIN])

            def raising(reason: str | None) -> None:
                raise ZeroDivisionError

            with udpSocket() as sock:
                for payload in (b"one", b"two"):
                    port.send(payload, sock.getsockname(), raising)
                while port._sender.waiting:
                    await sleep(reactor, 0.01)
                assert [sock.recv(100), sock.recv(100)] == [b"one", b"two"]
            await port.stopListening()

        run(test)
        assert len(caught.flush(ZeroDivisionError)) == 2

    def test_sendsFromACallback(self, runOnce: Run) -> None:
        """A datagram that a callback sends when another was given up leaves no delayed call behind."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder(), writeTimeout=0.01)
            script(port, [errno.EAGAIN] * 1_000_000)
            outcomes: list[Any] = []

            def again(reason: str | None) -> None:
                outcomes.append(reason)
                port.send(b"again", ("127.0.0.1", 9), outcomes.append)

            for _ in range(2):
                port.send(b"stuck", ("127.0.0.1", 9), again)
            while len(outcomes) < 4:
                await sleep(reactor, 0.005)
            assert outcomes == ["send_timeout"] * 4
            await port.stopListening()

        runOnce(test)


class FullSocket:
    """A socket whose send queue is full as long as a test wants it."""

    def __init__(self) -> None:
        self.full = True
        self.number = errno.EAGAIN
        self.sent: list[bytes] = []

    def sendto(self, datagram: bytes, flags: int, destination: object) -> None:
        if self.full:
            raise OSError(self.number, "full")
        self.sent.append(datagram)

    def getsockopt(self, *arguments: int) -> int:
        return 0

    def recvmsg(self, *arguments: int) -> None:
        raise BlockingIOError(errno.EAGAIN, "no errors")


class SenderTests:
    """L{Sender}, in virtual time, on a socket that a test fills."""

    def sender(self, clock: Clock, **options: Any) -> tuple[Sender, FullSocket, list[str]]:
        """@return: a sender, its socket, and the calls of C{onFull}, C{onEmpty} and C{onPause}."""
        context = PortContext(
            clock, DatagramProtocol(), Endpoints(socket.AF_INET, Sources(DatagramProtocol())), 65535, PortOptions(**options)
        )
        sock: Any = FullSocket()
        context.socket = sock
        calls: list[str] = []
        full, empty, pause = (partial(calls.append, name) for name in ("full", "empty", "pause"))
        found = Sender(context, NetworkErrors(context), full, empty, pause)
        found.open()
        return found, sock, calls

    def test_pauses(self) -> None:
        """While the queue of an interface is full, no event says when it is not: the sender tries again a little later."""
        clock = Clock()
        sender, sock, calls = self.sender(clock, writeTimeout=2)
        sock.number = errno.ENOBUFS
        outcomes: list[str | None] = []
        sender.send(b"x", ("127.0.0.1", 9), outcomes.append)
        sender.flush()
        assert (calls, sender.pauses) == (["full", "pause"], True)
        clock.advance(0.01)
        assert (calls, sender.pauses, outcomes) == (["full", "pause", "full"], False, [])
        sender.flush()
        clock.advance(2)
        assert outcomes == ["send_timeout"]
        assert not clock.getDelayedCalls()

    def test_deadlines(self) -> None:
        """Each datagram waits for its own deadline and no longer, and the last one ends the waiting."""
        clock = Clock()
        sender, _, calls = self.sender(clock, writeTimeout=2)
        outcomes: list[tuple[str | None, float]] = []
        for _ in range(2):
            sender.send(b"x", ("127.0.0.1", 9), lambda reason: outcomes.append((reason, clock.seconds())))
            clock.advance(1)
        assert (outcomes, calls) == ([("send_timeout", 2)], ["full"])
        clock.advance(1)
        assert outcomes == [("send_timeout", 2), ("send_timeout", 3)]
        assert calls == ["full", "empty"]
        assert not clock.getDelayedCalls()

    def test_flush(self) -> None:
        """What waits goes out in order when there is space, and its deadline is forgotten."""
        clock = Clock()
        sender, sock, calls = self.sender(clock)
        outcomes: list[str | None] = []
        for number in range(3):
            sender.send(b"%d" % number, ("127.0.0.1", 9), outcomes.append)
        sender.flush()
        assert (sock.sent, outcomes, calls) == ([], [], ["full"])
        sock.full = False
        sender.flush()
        assert (sock.sent, outcomes, calls) == ([b"0", b"1", b"2"], [None] * 3, ["full", "empty"])
        assert not clock.getDelayedCalls()

    def test_close(self) -> None:
        """What waits is given up, and what is sent then fails; nothing is left."""
        clock = Clock()
        sender, _, calls = self.sender(clock)
        outcomes: list[str | None] = []

        def again(reason: str | None) -> None:
            outcomes.append(reason)
            sender.send(b"y", ("127.0.0.1", 9), outcomes.append)

        sender.send(b"x", ("127.0.0.1", 9), again)
        sender.close()
        assert outcomes == ["send_timeout", "send_failed"]
        assert calls == ["full"]
        assert not clock.getDelayedCalls()
