"""Tests of L{udpecho.net.sender}, on real sockets and each kind of reactor."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet import error

from tests.support.ports import FailingSocket, address, open_, path, script  # noqa: F401
from tests.support.running import Recorder, Run, sleep, udpSocket


class SendQueueTests:
    """The send queue is full, or the system refuses."""

    def test_waits(self, run: Run) -> None:
        """A datagram waits until there is room, later ones behind it in order, reading pauses, and all are told of."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol)
            script(port, [errno.EAGAIN])
            fates: list[Any] = []
            with udpSocket() as sock:
                for number in (1, 2, 3):
                    port.send(b"%d" % number, sock.getsockname(), fates.append)
                assert fates == []
                assert port not in reactor.getReaders()
                sock.sendto(b"meanwhile", address(port))
                await sleep(reactor, 0.01)
                assert [sock.recv(100) for _ in range(3)] == [b"1", b"2", b"3"]
                assert fates == [None, None, None]
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
                await sleep(reactor, 0.01)
                assert sock.recv(100) == b"waits"
            await port.stopListening()

        runOnce(test)

    def test_timeout(self, runOnce: Run) -> None:
        """What did not get out in time is counted and told of, and reading goes on."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol, writeTimeout=0.02, maxWaiting=2)
            failing = script(port, [errno.EAGAIN] * 1_000_000)
            fates: list[Any] = []
            with udpSocket() as sock:
                for _ in range(3):
                    port.send(b"stuck", sock.getsockname(), fates.append)
                assert fates == ["send_timeout"]
                sock.sendto(b"meanwhile", address(port))
                await protocol.count(1)
                assert fates == ["send_timeout"] * 3
                assert port.dropped == {"send_timeout": 3}
                failing.sends.clear()
                port.write(b"again", sock.getsockname())
                assert sock.recv(100) == b"again"
            await port.stopListening()

        runOnce(test)

    def test_stopWhileWaiting(self, run: Run) -> None:
        """What still waits when the port stops is told of."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            script(port, [errno.EAGAIN] * 1_000_000)
            fates: list[Any] = []
            port.send(b"stuck", ("127.0.0.1", 9), fates.append)
            await port.stopListening()
            assert fates == ["send_timeout"]
            port.send(b"too late", ("127.0.0.1", 9), fates.append)
            assert fates == ["send_timeout", "send_failed"]

        run(test)

    @pytest.mark.parametrize("number", [errno.EPERM, errno.ENETUNREACH, errno.EINVAL, errno.ENOBUFS, errno.ENOMEM])
    def test_refusedBySystem(self, runOnce: Run, number: int) -> None:
        """A datagram that the system refuses is counted and told of, and costs nothing else."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            script(port, [number])
            fates: list[Any] = []
            with udpSocket() as sock:
                port.send(b"refused", sock.getsockname(), fates.append)
                port.send(b"sent", sock.getsockname(), fates.append)
                assert sock.recv(100) == b"sent"
            assert fates == ["send_failed", None]
            assert port.dropped == {"send_failed": 1}
            await port.stopListening()

        runOnce(test)

    def test_portZero(self, runOnce: Run) -> None:
        """A datagram to port 0 raises nothing and is counted."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
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

    def test_settledRaises(self, run: Run, caught: Any) -> None:
        """One that raises on being told what became of its datagram hurts nothing else."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            script(port, [errno.EAGAIN])

            def raising(reason: str | None) -> None:
                raise ZeroDivisionError

            with udpSocket() as sock:
                for payload in (b"one", b"two"):
                    port.send(payload, sock.getsockname(), raising)
                await sleep(reactor, 0.01)
                assert [sock.recv(100), sock.recv(100)] == [b"one", b"two"]
            await port.stopListening()

        run(test)
        assert len(caught.flush(ZeroDivisionError)) == 2

    def test_sendsWhenToldOfATimeout(self, runOnce: Run) -> None:
        """A datagram that is sent on being told that another was given up leaves no call behind."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder(), writeTimeout=0.01)
            script(port, [errno.EAGAIN] * 1_000_000)
            fates: list[Any] = []

            def again(reason: str | None) -> None:
                fates.append(reason)
                port.send(b"again", ("127.0.0.1", 9), fates.append)

            for _ in range(2):
                port.send(b"stuck", ("127.0.0.1", 9), again)
            while len(fates) < 4:
                await sleep(reactor, 0.005)
            await port.stopListening()

        runOnce(test)
