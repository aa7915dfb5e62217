"""Tests of L{udpecho.net.endpoints}, and of connecting, on real sockets and each kind of reactor."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet import error

from tests.support.guards import needsIPv6, onlyLinux
from tests.support.hosts import until
from tests.support.ports import address, open_, path, script  # noqa: F401
from tests.support.running import DetailedRecorder, Recorder, Run, sleep, udpSocket
from udpecho.addresses import DatagramAddress
from udpecho.net.open import dial


class SourceAddressTests:
    """The reply leaves from the address the request was sent to."""

    @onlyLinux
    @pytest.mark.parametrize(
        ("interface", "target", "options"),
        [
            ("0.0.0.0", "127.0.0.2", {}),
            ("", "127.0.0.3", {}),
            pytest.param("::", "::1", {"ipv6Only": True}, marks=needsIPv6),
            pytest.param("::", "127.0.0.2", {}, marks=needsIPv6),
        ],
    )
    def test_wildcard(self, run: Run, interface: str, target: str, options: dict[str, Any]) -> None:
        """On a wildcard bind a connected client receives the reply, at once or written later to the address object."""

        async def test(reactor: Any) -> None:
            protocol = DetailedRecorder()
            port = open_(reactor, protocol, interface, **options)
            with udpSocket("::1" if ":" in target else "127.0.0.1") as sock:
                sock.connect((target, port.getHost().port))
                sock.send(b"who are you?")
                await protocol.count(1)
                sender = protocol.datagrams[0][1]
                own = sock.getsockname()[1]
                assert isinstance(sender, DatagramAddress)
                mapped = interface == "::" and ":" not in target
                host = sock.getsockname()[0]
                assert tuple(sender) == (f"::ffff:{host}" if mapped else host, own)
                assert sender.localHost == (f"::ffff:{target}" if mapped else target)
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
            protocol = DetailedRecorder()
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
                protocol = DetailedRecorder()
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


class ConnectTests:
    """L{DatagramPort.connect} and L{dial}."""

    def test_queuedBeforeConnect(self, run: Run) -> None:
        """What a other sent before the port was connected is not delivered; what the peer sent is."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol)
            with udpSocket() as peer, udpSocket() as other, udpSocket("127.0.0.2", peer.getsockname()[1]) as alike:
                for sock in (other, peer, alike):
                    sock.sendto(b"before", address(port))
                port.connect(*peer.getsockname())
                peer.sendto(b"after", address(port))
                await protocol.count(2)
                await until(reactor, lambda: port.dropped["not_allowed"] == 2, "the others are dropped")
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
                port.connect("127.255.255.255", 9)
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
        """L{dial} opens a port that receives from its peer only, from the local address that was requested."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            with udpSocket() as peer:
                port = dial(reactor, protocol, DatagramAddress(peer.getsockname()), ("127.0.0.3", 0))
                assert port.getHost().host == "127.0.0.3"
                port.write(b"hello")
                datagram, sender = peer.recvfrom(100)
                assert (datagram, sender) == (b"hello", address(port))
                with udpSocket() as other:
                    other.connect(address(port))
                    other.send(b"from a other")
                    with pytest.raises(ConnectionRefusedError):
                        other.recv(100)
                peer.sendto(b"from the peer", sender)
                await protocol.count(1)
                assert protocol.datagrams == [(b"from the peer", peer.getsockname())]
            await port.stopListening()

        run(test)

    def test_dialFails(self, runOnce: Run) -> None:
        """Where the system refuses an address, L{dial} raises and leaves no socket."""

        async def test(reactor: Any) -> None:
            with pytest.raises(OSError, match="Permission"):
                dial(reactor, Recorder(), DatagramAddress(("127.255.255.255", 9)))
            with udpSocket() as taken, pytest.raises(error.CannotListenError):
                dial(reactor, Recorder(), DatagramAddress(("127.0.0.1", 9)), taken.getsockname())

        runOnce(test)
