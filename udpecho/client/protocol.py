"""The connected UDP client: send a payload to one peer, and get its reply before the deadline, or one named failure."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet import defer, error
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from udpecho.addresses import MAX_PAYLOAD_IPV4, MAX_PAYLOAD_IPV6, DatagramAddress, formatAddress
from udpecho.client.checks import checkPayload, tooLong
from udpecho.client.route import Route
from udpecho.errors import ClientClosed, EchoError, HostUnreachable, MessageTooLong, ResponseTimeout, unreachable
from udpecho.interfaces import IDatagramTransport, INetworkErrorReceiver, Reactor
from udpecho.net.call_queue import CallQueue, cancelled
from udpecho.parsing import checkTimeout

#: The default timeout, in seconds.
TIMEOUT = 5.0


@dataclass(frozen=True)
class Reply:
    """An echoed datagram.

    @ivar payload: its bytes.
    @ivar peer: its source, a C{(host, port)} pair.
    @ivar roundTripTime: seconds from giving the payload to the system to getting the reply from it.
    """

    payload: bytes
    peer: tuple[str, int]
    roundTripTime: float


@dataclass(eq=False, slots=True)
class _Exchange:
    """An outstanding payload. C{ignored} is how many datagrams the client had ignored when it was sent."""

    payload: bytes
    timeout: float
    sent: float
    ignored: int
    done: defer.Deferred[Reply]
    deadline: IDelayedCall | None = None


@implementer(INetworkErrorReceiver)
class EchoClient(DatagramProtocol):
    """A connected socket with any number of outstanding payloads, each with its own deadline.

    A reply is matched to the oldest outstanding payload with the same bytes. A datagram that matches none is ignored and
    counted, so that a late reply never answers a later call with another payload.

    L{connect} makes a client. As a protocol it runs on any connected C{IUDPTransport}.

    @ivar ignored: how many datagrams from the peer matched no outstanding payload.
    @ivar route: the addresses of the peer, C{None} if it has the one of the transport only.
    """

    noisy = False

    def __init__(
        self, reactor: Reactor, timeout: float = TIMEOUT, verify: bool = True, now: Callable[[], float] | None = None
    ) -> None:
        """@param reactor: an C{IReactorTime}, which enforces the deadlines.
        @param timeout: the seconds until the deadline of a call without a timeout of its own.
        @param verify: whether a reply must be the payload that was sent. If not, a datagram from the peer that matches no
            outstanding payload answers the oldest.
        @param now: the clock for round trips, in seconds; by default the reactor's.
        @raise ValueError: if C{timeout} is not a number of seconds.
        """
        checkTimeout(timeout)
        self.ignored = 0
        self._reactor = reactor
        self._timeout = timeout
        self._verify = verify
        self._now = reactor.seconds if now is None else now
        self._peer = "the peer"
        self.route: Route | None = None
        self._closed = False
        self._calls = CallQueue()
        self._closing: list[defer.Deferred[None]] = []
        self._limit = MAX_PAYLOAD_IPV4
        # Both keep the order of sending.
        self._outstanding: dict[_Exchange, None] = {}
        self._byPayload: dict[bytes, deque[_Exchange]] = {}
        # Former transports, each with the calls whose replies may still come to it; those that are about to be closed.
        self._former: list[tuple[set[_Exchange], Any]] = []
        self._stopping: list[defer.Deferred[Any]] = []

    def echo(self, payload: bytes, timeout: float | None = None, *, elapsed: float = 0.0) -> defer.Deferred[int]:
        """Send a payload and wait for its reply.

        @param payload: 0 to 65507 bytes over IPv4, 65527 over IPv6.
        @param timeout: seconds until the deadline; by default the client's.
        @param elapsed: how many of these seconds the caller has used already, to resolve a name for example.
        @return: fires with the byte count of the reply. Fails with L{ResponseTimeout}, L{PortUnreachable},
            L{HostUnreachable}, L{MessageTooLong} or L{ClientClosed}; with C{TypeError} or C{ValueError} at once if an
            argument is wrong. May be cancelled.
        """
        return self.exchange(payload, timeout, elapsed=elapsed).addCallback(lambda reply: len(reply.payload))

    def exchange(self, payload: bytes, timeout: float | None = None, *, elapsed: float = 0.0) -> defer.Deferred[Reply]:
        """Send a payload and wait for its reply.

        @param payload: as for L{echo}, and so are the other parameters and the failures.
        @return: fires with the L{Reply}.
        """
        try:
            checkPayload(payload)
            if timeout is None:
                timeout = self._timeout
            checkTimeout(timeout)
            left = max(0.0, timeout - elapsed)
            if self._closed or self.transport is None:
                raise ClientClosed("the client is closed")
        except (TypeError, ValueError, EchoError):
            return defer.fail()

        payload = bytes(payload)
        done: defer.Deferred[Reply] = defer.Deferred(lambda _: self._cancel(exchange))
        exchange = _Exchange(payload, timeout, 0.0, self.ignored, done)
        exchange.deadline = self._reactor.callLater(left, self._expire, exchange)
        self._outstanding[exchange] = None
        self._byPayload.setdefault(payload, deque()).append(exchange)
        reason: EchoError | Failure | None
        try:
            reason = self._send(exchange)
        except Exception:
            # The transport is not connected, for example.
            reason = Failure()
        if reason is not None and self._forget(exchange):
            return defer.fail(reason)
        return done

    def _send(self, exchange: _Exchange) -> EchoError | None:
        """@return: why the transport rejects it, or C{None} if it does not."""
        payload = exchange.payload
        exchange.sent = self._now()
        try:
            assert self.transport is not None
            self.transport.write(payload, None)
        except error.MessageLengthError:
            return tooLong(self._peer, len(payload), self._limit)
        except OSError as e:
            # Twisted's own port raises what ours reports by networkError.
            return unreachable(e.errno or 0, self._peer)
        return None

    def close(self) -> defer.Deferred[None]:
        """Close the socket, and fail the outstanding calls with L{ClientClosed}. May be called repeatedly, from any callback.

        @return: fires when the socket is closed, and each former one.
        """
        if self._closed and self.transport is None and not self._stopping and not self._closing:
            return defer.succeed(None)
        closed: defer.Deferred[None] = defer.Deferred(cancelled)
        self._closing.append(closed)
        if len(self._closing) == 1:
            self._end("the client was closed before the reply came")
            # Twisted's own port fails if it is stopped twice.
            if self.transport is not None:
                self._stop(self.transport)
            defer.DeferredList(self._stopping).addBoth(self._notifyClosed)
            self._calls.run()
        return closed

    def retire(self, transport: Any) -> None:
        """Close a transport that has been replaced, as soon as no reply to an outstanding call may come to it."""
        waiting = set(self._outstanding).difference(*(waiting for waiting, _ in self._former))
        if waiting:
            self._former.append((waiting, transport))
        else:
            self._stop(transport)

    def _leaveFormer(self, exchange: _Exchange) -> None:
        for former in self._former[:]:
            waiting, transport = former
            waiting.discard(exchange)
            if not waiting:
                self._former.remove(former)
                self._stop(transport)

    def _stop(self, transport: Any) -> None:
        if IDatagramTransport.providedBy(transport):
            transport.abort()
            return
        stopping = transport.stopListening() or defer.succeed(None)
        self._stopping.append(stopping)
        stopping.addBoth(lambda _: self._stopping.remove(stopping))

    def _notifyClosed(self, result: object = None) -> None:
        self._calls.addResults(self._closing, None)
        self._calls.run()

    # Called by the transport

    def connectedTo(self, peer: DatagramAddress) -> None:
        """Set the peer's address, for messages."""
        self._peer = formatAddress(peer)
        self._limit = MAX_PAYLOAD_IPV6 if ":" in peer.host else MAX_PAYLOAD_IPV4

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """A datagram came from the peer."""
        same = self._byPayload.get(datagram)
        if same:
            exchange = same[0]
        elif self._outstanding and not self._verify:
            exchange = next(iter(self._outstanding))
        else:
            self.ignored += 1
            return
        reply = Reply(datagram, addr, self._now() - exchange.sent)
        self._forget(exchange)
        self._calls.addResult(exchange.done, reply)
        self._calls.run()

    def connectionRefused(self) -> None:
        """Nothing listens at the peer: all outstanding calls fail, unless there is another address to send them to."""
        self._unreachable(unreachable(errno.ECONNREFUSED, self._peer))

    def networkError(self, reason: EchoError) -> None:
        """The network did not deliver a datagram: the calls that it concerns fail."""
        if isinstance(reason, HostUnreachable):
            self._unreachable(reason)
        elif isinstance(reason, MessageTooLong):
            for exchange in list(self._outstanding):
                if len(exchange.payload) > (reason.limit or 0):
                    self._collect(exchange, MessageTooLong(str(reason), reason.errno, reason.limit))
            self._calls.run()

    def _unreachable(self, reason: EchoError) -> None:
        # Twisted's own port reports a refusal from inside of write.
        self._calls.call(self._goOnElsewhere, reason)

    def _goOnElsewhere(self, reason: EchoError) -> None:
        if self._closed:
            return
        found = reason if self.route is None else self.route.refused(reason)
        for exchange in list(self._outstanding):
            if found is not None:
                self._collect(exchange, type(found)(str(found), found.errno))
            elif exchange in self._outstanding:
                self._leaveFormer(exchange)
                rejected = self._send(exchange)
                if rejected is not None:
                    self._collect(exchange, rejected)

    def startProtocol(self) -> None:
        """There is a transport."""
        self._closed = False

    def stopProtocol(self) -> None:
        """The transport is gone."""
        self._end("the socket was closed before the reply came")
        self._calls.run()

    # Endings: each is complete before the first callback runs

    def _expire(self, exchange: _Exchange) -> None:
        self._forget(exchange)
        ignored = self.ignored - exchange.ignored
        others = f"; {ignored} other datagram{'s' * (ignored != 1)} from it ignored" if ignored else ""
        reason = ResponseTimeout(f"no reply from {self._peer} within {exchange.timeout:g} s{others}")
        if self.route is not None:
            # First, so that a caller who tries again at once does so by the new socket.
            self.route.failed()
        self._calls.addResult(exchange.done, reason)
        self._calls.run()

    def _cancel(self, exchange: _Exchange) -> None:
        self._forget(exchange)
        cancelled(exchange.done)

    def _end(self, message: str) -> None:
        self._closed = True
        if self.route is not None:
            self.route.close()
        for exchange in list(self._outstanding):
            self._collect(exchange, ClientClosed(message))

    def _collect(self, exchange: _Exchange, reason: EchoError) -> None:
        if self._forget(exchange):
            self._calls.addResult(exchange.done, reason)

    def _forget(self, exchange: _Exchange) -> bool:
        """@return: whether it was outstanding."""
        if exchange not in self._outstanding:
            return False
        del self._outstanding[exchange]
        same = self._byPayload[exchange.payload]
        same.remove(exchange)
        if not same:
            del self._byPayload[exchange.payload]
        self._leaveFormer(exchange)
        if exchange.deadline is not None and exchange.deadline.active():
            exchange.deadline.cancel()
        return True


def elapsedSince(started: float, reactor: Reactor) -> float:
    """The seconds since a time on the reactor's clock; 0 if the clock was set back."""
    elapsed: float = reactor.seconds() - started
    return max(0.0, elapsed)
