"""Times that the kernel stamps on datagrams: when one was handed to the device, and when one came from it (C{SO_TIMESTAMPING},
Linux's C{Documentation/networking/timestamping.rst}).

Both stamps are of C{CLOCK_REALTIME} of this host, so that their difference is the time that a datagram and its reply were on
their way, without that which this process needed. But that clock can be set. So it is watched (L{StepWatch}): its distance from
C{CLOCK_MONOTONIC} is constant, as both are slewed alike (C{clock_gettime(2)}), until somebody sets it. The stamps of what was
sent before that count for nothing then; and never is a round trip taken from stamps that is negative, or longer than what the
monotonic clock has measured about it (L{roundTrip}). A step of less than L{STEP} is not seen, and costs no more than itself.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from udpecho.net.linux import cmsg, errqueue, sockopt

#: How many ns the wall clock must have been set by for it to be seen.
STEP = 10_000
#: How often to look again when it seems to have been set: this process may have waited between two looks.
_looks = 5

_flags = sockopt.SOF_TIMESTAMPING_TX_SOFTWARE | sockopt.SOF_TIMESTAMPING_RX_SOFTWARE | sockopt.SOF_TIMESTAMPING_SOFTWARE
_flags |= sockopt.SOF_TIMESTAMPING_OPT_TSONLY
_idBits = 32
#: Seconds in which timestamping must have begun: the kernel patches its code for it, in a thread of its own.
_startTimeout = 0.1


class Clocks(NamedTuple):
    """The clocks, in ns.

    @ivar monotonic: a clock that nobody sets.
    @ivar wall: the clock that the kernel's stamps are of.
    """

    monotonic: Callable[[], int] = time.monotonic_ns
    wall: Callable[[], int] = time.time_ns


class StepWatch:
    """Sees when the wall clock is set.

    @ivar offset: by how many ns the wall clock is before the monotonic one.
    """

    def __init__(self, clocks: Clocks) -> None:
        """@param clocks: the clocks to compare."""
        self._clocks = clocks
        self.offset = self._bestLook()

    def stepped(self) -> bool:
        """Whether the clock was set since this was last asked; if that is not sure, it was."""
        # Without a call more than are needed: this is asked before each send and after each receive.
        if -STEP <= self._clocks.wall() - self._clocks.monotonic() - self.offset <= STEP:
            return False
        offset = self._bestLook()
        if -STEP <= offset - self.offset <= STEP:
            return False
        self.offset = offset
        return True

    def _bestLook(self) -> int:
        return min((self._look() for _ in range(_looks)), key=lambda look: look[1])[0]

    def _look(self) -> tuple[int, int]:
        """@return: how far apart the clocks are, and how unsure that is."""
        before = self._clocks.monotonic()
        wall = self._clocks.wall()
        after = self._clocks.monotonic()
        return wall - (before + after) // 2, after - before


def roundTrip(sent: int, received: int, monotonic: int) -> int | None:
    """The round trip by the stamps, if they can be believed.

    @param sent: the stamp of sending, in ns; 0 if there is none.
    @param received: the stamp of receiving, in ns; 0 if there is none.
    @param monotonic: the round trip by the monotonic clock, in ns, from before the send call to after the receive call.
    @return: ns; C{None} if a timestamp is missing, or the two are impossible.
    """
    if not sent or not received:
        return None
    between = received - sent
    return between if 0 <= between <= monotonic else None


class StampIds:
    """Which probe a stamp is of. The kernel numbers the datagrams that a socket has sent; probes that could not be sent have a
    number of their own all the same. So the distance between both grows with each of those.
    """

    #: How many changes of the distance are remembered: stamps come within a moment.
    _remembered = 64

    def __init__(self) -> None:
        self._next = 0
        self._highest = -1
        self._distances: deque[tuple[int, int]] = deque(maxlen=self._remembered)

    def sent(self, first: int, count: int = 1) -> None:
        """The kernel took datagrams.

        @param first: the number of the first one's probe.
        @param count: how many they are, of probes that follow each other.
        """
        distance = first - self._next
        if not self._distances or self._distances[-1][1] != distance:
            self._distances.append((self._next, distance))
        self._next += count
        self._highest = first + count - 1

    def sequenceOf(self, number: int) -> int | None:
        """Which probe a datagram is.

        @param number: how many datagrams the kernel had taken before it.
        @return: the probe's number, or C{None} if no such datagram was sent, or too long ago.
        """
        if number < self._next:
            for first, distance in reversed(self._distances):
                if number >= first:
                    return number + distance
        return None


class StampNumbers:
    """The kernel's ids of 32 bits as numbers without an end, across new beginnings.

    @ivar taken: how many datagrams the kernel has taken so far.
    """

    def __init__(self) -> None:
        self.taken = 0
        self._base = 0

    def begin(self) -> None:
        """The next datagram's id is 0."""
        self._base = self.taken

    def numberOf(self, id: int) -> int | None:
        """The number of the latest datagram that can have an id; C{None} if none can."""
        latest = self.taken - 1
        number = latest - ((latest - self._base - id) & ((1 << _idBits) - 1))
        return number if number >= self._base else None


def enable(sock: socket.socket) -> bool:
    """Have the kernel make timestamps of what a socket sends and receives, and number what it sends from 0 on.

    @return: whether it will.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, sockopt.SO_TIMESTAMPING, _flags)
        sock.setsockopt(socket.SOL_SOCKET, sockopt.SO_TIMESTAMPING, _flags | sockopt.SOF_TIMESTAMPING_OPT_ID)
    except OSError:
        return False
    return True


@lru_cache(1)
def unsupportedReason() -> str | None:
    """Prove on this machine that the kernel stamps datagrams, and numbers them.

    @return: C{None} if it does, else why not.
    """
    if not sockopt.available:
        return "only Linux has them"
    try:
        return waitForTimestamping()
    except OSError as e:
        return e.strerror or str(e)


def waitForTimestamping(timeout: float = _startTimeout) -> str | None:
    """Send datagrams through a pair of sockets until one that comes has its stamp. The kernel begins to stamp what comes a
    moment after the first socket has asked for it, and ends when the last one is closed: a socket that has asked before this is
    called has the stamps of all its datagrams.

    @param timeout: seconds after which to give up.
    @return: C{None} if stamping works, else what does not.
    @raise OSError: if there are no such sockets.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        near.connect(far.getsockname())
        far.settimeout(timeout)
        if not enable(near) or not enable(far):
            return "the kernel knows no stamps in software"
        sockopt.enableRecvErr(near)
        end = time.monotonic() + timeout
        for number in range(1 << 16):
            near.send(b"\0")
            stamp = None
            with suppress(BlockingIOError):
                ancillary = near.recvmsg(0, errqueue.ANCILLARY_SIZE, sockopt.MSG_ERRQUEUE | socket.MSG_DONTWAIT)[1]
                stamp = errqueue.readEntry(ancillary)
            if not isinstance(stamp, errqueue.SendTimestamp) or stamp.id != number:
                return "the kernel does not stamp what is sent, or does not number it"
            if cmsg.readTimestamp(far.recvmsg(1, errqueue.ANCILLARY_SIZE)[1]):
                return None
            if time.monotonic() >= end:
                break
    return "the kernel does not stamp what is received"
