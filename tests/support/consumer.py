"""A user's program that has each public name, for type checkers only: L{tests.test_types} checks it and nobody runs it.

The reactor is the global one, which is a module to a type checker without plugins.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface import implementer

import udpecho
from udpecho import (
    DROP_REASONS,
    ClientClosed,
    Counters,
    CountersView,
    DatagramAddress,
    DatagramPort,
    Decision,
    DropLog,
    EchoClient,
    EchoError,
    EchoServer,
    EchoService,
    Event,
    FaultPlan,
    FaultProxy,
    Flow,
    GilbertElliott,
    Guard,
    GuardLike,
    GuardPolicy,
    HostUnreachable,
    IBatchReceiver,
    IDatagramAddressReceiver,
    IDatagramBatch,
    IDropReceiver,
    INetworkErrorReceiver,
    Jitter,
    MemoryHost,
    MemoryNetwork,
    MessageTooLong,
    MetricsService,
    NetworkUnreachable,
    Outcome,
    Plan,
    PortOptions,
    PortUnreachable,
    Prober,
    ProbeService,
    Reply,
    ResponseTimeout,
    RunningServer,
    SelfEcho,
    ServiceOptions,
    SocketOptions,
    Statistics,
    Target,
    UDPEchoMixin,
    connect,
    echo,
    listen,
    makeRegistry,
    parseNetwork,
    useDatagramPorts,
)


def serve() -> int:
    """A server on a port."""
    server = EchoServer()
    guarded = EchoServer(Guard())
    guarded = EchoServer(Guard(GuardPolicy(allow=parseNetwork("192.0.2.0/24"), rate=100, burst=200), ownPorts=[1234]))
    guarded = EchoServer(guard=MyGuard(), counters=Counters(), maxPayload=1400)
    port: DatagramPort = listen(reactor, 0, server, writeTimeout=0.5, receiveBuffer=2**20)
    host: str = port.getHost().host
    number: int = port.getHost().port
    other = DatagramPort(0, server, "127.0.0.1", reactor=reactor, options=PortOptions(ipv6Only=True))
    other.startListening()
    with useDatagramPorts(reactor, PortOptions(writeRaises=False)):
        pass
    stopped: Deferred[None] | None = port.stopListening()
    guard: GuardLike = MyGuard()
    guarded = EchoServer(guard)
    counters: Counters = guarded.counters
    received: int = counters.received
    dropped: int = counters.dropped["rate_limited"]
    print(host, stopped, received, dropped, counters.echoed)
    return listen(reactor, 0, MyProtocol(), "::1").getHost().port + number


class MyGuard:
    """A guard without an interface of zope's."""

    def refuse(self, size: int, address: tuple[str, int]) -> str | None:
        """Answer short datagrams."""
        return DROP_REASONS[0] if size > 100 or address[1] < 1024 else None


