"""Memory for datagrams and for entries of the error queue, with the kernel's timestamps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from udpecho.net.linux import cmsg, errqueue, sockopt
from udpecho.net.linux.mmsg import SLOTS, Slots, SystemCalls

#: The control message of a timestamp.
_stampSize = cmsg.space(cmsg.TIMESTAMPS_SIZE)
#: Behind it, in the error queue: C{struct sock_extended_err} with a C{struct sockaddr_in}, or C{sockaddr_in6}.
_errorSizes = tuple(_stampSize + cmsg.space(cmsg.extendedError.size + size) for size in (16, 28))

#: How many calls read an error queue at one time.
_mostCalls = 8


class Entries(NamedTuple):
    """What was in the error queue.

    @ivar stamps: ids and timestamps, in ns of the wall clock.
    """

    stamps: list[tuple[int, int]]
    errors: list[errqueue.QueuedError]


class StampSlots(Slots):
    """L{Slots} of a connected socket. The control messages begin with a timestamp, which is read for all slots at once."""

    def __init__(self, payloadSize: int, calls: SystemCalls) -> None:
        super().__init__(payloadSize)
        self._calls = calls
        self._seconds, self._nanoseconds = (self.controlField("Q", cmsg.DATA_AT + at) for at in (0, 8))
        # ee_origin and ee_data.
        self._origins = self.controlField("B", _stampSize + cmsg.DATA_AT + 4)
        self._ids = self.controlField("I", _stampSize + cmsg.DATA_AT + 12)

    def _receive(self, descriptor: int, flags: int) -> list[int]:
        """@return: the bytes of the control messages of each slot that was filled."""
        flags |= sockopt.MSG_DONTWAIT
        count = self._calls.recvmmsg(descriptor, self.headersAddress, SLOTS, flags, None)
        if count <= 0:
            # Each caller comes again, and a lasting error is one of sending too.
            return []
        controls: list[int] = self.controlLengths[:count].tolist()
        self.resetControls(count)
        return controls

    def _times(self, count: int) -> list[int]:
        """The timestamps of the first so many, in ns of the wall clock."""
        halves = zip(self._seconds[:count].tolist(), self._nanoseconds[:count].tolist())
        return [seconds * 1_000_000_000 + nanoseconds for seconds, nanoseconds in halves]

    def receive(self, descriptor: int) -> tuple[Sequence[memoryview], Sequence[int]]:
        """Receive datagrams.

        @return: the datagrams, which are good until the next call, and their timestamps, 0 for none.
        """
        controls = self._receive(descriptor, 0)
        count = len(controls)
        if not count:
            return (), ()
        datagrams = [payload[:size] for payload, size in zip(self.payloads, self.lengths[:count].tolist())]
        if controls.count(_stampSize) == count:
            return datagrams, self._times(count)
        return datagrams, [cmsg.readTimestamp(self.controls(*each)[0]) for each in enumerate(controls)]

    def readErrorQueue(self, descriptor: int) -> Entries:
        """Read what is in the error queue, which may be filled as fast as it is read."""
        found = Entries([], [])
        for _ in range(_mostCalls):
            controls = self._receive(descriptor, sockopt.MSG_ERRQUEUE)
            count = len(controls)
            stamped = self._origins[:count].tolist().count(sockopt.SO_EE_ORIGIN_TIMESTAMPING) == count
            if stamped and any(controls.count(size) == count for size in _errorSizes):
                found.stamps.extend(zip(self._ids[:count].tolist(), self._times(count)))
            else:
                for slot, size in enumerate(controls):
                    quoted = bytes(self.payloads[slot][: self.lengths[slot]])
                    entry = errqueue.readEntry(self.controls(slot, size)[0], quoted)
                    if isinstance(entry, errqueue.SendTimestamp):
                        found.stamps.append(entry)
                    elif entry is not None:
                        found.errors.append(entry)
            if count < SLOTS:
                break
        return found
