"""Rate limits: one for each prefix of sources and a ceiling for all of them, in memory of a fixed size.

The limits use the I{generic cell rate algorithm} (ITU-T I.371 annex A), which needs one number per prefix: the moment at which
its allowance is whole again. A datagram moves that moment on by the time in which the rate earns one datagram, and is within
the limit if the moment is then no further ahead than the time in which the rate earns a whole burst. Moments are counted in
units of the time that earns one datagram, so that their sums are exact.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence

#: The table's places for each prefix length. A flood from random sources fills it at this many times the rate of one source:
#: 16 million datagrams a second at the default rate, more than one process can read.
TABLE_SIZE = 1 << 14
#: Rate and burst of a wide prefix, as a multiple of a narrow one's: IPv4 /24 to /32, IPv6 /48 to /64, as in Knot DNS (the
#: documentation of its module C{rrl}).
MULTIPLES = (32, 2)
#: The lengths of the narrow and the wide prefixes of either family, in bits.
LENGTHS = ((32, 24), (64, 48))
#: One in this many datagrams over the limit is answered, at random, as chrony's C{ratelimit} does (2 to the power of its
#: default C{leak} of 2).
LEAK = 4
#: The longest time between two looks at the clock that is taken for real, in seconds.
LONGEST_STEP = 86400.0

_entropyAtOnce = 1024
#: Moments are whole multiples of 1/1024 unit, which is a whole part of what a wide prefix is charged: floats are exact then.
_grain = 1024.0


class Elapsed:
    """The time since its creation by a clock that may be set: a step back counts as no time, a step forward as at most
    L{LONGEST_STEP}.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._last = seconds()
        self._elapsed = 0.0

    def now(self) -> float:
        """The time since the creation, in seconds."""
        now = self._seconds()
        step = now - self._last
        self._last = now
        if step > 0:
            self._elapsed += step if step < LONGEST_STEP else LONGEST_STEP
        return self._elapsed


