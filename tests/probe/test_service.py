"""Tests of L{udpecho.probe.service} and L{udpecho.probe.metrics}."""

from __future__ import annotations

import errno
import gc
import weakref
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.logger import capturedLogs, formatEvent

from tests.support.transports import Resolver
from udpecho.errors import PortUnreachable
from udpecho.faults.plan import FaultPlan
from udpecho.net.open import listen
from udpecho.probe.io.socket import SocketOptions
from udpecho.probe.outcomes import Outcome
from udpecho.probe.prober import Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.service import RETRY, ProbeService
from udpecho.probe.stats.distribution import Distribution
from udpecho.server.protocol import EchoServer
from udpecho.testing.memory_network import MemoryNetwork

prometheus: Any = pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")


class BucketTests:
    """L{udpecho.probe.metrics.cumulated}."""

    def test_cumulated(self) -> None:
        """Each bucket has all values up to its upper bound, the last one all values."""
        from udpecho.probe.metrics import BUCKETS, cumulated

        times = Distribution()
        for time in (10_000, 49_000, 60_000, 150_000, 10**12):
            times.recordNanoseconds(time)
        found = cumulated(times)
        assert [count for _, count in found[:4]] == [2, 3, 4, 4]
        assert found[-2:] == [("26.2144", 4), ("+Inf", 5)]
        assert len(found) == len(BUCKETS) + 1
        assert BUCKETS[0] == 50_000
        assert all(2 * one == other for one, other in pairwise(BUCKETS))


