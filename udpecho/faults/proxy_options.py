"""The options of a L{FaultProxy <udpecho.faults.proxy.FaultProxy>}."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from udpecho.addresses import DatagramAddress
from udpecho.faults.decision import Decision

#: Seconds without a datagram in either direction after which a client is forgotten.
IDLE_TIMEOUT = 60.0
#: How many clients are known at a time.
MAX_CLIENTS = 1024
#: How many bytes may wait in a proxy, for their time, for a lookup, or for a full send queue.
MAX_HELD = 64 * 2**20

#: Called for each datagram, with the direction, the client, the size in bytes and the decision.
Watcher = Callable[[str, DatagramAddress, int, Decision], None]


class ProxyOptions(TypedDict, total=False):
    """More options of a L{FaultProxy}.

    @ivar maxHeld: how many bytes may wait; one client gets half of them at most. By default L{MAX_HELD}.
    @ivar anyPort: pass on what comes from other ports of the upstream's host, as a TFTP server's (RFC 1350 section 4), each
        from a port of its own. Whoever may send with the address of the upstream's host, and guesses the port of a client's
        socket, reaches the client, too, as without a proxy. By default C{False}: that is dropped, and counted.
    """

    maxHeld: int
    anyPort: bool
