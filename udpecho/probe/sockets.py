"""The sockets of a flow: the one to send by, and former ones to which replies may still come."""

from __future__ import annotations

from collections import deque

from udpecho.probe.io.socket import IProbeSocket

#: How many former sockets may be open.
_mostFormer = 4


class FlowSockets:
    """@ivar current: the socket to send by; before the first one, and after L{release}, it is not in L{all}.
    @ivar all: the open sockets.
    """

    current: IProbeSocket

    def __init__(self) -> None:
        self.all: list[IProbeSocket] = []
        self._drops: dict[IProbeSocket, int | None] = {}
        self._ends: dict[IProbeSocket, int] = {}
        self._paths: deque[tuple[int, str, str]] = deque(maxlen=_mostFormer)

    @property
    def isOpen(self) -> bool:
        """Whether the socket to send by is open."""
        return bool(self.all) and self.current in self.all

    def use(self, socket: IProbeSocket, peer: str, first: int, end: int) -> None:
        """Send by another socket.

        @param first: the number of the first probe that goes by it.
        @param end: until when the former one stays open; L{look} closes it.
        """
        if self.isOpen:
            self._ends[self.current] = end
            self._close(list(self._ends)[:-_mostFormer])
        self.current = socket
        self.all.append(socket)
        self._drops[socket] = socket.drops()
        self._paths.append((first, peer, str(socket.source)))

    def pathOf(self, sequence: int | None) -> tuple[str, str]:
        """The peer and the source of a probe; without a number those of now."""
        first, peer, source = self._paths[-1]
        if sequence is not None and sequence < first:
            _, peer, source = next((path for path in reversed(self._paths) if sequence >= path[0]), self._paths[0])
        return peer, source

    def release(self) -> None:
        """Close the socket to send by, before there is another one. A listener may have closed all."""
        self._close([self.current] if self.isOpen else [])

    def look(self, now: int) -> None:
        """Close the former sockets whose time is over, and see whether the local address has changed."""
        first, peer, _ = self._paths[-1]
        self._paths[-1] = first, peer, str(self.current.source)
        self._close([socket for socket, end in self._ends.items() if now >= end])

    def close(self) -> None:
        """Close all sockets."""
        self._close(list(self.all))

    def _close(self, sockets: list[IProbeSocket]) -> None:
        for socket in sockets:
            self.all.remove(socket)
            del self._drops[socket]
            self._ends.pop(socket, None)
            socket.close()

    def newDrops(self) -> int | None:
        """How many datagrams the receive queues have dropped since the last call; C{None} if the system does not report it. To
        be called before sockets are closed.
        """
        dropped = 0
        for socket, before in self._drops.items():
            drops = socket.drops()
            if drops is None or before is None:
                return None
            # The counter has 32 bits.
            dropped += (drops - before) % (1 << 32)
            self._drops[socket] = drops
        return dropped
