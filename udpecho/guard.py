"""
Who is answered, and how much: decisions on vectors of sources. Nothing here knows of a socket.

What echoes can be turned against others, and against itself: a datagram with a forged source makes it send to whom it should
not, and if that answers too, the two go on for ever (CERT CA-1996-01, CVE-2024-2169). The guard refuses sources that are known
to answer, or that are no sources at all; it keeps to the networks it is given; and it limits what any one source can have sent
to itself, or to a victim in its name.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from zope.interface import implementer

from udpecho.busiest import Busiest
from udpecho.counters import DROP_REASONS
from udpecho.interfaces import IBatchGuard, IDatagramBatch
from udpecho.limiter import Ceiling, Elapsed, PrefixLimiter
from udpecho.networks import ANY, LOOPBACK, MAPPED, PRIVATE, AddressMap, AddressRanges, Network, Networks

#: The ports from which services of the system answer: all below are refused, as in every inetd since CERT CA-1996-01. Echo,
#: chargen, QOTD, daytime, time, TFTP, DNS and NTP, which CVE-2024-2169 (VU#417980) is about, are among them.
FIRST_UNPRIVILEGED_PORT = 1024
#: Services on higher ports that answer what they did not ask for, each with the reason to send them nothing. A client that
#: happens to send from one of these has no replies. Linux chooses ports from 32768 on, macOS and Windows from 49152 (RFC 6335
#: section 6), all higher; where lower ones are chosen too, as by translators of addresses, each is one of some ten thousands.
SERVICES: Mapping[int, str] = {
    1434: "SQL Server's resolution service sends the byte 0x0A back as it came: an echo itself (CVE-2002-0650, MS02-039)",
    1900: "SSDP answers a search with many datagrams (TA14-017A)",
    2049: "NFS; refused by OpenBSD's inetd (dg_badinput) and by xinetd",
    3702: "WS-Discovery answers five malformed bytes with some 300 times as many (Shadowserver, Akamai 2019)",
    5353: "multicast DNS answers queries that are sent to it alone (TA14-017A, VU#550620)",
    11211: "memcached answers with up to 51000 times the bytes (TA14-017A)",
    27015: "Steam's and Source's game servers answer queries (TA14-017A)",
    27960: "Quake's game servers answer queries (TA14-017A)",
}

#: Datagrams a second for each source outside the trusted networks. One each millisecond is the fastest steady probing that
#: tells more of a network than of the prober's clock, so no diagnostic tool is in the way; and 1000 datagrams of an Ethernet's
#: length are 12 Mbit/s, as many as their sender had to send, which makes nobody an attacker who was none before. Servers whose
#: replies are longer than the requests, and whose clients ask less often, are stricter: Knot DNS 50, NSD 200.
DEFAULT_RATE = 1000
#: How many of them may come at once: those of a whole second, so that it does not matter how a client spreads them in it.
DEFAULT_BURST = 1000

#: IPv4 sources that no host has: "this network" and broadcast (RFC 1122 section 3.2.1.3), and multicast (RFC 1112 section 7.2).
_noHostsIPv4 = (IPv4Network("0.0.0.0/8"), IPv4Network("224.0.0.0/4"), IPv4Network("255.255.255.255/32"))
#: IPv4 addresses that mean nothing outside of one network, so that an IPv6 address made from one is forged or misconfigured.
_localIPv4 = (
    *_noHostsIPv4,
    IPv4Network("127.0.0.0/8"),
    *(network for network in PRIVATE if isinstance(network, IPv4Network)),
    IPv4Network("240.0.0.0/4"),
)


def _embedded(prefix: str, network: IPv4Network) -> IPv6Network:
    """
    An IPv4 network as it is written behind an IPv6 prefix.
    """
    outer = IPv6Network(prefix)
    length = outer.prefixlen + network.prefixlen
    shift = 128 - outer.prefixlen - 32
    return IPv6Network((int(outer.network_address) | int(network.network_address) << shift, length))


#: IPv6 sources that no host has. Unspecified and IPv4-compatible, which is obsolete (RFC 4291 sections 2.5.2 and 2.5.5.1), are
#: all of ::/96 but loopback. IPv4-mapped must not be on the wire (RFC 4942 section 2.2), and a socket for IPv6 alone has no
#: other. Then multicast (RFC 4291 section 2.7), and 6to4 (RFC 3964 section 5.3) and NAT64 (RFC 6052 section 3.1) with an IPv4
#: address in them that no host has, or only one of some private network.
_noHostsIPv6 = (
    *IPv6Network("::/96").address_exclude(IPv6Network("::1/128")),
    MAPPED,
    IPv6Network("ff00::/8"),
    *(_embedded("2002::/16", network) for network in _localIPv4),
    *(_embedded("64:ff9b::/96", network) for network in _localIPv4),
)

# What is true of a source, besides the reasons to refuse it.
_free, _limited = "free", "limited"
_allFree, _allLimited = frozenset([_free]), frozenset([_limited])


@dataclass(frozen=True)
class GuardPolicy:
    """
    What an operator decides.

    @ivar allow: whom to answer at all.
    @ivar trust: whom to answer without a limit, if at all.
    @ivar rate: datagrams a second for every other source, as a narrow prefix; 0 for no limit.
    @ivar burst: how many of them may come at once, 1 or more.
    @ivar maxRate: datagrams a second for all sources together, trusted ones too; 0 for no ceiling.
    @ivar loops: whether to refuse sources that might answer.
    @ivar dryRun: count what would be dropped, and drop nothing.
    """

    allow: Networks = ANY
    trust: Networks = (*LOOPBACK, *PRIVATE)
    rate: int = DEFAULT_RATE
    burst: int = DEFAULT_BURST
    maxRate: int = 0
    loops: bool = True
    dryRun: bool = False

    def asSettings(self) -> dict[str, Any]:
        """
        Write this in a way that JSON can carry.
        """
        named = {name: [str(network) for network in getattr(self, name)] for name in ("allow", "trust")}
        return {**asdict(self), **named}

    @classmethod
    def fromSettings(cls, settings: Mapping[str, Any]) -> GuardPolicy:
        """
        Read what L{asSettings} has written.
        """
        networks = {name: tuple(map(ip_network, settings[name])) for name in ("allow", "trust")}
        return cls(**{**settings, **networks})

    def __post_init__(self) -> None:
        for name in ("allow", "trust"):
            networks = getattr(self, name)
            if isinstance(networks, str) or not all(isinstance(network, (IPv4Network, IPv6Network)) for network in networks):
                raise TypeError(
                    f"{name} is a tuple of networks, not {networks!r}: udpecho.networks.parseNetwork makes one of a text"
                )
        for name, lowest in (("rate", 0), ("burst", 1), ("maxRate", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is a whole number, not {value!r}")
            if value < lowest:
                raise ValueError(f"{name} is {value}: {lowest} or more is right")


@implementer(IBatchGuard)
class Guard:
    """
    The guard of an echo server.

    The loop guard comes first, then who is allowed, then the limits; a datagram that one refuses is not charged by the next. On
    batches from one trusted network it costs three operations on vectors: the lowest host, the highest, and whether any port is
    one of those that are refused.

    No memory grows with the number of sources: the limiter's table, and the counters of the busiest, have fixed sizes.

    @ivar wouldDrop: in a dry run, the datagrams that would have been dropped, by reason.
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
        """
        @param policy: what the operator decided; by default what L{GuardPolicy} has.
        @param ownPorts: the ports that the servers of this machine echo on. Nothing that comes from them is answered, from
            whatever host: same port to same port is how two servers of one kind are made to talk to each other, and our own
            address with our own port is how one is made to talk to itself. (A client on this machine has our own address too,
            but another port.)
        @param broadcasts: the broadcast addresses of our own networks.
        @param dualStack: that IPv6 batches come from a socket which serves IPv4 too; its IPv4-mapped sources are then judged as
            the IPv4 addresses that they are. Else they are refused.
        @param seconds: the time; it may be set back.
        @param entropy: gives so many random bytes: for the key of the limiter's table, and for its lots.
        """
        self.wouldDrop: Counter[str] = Counter()
        self._now = Elapsed(seconds).now
        self._entropy = entropy
        self._dualStack = dualStack
        self._broadcasts = tuple(map(IPv4Network, broadcasts))
        self._ownPorts = frozenset(ownPorts)
        self._limiter: PrefixLimiter | None = None
        self._ceiling: Ceiling | None = None
        self._busiest = {reason: Busiest[tuple[bool, int, int]]() for reason in DROP_REASONS}
        self.configure(GuardPolicy() if policy is None else policy)

    @property
    def policy(self) -> GuardPolicy:
        """
        What the operator decided.
        """
        return self._policy

    def configure(self, policy: GuardPolicy) -> None:
        """
        Go on with another policy. What the limiter and the ceiling know of the past they keep, unless their own rates change.
        """
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
        # The map of IPv6 does not know what to think of mapped sources.
        self._mayPass = (not policy.maxRate, not policy.maxRate and not self._dualStack)
        self._maps = (
            _judge(policy, 4, (*_noHostsIPv4, *self._broadcasts)),
            _judge(policy, 6, _noHostsIPv6),
        )
        self.setOwnPorts(self._ownPorts)

    def setOwnPorts(self, ports: Iterable[int]) -> None:
        """
        Say which ports the servers of this machine echo on, once that is known.
        """
        self._ownPorts = frozenset(ports)
        loops = {*range(FIRST_UNPRIVILEGED_PORT), *SERVICES, *self._ownPorts}
        self._ports = frozenset(loops if self._policy.loops else ())

    @property
    def fill(self) -> float:
        """
        How much of the limiter's table is in use: a share, from 0 to 1.
        """
        return 0.0 if self._limiter is None else self._limiter.fill(self._now())

    def busiest(self, most: int) -> dict[str, list[tuple[str, int]]]:
        """
        Say from where most of what was dropped came, since the last call.

        @param most: how many prefixes to name for each reason.

        @return: by reason the prefixes, each with how many datagrams at least were dropped, the busiest first. These are the
            prefixes of single sources (/32, /64), or the wide ones (/24, /48) if it was they that were over their limit.
        """
        taken = {reason: busiest.take(most) for reason, busiest in self._busiest.items()}
        return {reason: [(_prefix(*key), count) for key, count in found] for reason, found in taken.items() if found}

    def refuse(self, size: int, address: tuple[str, int]) -> str | None:
        """
        @see: L{IGuard.refuse <udpecho.interfaces.IGuard.refuse>}
        """
        source = _number(address[0])
        if source is None:
            # Nothing can be said for what is no IP address.
            return "not_allowed"
        host, isIPv6 = source
        for _, reason in self.decide((host,), (address[1],), (1,), isIPv6):
            return reason
        return None

    def refuseEntries(self, batch: IDatagramBatch) -> None:
        """
        @see: L{IBatchGuard.refuseEntries <udpecho.interfaces.IBatchGuard.refuseEntries>}
        """
        hosts, ports, isIPv6 = batch.hosts(), batch.ports(), batch.isIPv6
        if self._mayPass[isIPv6] and self._maps[isIPv6].valuesOf(hosts) == _allFree and self._ports.isdisjoint(ports):
            return
        for entry, reason in self.decide(hosts, ports, batch.counts(), isIPv6):
            batch.drop(entry, reason)

    def decide(
        self, hosts: Sequence[int], ports: Sequence[int], counts: Sequence[int], isIPv6: bool
    ) -> Collection[tuple[int, str]]:
        """
        Decide about datagrams that came at one moment.

        @param hosts: the source address of each entry, as a number.
        @param ports: the source port of each.
        @param counts: how many datagrams each is.
        @param isIPv6: whether the sources are IPv6 addresses.

        @return: the entries to drop, by their index, with the reason. In a dry run there are none.
        """
        if isIPv6 and self._dualStack:
            return self._decideMixed(hosts, ports, counts)
        return self._decide(hosts, ports, counts, isIPv6)

    def _decideMixed(self, hosts: Sequence[int], ports: Sequence[int], counts: Sequence[int]) -> list[tuple[int, str]]:
        """
        Decide about the IPv4-mapped sources, and then about the others.
        """
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
        lengths: dict[int, int] = {}
        verdicts = self._maps[isIPv6].valuesOf(hosts)
        if verdicts == _allLimited and not refused:
            lengths = self._limit(hosts, counts, isIPv6)
        elif verdicts != _allFree:
            limited = self._refuseSources(hosts, isIPv6, refused)
            if limited:
                found = self._limit([hosts[entry] for entry in limited], [counts[entry] for entry in limited], isIPv6)
                lengths = {limited[index]: length for index, length in found.items()}
        refused.update(dict.fromkeys(lengths, "rate_limited"))
        if self._ceiling is not None:
            answered = [entry for entry in range(len(hosts)) if entry not in refused]
            over = self._ceiling.refuse([counts[entry] for entry in answered], self._now())
            refused.update({answered[index]: "rate_limited" for index in over})
        if not refused:
            return ()
        self._note(refused, lengths, hosts, counts, isIPv6)
        return () if self._policy.dryRun else refused.items()

    def _refuseSources(self, hosts: Sequence[int], isIPv6: bool, refused: dict[int, str]) -> list[int]:
        """
        Judge each source, and add the entries of those that are refused.

        @return: the entries that the limiter has to decide about.
        """
        judged = self._maps[isIPv6]
        verdicts = {host: judged[host] for host in set(hosts)}
        limited: list[int] = []
        for entry, host in enumerate(hosts):
            verdict = verdicts[host]
            if verdict == _free or entry in refused:
                continue
            if verdict == _limited:
                limited.append(entry)
            else:
                refused[entry] = verdict
        return limited

    def _limit(self, hosts: Sequence[int], counts: Sequence[int], isIPv6: bool) -> dict[int, int]:
        assert self._limiter is not None
        return self._limiter.refuse(hosts, counts, isIPv6, self._now())

    def _note(
        self, refused: dict[int, str], lengths: dict[int, int], hosts: Sequence[int], counts: Sequence[int], isIPv6: bool
    ) -> None:
        """
        Remember what is dropped, or would be.
        """
        bits, narrowest = (128, 64) if isIPv6 else (32, 32)
        sums: dict[tuple[str, int, int], int] = {}
        for entry, reason in refused.items():
            length = lengths.get(entry, narrowest)
            key = reason, hosts[entry] >> bits - length, length
            sums[key] = sums[key] + counts[entry] if key in sums else counts[entry]
        for (reason, prefix, length), datagrams in sums.items():
            self._busiest[reason].add((isIPv6, prefix, length), datagrams)
            if self._policy.dryRun:
                self.wouldDrop[reason] += datagrams


