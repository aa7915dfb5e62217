"""Tests of L{udpecho.net.network_errors}, on real sockets and each kind of reactor."""

from __future__ import annotations

import errno
import re
import socket
from typing import Any

import pytest
from twisted.internet.defer import gatherResults, maybeDeferred

from tests.support.hosts import until
from tests.support.ports import address, open_, path, script  # noqa: F401
from tests.support.running import CuriousRecorder, Recorder, Run, udpSocket, unusedPort
from udpecho.addresses import DatagramAddress
from udpecho.errors import EchoError, HostUnreachable, MessageTooLong, NetworkUnreachable
from udpecho.net.network_errors import connectFailure
from udpecho.net.open import listen
from udpecho.net.port import DatagramPort


@pytest.mark.parametrize(
    ("host", "scope", "number", "kind", "message"),
    [
        ("192.0.2.1", 0, errno.ENETUNREACH, NetworkUnreachable, "192.0.2.1:7 cannot be reached: Network is unreachable"),
        ("fe80::1", 0, errno.EINVAL, HostUnreachable, "[fe80::1]:7 cannot .* (name its interface, as in fe80::1%eth0)"),
        ("FE80::1", 1, errno.EINVAL, HostUnreachable, "[FE80::1]:7 cannot .*: Invalid argument"),
        ("fd00::1", 0, errno.EINVAL, HostUnreachable, "[fd00::1]:7 cannot .*: Invalid argument"),
    ],
)
def test_connectFailure(host: str, scope: int, number: int, kind: type[EchoError], message: str) -> None:
    """What C{connect(2)} refuses is named, with a hint for a link-local peer without an interface."""
    peer = DatagramAddress((host, 7))
    peer.scopeID = scope
    reason = connectFailure(number, peer)
    assert (type(reason), reason.errno) == (kind, number)
    found = re.sub("%[0-9a-z]+]", "]", str(reason))
    assert re.fullmatch(re.escape(message).replace(r"\.\*", ".*"), found)


class RefusalTests:
    """Connected, and nothing listens at the peer."""

    def test_survives(self, run: Run) -> None:
        """The protocol is notified of each of three refusals, the port lives through them, and works once the peer is there."""

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
        """C{connectionRefused} is not called from inside C{write}, though the system fails the second one, and that
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
                await until(reactor, lambda: not port._sender.waiting, "it is sent")
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
        """A protocol that raises when it is notified does not close the port."""

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
    """What the system reports about a peer, other than that it refuses."""

    @pytest.mark.parametrize(
        ("number", "kind"),
        [
            (errno.EHOSTUNREACH, HostUnreachable),
            (errno.ENETUNREACH, NetworkUnreachable),
            (errno.EACCES, HostUnreachable),
        ],
    )
    def test_kinds(self, runOnce: Run, number: int, kind: type[EchoError]) -> None:
        """A connected protocol is notified, from the reactor, that the host or the network cannot be reached, and the datagram
        is counted.
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
        """A protocol that has no C{networkError} is notified of an unreachable peer by C{connectionRefused}."""

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
        """That the path carries less (ICMP fragmentation needed) is reported with how much it carries."""

        async def test(reactor: Any) -> None:
            protocol = CuriousRecorder()
            port = open_(reactor, protocol)
            port.connect("127.0.0.1", 9)
            port._errors.addError(errno.EMSGSIZE, 1280)
            port._errors.notify()
            (reason,) = protocol.errors
            assert isinstance(reason, MessageTooLong)
            assert reason.limit == 1252
            assert "more than 1252 bytes" in str(reason)
            await port.stopListening()

        runOnce(test)
