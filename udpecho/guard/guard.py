"""Decides who is answered, and how much, for many sources at once. Nothing here uses a socket.

A datagram with a forged source makes an echo server send to a victim, and if the victim answers too, the two never stop (CERT
CA-1996-01, CVE-2024-2169).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from zope.interface import implementer

from udpecho.guard.heavy_hitters import HeavyHitters
from udpecho.guard.limiter import Ceiling, Elapsed, PrefixLimiter
from udpecho.guard.networks import MAPPED
from udpecho.guard.policy import FIRST_UNPRIVILEGED_PORT, SERVICES, GuardPolicy
from udpecho.guard.verdicts import LIMITED, UNLIMITED, Verdicts
from udpecho.interfaces import DROP_REASONS, IBatchGuard, IDatagramBatch
from udpecho.pieces import Work, finish

_allUnlimited, _allLimited = frozenset([UNLIMITED]), frozenset([LIMITED])


@implementer(IBatchGuard)
class Guard:
    """The guard of an echo server.

    The loop guard comes first, then the allowed networks, then the limits; a datagram that one refuses is not charged by the
    next. A batch from one trusted network costs three vector operations: the lowest host, the highest host, and whether any
    port is refused.

    No memory grows with the number of sources: the limiter's table and the counters of the busiest have fixed sizes.

    @ivar wouldDrop: in a dry run, how many datagrams would have been dropped, by reason.
    """

    def __init__(
        self,
        policy: GuardPolicy | None = None,
        ownPorts: Iterable[int] = (),
        broadcasts: Iterable[IPv4Address] = (),
        dualStack: bool = False,
        seconds: Callable[[], float] = time.monotonic,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """@param policy: the operator's decisions; by default C{GuardPolicy()}.
        @param ownPorts: the ports that the servers of this machine echo on. Datagrams from these ports are refused, from any
            host: else two servers of one kind, or one alone, could be made to answer each other. (A client on this machine
            has another port.)
        @param broadcasts: the broadcast addresses of our own networks.
        @param dualStack: whether IPv6 batches come from a socket that serves IPv4 too. Its IPv4-mapped sources are judged as
            IPv4 addresses then; else they are refused.
        @param seconds: a clock, in seconds; it may be set back.
        @param entropy: returns the given number of random bytes, for the limiter's secret and its draws.
        """
        self.wouldDrop: Counter[str] = Counter()
        self._now = Elapsed(seconds).now
        self._entropy = entropy
        self._dualStack = dualStack
        self._broadcasts = tuple(map(IPv4Network, broadcasts))
        self._ownPorts = frozenset(ownPorts)
        self._limiter: PrefixLimiter | None = None
        self._ceiling: Ceiling | None = None
        self._busiest = {reason: HeavyHitters[tuple[bool, int, int]]() for reason in DROP_REASONS}
        self.configure(GuardPolicy() if policy is None else policy)

    @property
    def policy(self) -> GuardPolicy:
        """The policy in force."""
        return self._policy

    def makeVerdicts(self, policy: GuardPolicy) -> Work[Verdicts]:
        """Prepare a policy for L{configure}."""
        return Verdicts.make(policy, self._broadcasts)

    def configure(self, policy: GuardPolicy | Verdicts) -> None:
        """Replace the policy. The limiter and the ceiling keep their state unless their own rates change.

        @param policy: the policy, or what L{makeVerdicts} made of it: then it takes no time, however many networks there are.
        """
        verdicts = policy if isinstance(policy, Verdicts) else finish(self.makeVerdicts(policy))
        policy = verdicts.policy
        limiter, ceiling = self._limiter, self._ceiling
        if not policy.rate:
            self._limiter = None
        elif limiter is None or (limiter.rate, limiter.burst) != (policy.rate, policy.burst):
            self._limiter = PrefixLimiter(policy.rate, policy.burst, entropy=self._entropy)
        if not policy.maxRate:
            self._ceiling = None
        elif ceiling is None or ceiling.rate != policy.maxRate:
            self._ceiling = Ceiling(policy.maxRate)
        self._policy = policy
        # The IPv6 map has no verdict on IPv4-mapped sources of a dual-stack socket.
        self._canSkip = (not policy.maxRate, not policy.maxRate and not self._dualStack)
        self._maps = verdicts.maps
        self.setOwnPorts(self._ownPorts)

    def setOwnPorts(self, ports: Iterable[int]) -> None:
        """Set the ports that the servers of this machine echo on, once they are known."""
        self._ownPorts = frozenset(ports)
        loops = {*range(FIRST_UNPRIVILEGED_PORT), *SERVICES, *self._ownPorts}
        self._ports = frozenset(loops if self._policy.refuseLoops else ())

    @property
    def fill(self) -> float:
        """How much of the limiter's table is in use, from 0 to 1."""
        return 0.0 if self._limiter is None else self._limiter.fill(self._now())

    def busiest(self, most: int) -> dict[str, list[tuple[str, int]]]:
        """The prefixes from which most of the dropped datagrams came since the last call.

        @return: for each reason at most C{most} prefixes with the number of datagrams dropped, at least, the busiest first. A
            prefix is that of a single source (/32, /64), or the wide one (/24, /48) if that was over its limit.
        """
        drained = {reason: busiest.drain(most) for reason, busiest in self._busiest.items()}
        return {reason: [(_prefix(*key), count) for key, count in found] for reason, found in drained.items() if found}

    def refuse(self, size: int, address: tuple[str, int]) -> str | None:
        """@see: L{IGuard.refuse <udpecho.interfaces.IGuard.refuse>}"""
        source = _number(address[0])
        if source is None:
            return "not_allowed"
        host, isIPv6 = source
        return next((reason for _, reason in self.decide((host,), (address[1],), (1,), isIPv6)), None)

    def refuseEntries(self, batch: IDatagramBatch) -> None:
        """@see: L{IBatchGuard.refuseEntries <udpecho.interfaces.IBatchGuard.refuseEntries>}"""
        hosts, ports, isIPv6 = batch.hosts(), batch.ports(), batch.isIPv6
        if self._canSkip[isIPv6] and self._maps[isIPv6].valuesOf(hosts) == _allUnlimited and self._ports.isdisjoint(ports):
            return
        for entry, reason in self.decide(hosts, ports, batch.counts(), isIPv6):
            batch.drop(entry, reason)

    def decide(
        self, hosts: Sequence[int], ports: Sequence[int], counts: Sequence[int], isIPv6: bool
    ) -> Collection[tuple[int, str]]:
        """Decide about entries that arrived together, each with a source address, as a number, and a source port.

        @param counts: how many datagrams each entry has.
        @return: the indexes of the entries to drop, with the reasons. In a dry run there are none.
        """
        if isIPv6 and self._dualStack:
            return self._decideMixed(hosts, ports, counts)
        return self._decide(hosts, ports, counts, isIPv6)

    def _decideMixed(self, hosts: Sequence[int], ports: Sequence[int], counts: Sequence[int]) -> list[tuple[int, str]]:
        prefix = int(MAPPED.network_address) >> 32
        entries: tuple[list[int], list[int]] = ([], [])
        for entry, host in enumerate(hosts):
            entries[host >> 32 != prefix].append(entry)
        refused: list[tuple[int, str]] = []
        for isIPv6, some in enumerate(entries):
            if some:
                found = self._decide(
                    [hosts[entry] if isIPv6 else hosts[entry] & 0xFFFFFFFF for entry in some],
                    [ports[entry] for entry in some],
                    [counts[entry] for entry in some],
                    bool(isIPv6),
                )
                refused += [(some[index], reason) for index, reason in found]
        return refused

    def _decide(
        self, hosts: Sequence[int], ports: Sequence[int], counts: Sequence[int], isIPv6: bool
    ) -> Collection[tuple[int, str]]:
        refused: dict[int, str] = {}
        if not self._ports.isdisjoint(ports):
            refused = {entry: "loop_guard" for entry, port in enumerate(ports) if port in self._ports}
        limitedPrefixLengths: dict[int, int] = {}
        verdicts = self._maps[isIPv6].valuesOf(hosts)
        if verdicts == _allLimited and not refused:
            limitedPrefixLengths = self._limit(hosts, counts, isIPv6)
        elif verdicts != _allUnlimited:
            limited = self._refuseSources(hosts, isIPv6, refused)
            if limited:
                found = self._limit([hosts[entry] for entry in limited], [counts[entry] for entry in limited], isIPv6)
                limitedPrefixLengths = {limited[index]: length for index, length in found.items()}
        refused.update(dict.fromkeys(limitedPrefixLengths, "rate_limited"))
        if self._ceiling is not None:
            answered = [entry for entry in range(len(hosts)) if entry not in refused]
            over = self._ceiling.refuse([counts[entry] for entry in answered], self._now())
            refused.update({answered[index]: "rate_limited" for index in over})
        if not refused:
            return ()
        self._countDropped(refused, limitedPrefixLengths, hosts, counts, isIPv6)
        return () if self._policy.dryRun else refused.items()

    def _refuseSources(self, hosts: Sequence[int], isIPv6: bool, refused: dict[int, str]) -> list[int]:
        """Add entries to C{refused}, and return those that the limiter has to decide about."""
        addresses = self._maps[isIPv6]
        verdicts = {host: addresses[host] for host in set(hosts)}
        limited: list[int] = []
        for entry, host in enumerate(hosts):
            verdict = verdicts[host]
            if verdict == UNLIMITED or entry in refused:
                continue
            if verdict == LIMITED:
                limited.append(entry)
            else:
                refused[entry] = verdict
        return limited

    def _limit(self, hosts: Sequence[int], counts: Sequence[int], isIPv6: bool) -> dict[int, int]:
        assert self._limiter is not None
        return self._limiter.refuse(hosts, counts, isIPv6, self._now())

    def _countDropped(
        self,
        refused: dict[int, str],
        limitedPrefixLengths: dict[int, int],
        hosts: Sequence[int],
        counts: Sequence[int],
        isIPv6: bool,
    ) -> None:
        bits, narrowest = (128, 64) if isIPv6 else (32, 32)
        sums: dict[tuple[str, int, int], int] = {}
        for entry, reason in refused.items():
            length = limitedPrefixLengths.get(entry, narrowest)
            key = reason, hosts[entry] >> bits - length, length
            sums[key] = sums[key] + counts[entry] if key in sums else counts[entry]
        for (reason, prefix, length), datagrams in sums.items():
            self._busiest[reason].add((isIPv6, prefix, length), datagrams)
            if self._policy.dryRun:
                self.wouldDrop[reason] += datagrams


def _prefix(isIPv6: bool, number: int, length: int) -> str:
    return str(IPv6Network((number << 128 - length, length)) if isIPv6 else IPv4Network((number << 32 - length, length)))


@lru_cache(512)
def _number(host: str) -> tuple[int, bool] | None:
    """An address as a number, and whether it is IPv6; C{None} if it is no IP address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return int(address), isinstance(address, IPv6Address)