def _judge(policy: GuardPolicy, version: int, noHosts: Iterable[Network]) -> AddressMap[str]:
    """
    What a policy says of every source of one family, as far as the address alone decides.
    """
    refused = AddressRanges(noHosts if policy.loops else (), version)
    allowed = AddressRanges(policy.allow, version)
    trusted = AddressRanges(policy.trust if policy.rate else ANY, version)

    def verdict(address: int) -> str:
        if address in refused:
            return "loop_guard"
        if address not in allowed:
            return "not_allowed"
        return _free if address in trusted else _limited

    return AddressMap([*refused.edges, *allowed.edges, *trusted.edges], verdict)


def _prefix(isIPv6: bool, number: int, length: int) -> str:
    """
    Write a prefix as people do.
    """
    if isIPv6:
        return str(IPv6Network((number << 128 - length, length)))
    return str(IPv4Network((number << 32 - length, length)))


@lru_cache(512)
def _number(host: str) -> tuple[int, bool] | None:
    """
    An address as a number, and whether it is IPv6; C{None} if it is no IP address.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return int(address), isinstance(address, IPv6Address)


__all__ = ["DEFAULT_BURST", "DEFAULT_RATE", "FIRST_UNPRIVILEGED_PORT", "SERVICES", "Guard", "GuardPolicy"]
