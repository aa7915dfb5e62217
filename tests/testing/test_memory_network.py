"""
Tests of L{udpecho.testing.memory_network}: that it behaves as sockets do, by tests that run on both, and what only it can do.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from twisted.internet import defer, error
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IHostnameResolver,
    IListeningPort,
    IMulticastTransport,
    IReactorMulticast,
    IReactorPluggableNameResolver,
    IReactorTime,
    IReactorUDP,
    IUDPTransport,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import LoopingCall
from twisted.names import client, dns, server
from twisted.python.failure import Failure
from zope.interface import Interface
from zope.interface.verify import verifyClass, verifyObject

from tests.support.running import PATIENCE, CuriousRecorder, Recorder, Run, hasIPv6, sleep
from udpecho.addresses import DatagramAddress
from udpecho.client.connect import connect, echo
from udpecho.client.protocol import EchoClient
from udpecho.errors import MessageTooLong, NetworkUnreachable, PortUnreachable, ResponseTimeout
from udpecho.faults.decision import Replay
from udpecho.faults.plan import FaultPlan
from udpecho.interfaces import IDatagramTransport
from udpecho.net.linux import sockopt
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer
from udpecho.server.service import EchoService
from udpecho.testing.clock import NetworkClock
from udpecho.testing.memory_network import MemoryHost, MemoryNetwork, TraceEntry
from udpecho.testing.memory_port import MemoryPort

_T = TypeVar("_T")
Play = Callable[..., Any]

needsIPv6 = pytest.mark.skipif(not hasIPv6(), reason="this machine has no ::1")


def wait(network: MemoryNetwork, work: Deferred[_T], patience: float = PATIENCE) -> _T:
    """
    Let time pass on a network until a Deferred fires.

    @return: what it fired with; what it failed with is raised.
    """
    outcome: list[Any] = []
    work.addBoth(outcome.append)
    end = network.clock.seconds() + patience
    while not outcome:
        assert network.clock.seconds() < end, f"nothing came in {patience} s:\n{network.trace}"
        network.advance(0.01)
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]  # type: ignore[no-any-return]


class Virtual:
    """Runs a coroutine function on a host in memory, as L{Run} does on a reactor with sockets."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.reactor = self.network.host("machine")

    def __call__(self, function: Callable[..., Coroutine[Any, Any, _T]], *arguments: Any) -> _T:
        result = wait(self.network, Deferred.fromCoroutine(function(self.reactor, *arguments)))
        assert not self.reactor.getDelayedCalls()
        assert not self.reactor._byNumber
        return result


@pytest.fixture(params=["sockets", pytest.param("memory")])
def play(request: pytest.FixtureRequest) -> Iterator[Play]:
    """A machine, real and in memory in turn: C{play(function)} runs a coroutine function there with its reactor."""
    if request.param == "memory":
        yield Virtual()
        return
    if not sockopt.available:
        pytest.skip("a network in memory behaves as Linux's")
    runner = Run("epoll")
    yield runner
    runner.close()


def addressOf(port: Any) -> tuple[str, int]:
    bound = port.getHost()
    return bound.host, bound.port


def open_(
    reactor: Any, interface: str = "127.0.0.1", number: int = 0, protocol: DatagramProtocol | None = None, **options: Any
) -> tuple[Any, Any]:
    """
    Listen, with our own port or the one in memory.

    @return: the port and its protocol.
    """
    protocol = CuriousRecorder() if protocol is None else protocol
    return listen(reactor, number, protocol, interface, **options), protocol


def share(reactor: Any, interface: str, number: int = 0) -> tuple[Any, Any]:
    """Listen beside others on the same number."""
    protocol = CuriousRecorder()
    return reactor.listenMulticast(number, protocol, interface, 65535, True), protocol


async def close(*ports: Any) -> None:
    await gatherResults([maybeDeferred(port.stopListening) for port in ports])


async def unused(reactor: Any, interface: str = "127.0.0.1") -> int:
    """A number on which nothing listens."""
    port, _ = open_(reactor, interface)
    number: int = port.getHost().port
    await close(port)
    return number


class BindTests:
    """On sockets and in memory: which addresses can be listened on."""

    @pytest.mark.parametrize(
        ("interface", "bound"),
        [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.2", "127.0.0.2"),
            ("127.255.0.9", "127.255.0.9"),
            ("0.0.0.0", "0.0.0.0"),
            ("", "0.0.0.0"),
            pytest.param("::1", "::1", marks=needsIPv6),
            pytest.param("0:0:0:0:0:0:0:1", "::1", marks=needsIPv6),
            pytest.param("::", "::", marks=needsIPv6),
            pytest.param("::ffff:127.0.0.1", "::ffff:127.0.0.1", marks=needsIPv6),
            pytest.param("::ffff:7f00:1", "::ffff:127.0.0.1", marks=needsIPv6),
            pytest.param("::ffff:0.0.0.0", "::ffff:0.0.0.0", marks=needsIPv6),
        ],
    )
    def test_ephemeral(self, play: Play, interface: str, bound: str) -> None:
        """Port 0 is a free one, never the same twice at once, and C{getHost} tells it with the address."""

        async def test(reactor: Any) -> None:
            ports = [open_(reactor, interface)[0] for _ in range(5)]
            numbers = {port.getHost().port for port in ports}
            assert len(numbers) == 5
            assert all(1024 <= number <= 65535 for number in numbers)
            assert {port.getHost().host for port in ports} == {bound}
            assert {port.getHost().type for port in ports} == {"UDP"}
            await close(*ports)

        play(test)

    @pytest.mark.parametrize(
        ("first", "second", "clash"),
        [
            ("127.0.0.1", "127.0.0.1", True),
            ("127.0.0.1", "127.0.0.2", False),
            ("127.0.0.1", "0.0.0.0", True),
            ("0.0.0.0", "127.0.0.1", True),
            ("0.0.0.0", "0.0.0.0", True),
            pytest.param("127.0.0.1", "::1", False, marks=needsIPv6),
            pytest.param("::1", "::1", True, marks=needsIPv6),
            pytest.param("0.0.0.0", "::1", False, marks=needsIPv6),
            pytest.param("0.0.0.0", "::", True, marks=needsIPv6),
            pytest.param("::", "0.0.0.0", True, marks=needsIPv6),
            pytest.param("::", "127.0.0.1", True, marks=needsIPv6),
            pytest.param("127.0.0.2", "::", True, marks=needsIPv6),
            pytest.param("::", "::1", True, marks=needsIPv6),
            pytest.param("::1", "::", True, marks=needsIPv6),
            pytest.param("::ffff:127.0.0.1", "127.0.0.1", True, marks=needsIPv6),
            pytest.param("::ffff:127.0.0.1", "127.0.0.2", False, marks=needsIPv6),
            pytest.param("::ffff:127.0.0.1", "0.0.0.0", True, marks=needsIPv6),
            pytest.param("::ffff:127.0.0.1", "::1", False, marks=needsIPv6),
            pytest.param("::ffff:0.0.0.0", "127.0.0.1", True, marks=needsIPv6),
            pytest.param("::ffff:0.0.0.0", "::1", False, marks=needsIPv6),
            pytest.param("::ffff:0.0.0.0", "::", True, marks=needsIPv6),
        ],
    )
    def test_inUse(self, play: Play, first: str, second: str, clash: bool) -> None:
        """A number that is taken on an overlapping address is refused, and free again when the other port has stopped."""

        async def test(reactor: Any) -> None:
            one, _ = open_(reactor, first)
            number = one.getHost().port
            if clash:
                with pytest.raises(error.CannotListenError) as caught:
                    open_(reactor, second, number)
                assert caught.value.socketError.errno == errno.EADDRINUSE
                await close(one)
                one, _ = open_(reactor, second, number)
                await close(one)
            else:
                other, _ = open_(reactor, second, number)
                assert other.getHost().port == number
                await close(one, other)

        play(test)

    @pytest.mark.parametrize("interface", ["192.0.2.1", pytest.param("2001:db8::1", marks=needsIPv6)])
    def test_notLocal(self, play: Play, interface: str) -> None:
        """An address of another machine cannot be listened on."""

        async def test(reactor: Any) -> None:
            with pytest.raises(error.CannotListenError) as caught:
                open_(reactor, interface)
            assert caught.value.socketError.errno == errno.EADDRNOTAVAIL

        play(test)

    @pytest.mark.parametrize("interface", ["localhost", "example.org", "127.0.0", "1.2.3.4.5", ":::"])
    def test_notAnAddress(self, play: Play, interface: str) -> None:
        """A name, or what is no address, is refused as such."""

        async def test(reactor: Any) -> None:
            with pytest.raises(error.InvalidAddressError):
                open_(reactor, interface)

        play(test)

    def test_number(self, play: Play) -> None:
        """What is not a port number is refused."""

        async def test(reactor: Any) -> None:
            for number in (-1, 65536):
                with pytest.raises(ValueError, match="port must be 0 to 65535"):
                    open_(reactor, number=number)

        play(test)

    def test_narrowedByConnecting(self, play: Play) -> None:
        """
        A wildcard port that is connected has the one address that reaches the peer: C{getHost} tells it, and the others are
        free again.
        """

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor, "0.0.0.0")
            peer, _ = open_(reactor)
            port.connect(*addressOf(peer))
            assert port.getHost().host == "127.0.0.1"
            beside, passed = open_(reactor, "127.0.0.2", port.getHost().port)
            peer.write(b"to another address", addressOf(beside))
            peer.write(b"to it", addressOf(port))
            await protocol.count(1)
            await passed.count(1)
            assert protocol.datagrams == [(b"to it", addressOf(peer))]
            assert passed.datagrams == [(b"to another address", addressOf(peer))]
            await close(port, peer, beside)

        play(test)


