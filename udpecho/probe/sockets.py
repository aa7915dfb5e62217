"""The sockets of a flow: the one to send by, and former ones to which replies may still come."""

from __future__ import annotations

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

    @property
    def isOpen(self) -> bool:
        """Whether the socket to send by is open."""
        return bool(self.all) and self.current in self.all

    def use(self, socket: IProbeSocket, end: int) -> None:
        """Send by another socket. The former one stays open until C{end}, when L{closeFormer} closes it."""
        if self.isOpen:
            self._ends[self.current] = end
            self._close(list(self._ends)[:-_mostFormer])
        self.current = socket
        self.all.append(socket)
        self._drops[socket] = socket.drops()

    def release(self) -> None:
        """Close the socket to send by, before there is another one."""
        self._close([self.current])

    def closeFormer(self, now: int) -> None:
        """Close the former sockets whose time is over."""
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

    def newDrops(self) -> int:
        """How many datagrams the receive queues have dropped since the last call. To be called before sockets are closed."""
        dropped = 0
        for socket, before in self._drops.items():
            drops = socket.drops()
            if drops is not None and before is not None:
                # The counter has 32 bits.
                dropped += (drops - before) % (1 << 32)
                self._drops[socket] = drops
        return dropped