@implementer(IDatagramAddressReceiver, INetworkErrorReceiver, IDropReceiver, IBatchReceiver)
class MyProtocol(DatagramProtocol):
    """A protocol that reads more of an address."""

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Print it."""
        if isinstance(addr, DatagramAddress):
            local: str | None = addr.localHost
            scope: int = addr.scopeID
            print(local, scope, addr.host, addr.port)

    def networkError(self, reason: EchoError) -> None:
        """Report it."""
        print(report(reason))

    def datagramDropped(self, reason: str, size: int, address: tuple[str, int]) -> None:
        """Print it."""
        print(reason, size, address)

    def datagramsReceived(self, batch: IDatagramBatch) -> None:
        """Print it."""
        print(batch)


def application() -> int:
    """A server in an application."""
    service = EchoService(reactor, 1234)
    service = EchoService(reactor, 0, ["127.0.0.1", "::1"], guard=GuardPolicy(rate=100), logDatagrams=None)
    service = EchoService(reactor, 0, ["127.0.0.1"], guard=Guard(), counters=Counters(), maxPayload=100)
    service = EchoService(reactor, workers=4)
    service = EchoService(reactor, options=ServiceOptions(workers=4, writeTimeout=0.5))
    view: CountersView = service.counters
    print(view.received, view.echoed, view.dropped["too_large"], view.waiting)
    pages = MetricsService(
        reactor,
        "tcp:9107:interface=127.0.0.1",
        makeRegistry(service.counters),
        SelfEcho(reactor, lambda: service.addresses).check,
    )
    pages.startService()
    drops = DropLog(reactor, service.counters)
    drops.start()
    drops.stop()
    host, port = service.addresses[0]
    echoed: int = service.counters.echoed
    limited: int = service.counters.dropped["rate_limited"]
    return echoed + port + limited + len(host)


async def ask() -> list[int]:
    """A client."""
    client: EchoClient = await connect(reactor, "127.0.0.1", 1234, timeout=2.0, bindAddress=("127.0.0.1", 0))
    sizes = await gatherResults([client.echo(bytes(size)) for size in (0, 512, 1400)])
    reply: Reply = await client.exchange(b"hello", 0.5)
    seconds: float = reply.roundTripTime
    payload: bytes = reply.payload
    host, port = reply.peer
    await client.close()
    print(sizes, seconds, payload, host, port, client.ignored)
    return sizes


def report(failure: EchoError) -> str:
    """Which failure it is."""
    if isinstance(failure, MessageTooLong):
        limit: int | None = failure.limit
        return f"{limit} bytes fit"
    if isinstance(failure, (NetworkUnreachable, HostUnreachable, PortUnreachable)):
        number: int | None = failure.errno
        return f"unreachable: {number}"
    if isinstance(failure, (ResponseTimeout, ClientClosed)):
        return str(failure)
    return "something else"


async def once() -> int:
    """One echo."""
    waiting: Deferred[int] = echo(reactor, "127.0.0.1", 1234, b"hello", timeout=2.0, verify=False)
    try:
        return await waiting
    except (ResponseTimeout, PortUnreachable) as e:
        print(report(e))
        return 0


async def probe() -> int:
    """A prober."""
    target: Target = Target.of("127.0.0.1:1234")
    prober = Prober(reactor, [target], Plan(count=20, interval=0.01), options=SocketOptions(hopLimit=64), listener=see)
    await prober.start()
    flow: Flow = prober.flows[0]
    statistics: Statistics = flow.statistics
    sent: int = statistics.sent
    service = ProbeService(reactor, ["localhost:1234"], Plan(interval=0.5))
    service.startService()
    return sent + statistics.received


def see(flow: Flow, event: Event) -> None:
    """Print what became of a probe."""
    if event.outcome is Outcome.LOST:
        print(flow.target.name, event.sequence)


def faults() -> Deferred[int]:
    """A network in memory, with faults."""
    network = MemoryNetwork(FaultPlan(7, loss=0.1), latency=0.1)
    here: MemoryHost = network.host("here", "192.0.2.1")
    there = network.host("there", "192.0.2.2")
    listen(there, 7, EchoServer(), "192.0.2.2")
    there.listenUDP(8, EchoServer())
    network.setPlan(here, there, FaultPlan(delay=1800))
    waiting = echo(here, "192.0.2.2", 7, b"hello", timeout=3600)
    network.advance(1800)
    plan = FaultPlan(seed=1, burst=GilbertElliott(0.01, 0.25), jitter=Jitter(0.1, "normal"))
    decision: Decision = plan.decide(100, 0.0)
    print(decision.reasons)
    proxy = FaultProxy(reactor, ("127.0.0.1", 1234), up=plan, down=FaultPlan(seed=2))
    proxy.start()
    proxy.stop()
    server = RunningServer(reactor)
    host, port = server.address
    print(host, port, server.counters.received)
    server.stop()
    return waiting


class MyTests(UDPEchoMixin, TestCase):
    """Tests of trial."""

    async def test_echo(self) -> None:
        """A server echoes."""
        server: RunningServer = self.startEchoServer()
        assert await echo(reactor, *server.address, b"hello") == 5


def others() -> tuple[IPv4Network | IPv6Network, ...]:
    """The rest."""
    client = EchoClient(Clock(), timeout=1.0)
    client.echo(b"hello")
    version: str = udpecho.__version__
    print(version, DatagramAddress(("127.0.0.1", 7)))
    return parseNetwork("any")
