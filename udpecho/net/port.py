"""A UDP port that survives refusals, truncates nothing, answers from the address a request was sent to, keeps timers running,
and waits while the send queue is full.

Theory of operation
===================

A port is in one of five states::

    NEW --startListening--> OPEN --connect--> CONNECTED
     |                       |                    |
     | (refused)             +--stopListening-----+--> CLOSING --next turn--> CLOSED
     |                       +--abort, error of the reactor's ---------------> CLOSED
     +---------------------------------------------------------------------->  CLOSED

    NEW        There is no socket. What is sent fails with C{send_failed}.
    OPEN       Datagrams come from anybody: in batches where the system can, else one by one.
    CONNECTED  Datagrams come from one peer, one by one, or in batches if several ports share memory for them. The protocol
               is notified of network errors. A socket that was connected when it was adopted begins here.
    CLOSING    Nothing is read. What waits for the send queue still waits. The socket closes in the reactor's next turn.
    CLOSED     The socket is closed. What waited has been reported as C{send_timeout}, the protocol has been stopped, and the
               Deferreds of C{stopListening} have fired.

In OPEN and CONNECTED the reactor watches the socket for reading if and only if

    - the protocol wants datagrams (C{startReading}, C{stopReading}),
    - no datagram waits for the send queue (else the replies to what is read could only wait, too), and
    - no read has failed in the last 0.1 seconds, for example because there was no memory.

It watches for writing if and only if a datagram waits for the send queue. The events of the reactor::

    doRead          The Reader receives and hands over until the queue is empty, or the time of the turn is over, which all
                    ports of a reactor share (C{net/turn.py}). If there was nothing to read, there are network errors to take.
    doWrite         The Sender sends what waits, within the same time.
    connectionLost  On poll and epoll a network error looks like the end of a connection. So the port takes the errors, notifies
                    the protocol and goes on. It closes if the reactor itself stops.

The parts of a port, each in a module of its own: C{Endpoints} are its addresses. A L{Reader}, plain or for batches, receives;
L{Delivery} hands over one by one, with a backlog while the protocol wants none. L{Sender} keeps what the send queue does not
take. L{NetworkErrors} go to the protocol. A batch goes back by C{BatchSender}. A L{FormerSocket} still receives for a while.
"""

from __future__ import annotations

import errno
import socket
from functools import partial
from typing import Any

from twisted.internet import base, defer, error, udp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IListeningPort, IMulticastTransport
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from udpecho.interfaces import IDatagramTransport, Reactor, SendCallback
from udpecho.net.batch_reader import openBatchReader
from udpecho.net.call_queue import CallQueue, cancelled
from udpecho.net.connection import Connection, Renewal
from udpecho.net.delayed_calls import SingleCall, poll
from udpecho.net.endpoints import Endpoints, PortContext
from udpecho.net.former import FormerSocket
from udpecho.net.groups import GroupMethods
from udpecho.net.linux import sockopt
from udpecho.net.monotonic import useMonotonicTime
from udpecho.net.network_errors import PEER_ERRORS, NetworkErrors
from udpecho.net.options import PortOptions
from udpecho.net.peer_reader import openPeerReader
from udpecho.net.reader import Delivery, Found, PlainReader, Reader
from udpecho.net.reply_controls import reportToConnected
from udpecho.net.sender import Sender
from udpecho.net.sockets import MAX_DATAGRAM, TRY_AGAIN, isConnected, prepare, receiveBuffer, shareAddress, socketAddress
from udpecho.net.sources import Sources
from udpecho.net.stock import ProtocolAttribute, closeSocket, logAsStock, stopProtocol
from udpecho.net.turn import turnBudget

_nothingToRead = TRY_AGAIN | {errno.EINTR}
#: The descriptor itself is bad, so that no later turn can go better.
_badDescriptor = frozenset({errno.EBADF, errno.ENOTSOCK})
#: Seconds to wait before reading again when the system failed to read.
_readPause = 0.1
#: Seconds between two looks at a full send queue while draining.
_drainPause = 0.01

_log = Logger()


