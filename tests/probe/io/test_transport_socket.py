"""Tests of L{udpecho.probe.io.transport_socket}, on real sockets."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from tests.support.running import PATIENCE, Run, sleep, udpSocket, unusedPort
from udpecho.addresses import DatagramAddress
from udpecho.errors import PortUnreachable
from udpecho.probe.io.open import openSocket
from udpecho.probe.io.socket import Arrivals, IProbeReceiver, Taken, Undelivered
from udpecho.probe.io.transport_socket import TransportSocket


@implementer(IProbeReceiver)
class Receiver:
    """Keeps what it is called with."""

    def __init__(self) -> None:
        self.arrivals: list[bytes] = []
        self.undelivered: list[Undelivered] = []

    def datagramsArrived(self, arrivals: Arrivals) -> None:
        self.arrivals += map(bytes, arrivals.datagrams)

    def probeUndelivered(self, undelivered: Undelivered) -> None:
        self.undelivered.append(undelivered)


async def until(reactor: Any, kept: list[Any]) -> None:
    """Wait until something is kept."""
    deadline = reactor.seconds() + PATIENCE
    while not kept:
        assert reactor.seconds() < deadline
        await sleep(reactor, 0.001)


class TransportSocketTests:
    """L{TransportSocket}, which L{openSocket} gives without batches."""

    def test_bothWays(self, run: Run) -> None:
        """What is in the slot is sent, and what comes is handed over."""

        async def test(reactor: Any) -> None:
            receiver = Receiver()
            with udpSocket() as far:
                near = openSocket(reactor, DatagramAddress(far.getsockname()), receiver, 100, batches=False)
                assert isinstance(near, TransportSocket)
                near.slot(0, 5)[:] = b"hello"
                assert near.send(1) == Taken(1)
                datagram, client = far.recvfrom(100)
                assert (datagram, client) == (b"hello", tuple(near.source))
                far.sendto(b"reply", client)
                await until(reactor, receiver.arrivals)
                assert receiver.arrivals == [b"reply"]
            near.close()

        run(test)

    def test_refused(self, run: Run) -> None:
        """A refusal is handed over with the address of the peer."""

        async def test(reactor: Any) -> None:
            receiver = Receiver()
            peer = DatagramAddress(("127.0.0.1", unusedPort()))
            near = openSocket(reactor, peer, receiver, 100, batches=False)
            near.slot(0, 1)[:] = b"x"
            near.send(1)
            await until(reactor, receiver.undelivered)
            (undelivered,) = receiver.undelivered
            assert isinstance(undelivered.reason, PortUnreachable)
            assert str(peer) in str(undelivered.reason)
            near.close()

        run(test)
