"""What became of the datagrams of a network in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, NamedTuple

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.faults.decision import DELIVERED
from udpecho.faults.matching import Place, isAt
from udpecho.testing import pcapng

#: The outcome of a datagram that has not arrived yet.
IN_FLIGHT = "in flight"
# What became of it, or of one copy.
ARRIVED = "delivered"
REFUSED = "refused"
NOBODY_LISTENS = "nobody listens"
NO_BUFFER = "no buffer"
NO_HOST = "no host"
HOST_DOWN = "host down"
HOST_LEFT = "host left"
LINK_CUT = "link cut"
PARTITIONED = "partitioned"
EXPIRED = "expired"
NAT_DROPPED = "nat dropped"
PLAN_FAILED = "plan failed"
_outcomes = (
    ARRIVED,
    REFUSED,
    NOBODY_LISTENS,
    NO_BUFFER,
    NO_HOST,
    HOST_DOWN,
    HOST_LEFT,
    LINK_CUT,
    PARTITIONED,
    EXPIRED,
    NAT_DROPPED,
    PLAN_FAILED,
)

#: How many datagrams a trace keeps, and how many bytes of their payloads. What is over is forgotten, the oldest first.
MAX_ENTRIES = 200_000
MAX_BYTES = 64 * 2**20
#: No datagram has more bytes.
_LARGEST = 2**16
#: How many bytes of a payload a detailed trace shows.
_SHOWN = 32


_append: Callable[[list[TraceEntry], TraceEntry], None] = list.append


class Copy(NamedTuple):
    """The arrival of one copy of a datagram at a host.

    @ivar time: when it arrived, in seconds on the network's clock.
    @ivar outcome: what became of it, as text.
    @ivar payload: its payload, as it arrived.
    @ivar receivers: the addresses of the ports that received it; several only of a group.
    """

    time: float
    outcome: str
    payload: bytes
    receivers: Sequence[tuple[str, int]]


@dataclass(slots=True)
class TraceEntry:
    """One datagram. One that is sent to a group has an entry for each host.

    @ivar time: when it was sent, in seconds on the network's clock.
    @ivar size: its payload in bytes.
    @ivar outcome: its faults and arrivals, as text.
    @ivar payload: its payload as it was sent, C{None} if that is forgotten.
    @ivar sender: the name of the host that sent it.
    @ivar receiver: the name of the host that it was sent to, empty if there was none.
    """

    time: float
    source: DatagramAddress
    destination: DatagramAddress
    size: int
    outcome: str
    payload: bytes | None = field(default=None, compare=False, repr=False)
    sender: str = field(default="", compare=False)
    receiver: str = field(default="", compare=False)
    # Four items for each copy: one object for an entry instead of one for each copy, of which there may be many.
    _copies: tuple[Any, ...] = field(default=(), compare=False, repr=False)

    def addFaults(self, reasons: Sequence[str]) -> None:
        """Add what a link did to it: one of several links, if there are NATs on the way."""
        text = ",".join(reason for reason in reasons if reason != DELIVERED)
        if not text:
            return
        if self.outcome == IN_FLIGHT:
            self.outcome = text
        else:
            self.outcome += f"{', ' if self.outcome.endswith(_outcomes) else ','}{text}"

    def addOutcome(self, outcome: str) -> None:
        """Add that of one arrival. The faults come first, then each arrival."""
        if self.outcome == IN_FLIGHT:
            self.outcome = outcome
        else:
            self.outcome += f"{', ' if self.outcome.endswith(_outcomes) else ': '}{outcome}"

    @property
    def copies(self) -> list[Copy]:
        """The arrivals."""
        return [Copy(*self._copies[place : place + 4]) for place in range(0, len(self._copies), 4)]

    def arrive(self, time: float, outcome: str, payload: bytes, receivers: Sequence[tuple[str, int]]) -> None:
        """A copy has arrived at a host."""
        if self.outcome is IN_FLIGHT:
            self.outcome = outcome
        else:
            self.addOutcome(outcome)
        self._copies += (time, outcome, payload, receivers)

    def forgetPayload(self) -> None:
        """Keep what became of it, without its bytes."""
        self.payload = None
        self._copies = tuple(b"" if isinstance(item, bytes) else item for item in self._copies)


class Trace(list[TraceEntry]):
    """The datagrams of a network, in the order of sending; C{str()} aligns them.

    It keeps the last L{MAX_ENTRIES} datagrams at most, and the last L{MAX_BYTES} bytes of their payloads.

    @ivar forgotten: how many datagrams are not in it any more.
    @ivar payloadsForgotten: how many of those in it have no payload any more.
    """

    def __init__(self, entries: Iterable[TraceEntry] = (), maxEntries: int = MAX_ENTRIES, maxBytes: int = MAX_BYTES) -> None:
        """@param maxEntries: how many datagrams it keeps.
        @param maxBytes: how many bytes of their payloads it keeps.
        """
        super().__init__()
        self._maxEntries, self._maxBytes = maxEntries, maxBytes
        self.clear()
        for entry in entries:
            self.append(entry)

    def clear(self) -> None:
        """Begin anew."""
        super().clear()
        self.forgotten = self.payloadsForgotten = 0
        self._bytes = self._counted = self._checkAt = 0

    def append(self, entry: TraceEntry) -> None:
        """Add a datagram, and forget others if there are too many."""
        _append(self, entry)
        if len(self) > self._checkAt:
            self._check()

    def _check(self) -> None:
        """Forget what is too much, and find out after how many more there may be too much again."""
        self._bytes += sum(entry.size for entry in self[self._counted :])
        # A part at a time, so that it costs little for each.
        if len(self) > self._maxEntries:
            gone = self[: max(1, self._maxEntries // 8)]
            del self[: len(gone)]
            self._bytes -= sum(entry.size for entry in gone[self.payloadsForgotten :])
            self.payloadsForgotten = max(0, self.payloadsForgotten - len(gone))
            self.forgotten += len(gone)
        if self._bytes > self._maxBytes:
            while self._bytes > self._maxBytes - self._maxBytes // 8 and self.payloadsForgotten < len(self):
                entry = self[self.payloadsForgotten]
                entry.forgetPayload()
                self._bytes -= entry.size
                self.payloadsForgotten += 1
        self._counted = len(self)
        self._checkAt = min(self._maxEntries, len(self) + (self._maxBytes - self._bytes) // _LARGEST)

    # Parts of it

    def matching(self, predicate: Callable[[TraceEntry], object]) -> Trace:
        """The datagrams for whose entries a function returns something true."""
        return Trace(entry for entry in self if predicate(entry))

    def sent(self, source: Place | None = None, destination: Place | None = None) -> Trace:
        """The datagrams from a place to another.

        @param source: an IP address, a port number, a C{(host, port)} pair, a host or its name; C{None} for any.
        @param destination: likewise.
        """
        return self.matching(
            lambda entry: (
                (source is None or _isAt(entry.source, entry.sender, source))
                and (destination is None or _isAt(entry.destination, entry.receiver, destination))
            )
        )

    def between(self, one: Place, other: Place) -> Trace:
        """The datagrams between two places, in both directions: as L{sent}."""
        there, back = self.sent(one, other), self.sent(other, one)
        meant = {id(entry) for part in (there, back) for entry in part}
        return self.matching(lambda entry: id(entry) in meant)

    def undelivered(self) -> Trace:
        """The datagrams of which no copy reached a port, and none is on its way."""
        return self.matching(lambda entry: entry.outcome != IN_FLIGHT and not any(copy.receivers for copy in entry.copies))

    # What others can read

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        rows = [(f"{e.time:.6f}", formatAddress(e.source), formatAddress(e.destination), str(e.size), e.outcome) for e in self]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
        lines = [
            f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}} > {row[2]:<{widths[2]}}  {row[3]:>{widths[3]}} B  {row[4]}"
            for row in rows
        ]
        return [f"({self.forgotten} datagrams before these are forgotten)", *lines] if self.forgotten else lines

    def detailed(self) -> str:
        """The lines of C{str()}, each followed by the start of the payload, and by the time and the receivers of each copy."""
        lines = self._lines()
        first = len(lines) - len(self)
        found = lines[:first]
        for line, entry in zip(lines[first:], self):
            found.append(line)
            if entry.payload:
                found.append("    " + entry.payload[:_SHOWN].hex(" ") + (" ..." if len(entry.payload) > _SHOWN else ""))
            for copy in entry.copies:
                found.append(f"    {copy.time:.6f} {copy.outcome}{''.join(f' {formatAddress(at)}' for at in copy.receivers)}")
        return "\n".join(found)

    def writePcapng(self, path: str | PathLike[str]) -> None:
        """Write a file for Wireshark. Each host is an interface: datagrams are on that of their sender, with the outcome as a
        comment, and each copy that has arrived is on that of its receiver.

        @raise OSError: if the file cannot be written.
        """
        with open(path, "wb") as file:
            pcapng.write(file, self._packets())

    def _packets(self) -> Iterator[pcapng.Packet]:
        for e in self:
            yield pcapng.Packet(e.time, e.sender, False, e.source, e.destination, e.size, e.payload, e.outcome)
            for copy in e.copies:
                payload = None if e.payload is None else copy.payload
                size = e.size if payload is None else len(payload)
                yield pcapng.Packet(copy.time, e.receiver, True, e.source, e.destination, size, payload, copy.outcome)


def _isAt(address: tuple[str, int], host: str, place: Place) -> bool:
    return (place if isinstance(place, str) else getattr(place, "name", None)) == host or isAt(address, place)
