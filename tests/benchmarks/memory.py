"""How fast a L{MemoryNetwork} is, in wall time: C{python -m tests.benchmarks.memory}."""

from __future__ import annotations

import argparse
import time
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import LoopingCall

from udpecho.client.connect import connect
from udpecho.client.protocol import EchoClient, Reply
from udpecho.errors import ResponseTimeout
from udpecho.faults.decision import Decider
from udpecho.faults.models import GilbertElliott, Jitter
from udpecho.faults.plan import FaultPlan
from udpecho.server.protocol import EchoServer
from udpecho.testing.memory_network import MemoryNetwork


class Echoing(DatagramProtocol):
    """The least that a server does."""

    noisy = False

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        assert self.transport is not None
        self.transport.write(datagram, addr)


class Asking(DatagramProtocol):
    """A client that answers each reply with the next question, until it has had enough."""

    noisy = False

    def __init__(self, left: int) -> None:
        self.left = left

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.left -= 1
        if self.left > 0:
            assert self.transport is not None
            self.transport.write(datagram, None)


def flood(server: DatagramProtocol, plan: Decider | None, datagrams: int) -> float:
    """Echo through a network with 64 datagrams on their way.

    @return: datagrams a second, those of either direction counted.
    """
    network = MemoryNetwork(plan, latency=0.01)
    one, two = network.host("one", "10.0.0.1"), network.host("two", "10.0.0.2")
    two.listenUDP(7, server)
    asking = Asking(datagrams // 2)
    port = one.listenUDP(0, asking)
    port.connect("10.0.0.2", 7)
    began = time.process_time()
    for _ in range(64):
        port.write(bytes(64))
    while asking.left > 0:
        network.advance(1.0)
    return len(network.trace) / (time.process_time() - began)


def probes(seconds: int) -> tuple[float, int]:
    """Probe an echo server once a second through 10 % loss each way, with our own client.

    @return: the seconds it took, and how many replies there were.
    """
    began = time.perf_counter()
    network = MemoryNetwork(FaultPlan(7, loss=0.1), latency=0.02)
    one, two = network.host("one", "10.0.0.1"), network.host("two", "10.0.0.2")
    two.listenUDP(7, EchoServer())
    connected: list[EchoClient] = []
    connect(one, "two", 7, 0.5).addCallback(connected.append)
    network.advance(0)
    (client,) = connected
    replies: list[Reply] = []

    def probe() -> None:
        exchange: Any = client.exchange(bytes(64))
        exchange.addCallbacks(replies.append, lambda failure: failure.trap(ResponseTimeout))

    loop = LoopingCall(probe)
    loop.clock = one
    loop.start(1.0)
    network.advance(seconds - 0.1)
    loop.stop()
    return time.perf_counter() - began, len(replies)


def timers(hosts: int, seconds: int, looping: bool) -> float:
    """Run a timer a second on each of many hosts, by C{LoopingCall} or by a function that calls itself later.

    @return: the processor time, in seconds.
    """
    network = MemoryNetwork()

    def tick(host: Any) -> None:
        if not looping:
            host.callLater(1.0, tick, host)

    for number in range(hosts):
        host: Any = network.host(f"h{number}")
        loop = LoopingCall(tick, host)
        loop.clock = host
        if looping:
            loop.start(1.0, now=False)
        else:
            tick(host)
    began = time.process_time()
    network.advance(seconds)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast the network in memory is.")
    parser.add_argument("--datagrams", type=int, default=200_000, help="how many each flood sends (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many is shown (default: %(default)s)")
    options = parser.parse_args()
    every: dict[str, Any] = {
        "burst": GilbertElliott(0.0, 1.0),
        "delay": 0.01,
        "jitter": Jitter(0.001, "exponential"),
        "duplicate": 0.0,
        "reorder": 0.01,
        "corrupt": 0.01,
        "rate": 1e9,
        "queue": 10**6,
    }
    for name, server, faults in (
        ("no faults", Echoing, None),
        ("no faults, EchoServer", EchoServer, None),
        ("a plan with a delay", Echoing, {"delay": 0.01}),
        ("a plan with most faults", Echoing, every),
    ):
        best = max(
            flood(server(), None if faults is None else FaultPlan(1, **faults), options.datagrams)
            for _ in range(options.rounds)
        )
        print(f"{name + ':':<26}{best:>10,.0f} datagrams/s")
    took, replies = min(probes(3600) for _ in range(options.rounds))
    print(f"{'an hour of probes:':<26}{took:>10.3f} s, {replies} of 3600 answered")
    for looping in (False, True):
        took = 10 * min(timers(200, 360, looping) for _ in range(options.rounds))
        print(f"{'an hour of 200 ' + ('LoopingCalls:' if looping else 'timers:'):<28}{took:>8.3f} s, from a tenth of it")


if __name__ == "__main__":
    main()
