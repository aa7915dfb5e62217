"""Tests that what ports and hosts in memory know of addresses is what holds now."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import error

from tests.support.memory import open_, pair, share
from udpecho.addresses import DatagramAddress
from udpecho.testing import memory_paths
from udpecho.testing.memory_network import MemoryNetwork


class PathTests:
    """What changes between two datagrams of one flow counts for the second."""

    def received(self, network: MemoryNetwork, *recorders: Any) -> list[list[bytes]]:
        network.advance(0)
        found = [[datagram for datagram, _ in recorder.datagrams] for recorder in recorders]
        for recorder in recorders:
            recorder.datagrams.clear()
        return found

    def test_receivers(self) -> None:
        """A port that is bound, connected or closed takes over, or no longer has, what another one received."""
        network = MemoryNetwork()
        here, there = pair(network)
        sender, _ = open_(here, "10.0.0.1", 5000)
        wide, onWide = share(there, "0.0.0.0", 7)
        sender.write(b"1", ("10.0.0.2", 7))
        assert self.received(network, onWide) == [[b"1"]]
        narrow, onNarrow = share(there, "10.0.0.2", 7)
        sender.write(b"2", ("10.0.0.2", 7))
        assert self.received(network, onWide, onNarrow) == [[], [b"2"]]
        wide.connect("10.0.0.1", 5000)
        sender.write(b"3", ("10.0.0.2", 7))
        assert self.received(network, onWide, onNarrow) == [[b"3"], []]
        wide.abort()
        sender.write(b"4", ("10.0.0.2", 7))
        assert self.received(network, onNarrow) == [[b"4"]]
        narrow.abort()
        sender.write(b"5", ("10.0.0.2", 7))
        network.advance(0)
        assert network.trace[-1].outcome == "refused"

    def test_groups(self) -> None:
        """So does one that joins a group or leaves it."""
        network = MemoryNetwork()
        here, there = pair(network)
        sender, _ = open_(here, "10.0.0.1", 5000)
        port, recorder = share(there, "0.0.0.0", 7)
        found = []
        for change in (lambda _: None, port.joinGroup, port.leaveGroup):
            change("224.0.0.9")
            sender.write(b"hello", ("224.0.0.9", 7))
            found += self.received(network, recorder)
        assert found == [[], [b"hello"], []]

    def test_sender(self) -> None:
        """A port that may not broadcast any more, that is connected, or closed, does not send as before."""
        network = MemoryNetwork()
        here, there = pair(network)
        _, recorder = open_(there, "0.0.0.0", 7)
        port, _ = open_(here, "0.0.0.0")
        port.setBroadcastAllowed(True)
        port.write(b"1", ("<broadcast>", 7))
        assert self.received(network, recorder) == [[b"1"]]
        port.setBroadcastAllowed(False)
        with pytest.raises(PermissionError):
            port.write(b"2", ("<broadcast>", 7))
        port.write(b"3", ["10.0.0.2", 7])
        port.write(b"other", ("10.0.0.2", 8))
        port.connect("10.0.0.2", 7)
        with pytest.raises(error.InvalidAddressError):
            port.write(b"4", ("10.0.0.2", 8))
        port.write(b"5", None)
        port.write(b"6", ("10.0.0.2", 7))
        with pytest.raises(error.MessageLengthError):
            port.write(bytes(65508), None)
        assert self.received(network, recorder) == [[b"3", b"5", b"6"]]
        port.abort()
        port.write(b"7", None)
        assert self.received(network, recorder) == [[]]
        assert port.dropped == {"send_failed": 3}

    def test_source(self) -> None:
        """Two answers to one address leave from the addresses that were asked, each with its own hop limit."""
        network = MemoryNetwork()
        here, there = network.host("one", "10.0.0.1"), network.host("two", "10.0.0.2", "10.0.0.3")
        asking, _ = open_(here, "10.0.0.1", 5000)
        port, recorder = open_(there, "0.0.0.0", 7, decrementHopLimit=True)
        asked = ["10.0.0.2", "10.0.0.3", "10.0.0.2"]
        for hops, address in enumerate(asked, 10):
            asking.hopLimit = hops
            asking.write(b"hello", (address, 7))
        network.advance(0)
        addresses: list[DatagramAddress] = [address for _, address in recorder.datagrams]
        assert [(address.localHost, address.hopLimit) for address in addresses] == list(zip(asked, (10, 11, 12), strict=True))
        for received in addresses:
            port.write(b"hello", received)
        port.write(b"hello", tuple(addresses[1]))
        assert [entry.source[0] for entry in network.trace[3:]] == [*asked, "10.0.0.2"]

    def test_moved(self) -> None:
        """A host whose first address changes sends from the new one."""
        network = MemoryNetwork()
        here, there = pair(network)
        port, recorder = open_(here, "0.0.0.0", 5000)
        other, _ = open_(there, "0.0.0.0", 7)
        for address in ("10.0.0.1", "10.0.0.9"):
            here.setAddresses(address)
            port.write(b"hello", ("10.0.0.2", 7))
            other.write(b"hello", (address, 5000))
            network.advance(0)
        assert [entry.source[0] for entry in network.trace] == ["10.0.0.1", "10.0.0.2", "10.0.0.9", "10.0.0.2"]
        assert len(recorder.datagrams) == 2

    def test_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A flood from many addresses, and to them, does not make what is known grow."""
        monkeypatch.setattr(memory_paths, "MAX_KNOWN", 10)
        network = MemoryNetwork()
        here, there = pair(network)
        port, recorder = open_(there, "0.0.0.0", 7)
        for number in range(1, 101):
            source, _ = open_(here, "10.0.0.1", number)
            source.write(b"hello", ("10.0.0.2", 7))
            port.write(b"hello", ("10.0.0.1", number))
        network.advance(0)
        assert len(recorder.datagrams) == 100
        for known in (port._paths, there._matching, here._matching):
            assert 1 <= len(known) <= 10
