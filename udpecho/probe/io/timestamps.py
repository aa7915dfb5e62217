"""Times that the kernel stamps on datagrams: when one was handed to the device, and when one came from it (C{SO_TIMESTAMPING},
Linux's C{Documentation/networking/timestamping.rst}).

Both are of C{CLOCK_REALTIME} of this host, so that their difference is the time that a datagram and its reply were on their
way, without the time that this process needed. But that clock can be set. Until then its distance from C{CLOCK_MONOTONIC} is
constant, as both are slewed alike (C{clock_gettime(2)}), so L{StepWatch} watches that. After a step the timestamps of what was
sent before are ignored. L{roundTrip} ignores a difference that is negative, or longer than the monotonic clock has measured.
A step of less than L{STEP} is not seen: it falsifies a round trip by no more than itself.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from udpecho.errors import NO_DESCRIPTOR
from udpecho.net.linux import sockopt
from udpecho.net.linux.mmsg import systemCalls
from udpecho.net.linux.proof import Proof
from udpecho.probe.io.stamp_slots import StampSlots

#: How many ns the wall clock must have been set by for it to be seen.
STEP = 10_000
#: How often to look again when it seems to have been set: this process may have waited between two looks.
_looks = 5

_flags = sockopt.SOF_TIMESTAMPING_TX_SOFTWARE | sockopt.SOF_TIMESTAMPING_RX_SOFTWARE | sockopt.SOF_TIMESTAMPING_SOFTWARE
_flags |= sockopt.SOF_TIMESTAMPING_OPT_TSONLY
_idBits = 32
#: How far a timestamp of the proof may be from the clock, in ns: processors may disagree a little.
_tolerance = 1_000_000
#: How many timestamps of the proof may be further away: the clock may be set meanwhile.
_mostStrange = 3
#: Seconds in which timestamping must have begun: the kernel patches its code for it, in a thread of its own.
_startTimeout = 0.1


class Clocks(NamedTuple):
    """The clocks, in ns: one that nobody sets, and the one of the kernel's timestamps."""

    monotonic: Callable[[], int] = time.monotonic_ns
    wall: Callable[[], int] = time.time_ns


class StepWatch:
    """Sees when the wall clock is set.

    @ivar offset: how many ns the wall clock is ahead of the monotonic one.
    """

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self.offset = self._bestLook()

    def stepped(self) -> bool:
        """Whether the clock was set since the last call; if that is not sure, it was."""
        # Without a needless call: this is called before each send and after each receive.
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
    """The round trip by the timestamps, in ns; C{None} if one is missing (0), or the two are impossible.

    @param sent: ns of the wall clock, like C{received}.
    @param monotonic: the round trip by the monotonic clock, in ns, from before the send call to after the receive call.
    """
    between = received - sent
    return between if sent and received and 0 <= between <= monotonic else None


class StampIds:
    """Which probe a timestamp is of. The kernel numbers the datagrams that it took; but a probe that could not be sent has a
    number, too. So the distance between both numbers grows with each of these.

    @ivar taken: how many datagrams the kernel has taken so far.
    """

    def __init__(self) -> None:
        self.taken = 0
        # The last changes of the distance are enough: a timestamp comes soon.
        self._distances: deque[tuple[int, int]] = deque(maxlen=64)

    def sent(self, first: int, count: int = 1) -> None:
        """The kernel took the datagrams of C{count} probes, from number C{first} on."""
        distance = first - self.taken
        if not self._distances or self._distances[-1][1] != distance:
            self._distances.append((self.taken, distance))
        self.taken += count

    def sequenceOf(self, number: int) -> int | None:
        """The probe's number for the kernel's; C{None} if no such datagram was sent, or too long ago."""
        if number < self.taken:
            for first, distance in reversed(self._distances):
                if number >= first:
                    return number + distance
        return None


class StampNumbers:
    """Makes numbers that do not wrap of the kernel's ids of 32 bits, which L{enable} sets to 0.

    @ivar taken: how many datagrams the kernel has taken so far.
    """

    def __init__(self, taken: int = 0) -> None:
        self.taken = taken
        self._base = taken

    def begin(self) -> None:
        """The next datagram's id is 0."""
        self._base = self.taken

    def numberOf(self, id: int) -> int | None:
        """The number of the latest datagram that can have an id; C{None} if none can."""
        latest = self.taken - 1
        number = latest - ((latest - self._base - id) & ((1 << _idBits) - 1))
        return number if number >= self._base else None


def enable(sock: socket.socket) -> bool:
    """Have the kernel make timestamps of what a socket sends and receives, and number what it sends from 0 on, if it can."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, sockopt.SO_TIMESTAMPING, _flags)
        sock.setsockopt(socket.SOL_SOCKET, sockopt.SO_TIMESTAMPING, _flags | sockopt.SOF_TIMESTAMPING_OPT_ID)
    except OSError:
        return False
    return True


def noTimestampsReason() -> str | None:
    """Why the kernel's timestamps cannot be used; C{None} if they can. A test that the system refuses is done again at the next
    call.

    @raise OSError: if there is no descriptor left.
    """
    return stamping.reason() if sockopt.available else "only Linux has them"


def begin(sock: socket.socket) -> bool:
    """Have all that a socket sends and receives from now on stamped, if that works.

    @raise OSError: if there is no descriptor left to find out.
    """
    try:
        return noTimestampsReason() is None and enable(sock) and waitForTimestamping() is None
    except OSError as e:
        if e.errno in NO_DESCRIPTOR:
            raise
        # As without the loopback interface, over which it is found out.
        return False


def waitForTimestamping(timeout: float = _startTimeout) -> str | None:
    """Send datagrams through a pair of sockets until one that comes has its timestamp. The kernel begins a moment after
    L{enable} was called for the first socket, and ends when the last one is closed: a socket that was enabled before this is
    called has the timestamps of all its datagrams.

    @param timeout: seconds after which to give up.
    @return: C{None} if it works, else what does not.
    @raise OSError: if there are no such sockets, or nothing that came was stamped in time: on a busy machine the kernel may
        take longer to begin.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        near.connect(far.getsockname())
        far.settimeout(timeout)
        if not enable(near) or not enable(far):
            return "the kernel makes no timestamps in software"
        sockopt.enableRecvErr(near)
        calls = systemCalls()
        queue, incoming = StampSlots(1, calls), StampSlots(1, calls)
        strange = 0
        end = time.monotonic() + timeout
        for number in range(1 << 16):
            before = time.time_ns()
            near.send(b"\0")
            far.recv(1, socket.MSG_PEEK)
            sent = queue.readErrorQueue(near.fileno()).stamps
            _, received = incoming.receive(far.fileno())
            after = time.time_ns()
            if [id for id, _ in sent] != [number]:
                return "the kernel does not stamp what is sent, or does not number it"
            stamps = [sent[0][1], *filter(None, received)]
            if not all(before - _tolerance <= stamp <= after + _tolerance for stamp in stamps):
                strange += 1
                if strange == _mostStrange:
                    return "the kernel's timestamps are not of the wall clock"
            elif len(stamps) > 1:
                return None
            if time.monotonic() >= end:
                break
    raise TimeoutError(errno.ETIMEDOUT, "the kernel does not stamp what is received")


#: Proves, once in a process, that the kernel stamps datagrams, and numbers them.
stamping = Proof(waitForTimestamping)
