"""What the guard costs, and how much memory a flood from everywhere makes it take: C{python -m tests.benchmarks.guard}."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network

from zope.interface import implementer

from udpecho.addresses import DatagramAddress
from udpecho.guard.guard import Guard
from udpecho.guard.networks import ANY, PRIVATE, Network
from udpecho.guard.policy import GuardPolicy
from udpecho.interfaces import BatchSendCallback, IDatagramBatch

#: Entries in a batch.
BATCH = 64


@implementer(IDatagramBatch)
class Batch:
    """A batch with nothing in it but what the guard looks at, so that what is measured is the guard."""

    def __init__(self, hosts: list[int], ports: list[int], isIPv6: bool) -> None:
        self.entries = self.datagrams = len(hosts)
        self.size = 64 * len(hosts)
        self.isIPv6 = isIPv6
        self.dropped: dict[int, str] = {}
        self._hosts, self._ports, self._counts = hosts, ports, [1] * len(hosts)

    def sizes(self) -> list[int]:
        return [64] * self.entries

    def counts(self) -> list[int]:
        return self._counts

    def hosts(self) -> list[int]:
        return self._hosts

    def ports(self) -> list[int]:
        return self._ports

    def longest(self) -> list[int]:
        return self.sizes()

    def nonUnicast(self) -> Sequence[int]:
        return ()

    def scopes(self) -> list[int]:
        return [0] * self.entries

    def address(self, entry: int) -> DatagramAddress:
        raise NotImplementedError

    def payloads(self, entry: int) -> list[bytes]:
        raise NotImplementedError

    def drop(self, entry: int, reason: str) -> None:
        self.dropped[entry] = reason

    def take(self, entry: int) -> list[bytes]:
        raise NotImplementedError

    def split(self) -> None:
        raise NotImplementedError

    def send(self, callback: BatchSendCallback) -> None:
        raise NotImplementedError


def addresses(networks: Sequence[Network], distinct: int) -> list[int]:
    """As many addresses of some networks, in turn, as a batch has entries."""
    chosen = []
    for turn in range(distinct):
        network = networks[turn % len(networks)]
        chosen.append(int(network.network_address) + 1 + random.randrange(network.num_addresses - 2))
    return [chosen[turn % distinct] for turn in range(BATCH)]


def batches(networks: Sequence[Network], distinct: int, count: int = 64) -> list[Batch]:
    """Batches from a fixed set of addresses in varying order."""
    made = []
    hosts = addresses(networks, distinct)
    for _ in range(count):
        random.shuffle(hosts)
        ports = [random.randrange(32768, 61000) for _ in hosts]
        made.append(Batch(list(hosts), ports, networks[0].version == 6))
    return made


def cost(guard: Guard, some: list[Batch], rounds: int) -> float:
    """The processor time of a batch, in microseconds, the best of five."""

    def once() -> float:
        began = time.process_time()
        for _ in range(rounds):
            for batch in some:
                guard.refuseEntries(batch)
        return (time.process_time() - began) / rounds / len(some) * 1e6

    return min(once() for _ in range(5))


def flood(guard: Guard, sources: int, fresh: Callable[[int], list[int]]) -> tuple[float, int]:
    """Show the guard datagrams, each from a source that it never saw.

    @return: the processor time of a datagram in microseconds, and how many KiB the process grew.
    """
    ports = [40000] * BATCH
    before, spent = 0, 0.0
    for turn in range(sources // BATCH):
        batch = Batch(fresh(turn), ports, False)
        began = time.process_time()
        guard.refuseEntries(batch)
        spent += time.process_time() - began
        if turn == 1000:
            before = resident()
    return spent / (sources // BATCH) / BATCH * 1e6, resident() - before


def resident() -> int:
    """The memory that the process has in use now, in KiB; 0 where the system does not tell."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    except OSError:
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description="What the guard costs.")
    parser.add_argument("--rounds", type=int, default=100, help="times 64 batches in each measurement (default: %(default)s)")
    parser.add_argument("--sources", type=int, default=10_000_000, help="how many in the flood (default: %(default)s)")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, batches of {BATCH} entries, processor time")
    lan = [IPv4Network("10.0.0.0/8")]
    private = [network for network in PRIVATE if isinstance(network, IPv4Network)]
    world = [IPv4Network("192.0.2.0/24"), IPv4Network("20.0.0.0/8"), IPv4Network("130.0.0.0/8")]
    ula, world6 = [IPv6Network("fd00::/8")], [IPv6Network("2001:db8::/32")]
    endless = GuardPolicy(rate=10**9, burst=10**9)
    cases: list[tuple[str, GuardPolicy, list[Network], int]] = [
        ("trusted, one network", GuardPolicy(), [*lan], 64),
        ("trusted, one network", GuardPolicy(), [*lan], 1),
        ("trusted, five networks", GuardPolicy(), [*private], 64),
        ("trusted, IPv6", GuardPolicy(), [*ula], 64),
        ("trusted, with a ceiling", GuardPolicy(maxRate=10**9), [*lan], 64),
        ("limited, within the limit", endless, [*world], 64),
        ("limited, within the limit", endless, [*world], 8),
        ("limited, within the limit", endless, [*world], 1),
        ("limited, within the limit, IPv6", endless, [*world6], 64),
        ("limited, over the limit", GuardPolicy(rate=1, burst=1), [*world], 64),
        ("limited, over the limit", GuardPolicy(rate=1, burst=1), [*world], 1),
        ("not allowed", GuardPolicy(allow=tuple(lan), trust=ANY), [*world], 64),
    ]
    for name, policy, networks, distinct in cases:
        took = cost(Guard(policy), batches(networks, distinct), options.rounds)
        print(f"{name + ',':<33}{distinct:>3} sources: {took:7.2f} µs a batch, {took / BATCH:6.3f} µs a datagram")
    # An odd stride through all addresses repeats none.
    limited = IPv4Network("64.0.0.0/2")
    start = int(limited.network_address)
    took, grew = flood(
        Guard(GuardPolicy(trust=())),
        options.sources,
        lambda turn: [start + (turn * BATCH + index) * 0x2545F491 % limited.num_addresses for index in range(BATCH)],
    )
    print(f"a flood from {options.sources} sources, limited: {took:.3f} µs a datagram, memory grew by {grew} KiB")


if __name__ == "__main__":
    main()
