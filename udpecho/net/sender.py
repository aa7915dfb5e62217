"""Send single datagrams, and keep those that a full send queue does not take."""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet import error

from udpecho.addresses import MAX_PAYLOAD_IPV4, MAX_PAYLOAD_IPV6, DatagramAddress
from udpecho.interfaces import SendCallback
from udpecho.net.delayed_calls import SingleCall
from udpecho.net.endpoints import PortContext
from udpecho.net.linux import cmsg, sockopt
from udpecho.net.linux.adopted import resetSending
from udpecho.net.linux.mmsg import SLOTS
from udpecho.net.network_errors import PEER_ERRORS, NetworkErrors
from udpecho.net.reply_batch import LONGEST, ReplyBatch
from udpecho.net.sockets import SEND_TRIES, TRY_AGAIN, growSendBuffer

#: With C{ENOBUFS} the queue of an interface is full: macOS and the BSDs return it instead of waiting (C{send(2)}), and so does
#: Linux to a socket with C{IP_RECVERR}. The socket can be written all the time, so that no event comes when to try again.
_sendLater = TRY_AGAIN | {errno.EINTR, errno.ENOBUFS}
#: Seconds until then.
_retryPause = 0.01
#: An earlier datagram was refused, which says nothing about this one.
_refused = frozenset({errno.ECONNREFUSED})
#: Errors of the one datagram, which mean nothing for the peer.
_datagramErrors = frozenset({errno.EMSGSIZE, errno.ENOMEM})
#: What a system answers to control messages with an address or interface that it has no more.
_outdated = frozenset({errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENETUNREACH, errno.EHOSTUNREACH})


class _Waiting(NamedTuple):
    """A datagram that waits for the send queue until a deadline, in seconds of the reactor's clock."""

    deadline: float
    datagram: bytes
    destination: tuple[Any, ...] | None
    ancillary: cmsg.Ancillary
    callback: SendCallback | None


def ignoreOutcome(reason: str | None) -> None:
    """A callback for who does not need it: the port counts what is not sent."""


