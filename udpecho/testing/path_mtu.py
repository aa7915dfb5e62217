"""The path's MTU: what a host knows of it, what it sends whole, and how the rest is fragmented, as Linux does.

What a socket does with each value of C{IP_MTU_DISCOVER} (C{ip(7)}, C{ipv6(7)}) was measured on Linux 6.18, between two hosts
and a router.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from udpecho.faults.decision import DELIVERED, Arrival

# The values of IP_MTU_DISCOVER and IPV6_MTU_DISCOVER.
PMTUDISC_DONT, PMTUDISC_WANT, PMTUDISC_DO, PMTUDISC_PROBE, PMTUDISC_INTERFACE, PMTUDISC_OMIT = range(6)

#: The smallest MTU that a link may have (RFC 791 section 3.2, RFC 8200 section 5), in bytes.
MIN_MTU_IPV4, MIN_MTU_IPV6 = 68, 1280
#: Seconds for which a host remembers a path's MTU (C{mtu_expires} in C{ip-sysctl}), and for which it waits for fragments
#: (C{ipfrag_time}, RFC 8200 section 4.5).
REMEMBERED, REASSEMBLY_TIME = 600.0, 30.0
#: Why a datagram did not arrive whose fragments did not all.
FRAGMENT_LOST = "fragment lost"

_UDP_HEADER, _IPV4_HEADER, _IPV6_HEADER, _FRAGMENT_HEADER = 8, 20, 40, 8


def headers(ipv6: bool) -> int:
    """The bytes of the IP and UDP headers of a datagram that is not fragmented."""
    return _UDP_HEADER + (_IPV6_HEADER if ipv6 else _IPV4_HEADER)


def effective(mtu: int, ipv6: bool) -> int:
    """The MTU of a link for a version of IP: below IPv6, a link of less has to fragment (RFC 8200 section 5)."""
    return max(mtu, MIN_MTU_IPV6) if ipv6 else mtu


class Parts(NamedTuple):
    """How a datagram is sent.

    @ivar largest: the MTU that its sender, or a router, has fragmented it for, in bytes; C{None} if it is whole.
    @ivar mayFragment: whether routers may fragment it.
    """

    largest: int | None = None
    mayFragment: bool = True


def prepare(mode: int, ipv6: bool, size: int, interface: int | None, known: int | None) -> Parts | None:
    """Decide how Linux sends a payload.

    @param mode: the socket's C{IP_MTU_DISCOVER}.
    @param size: the payload in bytes.
    @param interface: the MTU of the interface in bytes, C{None} for no limit.
    @param known: the MTU of the path in bytes, as far as the host knows.
    @return: C{None} if the send fails with C{EMSGSIZE}.
    """
    total = size + headers(ipv6)
    narrow = min((mtu for mtu in (interface, known) if mtu is not None), default=None)
    limit = narrow if mode in (PMTUDISC_WANT, PMTUDISC_DO) or (ipv6 and mode == PMTUDISC_DONT) else interface
    fits = limit is None or total <= limit
    if not fits and mode in (PMTUDISC_DO, PMTUDISC_PROBE, PMTUDISC_INTERFACE):
        return None
    forbidden = mode in (PMTUDISC_DO, PMTUDISC_PROBE) or (mode == PMTUDISC_WANT and fits)
    return Parts(None if fits else limit, not ipv6 and not forbidden)


def accepts(mode: int, ipv6: bool) -> bool:
    """Whether a socket is notified of a report that the path carries less."""
    return mode not in (PMTUDISC_INTERFACE, PMTUDISC_OMIT) if ipv6 else mode != PMTUDISC_DONT


class PathMTUs:
    """What a host knows of the MTUs of its paths (RFC 1191, RFC 8201)."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, float]] = {}

    def learn(self, destination: str, mtu: int, now: float) -> None:
        """A router has reported the MTU, in bytes."""
        self._known[destination] = mtu, now + REMEMBERED

    def known(self, destination: str, now: float) -> int | None:
        """The MTU of the path to an address in bytes, C{None} if it is not known, or no longer."""
        mtu, expires = self._known.get(destination, (0, 0.0))
        return mtu if now < expires else None


def cut(payload: bytes, ipv6: bool, mtu: int) -> Iterator[bytes]:
    """The parts of a payload that are in each fragment: all but the last have a multiple of 8 bytes, and the first one has the
    UDP header too.
    """
    space = (mtu - (_IPV6_HEADER + _FRAGMENT_HEADER if ipv6 else _IPV4_HEADER)) // 8 * 8
    begin = 0
    while begin < len(payload) or not begin:
        end = begin + space - (0 if begin else _UDP_HEADER)
        yield payload[begin:end]
        begin = end


Asked = tuple[tuple[str, ...], list[Arrival]]


def askEach(ask: Callable[[bytes], Asked], payload: bytes, ipv6: bool, mtu: int) -> Asked:
    """Let a plan decide about each fragment of a datagram. They are lost together, and a copy arrives with its last fragment.

    @param ask: returns the reasons of the plan and the arrivals of one fragment.
    @return: the same for the datagram.
    """
    fragments = list(cut(payload, ipv6, mtu))
    asked = [ask(fragment) for fragment in fragments]
    reasons = list(dict.fromkeys(reason for found, _ in asked for reason in found if reason != DELIVERED))
    reasons.append(f"{len(fragments)} fragments")
    # What is truncated leaves a gap.
    whole = [
        [arrival for arrival in arrivals if len(arrival.datagram) == len(fragment)]
        for fragment, (_, arrivals) in zip(fragments, asked, strict=True)
    ]
    copies = []
    for parts in zip(*whole, strict=False):
        delays = [part.delay for part in parts]
        if max(delays) - min(delays) <= REASSEMBLY_TIME:
            copies.append(Arrival(max(delays), b"".join(part.datagram for part in parts)))
    if not copies:
        reasons.append(FRAGMENT_LOST)
    return tuple(reasons), copies
