"""Tests of L{udpecho.testing.memory_port}: binding and delivery, alike on sockets and in memory."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet import error

from tests.support.guards import needsIPv6
from tests.support.memory import Play, addressOf, close, open_, share
from tests.support.running import CuriousRecorder, Recorder, sleep
from udpecho.addresses import DatagramAddress
from udpecho.net.open import listen


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
        """Port 0 is a free one, never the same twice at once, and C{getHost} has it with the address."""

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
        """A wildcard port that is connected has the one address that reaches the peer: C{getHost} has it, and the others are
        free again.
        """

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor, "0.0.0.0")
            peer, _ = open_(reactor)
            port.connect(*addressOf(peer))
            assert port.getHost().host == "127.0.0.1"
            second, passed = open_(reactor, "127.0.0.2", port.getHost().port)
            peer.write(b"to another address", addressOf(second))
            peer.write(b"to it", addressOf(port))
            await protocol.count(1)
            await passed.count(1)
            assert protocol.datagrams == [(b"to it", addressOf(peer))]
            assert passed.datagrams == [(b"to another address", addressOf(peer))]
            await close(port, peer, second)

        play(test)


class DeliveryTests:
    """On sockets and in memory: what arrives where."""

    @pytest.mark.parametrize(
        ("host", "longest"), [("127.0.0.1", 65507), ("127.0.0.2", 65507), pytest.param("::1", 65527, marks=needsIPv6)]
    )
    def test_whole(self, play: Play, host: str, longest: int) -> None:
        """Datagrams of all sizes arrive whole, in their order, with the sender's address; oversized ones are refused."""

        async def test(reactor: Any) -> None:
            port, _ = open_(reactor, host)
            peer, recorder = open_(reactor, host)
            sizes = [0, 1, 64, 1472, 1473, 8192, 8193, longest, 0]
            for number, size in enumerate(sizes, 1):
                port.write(bytes([number]) * size, addressOf(peer))
                await recorder.count(number)
            assert recorder.datagrams == [(bytes([n]) * size, addressOf(port)) for n, size in enumerate(sizes, 1)]
            source = recorder.datagrams[0][1]
            assert isinstance(source, DatagramAddress)
            assert (source.localHost, source.unicast) == (host, True)
            with pytest.raises(error.MessageLengthError):
                port.write(b"x" * (longest + 1), addressOf(peer))
            assert port.dropped == {"send_failed": 1}
            outcomes: list[str | None] = []
            port.send(b"x" * (longest + 1), addressOf(peer), outcomes.append)
            port.send(b"x", addressOf(peer), outcomes.append)
            assert outcomes == ["send_failed", None]
            port.writeSequence([b"made ", b"of", b" parts"], addressOf(peer))
            await recorder.until(lambda: recorder.datagrams[-1] == (b"made of parts", addressOf(port)))
            await close(port, peer)

        play(test)

    def test_truncated(self, play: Play) -> None:
        """A datagram that exceeds the port's maximum is dropped, counted and reported; others are delivered."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor, maxPacketSize=100)
            peer, _ = open_(reactor)
            for size in (100, 101, 65507, 0, 99):
                peer.write(b"x" * size, addressOf(port))
            await protocol.count(3)
            assert [len(datagram) for datagram, _ in protocol.datagrams] == [100, 0, 99]
            assert port.dropped == {"truncated": 2}
            assert [reason for reason, _ in protocol.drops] == ["truncated", "truncated"]
            # The size of an oversized datagram may be unknown.
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
        """A name, or an address of the other family, is refused by C{write} and by C{connect}, and the port
        works afterwards.
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
        """Port 0 cannot be sent to, which raises and is counted; what is no port number raises."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor)
            with pytest.raises(OSError) as caught:  # noqa: PT011
                port.write(b"x", ("127.0.0.1", 0))
            assert caught.value.errno == errno.EINVAL
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
        """A port that may not broadcast does not, which raises and is counted, or is only counted where that is wanted."""

        async def test(reactor: Any) -> None:
            port, _ = open_(reactor, "0.0.0.0")
            assert not port.getBroadcastAllowed()
            for host in ("<broadcast>", "255.255.255.255"):
                with pytest.raises(PermissionError):
                    port.write(b"x", (host, 9))
            assert port.dropped == {"send_failed": 2}
            await close(port)
            quiet: Any = listen(reactor, 0, Recorder(), "0.0.0.0", writeRaises=False)
            quiet.write(b"x", ("<broadcast>", 9))
            assert quiet.dropped == {"send_failed": 1}
            await close(quiet)

        play(test)

    @pytest.mark.parametrize(
        ("interface", "destination", "bound"),
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
    def test_replySource(self, play: Play, interface: str, destination: str, bound: str) -> None:
        """On a wildcard, of both families too, a reply leaves from the address that the request was sent to,
        so that a connected client gets it.
        """

        async def test(reactor: Any) -> None:
            port, recorder = open_(reactor, interface)
            other, protocol = open_(reactor, bound)
            other.connect(destination, port.getHost().port)
            other.write(b"question")
            await recorder.count(1)
            source = recorder.datagrams[0][1]
            mapped = "::ffff:" if ":" in interface and destination != "::1" else ""
            assert source.localHost == mapped + destination.removeprefix("::ffff:")
            assert source.host == ("::1" if destination == "::1" else f"{mapped}127.0.0.1")
            port.write(b"answer", source)
            await protocol.count(1)
            assert protocol.datagrams == [(b"answer", (destination, port.getHost().port))]
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
        """A port on C{::} receives IPv4 too, has such addresses as IPv4-mapped, and writes to them."""

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
        """A port on C{::} may be connected to an IPv4 peer, which it exchanges datagrams with, however its address is spelt."""

        async def test(reactor: Any) -> None:
            peer, recorder = open_(reactor)
            port, protocol = open_(reactor, "::")
            number = port.getHost().port
            port.connect(spelling, peer.getHost().port)
            assert port.getHost().host == "::ffff:127.0.0.1"
            port.write(b"hello")
            port.write(b"hello again", (spelling, peer.getHost().port))
            await recorder.count(2)
            assert recorder.datagrams[0] == (b"hello", ("127.0.0.1", number))
            peer.write(b"welcome", ("127.0.0.1", number))
            await protocol.count(1)
            assert protocol.datagrams == [(b"welcome", ("::ffff:127.0.0.1", peer.getHost().port))]
            await close(peer, port)

        play(test)

    @needsIPv6
    def test_mappedPortToIPv6(self, play: Play) -> None:
        """A port on an IPv4-mapped address cannot write to IPv6, nor connect to it."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor, "::ffff:127.0.0.1")
            with pytest.raises(OSError):  # noqa: PT011
                port.write(b"x", ("::1", 9))
            assert port.dropped == {"send_failed": 1}
            with pytest.raises(OSError):  # noqa: PT011
                port.connect("::1", 9)
            port.write(b"to myself", addressOf(port))
            await protocol.count(1)
            await close(port)

        play(test)

    def test_mostSpecific(self, play: Play) -> None:
        """Of ports that share a number, the one on the very address receives a datagram, before one on the wildcard."""

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
        """Of two ports on one address, the one connected to the sender receives its datagrams, the other those of others."""

        async def test(reactor: Any) -> None:
            peer, _ = open_(reactor)
            other, _ = open_(reactor)
            loose, onLoose = share(reactor, "127.0.0.1")
            number = loose.getHost().port
            connected, onConnected = share(reactor, "127.0.0.1", number)
            connected.connect(*addressOf(peer))
            peer.write(b"from the peer", ("127.0.0.1", number))
            other.write(b"from another", ("127.0.0.1", number))
            await onConnected.count(1)
            await onLoose.count(1)
            assert onConnected.datagrams == [(b"from the peer", addressOf(peer))]
            assert onLoose.datagrams == [(b"from another", addressOf(other))]
            await close(peer, other, loose, connected)

        play(test)

    def test_connected(self, play: Play) -> None:
        """A connected port receives from its peer only, writes to it without an address or with that one, and to no other."""

        async def test(reactor: Any) -> None:
            peer, recorder = open_(reactor)
            samePort, _ = open_(reactor, "127.0.0.2", peer.getHost().port)
            port, protocol = open_(reactor)
            port.connect(*addressOf(peer))
            samePort.write(b"from another", addressOf(port))
            peer.write(b"from the peer", addressOf(port))
            await protocol.count(1)
            assert protocol.datagrams == [(b"from the peer", addressOf(peer))]
            port.write(b"one")
            port.write(b"two", addressOf(peer))
            await recorder.count(2)
            with pytest.raises(error.InvalidAddressError):
                port.write(b"three", addressOf(samePort))
            with pytest.raises(RuntimeError):
                port.connect(*addressOf(samePort))
            assert [datagram for datagram, _ in recorder.datagrams] == [b"one", b"two"]
            await close(peer, samePort, port)

        play(test)

    def test_strangerBeforeConnecting(self, play: Play) -> None:
        """What another host sent before the port was connected, and has not been read yet, is not delivered after."""

        async def test(reactor: Any) -> None:
            peer, _ = open_(reactor)
            other, _ = open_(reactor)
            port, protocol = open_(reactor)
            other.write(b"from another", addressOf(port))
            port.connect(*addressOf(peer))
            peer.write(b"from the peer", addressOf(port))
            await protocol.count(1)
            await sleep(reactor, 0.01)
            assert protocol.datagrams == [(b"from the peer", addressOf(peer))]
            await close(peer, other, port)

        play(test)

    def test_groups(self, play: Play) -> None:
        """What is sent to a group is received by all ports of its number when one of the machine's has joined, but by none that
        is bound to an address of the machine, and by none when it has left. It cannot be joined twice, nor left twice.
        """
        group = "239.255.7.7"

        async def test(reactor: Any) -> None:
            joined, onJoined = share(reactor, "0.0.0.0")
            number = joined.getHost().port
            second, onSecond = share(reactor, "0.0.0.0", number)
            exact, onExact = share(reactor, "127.0.0.1", number)
            sender, _ = share(reactor, "127.0.0.1")
            await sender.setOutgoingInterface("127.0.0.1")
            await joined.joinGroup(group, "127.0.0.1")
            for again in (joined.joinGroup(group, "127.0.0.1"), joined.leaveGroup("239.255.7.8", "127.0.0.1")):
                with pytest.raises(error.MulticastJoinError):
                    await again
            sender.write(b"hello", (group, number))
            await onJoined.count(1)
            await onSecond.count(1)
            await joined.leaveGroup(group, "127.0.0.1")
            with pytest.raises(error.MulticastJoinError):
                await joined.leaveGroup(group, "127.0.0.1")
            sender.write(b"hello again", (group, number))
            sender.write(b"to the machine", ("127.0.0.1", number))
            await onExact.count(1)
            await sleep(reactor, 0.01)
            for protocol in (onJoined, onSecond):
                assert protocol.datagrams == [(b"hello", addressOf(sender))]
            assert onExact.datagrams == [(b"to the machine", addressOf(sender))]
            await close(joined, second, exact, sender)

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
