"""What became of the datagrams of a network in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.faults.decision import DELIVERED

#: The outcome of a datagram that has not arrived yet.
IN_FLIGHT = "in flight"
_outcomes = (
    "delivered",
    "refused",
    "nobody listens",
    "no buffer",
    "no host",
    "host down",
    "host left",
    "link cut",
    "partitioned",
    "expired",
    "nat dropped",
)


@dataclass
class TraceEntry:
    """One datagram.

    @ivar time: when it was sent, in seconds on the network's clock.
    @ivar size: its payload in bytes.
    @ivar outcome: its faults and arrivals, as text.
    """

    time: float
    source: DatagramAddress
    destination: DatagramAddress
    size: int
    outcome: str

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


class Trace(list[TraceEntry]):
    """The datagrams of a network, in the order of sending; C{str()} aligns them."""

    def __str__(self) -> str:
        rows = [(f"{e.time:.6f}", formatAddress(e.source), formatAddress(e.destination), str(e.size), e.outcome) for e in self]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
        return "\n".join(
            f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}} > {row[2]:<{widths[2]}}  {row[3]:>{widths[3]}} B  {row[4]}"
            for row in rows
        )