class ServiceTests:
    """L{ProbeService} in virtual time."""

    def world(self, *targets: str, faults: FaultPlan | None = None) -> tuple[MemoryNetwork, ProbeService, Any, Any]:
        """@return: a network, a service on one of its hosts, the other host, and the registry with the metrics
        of the service.
        """
        from udpecho.probe.metrics import ProbeMetrics

        network = MemoryNetwork(faults, latency=0.001)
        here, there = network.host("here", "192.0.2.1"), network.host("there", "192.0.2.2")
        listen(there, 7, EchoServer(), "192.0.2.2")
        metrics = ProbeMetrics()
        registry = prometheus.CollectorRegistry()
        registry.register(metrics)
        return network, ProbeService(here, targets, Plan(interval=0.1), metrics=metrics), there, registry

    def test_exported(self) -> None:
        """Round trips and outcomes are exported for each target."""
        network, service, _, registry = self.world("there:7", "there:9", faults=None)
        service.startService()
        network.advance(10)

        def value(name: str, target: str, **labels: str) -> Any:
            return registry.get_sample_value(f"udpecho_probe_{name}", {"target": target, "source": "0", **labels})

        assert value("up", "there:7") == 1
        assert value("sent_total", "there:7") == pytest.approx(100, abs=1)
        assert value("outcomes_total", "there:7", outcome="answered") == pytest.approx(100, abs=1)
        assert value("outcomes_total", "there:9", outcome="refused") == pytest.approx(100, abs=1)
        assert value("round_trip_seconds_bucket", "there:7", le="0.0016") == 0
        assert value("round_trip_seconds_bucket", "there:7", le="0.0032") == value("round_trip_seconds_count", "there:7")
        assert value("round_trip_seconds_sum", "there:7") == pytest.approx(0.2, abs=0.01)
        service.stopService()
        assert not service.flows

    def test_neverDecreases(self) -> None:
        """A lost probe stays in the counter when its reply arrives late: a counter never decreases."""
        network, service, _, registry = self.world("there:7", faults=FaultPlan(1, delay=0.75))
        service.startService()
        labels = {"target": "there:7", "source": "0", "outcome": "lost"}
        before = 0.0
        for _ in range(50):
            network.advance(0.1)
            count = registry.get_sample_value("udpecho_probe_outcomes_total", labels)
            assert count >= before
            before = count
        assert before
        assert service.flows[0].statistics.count(Outcome.LATE)
        service.stopService()

    def test_replaced(self) -> None:
        """A flow that another one has replaced is not kept: each takes much memory."""
        network, service, _, _ = self.world("there:7")
        former = []
        for _ in range(2):
            service.startService()
            network.advance(1)
            former.append(weakref.ref(service.flows[0]))
            service.stopService()
            network.advance(1)
        gc.collect()
        assert [flow() is None for flow in former] == [True, False]

    def test_triedAgain(self, caught: Any) -> None:
        """A target that cannot be resolved is tried again, and is down until then."""
        network, service, _, registry = self.world("later:7")
        service.startService()
        network.advance(1)
        labels = {"target": "later:7", "source": "0"}
        assert registry.get_sample_value("udpecho_probe_up", labels) == 0
        later = network.host("later", "192.0.2.3")
        listen(later, 7, EchoServer(), "192.0.2.3")
        network.advance(RETRY)
        assert registry.get_sample_value("udpecho_probe_up", labels) == 1
        service.stopService()
        network.advance(100)
        assert service.flows == []

    def test_up(self) -> None:
        """A target is up while it answers: not before its first reply, nor when it refuses all, nor when it replies no more."""
        network, service, there, registry = self.world("there:7", "there:9", "192.0.2.77:7")

        def up() -> list[float | None]:
            names = ("there:7", "there:9", "192.0.2.77:7")
            return [registry.get_sample_value("udpecho_probe_up", {"target": name, "source": "0"}) for name in names]

        service.startService()
        assert up() == [0, 0, 0]
        network.advance(5)
        assert up() == [1, 0, 0]
        network.setPlan(there, network.hosts["here"], FaultPlan(1, loss=1.0))
        network.advance(1.0)
        assert up() == [1, 0, 0]
        network.advance(0.2)
        assert up() == [0, 0, 0]
        network.setPlan(there, network.hosts["here"], FaultPlan(1))
        network.advance(0.2)
        assert up() == [1, 0, 0]
        service.stopService()

    def test_resolveInterval(self) -> None:
        """Names are looked up again every so often, and the probes go to the new address, in the same counters."""
        network, service, _, registry = self.world("there:7")
        elsewhere = network.host("elsewhere", "192.0.2.3")
        listen(elsewhere, 7, EchoServer(), "192.0.2.3")
        resolver: Any = Resolver({"there": [IPv4Address("UDP", "192.0.2.2", 7)]})
        network.hosts["here"].installNameResolver(resolver)
        service.startService()
        network.advance(50)
        flow = service.flows[0]
        resolver.table["there"] = [IPv4Address("UDP", "192.0.2.3", 7)]
        network.advance(60)
        assert service.flows == [flow]
        assert str(flow.target.address) == "192.0.2.3:7"
        labels = {"target": "there:7", "source": "0", "outcome": "answered"}
        assert registry.get_sample_value("udpecho_probe_outcomes_total", labels) == pytest.approx(1100, abs=2)
        service.stopService()

    def test_exhausted(self) -> None:
        """A lack of descriptors is logged once for all targets, and probing begins when there are some."""
        network, _, _, _ = self.world("there:7")
        here = network.host("other", "192.0.2.9")
        exhausted = True

        def open(*arguments: Any, **options: Any) -> Prober:
            if exhausted:
                raise OSError(errno.EMFILE, "Too many open files")
            return Prober(*arguments, **options)

        names = [f"there:{port}" for port in range(10, 20)]
        service = ProbeService(here, names, open=open)
        service.startService()
        text = "no file descriptor is left: Too many open files (ulimit -n, LimitNOFILE=)"
        with capturedLogs() as events:
            network.advance(50)
        assert [formatEvent(event) for event in events] == [f"cannot probe there:10: {text}"]
        assert service.states() == dict.fromkeys(names, text)
        exhausted = False
        network.advance(RETRY)
        assert service.states() == dict.fromkeys(names)
        service.stopService()

    def test_broken(self, caught: Any) -> None:
        """A prober that ends by an error of its own is logged, and followed by another."""
        network, service, _, _ = self.world("there:7")
        service.startService()
        network.advance(1)
        flow = service.flows[0]

        def fail(now: int) -> bool:
            raise ZeroDivisionError("a mistake")

        flow.send = fail  # type: ignore[method-assign]
        network.advance(1)
        assert [type(each) for each in caught.flush(ZeroDivisionError)] == [ZeroDivisionError]
        assert service.states() == {"there:7": "a mistake"}
        network.advance(RETRY)
        assert service.states() == {"there:7": None}
        assert service.flows[0] is not flow
        service.stopService()

    def test_family(self) -> None:
        """A name is looked up for addresses of the family of C{bindAddress} only."""
        network, _, _, _ = self.world("there:7")
        here = network.host("both", "2001:db8::9", "192.0.2.9")
        both = network.host("server", "2001:db8::8", "192.0.2.8")
        listen(both, 7, EchoServer(), "192.0.2.8")
        service = ProbeService(here, ["server:7", "[2001:db8::8]:7"], options=SocketOptions(("192.0.2.9", 0)))
        service.startService()
        network.advance(2)
        assert [str(flow.target.address) for flow in service.flows] == ["192.0.2.8:7"]
        assert service.states() == {
            "server:7": None,
            "[2001:db8::8]:7": "[2001:db8::8]:7 must be an IPv4 address, got 2001:db8::8",
        }
        service.stopService()

    def test_stoppedEarly(self) -> None:
        """A service that is stopped at once leaves nothing in the reactor."""
        network, service, _, _ = self.world("there:7", "nowhere:7")
        service.startService()
        service.stopService()
        assert not network.clock.getDelayedCalls()

    def test_configure(self, caught: Any) -> None:
        """Targets are added to a service that runs, and removed from it; the others go on undisturbed."""
        network, service, _, registry = self.world("there:7", "there:9")
        service.configure(["there:7", "there:9"])
        service.startService()
        network.advance(1)
        kept = service.flows[0]
        with capturedLogs() as events:
            service.configure(["nowhere:7", "there:7"])
            network.advance(1)
        assert service.flows == [kept]
        assert kept.statistics.sent == pytest.approx(20, abs=1)
        assert "stopped probing there:9 from" in formatEvent(events[0])
        assert service.states() == {"nowhere:7": service.states()["nowhere:7"], "there:7": None}
        assert "no address for 'nowhere'" in str(service.states()["nowhere:7"])
        exported = {sample.labels["target"] for metric in registry.collect() for sample in metric.samples}
        assert exported == {"nowhere:7", "there:7"}
        service.configure(["there:9"])
        network.advance(1)
        assert [flow.target.name for flow in service.flows] == ["there:9"]
        service.stopService()
        assert service.states() == {"there:9": "it is not started yet"}
        assert not [call for call in network.clock.getDelayedCalls() if "Echo" not in repr(call)]

    @pytest.mark.parametrize(
        ("targets", "message"),
        [
            ([], "targets must have one target or more, got none"),
            (["there:7", "there"], "address must be HOST:PORT, .* got 'there'"),
            (["there:9", "there:9"], "each target must be given once, got 'there:9' twice"),
        ],
    )
    def test_configuredWrong(self, targets: list[str], message: str) -> None:
        """A wrong list changes nothing."""
        network, service, _, _ = self.world("there:7")
        service.startService()
        with pytest.raises(ValueError, match=message):
            service.configure(targets)
        network.advance(1)
        assert service.states() == {"there:7": None}
        service.stopService()

    @pytest.mark.parametrize(
        ("reason", "message"),
        [
            (
                OSError(errno.EMFILE, "Too many open files"),
                "no file descriptor is left: Too many open files (ulimit -n, LimitNOFILE=)",
            ),
            (
                error.CannotListenError("203.0.113.1", 5, OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")),
                "cannot send from 203.0.113.1:5: Cannot assign requested address",
            ),
            (error.DNSLookupError("there has no address"), "there has no address"),
            (PortUnreachable("192.0.2.2:7 refused"), "192.0.2.2:7 refused"),
        ],
    )
    def test_cannotOpen(self, reason: Exception, message: str) -> None:
        """A failure to open the sockets is logged as one line, and the target is tried again."""
        network, _, _, _ = self.world("there:7")
        here = network.host("other", "192.0.2.9")
        opened = []

        def fail(*arguments: Any, **options: Any) -> Prober:
            opened.append(network.clock.seconds())
            raise reason

        service = ProbeService(here, ["there:7"], open=fail)
        service.startService()
        with capturedLogs() as events:
            network.advance(1)
            network.advance(RETRY)
        # It is logged once.
        assert [formatEvent(event) for event in events] == [f"cannot probe there:7: {message}"]
        assert [later - earlier for earlier, later in pairwise(opened)] == [RETRY]
        service.stopService()

    @pytest.mark.parametrize(
        ("targets", "plan", "message"),
        [
            ([], Plan(), "targets must have one target or more, got none"),
            (
                ["x:7"],
                Plan(count=3),
                "the plan .* must have neither count nor duration, got count=3 and duration=None",
            ),
            (["x:7"], Plan(duration=3), "got count=None and duration=3"),
        ],
    )
    def test_wrong(self, targets: list[str], plan: Plan, message: str) -> None:
        """A service has targets, and a plan without an end."""
        with pytest.raises(ValueError, match=f"{message}$"):
            ProbeService(None, targets, plan)
