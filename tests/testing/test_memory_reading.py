"""What programs use of Twisted's own UDP port beyond its interfaces, on one in memory and on the real one."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater

from tests.support.memory import Play
from tests.support.running import CuriousRecorder
from udpecho import MemoryNetwork

_names = (
    "addressFamily",
    "connected",
    "disconnected",
    "disconnecting",
    "interface",
    "listenMultiple",
    "logstr",
    "maxPacketSize",
    "maxThroughput",
    "port",
    "socketType",
)


class ReadingTests:
    """Beside the real port."""

    def test_attributes(self, play: Play) -> None:
        """They have the values of the real port, open and closed."""

        async def test(reactor: Any) -> None:
            port = reactor.listenMulticast(0, DatagramProtocol(), "127.0.0.1", 1000, listenMultiple=True)
            assert port.reactor is reactor
            expected = [2, True, False, False, "127.0.0.1", True, "DatagramProtocol (UDP)", 1000, 262144, 0, 2]
            assert [getattr(port, name) for name in _names] == expected
            assert port.logPrefix() == "DatagramProtocol (UDP)"
            await port.stopListening()
            assert (bool(port.connected), bool(port.disconnected)) == (False, True)

        play(test)

    def test_pauses(self, play: Play) -> None:
        """What arrives at a port that does not read waits, in its order."""

        async def test(reactor: Any) -> None:
            recorder = CuriousRecorder()
            port = reactor.listenUDP(0, recorder, "127.0.0.1")
            sender = reactor.listenUDP(0, DatagramProtocol(), "127.0.0.1")
            port.pauseProducing()
            for number in range(3):
                sender.write(b"%d" % number, ("127.0.0.1", port.getHost().port))
            await deferLater(reactor, 0.05)
            assert not recorder.datagrams
            port.resumeProducing()
            while len(recorder.datagrams) < 3:
                await deferLater(reactor, 0.01)
            assert [datagram for datagram, _ in recorder.datagrams] == [b"0", b"1", b"2"]
            await sender.stopListening()
            await port.stopListening()

        play(test)

    def test_protocol(self, play: Play) -> None:
        """A protocol that is set on an open port gets what comes from then on."""

        async def test(reactor: Any) -> None:
            first, second = CuriousRecorder(), CuriousRecorder()
            port = reactor.listenUDP(0, first, "127.0.0.1")
            sender = reactor.listenUDP(0, DatagramProtocol(), "127.0.0.1")
            second.makeConnection(port)
            for recorder in (first, second):
                port.protocol = recorder
                sender.write(b"hello", ("127.0.0.1", port.getHost().port))
                while not recorder.datagrams:
                    await deferLater(reactor, 0.01)
            assert len(first.datagrams) == len(second.datagrams) == 1
            await sender.stopListening()
            await port.stopListening()

        play(test)


class BufferTests:
    """The receive buffer of a port in memory."""

    def test_bounded(self) -> None:
        """What does not fit is lost, and counted as the kernel does. A protocol may pause again meanwhile."""
        network = MemoryNetwork()
        host = network.host("one", "10.0.0.1")

        class OneByOne(CuriousRecorder):
            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                super().datagramReceived(datagram, addr)
                port.stopReading()

        recorder = OneByOne()
        port = host.listenUDP(7, recorder, "10.0.0.1", 65535)
        sender = host.listenUDP(0, DatagramProtocol(), "10.0.0.1")
        port.stopReading()
        for _ in range(10):
            sender.write(bytes(50_000), ("10.0.0.1", 7))
        network.advance(0)
        assert port.getKernelDrops() == 6
        for taken in (1, 2, 3):
            port.startReading()
            network.advance(0)
            assert len(recorder.datagrams) == taken
        sender.write(b"last", ("10.0.0.1", 7))
        network.advance(0)
        for _ in range(2):
            port.startReading()
            network.advance(0)
        assert [len(datagram) for datagram, _ in recorder.datagrams] == [50_000] * 4 + [4]


def testEmptyDatagramsDoNotWaitWithoutEnd() -> None:
    """A port that does not read loses empty datagrams, too, when too many wait."""
    network = MemoryNetwork()
    near, far = network.host("near", "10.0.0.1"), network.host("far", "10.0.0.2")
    paused, sender = near.listenUDP(7, DatagramProtocol()), far.listenUDP(0, DatagramProtocol())
    paused.stopReading()
    for _ in range(2000):
        sender.write(b"", ("10.0.0.1", 7))
    network.advance(0)
    assert paused.getKernelDrops() > 0
