"""Strategies for Hypothesis: networks and faults, so that it finds the few decisions that make a test fail.

All of them need Hypothesis, C{pip install hypothesis}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from udpecho.faults.decision import CORRUPTED, DELAYED, DUPLICATED, LOST, TRUNCATED, Decision, Replay
from udpecho.faults.models import GilbertElliott
from udpecho.faults.plan import FaultPlan
from udpecho.testing.memory_network import MemoryNetwork

try:
    from hypothesis import strategies as st
except ImportError as e:
    raise ImportError("udpecho.testing.strategies must have Hypothesis, which is not installed: pip install hypothesis") from e

#: The addresses of the hosts of L{networks}, by their names.
HOSTS = {"client": "192.0.2.1", "server": "192.0.2.2"}
#: The faults of L{decisions} and L{networks}, the simplest first, to which Hypothesis shrinks.
FAULTS = (LOST, DUPLICATED, DELAYED, CORRUPTED, TRUNCATED)


def faults(kinds: Sequence[str] = FAULTS, maxDelay: float = 1.0) -> st.SearchStrategy[Decision]:
    """Decisions with one fault.

    @param kinds: those that may be.
    @param maxDelay: the longest delay, in seconds.
    @raise ValueError: if there is no such fault.
    """
    wrong = [kind for kind in kinds if kind not in FAULTS]
    if wrong or not kinds:
        raise ValueError(f"kinds must be some of {', '.join(FAULTS)}, got {', '.join(wrong) or 'none'}")
    delays = st.integers(1, max(1, round(maxDelay * 1000))).map(lambda milliseconds: milliseconds / 1000)
    made: dict[str, st.SearchStrategy[Decision]] = {
        LOST: st.just(Decision((LOST,), ())),
        DUPLICATED: st.one_of(st.just(0.0), delays).map(lambda later: Decision((DUPLICATED,), (0.0, later))),
        DELAYED: delays.map(lambda delay: Decision((DELAYED,), (delay,))),
        CORRUPTED: st.integers(0, 2**16).map(lambda bit: Decision((CORRUPTED,), (0.0,), flipped=bit)),
        TRUNCATED: st.integers(0, 2**10).map(lambda size: Decision((TRUNCATED,), (0.0,), truncatedTo=size)),
    }
    return st.one_of([made[kind] for kind in kinds])


def decisions(
    datagrams: int = 100, most: int = 10, kinds: Sequence[str] = FAULTS, maxDelay: float = 1.0
) -> st.SearchStrategy[Replay]:
    """Deciders with few faults, for the C{plan} of a network, a link or a proxy. They print as the code that makes them.

    @param datagrams: the first so many datagrams may have a fault.
    @param most: how many of them have one at most.
    @param kinds: the faults that may be.
    @param maxDelay: the longest delay, in seconds.
    """
    numbers = st.dictionaries(st.integers(0, datagrams - 1), faults(kinds, maxDelay), max_size=most)
    return numbers.map(lambda found: Replay("\n".join(f"{number}: {decision}" for number, decision in sorted(found.items()))))


def faultPlans(maxShare: float = 0.3, maxDelay: float = 0.1) -> st.SearchStrategy[FaultPlan]:
    """Fault plans with all their faults. They shrink to few faults; L{decisions} to few datagrams.

    @param maxShare: the largest share of datagrams with each fault, from 0 to 1.
    @param maxDelay: the longest fixed delay, and the largest jitter, in seconds.
    """
    shares, delays = st.floats(0, maxShare), st.floats(0, maxDelay)
    return st.builds(
        FaultPlan,
        st.integers(0, 2**32),
        loss=shares,
        duplicate=shares,
        reorder=shares,
        corrupt=shares,
        truncate=shares,
        delay=delays,
        jitter=delays,
        burst=st.none() | st.builds(GilbertElliott, p=shares, r=st.floats(0.1, 1)),
        mtu=st.none() | st.integers(500, 1500),
    )


def makeNetwork(hosts: Mapping[str, str | Iterable[str]], latency: float = 0.0, replay: str = "") -> MemoryNetwork:
    """A network as L{networks} makes it, to replay what Hypothesis prints.

    @param hosts: the address of each host by its name, or its addresses.
    @param latency: as C{MemoryNetwork} takes it, in seconds.
    @param replay: the decisions, as L{MemoryNetwork.replay} takes them.
    """
    network = MemoryNetwork(latency=latency)
    for name, addresses in hosts.items():
        network.host(name, *([addresses] if isinstance(addresses, str) else addresses))
    network.replay(replay)
    return network


def networks(
    hosts: Mapping[str, str | Iterable[str]] = HOSTS,
    latency: float = 0.0,
    datagrams: int = 100,
    most: int = 10,
    kinds: Sequence[str] = FAULTS,
    maxDelay: float = 1.0,
) -> st.SearchStrategy[MemoryNetwork]:
    """Networks with few faults on the links between their hosts. A failing example prints as the code that makes its network.

    @param hosts: the address of each host by its name, or its addresses; two of them or more.
    @param latency: the delay of each datagram between two hosts, in seconds.
    @param datagrams: the first so many datagrams of each link may have a fault.
    @param most: how many datagrams have one at most.
    @param kinds: the faults that may be.
    @param maxDelay: the longest delay, in seconds.
    """
    links = [f"{source} > {destination}" for source in hosts for destination in hosts if source != destination]
    places = st.tuples(st.sampled_from(links), st.integers(0, datagrams - 1))
    found = st.dictionaries(places, faults(kinds, maxDelay), max_size=most)
    texts = found.map(
        lambda found: "\n".join(f"{link} {number}: {decision}" for (link, number), decision in sorted(found.items()))
    )
    return st.builds(makeNetwork, st.just(dict(hosts)), latency=st.just(latency), replay=texts)
