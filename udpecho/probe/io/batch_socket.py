"""A probe socket that sends and receives many datagrams with one system call, with the kernel's timestamps."""

from __future__ import annotations

import errno
import socket
from array import array

from zope.interface import implementer

from udpecho.errors import EchoError, MessageTooLong, unreachable
from udpecho.net import features
from udpecho.net.linux import errqueue, mmsg, sockopt
from udpecho.net.linux.mmsg import HEADER_SIZE, SLOTS, Slots
from udpecho.net.network_errors import PEER_ERRORS
from udpecho.net.sockets import SEND_TRIES, TRY_AGAIN, datagramAddress
from udpecho.probe.io import timestamps
from udpecho.probe.io.socket import Arrivals, IProbeSocket, Taken, Undelivered
from udpecho.probe.io.stamp_slots import StampSlots

#: To see that a reply is longer than its probe so many bytes more are received.
_surplus = 32
#: How much of a datagram that did not arrive to read, in bytes: enough to identify it.
_quotedSize = 64


@implementer(IProbeSocket)
class BatchSocket:
    """Many datagrams with one call, both ways, with timestamps where the kernel makes them. Without timestamps the time of a
    datagram is that of its call, so that each has a call of its own.
    """

    def __init__(self, sock: socket.socket, size: int, stamps: bool = True, taken: int = 0) -> None:
        """@param sock: a connected socket, which is closed with this.
        @param size: the longest datagram to send, in bytes.
        @param taken: how many datagrams were sent by other sockets before: the numbers of timestamps go on from there.
        @raise OSError: if this system has no such calls.
        """
        self._calls = mmsg.systemCalls()
        self._socket = sock
        self._descriptor = sock.fileno()
        self.source = datagramAddress(sock.getsockname())
        self._peer = str(datagramAddress(sock.getpeername()))
        self._hasQueue = sockopt.enableRecvErr(sock)
        self.stamped = stamps and timestamps.begin(sock)
        if stamps and not self.stamped and (reason := timestamps.noTimestampsReason()):
            features.missed(features.TIMESTAMPS, reason)
        self.most = SLOTS if self.stamped else 1
        self._numbers = timestamps.StampNumbers(taken)
        self._outgoing = Slots(size, self.most, controls=False)
        self._incoming = StampSlots(size + _surplus, self._calls)
        self._errors = StampSlots(_quotedSize, self._calls)
        self._stamps: list[tuple[int, int]] = []
        self._undelivered: list[Undelivered] = []
        self._slots = [payload[:0] for payload in self._outgoing.payloads]
        self._outgoing.iovLengths[:] = memoryview(array("I", [0] * self.most))

    def fileno(self) -> int:
        """@see: L{IProbeSocket.fileno}"""
        return self._descriptor

    def slot(self, index: int, size: int) -> memoryview:
        """@see: L{IProbeSocket.slot}"""
        slot = self._slots[index]
        if len(slot) != size:
            self._outgoing.iovLengths[index] = size
            self._slots[index] = slot = self._outgoing.payloads[index][:size]
        return slot

    def send(self, count: int) -> Taken:
        """@see: L{IProbeSocket.send}"""
        done = tries = number = 0
        while done < count:
            address = self._outgoing.headersAddress + done * HEADER_SIZE
            sent = self._calls.sendmmsg(self._descriptor, address, count - done, sockopt.MSG_DONTWAIT)
            if sent > 0:
                self._numbers.taken += sent
                done += sent
                tries = 0
                continue
            number = self._calls.lastError()
            if number == errno.EINTR:
                continue
            known = len(self._undelivered)
            self._readErrorQueue()
            if number == errno.ECONNREFUSED:
                # No send is refused by its own peer, so that was an earlier one.
                self._addSocketError(number)
            if self.stamped:
                # Whether one that was not sent has a number depends on the kernel.
                timestamps.enable(self._socket)
                self._numbers.begin()
            tries += 1
            # A connected socket returns the error of an earlier datagram instead of sending this one.
            if number in TRY_AGAIN or tries == SEND_TRIES or len(self._undelivered) == known:
                return Taken(done, number)
        return Taken(done)

    def receive(self) -> Arrivals:
        """@see: L{IProbeSocket.receive}"""
        if not self._hasQueue and self._descriptor >= 0:
            # Or the call would take it, and return nothing else.
            self._addSocketError(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        return Arrivals(*self._incoming.receive(self._descriptor))

    def readErrors(self) -> tuple[list[tuple[int, int]], list[Undelivered]]:
        """@see: L{IProbeSocket.readErrors}"""
        self._readErrorQueue()
        found = self._stamps, self._undelivered
        self._stamps, self._undelivered = [], []
        return found

    def _readErrorQueue(self) -> None:
        entries = self._errors.readErrorQueue(self._descriptor)
        numbers = ((self._numbers.numberOf(id), time) for id, time in entries.stamps)
        self._stamps += [(number, time) for number, time in numbers if number is not None]
        self._undelivered += [Undelivered(failureOf(error, self._peer), error.quoted) for error in entries.errors]

    def _addSocketError(self, number: int) -> None:
        """Without an error queue, a network error is an error of the socket."""
        if not self._hasQueue and number in PEER_ERRORS:
            self._undelivered.append(Undelivered(unreachable(number, self._peer)))

    def drops(self) -> int | None:
        """@see: L{IProbeSocket.drops}"""
        return sockopt.kernelDrops(self._socket) if self._descriptor >= 0 else None

    def close(self) -> None:
        """@see: L{IProbeSocket.close}"""
        self._descriptor = -1
        self._socket.close()


def failureOf(entry: errqueue.QueuedError, peer: str) -> EchoError:
    """What to raise for a report."""
    if entry.errno == errno.EMSGSIZE:
        return MessageTooLong(f"the path to {peer} carries {entry.info} bytes at the most, with headers", entry.errno)
    return unreachable(entry.errno, peer)