class Sender:
    """Sends the datagrams of a port, in order. The callbacks run from inside its loops: they may not be those of applications,
    but collect the calls of these.

    @ivar waiting: the datagrams that wait for the send queue; always the same object.
    """

    def __init__(
        self,
        context: PortContext,
        errors: NetworkErrors,
        onFull: Callable[[], object],
        onEmpty: Callable[[], object],
        onPause: Callable[[], object],
    ) -> None:
        """@param onFull: called when the first datagram begins to wait, and after a pause.
        @param onEmpty: called when no datagram waits any more.
        @param onPause: called when the socket is not to be watched until C{onFull} is called.
        """
        self._context = context
        self._endpoints = context.endpoints
        self._errors = errors
        self._onFull = onFull
        self._onEmpty = onEmpty
        self._onPause = onPause
        self._maxPayload = MAX_PAYLOAD_IPV4 if context.endpoints.family == socket.AF_INET else MAX_PAYLOAD_IPV6
        self.waiting: deque[_Waiting] = deque()
        self._expiry = SingleCall(context.reactor, self._expire)
        self._retry = SingleCall(context.reactor, onFull)
        self._open = False
        self._replies: ReplyBatch | None = None
        self._makeReplies: Callable[[], ReplyBatch] | None = None
        self._batches = 0
        self._soon = SingleCall(context.reactor, self.sendReplies)

    def open(self) -> None:
        """The socket is open."""
        growSendBuffer(self._context.socket)
        self._open = True

    @property
    def pauses(self) -> bool:
        """Whether the socket is not to be watched now."""
        return self._retry.scheduled

    def collectsReplies(self, makeBatch: Callable[[], ReplyBatch]) -> None:
        """Between L{beginBatch} and L{endBatch}, collect replies that the system is certain to take, and send them together."""
        self._makeReplies = makeBatch

    def beginBatch(self) -> None:
        """A batch of datagrams is handed to the protocol."""
        self._batches += 1

    def endBatch(self) -> None:
        """It was."""
        self._batches -= 1
        self.sendReplies()

    def _collect(self, datagram: bytes, address: tuple[str, int] | None) -> bool:
        """Collect a datagram, if nothing that is raised at once could be found out by sending it."""
        if type(address) is not tuple or type(datagram) is not bytes or len(datagram) > LONGEST:
            return False
        source = self._endpoints.sources.find(address)
        if source is None or not source.isTaken or self.waiting:
            return False
        replies = self._replies
        if replies is None:
            if self._makeReplies is None:
                return False
            replies = self._replies = self._makeReplies()
        replies.sources.append(source)
        replies.datagrams.append(datagram)
        if len(replies.datagrams) == 1:
            # A program may run the reactor inside of datagramReceived.
            self._soon.schedule()
        elif len(replies.datagrams) == SLOTS:
            self.sendReplies()
        return True

    def sendReplies(self) -> None:
        """Send what was collected. What the system does not take after all waits, or is counted."""
        if self._replies is not None and self._replies.datagrams:
            self._soon.cancel()
            for datagram, source in self._replies.send():
                if self.send(datagram, source.address, ignoreOutcome):
                    source.isTaken = False

    def endReplies(self) -> None:
        """Send what was collected, and collect nothing more."""
        self.sendReplies()
        self._makeReplies = self._replies = None

    def write(self, datagram: bytes, address: tuple[str, int] | None) -> None:
        """Send as L{DatagramPort.write <udpecho.net.port.DatagramPort.write>} does."""
        if self._batches and self._collect(datagram, address):
            return
        connected = self._endpoints.peer is not None
        raises = self._context.options.writeRaises and not (connected and self._errors.areWanted)
        number = self.send(datagram, address, None if raises else ignoreOutcome)
        if number == errno.EMSGSIZE:
            raise error.MessageLengthError("message too long")
        if number and raises and number not in (PEER_ERRORS if connected else _refused) and number != errno.EBADF:
            raise OSError(number, os.strerror(number))

    def send(self, datagram: bytes, address: tuple[str, int] | None, callback: SendCallback | None) -> int:
        """Send as L{IDatagramTransport.send <udpecho.interfaces.IDatagramTransport.send>} does.

        @param callback: C{None} if the caller raises what this returns: a protocol is notified of what concerns its peer only.
        @return: the system's error number if it rejected the datagram, else 0.
        """
        if self._batches:
            self.sendReplies()
        name, ancillary, answerable, source = self._endpoints.destination(address)
        if not answerable:
            self._report("unanswerable", callback)
            return 0
        if not self._open:
            self._report("send_failed", callback)
            return errno.EBADF
        if len(datagram) > self._maxPayload:
            number = errno.EMSGSIZE
        elif self.waiting:
            number = errno.EAGAIN
        else:
            number = self._transmit(datagram, name, ancillary)
            if number in _outdated and ancillary and source is not None:
                # The address that a datagram came to, or the interface, may be gone since. The system chooses another.
                self._endpoints.sources.forget(source)
                ancillary = []
                number = self._transmit(datagram, name, ancillary)
        if not number:
            if source is not None:
                source.isTaken = True
            if callback is not None:
                callback(None)
        elif number in _sendLater:
            if len(self.waiting) >= self._context.options.maxWaiting:
                self._report("send_timeout", callback)
            else:
                self._wait(datagram, name, ancillary, callback)
            return 0
        else:
            self._report("send_failed", callback)
            if callback is not None or number in PEER_ERRORS:
                self._addError(number)
        self._errors.notifySoon()
        return number

    def _addError(self, number: int) -> None:
        """Notify the protocol why the system rejected a datagram, in connected mode and if it means something for the peer."""
        if self._open and self._endpoints.peer is not None and number not in _datagramErrors:
            self._errors.addError(number)

    def sendPart(self, datagram: bytes, address: DatagramAddress, callback: SendCallback) -> None:
        """Send a datagram of a batch that cannot be sent whole. When the turn is over, it waits for the next."""
        if self._open and self._context.turn.isOver():
            self._wait(datagram, *self._endpoints.destination(address)[:2], callback)
        else:
            self.send(datagram, address, callback)

    def _transmit(self, datagram: bytes, destination: tuple[Any, ...] | None, ancillary: cmsg.Ancillary) -> int:
        """@return: 0, or the system's error number."""
        renewal = self._context.renewal
        number = 0 if renewal is None else renewal.beforeSending()
        if number:
            return number
        if self._context.adopted and sockopt.available:
            resetSending(self._context.socket)
        for _ in range(SEND_TRIES):
            if not self._open:
                # By an observer of the log, which has a line about a new socket.
                return errno.EBADF
            try:
                if ancillary:
                    self._context.socket.sendmsg([datagram], ancillary, sockopt.MSG_DONTWAIT, destination)
                elif destination is None:
                    self._context.socket.send(datagram, sockopt.MSG_DONTWAIT)
                else:
                    self._context.socket.sendto(datagram, sockopt.MSG_DONTWAIT, destination)
                return 0
            except OSError as e:
                number = e.errno or errno.EIO
            if self._endpoints.peer is None or number in _sendLater:
                self._errors.collect()
                return number
            if number not in PEER_ERRORS and number not in _datagramErrors:
                # Not from the network but from this machine, about this datagram: from a firewall, for example.
                if renewal is not None and renewal.renew():
                    continue
                self._errors.collect()
                return number
            # A connected socket returns the error of an earlier datagram instead of sending this one.
            if not self._errors.collect():
                if renewal is not None and number not in _datagramErrors and renewal.renew():
                    continue
                # No send is refused by its own peer, so that was an earlier one.
                if number != errno.ECONNREFUSED:
                    return number
                self._errors.addError(number)
        return number

    def _report(self, reason: str | None, callback: SendCallback | None) -> None:
        if reason is not None:
            self._context.dropped[reason] += 1
        if callback is not None:
            callback(reason)

    def _wait(
        self, datagram: bytes, destination: tuple[Any, ...] | None, ancillary: cmsg.Ancillary, callback: SendCallback | None
    ) -> None:
        timeout = self._context.options.writeTimeout
        # A bytearray is the caller's again when this returns.
        datagram = bytes(datagram)
        self.waiting.append(_Waiting(self._context.reactor.seconds() + timeout, datagram, destination, ancillary, callback))
        if not self._expiry.scheduled:
            self._expiry.schedule(timeout)
            self._onFull()

    def flush(self) -> None:
        """The send queue has space: send what waits for it."""
        while self.waiting:
            first = self.waiting[0]
            number = self._transmit(first.datagram, first.destination, first.ancillary)
            if not self._open:
                # Closed by an observer of the log.
                return
            if number in _sendLater:
                if number == errno.ENOBUFS:
                    self._onPause()
                    self._retry.schedule(_retryPause)
                break
            self.waiting.popleft()
            self._report("send_failed" if number else None, first.callback)
            if number:
                self._addError(number)
            if self._context.turn.isOver():
                # The reactor calls again while the queue has space.
                break
        if not self.waiting:
            self._finishWaiting()
        self._context.calls.run()
        self._errors.notify()

    def _expire(self) -> None:
        now = self._context.reactor.seconds()
        while self.waiting and self.waiting[0].deadline <= now:
            self._report("send_timeout", self.waiting.popleft().callback)
        if self.waiting:
            self._expiry.schedule(max(0.0, self.waiting[0].deadline - now))
        else:
            self._finishWaiting()
        self._context.calls.run()

    def _finishWaiting(self) -> None:
        self._expiry.cancel()
        self._retry.cancel()
        if self._open:
            self._onEmpty()

    def close(self) -> None:
        """Give up what waits, and send nothing more."""
        self._open = False
        while self.waiting:
            self._report("send_timeout", self.waiting.popleft().callback)
        self._expiry.cancel()
        self._retry.cancel()