class DeliveryTests:
    """On sockets and in memory: what arrives where."""

    @pytest.mark.parametrize(
        ("host", "longest"), [("127.0.0.1", 65507), ("127.0.0.2", 65507), pytest.param("::1", 65527, marks=needsIPv6)]
    )
    def test_whole(self, play: Play, host: str, longest: int) -> None:
        """Datagrams of all sizes arrive whole, in their order, with the sender's address; longer ones are refused."""

        async def test(reactor: Any) -> None:
            port, _ = open_(reactor, host)
            peer, heard = open_(reactor, host)
            sizes = [0, 1, 64, 1472, 1473, 8192, 8193, longest, 0]
            for number, size in enumerate(sizes, 1):
                port.write(bytes([number]) * size, addressOf(peer))
                await heard.count(number)
            assert heard.datagrams == [(bytes([n]) * size, addressOf(port)) for n, size in enumerate(sizes, 1)]
            source = heard.datagrams[0][1]
            assert isinstance(source, DatagramAddress)
            assert (source.localHost, source.unicast) == (host, True)
            with pytest.raises(error.MessageLengthError):
                port.write(b"x" * (longest + 1), addressOf(peer))
            assert port.dropped == {"send_failed": 1}
            settled: list[str | None] = []
            port.send(b"x" * (longest + 1), addressOf(peer), settled.append)
            port.send(b"x", addressOf(peer), settled.append)
            assert settled == ["send_failed", None]
            port.writeSequence([b"made ", b"of", b" parts"], addressOf(peer))
            await heard.until(lambda: heard.datagrams[-1] == (b"made of parts", addressOf(port)))
            await close(port, peer)

        play(test)

    def test_truncated(self, play: Play) -> None:
        """What is longer than the port takes is dropped, counted and told of; what is not is delivered."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor, maxPacketSize=100)
            peer, _ = open_(reactor)
            for size in (100, 101, 65507, 0, 99):
                peer.write(b"x" * size, addressOf(port))
            await protocol.count(3)
            assert [len(datagram) for datagram, _ in protocol.datagrams] == [100, 0, 99]
            assert port.dropped == {"truncated": 2}
            assert [reason for reason, _ in protocol.drops] == ["truncated", "truncated"]
            # Of a longer one the rest may not have been looked at.
            assert all(size > 100 for _, size in protocol.drops)
            await close(port, peer)

        play(test)

    def test_notBytes(self, play: Play) -> None:
        """A string is refused; a buffer is sent as it is at that moment."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor)
            with pytest.raises(TypeError):
                port.write("text", addressOf(port))
            with pytest.raises(TypeError):
                port.write(5, addressOf(port))
            buffer = bytearray(b"before")
            port.write(buffer, addressOf(port))
            buffer[:] = b"after"
            port.write(memoryview(b"a view"), addressOf(port))
            await protocol.count(2)
            assert [datagram for datagram, _ in protocol.datagrams] == [b"before", b"a view"]
            assert all(type(datagram) is bytes for datagram, _ in protocol.datagrams)
            await close(port)

        play(test)

    @pytest.mark.parametrize(
        ("own", "host"),
        [
            ("127.0.0.1", "localhost"),
            ("127.0.0.1", "::1"),
            ("127.0.0.1", "::ffff:127.0.0.1"),
            pytest.param("::1", "127.0.0.1", marks=needsIPv6),
            pytest.param("::1", "localhost", marks=needsIPv6),
            pytest.param("::1", "<broadcast>", marks=needsIPv6),
        ],
    )
    def test_wrongAddress(self, play: Play, own: str, host: str) -> None:
        """
        A name, or an address of the other family, is refused by C{write} and by C{connect}, and the port works afterwards.
        """

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor, own)
            with pytest.raises(error.InvalidAddressError):
                port.write(b"x", (host, 9))
            with pytest.raises(error.InvalidAddressError):
                port.connect(host, 9)
            with pytest.raises(error.InvalidAddressError):
                port.write(b"to nobody")
            assert not port.dropped
            port.write(b"to myself", addressOf(port))
            await protocol.count(1)
            await close(port)

        play(test)

    def test_wrongPort(self, play: Play) -> None:
        """Port 0 cannot be sent to, which is counted; what is no port number raises."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor)
            port.write(b"x", ("127.0.0.1", 0))
            assert port.dropped == {"send_failed": 1}
            for number in (65536, -1):
                with pytest.raises(OverflowError):
                    port.write(b"x", ("127.0.0.1", number))
                with pytest.raises(OverflowError):
                    port.connect("127.0.0.1", number)
            port.write(b"to myself", addressOf(port))
            await protocol.count(1)
            await close(port)

        play(test)

    def test_broadcastNotAllowed(self, play: Play) -> None:
        """A port that may not broadcast does not, and counts the datagram."""

        async def test(reactor: Any) -> None:
            port, _ = open_(reactor, "0.0.0.0")
            assert not port.getBroadcastAllowed()
            port.write(b"x", ("<broadcast>", 9))
            port.write(b"x", ("255.255.255.255", 9))
            assert port.dropped == {"send_failed": 2}
            await close(port)

        play(test)

    @pytest.mark.parametrize(
        ("interface", "asked", "asking"),
        [
            ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.2", "127.0.0.1"),
            ("", "127.0.0.3", "0.0.0.0"),
            pytest.param("::", "::1", "::1", marks=needsIPv6),
            pytest.param("::", "127.0.0.2", "127.0.0.1", marks=needsIPv6),
            pytest.param("::", "127.0.0.2", "0.0.0.0", marks=needsIPv6),
            pytest.param("::", "::ffff:127.0.0.2", "::", marks=needsIPv6),
            pytest.param("::ffff:0.0.0.0", "127.0.0.2", "127.0.0.1", marks=needsIPv6),
            pytest.param("::ffff:127.0.0.2", "127.0.0.2", "127.0.0.1", marks=needsIPv6),
        ],
    )
    def test_replyFromTheAskedAddress(self, play: Play, interface: str, asked: str, asking: str) -> None:
        """
        On a wildcard, of both families too, a reply leaves from the address that was asked, so that a connected client hears
        it.
        """

        async def test(reactor: Any) -> None:
            port, heard = open_(reactor, interface)
            other, protocol = open_(reactor, asking)
            other.connect(asked, port.getHost().port)
            other.write(b"question")
            await heard.count(1)
            source = heard.datagrams[0][1]
            mapped = "::ffff:" if ":" in interface and asked != "::1" else ""
            assert source.localHost == mapped + asked.removeprefix("::ffff:")
            assert source.host == ("::1" if asked == "::1" else f"{mapped}127.0.0.1")
            port.write(b"answer", source)
            await protocol.count(1)
            assert protocol.datagrams == [(b"answer", (asked, port.getHost().port))]
            await close(port, other)

        play(test)

    @pytest.mark.parametrize(
        ("own", "unspecified", "reached"),
        [
            ("0.0.0.0", "0.0.0.0", "127.0.0.1"),
            ("127.0.0.2", "0.0.0.0", "127.0.0.2"),
            pytest.param("::", "::", "::1", marks=needsIPv6),
            pytest.param("::1", "::", "::1", marks=needsIPv6),
        ],
    )
    def test_toTheUnspecifiedAddress(self, play: Play, own: str, unspecified: str, reached: str) -> None:
        """What is sent to C{0.0.0.0} or C{::}, as C{getHost} of a wildcard port has it, reaches this machine."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor, own)
            port.write(b"x", (unspecified, port.getHost().port))
            await protocol.count(1)
            assert protocol.datagrams == [(b"x", (reached, port.getHost().port))]
            assert protocol.datagrams[0][1].localHost == reached
            other, _ = open_(reactor, own)
            other.connect(unspecified, port.getHost().port)
            other.write(b"y")
            await protocol.count(2)
            assert protocol.datagrams[1] == (b"y", addressOf(other))
            await close(port, other)

        play(test)

    @needsIPv6
    def test_bothFamilies(self, play: Play) -> None:
        """A port on C{::} hears IPv4 too, sees such addresses as IPv4-mapped, and writes to them."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor, "::")
            number = port.getHost().port
            four, heardByFour = open_(reactor)
            six, heardBySix = open_(reactor, "::1")
            four.write(b"four", ("127.0.0.1", number))
            six.write(b"six", ("::1", number))
            await protocol.count(2)
            mapped = (f"::ffff:{four.getHost().host}", four.getHost().port)
            assert protocol.datagrams == [(b"four", mapped), (b"six", addressOf(six))]
            port.write(b"x" * 65507, mapped)
            with pytest.raises(error.MessageLengthError):
                port.write(b"x" * 65508, mapped)
            port.write(b"y" * 65527, addressOf(six))
            await heardByFour.count(1)
            await heardBySix.count(1)
            assert heardByFour.datagrams == [(b"x" * 65507, ("127.0.0.1", number))]
            assert heardBySix.datagrams == [(b"y" * 65527, ("::1", number))]
            await close(port, four, six)

        play(test)

    @needsIPv6
    @pytest.mark.parametrize("spelling", ["::ffff:127.0.0.1", "::ffff:7f00:1", "::FFFF:127.0.0.1"])
    def test_mappedPeer(self, play: Play, spelling: str) -> None:
        """A port on C{::} may be connected to an IPv4 peer, which it hears and writes to however its address is spelt."""

        async def test(reactor: Any) -> None:
            peer, heard = open_(reactor)
            port, protocol = open_(reactor, "::")
            number = port.getHost().port
            port.connect(spelling, peer.getHost().port)
            assert port.getHost().host == "::ffff:127.0.0.1"
            port.write(b"hello")
            port.write(b"hello again", (spelling, peer.getHost().port))
            await heard.count(2)
            assert heard.datagrams[0] == (b"hello", ("127.0.0.1", number))
            peer.write(b"welcome", ("127.0.0.1", number))
            await protocol.count(1)
            assert protocol.datagrams == [(b"welcome", ("::ffff:127.0.0.1", peer.getHost().port))]
            await close(peer, port)

        play(test)

    @needsIPv6
    def test_mappedPortToIPv6(self, play: Play) -> None:
        """A port on an IPv4-mapped address cannot write to IPv6, which it counts, nor connect to it."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor, "::ffff:127.0.0.1")
            port.write(b"x", ("::1", 9))
            assert port.dropped == {"send_failed": 1}
            with pytest.raises(OSError):  # noqa: PT011
                port.connect("::1", 9)
            port.write(b"to myself", addressOf(port))
            await protocol.count(1)
            await close(port)

        play(test)

    def test_mostSpecific(self, play: Play) -> None:
        """Of ports that share a number, the one on the very address hears a datagram, before one on the wildcard."""

        async def test(reactor: Any) -> None:
            wild, onWild = share(reactor, "0.0.0.0")
            number = wild.getHost().port
            exact, onExact = share(reactor, "127.0.0.2", number)
            sender, _ = open_(reactor)
            sender.write(b"exact", ("127.0.0.2", number))
            sender.write(b"wild", ("127.0.0.3", number))
            await onExact.count(1)
            await onWild.count(1)
            assert onExact.datagrams == [(b"exact", addressOf(sender))]
            assert onWild.datagrams == [(b"wild", addressOf(sender))]
            await close(wild, exact, sender)

        play(test)

    def test_connectedFirst(self, play: Play) -> None:
        """Of two ports on one address, the one that is connected to the sender hears it; others are heard by the other."""

        async def test(reactor: Any) -> None:
            peer, _ = open_(reactor)
            stranger, _ = open_(reactor)
            loose, onLoose = share(reactor, "127.0.0.1")
            number = loose.getHost().port
            connected, onConnected = share(reactor, "127.0.0.1", number)
            connected.connect(*addressOf(peer))
            peer.write(b"from the peer", ("127.0.0.1", number))
            stranger.write(b"from a stranger", ("127.0.0.1", number))
            await onConnected.count(1)
            await onLoose.count(1)
            assert onConnected.datagrams == [(b"from the peer", addressOf(peer))]
            assert onLoose.datagrams == [(b"from a stranger", addressOf(stranger))]
            await close(peer, stranger, loose, connected)

        play(test)

    def test_connected(self, play: Play) -> None:
        """A connected port hears its peer only, writes to it without an address or with that one, and to no other."""

        async def test(reactor: Any) -> None:
            peer, heard = open_(reactor)
            samePort, _ = open_(reactor, "127.0.0.2", peer.getHost().port)
            port, protocol = open_(reactor)
            port.connect(*addressOf(peer))
            samePort.write(b"from a stranger", addressOf(port))
            peer.write(b"from the peer", addressOf(port))
            await protocol.count(1)
            assert protocol.datagrams == [(b"from the peer", addressOf(peer))]
            port.write(b"one")
            port.write(b"two", addressOf(peer))
            await heard.count(2)
            with pytest.raises(error.InvalidAddressError):
                port.write(b"three", addressOf(samePort))
            with pytest.raises(RuntimeError):
                port.connect(*addressOf(samePort))
            assert [datagram for datagram, _ in heard.datagrams] == [b"one", b"two"]
            await close(peer, samePort, port)

        play(test)

    def test_strangerBeforeConnecting(self, play: Play) -> None:
        """What a stranger sent before the port was connected, and has not been read yet, is not delivered after."""

        async def test(reactor: Any) -> None:
            peer, _ = open_(reactor)
            stranger, _ = open_(reactor)
            port, protocol = open_(reactor)
            stranger.write(b"from a stranger", addressOf(port))
            port.connect(*addressOf(peer))
            peer.write(b"from the peer", addressOf(port))
            await protocol.count(1)
            await sleep(reactor, 0.01)
            assert protocol.datagrams == [(b"from the peer", addressOf(peer))]
            await close(peer, stranger, port)

        play(test)

    def test_groups(self, play: Play) -> None:
        """
        What is sent to a group is heard by all ports of its number when one of the machine's has joined, but by none that is
        bound to an address of the machine, and by none when it has left. It cannot be joined twice, nor left twice.
        """
        group = "239.255.7.7"

        async def test(reactor: Any) -> None:
            joined, onJoined = share(reactor, "0.0.0.0")
            number = joined.getHost().port
            beside, onBeside = share(reactor, "0.0.0.0", number)
            exact, onExact = share(reactor, "127.0.0.1", number)
            sender, _ = share(reactor, "127.0.0.1")
            await sender.setOutgoingInterface("127.0.0.1")
            await joined.joinGroup(group, "127.0.0.1")
            for again in (joined.joinGroup(group, "127.0.0.1"), joined.leaveGroup("239.255.7.8", "127.0.0.1")):
                with pytest.raises(error.MulticastJoinError):
                    await again
            sender.write(b"hello", (group, number))
            await onJoined.count(1)
            await onBeside.count(1)
            await joined.leaveGroup(group, "127.0.0.1")
            with pytest.raises(error.MulticastJoinError):
                await joined.leaveGroup(group, "127.0.0.1")
            sender.write(b"hello again", (group, number))
            sender.write(b"to the machine", ("127.0.0.1", number))
            await onExact.count(1)
            await sleep(reactor, 0.01)
            for protocol in (onJoined, onBeside):
                assert protocol.datagrams == [(b"hello", addressOf(sender))]
            assert onExact.datagrams == [(b"to the machine", addressOf(sender))]
            await close(joined, beside, exact, sender)

        play(test)

    def test_protocolFails(self, play: Play, caught: Any) -> None:
        """An exception in C{datagramReceived} is logged, and the port goes on."""

        class Protocol(CuriousRecorder):
            def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                super().datagramReceived(datagram, addr)
                if len(self.datagrams) == 1:
                    raise ZeroDivisionError

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor, protocol=Protocol())
            port.write(b"one", addressOf(port))
            port.write(b"two", addressOf(port))
            await protocol.count(2)
            await close(port)

        play(test)
        assert len(caught.flush(ZeroDivisionError)) == 1


