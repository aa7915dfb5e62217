"""Tests of L{udpecho.net.port}, on real sockets and each kind of reactor."""

from __future__ import annotations

import errno
import socket
from typing import Any, cast

import pytest
from twisted.internet import error
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from zope.interface.verify import verifyClass, verifyObject

from tests.support.running import CuriousRecorder, Recorder, Run, hasIPv6, sleep, udpSocket, unusedPort
from udpecho.addresses import DatagramAddress
from udpecho.errors import EchoError, HostUnreachable, MessageTooLong, NetworkUnreachable
from udpecho.interfaces import IDatagramTransport
from udpecho.net import batch_reader
from udpecho.net.batch_reader import SplittingReader
from udpecho.net.linux import sockopt
from udpecho.net.linux.mmsg import SystemCalls
from udpecho.net.open import dial, listen
from udpecho.net.port import DatagramPort
from udpecho.net.selftest import unsupportedReason

onlyLinux = pytest.mark.skipif(not sockopt.available, reason="the local address is known on Linux only")
needsIPv6 = pytest.mark.skipif(not hasIPv6(), reason="this machine has no ::1")


@pytest.fixture(autouse=True, params=["batch", "recvmsg"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How datagrams are received: by the batch, where the machine can, or one by one."""
    if request.param == "recvmsg":
        monkeypatch.setattr(batch_reader, "unsupportedReason", lambda: "the test wants it so")
    elif unsupportedReason() is not None:
        pytest.skip(f"no batches: {unsupportedReason()}")
    return cast(str, request.param)


class FailingSocket:
    """
    A socket whose sends and receives fail as a script says.

    @ivar sends: for each call in turn the error number to fail with, 0 to let it through; then all go through.
    @ivar receives: the same.
    """

    def __init__(self, real: socket.socket, sends: list[int] | None = None, receives: list[int] | None = None) -> None:
        self._real = real
        self.sends = sends or []
        self.receives = receives or []

    def _fail(self, script: list[int]) -> None:
        number = script.pop(0) if script else 0
        if number:
            raise OSError(number, "as the test wants it")

    def send(self, *arguments: Any) -> int:
        self._fail(self.sends)
        return self._real.send(*arguments)

    def sendto(self, *arguments: Any) -> int:
        self._fail(self.sends)
        return self._real.sendto(*arguments)

    def sendmsg(self, *arguments: Any) -> int:
        self._fail(self.sends)
        return self._real.sendmsg(*arguments)

    def recvfrom(self, *arguments: Any) -> Any:
        self._fail(self.receives)
        return self._real.recvfrom(*arguments)

    def recvmsg(self, *arguments: Any) -> Any:
        if len(arguments) < 3:
            self._fail(self.receives)
        return self._real.recvmsg(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class FailingCalls:
    """System calls on batches that fail as a L{FailingSocket}'s script says."""

    def __init__(self, real: SystemCalls, failing: FailingSocket) -> None:
        self._real = real
        self._failing = failing
        self._number = 0

    def _fail(self, script: list[int]) -> bool:
        self._number = script.pop(0) if script else 0
        return self._number != 0

    def recvmmsg(self, *arguments: Any) -> int:
        return -1 if self._fail(self._failing.receives) else self._real.recvmmsg(*arguments)

    def sendmmsg(self, *arguments: Any) -> int:
        return -1 if self._fail(self._failing.sends) else self._real.sendmmsg(*arguments)

    def lastError(self) -> int:
        return self._number or self._real.lastError()

    failure = SystemCalls.failure


def script(port: DatagramPort, sends: list[int] | None = None, receives: list[int] | None = None) -> FailingSocket:
    """Have a port's socket fail, or the system calls on its batches."""
    failing = FailingSocket(port.socket, sends, receives)
    sock: Any = failing
    port.socket = port._context.socket = sock
    reader: Any = port._reader
    if isinstance(reader, SplittingReader):
        reader.batch.calls = FailingCalls(reader.batch.calls, failing)  # type: ignore[assignment]
    return failing


def open_(reactor: Any, protocol: DatagramProtocol, interface: str = "127.0.0.1", **options: Any) -> DatagramPort:
    port = listen(reactor, 0, protocol, interface, **options)
    assert isinstance(port, DatagramPort)
    return port


def address(port: DatagramPort) -> tuple[str, int]:
    bound = port.getHost()
    return bound.host, bound.port


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
        heard: Any = listen(Reactor(), 7, protocol, "::1", maxPacketSize=9)
        assert heard == (7, protocol, "::1", 9)


class RefusalTests:
    """Connected, and nothing listens at the peer."""

    def test_survives(self, run: Run) -> None:
        """The protocol is told of each of three refusals, the port lives through them, and works once the peer is there."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol)
            peerPort = unusedPort()
            port.connect("127.0.0.1", peerPort)
            for refusals in (1, 2, 3):
                port.write(b"anybody there?")
                await protocol.until(lambda: protocol.refusals >= refusals)  # noqa: B023
            peer = Recorder()
            peerListening = listen(reactor, peerPort, peer)
            port.write(b"hello")
            await peer.count(1)
            peer.transport.write(b"welcome", peer.datagrams[0][1])  # type: ignore[union-attr]
            await protocol.count(1)
            assert protocol.datagrams == [(b"welcome", ("127.0.0.1", peerPort))]
            assert peer.datagrams == [(b"hello", address(port))]
            assert protocol.refusals == 3
            await port.stopListening()
            await gatherResults([maybeDeferred(peerListening.stopListening)])

        run(test)

    def test_neverFromWrite(self, run: Run) -> None:
        """
        C{connectionRefused} is not called from inside C{write}, though the system tells by failing the second one, and that
        one is sent all the same.
        """

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol)
            peerPort = unusedPort()
            port.connect("127.0.0.1", peerPort)
            port.write(b"first")
            with udpSocket(port=peerPort) as peer:
                port.write(b"second")
                assert protocol.refusals == 0
                assert peer.recv(100) == b"second"
                await protocol.until(lambda: protocol.refusals == 1)
            assert not port.dropped
            await port.stopListening()

        run(test)

    def test_whileOtherDatagramsWait(self, run: Run) -> None:
        """A refusal that comes while datagrams wait for the send queue neither closes the port nor loses them."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol)
            peerPort = unusedPort()
            port.connect("127.0.0.1", peerPort)
            script(port, [0, errno.EAGAIN])
            port.write(b"refused")
            port.write(b"waits")
            with udpSocket(port=peerPort) as peer:
                peer.setblocking(False)
                await protocol.until(lambda: protocol.refusals == 1)
                await sleep(reactor, 0.01)
                assert peer.recv(100) == b"waits"
            assert not port.dropped
            await port.stopListening()

        run(test)

    def test_adopted(self, run: Run) -> None:
        """A socket that was connected before it was adopted survives refusals as well."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.connect(("127.0.0.1", unusedPort()))
                port = DatagramPort._fromListeningDescriptor(reactor, sock.fileno(), socket.AF_INET, protocol, 8192)
            port.startListening()
            for refusals in (1, 2):
                port.write(b"anybody there?")
                await protocol.until(lambda: protocol.refusals >= refusals)  # noqa: B023
            await port.stopListening()

        run(test)

    def test_notATracebackWhenTheProtocolFails(self, run: Run, caught: Any) -> None:
        """A protocol that raises on being told does not close the port."""

        class Protocol(Recorder):
            def connectionRefused(self) -> None:
                super().connectionRefused()
                raise ZeroDivisionError

        async def test(reactor: Any) -> None:
            protocol = Protocol()
            port = open_(reactor, protocol)
            port.connect("127.0.0.1", unusedPort())
            for refusals in (1, 2):
                port.write(b"anybody there?")
                await protocol.until(lambda: protocol.refusals >= refusals)  # noqa: B023
            await port.stopListening()

        run(test)
        assert len(caught.flush(ZeroDivisionError)) == 2


class NetworkErrorTests:
    """What the system says about a peer, other than that it refuses."""

    @pytest.mark.parametrize(
        ("number", "kind"),
        [
            (errno.EHOSTUNREACH, HostUnreachable),
            (errno.ENETUNREACH, NetworkUnreachable),
            (errno.EACCES, HostUnreachable),
        ],
    )
    def test_toldApart(self, runOnce: Run, number: int, kind: type[EchoError]) -> None:
        """
        A connected protocol is told, from the reactor, that the host or the network cannot be reached, and the datagram is
        counted.
        """

        async def test(reactor: Any) -> None:
            protocol = CuriousRecorder()
            port = open_(reactor, protocol)
            port.connect("127.0.0.1", unusedPort())
            script(port, [number])
            port.write(b"lost")
            assert protocol.errors == []
            await protocol.until(lambda: len(protocol.errors) == 1)
            assert type(protocol.errors[0]) is kind
            assert protocol.errors[0].errno == number
            assert protocol.refusals == 0
            assert port.dropped == {"send_failed": 1}
            await port.stopListening()

        runOnce(test)

    def test_protocolThatKnowsRefusalsOnly(self, runOnce: Run) -> None:
        """A protocol that has no C{networkError} is told of an unreachable peer by C{connectionRefused}."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol)
            port.connect("127.0.0.1", unusedPort())
            script(port, [errno.EHOSTUNREACH])
            port.write(b"lost")
            assert protocol.refusals == 0
            await protocol.until(lambda: protocol.refusals == 1)
            await port.stopListening()

        runOnce(test)

    def test_pathIsNarrower(self, runOnce: Run) -> None:
        """That the path carries less (ICMP fragmentation needed) is told with how much it carries."""

        async def test(reactor: Any) -> None:
            protocol = CuriousRecorder()
            port = open_(reactor, protocol)
            port.connect("127.0.0.1", 9)
            port._errors.note(errno.EMSGSIZE, 1280)
            port._errors.notify()
            (reason,) = protocol.errors
            assert isinstance(reason, MessageTooLong)
            assert reason.limit == 1252
            assert "more than 1252 bytes" in str(reason)
            await port.stopListening()

        runOnce(test)


class WholeTests:
    """Nothing is cut."""

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
        """With a limit, a datagram that fits is delivered whole, and one that does not is dropped, counted and told of."""

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

    def test_reactorCannotWatch(self, runOnce: Run) -> None:
        """A port that the reactor has no room for is none: the error says so, and the socket is closed."""

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

    def test_addressIsNotTold(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """So is one whose address the system does not tell; once it has, the port knows."""

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


class SourceAddressTests:
    """The reply leaves from the address that was asked."""

    @onlyLinux
    @pytest.mark.parametrize(
        ("interface", "asked", "options"),
        [
            ("0.0.0.0", "127.0.0.2", {}),
            ("", "127.0.0.3", {}),
            pytest.param("::", "::1", {"ipv6Only": True}, marks=needsIPv6),
            pytest.param("::", "127.0.0.2", {}, marks=needsIPv6),
        ],
    )
    def test_wildcard(self, run: Run, interface: str, asked: str, options: dict[str, Any]) -> None:
        """On a wildcard bind a connected client hears the reply, at once or written later to the address object."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol, interface, **options)
            with udpSocket("::1" if ":" in asked else "127.0.0.1") as sock:
                sock.connect((asked, port.getHost().port))
                sock.send(b"who are you?")
                await protocol.count(1)
                sender = protocol.datagrams[0][1]
                own = sock.getsockname()[1]
                assert isinstance(sender, DatagramAddress)
                mapped = interface == "::" and ":" not in asked
                host = sock.getsockname()[0]
                assert tuple(sender) == (f"::ffff:{host}" if mapped else host, own)
                assert sender.localHost == (f"::ffff:{asked}" if mapped else asked)
                assert sender.unicast
                port.write(b"it is me", sender)
                assert sock.recv(100) == b"it is me"
                await sleep(reactor, 0.01)
                port.write(b"still me", sender)
                assert sock.recv(100) == b"still me"
            await port.stopListening()

        run(test)

    def test_plainPair(self, run: Run) -> None:
        """A plain pair is written to as on the stock port."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder(), "0.0.0.0")
            with udpSocket() as sock:
                port.write(b"plain", sock.getsockname())
                port.writeSequence([b"pl", b"ain"], sock.getsockname())
                assert [sock.recv(100), sock.recv(100)] == [b"plain", b"plain"]
            await port.stopListening()

        run(test)

    @onlyLinux
    def test_notUnicast(self, runOnce: Run) -> None:
        """What was sent to a multicast group is marked."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol, "0.0.0.0")
            membership = socket.inet_aton("239.1.2.3") + socket.inet_aton("127.0.0.1")
            port.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            with udpSocket() as sock:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
                sock.sendto(b"everybody", ("239.1.2.3", port.getHost().port))
                await protocol.count(1)
                assert not protocol.datagrams[0][1].unicast
            await port.stopListening()

        runOnce(test)

    @onlyLinux
    def test_notUnicastBroadcast(self, runOnce: Run) -> None:
        """What was sent to a broadcast address is marked, also on a socket that is bound to that address."""

        async def test(reactor: Any) -> None:
            for interface in ("0.0.0.0", "127.255.255.255"):
                protocol = Recorder()
                port = open_(reactor, protocol, interface)
                with udpSocket() as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                    sock.sendto(b"everybody", ("127.255.255.255", port.getHost().port))
                    await protocol.count(1)
                    assert not protocol.datagrams[0][1].unicast
                await port.stopListening()

        runOnce(test)

    def test_wrongFamily(self, runOnce: Run) -> None:
        """An address of the other family, a name, or none, is refused with the stock port's exception."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            wrong: list[Any] = [("::1", 9), ("localhost", 9), DatagramAddress(("::1", 9)), None]
            for where in wrong:
                with pytest.raises(error.InvalidAddressError):
                    port.write(b"", where)
            await port.stopListening()

        runOnce(test)


class FairnessTests:
    """A turn ends."""

    @pytest.mark.parametrize(("size", "most"), [(0, 64), (1, 64), (60000, 5)])
    def test_turnIsBounded(self, runOnce: Run, size: int, most: int) -> None:
        """One turn reads a bounded number of datagrams, and of bytes."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol, receiveBuffer=2**24)
            sent = 3 * most
            with udpSocket() as sock:
                for _ in range(sent):
                    sock.sendto(b"x" * size, address(port))
            read = []
            while len(protocol.datagrams) < sent:
                before = len(protocol.datagrams)
                port.doRead()
                read.append(len(protocol.datagrams) - before)
                assert 0 < read[-1] <= most
            await port.stopListening()

        runOnce(test)

    def test_timersRunUnderAFlood(self, run: Run) -> None:
        """A protocol that sends each empty datagram to itself again does not keep a timer from running."""

        async def test(reactor: Any) -> None:
            class Flood(Recorder):
                def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                    port.write(datagram, addr)

            port = open_(reactor, Flood())
            for _ in range(100):
                port.write(b"", address(port))
            for _ in range(10):
                await sleep(reactor, 0.001)
            await port.stopListening()

        run(test)


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


class ConnectTests:
    """L{DatagramPort.connect} and L{dial}."""

    def test_strangerBeforeConnect(self, run: Run) -> None:
        """What a stranger sent before the port was connected is not delivered; what the peer sent is."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol)
            with udpSocket() as peer, udpSocket() as stranger, udpSocket("127.0.0.2", peer.getsockname()[1]) as alike:
                for sock in (stranger, peer, alike):
                    sock.sendto(b"before", address(port))
                port.connect(*peer.getsockname())
                peer.sendto(b"after", address(port))
                await protocol.count(2)
                await sleep(reactor, 0.01)
                assert port.dropped == {"not_allowed": 2}
                assert protocol.datagrams == [(b"before", peer.getsockname()), (b"after", peer.getsockname())]
            await port.stopListening()

        run(test)

    def test_failureLeavesItUsable(self, run: Run) -> None:
        """A connect that fails, for a reason of the system's or of the caller's, changes nothing."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol)
            # The broadcast address wants an option that is never set.
            with pytest.raises(OSError, match="Permission"):
                port.connect("255.255.255.255", 9)
            # Linux connects to port 0, and is not connected then.
            with pytest.raises(OSError, match=r"."):
                port.connect("127.0.0.1", 0)
            for host in ("localhost", "::1", "<broadcast>"):
                with pytest.raises(error.InvalidAddressError):
                    port.connect(host, 9)
            with udpSocket() as sock:
                port.write(b"unconnected", sock.getsockname())
                assert sock.recv(100) == b"unconnected"
                port.connect(*sock.getsockname())
                port.write(b"connected")
                port.write(b"connected", sock.getsockname())
                assert [sock.recv(100), sock.recv(100)] == [b"connected", b"connected"]
                with pytest.raises(error.InvalidAddressError):
                    port.write(b"elsewhere", ("127.0.0.1", 9))
                with pytest.raises(RuntimeError):
                    port.connect(*sock.getsockname())
            await port.stopListening()

        run(test)

    def test_dial(self, run: Run) -> None:
        """L{dial} opens a port that hears its peer only, from the local address that was asked for."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            with udpSocket() as peer:
                port = dial(reactor, protocol, DatagramAddress(peer.getsockname()), ("127.0.0.3", 0))
                assert port.getHost().host == "127.0.0.3"
                port.write(b"hello")
                datagram, sender = peer.recvfrom(100)
                assert (datagram, sender) == (b"hello", address(port))
                with udpSocket() as stranger:
                    stranger.connect(address(port))
                    stranger.send(b"from a stranger")
                    with pytest.raises(ConnectionRefusedError):
                        stranger.recv(100)
                peer.sendto(b"from the peer", sender)
                await protocol.count(1)
                assert protocol.datagrams == [(b"from the peer", peer.getsockname())]
            await port.stopListening()

        run(test)

    def test_dialFails(self, runOnce: Run) -> None:
        """Where the system refuses an address, L{dial} says so and leaves no socket."""

        async def test(reactor: Any) -> None:
            with pytest.raises(OSError, match="Permission"):
                dial(reactor, Recorder(), DatagramAddress(("255.255.255.255", 9)))
            with udpSocket() as taken, pytest.raises(error.CannotListenError):
                dial(reactor, Recorder(), DatagramAddress(("127.0.0.1", 9)), taken.getsockname())

        runOnce(test)


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
        """L{DatagramPort.drain} reads on until the queue is empty, and says so; or gives up in time."""

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
