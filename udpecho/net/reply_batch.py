"""Replies that a protocol writes while a batch of datagrams is handed to it one by one, and that C{sendmmsg(2)} sends together.

Only what is certain to be taken waits for the others: short datagrams to a source that the system has taken one for before.
"""

from __future__ import annotations

import socket

from udpecho.net.linux import cmsg, sockopt
from udpecho.net.linux.mmsg import CONTROLS_AT, SLOTS, Slots, SystemCalls, packName
from udpecho.net.sources import Source

#: The longest datagram that waits, in bytes: longer ones gain nothing.
LONGEST = 1472


class ReplyBatch:
    """Datagrams that were written and not sent yet, in order."""

    def __init__(self, calls: SystemCalls, sock: socket.socket, isIPv6: bool) -> None:
        self._calls = calls
        self._socket = sock
        self._slots = Slots(LONGEST, nameLength=28 if isIPv6 else 16)
        self._written: list[Source | None] = [None] * SLOTS
        self.datagrams: list[bytes] = []
        self.sources: list[Source] = []

    def send(self) -> list[tuple[bytes, Source]]:
        """Send all, as far as the system takes them.

        @return: the others.
        """
        datagrams, self.datagrams = self.datagrams, []
        sources, self.sources = self.sources, []
        slots, written = self._slots, self._written
        for slot, source in enumerate(sources):
            if written[slot] is not source:
                name, ancillary = source.destination[:2]
                row = packName(name).ljust(CONTROLS_AT, b"\0") + cmsg.packControls(ancillary)
                slots.writeRow(slot, row)
                written[slot] = source
        slots.writePayloads(datagrams)
        sent = self._calls.sendmmsg(self._socket.fileno(), slots.headersAddress, len(datagrams), sockopt.MSG_DONTWAIT)
        return list(zip(datagrams, sources))[max(0, sent) :]
