"""Probers and flows in virtual time, on clocks and sockets that a test sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from tests.support.clocks import SettableClocks
from tests.support.sums import checkSums
from udpecho.addresses import DatagramAddress
from udpecho.faults.plan import FaultPlan
from udpecho.net.open import listen
from udpecho.probe import outcomes
from udpecho.probe.flow import Flow
from udpecho.probe.io.socket import Arrivals, IProbeSocket, Taken, Undelivered
from udpecho.probe.io.timestamps import StepWatch
from udpecho.probe.prober import Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.target import Target
from udpecho.server.protocol import EchoServer
from udpecho.testing.memory_network import MemoryNetwork

#: Of each direction, in seconds.
LATENCY = 0.005


class Late(DatagramProtocol):
    """Answers each datagram after a delay."""

    noisy = False

    def __init__(self, reactor: Any, delay: float) -> None:
        self._reactor = reactor
        self._delay = delay

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        transport: Any = self.transport
        self._reactor.callLater(self._delay, transport.write, datagram, addr)


class World:
    """A prober and an echo server on two hosts in memory.

    @ivar events: the events so far.
    """

    def __init__(self, faults: FaultPlan | None = None, server: DatagramProtocol | None = None) -> None:
        self.network = MemoryNetwork(latency=LATENCY)
        self.here = self.network.host("here", "192.0.2.1", "2001:db8::1")
        self.there = self.network.host("there", "192.0.2.2", "2001:db8::2")
        if faults is not None:
            self.network.setPlan(self.there, self.here, faults)
        self.server = server or EchoServer()
        self.port = listen(self.there, 7, self.server, "192.0.2.2")
        self.events: list[outcomes.Event] = []

    def prober(self, plan: Plan, *names: str, **how: Any) -> Prober:
        return Prober(self.here, names or ("192.0.2.2:7",), plan, listener=lambda flow, event: self.events.append(event), **how)

    def run(self, plan: Plan, *names: str, seconds: float = 3600, **how: Any) -> Flow:
        """Probe until it is over.

        @return: the first flow.
        """
        prober = self.prober(plan, *names, **how)
        over = prober.start()
        self.network.advance(seconds)
        assert over.called
        for flow in prober.flows:
            checkSums(flow.statistics)
        self.leavesNothing()
        return prober.flows[0]

    def leavesNothing(self) -> None:
        """Check that the prober has left no delayed call."""
        assert not [call for call in self.here.getDelayedCalls() if "Echo" not in repr(call)]

    def outcomes(self) -> Counter[str]:
        """How many events of each kind there were."""
        return Counter(event.outcome.value for event in self.events)


@implementer(IProbeSocket)
class ScriptedSocket:
    """A probe socket with a script.

    @ivar sent: the probes.
    @ivar taken: what the next send calls return; by default they take all.
    @ivar stamps: the timestamps in the error queue.
    @ivar failures: the errors in the error queue.
    @ivar arrivals: what the next receive calls return.
    """

    stamped = True
    most = 64
    source = DatagramAddress(("192.0.2.1", 5000))

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.taken: list[Taken] = []
        self.stamps: list[tuple[int, int]] = []
        self.failures: list[Undelivered] = []
        self.arrivals: list[Arrivals] = []
        self.dropped = 0
        self._slots: dict[int, bytearray] = {}
        self.onSend: Callable[[], object] = lambda: None

    def fileno(self) -> int:
        return -1

    def slot(self, index: int, size: int) -> bytearray:
        if len(self._slots.get(index, b"")) != size:
            self._slots[index] = bytearray(size)
        return self._slots[index]

    def send(self, count: int) -> Taken:
        self.onSend()
        taken = self.taken.pop(0) if self.taken else Taken(count)
        self.sent += [bytes(self._slots[index]) for index in range(taken.number)]
        return taken

    def receive(self) -> Arrivals:
        return self.arrivals.pop(0) if self.arrivals else Arrivals((), ())

    def readErrors(self) -> tuple[list[tuple[int, int]], list[Undelivered]]:
        found = self.stamps, self.failures
        self.stamps, self.failures = [], []
        return found

    def drops(self) -> int | None:
        return self.dropped

    def close(self) -> None:
        pass


class Bench:
    """A flow on clocks and a socket that a test sets."""

    def __init__(self, plan: Plan | None = None, unanswered: Callable[[Flow], object] | None = None) -> None:
        self.clocks = SettableClocks()
        self.events: list[outcomes.Event] = []
        self.socket = ScriptedSocket()
        clocks = self.clocks.clocks
        self.times: list[float | None] = []
        self.flow = Flow(
            Target.of("192.0.2.2:7"),
            plan or Plan(interval=0.001),
            clocks,
            StepWatch(clocks),
            self._event,
            unanswered=unanswered,
        )
        self.flow.begin(self.socket, self.clocks.time)

    def _event(self, flow: Flow, event: outcomes.Event) -> None:
        self.events.append(event)
        self.times.append(flow.timeOf(event))

    @property
    def wall(self) -> int:
        """The time of the wall clock, in ns."""
        return self.clocks.time + self.clocks.offset

    def reply(self, *sequences: int, stamp: int = 0) -> None:
        """Replies to some probes arrive."""
        datagrams: Sequence[bytes] = [self.socket.sent[sequence] for sequence in sequences]
        self.flow.datagramsArrived(Arrivals(datagrams, [stamp] * len(datagrams)))
