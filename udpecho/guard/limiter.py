"""
How much is answered: a rate for each prefix of sources and a ceiling for all of them, in memory of a fixed size.

The rate is kept by the I{generic cell rate algorithm} (ITU-T I.371 annex A), which needs a single number per prefix: the moment
at which its allowance will be whole again. A datagram moves that moment on by the time in which the rate earns one datagram; it
is within the limit as long as the moment is then no further ahead than the time in which the rate earns a whole burst. Moments
are counted in units of the time that earns one datagram, so that their sums are exact.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence

#: How many prefixes of each length the table can tell apart. A flood from everywhere at once fills it when it brings so many
#: times the rate of one source: 16 million datagrams a second at the default rate, more than one process could read.
TABLE_SIZE = 1 << 14
#: How many times the rate and burst of a narrow prefix its wide prefix has: those of Knot DNS (the documentation of its module
#: C{rrl}), where an IPv4 /24 has 32 times what a /32 has, and an IPv6 /48 twice what a /64 has.
MULTIPLES = (32, 2)
#: The lengths of the narrow and the wide prefixes of either family, in bits.
LENGTHS = ((32, 24), (64, 48))
#: Of the datagrams over the limit one in so many is answered, at random. chrony's C{ratelimit} has the same leak (2 to the
#: power of its default C{leak} of 2).
LEAK = 4
#: The longest time, in seconds, that is believed to have passed between two datagrams.
LONGEST_STEP = 86400.0

_entropyAtOnce = 1024
#: Moments are whole multiples of one part in so many: of the unit, and of what a wide prefix is charged.
_grain = 1024.0


class Elapsed:
    """
    Tells the time since it was made, in seconds, by a clock that may be set: what goes backwards is no time at all, and what
    leaps is at most L{LONGEST_STEP}.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        """@param seconds: the clock."""
        self._seconds = seconds
        self._last = seconds()
        self._elapsed = 0.0

    def now(self) -> float:
        """Tell the time."""
        now = self._seconds()
        step = now - self._last
        self._last = now
        if step > 0:
            self._elapsed += step if step < LONGEST_STEP else LONGEST_STEP
        return self._elapsed


class Lots:
    """Draws lots that nobody can foretell: the bytes come from the system's generator, a thousand at a time."""

    def __init__(self, entropy: Callable[[int], bytes], oneIn: int = LEAK) -> None:
        """
        @param entropy: gives so many random bytes.
        @param oneIn: a divisor of 256: one in so many lots is drawn.
        """
        self._entropy = entropy
        self._below = 256 // oneIn
        self._bytes = iter(b"")

    def draw(self) -> bool:
        """Draw one."""
        for byte in self._bytes:
            return byte < self._below
        self._bytes = iter(self._entropy(_entropyAtOnce))
        return self.draw()


class PrefixLimiter:
    """
    Holds each source to a rate, by its narrow prefix and by its wide one: an IPv4 address and its /24; an IPv6 /64, all of
    which a single host may use (RFC 4291 section 2.5.1), and its /48. Ports do not matter: a sender may have them all. Nor do
    scopes: link-local sources are one /64, on whatever interface (by default they are trusted and not limited).

    The prefixes share a table of fixed size, as in Knot DNS. Its places are chosen by SipHash (Python's hash of bytes, PEP 456)
    under a secret of our own besides Python's, so that no sender can choose whom to share a place with. Two that share one by
    accident share one allowance: they are answered less than each might be, never more. That is the safe direction, since more
    is what an attacker wants, and less still leaves one reply in L{LEAK}.

    One datagram in L{LEAK} over the limit is answered by lot: else a flood in a victim's name would silence the victim. What is
    over the limit is not charged, answered or not, so that the rate itself is always there.
    """

    def __init__(self, rate: int, burst: int, size: int = TABLE_SIZE, entropy: Callable[[int], bytes] = os.urandom) -> None:
        """
        @param rate: datagrams a second for each narrow prefix.
        @param burst: how many datagrams may come at once, 1 or more.
        @param size: places in the table for each length of prefix, a power of two; each takes 8 bytes.
        @param entropy: gives so many random bytes.
        """
        self.rate = rate
        self.burst = burst
        self._narrow = array("d", bytes(8 * size))
        self._wide = array("d", bytes(8 * size))
        self._mask = size - 1
        self._secret = entropy(16)
        self._lots = Lots(entropy)

    def places(self, host: int, isIPv6: bool) -> tuple[int, int]:
        """
        Where in the table the two prefixes of a source are: the narrow one among the narrow ones, the wide one among the wide.
        """
        # Of four lengths, so that the families do not share a place more often than by accident.
        if isIPv6:
            address = host.to_bytes(16, "big")
            return hash(self._secret + address[:8]) & self._mask, hash(self._secret + address[:6]) & self._mask
        address = host.to_bytes(4, "big")
        return hash(self._secret + address) & self._mask, hash(self._secret + address[:3]) & self._mask

    def fill(self, now: float) -> float:
        """
        How much of the table is in use.

        @return: a share, from 0 to 1.
        """
        later = _moment(now, self.rate).__lt__
        used = sum(map(later, self._narrow)) + sum(map(later, self._wide))
        return used / (2 * len(self._narrow))

    def refuse(self, hosts: Sequence[int], counts: Sequence[int], isIPv6: bool, now: float) -> dict[int, int]:
        """
        Decide about datagrams that came at one moment, source by source, in the order in which the sources first appear.

        A burst that came as one is answered if one datagram of it is within the limit, and all of it is charged.

        @param hosts: the source of each entry.
        @param counts: how many datagrams each entry is.
        @param now: the time in seconds; never less than before.

        @return: which entries not to answer, by their index, each with the length of the prefix that is over its limit.
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
            # There is not room for all, so that each has to be looked at.
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
    """
    Holds all replies together to a rate. Nobody is favoured, and there is no leak: a ceiling is for the line and the machine.
    """

    def __init__(self, rate: int) -> None:
        """@param rate: datagrams a second; as many may come at once."""
        self.rate = rate
        self._wholeAt = 0.0

    def refuse(self, counts: Sequence[int], now: float) -> list[int]:
        """
        Decide about datagrams in the order in which they came.

        @param counts: how many datagrams each entry is.
        @param now: the time in seconds; never less than before.

        @return: the indexes of the entries not to answer.
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
    sums = dict(zip(hosts, counts))
    if len(sums) < len(hosts):
        sums = dict.fromkeys(sums, 0)
        for host, datagrams in zip(hosts, counts):
            sums[host] += datagrams
    return sums


def _indexes(hosts: Sequence[int]) -> dict[int, list[int]]:
    """Which entries came from each source."""
    indexes: dict[int, list[int]] = {}
    for entry, host in enumerate(hosts):
        indexes.setdefault(host, []).append(entry)
    return indexes