class RefusalTests:
    """On sockets and in memory: nothing listens at the peer."""

    @pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needsIPv6)])
    def test_connected(self, play: Play, host: str) -> None:
        """
        C{connectionRefused} is called later, not from C{write}, once for each datagram; the port works when the peer is
        there.
        """

        async def test(reactor: Any) -> None:
            number = await unused(reactor, host)
            port, protocol = open_(reactor, host)
            port.connect(host, number)
            for refusals in (1, 2, 3):
                port.write(b"anybody there?")
                assert protocol.refusals == refusals - 1
                await protocol.until(lambda: protocol.refusals >= refusals)  # noqa: B023
            peer, heard = open_(reactor, host, number)
            port.write(b"hello")
            await heard.count(1)
            peer.write(b"welcome", heard.datagrams[0][1])
            await protocol.count(1)
            assert (protocol.refusals, protocol.errors) == (3, [])
            assert not port.dropped
            await close(port, peer)

        play(test)

    def test_unconnected(self, play: Play) -> None:
        """An unconnected port is not told."""

        async def test(reactor: Any) -> None:
            number = await unused(reactor)
            port, protocol = open_(reactor)
            port.write(b"anybody there?", ("127.0.0.1", number))
            port.write(b"still there", addressOf(port))
            await protocol.count(1)
            await sleep(reactor, 0.01)
            assert (protocol.refusals, protocol.errors) == (0, [])
            await close(port)

        play(test)

    def test_peerConnectedElsewhere(self, play: Play) -> None:
        """A peer that is connected to somebody else refuses, as if it were not there."""

        async def test(reactor: Any) -> None:
            peer, heard = open_(reactor)
            elsewhere, _ = open_(reactor)
            peer.connect(*addressOf(elsewhere))
            port, protocol = open_(reactor)
            port.connect(*addressOf(peer))
            port.write(b"anybody there?")
            await protocol.until(lambda: protocol.refusals == 1)
            assert not heard.datagrams
            await close(peer, elsewhere, port)

        play(test)

    def test_closeOnBeingRefused(self, play: Play) -> None:
        """A port may be aborted in C{connectionRefused}, and is not told of what else was refused."""

        class Protocol(CuriousRecorder):
            def connectionRefused(self) -> None:
                transport: Any = self.transport
                transport.abort()
                super().connectionRefused()

        async def test(reactor: Any) -> None:
            number = await unused(reactor)
            port, protocol = open_(reactor, protocol=Protocol())
            port.connect("127.0.0.1", number)
            port.write(b"one")
            port.write(b"two")
            await protocol.until(lambda: protocol.refusals == 1)
            await sleep(reactor, 0.01)
            assert (protocol.refusals, protocol.stops) == (1, 1)

        play(test)

    def test_protocolFails(self, play: Play, caught: Any) -> None:
        """An exception in C{connectionRefused} is logged, and the port goes on."""

        class Protocol(CuriousRecorder):
            def connectionRefused(self) -> None:
                super().connectionRefused()
                raise ZeroDivisionError

        async def test(reactor: Any) -> None:
            number = await unused(reactor)
            port, protocol = open_(reactor, protocol=Protocol())
            port.connect("127.0.0.1", number)
            for refusals in (1, 2):
                port.write(b"anybody there?")
                await protocol.until(lambda: protocol.refusals >= refusals)  # noqa: B023
            await close(port)

        play(test)
        assert len(caught.flush(ZeroDivisionError)) == 2


