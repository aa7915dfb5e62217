"""Tests of L{udpecho.net.reply_batch}: what a protocol writes while a batch is handed to it, on real sockets."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from twisted.internet.protocol import DatagramProtocol

from tests.support.guards import needsBatches, needsIPv6
from tests.support.hosts import until
from tests.support.ports import inOneTurn, open_, script
from tests.support.running import Run, udpSocket
from udpecho.net.port import DatagramPort

BURST = [b"%d" % number for number in range(100)]
Address = tuple[str, int]


class Reacting(DatagramProtocol):
    """Calls a function with each datagram and its source."""

    noisy = False
    transport: DatagramPort

    def __init__(self, react: Callable[[DatagramPort, bytes, Address], object]) -> None:
        self.react = react
        self.received: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        self.received.append(datagram)
        self.react(self.transport, datagram, addr)


class Watch:
    """How many datagrams each C{sendmmsg} of a port has sent."""

    def __init__(self, port: Any) -> None:
        self.counts: list[int] = []
        self._real = calls = port._reader.calls
        port._reader.calls = calls._replace(sendmmsg=self._send)

    def _send(self, descriptor: int, address: int, count: int, flags: int) -> int:
        self.counts.append(count)
        sent: int = self._real.sendmmsg(descriptor, address, count, flags)
        return sent


@contextmanager
def asking(port: DatagramPort, host: str = "127.0.0.2") -> Iterator[socket.socket]:
    """A socket to which the port has written before, so that the system is known to take what goes there."""
    with udpSocket("::1" if ":" in host else "127.0.0.1") as sock:
        sock.settimeout(0)
        ask(sock, port, [b"before"], host)
        port.doRead()
        assert sock.recvfrom(100)[0] == b"before"
        yield sock


def ask(sock: socket.socket, port: DatagramPort, datagrams: list[bytes], host: str = "127.0.0.2") -> None:
    for datagram in datagrams:
        sock.sendto(datagram, (host, port.getHost().port))


def queued(sock: socket.socket) -> list[tuple[bytes, str]]:
    """What has come to a socket, each with the address that it is from."""
    found = []
    with suppress(BlockingIOError):
        while True:
            datagram, source = sock.recvfrom(70000)
            found.append((datagram, source[0]))
    return found


def echo(port: DatagramPort, datagram: bytes, addr: Address) -> None:
    port.write(datagram, addr)


@needsBatches
class ReplyBatchTests:
    """The replies to a batch."""

    @pytest.mark.parametrize(
        ("interface", "host"),
        [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.2"), pytest.param("::1", "::1", marks=needsIPv6)],
    )
    @pytest.mark.parametrize("hops", [False, True])
    def test_together(self, runOnce: Run, interface: str, host: str, hops: bool) -> None:
        """They are sent with one call each batch, in order, from the address that was asked."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Reacting(echo), interface, decrementHopLimit=hops)
            inOneTurn(port)
            watch = Watch(port)
            with asking(port, host) as sock:
                ask(sock, port, BURST, host)
                await until(reactor, lambda: sum(watch.counts) == len(BURST), "all are sent")
                assert queued(sock) == [(datagram, host) for datagram in BURST]
                assert len(watch.counts) == 2
            await port.stopListening()

        runOnce(test)

    def test_order(self, runOnce: Run) -> None:
        """What must go alone does not overtake what was written before it: long datagrams, others' addresses, C{send}."""
        outcomes: list[str | None] = []

        def react(port: DatagramPort, datagram: bytes, addr: Address) -> None:
            port.write(datagram, addr)
            port.write(bytes(5000), addr)
            port.write(bytes(1473), addr)
            port.send(b"sent", addr, outcomes.append)
            port.writeSequence([b"par", b"ts"], addr)

        async def test(reactor: Any) -> None:
            port = open_(reactor, Reacting(echo), "0.0.0.0")
            with asking(port) as sock:
                protocol: Any = port.protocol
                protocol.react = react
                ask(sock, port, BURST[:5])
                await until(reactor, lambda: len(outcomes) == 5, "all are sent")
                found = [datagram for datagram, _ in queued(sock)]
                expected = [[each, bytes(5000), bytes(1473), b"sent", b"parts"] for each in BURST[:5]]
                assert found == [datagram for datagrams in expected for datagram in datagrams]
                assert outcomes == [None] * 5
            await port.stopListening()

        runOnce(test)

    def test_raises(self, runOnce: Run, caught: Any) -> None:
        """What C{write} raises outside of a batch, it raises inside of one, at once."""
        raised: list[int | None] = []

        def react(port: DatagramPort, datagram: bytes, addr: Address) -> None:
            port.write(datagram, addr)
            for host, number in (("127.0.0.1", 0), ("<broadcast>", 9)):
                try:
                    port.write(b"x", (host, number))
                except OSError as e:
                    raised.append(e.errno)
            raise ValueError(datagram)

        async def test(reactor: Any) -> None:
            protocol = Reacting(echo)
            port = open_(reactor, protocol)
            with asking(port, "127.0.0.1") as sock:
                protocol.react = react
                ask(sock, port, BURST[:5], "127.0.0.1")
                await until(reactor, lambda: len(raised) == 10, "all have raised")
                # Sent, though the protocol has failed each time.
                assert [datagram for datagram, _ in queued(sock)] == BURST[:5]
                assert raised == [errno.EINVAL, errno.EACCES] * 5
                assert len(caught.flush(ValueError)) == 5
            await port.stopListening()

        runOnce(test)

    def test_newSource(self, runOnce: Run) -> None:
        """The first datagram to a source goes alone: nobody knows yet whether the system takes it."""
        raised: list[int | None] = []

        def react(port: DatagramPort, datagram: bytes, addr: Address) -> None:
            try:
                port.write(datagram, addr)
            except OSError as e:
                raised.append(e.errno)

        async def test(reactor: Any) -> None:
            protocol = Reacting(react)
            port = open_(reactor, protocol)
            with udpSocket() as sock:
                sock.settimeout(0)
                failing = script(port, sends=[errno.EPERM] * 3)
                ask(sock, port, BURST[:5], "127.0.0.1")
                await until(reactor, lambda: len(protocol.received) == 5, "all are received")
                assert (raised, failing.sends) == ([errno.EPERM] * 3, [])
                assert [datagram for datagram, _ in queued(sock)] == BURST[3:5]
            await port.stopListening()

        runOnce(test)

    @pytest.mark.parametrize("how", ["stopListening", "abort", "connect"])
    def test_ends(self, runOnce: Run, how: str) -> None:
        """What was written before the port closes, or connects, is sent."""
        ended: list[object] = []

        def react(port: DatagramPort, datagram: bytes, addr: Address) -> None:
            port.write(datagram, addr)
            if datagram == BURST[4]:
                ended.append(getattr(port, how)(*(addr if how == "connect" else ())))
                port.write(b"after", addr)

        async def test(reactor: Any) -> None:
            protocol = Reacting(echo)
            port = open_(reactor, protocol, "0.0.0.0")
            inOneTurn(port)
            with asking(port) as sock:
                protocol.react = react
                ask(sock, port, BURST[:10])
                await until(reactor, lambda: bool(ended), "it has ended")
                await port.stopListening()
                found = [datagram for datagram, _ in queued(sock)]
                assert found[:5] == BURST[:5]
                last = {"abort": [], "connect": [b"after", *BURST[5:10]]}.get(how, [b"after"])
                assert found[5:] == last

        runOnce(test)

    def test_reactorRuns(self, runOnce: Run) -> None:
        """A program that runs the reactor inside of C{datagramReceived} gets the answer to what it has just written."""
        seen: list[tuple[bytes, str]] = []

        async def test(reactor: Any) -> None:
            protocol = Reacting(echo)
            port = open_(reactor, protocol, "0.0.0.0")

            def react(port: DatagramPort, datagram: bytes, addr: Address) -> None:
                port.write(datagram, addr)
                if datagram == BURST[2]:
                    reactor.iterate(0)
                    seen.extend(queued(sock))

            with asking(port) as sock:
                protocol.react = react
                ask(sock, port, BURST[:5])
                await until(reactor, lambda: len(protocol.received) == 6, "all are received")
                assert [datagram for datagram, _ in seen[:3]] == BURST[:3]
                assert [datagram for datagram, _ in seen + queued(sock)] == BURST[:5]
            await port.stopListening()

        runOnce(test)

    @pytest.mark.parametrize("number", [errno.EAGAIN, errno.EPERM])
    def test_notTaken(self, runOnce: Run, number: int) -> None:
        """What a full send queue does not take waits, in order; what the system rejects after all is counted, and the next one
        of that source raises.
        """

        async def test(reactor: Any) -> None:
            protocol = Reacting(echo)
            port: Any = open_(reactor, protocol)
            with asking(port, "127.0.0.1") as sock:
                inOneTurn(port)
                # The whole batch first, then its first datagram alone.
                failing = script(port, sends=[number, number])
                ask(sock, port, BURST[:5], "127.0.0.1")
                await until(reactor, lambda: len(protocol.received) == 6 and not failing.sends, "all are received")
                await until(reactor, lambda: not port._sender.waiting, "nothing waits")
                rejected = number == errno.EPERM
                assert [datagram for datagram, _ in queued(sock)] == BURST[rejected:5]
                assert port.dropped["send_failed"] == rejected
                assert port._endpoints.sources.find(sock.getsockname()).isTaken
            await port.stopListening()

        runOnce(test)

    def test_alone(self, runOnce: Run) -> None:
        """A reply to a datagram that came alone is on its way when C{write} returns."""
        seen: list[tuple[bytes, str]] = []

        async def test(reactor: Any) -> None:
            protocol = Reacting(echo)
            port = open_(reactor, protocol, "0.0.0.0")

            def react(port: DatagramPort, datagram: bytes, addr: Address) -> None:
                port.write(datagram, addr)
                seen.extend(queued(sock))

            with asking(port) as sock:
                protocol.react = react
                ask(sock, port, [b"alone"])
                await until(reactor, lambda: len(protocol.received) == 2, "it is received")
                assert seen == [(b"alone", "127.0.0.2")]
            await port.stopListening()

        runOnce(test)