class Lots:
    """Draws at random, from bytes that nobody can predict: one draw in L{LEAK}, a divisor of 256, is C{True}."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        """@param entropy: returns the given number of random bytes."""
        self._entropy = entropy
        self._below = 256 // LEAK
        self._bytes = iter(b"")

    def draw(self) -> bool:
        """Draw once."""
        for byte in self._bytes:
            return byte < self._below
        self._bytes = iter(self._entropy(_entropyAtOnce))
        return self.draw()


class PrefixLimiter:
    """Limits each source by its narrow prefix and by its wide one: an IPv4 address and its /24; an IPv6 /64, all of which a
    single host may use (RFC 4291 section 2.5.1), and its /48. Ports do not matter: a sender may have them all. Nor do scopes:
    link-local sources are one /64 on every interface (by default they are trusted and not limited).

    The prefixes share a table of fixed size, as in Knot DNS. Places are chosen by SipHash (Python's hash of bytes, PEP 456)
    with a secret of our own in addition to Python's, so that no sender can choose which prefix it shares a place with. Two
    prefixes that share a place by chance share one allowance: fewer of their datagrams are answered, never more. That is the
    safe direction: an attacker wants more replies, and a client still gets one in L{LEAK}.

    One datagram in L{LEAK} over the limit is answered, at random: else a flood with a victim's source would silence it.
    Datagrams over the limit are not charged, answered or not, so that the rate itself remains.
    """

    def __init__(self, rate: int, burst: int, size: int = TABLE_SIZE, entropy: Callable[[int], bytes] = os.urandom) -> None:
        """@param rate: datagrams a second for each narrow prefix.
        @param burst: how many datagrams may arrive at once, 1 or more.
        @param size: the table's places for each prefix length, a power of two; each takes 8 bytes.
        @param entropy: returns the given number of random bytes.
        """
        self.rate = rate
        self.burst = burst
        self._narrow = array("d", bytes(8 * size))
        self._wide = array("d", bytes(8 * size))
        self._mask = size - 1
        self._secret = entropy(16)
        self._lots = Lots(entropy)

    def places(self, host: int, isIPv6: bool) -> tuple[int, int]:
        """The places of a source's narrow and wide prefix, each in the table for that length."""
        # The four lengths differ, so that the families share a place only by chance.
        if isIPv6:
            address = host.to_bytes(16, "big")
            return hash(self._secret + address[:8]) & self._mask, hash(self._secret + address[:6]) & self._mask
        address = host.to_bytes(4, "big")
        return hash(self._secret + address) & self._mask, hash(self._secret + address[:3]) & self._mask

    def fill(self, now: float) -> float:
        """How much of the table is in use at a time in seconds, from 0 to 1."""
        later = _moment(now, self.rate).__lt__
        used = sum(map(later, self._narrow)) + sum(map(later, self._wide))
        return used / (2 * len(self._narrow))

    def refuse(self, hosts: Sequence[int], counts: Sequence[int], isIPv6: bool, now: float) -> dict[int, int]:
        """Decide about entries that arrived together, source by source, in the order in which the sources first appear.

        An entry of several segments is answered if its first datagram is within the limit, and all its datagrams are charged.

        @param hosts: the source address of each entry, as a number.
        @param counts: how many datagrams each entry has.
        @param now: the time in seconds; never less than before.
        @return: the indexes of the entries to drop, each with the length of the prefix that is over its limit, in bits.
        """
        refused: dict[int, int] = {}
        entriesOf: dict[int, list[int]] | None = None
        narrowTable, wideTable, places, draw = self._narrow, self._wide, self.places, self._lots.draw
        moment = _moment(now, self.rate)
        latest = moment + self.burst
        share = 1 / MULTIPLES[isIPv6]
        for host, datagrams in _sums(hosts, counts).items():
            narrow, wide = places(host, isIPv6)
            narrowAt, wideAt = narrowTable[narrow], wideTable[wide]
            narrowAt = narrowAt if narrowAt > moment else moment
            wideAt = wideAt if wideAt > moment else moment
            if narrowAt + datagrams <= latest and wideAt + datagrams * share <= latest:
                narrowTable[narrow] = narrowAt + datagrams
                wideTable[wide] = wideAt + datagrams * share
                continue
            if entriesOf is None:
                entriesOf = _indexes(hosts)
            for entry in entriesOf[host]:
                if narrowAt + 1 > latest or wideAt + share > latest:
                    if not draw():
                        refused[entry] = LENGTHS[isIPv6][narrowAt + 1 <= latest]
                else:
                    narrowAt += counts[entry]
                    wideAt += counts[entry] * share
            narrowTable[narrow], wideTable[wide] = narrowAt, wideAt
        return refused


class Ceiling:
    """Limits the rate of all replies together, without a leak: it protects the line and the machine."""

    def __init__(self, rate: int) -> None:
        """@param rate: datagrams a second; as many may arrive at once."""
        self.rate = rate
        self._wholeAt = 0.0

    def refuse(self, counts: Sequence[int], now: float) -> list[int]:
        """Return the indexes of the entries to drop; the entries are in the order of their arrival.

        @param counts: how many datagrams each entry has.
        @param now: the time in seconds; never less than before.
        """
        moment = _moment(now, self.rate)
        latest = moment + self.rate
        wholeAt = max(moment, self._wholeAt)
        refused: list[int] = []
        if wholeAt + sum(counts) <= latest:
            wholeAt += sum(counts)
        else:
            for entry, datagrams in enumerate(counts):
                if wholeAt + 1 > latest:
                    refused.append(entry)
                else:
                    wholeAt += datagrams
        self._wholeAt = wholeAt
        return refused


def _moment(now: float, rate: float) -> float:
    """A time in seconds, in the units of a rate."""
    return int(now * rate * _grain) / _grain


def _sums(hosts: Sequence[int], counts: Sequence[int]) -> dict[int, int]:
    """How many datagrams each source sent, in the order in which the sources first appear."""
    # The common case: no source has two entries.
    sums = dict(zip(hosts, counts))
    if len(sums) < len(hosts):
        sums = dict.fromkeys(sums, 0)
        for host, datagrams in zip(hosts, counts):
            sums[host] += datagrams
    return sums


def _indexes(hosts: Sequence[int]) -> dict[int, list[int]]:
    indexes: dict[int, list[int]] = {}
    for entry, host in enumerate(hosts):
        indexes.setdefault(host, []).append(entry)
    return indexes
