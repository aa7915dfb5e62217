"""Sends an input to a peer, a datagram at a time, and waits for each reply."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet import error

from udpecho.addresses import MAX_PAYLOAD_IPV4, MAX_PAYLOAD_IPV6, formatAddress
from udpecho.client.connect import connect
from udpecho.client.protocol import TIMEOUT, elapsedSince
from udpecho.errors import EchoError, MessageTooLong, ResponseTimeout
from udpecho.interfaces import Reactor


@dataclass
class Sums:
    """Datagrams sent, and replies received in time."""

    sent: int = 0
    sentBytes: int = 0
    answered: int = 0
    answeredBytes: int = 0

    def __str__(self) -> str:
        return (
            f"sent={self.sent} answered={self.answered} unanswered={self.sent - self.answered}"
            f" sent-bytes={self.sentBytes} answered-bytes={self.answeredBytes}"
        )


class Report(Protocol):
    """Is notified of the datagrams of a L{Transfer}."""

    def written(self, size: int) -> object:
        """A datagram of C{size} bytes was sent."""

    def received(self, size: int, peer: tuple[str, int]) -> object:
        """Its reply came, C{size} bytes from C{peer}."""

    def unanswered(self, reason: ResponseTimeout) -> object:
        """Its reply did not come in time."""


@dataclass
class Transfer:
    """An input that is sent to a peer.

    @ivar timeout: seconds to wait for each reply, for the first one with the time for resolving the name.
    @ivar chunk: bytes in each datagram; C{None} to send the whole input as one.
    """

    host: str
    port: int
    timeout: float = TIMEOUT
    verify: bool = True
    bindAddress: tuple[str, int] | None = None
    chunk: int | None = None
    sums: Sums = field(default_factory=Sums)

    async def run(self, reactor: Reactor, read: Callable[[int], Awaitable[bytes]], report: Report) -> Sums:
        """Read, send and wait for the reply, until the input ends. An empty input is one empty datagram.

        @param reactor: as for L{connect <udpecho.client.connect.connect>}.
        @param read: reads the given number of bytes of the input, fewer only at its end.
        @raise MessageTooLong: if the input is longer than one datagram and C{chunk} is C{None}.
        @raise EchoError: if the peer refused, or cannot be reached.
        @raise error.DNSLookupError: if the name cannot be resolved.
        @raise error.CannotListenError: if the system refuses the local address.
        @raise OSError: if the input cannot be read.
        """
        piece = await read(MAX_PAYLOAD_IPV6 + 1 if self.chunk is None else self.chunk)
        if len(piece) > MAX_PAYLOAD_IPV6:
            raise MessageTooLong(
                f"input must fit into one datagram ({MAX_PAYLOAD_IPV4} bytes over IPv4, {MAX_PAYLOAD_IPV6} over IPv6), got"
                " more: --chunk N sends it in datagrams of N bytes"
            )
        started = reactor.seconds()
        client = await connect(reactor, self.host, self.port, self.timeout, verify=self.verify, bindAddress=self.bindAddress)
        elapsed = elapsedSince(started, reactor)
        try:
            while True:
                reply = client.exchange(piece, self.timeout, elapsed=elapsed)
                try:
                    if not reply.called:
                        self.sums.sent += 1
                        self.sums.sentBytes += len(piece)
                        report.written(len(piece))
                    answer = await reply
                except ResponseTimeout as e:
                    report.unanswered(e)
                except BaseException:
                    # If another Deferred failed, nobody waits for this one any more.
                    reply.addErrback(lambda _: None)
                    raise
                else:
                    self.sums.answered += 1
                    self.sums.answeredBytes += len(answer.payload)
                    report.received(len(answer.payload), answer.peer)
                if self.chunk is None or len(piece) < self.chunk:
                    return self.sums
                elapsed = 0.0
                piece = await read(self.chunk)
                if not piece:
                    return self.sums
        finally:
            await client.close()


def failureMessage(reason: BaseException | None, source: str) -> str | None:
    """The sentence for a failure of L{Transfer.run} with the input C{source}; C{None} for one that it does not document."""
    # Twisted's DNSLookupError is an OSError too.
    if isinstance(reason, (EchoError, ValueError, error.DNSLookupError)):
        return str(reason.args[0])
    if isinstance(reason, error.CannotListenError):
        return f"cannot send from {formatAddress((reason.interface, reason.port))}: {reason.socketError.strerror}"
    if isinstance(reason, OSError):
        return f"cannot read {source}: {reason.strerror}"
    return None
