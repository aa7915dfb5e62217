"""Tests of L{udpecho.testing.lifecycle} and L{udpecho.testing.skew}: hosts that crash, leave, and have wrong clocks."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from zope.interface.verify import verifyObject

from tests.support.memory import open_, pair, wait
from tests.support.running import Recorder
from udpecho.client.connect import echo
from udpecho.errors import NetworkUnreachable, ResponseTimeout
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer
from udpecho.testing.memory_host import MemoryHost
from udpecho.testing.memory_network import MemoryNetwork


class CrashTests:
    """Hosts that lose their power."""

    def test_silence(self) -> None:
        """A host that has crashed neither answers nor refuses; no timer of it runs, and no protocol is notified."""
        network = MemoryNetwork(latency=0.1)
        one, two = pair(network)
        ticks: list[float] = []
        stopped: list[str] = []

        class Server(EchoServer):
            def stopProtocol(self) -> None:
                stopped.append("stopped")

        def start(host: MemoryHost) -> None:
            listen(host, 7, Server(), "0.0.0.0")
            loop = LoopingCall(lambda: ticks.append(network.clock.seconds()))
            loop.clock = host
            loop.start(1)

        two.onStart(start)
        assert wait(network, echo(one, "10.0.0.2", 7, b"hello")) == 5
        network.advance(10)
        two.crash()
        assert not two.getDelayedCalls()
        del ticks[:]
        with pytest.raises(ResponseTimeout):
            wait(network, echo(one, "10.0.0.2", 7, b"hello", timeout=5))
        # A port on which nobody has ever listened.
        with pytest.raises(ResponseTimeout):
            wait(network, echo(one, "10.0.0.2", 8, b"hello", timeout=5))
        assert not ticks
        assert network.trace[-1].outcome == "host down"
        two.restart()
        assert wait(network, echo(one, "10.0.0.2", 7, b"hello")) == 5
        assert ticks
        assert not stopped

    def test_inFlight(self) -> None:
        """What a host has sent before its crash arrives; what its code does after that is lost, with nothing raised."""
        network = MemoryNetwork(latency=1)
        one, two = pair(network)
        port, _ = open_(one, "0.0.0.0")
        _, recorder = open_(two, "0.0.0.0", 7)
        port.write(b"before", ("10.0.0.2", 7))
        one.crash()
        port.write(b"after", ("10.0.0.2", 7))
        late: list[int] = []
        one.callLater(1, late.append, 1)
        with pytest.raises(error.CannotListenError) as caught:
            one.listenUDP(9, Recorder())
        assert caught.value.socketError.errno == errno.ENETDOWN
        network.advance(5)
        assert [datagram for datagram, _ in recorder.datagrams] == [b"before"]
        assert not late
        one.restart()
        network.advance(5)
        assert not late
        assert not one.getDelayedCalls()

    def test_reboot(self) -> None:
        """C{restart} of a host that runs starts it anew: its ports are free, and its programs start once more."""
        network = MemoryNetwork()
        _, two = pair(network)
        starts: list[Any] = []
        two.onStart(lambda host: starts.append(host.listenUDP(7, Recorder())))
        two.restart()
        assert len(starts) == 2
        assert (starts[0].connected, starts[1].connected) == (False, True)

    def test_owner(self) -> None:
        """A timer that a start function sets belongs to its host, also when another host's code restarts it."""
        network = MemoryNetwork()
        one, two = pair(network)
        seen: list[object] = []
        two.onStart(lambda host: seen.append(network.clock.owner))
        one.callLater(1, two.restart)
        one.callLater(1, lambda: seen.append(network.clock.owner))
        network.advance(2)
        assert seen == [two, two, one]


