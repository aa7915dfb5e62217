"""The connected UDP client: send a payload to one peer, get it back before the deadline, or learn why not."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet import defer, error
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from udpecho.addresses import MAX_PAYLOAD_IPV4, MAX_PAYLOAD_IPV6, DatagramAddress, formatAddress
from udpecho.errors import ClientClosed, EchoError, HostUnreachable, MessageTooLong, ResponseTimeout, unreachable
from udpecho.interfaces import IDatagramTransport, INetworkErrorReceiver, Reactor
from udpecho.parsing import checkTimeout

#: Seconds to wait for a reply, as in the seed.
TIMEOUT = 5.0


@dataclass(frozen=True)
class Reply:
    """
    An echoed datagram.

    @ivar payload: its bytes.
    @ivar peer: where it came from, a C{(host, port)} pair.
    @ivar roundTripTime: seconds from handing the payload to the system to getting the reply from it.
    """

    payload: bytes
    peer: tuple[str, int]
    roundTripTime: float


class _Exchange:
    """
    One payload on its way, and whoever waits for its reply.

    @ivar payload: what was sent.
    @ivar timeout: the seconds that were given.
    @ivar sent: when it was sent, on the client's clock.
    @ivar ignored: how many datagrams the client had ignored by then.
    @ivar deadline: the call that ends it.
    @ivar done: fires with the L{Reply}.
    """

    deadline: IDelayedCall

    def __init__(self, client: EchoClient, payload: bytes, timeout: float, sent: float, ignored: int) -> None:
        self.payload = payload
        self.timeout = timeout
        self.sent = sent
        self.ignored = ignored
        self.done: defer.Deferred[Reply] = defer.Deferred(lambda _: client._forget(self))


@implementer(INetworkErrorReceiver)
class EchoClient(DatagramProtocol):
    """
    One connected socket, and any number of payloads on their way through it, each with its own deadline.

    A reply is matched to the oldest payload on its way that is the same bytes. A datagram that matches none is ignored and
    counted, so that a late reply never answers a later call with another payload.

    L{connect} makes one. As a protocol it runs on any connected C{IUDPTransport}.

    @ivar ignored: how many datagrams from the peer matched nothing that was on its way.
    """

    noisy = False

    def __init__(
        self,
        reactor: Reactor,
        timeout: float = TIMEOUT,
        verify: bool = True,
        now: Callable[[], float] | None = None,
    ) -> None:
        """
        @param reactor: an C{IReactorTime} provider; enforces the deadlines.
        @param timeout: the seconds that a call without a timeout of its own has.
        @param verify: whether a reply must be the payload that was sent; if not, the first datagram from the peer answers the
            oldest payload on its way, unless it is the same bytes as another.
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
        self._closed = False
        self._closing: list[defer.Deferred[None]] = []
        self._limit = MAX_PAYLOAD_IPV4
        # Both keep the order of sending; the second is for finding a reply's own.
        self._outstanding: dict[_Exchange, None] = {}
        self._byPayload: dict[bytes, deque[_Exchange]] = {}

    def echo(self, payload: bytes, timeout: float | None = None, *, elapsed: float = 0.0) -> defer.Deferred[int]:
        """
        Send a payload and wait for its reply.

        @param payload: 0 to 65507 bytes over IPv4, 65527 over IPv6.
        @param timeout: seconds until the deadline; by default the client's.
        @param elapsed: how many of them are over already, on resolving say: for a caller whose own deadline this is part of.

        @return: fires with the byte count of the reply. Fails with L{ResponseTimeout}, L{PortUnreachable},
            L{HostUnreachable}, L{MessageTooLong} or L{ClientClosed}; with C{TypeError} or C{ValueError} at once if an
            argument is wrong. May be cancelled.
        """
        return self.exchange(payload, timeout, elapsed=elapsed).addCallback(lambda reply: len(reply.payload))

    def exchange(self, payload: bytes, timeout: float | None = None, *, elapsed: float = 0.0) -> defer.Deferred[Reply]:
        """
        Send a payload and wait for its reply, as L{echo} does.

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
        exchange = _Exchange(self, payload, timeout, self._now(), self.ignored)
        exchange.deadline = self._reactor.callLater(left, self._expire, exchange)
        self._outstanding[exchange] = None
        self._byPayload.setdefault(payload, deque()).append(exchange)
        try:
            self.transport.write(payload, None)
        except error.MessageLengthError:
            self._fail(exchange, _tooLong(self._peer, payload, self._limit))
        except OSError as e:
            # Twisted's own port raises what ours tells by networkError.
            self._fail(exchange, unreachable(e.errno or 0, self._peer))
        except Exception:
            # It is not connected, say.
            self._forget(exchange)
            return defer.fail()
        return exchange.done

    def close(self) -> defer.Deferred[None]:
        """
        Close the socket, and fail what is on its way with L{ClientClosed}. May be called twice.

        @return: fires when the socket is closed.
        """
        self._closed = True
        transport = self.transport
        closed: defer.Deferred[None] = defer.Deferred()
        self._closing.append(closed)
        if IDatagramTransport.providedBy(transport):
            transport.abort()
            self._closingIsOver()
        elif transport is None:
            self._closingIsOver()
        elif len(self._closing) == 1:
            # The stock port does not bear to be told twice.
            (transport.stopListening() or defer.succeed(None)).addBoth(self._closingIsOver)
        self._failAll("the client was closed before the reply came")
        return closed

    def _closingIsOver(self, result: object = None) -> None:
        closing, self._closing = self._closing, []
        for closed in closing:
            closed.callback(None)

    # What the transport tells

    def connectedTo(self, peer: DatagramAddress) -> None:
        """Remember the peer's address, for messages."""
        self._peer = formatAddress(peer)
        self._limit = MAX_PAYLOAD_IPV6 if ":" in peer.host else MAX_PAYLOAD_IPV4

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Fire the Deferred that this is the reply for."""
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
        exchange.done.callback(reply)

    def connectionRefused(self) -> None:
        """Nothing listens at the peer: none of what is on its way will be answered."""
        for exchange in list(self._outstanding):
            self._fail(exchange, unreachable(errno.ECONNREFUSED, self._peer))

    def networkError(self, reason: EchoError) -> None:
        """
        The network did not deliver.

        @see: L{INetworkErrorReceiver.networkError}
        """
        for exchange in list(self._outstanding):
            if isinstance(reason, HostUnreachable):
                self._fail(exchange, type(reason)(str(reason), reason.errno))
            elif isinstance(reason, MessageTooLong) and len(exchange.payload) > (reason.limit or 0):
                self._fail(exchange, MessageTooLong(str(reason), reason.errno, reason.limit))

    def stopProtocol(self) -> None:
        """The transport is gone."""
        self._closed = True
        self._failAll("the socket was closed before the reply came")

    # Endings

    def _expire(self, exchange: _Exchange) -> None:
        ignored = self.ignored - exchange.ignored
        others = f"; {ignored} other datagram{'s' * (ignored != 1)} from it ignored" if ignored else ""
        self._fail(exchange, ResponseTimeout(f"no reply from {self._peer} within {exchange.timeout:g} s{others}"))

    def _failAll(self, message: str) -> None:
        for exchange in list(self._outstanding):
            self._fail(exchange, ClientClosed(message))

    def _fail(self, exchange: _Exchange, reason: EchoError) -> None:
        # A callback of another exchange may have ended this one meanwhile.
        if exchange in self._outstanding:
            self._forget(exchange)
            exchange.done.errback(reason)

    def _forget(self, exchange: _Exchange) -> None:
        """The exchange is over: leave nothing of it behind."""
        del self._outstanding[exchange]
        same = self._byPayload[exchange.payload]
        same.remove(exchange)
        if not same:
            del self._byPayload[exchange.payload]
        if exchange.deadline.active():
            exchange.deadline.cancel()


def elapsedSince(started: float, reactor: IReactorTime) -> float:
    """The seconds since a time on the reactor's clock: never less than none, though somebody may have set the clock back."""
    return max(0.0, reactor.seconds() - started)


def checkPayload(payload: bytes) -> None:
    """
    @raise TypeError: if C{payload} is not bytes.
    @raise MessageTooLong: if no datagram can carry it.
    """
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise TypeError(f"a payload is bytes, not {type(payload).__name__}: encode a string first")
    if len(payload) > MAX_PAYLOAD_IPV6:
        raise _tooLong("any peer", payload, MAX_PAYLOAD_IPV6)


def _tooLong(peer: str, payload: bytes, limit: int) -> MessageTooLong:
    if len(payload) <= limit:
        return MessageTooLong(f"this system does not send {len(payload)} bytes in a datagram to {peer}")
    return MessageTooLong(f"{len(payload)} bytes are too long for a datagram to {peer}: {limit} at most", limit=limit)
