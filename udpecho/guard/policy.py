"""What a guard allows, and its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from udpecho.guard.networks import ANY, LOOPBACK, PRIVATE, Networks

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
        """Write this in a way that JSON can carry."""
        named = {name: [str(network) for network in getattr(self, name)] for name in ("allow", "trust")}
        return {**asdict(self), **named}

    @classmethod
    def fromSettings(cls, settings: Mapping[str, Any]) -> GuardPolicy:
        """Read what L{asSettings} has written."""
        networks = {name: tuple(map(ip_network, settings[name])) for name in ("allow", "trust")}
        return cls(**{**settings, **networks})

    def __post_init__(self) -> None:
        for name in ("allow", "trust"):
            networks = getattr(self, name)
            if isinstance(networks, str) or not all(isinstance(network, (IPv4Network, IPv6Network)) for network in networks):
                raise TypeError(
                    f"{name} is a tuple of networks, not {networks!r}: udpecho.guard.networks.parseNetwork makes one of a text"
                )
        for name, lowest in (("rate", 0), ("burst", 1), ("maxRate", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is a whole number, not {value!r}")
            if value < lowest:
                raise ValueError(f"{name} is {value}: {lowest} or more is right")


@lru_cache(512)
def _number(host: str) -> tuple[int, bool] | None:
    """An address as a number, and whether it is IPv6; C{None} if it is no IP address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return int(address), isinstance(address, IPv6Address)