class StopTests:
    """On sockets and in memory: the end."""

    def test_twice(self, play: Play) -> None:
        """C{stopListening} may be called twice, and later again; each Deferred fires, and the protocol is stopped once."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor)
            first, second = port.stopListening(), port.stopListening()
            assert protocol.stops == 0
            assert (await first, await second) == (None, None)
            assert await port.stopListening() is None
            assert protocol.stops == 1
            assert protocol.transport is None

        play(test)

    def test_nothingAfterStopping(self, play: Play) -> None:
        """Once C{stopListening} was called no datagram is delivered, those that had been sent already included."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor)
            sender, _ = open_(reactor)
            sender.write(b"on its way", addressOf(port))
            stopped = port.stopListening()
            sender.write(b"too late", addressOf(port))
            await stopped
            await sleep(reactor, 0.01)
            assert protocol.datagrams == []
            await close(sender)

        play(test)

    def test_refusedAfterStopping(self, play: Play) -> None:
        """A port that has stopped is refused to whoever writes to it."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor)
            sender, refused = open_(reactor)
            sender.connect(*addressOf(port))
            sender.write(b"hello")
            await protocol.count(1)
            await close(port)
            sender.write(b"hello?")
            await refused.until(lambda: refused.refusals == 1)
            await close(sender)

        play(test)

    def test_writeAfterStopping(self, play: Play) -> None:
        """What is written to a port that has stopped is counted as failed, and settled so."""

        async def test(reactor: Any) -> None:
            port, _ = open_(reactor)
            await close(port)
            settled: list[str | None] = []
            port.write(b"x", ("127.0.0.1", 9))
            port.send(b"x", ("127.0.0.1", 9), settled.append)
            assert settled == ["send_failed"]
            assert port.dropped == {"send_failed": 2}

        play(test)

    def test_abort(self, play: Play) -> None:
        """
        C{abort} stops at once: the number is free when it returns. It may be called twice, and in C{datagramReceived}, after
        which no more datagrams come.
        """

        class Protocol(CuriousRecorder):
            def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                transport: Any = self.transport
                transport.abort()
                transport.abort()
                super().datagramReceived(datagram, addr)

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor, protocol=Protocol())
            address = addressOf(port)
            for payload in (b"one", b"two"):
                port.write(payload, address)
            await protocol.count(1)
            again, _ = open_(reactor, number=address[1])
            await sleep(reactor, 0.01)
            assert [datagram for datagram, _ in protocol.datagrams] == [b"one"]
            assert protocol.stops == 1
            await close(again)

        play(test)

    def test_abortWhileStopping(self, play: Play) -> None:
        """C{abort} after C{stopListening} does what is left to do at once, and leaves nothing for later."""

        async def test(reactor: Any) -> None:
            before = len(reactor.getDelayedCalls())
            port, protocol = open_(reactor)
            stopped = port.stopListening()
            port.abort()
            assert stopped.called
            assert len(reactor.getDelayedCalls()) == before
            await sleep(reactor, 0.01)
            assert protocol.stops == 1

        play(test)

    def test_stopInTheLastDatagram(self, play: Play) -> None:
        """C{stopListening} in C{datagramReceived} ends the delivery of those that wait behind."""

        class Protocol(CuriousRecorder):
            def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                transport: Any = self.transport
                transport.stopListening()
                super().datagramReceived(datagram, addr)

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor, protocol=Protocol())
            for payload in (b"one", b"two", b"three"):
                port.write(payload, addressOf(port))
            await protocol.count(1)
            await port.stopListening()
            await sleep(reactor, 0.01)
            assert [datagram for datagram, _ in protocol.datagrams] == [b"one"]

        play(test)


def pair(network: MemoryNetwork) -> tuple[MemoryHost, MemoryHost]:
    """Two hosts, of both families."""
    return network.host("one", "10.0.0.1", "fd00::1"), network.host("two", "10.0.0.2", "fd00::2")


class InterfaceTests:
    """In memory only: what hosts and ports provide."""

    @pytest.mark.parametrize("interface", [IReactorUDP, IReactorTime, IReactorPluggableNameResolver, IReactorMulticast])
    def test_host(self, interface: type[Interface]) -> None:
        """A host provides the interfaces of a reactor that has to do with UDP."""
        assert verifyClass(interface, MemoryHost)
        assert verifyObject(interface, MemoryNetwork().host("one"))

    @pytest.mark.parametrize("interface", [IListeningPort, IUDPTransport, IDatagramTransport, IMulticastTransport])
    def test_port(self, interface: type[Interface]) -> None:
        """A port provides Twisted's interfaces of UDP ports and transports, and ours."""
        assert verifyClass(interface, MemoryPort)
        assert verifyObject(interface, MemoryNetwork().host("one").listenUDP(0, Recorder()))

    def test_resolver(self) -> None:
        """A host's resolver provides C{IHostnameResolver}, and another can be installed."""
        host = MemoryNetwork().host("one")
        resolver = host.nameResolver
        assert verifyObject(IHostnameResolver, resolver)
        other: Any = object()
        assert host.installNameResolver(other) is resolver
        assert host.nameResolver is other

    def test_number(self) -> None:
        """C{listenUDP} refuses what is no port number, as a socket does."""
        host = MemoryNetwork().host("one")
        for number in (-1, 65536):
            with pytest.raises(OverflowError):
                host.listenUDP(number, Recorder())


