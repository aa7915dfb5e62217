"""Tests of L{udpecho.net.peer_reader}: batches on connected sockets, in memory that several have."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from tests.support.guards import needsBatches
from tests.support.ports import inOneTurn
from tests.support.proxy import until
from tests.support.running import Run, udpSocket
from udpecho.addresses import DatagramAddress
from udpecho.interfaces import IBatchReceiver, IDatagramBatch
from udpecho.net.open import dial
from udpecho.net.options import PortOptions
from udpecho.net.peer_memory import PeerMemory
from udpecho.net.peer_reader import PeerReader
from udpecho.net.port import DatagramPort

pytestmark = needsBatches


@implementer(IBatchReceiver)
class Receiver(DatagramProtocol):
    """Keeps the payloads of batches, and of datagrams that come alone, and answers the batches.

    @ivar before: called before each batch is read.
    @ivar splits: whether batches are to come one by one instead.
    """

    noisy = False

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.alone: list[bytes] = []
        self.outcomes: list[Any] = []
        self.before: Callable[[], object] = lambda: None
        self.splits = False

    def datagramsReceived(self, batch: IDatagramBatch) -> None:
        if self.splits:
            batch.split()
            return
        self.before()
        self.batches.append([payload for entry in range(batch.entries) for payload in batch.payloads(entry)])
        batch.send(lambda *outcome: self.outcomes.append(outcome))

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.alone.append(datagram)


def connected(reactor: Any, memory: PeerMemory | None, peer: socket.socket, **options: Any) -> tuple[Receiver, DatagramPort]:
    """A port that is connected to a socket."""
    receiver = Receiver()
    address = DatagramAddress(peer.getsockname())
    port = dial(reactor, receiver, address, options=PortOptions(memory=memory), **options)
    inOneTurn(port)
    return receiver, port


class PeerReaderTests:
    """L{PeerReader}."""

    def test_shared(self, run: Run) -> None:
        """Ports with one memory get their own batches, and send them back, in order."""

        async def test(reactor: Any) -> None:
            memory = PeerMemory()
            with udpSocket() as one, udpSocket() as other:
                cases = [(peer, *connected(reactor, memory, peer)) for peer in (one, other)]
                for number, (peer, _, port) in enumerate(cases):
                    for count in range(10):
                        peer.sendto(b"%d %d" % (number, count) * (count + 1), ("127.0.0.1", port.getHost().port))
                for number, (peer, receiver, port) in enumerate(cases):
                    sent = [b"%d %d" % (number, count) * (count + 1) for count in range(10)]
                    await until(reactor, lambda: receiver.outcomes != [], "it must answer")  # noqa: B023
                    assert receiver.batches == [sent]
                    assert receiver.outcomes == [(None, 10, sum(map(len, sent)))]
                    assert [peer.recv(100) for _ in sent] == sent
                    port.abort()

        run(test)

    def test_nested(self, run: Run) -> None:
        """A batch that is being handled stays what it is when another port receives meanwhile."""

        async def test(reactor: Any) -> None:
            memory = PeerMemory()
            with udpSocket() as one, udpSocket() as other:
                (first, firstPort), (second, secondPort) = (connected(reactor, memory, peer) for peer in (one, other))
                first.before = secondPort.doRead
                other.sendto(b"second", ("127.0.0.1", secondPort.getHost().port))
                one.sendto(b"first", ("127.0.0.1", firstPort.getHost().port))
                firstPort.doRead()
                assert (first.batches, second.batches) == ([[b"first"]], [[b"second"]])
                assert (one.recv(9), other.recv(9)) == (b"first", b"second")
                firstPort.abort()
                secondPort.abort()

        run(test)

    @pytest.mark.parametrize("splits", [False, True])
    def test_others(self, run: Run, splits: bool) -> None:
        """What came from others, before the socket was connected, is dropped and counted."""

        async def test(reactor: Any) -> None:
            with udpSocket() as peer, udpSocket() as stranger:

                def disturb(sock: socket.socket) -> None:
                    sock.bind(("127.0.0.1", 0))
                    stranger.sendto(b"forged", sock.getsockname())
                    peer.sendto(b"hello", sock.getsockname())

                receiver, port = connected(reactor, PeerMemory(), peer, configure=disturb)
                receiver.splits = splits
                await until(reactor, lambda: bool(receiver.alone or receiver.batches), "the peer's must arrive")
                assert receiver.alone == ([b"hello"] if splits else [])
                assert sorted(receiver.outcomes, key=str) == ([] if splits else [("not_allowed", 1, 6), (None, 1, 5)])
                assert port.dropped == {"not_allowed": 1}
                port.abort()

        run(test)

    def test_without(self, run: Run) -> None:
        """Without memory for them datagrams come one by one."""

        async def test(reactor: Any) -> None:
            with udpSocket() as peer:
                receiver, port = connected(reactor, None, peer)
                assert not isinstance(port._reader, PeerReader)
                peer.sendto(b"hello", ("127.0.0.1", port.getHost().port))
                await until(reactor, lambda: receiver.alone == [b"hello"], "it must arrive")
                assert receiver.batches == []
                port.abort()

        run(test)
