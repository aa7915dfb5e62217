"""
The UDP port that Twisted should have had: it survives refusals, cuts nothing, answers from the address that was asked, lets
timers run, and waits for a full send queue.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections import Counter, deque
from contextlib import suppress
from functools import lru_cache
from typing import Any, cast

from twisted.internet import abstract, base, defer, error, udp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python import log as stockLog
from twisted.python.failure import Failure
from zope.interface import implementer

from udpecho.addresses import MAX_PAYLOAD_IPV4, MAX_PAYLOAD_IPV6, DatagramAddress, formatAddress
from udpecho.errors import EchoError, MessageTooLong, unreachable
from udpecho.interfaces import IBatchReceiver, IDatagramTransport, IDropReceiver, SendCallback
from udpecho.net.batch import BatchOptions, MessageBatch
from udpecho.net.linux import cmsg, errqueue, sockopt
from udpecho.net.linux.gso import SegmentLimits
from udpecho.net.network_errors import (
    _IPV4_AND_UDP_HEADERS,
    _IPV6_AND_UDP_HEADERS,
    _errorsPerTurn,
    _ofTheDatagram,
    _peerErrors,
    notifyError,
)
from udpecho.net.selftest import unsupportedReason
from udpecho.net.sender import MAX_WAITING, WRITE_TIMEOUT, _forget, _sendTries, _Waiting, notifySent
from udpecho.net.sockets import MAX_DATAGRAM, _datagramAddress, growReceiveBuffer, socketAddress

_tryAgain = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR})
#: The descriptor itself is bad, so that no later turn can go better.
_hopeless = frozenset({errno.EBADF, errno.ENOTSOCK})
#: Seconds to wait before reading again when the system failed to read for want of something (memory, say).
_readPause = 0.1
#: Windows says that a datagram was longer than the buffer by an error on reading.
_cutOnWindows = errno.EMSGSIZE if sys.platform == "win32" else None

#: What the shortest datagram takes of the receive buffer at the least, in bytes (C{struct sk_buff} and C{skb_shared_info} in
#: Linux take some more).
_leastRoom = 512

_log = Logger()


@implementer(IListeningPort, IDatagramTransport)
class DatagramPort(udp.Port):
    """
    A UDP port for any C{DatagramProtocol}.

    In connected mode C{connectionRefused} is called from the reactor when the network says that nothing listens at the peer,
    and the port stays open. What else the network says goes to C{networkError} of a protocol that provides
    L{INetworkErrorReceiver}; a protocol that does not is told of an unreachable peer by C{connectionRefused} too.

    On Linux an unconnected port receives by the batch (L{MessageBatch}). A protocol that provides L{IBatchReceiver} gets it
    whole, any other gets each datagram.

    @cvar maxDatagrams: how many datagrams one turn of the reactor may read; C{maxThroughput} bounds their bytes.
    @cvar maxBatched: the same for a protocol that takes batches; the last batch may go beyond it.
    @ivar dropped: how many datagrams this port dropped by reason: C{truncated}, C{send_failed}, C{send_timeout}, C{loop_guard}
        for those that came too far for a reply, and C{not_allowed} for those of strangers that were queued before it was
        connected.
    """

    maxDatagrams = 64
    maxBatched = 512

    reactor: Any
    _preexistingSocket: Any

    def __init__(
        self,
        port: int | None,
        proto: DatagramProtocol,
        interface: str = "",
        maxPacketSize: int = MAX_DATAGRAM,
        reactor: Any = None,
        writeTimeout: float = WRITE_TIMEOUT,
        maxWaiting: int = MAX_WAITING,
        receiveBuffer: int | None = None,
        ipv6Only: bool = False,
        batches: bool = True,
        offload: bool = True,
        decrementHopLimit: bool = False,
    ) -> None:
        """
        @param port: the port number, 0 for any free one.
        @param proto: the protocol that gets the datagrams.
        @param interface: the local IP address to bind, C{""} for all of IPv4, C{"::"} for all of both families.
        @param maxPacketSize: the longest datagram to hand over, in bytes; longer ones are dropped, and counted as
            C{truncated}.
        @param reactor: an C{IReactorFDSet} and C{IReactorTime} provider.
        @param writeTimeout: how many seconds a datagram waits for a full send queue.
        @param maxWaiting: how many datagrams may wait for it.
        @param receiveBuffer: how many bytes of receive buffer to ask of the system (C{SO_RCVBUF} in C{socket(7)}).
        @param ipv6Only: keep IPv4 out of a socket bound to C{"::"} (RFC 3493 section 5.3).
        @param batches: receive by the batch, where the system can.
        @param offload: have the system keep bursts of one flow together, for a protocol that takes batches, unless
            C{maxPacketSize} is less than UDP's.
        @param decrementHopLimit: send replies with a hop limit (IPv4: time to live) one less than that of the request,
            where the system can: an exchange that goes on by itself comes to its end then, as a loop of routers does (RFC 791
            section 3.2, RFC 8200 section 3).
        """
        super().__init__(port, proto, interface, maxPacketSize, reactor)
        self.dropped: Counter[str] = Counter()
        self._writeTimeout = writeTimeout
        self._maxWaiting = maxWaiting
        self._receiveBuffer = receiveBuffer
        self._ipv6Only = ipv6Only
        self._wantsBatches = batches
        self._wantsOffload = offload
        self._countHops = decrementHopLimit
        self._batch: MessageBatch | None = None
        self._takesBatches = IBatchReceiver.providedBy(proto)
        self._receiver = cast(IBatchReceiver, proto)
        # Received, and not handed over yet.
        self._backlog: deque[tuple[bytes, DatagramAddress]] = deque()
        self._delivering: IDelayedCall | None = None
        self._peer: DatagramAddress | None = None
        # Asked for once: whoever wants to know later is told, whatever the system is short of then.
        self._boundName: tuple[Any, ...] = ()
        self._boundHost: str | None = None
        self._hearsDestination = False
        self._wantsReading = False
        self._sawError = False
        self._readingFailed = False
        self._readingPause: IDelayedCall | None = None
        self._waiting: deque[_Waiting] = deque()
        self._expiry: IDelayedCall | None = None
        # One of each kind: what else the network says of the same is no news.
        self._errors: dict[tuple[int, int], EchoError] = {}
        self._telling: IDelayedCall | None = None
        self._closing: IDelayedCall | None = None
        self._stopped: list[defer.Deferred[None]] = []

    # Binding and connecting

    def startListening(self) -> None:
        """
        Bind, and begin to read.

        @raise error.CannotListenError: if the system refuses; nothing is left open then.
        """
        try:
            super().startListening()
        except OSError as e:
            # There is a socket, and a protocol that has it, but the reactor cannot watch it.
            self.abort()
            raise error.CannotListenError(self.interface, self.port, e) from None

    def createInternetSocket(self) -> socket.socket:
        """Make the socket, with the options that must be set before it is bound."""
        sock = super().createInternetSocket()
        if self._ipv6Only and self.addressFamily == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if self._receiveBuffer is not None:
            growReceiveBuffer(sock, self._receiveBuffer)
        return sock

    def getReceiveBuffer(self) -> int:
        """
        How many bytes of receive buffer the system has granted, on the scale of C{receiveBuffer}: Linux doubles what it is
        asked for, for its own use (C{socket(7)}).
        """
        granted = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return granted // 2 if sockopt.available else granted

    def getKernelDrops(self) -> int | None:
        """How many datagrams the system dropped for want of room in the receive buffer; C{None} where it does not tell."""
        return sockopt.kernelDrops(self.socket) if sockopt.available else None

    def _bindSocket(self) -> None:
        if self._preexistingSocket is None:
            # The stock port drops the scope, and leaves the socket it could not bind to the garbage collector.
            try:
                self._preexistingSocket = self._makeBoundSocket()
            except OSError as e:
                raise error.CannotListenError(self.interface, self.port, e) from None
        sock = self._preexistingSocket
        try:
            self.socket, self._preexistingSocket = sock, None
            self.fileno = sock.fileno  # type: ignore[method-assign]
            self._realPortNumber = sock.getsockname()[1]
            self.connected = 1
            self._learnAddresses()
            self._sayAsStock(f"{self._getLogPrefix(self.protocol)} starting on {self._realPortNumber}")
        except OSError as e:
            # The stock port would let it out as it is, and leave the socket open.
            self.connected = 0
            self._closeSocket(sock)
            raise error.CannotListenError(self.interface, self.port, e) from None

    def _sayAsStock(self, text: str) -> None:
        """Log what the stock port logs always, in the way it does, if the protocol wants it so (C{noisy})."""
        if getattr(self.protocol, "noisy", True):
            stockLog.msg(text)

    def _learnAddresses(self) -> None:
        """
        Ask for the addresses of both ends, and for what a port that has no peer needs.

        @raise OSError: if the system refuses.
        """
        bound = self._boundName = self.socket.getsockname()
        self._boundHost = None if bound[0] in ("0.0.0.0", "::", "::ffff:0.0.0.0") else bound[0].partition("%")[0]
        try:
            # An adopted socket may be connected already.
            peer = self.socket.getpeername()
        except OSError:
            if sockopt.available:
                sockopt.disablePathMTUDiscovery(self.socket)
                self._enableAncillary()
        else:
            self._becameConnected(peer[:2])

    def _enableAncillary(self) -> None:
        """Have the system tell of each datagram what a reply needs, and hand over many at once."""
        isIPv6 = self.addressFamily == socket.AF_INET6
        # Whoever has bound an adopted socket may have asked for more than is wanted.
        hopLimits = sockopt.enableRecvHopLimit(self.socket, self._countHops)
        reason = "not wanted"
        if self._wantsBatches and not (isIPv6 and self._boundHost is None and not self._keepsIPv4Out()):
            reason = unsupportedReason() or ""
            if reason:
                _sayWhyNot(reason)
        if reason:
            sockopt.enableGRO(self.socket, False)
            self._hearsDestination = sockopt.enablePktinfo(self.socket)
            return
        severalHosts = self._boundHost is None or sockopt.isForSeveral(self._boundHost)
        self._hearsDestination = sockopt.enablePktinfo(self.socket, severalHosts)
        # What is shorter than a limit may be the last of a burst whose others are not.
        offload = self._takesBatches and self._wantsOffload and self.maxPacketSize >= MAX_DATAGRAM
        together = sockopt.enableGRO(self.socket, offload)
        options = BatchOptions(
            isIPv6, self._boundHost, self._hearsDestination, hopLimits, SegmentLimits() if together else None
        )
        self._batch = MessageBatch(options, self._send, self.dropped)

    def _keepsIPv4Out(self) -> bool:
        return bool(self.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))

    def _makeBoundSocket(self) -> socket.socket:
        """@raise OSError: if the system refuses."""
        sock = self.createInternetSocket()
        try:
            sock.bind(socketAddress(self.interface, self.port))
        except BaseException:
            sock.close()
            raise
        return sock

    def connect(self, host: str, port: int) -> None:
        """
        Exchange datagrams with one peer only from now on.

        @param host: an IP address.
        @param port: its port number.

        @raise RuntimeError: if this port is connected already.
        @raise error.InvalidAddressError: if C{host} is not an address of this port's family.
        @raise OSError: if the system refuses, say for want of a route; this port can be used and connected afterwards.
        """
        if self._connectedAddr:
            raise RuntimeError("already connected, reconnecting is not currently supported")
        self._checkHost(host, "connect()")
        self._leaveBatches()
        self.socket.connect(socketAddress(host, port))
        self._becameConnected((host, port))

    def _becameConnected(self, address: tuple[str, int]) -> None:
        self._peer = _datagramAddress(self.socket.getpeername())
        self._connectedAddr = address
        # Connecting chooses the local address of a socket that was bound to all.
        self._boundName = self.socket.getsockname()
        if sockopt.available:
            sockopt.enableRecvErr(self.socket)

    def getHost(self) -> IPv4Address | IPv6Address:
        """The local address; for link-local IPv6 with its scope."""
        bound = self._boundName
        if self.addressFamily == socket.AF_INET:
            return IPv4Address("UDP", *bound)
        return IPv6Address("UDP", *bound)

    # Reading

    def startReading(self) -> None:
        """Read from now on, or as soon as no datagram waits for the send queue."""
        self._wantsReading = True
        self._resumeReading()

    def stopReading(self) -> None:
        """Do not read until L{startReading}."""
        self._wantsReading = False
        super().stopReading()

    def doRead(self) -> None:
        """Read what is there, within the bounds of one turn."""
        self._readTurn()
        if self._sawError:
            self._sawError = False
            self._watchAnew()

    def _watchAnew(self) -> None:
        """Have the reactor look again: libuv, and so uvloop, stops watching a socket when it has told of an error."""
        if self._wantsReading and self.connected:
            super().stopReading()
            self._resumeReading()

    def _readTurn(self) -> bool:
        """
        Read one turn's datagrams.

        @return: whether the queue was found empty.
        """
        if self._backlog:
            self._deliverBacklog()
            if self._backlog:
                return False
        if self._batch is not None:
            return self._readBatches(self._batch)
        size = 0
        for turn in range(self.maxDatagrams):
            # Waiting replies stop reading, and so may the protocol; closing sets the bound of bytes below zero.
            if size >= self.maxThroughput or self._waiting or not self._wantsReading:
                return False
            try:
                datagram, address = self._receive()
            except OSError as e:
                if e.errno in _tryAgain:
                    if turn == 0:
                        # Woken, and nothing to read: there are errors to read.
                        self._sawError = self._peer is not None
                        self._tellErrors()
                    return True
                if e.errno == _cutOnWindows:
                    self._drop("truncated", self.maxPacketSize + 1, DatagramAddress(("", 0)))
                    continue
                if not self._readFailed(e):
                    return False
                continue
            self._readingFailed = False
            size += len(datagram)
            self._deliver(datagram, address)
        return False

    def _deliver(self, datagram: bytes, address: DatagramAddress) -> None:
        """Hand a datagram to the protocol, if it is for it."""
        if self._peer is not None and (address, address.scopeID) != (self._peer, self._peer.scopeID):
            # A stranger's, queued before this port was connected.
            self.dropped["not_allowed"] += 1
        elif len(datagram) > self.maxPacketSize:
            self._drop("truncated", len(datagram), address)
        elif address.hopLimit is not None and address.hopLimit < 2:
            self._drop("loop_guard", len(datagram), address)
        else:
            try:
                self.protocol.datagramReceived(datagram, address)
            except Exception:
                _log.failure("Unhandled error in datagramReceived of {protocol}", protocol=self.protocol)

    def _readBatches(self, batch: MessageBatch) -> bool:
        """
        Read one turn's batches.

        @return: whether the queue was found empty.
        """
        size = datagrams = 0
        most = self.maxBatched if self._takesBatches else self.maxDatagrams
        while size < self.maxThroughput and datagrams < most:
            if self._waiting or not self._wantsReading or self._batch is not batch:
                return False
            try:
                entries = batch.receive(self.socket.fileno())
            except OSError as e:
                if e.errno in _tryAgain:
                    if not datagrams:
                        # Woken, and nothing to read: there are errors to read.
                        self._tellErrors()
                    return True
                if not self._readFailed(e):
                    return False
                datagrams += 1
                continue
            self._readingFailed = False
            size += batch.size
            datagrams += batch.datagrams
            if self._takesBatches:
                self._handOver(batch)
            else:
                self._takeApart(batch)
                self._deliverBacklog()
            if entries < batch.asked:
                # The reactor says when there is more.
                return False
        return False

    def _handOver(self, batch: MessageBatch) -> None:
        """Give a batch to the protocol, less what is not for it."""
        if batch.size >= self.maxPacketSize:
            for entry, longest in enumerate(batch.longest()):
                if longest > self.maxPacketSize:
                    batch.drop(entry, "truncated")
            for entry in batch.truncated():
                batch.drop(entry, "truncated")
        if self._countHops:
            for entry in batch.hopLimitExpired():
                batch.drop(entry, "loop_guard")
        if batch.dropped:
            counts = batch.counts()
            for entry, reason in batch.dropped.items():
                self.dropped[reason] += counts[entry]
        try:
            self._receiver.datagramsReceived(batch)
        except Exception:
            _log.failure("Unhandled error in datagramsReceived of {protocol}", protocol=self.protocol)

    def _takeApart(self, batch: MessageBatch) -> None:
        """Keep a batch's datagrams, to be handed over one by one."""
        cut = batch.truncated()
        for entry in range(batch.entries):
            address = batch.address(entry)
            if entry in cut:
                self._drop("truncated", batch.sizes()[entry], address)
            else:
                self._backlog.extend((payload, address) for payload in batch.payloads(entry))

    def _deliverBacklog(self) -> None:
        """Hand over what has been received already, as long as the protocol wants it, within the bounds of one turn."""
        size = 0
        while self._backlog and self._wantsReading and not self._waiting:
            if size >= self.maxThroughput:
                self._deliverLater()
                return
            datagram, address = self._backlog.popleft()
            size += len(datagram)
            self._deliver(datagram, address)

    def _deliverLater(self) -> None:
        """Go on with the backlog in the next turn: the reactor sees what the system has, and this it has no more."""

        def deliver() -> None:
            self._delivering = None
            self._deliverBacklog()

        if self._delivering is None:
            self._delivering = self.reactor.callLater(0, deliver)

    def _leaveBatches(self) -> None:
        """Read one by one from now on."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        sockopt.enableGRO(self.socket, False)
        # The protocol may have the last one in its hands.
        following = batch.another()
        batch.close()
        # What is queued already may be bursts; but datagrams may come as fast as they are read.
        room = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        with suppress(OSError):
            while room > 0:
                room -= following.receive(self.socket.fileno()) * _leastRoom + following.size
                self._takeApart(following)
        if self._backlog:
            self._resumeReading()

    def _receive(self) -> tuple[bytes, DatagramAddress]:
        """
        Take one datagram from the system, one byte more than wanted if there is more, so that cutting shows.

        @raise OSError: if there is none.
        """
        if not self._hearsDestination:
            datagram, sender = self.socket.recvfrom(self.maxPacketSize + 1)
            address = _datagramAddress(sender)
            address.localHost = self._boundHost
        else:
            datagram, ancillary, _, sender = self.socket.recvmsg(self.maxPacketSize + 1, cmsg.ANCILLARY_SIZE)
            address = _datagramAddress(sender)
            controls = cmsg.readControls(ancillary)
            address.localHost, address.unicast, address.hopLimit = controls.local, controls.unicast, controls.hopLimit
        return datagram, address

    def _drop(self, reason: str, size: int, address: DatagramAddress) -> None:
        self.dropped[reason] += 1
        if IDropReceiver.providedBy(self.protocol):
            self.protocol.datagramDropped(reason, size, address)

    def _readFailed(self, failure: OSError) -> bool:
        """
        The system gave an error instead of a datagram.

        @return: whether it is worth reading on in this turn.
        """
        number = failure.errno
        if self._peer is not None and (number in _peerErrors or number == errno.EMSGSIZE):
            self._sawError = True
            if not self._takeErrors():
                self._noteError(cast(int, number))
            self._tellErrors()
            return True
        if number in _peerErrors:
            # Windows tells an unconnected socket of refusals, without saying whose.
            return True
        if number in _hopeless:
            raise failure
        if not self._readingFailed:
            self._readingFailed = True
            _log.warn("cannot read from UDP port {port}: {error}", port=self._realPortNumber, error=failure)
        if self._readingPause is None:
            super().stopReading()
            self._readingPause = self.reactor.callLater(_readPause, self._readingPauseIsOver)
        return False

    def _readingPauseIsOver(self) -> None:
        self._readingPause = None
        self._resumeReading()

    def _resumeReading(self) -> None:
        """Have the reactor look for datagrams, if they are wanted and nothing stands against it."""
        if self.connected and self._wantsReading and not self._waiting and self._readingPause is None:
            super().startReading()
            if self._backlog:
                self._deliverLater()

    # What the network says of datagrams that were sent

    def _takeErrors(self) -> bool:
        """
        Take from the system what it has to say about earlier datagrams.

        @return: whether it had anything to say.
        """
        entries = errqueue.readErrors(self.socket, _errorsPerTurn) if sockopt.available else []
        number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if self._peer is not None:
            for entry in entries:
                self._noteError(entry.errno, entry.info)
            if number and not entries:
                self._noteError(number)
        return bool(entries or number)

    def _noteError(self, number: int, mtu: int = 0) -> None:
        """Remember to tell the protocol."""
        assert self._peer is not None
        peer = formatAddress(self._peer)
        if number == errno.EMSGSIZE:
            headers = _IPV4_AND_UDP_HEADERS if self.addressFamily == socket.AF_INET else _IPV6_AND_UDP_HEADERS
            limit = mtu - headers if mtu > headers else None
            known = "" if limit is None else f" more than {limit} bytes"
            message = f"the path to {peer} does not carry{known or ' as much'}"
            self._errors[number, mtu] = MessageTooLong(message, number, limit)
        else:
            self._errors[number, 0] = unreachable(number, peer)

    def _tellErrorsSoon(self) -> None:
        if self._errors and self._telling is None:
            self._telling = self.reactor.callLater(0, self._tellErrors)

    def _tellErrors(self) -> None:
        """Tell the protocol what the network said. Called from the reactor only."""
        _cancel(self._telling)
        self._telling = None
        if self.connected:
            # All that is there belongs together: what the protocol sends on hearing of it is another matter.
            self._takeErrors()
        reasons, self._errors = self._errors, {}
        for reason in reasons.values():
            if not self.connected:
                return
            notifyError(self.protocol, reason)

    # Writing

    def write(self, datagram: bytes, addr: tuple[str, int] | None = None) -> None:
        """
        Send a datagram, now or as soon as the send queue has room.

        A datagram that the system refuses for its own reasons (no route, a firewall, port 0) is counted in C{dropped}, and
        in connected mode the protocol is told what the system says about the peer.

        @param datagram: the payload.
        @param addr: where to; C{None} in connected mode. Given the very L{DatagramAddress} that C{datagramReceived} got, the
            datagram leaves from the address that was asked.

        @raise error.MessageLengthError: if no datagram can be this long.
        @raise error.InvalidAddressError: if C{addr} is not an address of this port's family, or not the peer's in connected
            mode.
        """
        number = self._send(datagram, addr, _forget)
        if number == errno.EMSGSIZE:
            raise error.MessageLengthError("message too long")

    def send(self, datagram: bytes, address: tuple[str, int] | None, callback: SendCallback) -> None:
        """
        Send a datagram and learn what became of it.

        @see: L{IDatagramTransport.send}
        """
        self._send(datagram, address, callback)

    def _send(self, datagram: bytes, address: tuple[str, int] | None, callback: SendCallback) -> int:
        """@return: the system's error number if it refused, else 0."""
        destination, ancillary = self._destination(address)
        if not self.connected:
            self._unsent("send_failed", callback)
            return errno.EBADF
        if len(datagram) > (MAX_PAYLOAD_IPV4 if self.addressFamily == socket.AF_INET else MAX_PAYLOAD_IPV6):
            number = errno.EMSGSIZE
        elif self._waiting:
            number = errno.EAGAIN
        else:
            number = self._transmit(datagram, destination, ancillary)
        if number in _tryAgain:
            self._wait(datagram, destination, ancillary, callback)
            return 0
        self._settle(number, callback)
        self._tellErrorsSoon()
        return number

    def _destination(self, address: tuple[str, int] | None) -> tuple[tuple[Any, ...] | None, cmsg.Ancillary]:
        """Turn an address into what C{sendmsg} takes: a socket address, and the control message for the source address."""
        if self._connectedAddr:
            if address is not None and address not in (self._connectedAddr, self._peer):
                raise error.InvalidAddressError(address[0], f"connected to {formatAddress(self._connectedAddr)}")
            return None, []
        if address is None:
            raise error.InvalidAddressError("", "an unconnected port must be told where to write to")
        if not isinstance(address, DatagramAddress):
            if address[0] != "<broadcast>" or self.addressFamily == socket.AF_INET6:
                self._checkHost(address[0], "write()")
            return socketAddress(*address), []
        if (":" in address.host) != (self.addressFamily == socket.AF_INET6):
            self._checkHost(address.host, "write()")
        destination = (*address, 0, address.scopeID) if self.addressFamily == socket.AF_INET6 else tuple(address)
        asked = self._hearsDestination and self._boundHost is None and address.localHost and address.unicast
        if not asked and address.hopLimit is None:
            return destination, []
        hopLimit = None if address.hopLimit is None else max(1, address.hopLimit - 1)
        # A socket for both families sends IPv4 with IPv4's.
        isIPv6 = ":" in address.host and "." not in address.host
        return destination, cmsg.replyControls(isIPv6, address.localHost if asked else None, hopLimit)

    def _checkHost(self, host: str, what: str) -> None:
        """@raise error.InvalidAddressError: if C{host} is not an IP address, or not one of this port's family."""
        if abstract.isIPAddress(host):
            family = socket.AF_INET
        elif abstract.isIPv6Address(host):
            family = socket.AF_INET6
        elif host == "<broadcast>":
            raise error.InvalidAddressError(host, f"IPv6 port {what} called with broadcast address")
        else:
            raise error.InvalidAddressError(host, f"{what} only accepts IP addresses, not hostnames")
        if family != self.addressFamily:
            own, other = ("IPv4", "IPv6") if family == socket.AF_INET6 else ("IPv6", "IPv4")
            raise error.InvalidAddressError(host, f"{own} port {what} called with {other} address")

    def _transmit(self, datagram: bytes, destination: tuple[Any, ...] | None, ancillary: cmsg.Ancillary) -> int:
        """
        Hand a datagram to the system.

        @return: 0, or the system's error number.
        """
        for _ in range(_sendTries):
            try:
                if destination is None:
                    self.socket.send(datagram)
                elif ancillary:
                    self.socket.sendmsg([datagram], ancillary, 0, destination)
                else:
                    self.socket.sendto(datagram, destination)
                return 0
            except OSError as e:
                number = cast(int, e.errno)
            if self._peer is None or number in _tryAgain:
                self._takeErrors()
                return number
            if number not in _peerErrors and number not in _ofTheDatagram:
                # Not the network's word but this machine's, about this datagram: a firewall's, say.
                self._noteError(number)
                self._takeErrors()
                return number
            # A connected socket gives the error of an earlier datagram instead of sending this one.
            if not self._takeErrors():
                if number not in _ofTheDatagram:
                    self._noteError(number)
                # No send is refused by its own peer, so that was an earlier one.
                if number != errno.ECONNREFUSED:
                    return number
        return number

    def _settle(self, number: int, callback: SendCallback) -> None:
        if number:
            self._unsent("send_failed", callback)
        else:
            notifySent(callback, None)

    def _unsent(self, reason: str, callback: SendCallback) -> None:
        self.dropped[reason] += 1
        notifySent(callback, reason)

    def _wait(
        self, datagram: bytes, destination: tuple[Any, ...] | None, ancillary: cmsg.Ancillary, callback: SendCallback
    ) -> None:
        """Keep a datagram until the send queue has room; read nothing meanwhile."""
        if len(self._waiting) >= self._maxWaiting:
            self._unsent("send_timeout", callback)
            return
        deadline = self.reactor.seconds() + self._writeTimeout
        self._waiting.append(_Waiting(deadline, datagram, destination, ancillary, callback))
        if self._expiry is None:
            super().stopReading()
            self.startWriting()
            self._expiry = self.reactor.callLater(self._writeTimeout, self._expire)

    def doWrite(self) -> None:
        """The send queue has room: send what waits for it."""
        while self._waiting:
            first = self._waiting[0]
            number = self._transmit(first.datagram, first.destination, first.ancillary)
            if number in _tryAgain:
                break
            self._waiting.popleft()
            self._settle(number, first.callback)
        self._tellErrors()
        if not self._waiting:
            self._waitingIsOver()

    def _expire(self) -> None:
        """Give up what has waited too long."""
        self._expiry = None
        now = self.reactor.seconds()
        while self._waiting and self._waiting[0].deadline <= now:
            self._unsent("send_timeout", self._waiting.popleft().callback)
        _cancel(self._expiry)
        self._expiry = None
        if self._waiting:
            self._expiry = self.reactor.callLater(max(0.0, self._waiting[0].deadline - now), self._expire)
        else:
            self._waitingIsOver()

    def _waitingIsOver(self) -> None:
        _cancel(self._expiry)
        self._expiry = None
        if self.connected:
            self.stopWriting()
            self._resumeReading()

    # Stopping

    def drain(self, timeout: float) -> defer.Deferred[bool]:
        """
        Go on until the receive queue has been seen empty and nothing waits for the send queue.

        @param timeout: seconds after which to give up.

        @return: fires with whether that came to pass in time. Fails with C{OSError} if the socket is broken.
        """
        done: defer.Deferred[bool] = defer.Deferred()
        deadline = self.reactor.seconds() + timeout

        def turn() -> None:
            try:
                empty = not self.connected or (not self._waiting and self._isRead() and not self._waiting)
            except OSError:
                done.errback()
                return
            if empty:
                done.callback(True)
            elif self.reactor.seconds() >= deadline:
                done.callback(False)
            else:
                self.reactor.callLater(0.01 if self._waiting else 0, turn)

        self.reactor.callLater(0, turn)
        return done

    def _isRead(self) -> bool:
        """
        Read, unless the protocol wants none.

        @return: whether nothing is left to read.
        """
        return not self._wantsReading or self._readTurn()

    def stopListening(self) -> defer.Deferred[None]:
        """
        Stop, and close the socket in the reactor's next turn. May be called twice.

        @return: fires when the socket is closed.
        """
        if not self.connected:
            return defer.succeed(None)
        stopped: defer.Deferred[None] = defer.Deferred()
        self._stopped.append(stopped)
        self._loseConnection()
        return stopped

    def _loseConnection(self) -> None:
        self.stopReading()
        self.stopWriting()
        if self.connected and self._closing is None:
            self._closing = self.reactor.callLater(0, self.connectionLost)

    def abort(self) -> None:
        """
        Stop and close at once. Its descriptor may then be another's before the reactor's turn is over; a L{DatagramPort} that
        gets it does not mind what this one's events were.

        @see: L{IDatagramTransport.abort}
        """
        if self.connected:
            self.stopReading()
            self.stopWriting()
            self.connectionLost()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """
        The reactor saw an error on the socket, or the socket is to be closed.

        @param reason: from the reactor why, from this port itself C{None}.
        """
        if not self.connected or (reason is not None and self._survives(reason)):
            return
        self._errors.clear()
        _cancel(self._telling)
        self._telling = None
        _cancel(self._closing)
        self._closing = None
        _cancel(self._readingPause)
        self._readingPause = None
        _cancel(self._delivering)
        self._delivering = None
        self._backlog.clear()
        if self._batch is not None:
            self._batch.close()
        sock = self.socket
        self._sayAsStock(f"(UDP Port {self._realPortNumber} Closed)")
        self._realPortNumber = None
        self.maxThroughput = -1
        base.BasePort.connectionLost(self, reason)
        try:
            self.protocol.doStop()
        except Exception:
            _log.failure("Unhandled error in stopProtocol of {protocol}", protocol=self.protocol)
        self._closeSocket(sock)
        while self._waiting:
            self._unsent("send_timeout", self._waiting.popleft().callback)
        self._waitingIsOver()
        stopped, self._stopped = self._stopped, []
        for done in stopped:
            done.callback(None)

    def _closeSocket(self, sock: socket.socket) -> None:
        """Do what the stock port leaves undone when it cannot start, or when the protocol raises on being stopped."""
        sock.close()
        for name in ("socket", "fileno"):
            self.__dict__.pop(name, None)

    def _survives(self, reason: Failure) -> bool:
        """
        On poll and epoll an error of a socket looks to the reactor like the end of a connection. It may even be the error of
        another socket, closed in this very turn, whose descriptor this one has got.
        """
        if (
            self._closing is not None
            or not self.reactor.running
            or reason.check(error.ConnectionDone, error.ConnectionLost) is None
        ):
            return False
        self._tellErrors()
        if self.connected:
            if self._waiting:
                self.startWriting()
            self._resumeReading()
        return True


@lru_cache
def _sayWhyNot(reason: str) -> None:
    """Say so, once."""
    _log.info("datagrams are received one by one: {reason}", reason=reason)


def _cancel(call: IDelayedCall | None) -> None:
    """Cancel a delayed call, if there is one and it has yet to come."""
    if call is not None and call.active():
        call.cancel()