class ClockTests:
    """The time of a network."""

    def test_order(self) -> None:
        """
        Calls are made at the time they were asked for, in its order, those for one time in the order of asking, and those
        they make in turn in the same step.
        """
        clock = NetworkClock()
        made: list[tuple[float, str]] = []

        def note(what: str) -> None:
            made.append((clock.seconds(), what))

        def again() -> None:
            note("again")
            clock.callLater(1, note, "in turn")
            clock.callLater(0, note, "at once")
            clock.callLater(10, note, "beyond the step")

        clock.callLater(3, note, "three")
        clock.callLater(1, again)
        clock.callLater(1, note, "one")
        clock.fly(2, note, "flown")
        clock.callLater(2, note, "two")
        clock.advance(5)
        assert made == [
            (1, "again"),
            (1, "one"),
            (1, "at once"),
            (2, "flown"),
            (2, "two"),
            (2, "in turn"),
            (3, "three"),
        ]
        assert clock.seconds() == 5
        assert [call.getTime() for call in clock.getDelayedCalls()] == [11]
        clock.pump([3, 3])
        assert made[-1] == (11, "beyond the step")
        assert not clock.getDelayedCalls()

    def test_changed(self) -> None:
        """
        Delayed calls can be cancelled, put off, put off again and brought forward, and are made once, at the last time asked.
        """
        clock = NetworkClock()
        made: list[tuple[float, str]] = []

        def note(what: str) -> None:
            made.append((clock.seconds(), what))

        calls = {what: clock.callLater(5, note, what) for what in ("cancelled", "sooner", "later", "delayed", "both")}
        calls["cancelled"].cancel()
        calls["sooner"].reset(2)
        calls["later"].reset(8)
        calls["delayed"].delay(1)
        calls["delayed"].delay(1)
        calls["both"].reset(1)
        calls["both"].delay(8)
        assert len(clock.getDelayedCalls()) == 4
        clock.advance(3)
        assert made == [(2, "sooner")]
        clock.advance(100)
        assert made == [(2, "sooner"), (7, "delayed"), (8, "later"), (9, "both")]
        assert not any(call.active() for call in calls.values())
        with pytest.raises(error.AlreadyCancelled):
            calls["cancelled"].cancel()
        with pytest.raises(error.AlreadyCalled):
            calls["sooner"].cancel()

    def test_cancelledByAnother(self) -> None:
        """A call that is cancelled at its very moment, by the one before it, is not made."""
        clock = NetworkClock()
        made: list[str] = []
        clock.callLater(1, lambda: second.cancel())
        second = clock.callLater(1, made.append, "second")
        clock.advance(1)
        assert made == []

    def test_raises(self) -> None:
        """A call that raises ends the step at its time; what was to come after it comes with the next."""
        clock = NetworkClock()
        made: list[float] = []
        clock.callLater(1, lambda: 1 / 0)
        clock.callLater(2, lambda: made.append(clock.seconds()))
        with pytest.raises(ZeroDivisionError):
            clock.advance(5)
        assert clock.seconds() == 1
        clock.advance(4)
        assert made == [2]
        assert clock.seconds() == 5

    @pytest.mark.parametrize("delay", [-1, float("nan")])
    def test_negative(self, delay: float) -> None:
        """A delay that is none is refused, as Twisted's reactors do."""
        clock = NetworkClock()
        with pytest.raises(AssertionError):
            clock.callLater(delay, int)
        assert not clock.getDelayedCalls()

    def test_loopingCall(self) -> None:
        """A C{LoopingCall} runs on it, at each of its times though the steps are wide."""
        clock = NetworkClock()
        times: list[float] = []
        loop = LoopingCall(lambda: times.append(clock.seconds()))
        loop.clock = clock
        loop.start(1.5)
        clock.advance(6)
        assert times == [0, 1.5, 3, 4.5, 6]
        loop.stop()
        assert not clock.getDelayedCalls()


