"""Tests of the prober on real sockets, through the proxy, and between network namespaces."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet import defer

from tests.support.guards import needsStamps, onlyLinux
from tests.support.running import Run, udpSocket, unusedPort
from tests.support.sums import checkSums
from udpecho.addresses import DatagramAddress
from udpecho.errors import HostUnreachable
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy import FaultProxy
from udpecho.net import selftest
from udpecho.net.linux import sockopt
from udpecho.net.open import listen
from udpecho.probe.io import timestamps
from udpecho.probe.io.socket import SocketOptions
from udpecho.probe.outcomes import Event, Outcome
from udpecho.probe.prober import Backend, Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.stats.summary import Statistics
from udpecho.probe.target import Target
from udpecho.server.protocol import EchoServer


async def probe(reactor: Any, plan: Plan, *targets: tuple[str, int], **how: Any) -> Prober:
    """Probe on real sockets until it is over."""
    named = [Target("x", DatagramAddress(target)) for target in targets]
    prober = Prober(reactor, named, plan, **how)
    await prober.start()
    for flow in prober.flows:
        checkSums(flow.statistics)
    return prober


def source(prober: Prober) -> str:
    """Where the times of the first flow are from."""
    return prober.flows[0].timestampSource


class RealTests:
    """On real sockets, on each kind of reactor."""

    @pytest.mark.parametrize("batches", [True, False])
    def test_answered(self, run: Run, batches: bool) -> None:
        """Probes to our own server are answered; round trips come from the kernel where it has them."""

        async def test(reactor: Any) -> None:
            server: Any = listen(reactor, 0, EchoServer())
            host = server.getHost()
            prober = await probe(
                reactor, Plan(count=20, interval=0.002), (host.host, host.port), backend=Backend(batches=batches)
            )
            statistics = prober.flows[0].statistics
            assert statistics.count(Outcome.ANSWERED) == 20
            if batches and selftest.unsupportedReason() is None and timestamps.noTimestampsReason() is None:
                assert source(prober) == "kernel"
            if not batches:
                assert source(prober) == "monotonic"
            await server.stopListening()

        run(test)

    @pytest.mark.parametrize("batches", [True, False])
    def test_refused(self, run: Run, batches: bool) -> None:
        """A port where nothing listens refuses each probe, at once."""
        port = unusedPort()

        async def test(reactor: Any) -> None:
            prober = await probe(reactor, Plan(count=5, interval=0.005), ("127.0.0.1", port), backend=Backend(batches=batches))
            assert prober.flows[0].statistics.count(Outcome.REFUSED) == 5

        run(test)

    @onlyLinux
    def test_refusedWhileBusy(self, runOnce: Run) -> None:
        """Each of several refusals that are read at once is attributed to its own probe, and no other probe is refused."""

        async def test(reactor: Any) -> None:
            with udpSocket() as sock:
                events: list[Event] = []
                prober = Prober(
                    reactor,
                    [Target("x", DatagramAddress(sock.getsockname()))],
                    Plan(count=6, interval=0.01, timeout=0.5),
                    listener=lambda flow, event: events.append(event),
                    backend=Backend(batches=False),
                )
                over = prober.start()
                flow = prober.flows[0]
                while flow.statistics.sent < 2:
                    turn: defer.Deferred[None] = defer.Deferred()
                    reactor.callLater(0, turn.callback, None)
                    await turn
                sent = flow.statistics.sent
                sock.close()
                # Without a turn of the reactor: the refusals stay in the queue.
                while flow.statistics.sent < 5:
                    flow.send(time.monotonic_ns())
                await over
            assert [event.outcome for event in sorted(events, key=lambda event: event.sequence or 0)] == (
                [Outcome.LOST] * sent + [Outcome.REFUSED] * (6 - sent)
            )

        runOnce(test)

    def test_many(self, runOnce: Run) -> None:
        """Batches both ways, with many sizes and timestamps: 20 000 probes a second, each with its own reply."""

        async def test(reactor: Any) -> None:
            server: Any = listen(reactor, 0, EchoServer(), receiveBuffer=2**24)
            host = server.getHost()
            plan = Plan(count=5000, interval=0.00005, sizes=tuple(range(32, 1400, 7)), timeout=10)
            statistics = (await probe(reactor, plan, (host.host, host.port))).flows[0].statistics
            # A busy machine may be more than a second late with some, which are not sent then.
            assert statistics.count(Outcome.ANSWERED) == statistics.sent == 5000 - statistics.count(Outcome.NOT_SENT)
            assert statistics.sent > 64
            assert not statistics.count(Outcome.CORRUPT)
            await server.stopListening()

        runOnce(test)

    def test_onlyMonotonic(self, runOnce: Run) -> None:
        """Batches work without stamps too."""

        async def test(reactor: Any) -> None:
            server: Any = listen(reactor, 0, EchoServer())
            host = server.getHost()
            prober = await probe(
                reactor, Plan(count=5, interval=0.001), (host.host, host.port), backend=Backend(timestamps=False)
            )
            assert prober.flows[0].statistics.received == 5
            assert source(prober) == "monotonic"
            await server.stopListening()

        runOnce(test)

    @needsStamps
    def test_inTime(self, runOnce: Run) -> None:
        """A reply that came in time is not late, though the process has read it late."""

        async def test(reactor: Any) -> None:
            with udpSocket() as sock:
                prober = Prober(
                    reactor, [Target("x", DatagramAddress(sock.getsockname()))], Plan(count=1, timeout=0.5, wait=0.2)
                )
                over = prober.start()
                datagram: bytes = b""
                while not datagram:
                    turn: defer.Deferred[None] = defer.Deferred()
                    reactor.callLater(0, turn.callback, None)
                    await turn
                    sock.setblocking(False)
                    try:
                        datagram, client = sock.recvfrom(100)
                    except BlockingIOError:
                        continue
                sock.sendto(datagram, client)
                # The reactor is held up.
                until = time.monotonic() + 0.7
                while time.monotonic() < until:
                    pass
                await over
                statistics = prober.flows[0].statistics
                assert statistics.count(Outcome.ANSWERED) == 1
                assert statistics.roundTrips.max is not None
                assert statistics.roundTrips.max < 0.5

        runOnce(test)

    @onlyLinux
    def test_options(self, runOnce: Run) -> None:
        """Traffic class, time to live and "do not fragment" are set; what is too long for the path then is not sent."""
        import socket as s

        async def test(reactor: Any) -> None:
            with udpSocket() as sock:
                sock.setsockopt(s.IPPROTO_IP, 13, 1)
                sock.setsockopt(s.IPPROTO_IP, sockopt.IP_RECVTTL, 1)
                options = SocketOptions(None, 184, 7, True)
                plan = Plan(count=1, timeout=0.01)
                await probe(reactor, plan, sock.getsockname(), options=options)
                controls = {kind: data[0] for _, kind, data in sock.recvmsg(100, 100)[1]}
                assert controls == {s.IP_TOS: 184, sockopt.IP_TTL: 7}
                plan = Plan(count=1, timeout=0.01, sizes=(65507,))
                assert (await probe(reactor, plan, sock.getsockname())).flows[0].statistics.sent == 1

        runOnce(test)


class ProxyTests:
    """Through the real proxy."""

    @pytest.mark.parametrize(
        ("faults", "done", "outcome"),
        [
            ({"loss": 0.1}, "lost", Outcome.LOST),
            ({"duplicate": 0.1}, "duplicated", Outcome.DUPLICATE),
            ({"corrupt": 0.1}, "corrupted", Outcome.CORRUPT),
            ({"truncate": 0.1}, "truncated", Outcome.TRUNCATED),
            ({"delay": 0.6}, "delayed", Outcome.LATE),
        ],
    )
    def test_faults(self, runOnce: Run, faults: dict[str, Any], done: str, outcome: Outcome) -> None:
        """What the proxy did to replies is what the prober counts."""

        async def test(reactor: Any) -> None:
            server: Any = listen(reactor, 0, EchoServer())
            host = server.getHost()
            proxy = FaultProxy(reactor, DatagramAddress((host.host, host.port)), None, FaultPlan(7, **faults), 10)
            proxy.start(0, "127.0.0.1")
            # So few that no receive buffer is filled when the machine is busy.
            # Only the delayed are to be late, and not those that a busy machine delays.
            plan = Plan(count=200, interval=0.0005, timeout=0.5 if "delay" in faults else 3, wait=3)
            statistics = (await probe(reactor, plan, proxy.address)).flows[0].statistics
            # A busy machine may be more than a second late with some, which are not sent then.
            assert statistics.sent == 200 - statistics.count(Outcome.NOT_SENT) > 0
            assert statistics.count(outcome) == proxy.down.outcomes[done] > 0
            assert sum(proxy.down.outcomes.values()) == statistics.sent
            proxy.stop()
            await server.stopListening()

        runOnce(test)


@pytest.mark.namespaces
class NamespaceTests:
    """Between hosts of their own."""

    def test_unreachable(self, runOnce: Run) -> None:
        """A network that the router has no route to is reported as unreachable by the router; one that this machine has no
        route to is reported by this machine.
        """
        from tests.support.namespaces import IPV4, network

        async def test(reactor: Any) -> None:
            with network() as net:
                plan = Plan(count=2, interval=0.01, timeout=5)
                prober = Prober(reactor, [Target("nowhere", DatagramAddress((IPV4.nowhere, 7)))], plan)
                over = net.client.call(prober.start)
                await over
                flow = prober.flows[0]
                assert flow.statistics.count(Outcome.UNREACHABLE) == 2
                assert isinstance(flow.lastError, HostUnreachable)
                prober = Prober(reactor, [Target("lost", DatagramAddress((IPV4.lost, 7)))], plan)
                with pytest.raises(HostUnreachable):
                    await net.client.call(prober.start)

        runOnce(test)

    @pytest.mark.parametrize(
        ("breaking", "mending"),
        [
            (("link set eth0 down",), ("link set eth0 up", "route add default via {near}")),
            (("route add unreachable {server}",), ("route delete unreachable {server}",)),
            (("route add {server} via {nearNobody}",), ("route delete {server}",)),
        ],
        ids=["interface down", "no route", "wrong route"],
    )
    def test_outage(self, runOnce: Run, breaking: Sequence[str], mending: Sequence[str]) -> None:
        """While an interface is down, or the route is another, probes are not sent, lost or unreachable; when it is as it was
        they are answered again.
        """
        from tests.support.namespaces import IPV4, network

        async def test(reactor: Any) -> None:
            with network() as net:
                server: Any = net.server.call(listen, reactor, 7, EchoServer(), IPV4.server)
                events: list[Event] = []
                prober = Prober(
                    reactor,
                    [Target("server", DatagramAddress((IPV4.server, 7)))],
                    Plan(interval=0.01, timeout=0.2),
                    listener=lambda flow, event: events.append(event),
                )
                over = net.client.call(prober.start)

                async def until(condition: Callable[[], bool]) -> None:
                    while not condition():
                        turn: defer.Deferred[None] = defer.Deferred()
                        reactor.callLater(0.01, turn.callback, None)
                        await turn

                statistics: Statistics = prober.flows[0].statistics
                await until(lambda: statistics.received > 3)
                names = vars(IPV4)
                net.client.ip(*(command.format(**names) for command in breaking))
                bad = (Outcome.NOT_SENT, Outcome.LOST, Outcome.UNREACHABLE)
                await until(lambda: sum(statistics.count(each) for each in bad) > 3)
                net.client.ip(*(command.format(**names) for command in mending))
                before = statistics.received
                await until(lambda: statistics.received > before + 3)
                prober.stop()
                await over
                checkSums(statistics)
                await server.stopListening()

        runOnce(test)
