"""Tests of L{udpecho.net.port} and L{udpecho.net.reader}, on real sockets and each kind of reactor."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IListeningPort, IUDPTransport
from twisted.internet.task import Clock
from zope.interface.verify import verifyClass, verifyObject

from tests.support.guards import needsIPv6
from tests.support.ports import address, open_, path, script  # noqa: F401
from tests.support.running import CuriousRecorder, Recorder, Run, sleep, udpSocket, unusedPort
from udpecho.interfaces import IDatagramTransport
from udpecho.net.open import listen
from udpecho.net.port import DatagramPort


class InterfaceTests:
    """What a L{DatagramPort} provides."""

    def test_interfaces(self, runOnce: Run) -> None:
        """It provides Twisted's interfaces of UDP ports and transports, and ours."""
        for interface in (IListeningPort, IUDPTransport, IDatagramTransport):
            assert verifyClass(interface, DatagramPort)

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            for interface in (IListeningPort, IUDPTransport, IDatagramTransport):
                assert verifyObject(interface, port)
            await port.stopListening()

        runOnce(test)

    def test_portOutOfRange(self) -> None:
        """A port number that is none is refused with a sentence, not by the socket."""
        with pytest.raises(ValueError, match="port must be 0 to 65535, got 99999"):
            listen(Clock(), 99999, Recorder())

    def test_reactorWithoutDescriptors(self) -> None:
        """On a reactor that has no file descriptors, C{listen} is that reactor's own C{listenUDP}."""

        class Reactor:
            def listenUDP(self, *arguments: Any) -> tuple[Any, ...]:
                return arguments

        protocol = Recorder()
        result: Any = listen(Reactor(), 7, protocol, "::1", maxPacketSize=9)
        assert result == (7, protocol, "::1", 9)


class WholeTests:
    """Nothing is truncated."""

    @pytest.mark.parametrize(
        ("host", "longest"), [("127.0.0.1", 65507), pytest.param("::1", 65527, marks=needsIPv6)], ids=["IPv4", "IPv6"]
    )
    def test_everySize(self, runOnce: Run, host: str, longest: int) -> None:
        """Every datagram that UDP can carry arrives whole."""
        sizes = [*range(1501), *range(1501, longest, 997), longest]

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol, host)
            with udpSocket(host) as sock:
                for number, size in enumerate(sizes, 1):
                    sock.sendto(bytes([number % 251]) * size, address(port))
                    await protocol.count(number)
            for number, (datagram, _) in enumerate(protocol.datagrams, 1):
                assert datagram == bytes([number % 251]) * sizes[number - 1]
            await port.stopListening()

        runOnce(test)

    def test_tooLongForTheLimit(self, run: Run) -> None:
        """With a limit, a datagram that fits is delivered whole, and one that does not is dropped, counted and reported."""

        async def test(reactor: Any) -> None:
            protocol = CuriousRecorder()
            port = open_(reactor, protocol, maxPacketSize=100)
            with udpSocket() as sock:
                for size in (100, 101, 65507, 0, 99):
                    sock.sendto(b"x" * size, address(port))
            await protocol.count(3)
            assert [len(datagram) for datagram, _ in protocol.datagrams] == [100, 0, 99]
            assert port.dropped == {"truncated": 2}
            assert [reason for reason, _ in protocol.drops] == ["truncated", "truncated"]
            # Of a longer one the rest may not have been looked at.
            assert all(size > 100 for _, size in protocol.drops)
            await port.stopListening()

        run(test)