class HostsTests:
    """In memory only: several hosts."""

    def test_addresses(self) -> None:
        """Names and addresses are unique, and what is no host's address is refused with a sentence."""
        network = MemoryNetwork()
        network.host("one", "10.0.0.1", "FD00:0::1")
        with pytest.raises(ValueError, match="host 'one' already"):
            network.host("one")
        for taken in ("10.0.0.1", "fd00::1", "127.0.0.1", "::1"):
            with pytest.raises(ValueError, match="is taken"):
                network.host("two", taken)
        with pytest.raises(ValueError, match="is taken"):
            network.host("two", "10.0.0.2", "10.0.0.2")
        for wrong in ("0.0.0.0", "::", "239.1.1.1", "ff02::1", "255.255.255.255", "::ffff:10.0.0.9"):
            with pytest.raises(ValueError, match="not the address of one host"):
                network.host("two", wrong)
        for wrong in ("two", "", "10.0.0"):
            with pytest.raises(ValueError, match="not an IP address"):
                network.host("two", wrong)
        assert list(network.hosts) == ["one"]

    def test_latency(self) -> None:
        """A datagram between hosts takes the latency, exactly; one to the host itself takes none; loopback is a host's own."""
        network = MemoryNetwork(latency=0.25)
        one, two = pair(network)
        port, onOne = open_(one, "0.0.0.0", 7)
        _, onTwo = open_(two, "0.0.0.0", 7)
        times: list[float] = []
        onTwo.until(lambda: bool(onTwo.datagrams)).addCallback(lambda _: times.append(network.clock.seconds()))
        port.write(b"x", ("10.0.0.2", 7))
        port.write(b"y", ("10.0.0.1", 7))
        port.write(b"z", ("127.0.0.1", 7))
        network.advance(0)
        assert onOne.datagrams == [(b"y", ("10.0.0.1", 7)), (b"z", ("127.0.0.1", 7))]
        network.advance(1)
        assert times == [0.25]
        assert onTwo.datagrams == [(b"x", ("10.0.0.1", 7))]

    def test_refusalTakesTime(self) -> None:
        """A refusal comes one round trip after the datagram."""
        network = MemoryNetwork(latency=0.25)
        one, _ = pair(network)
        port, protocol = open_(one, "0.0.0.0")
        port.connect("10.0.0.2", 9)
        assert port.getHost().host == "10.0.0.1"
        port.write(b"x")
        network.advance(0.49)
        assert protocol.refusals == 0
        network.advance(0.02)
        assert protocol.refusals == 1
        assert [entry.fate for entry in network.trace] == ["refused"]

    def test_ports(self) -> None:
        """Each host has its own ports, and cannot listen on another's address."""
        network = MemoryNetwork()
        one, two = pair(network)
        for host in (one, two):
            open_(host, "127.0.0.1", 7)
            open_(host, host.addresses[0], 7)
            open_(host, host.addresses[1], 7)
        with pytest.raises(error.CannotListenError) as caught:
            open_(one, "10.0.0.2", 7)
        assert caught.value.socketError.errno == errno.EADDRNOTAVAIL

    def test_noRoute(self) -> None:
        """
        Where no host is, there is no route: connecting fails, after which the port works; a datagram is counted, and a
        connected port is told later.
        """
        network = MemoryNetwork()
        one, _ = pair(network)
        port, protocol = open_(one, "0.0.0.0")
        for host in ("10.0.0.3", "192.0.2.1"):
            with pytest.raises(OSError, match="unreachable") as caught:
                port.connect(host, 9)
            assert caught.value.errno == errno.ENETUNREACH
        port.write(b"x", ("10.0.0.3", 9))
        assert port.dropped == {"send_failed": 1}
        port.connect("10.0.0.2", 9)
        del network._byAddress["10.0.0.2"]
        port.write(b"x")
        assert protocol.errors == []
        network.advance(0)
        assert [type(reason) for reason in protocol.errors] == [NetworkUnreachable]
        with pytest.raises(NetworkUnreachable):
            wait(network, echo(one, "10.0.0.3", 9, b"x"))

    def test_loopbackStaysInside(self) -> None:
        """From a loopback address no other host can be written to, as Linux has it: nobody could answer."""
        network = MemoryNetwork()
        one, two = pair(network)
        open_(two, "0.0.0.0", 7)
        port, _ = open_(one, "127.0.0.1")
        port.write(b"x", ("10.0.0.2", 7))
        assert port.dropped == {"send_failed": 1}
        with pytest.raises(OSError, match="Invalid argument"):
            port.connect("10.0.0.2", 7)
        assert not network.trace

    def test_plans(self) -> None:
        """Each direction has its own plan, links without one that of the network, and a host's loopback can have one."""
        network = MemoryNetwork(FaultPlan(1, delay=0.5))
        one, two = pair(network)
        network.setPlan(one, two, FaultPlan(1, duplicate=1.0))
        network.setPlan(two, two, FaultPlan(1, loss=1.0))
        port, onOne = open_(one, "0.0.0.0", 7)
        other, onTwo = open_(two, "0.0.0.0", 7)
        port.write(b"a", ("10.0.0.2", 7))
        other.write(b"b", ("10.0.0.1", 7))
        other.write(b"c", ("10.0.0.2", 7))
        network.advance(0.4)
        assert onTwo.datagrams == [(b"a", ("10.0.0.1", 7))] * 2
        assert onOne.datagrams == []
        network.advance(0.2)
        assert onOne.datagrams == [(b"b", ("10.0.0.2", 7))]
        assert len(onTwo.datagrams) == 2

    def test_corruption(self) -> None:
        """What a plan does to the bytes is what the receiver sees."""
        network = MemoryNetwork(Replay("corrupted flip=0\ntruncated cut=2 +0.000000000\ncorrupted flip=0 +0.000000000"))
        one, two = pair(network)
        port, _ = open_(one, "0.0.0.0")
        _, heard = open_(two, "0.0.0.0", 7)
        for _ in range(4):
            port.write(b"abc", ("10.0.0.2", 7))
        network.advance(0)
        assert [datagram for datagram, _ in heard.datagrams] == [b"ab", b"`bc", b"abc"]

    def test_broadcast(self) -> None:
        """
        What is broadcast reaches the wildcard ports of every host, the sender's included; nobody is refused, and the
        receivers know that they were not asked alone.
        """
        network = MemoryNetwork()
        hosts = [network.host(name, f"10.0.0.{number}") for number, name in enumerate(("one", "two", "three", "four"), 1)]
        heard = [open_(host, "0.0.0.0", 7)[1] for host in hosts[:3]]
        _, deaf = open_(hosts[3], "10.0.0.4", 7)
        port, _ = open_(hosts[0], "0.0.0.0")
        port.setBroadcastAllowed(True)
        port.write(b"x", ("<broadcast>", 7))
        network.advance(1)
        assert [len(recorder.datagrams) for recorder in heard] == [1, 1, 1]
        assert not heard[1].datagrams[0][1].unicast
        assert not deaf.datagrams
        assert [entry.fate for entry in network.trace] == ["delivered"] * 3 + ["nobody listens"]

    @pytest.mark.parametrize(("interface", "group"), [("0.0.0.0", "239.1.1.1"), ("::", "ff05::7")])
    def test_groups(self, interface: str, group: str) -> None:
        """What is sent to a group is heard on the hosts that have joined, on the sender's as it wishes."""
        network = MemoryNetwork()
        one, two = pair(network)
        three = network.host("three", "10.0.0.3", "fd00::3")
        heard = []
        for host in (one, two, three):
            port = host.listenMulticast(7, recorder := CuriousRecorder(), interface)
            heard.append(recorder)
            if host is not three:
                wait(network, port.joinGroup(group))
        sender = one.listenMulticast(0, CuriousRecorder(), interface)
        sender.write(b"x", (group, 7))
        network.advance(0)
        assert [len(recorder.datagrams) for recorder in heard] == [1, 1, 0]
        assert not heard[1].datagrams[0][1].unicast
        assert sender.getLoopbackMode()
        sender.setLoopbackMode(False)
        sender.write(b"y", (group, 7))
        network.advance(0)
        assert [len(recorder.datagrams) for recorder in heard] == [1, 2, 0]
        for wrong in ("10.0.0.1", "nonsense"):
            with pytest.raises(error.MulticastJoinError):
                wait(network, sender.joinGroup(wrong))

    def test_stopInMidFlight(self) -> None:
        """
        A datagram that is on its way to a port that stops is refused when it arrives; a port that stops before the refusal
        arrives is not told.
        """
        network = MemoryNetwork(latency=1)
        one, two = pair(network)
        port, protocol = open_(one, "0.0.0.0")
        other, heard = open_(two, "0.0.0.0", 7)
        port.connect("10.0.0.2", 7)
        port.write(b"x")
        network.advance(0.5)
        other.abort()
        network.advance(1)
        assert [entry.fate for entry in network.trace] == ["refused"]
        port.abort()
        network.advance(1)
        assert not heard.datagrams
        assert protocol.refusals == 0

    def test_names(self) -> None:
        """Hosts resolve each other's names, C{localhost}, and addresses as they are; others are not known."""
        network = MemoryNetwork(latency=0.01)
        one, two = pair(network)
        EchoService(two, 7, ["0.0.0.0"], logDatagrams=0).startService()
        EchoService(one, 8, ["127.0.0.1"], logDatagrams=0).startService()
        assert wait(network, echo(one, "two", 7, b"hello")) == 5
        assert wait(network, echo(one, "10.0.0.2", 7, b"hello")) == 5
        assert wait(network, echo(one, "localhost", 8, b"hello")) == 5
        with pytest.raises(error.DNSLookupError):
            wait(network, echo(one, "three", 7, b"hello"))
        assert not one.getDelayedCalls()


