"""
Sockets that probes leave by and replies come by: many with one system call and with the kernel's stamps where there are such
things, else through an ordinary transport.
"""

from __future__ import annotations

import errno
import socket
from array import array

from zope.interface import implementer

from udpecho.addresses import DatagramAddress
from udpecho.net.linux import errqueue, mmsg, sockopt
from udpecho.probe.io import timestamps
from udpecho.probe.io.slots import SLOTS, Slots, _errorRooms, _headerSize, _more, _quoteRoom, _stampRoom
from udpecho.probe.io.socket import Arrivals, IProbeSocket, Taken, Undelivered, _readable, _reasonOf, _sendTries, _tryAgain


@implementer(IProbeSocket)
class BatchSocket:
    """
    Many datagrams with one call, both ways, with stamps where the kernel makes them.

    Without stamps the time of a datagram is that of its call, so that each has a call of its own.

    @ivar source: the local address.
    @ivar stamped: whether there are stamps.
    @ivar most: how many datagrams to send with one call.
    """

    def __init__(self, sock: socket.socket, size: int, stamps: bool = True) -> None:
        """
        @param sock: a connected socket, which is closed with this.
        @param size: the longest datagram to send.
        @param stamps: whether to ask for stamps.

        @raise OSError: if this system has no such calls.
        """
        self._calls = mmsg.systemCalls()
        self._socket = sock
        self._descriptor = sock.fileno()
        bound = sock.getsockname()
        self.source = DatagramAddress(bound[:2])
        self.source.scopeID = bound[3] if len(bound) == 4 else 0
        self._peer = _readable(sock.getpeername())
        sockopt.enableRecvErr(sock)
        self.stamped = (
            stamps
            and timestamps.unsupportedReason() is None
            and timestamps.ask(sock)
            and timestamps.waitForTimestamping() is None
        )
        self.most = SLOTS if self.stamped else 1
        self._numbers = timestamps.StampNumbers()
        self._outgoing = Slots(size, controls=False, count=self.most)
        self._incoming = Slots(size + _more, controls=True)
        self._errors = Slots(_quoteRoom, controls=True)
        self._stamps: list[tuple[int, int]] = []
        self._undelivered: list[Undelivered] = []
        self._slots = [payload[:0] for payload in self._outgoing.payloads]
        self._outgoing.rooms[:] = memoryview(array("Q", [0] * self.most))

    def fileno(self) -> int:
        """@see: L{IProbeSocket.fileno}"""
        return self._descriptor

    def slot(self, index: int, size: int) -> memoryview:
        """@see: L{IProbeSocket.slot}"""
        slot = self._slots[index]
        if len(slot) != size:
            self._outgoing.rooms[index] = size
            self._slots[index] = slot = self._outgoing.payloads[index][:size]
        return slot

    def send(self, count: int) -> Taken:
        """@see: L{IProbeSocket.send}"""
        done = tries = number = 0
        while done < count:
            address = self._outgoing.address + done * _headerSize
            sent = self._calls.sendmmsg(self._descriptor, address, count - done, socket.MSG_DONTWAIT)
            if sent > 0:
                self._numbers.taken += sent
                done += sent
                tries = 0
                continue
            number = self._calls.lastError()
            if number == errno.EINTR:
                continue
            told = len(self._undelivered)
            self._readErrorQueue()
            if self.stamped:
                # Whether one that was not sent has a number depends on the kernel.
                timestamps.ask(self._socket)
                self._numbers.begin()
            tries += 1
            # The error of an earlier datagram comes instead of sending this one.
            if number in _tryAgain or tries == _sendTries or len(self._undelivered) == told:
                return Taken(done, number)
        return Taken(done)

    def receive(self) -> Arrivals:
        """@see: L{IProbeSocket.receive}"""
        incoming = self._incoming
        count = self._calls.recvmmsg(self._descriptor, incoming.address, SLOTS, socket.MSG_DONTWAIT, None)
        if count <= 0:
            return Arrivals((), ())
        controls = incoming.controlSizes[:count].tolist()
        incoming.reset(count)
        sizes = incoming.sizes[:count].tolist()
        datagrams = [payload[:size] for payload, size in zip(incoming.payloads, sizes)]
        if controls.count(_stampRoom) == count:
            return Arrivals(datagrams, incoming.times(count))
        return Arrivals(datagrams, [timestamps.received(incoming.controls(*each)) for each in enumerate(controls)])

    def readErrors(self) -> tuple[list[tuple[int, int]], list[Undelivered]]:
        """@see: L{IProbeSocket.readErrors}"""
        self._readErrorQueue()
        found = self._stamps, self._undelivered
        self._stamps, self._undelivered = [], []
        return found

    def _readErrorQueue(self) -> None:
        errors, flags = self._errors, sockopt.MSG_ERRQUEUE | socket.MSG_DONTWAIT
        while True:
            count = self._calls.recvmmsg(self._descriptor, errors.address, SLOTS, flags, None)
            if count <= 0:
                return
            controls = errors.controlSizes[:count].tolist()
            origins = errors.origins(count)
            errors.reset(count)
            plain = origins.count(sockopt.SO_EE_ORIGIN_TIMESTAMPING) == count and any(
                controls.count(room) == count for room in _errorRooms
            )
            if plain:
                numberOf = self._numbers.numberOf
                for id, time in zip(errors.ids(count), errors.times(count)):
                    self._sentAt(numberOf(id), time)
            else:
                for entry in enumerate(controls):
                    self._readOne(*entry)
            if count < SLOTS:
                return

    def _readOne(self, slot: int, size: int) -> None:
        quoted = bytes(self._errors.payloads[slot][: self._errors.sizes[slot]])
        queued = errqueue.readQueued(self._errors.controls(slot, size), quoted)
        if isinstance(queued, errqueue.QueuedStamp):
            self._sentAt(self._numbers.numberOf(queued.id), queued.time)
        elif queued is not None:
            self._undelivered.append(Undelivered(_reasonOf(queued, self._peer), queued.quoted))

    def _sentAt(self, number: int | None, time: int) -> None:
        if number is not None:
            self._stamps.append((number, time))

    def drops(self) -> int | None:
        """@see: L{IProbeSocket.drops}"""
        return sockopt.kernelDrops(self._socket) if self._descriptor >= 0 else None

    def close(self) -> None:
        """@see: L{IProbeSocket.close}"""
        self._descriptor = -1
        self._socket.close()