@implementer(IListeningPort, IDatagramTransport, IMulticastTransport)
class DatagramPort(GroupMethods, ProtocolAttribute, udp.Port):
    """A UDP port for any C{DatagramProtocol}, which may join groups.

    In connected mode C{connectionRefused} is called from the reactor when nothing listens at the peer, and the port stays open.
    Other network errors go to C{networkError} of a protocol that provides L{INetworkErrorReceiver
    <udpecho.interfaces.INetworkErrorReceiver>}; without it, C{connectionRefused} reports an unreachable peer, too.

    A protocol that provides L{IBatchReceiver <udpecho.interfaces.IBatchReceiver>} gets batches, where the system has them.

    @ivar dropped: how many datagrams this port dropped, by reason (L{udpecho.interfaces.DROP_REASONS}): C{not_allowed} if not
        from the peer, and queued before the port was connected.
    """

    reactor: Any
    _preexistingSocket: Any
    _reader: Reader

    def __init__(
        self,
        port: int | None,
        proto: DatagramProtocol,
        interface: str = "",
        maxPacketSize: int = MAX_DATAGRAM,
        reactor: Reactor = None,
        options: PortOptions = PortOptions(),  # noqa: B008
    ) -> None:
        """@param port: the port number, 0 for any free one.
        @param interface: the local IP address to bind, C{""} for all of IPv4, C{"::"} for all of both families.
        @param maxPacketSize: the longest datagram to hand over, in bytes; longer ones are dropped and counted as C{truncated}.
        @param reactor: an C{IReactorFDSet} and C{IReactorTime} provider.
        """
        super().__init__(port, proto, interface, maxPacketSize, reactor)
        self.listenMultiple = options.listenMultiple
        useMonotonicTime(self.reactor)
        self._endpoints = Endpoints(self.addressFamily, Sources(proto))
        self._context = context = PortContext(self.reactor, proto, self._endpoints, maxPacketSize, options, port is None)
        self.dropped = context.dropped
        self._errors = NetworkErrors(context)
        self._sender = Sender(context, self._errors, self._sendQueueFull, self._sendQueueEmpty, self.stopWriting)
        self._delivery = Delivery(context, self._sender.waiting)
        self._having = context, self._delivery
        self._sawError = self._readingFailed = self._foundEmpty = False
        self._closedDrops = 0
        self._former: list[FormerSocket] = []
        self._readingPause = SingleCall(self.reactor, self._resume)
        self._closing = SingleCall(self.reactor, self.connectionLost)
        self._stopped: list[defer.Deferred[None]] = []

    # Opening and connecting

    def startListening(self) -> None:
        """Bind, and begin to read. May be called once.

        @raise error.CannotListenError: if the system rejects it; nothing is left open then.
        """
        if self.connected or self.disconnected:
            raise error.CannotListenError(self.interface, self.port, OSError(errno.EINVAL, "must be new, was used already"))
        try:
            super().startListening()
        except BaseException as e:
            # There is a socket, and a protocol that has it, but the reactor cannot watch it, or the protocol fails.
            self.abort()
            if isinstance(e, OSError):
                raise error.CannotListenError(self.interface, self.port, e) from None
            raise
        if not self.connected and getattr(self.protocol, "numPorts", False):  # closed by startProtocol
            self._context.calls.call(self.protocol.doStop)

    def createInternetSocket(self) -> socket.socket:
        """Make the socket, with the options that must be set before it is bound."""
        sock = super().createInternetSocket()
        prepare(sock, self.interface, self._context.options.ipv6Only, self._context.options.receiveBuffer)
        if self.listenMultiple:
            shareAddress(sock)
        return sock

    def _bindSocket(self) -> None:
        # The stock port drops the scope, leaves a socket that it cannot bind to the garbage collector, and raises OSError.
        sock, self._preexistingSocket = self._preexistingSocket, None
        try:
            if sock is None:
                sock = self.createInternetSocket()
                sock.bind(socketAddress(self.interface, self.port))
            self._realPortNumber = sock.getsockname()[1]
            self.socket = sock
            self.fileno = sock.fileno  # type: ignore[method-assign]
            self._context.turn = turnBudget(self.reactor)
            self.connected = 1
            self._openParts(sock)
        except BaseException as e:
            if self.connected:
                self._context.turn.closed()
            self.connected = 0
            self._sender.close()
            if sock is not None:
                closeSocket(self, sock)
            raise (error.CannotListenError(self.interface, self.port, e) if isinstance(e, OSError) else e) from None
        logAsStock(self.protocol, f"{self._getLogPrefix(self.protocol)} starting on {self._realPortNumber}")

    def _openParts(self, sock: socket.socket) -> None:
        """@raise OSError: if the system rejects it."""
        self._endpoints.bound(sock)
        self._context.opened(sock)
        self._sender.open()
        if isConnected(sock):
            # An adopted one may be.
            self._becameConnected(None)
        openReader = openBatchReader if self._endpoints.peer is None else openPeerReader
        reader = openReader(self._context, self._delivery, self._sender)
        self._reader = reader or PlainReader(self._context, self._delivery)

    def connect(self, host: str, port: int) -> None:
        """Exchange datagrams with one peer only from now on.

        @raise RuntimeError: if this port is connected already.
        @raise error.InvalidAddressError: if C{host} is not an IP address of this port's family.
        @raise OSError: if the system rejects it, for example without a route; this port can be used and connected afterwards.
        """
        if self._endpoints.peer is not None:
            raise RuntimeError("already connected, reconnecting is not currently supported")
        self._endpoints.checkHost(host)
        self._sender.endReplies()
        reader, self._reader = self._reader, PlainReader(self._context, self._delivery, readsAll=True)
        reader.portConnected()
        self._resume()
        self.socket.connect(socketAddress(host, port))
        self._connectedAddr = host, port
        self._becameConnected((host, port))

    def _becameConnected(self, address: tuple[str, int] | None) -> None:
        self._endpoints.connected(self.socket, address)
        self._endpoints.hopLimits = reportToConnected(self.socket, self._context.options.countsHops(self.protocol))

    def keepConnected(self, connection: Connection) -> None:
        """Open the socket again, as C{connection} does, when the system would choose another local address or interface."""
        self._context.renewal = Renewal(self.reactor, connection, self.socket, self._replaceSocket)

    def _replaceSocket(self, sock: socket.socket) -> None:
        # What the old one has, now or soon, it has about the same peer.
        self._errors.collect()
        super().stopReading()
        self.stopWriting()
        self._closedDrops = self.getKernelDrops() or 0
        self._former.append(FormerSocket(self.reactor, self._context, self._delivery, self._former.remove))
        self.socket = self._context.socket = sock
        self.fileno = sock.fileno  # type: ignore[method-assign]
        self._realPortNumber = sock.getsockname()[1]
        self._becameConnected(None)
        self._resume()

    def getHost(self) -> IPv4Address | IPv6Address:
        """The local address; for link-local IPv6 with its scope."""
        return self._endpoints.getHost()

    def getReceiveBuffer(self) -> int:
        """The receive buffer that the system has granted, in bytes, on the scale of L{PortOptions.receiveBuffer}."""
        return receiveBuffer(self.socket)

    def getKernelDrops(self) -> int | None:
        """How many datagrams the system dropped because the receive buffer was full; C{None} where it does not report it."""
        drops = sockopt.kernelDrops(self.socket) if self.connected else 0
        return None if drops is None else drops + self._closedDrops

    # Reading

    def startReading(self) -> None:
        """Read from now on, or as soon as no datagram waits for the send queue."""
        self._delivery.wanted = True
        self._resume()

    def stopReading(self) -> None:
        """Do not read until L{startReading}."""
        self._delivery.wanted = False
        super().stopReading()

    def doRead(self) -> None:
        """Read what is there, as long as the turn has time."""
        self._context.turn.run(self._read)

    def _read(self) -> None:
        if self._delivery.backlog:
            self._delivery.flush()
        if not self._delivery.backlog:
            self._receive(self._reader)
        if self._sawError:
            self._sawError = False
            if self._delivery.wanted and self.connected:
                # libuv, and so uvloop, stops watching a socket that has reported an error.
                super().stopReading()
                self._resume()

    def _receive(self, reader: Reader) -> None:
        delivery, waiting, isOver = self._delivery, self._sender.waiting, self._context.turn.isOver
        isFirst, found = True, Found.MORE
        while found is Found.MORE and delivery.wanted and not waiting and self._reader is reader and (isFirst or not isOver()):
            try:
                found = reader.read()
            except OSError as e:
                if e.errno in _nothingToRead:
                    self._foundEmpty = True
                    if isFirst:
                        self._sawError = self._endpoints.peer is not None
                        self._errors.notify()
                    return
                if not self._readFailed(e):
                    return
            else:
                self._readingFailed = False
            isFirst = False
        if found is Found.EMPTY and not delivery.backlog:
            self._foundEmpty = True

    def _readFailed(self, failure: OSError) -> bool:
        """The system returned an error instead of a datagram. True: read on in this turn."""
        number = failure.errno or errno.EIO
        if self._endpoints.peer is not None and (number in PEER_ERRORS or number == errno.EMSGSIZE):
            self._sawError = True
            self._errors.notify(number)
            return True
        if number in PEER_ERRORS:
            # Windows reports refusals to an unconnected socket, too, and not the address that refused.
            return True
        if number in _badDescriptor:
            raise failure
        super().stopReading()
        self._readingPause.schedule(_readPause)
        if not self._readingFailed:
            self._readingFailed = True
            _log.warn("cannot read from UDP port {port}: {error}", port=self._realPortNumber, error=failure)
        return False

    def _resume(self) -> None:
        """Have the reactor watch for what the state needs."""
        if not self.connected or self._closing.scheduled:
            return
        if self._sender.waiting:
            self.startWriting()
        elif self._delivery.wanted and not self._readingPause.scheduled:
            super().startReading()
            self._delivery.flushSoon()

    # Writing

    def write(self, datagram: bytes, addr: tuple[str, int] | None = None) -> None:
        """Send a datagram: now, with other replies to the batch that is handed over, or as soon as the send queue has space.

        @param addr: the destination; C{None} in connected mode. For a reply from the address that the request was sent to, pass
            the very object that C{datagramReceived} got.
        @raise error.MessageLengthError: if no datagram can be this long.
        @raise error.InvalidAddressError: if C{addr} is not of this port's family, or not the peer's in connected mode.
        @raise OSError: if the system rejects the datagram (port 0, a broadcast, no route, a firewall), unless C{writeRaises} is
            off. It is counted in C{dropped} anyway. The protocol of a connected port is notified instead, if the peer cannot be
            reached or it provides C{INetworkErrorReceiver}.
        """
        self._sender.write(datagram, addr)

    def send(self, datagram: bytes, address: tuple[str, int] | None, callback: SendCallback) -> int:
        """Send a datagram, and report its outcome, see L{IDatagramTransport.send}."""
        number = self._sender.send(datagram, address, partial(self._context.calls.add, callback))
        self._context.calls.run()
        return number

    def doWrite(self) -> None:
        """The send queue has space, or there is an error: send what waits, as long as the turn has time."""
        self._context.turn.run(self._sendWaiting)

    def _sendWaiting(self) -> None:
        self._sender.flush()
        if self._sender.waiting and not self._sender.pauses and self._endpoints.peer is not None:
            # As in C{doRead}.
            self.stopWriting()
            self.startWriting()

    def _sendQueueFull(self) -> None:
        super().stopReading()
        self.startWriting()

    def _sendQueueEmpty(self) -> None:
        self.stopWriting()
        self._resume()

    # Stopping

    def drain(self, timeout: float) -> defer.Deferred[bool]:
        """Go on until the receive queue has been seen empty and nothing waits for the send queue.

        @return: fires with whether that happened within C{timeout} seconds. Fails with C{OSError} if the socket is broken.
        """
        # A flood leaves the queue empty for a moment only, which means nothing: look again in the next turn.
        self._foundEmpty = False
        return poll(self.reactor, self._isDrained, timeout, lambda: _drainPause if self._sender.waiting else 0)

    def _isDrained(self) -> bool:
        if self.connected:
            self.doRead()
        return not self.connected or (not self._sender.waiting and (not self._delivery.wanted or self._foundEmpty))

    def stopListening(self) -> defer.Deferred[None]:
        """Stop, and close the socket in the reactor's next turn: then the Deferred fires. May be called twice."""
        if not hasattr(self, "socket"):
            return defer.succeed(None)
        stopped: defer.Deferred[None] = defer.Deferred(cancelled)
        self._stopped.append(stopped)
        self._loseConnection()
        return stopped

    def _loseConnection(self) -> None:
        self.stopReading()
        self.stopWriting()
        if self.connected:
            self._closing.schedule()

    def abort(self) -> None:
        """Stop and close at once, see L{IDatagramTransport.abort}."""
        self.connectionLost()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The reactor saw an error on the socket; or, without a C{reason}, close it."""
        if not self.connected or (reason is not None and self._survives(reason)):
            return
        self._closing.cancel()
        self._readingPause.cancel()
        self._sender.endReplies()
        parts: list[Any] = [self._errors, self._delivery, self._reader, *self._former]
        for part in parts:
            part.close()
        self._context.turn.closed(self._read, self._sendWaiting)
        number, self._realPortNumber, self._closedDrops = self._realPortNumber, None, self.getKernelDrops() or 0
        base.BasePort.connectionLost(self, reason)
        self._sender.close()
        calls = self._context.calls
        calls.add(stopProtocol, self.protocol, number)
        calls.run()
        closeSocket(self, self.socket)
        # A program may go on inside such a callback, and find that the port works as outside of one.
        calls = calls if calls.isEmptying else CallQueue()
        calls.addResults(self._stopped, None)
        calls.run()

    def _survives(self, reason: Failure) -> bool:
        """On poll and epoll a socket's error looks like the end of a connection. It may be that of a socket that was closed in
        this turn, if this one has got its descriptor."""
        if self._closing.scheduled or not self.reactor.running or not reason.check(error.ConnectionDone, error.ConnectionLost):
            return False
        self._errors.notify()
        self._resume()
        return True