class TraceTests:
    """The record of what was sent."""

    def test_readable(self) -> None:
        """It prints as aligned lines: time, from, to, size and fate."""
        network = MemoryNetwork(latency=0.125)
        one, two = pair(network)
        network.setPlan(one, two, Replay("delivered +0.000000000\nlost\nduplicated,delayed +0.500000000 +0.750000000"))
        assert str(network.trace) == ""
        port, _ = open_(one, "0.0.0.0", 5000)
        other, _ = open_(two, "0.0.0.0", 7)
        for size in (5, 1000, 64):
            port.write(b"x" * size, ("10.0.0.2", 7))
            assert network.trace[-1].fate in ("on its way", "lost", "duplicated,delayed")
            network.advance(0.1)
        network.advance(9.9)
        other.write(b"", ("10.0.0.1", 50))
        network.advance(1)
        assert str(network.trace).splitlines() == [
            " 0.000000  10.0.0.1:5000 > 10.0.0.2:7      5 B  delivered",
            " 0.100000  10.0.0.1:5000 > 10.0.0.2:7   1000 B  lost",
            " 0.200000  10.0.0.1:5000 > 10.0.0.2:7     64 B  duplicated,delayed: delivered, delivered",
            "10.200000  10.0.0.2:7    > 10.0.0.1:50     0 B  refused",
        ]
        assert network.trace[1] == TraceEntry(0.1, ("10.0.0.1", 5000), ("10.0.0.2", 7), 1000, "lost")

    def test_sameSeedSameTrace(self) -> None:
        """The same seeds and the same program give the identical trace, another seed another."""

        def run(seed: int) -> str:
            network = MemoryNetwork(
                FaultPlan(seed, loss=0.1, duplicate=0.1, reorder=0.1, corrupt=0.1, truncate=0.1, jitter=0.05), latency=0.01
            )
            one, two = pair(network)
            EchoService(two, 7, ["0.0.0.0"], logDatagrams=0).startService()
            echoing = wait(network, connect(one, "two", 7, 0.2))
            for number in range(200):
                echoing.echo(b"%d" % number).addErrback(lambda failure: failure.trap(ResponseTimeout))
                network.advance(0.05)
            return str(network.trace)

        first = run(1)
        assert first == run(1)
        assert first != run(2)
        assert "lost" in first
        assert "corrupted" in first