class TroubleTests:
    """Protocols, and descriptors, that make trouble."""

    def test_stopProtocolRaises(self, run: Run, caught: Any) -> None:
        """A protocol that raises on being stopped keeps neither the socket open nor a Deferred waiting."""

        class Protocol(Recorder):
            def stopProtocol(self) -> None:
                raise ZeroDivisionError

        async def test(reactor: Any) -> None:
            port = open_(reactor, Protocol())
            await gatherResults([port.stopListening(), port.stopListening()])
            await port.stopListening()

        run(test)
        assert len(caught.flush(ZeroDivisionError)) == 1

    def test_descriptorOfAnother(self, run: Run) -> None:
        """A port that is opened in the turn in which another is closed, and gets its descriptor, does not get its errors."""

        async def test(reactor: Any) -> None:
            dead = unusedPort()
            opened: list[tuple[DatagramPort, Recorder]] = []

            class Protocol(Recorder):
                def connectionRefused(self) -> None:
                    super().connectionRefused()
                    if not opened:
                        for port in ports:
                            if port is not self.transport:
                                port.abort()
                        protocol = Recorder()
                        opened.append((open_(reactor, protocol), protocol))

            ports = []
            for _ in range(2):
                protocol = Protocol()
                ports.append(open_(reactor, protocol))
                ports[-1].connect("127.0.0.1", dead)
            for port in ports:
                port.write(b"refused")
            while not opened:
                await sleep(reactor, 0.001)
            await sleep(reactor, 0.01)
            last, recorder = opened[0]
            with udpSocket() as sock:
                sock.sendto(b"hello", address(last))
                await recorder.count(1)
            for port in [*ports, last]:
                await port.stopListening()

        run(test)

    def test_reactorCannotWatch(self, runOnce: Run) -> None:
        """A port that the reactor cannot watch is none: it raises, and the socket is closed."""

        async def test(reactor: Any) -> None:
            def full(reader: object) -> None:
                raise OSError(errno.ENOMEM, "Cannot allocate memory")

            addReader = reactor.addReader
            reactor.addReader = full
            protocol = Recorder()
            try:
                with pytest.raises(error.CannotListenError) as caught:
                    open_(reactor, protocol)
            finally:
                reactor.addReader = addReader
            assert caught.value.socketError.errno == errno.ENOMEM
            assert protocol.transport is None

        runOnce(test)

    def test_addressUnknown(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """So is one whose address the system does not report; once it has, the port knows."""

        async def test(reactor: Any) -> None:
            def refused(self: object) -> None:
                raise OSError(errno.ENOBUFS, "No buffer space available")

            with monkeypatch.context() as patched:
                patched.setattr("socket.socket.getsockname", refused, raising=False)
                with pytest.raises(error.CannotListenError) as caught:
                    open_(reactor, Recorder())
            assert caught.value.socketError.errno == errno.ENOBUFS
            port = open_(reactor, Recorder())
            host = port.getHost()
            with monkeypatch.context() as patched:
                patched.setattr("socket.socket.getsockname", refused, raising=False)
                assert port.getHost() == host
            await port.stopListening()

        runOnce(test)

    def test_drainWhilePaused(self, runOnce: Run) -> None:
        """A port whose protocol has paused reading has nothing to drain."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            port.write(b"unread", address(port))
            port.stopReading()
            assert await port.drain(25)
            await port.stopListening()

        runOnce(test)

    def test_drainOfABrokenSocket(self, runOnce: Run) -> None:
        """A socket that cannot be read at all fails the draining."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            script(port, receives=[errno.EBADF])
            with pytest.raises(OSError, match=r"as the test wants it|Bad file descriptor"):
                await port.drain(25)
            await port.stopListening()

        runOnce(test)


class FairnessTests:
    """A turn ends."""

    def test_backlogGoesOn(self, run: Run) -> None:
        """What was queued before the port is connected is handed over to the last, also if that takes more than one turn."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol, receiveBuffer=2**22)
            with udpSocket() as sock:
                for number in range(20):
                    sock.sendto(bytes([number]) * 60000, address(port))
                port.connect(*sock.getsockname())
                await protocol.count(20)
            assert [datagram[0] for datagram, _ in protocol.datagrams] == list(range(20))
            await port.stopListening()

        run(test)

    def test_timersRunUnderAFlood(self, run: Run) -> None:
        """A protocol that sends each empty datagram to itself again does not keep a timer from running."""

        async def test(reactor: Any) -> None:
            class Flood(Recorder):
                def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                    super().datagramReceived(datagram, addr)
                    port.write(datagram, addr)

            protocol = Flood()
            port = open_(reactor, protocol)
            for _ in range(100):
                port.write(b"", address(port))
            for _ in range(10):
                await sleep(reactor, 0.001)
            await protocol.count(200)
            await port.stopListening()

        run(test)


class ReadErrorTests:
    """The system fails to read."""

    @pytest.mark.parametrize("number", [errno.ENOMEM, errno.EIO, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EINTR])
    @pytest.mark.parametrize("connected", [False, True])
    def test_survives(self, run: Run, number: int, connected: bool) -> None:
        """No error of reading ends the port."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol)
            with udpSocket() as sock:
                if connected:
                    port.connect(*sock.getsockname())
                script(port, receives=[number, number])
                sock.sendto(b"hello", address(port))
                await protocol.count(1)
            await port.stopListening()

        run(test)


class StopTests:
    """Stopping."""

    def test_twice(self, run: Run) -> None:
        """Both Deferreds of two calls in one turn fire, once the socket is closed, and so does that of a later call."""

        async def test(reactor: Any) -> None:
            stops = []

            class Protocol(Recorder):
                def stopProtocol(self) -> None:
                    stops.append(self)

            port = open_(reactor, Protocol())
            first, second = port.stopListening(), port.stopListening()
            assert stops == []
            await gatherResults([first, second])
            assert len(stops) == 1
            await port.stopListening()

        run(test)

    def test_abort(self, run: Run) -> None:
        """After L{DatagramPort.abort} nothing is left, also in the middle of reading; it may be called again."""

        async def test(reactor: Any) -> None:
            class Protocol(Recorder):
                def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                    port.abort()
                    super().datagramReceived(datagram, addr)

            protocol = Protocol()
            port = open_(reactor, protocol)
            port.write(b"one", address(port))
            port.write(b"two", address(port))
            await protocol.count(1)
            port.abort()
            await sleep(reactor)
            assert len(protocol.datagrams) == 1

        run(test)

    def test_stopThenAbort(self, run: Run) -> None:
        """Aborting a port that is about to stop fires the Deferred of the stopping."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            stopped = port.stopListening()
            port.abort()
            await stopped

        run(test)

    def test_reactorStops(self, run: Run) -> None:
        """When the reactor disconnects everything at its end, a connected port that has just been refused closes too."""
        stops = []

        class Protocol(Recorder):
            def stopProtocol(self) -> None:
                stops.append(self)

        async def test(reactor: Any) -> None:
            port = open_(reactor, Protocol())
            port.connect("127.0.0.1", unusedPort())
            port.write(b"refused")

        with pytest.raises(AssertionError, match="reader"):
            run(test)
        assert len(stops) == 1

    def test_drain(self, run: Run) -> None:
        """L{DatagramPort.drain} reads on until the queue is empty, and fires with C{True}; or gives up in time."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol, receiveBuffer=2**20)
            for _ in range(200):
                port.write(b"x", address(port))
            assert await port.drain(5)
            assert len(protocol.datagrams) == 200
            script(port, [errno.EAGAIN] * 1_000_000)
            port.write(b"stuck", address(port))
            assert not await port.drain(0.02)
            await port.stopListening()
            assert await port.drain(5)

        run(test)


class ProtocolErrorTests:
    """The protocol raises."""

    def test_logged(self, run: Run, caught: Any) -> None:
        """What C{datagramReceived} raises is logged, and the next datagram delivered."""

        class Protocol(Recorder):
            def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                super().datagramReceived(datagram, addr)
                raise ZeroDivisionError

        async def test(reactor: Any) -> None:
            protocol = Protocol()
            port = open_(reactor, protocol)
            port.write(b"one", address(port))
            port.write(b"two", address(port))
            await protocol.count(2)
            await port.stopListening()

        run(test)
        assert len(caught.flush(ZeroDivisionError)) == 2