class AddressTests:
    """Hosts that leave, and that get other addresses."""

    def test_leave(self) -> None:
        """Without its cable a host cannot send to others, and gets nothing; its programs and its loopback go on."""
        network = MemoryNetwork(latency=0.1)
        one, two = pair(network)
        listen(one, 7, EchoServer(), "0.0.0.0")
        listen(two, 7, EchoServer(), "0.0.0.0")
        one.leave()
        with pytest.raises(NetworkUnreachable):
            wait(network, echo(one, "10.0.0.2", 7, b"x"))
        assert wait(network, echo(one, "127.0.0.1", 7, b"x")) == 1
        assert wait(network, echo(one, "10.0.0.1", 7, b"x")) == 1
        with pytest.raises(ResponseTimeout):
            wait(network, echo(two, "10.0.0.1", 7, b"x", timeout=1))
        assert network.trace[-1].outcome == "host left"
        one.rejoin()
        assert wait(network, echo(two, "10.0.0.1", 7, b"x")) == 1
        one.leave()
        one.rejoin("10.0.0.9")
        assert wait(network, echo(two, "one", 7, b"x")) == 1
        assert network.trace[-2].destination == ("10.0.0.9", 7)

    @pytest.mark.parametrize(("old", "new", "peer"), [("10.0.0.1", "10.0.0.9", "10.0.0.2"), ("fd00::1", "fd00::9", "fd00::2")])
    def test_bound(self, old: str, new: str, peer: str) -> None:
        """A socket on all addresses goes on; one bound to an address that is gone receives nothing. Its sends fail with IPv4,
        and leave with the old source with IPv6, as measured on Linux.
        """
        network = MemoryNetwork(latency=0.1)
        one, two = pair(network)
        wildcard = "::" if ":" in old else "0.0.0.0"
        bound, onBound = open_(one, old, 7)
        wide, onWide = open_(one, wildcard, 8)
        other, recorder = open_(two, wildcard, 7)
        one.addAddress(new)
        one.removeAddress(old)
        assert old not in one.addresses
        for port in (bound, wide):
            port.write(b"x", (peer, 7))
        other.write(b"old", (old, 7))
        other.write(b"old", (old, 8))
        other.write(b"new", (new, 7))
        other.write(b"new", (new, 8))
        network.advance(1)
        sources = [address for _, address in recorder.datagrams]
        if ":" in old:
            assert sources[0] == (old, 7)
            assert bound.dropped == {}
        else:
            assert bound.dropped == {"send_failed": 1}
        assert sources[-1][1] == 8
        assert sources[-1][0] != old
        assert onBound.datagrams == []
        assert [datagram for datagram, _ in onWide.datagrams] == [b"new"]
        assert [entry.outcome for entry in network.trace][-4:] == ["no host", "no host", "refused", "delivered"]
        with pytest.raises(error.CannotListenError):
            open_(one, old)

    def test_refused(self) -> None:
        """Addresses that are taken, or none, are refused, and the host keeps its own."""
        network = MemoryNetwork()
        one, two = pair(network)
        own = list(one.addresses)
        for wrong in ("10.0.0.2", "127.0.0.1", "239.1.1.1"):
            with pytest.raises(ValueError, match=r"^address of 'one' must be"):
                one.setAddresses(wrong)
            assert one.addresses == own
        _, recorder = open_(one, "0.0.0.0", 7)
        port, _ = open_(two, "0.0.0.0")
        port.write(b"x", ("10.0.0.1", 7))
        network.advance(1)
        assert len(recorder.datagrams) == 1


class ClockTests:
    """Clocks that are wrong."""

    def test_drift(self) -> None:
        """A fast clock makes its timers early, by its own time they are exact; an offset moves no timer."""
        network = MemoryNetwork()
        one, two = pair(network)
        one.setClock(offset=100.0, drift=0.25)
        times: list[Any] = []
        call = one.callLater(10, lambda: times.append((network.clock.seconds(), one.seconds())))
        assert verifyObject(IDelayedCall, call)
        assert call in one.getDelayedCalls()
        assert call.getTime() == pytest.approx(110)
        two.callLater(10, lambda: times.append((network.clock.seconds(), two.seconds())))
        network.advance(20)
        assert times == [(pytest.approx(8), pytest.approx(110)), (10, 10)]
        call = one.callLater(10, lambda: times.append((network.clock.seconds(), one.seconds())))
        call.reset(5)
        call.delay(5)
        assert call.active()
        network.advance(20)
        assert times[2] == (pytest.approx(28), pytest.approx(135))
        assert not call.active()
        one.callLater(1, times.clear).cancel()
        network.advance(20)
        assert times

    def test_looping(self) -> None:
        """A C{LoopingCall} follows the clock of its host: a slow one falls behind."""
        network = MemoryNetwork()
        counts: dict[str, list[object]] = {}
        for name, drift in (("fast", 0.1), ("exact", 0.0), ("slow", -0.1)):
            host = network.host(name)
            host.setClock(drift=drift)
            counts[name] = []
            loop = LoopingCall(counts[name].append, 1)
            loop.clock = host
            loop.start(1, now=False)
        network.advance(100.5)
        assert {name: len(calls) for name, calls in counts.items()} == {"fast": 110, "exact": 100, "slow": 90}

    def test_wrong(self) -> None:
        """What is no clock is refused."""
        host = MemoryNetwork().host("one")
        with pytest.raises(ValueError, match=r"^offset must be a finite number of seconds, got inf$"):
            host.setClock(offset=float("inf"))
        for drift in (-1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=r"^drift must be a finite number, more than -1, got "):
                host.setClock(drift=drift)