class OthersCodeTests:
    """Code that was not written for it runs on it, and ours."""

    def test_echo(self) -> None:
        """
        C{EchoServer} and C{EchoClient} run on it in virtual time: the round trip is twice the latency, and a lost datagram
        times out at its time.
        """
        network = MemoryNetwork(latency=0.05)
        one, two = pair(network)
        server = EchoServer()
        two.listenUDP(7, server, maxPacketSize=65535)
        echoing: EchoClient = wait(network, connect(one, "two", 7))
        reply = wait(network, echoing.exchange(b"x" * 65507))
        assert reply.roundTripTime == pytest.approx(0.1, abs=1e-9)
        assert (reply.payload, reply.peer) == (b"x" * 65507, ("10.0.0.2", 7))
        network.setPlan(two, one, FaultPlan(0, loss=1.0))
        started = network.clock.seconds()
        with pytest.raises(ResponseTimeout):
            wait(network, echoing.exchange(b"lost", 3.0))
        assert network.clock.seconds() - started == pytest.approx(3.0, abs=0.02)
        assert (server.counters.received, server.counters.echoed) == (2, 2)
        assert echoing.close().called
        assert not one.getDelayedCalls()

    def test_refused(self) -> None:
        """C{echo} fails with L{PortUnreachable} where nothing listens, after a round trip."""
        network = MemoryNetwork(latency=0.05)
        one, _ = pair(network)
        with pytest.raises(PortUnreachable):
            wait(network, echo(one, "two", 7, b"x"))
        assert network.clock.seconds() < 0.2
        assert not one.getDelayedCalls()

    def test_service(self) -> None:
        """An L{EchoService} starts, answers and stops on a host, leaving nothing."""
        network = MemoryNetwork(latency=0.01)
        one, two = pair(network)
        service = EchoService(two, 0, ["0.0.0.0", "::1"], logDatagrams=0)
        service.startService()
        (number, other) = (address.port for address in service.addresses)
        assert number == other
        assert wait(network, echo(one, "10.0.0.2", number, b"hello")) == 5
        wait(network, service.stopService())
        assert service.counters.echoed == 1
        with pytest.raises(PortUnreachable):
            wait(network, echo(one, "10.0.0.2", number, b"hello"))
        assert not two._byNumber
        assert not two.getDelayedCalls()

    def test_hour(self) -> None:
        """
        An hour of one-second probes through 10 % loss each way: the replies that come are as many as the trace says, and the
        losses are within the binomial's 99.99 %.
        """
        network = MemoryNetwork(FaultPlan(7, loss=0.1), latency=0.02)
        one, two = pair(network)
        EchoService(two, 7, ["0.0.0.0"], logDatagrams=0).startService()
        echoing = wait(network, connect(one, "two", 7, 0.5))
        outcomes: list[bool] = []

        def probe() -> None:
            echoing.exchange(b"%d" % len(outcomes)).addCallbacks(
                lambda _: outcomes.append(True),
                lambda failure: outcomes.append(failure.check(ResponseTimeout) is None),
            )

        loop = LoopingCall(probe)
        loop.clock = one
        loop.start(1.0)
        network.advance(3599.9)
        loop.stop()
        assert len(outcomes) == 3600
        back = [entry for entry in network.trace if entry.source == ("10.0.0.2", 7)]
        assert sum(outcomes) == sum(entry.fate == "delivered" for entry in back)
        # 0.9 * 0.9 = 0.81 of 3600, and 3.89 standard deviations of it.
        assert abs(sum(outcomes) - 2916) <= 3.89 * (3600 * 0.81 * 0.19) ** 0.5

    def dns(self, network: MemoryNetwork) -> client.Resolver:
        """A name server of C{twisted.names} on one host, and a resolver of it on another."""
        asking, answering = pair(network)

        class Authority(client.Resolver):
            def _lookup(self, name: bytes, cls: int, type: int, timeout: Any) -> Any:
                return succeed(([dns.RRHeader(name, dns.A, dns.IN, 60, dns.Record_A("192.0.2.7", 60))], [], []))

        factory = server.DNSServerFactory(clients=[Authority(servers=[("10.0.0.2", 53)], reactor=answering)])
        factory.noisy = False
        protocol = dns.DNSDatagramProtocol(factory, reactor=answering)
        protocol.noisy = False
        answering.listenUDP(53, protocol)
        return client.Resolver(servers=[("10.0.0.2", 53)], reactor=asking)

    def test_names(self) -> None:
        """C{twisted.names} asks and answers over it."""
        network = MemoryNetwork(latency=0.02)
        resolver = self.dns(network)
        answers, _, _ = wait(network, resolver.lookupAddress("example.org"))
        assert answers[0].payload.dottedQuad() == "192.0.2.7"
        question, answer = network.trace
        assert (question.destination, answer.source) == (("10.0.0.2", 53),) * 2
        assert answer.time == pytest.approx(0.02)
        assert [question.fate, answer.fate] == ["delivered", "delivered"]

    def test_namesRetry(self) -> None:
        """
        When the question is lost, and the answer of the next, the trace shows the resolver's retries, after 1 and 3 s as it
        was made to, and it has its answer in the end.
        """
        network = MemoryNetwork(latency=0.02)
        resolver = self.dns(network)
        asking, answering = network.hosts["one"], network.hosts["two"]
        network.setPlan(asking, answering, Replay("lost"))
        network.setPlan(answering, asking, Replay("burst_lost"))
        answers, _, _ = wait(network, resolver.lookupAddress("example.org"))
        assert answers[0].payload.dottedQuad() == "192.0.2.7"
        assert [(round(entry.time, 6), entry.fate) for entry in network.trace] == [
            (0, "lost"),
            (1, "delivered"),
            (1.02, "burst_lost"),
            (4, "delivered"),
            (4.02, "delivered"),
        ]
        network.advance(60)
        assert not asking.getDelayedCalls()

    def test_namesTimeOut(self) -> None:
        """When all is lost, the resolver gives up after its last try, 60 s in virtual time."""
        network = MemoryNetwork(FaultPlan(0, loss=1.0))
        resolver = self.dns(network)
        with pytest.raises(defer.TimeoutError):
            wait(network, resolver.lookupAddress("example.org"), 100)
        assert [round(entry.time, 6) for entry in network.trace] == [0, 1, 4, 15]
        assert network.clock.seconds() == pytest.approx(60, abs=0.1)


class OptionTests:
    """What C{listen} asks of a host in memory, and what a narrow path says."""

    def test_bothFamilies(self) -> None:
        """The service is on all of IPv4 and on all of IPv6, which are two ports of one number."""
        network = MemoryNetwork()
        server = network.host("server", "192.0.2.1", "2001:db8::1")
        client = network.host("client", "192.0.2.2", "2001:db8::2")
        service = EchoService(server, 7, ["0.0.0.0", "::"])
        service.startService()
        counts: list[Any] = []
        for address in ("192.0.2.1", "2001:db8::1"):
            echo(client, address, 7, b"hello").addBoth(counts.append)
        network.advance(1)
        assert counts == [5, 5]
        service.stopService()
        network.advance(1)

    def test_narrowPath(self) -> None:
        """A connected sender is told how much the path carries; a shorter payload that is on its way is not failed."""
        network = MemoryNetwork(FaultPlan(mtu=100), latency=0.01)
        server, client = network.host("server", "192.0.2.1"), network.host("client", "192.0.2.2")
        listen(server, 7, EchoServer(), "192.0.2.1")
        results: list[Any] = []
        connect(client, "192.0.2.1", 7).addCallback(results.append)
        for size in (101, 100):
            results[0].echo(bytes(size)).addBoth(results.append)
        network.advance(1)
        failure, count = results[1:]
        assert isinstance(failure.value, MessageTooLong)
        assert failure.value.limit == 100
        assert count == 100
