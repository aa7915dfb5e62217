"""What a guard allows, and the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from udpecho.guard.networks import ANY, LOOPBACK, PRIVATE, Networks, joinNetworks, splitNetworks
from udpecho.pieces import Work

#: All lower ports belong to services of the system and are refused, as in every inetd since CERT CA-1996-01. Echo, chargen,
#: QOTD, daytime, time, TFTP, DNS and NTP, the subject of CVE-2024-2169 (VU#417980), are among them.
FIRST_UNPRIVILEGED_PORT = 1024
#: Services on higher ports that answer unexpected datagrams, each with the reason to send nothing to it. A client that happens
#: to send from such a port gets no replies. Linux chooses source ports from 32768 on, macOS and Windows from 49152 (RFC 6335
#: section 6), all higher; network address translators choose lower ones too, one of these for about one
#: socket in eight thousand (8 of 64512 ports).
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

#: Datagrams a second for each source outside the trusted networks. One a millisecond is the fastest steady probing that
#: measures the network more than the prober's clock, so diagnostic tools stay below it. 1000 datagrams of an Ethernet's length
#: are 12 Mbit/s, and their sender had to send as much, so an attacker gains nothing. Servers with replies longer than the
#: requests, and with less frequent requests, are stricter: Knot DNS 50, NSD 200.
DEFAULT_RATE = 1000
#: How many of them may arrive at once: a whole second's, so that it does not matter how a client spreads them over it.
DEFAULT_BURST = 1000


@dataclass(frozen=True)
class GuardPolicy:
    """The operator's decisions.

    @ivar allow: the networks to answer at all.
    @ivar trust: the networks without a limit for each source, if they are allowed.
    @ivar rate: datagrams a second for every other source (IPv4 /32, IPv6 /64); 0 for no limit.
    @ivar burst: how many of these datagrams may arrive at once, 1 or more.
    @ivar maxRate: datagrams a second for all sources together, trusted ones too; 0 for no ceiling.
    @ivar refuseLoops: whether to refuse sources that might answer our replies.
    @ivar dryRun: whether to count what would be dropped, and drop nothing.
    """

    allow: Networks = ANY
    trust: Networks = (*LOOPBACK, *PRIVATE)
    rate: int = DEFAULT_RATE
    burst: int = DEFAULT_BURST
    maxRate: int = 0
    refuseLoops: bool = True
    dryRun: bool = False

    def asSettings(self) -> Work[dict[str, Any]]:
        """The policy as values that JSON can carry; the networks are one text, each once."""
        allow = yield from joinNetworks(self.allow)
        trust = yield from joinNetworks(self.trust)
        return {**vars(self), "allow": allow, "trust": trust}

    @classmethod
    def fromSettings(cls, settings: Mapping[str, Any]) -> Work[GuardPolicy]:
        """The policy that L{asSettings} returned the values of."""
        allow = yield from splitNetworks(settings["allow"])
        trust = yield from splitNetworks(settings["trust"])
        return cls(**{**settings, "allow": allow, "trust": trust})

    def __post_init__(self) -> None:
        for name in ("allow", "trust"):
            networks = getattr(self, name)
            if isinstance(networks, str) or not all(isinstance(net, (IPv4Network, IPv6Network)) for net in networks):
                raise TypeError(f"{name} must be a tuple of networks, as parseNetwork returns, got {networks!r}")
        for name, lowest in (("rate", 0), ("burst", 1), ("maxRate", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < lowest:
                raise ValueError(f"{name} must be {lowest} or more, got {value}")
