"""
Sockets that probes leave by and replies come by: many with one system call and with the kernel's stamps where there are such
things, else through an ordinary transport.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from twisted.internet import error
from twisted.internet.interfaces import IReactorFDSet, IReactorUDP
from twisted.internet.protocol import DatagramProtocol
from zope.interface import Attribute, Interface, implementer

from udpecho.addresses import DatagramAddress
from udpecho.errors import EchoError, HostUnreachable, MessageTooLong, unreachable
from udpecho.interfaces import IDatagramReactor, IDatagramTransport, INetworkErrorReceiver
from udpecho.sockets import batch, calls, linux, timestamps
from udpecho.sockets.port import MAX_DATAGRAM, connectedSocket, dial

#: How many datagrams one call takes at the most.
SLOTS = 64
#: How many bytes of receive buffer to ask for: what comes waits there together with the stamps of what was sent, each of which
#: takes about 1 KiB of it, whatever its size.
RECEIVE_BUFFER = 64 * 1024 * 1024
#: So many bytes more than a probe has are received, to see that a reply is longer.
_more = 32
#: Of a datagram that did not arrive so much is quoted as tells which one it was.
_quoteRoom = 64

_headerSize = 64
_vectorSize = 16
_controlRoom = 256
#: C{struct mmsghdr}: name, its room, vector, how many, control messages, their room, flags, length.
_header = struct.Struct("@QIxxxxQQQQQQ")
_vector = struct.Struct("@QQ")
#: The control messages of a stamp (C{struct scm_timestamping}, three times), and where in them the two halves of it are.
_stampRoom = 64
_secondsAt, _nanosecondsAt = 16, 24
#: Behind it, in the error queue, C{struct sock_extended_err} with a C{struct sockaddr_in} or C{sockaddr_in6}.
_originAt, _idAt = _stampRoom + 16 + 4, _stampRoom + 16 + 12
_errorRooms = (_stampRoom + 48, _stampRoom + 64)

_tryAgain = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
#: How often to send a datagram whose sending tells of errors of earlier ones.
_sendTries = 3
_second = 1_000_000_000


class SocketOptions(NamedTuple):
    """
    What probes are sent with.

    @ivar bindAddress: the local C{(host, port)}; by default the system chooses.
    @ivar trafficClass: the byte of RFC 2474 and RFC 3168 (DSCP and ECN) that was once the type of service; C{None} for the
        system's.
    @ivar hopLimit: the time to live, or hop limit; C{None} for the system's.
    @ivar dontFragment: send each datagram whole or not at all.
    """

    bindAddress: tuple[str, int] | None = None
    trafficClass: int | None = None
    hopLimit: int | None = None
    dontFragment: bool = False

    def apply(self, sock: socket.socket) -> None:
        """
        Set what is asked for on a socket.

        @raise OSError: if the system refuses.
        """
        isIPv6 = sock.family == socket.AF_INET6
        level = socket.IPPROTO_IPV6 if isIPv6 else socket.IPPROTO_IP
        if self.trafficClass is not None:
            sock.setsockopt(level, socket.IPV6_TCLASS if isIPv6 else socket.IP_TOS, self.trafficClass)
        if self.hopLimit is not None:
            sock.setsockopt(level, socket.IPV6_UNICAST_HOPS if isIPv6 else socket.IP_TTL, self.hopLimit)
        if self.dontFragment:
            if not linux.available:
                raise OSError(errno.ENOPROTOOPT, "how to forbid fragments is known for Linux only")
            option = linux.IPV6_MTU_DISCOVER if isIPv6 else linux.IP_MTU_DISCOVER
            sock.setsockopt(level, option, linux.IP_PMTUDISC_DO)


class Undelivered(NamedTuple):
    """
    What the network said of a probe.

    @ivar reason: what it said.
    @ivar quoted: how the probe begins, if that was said too.
    """

    reason: EchoError
    quoted: bytes = b""


class Taken(NamedTuple):
    """
    What a send call did.

    @ivar number: how many datagrams the system took.
    @ivar error: the error number for the next one; 0 if it took all.
    """

    number: int
    error: int = 0

    @property
    def full(self) -> bool:
        """
        Whether the send queue is full: the next one may go later.
        """
        return self.error in _tryAgain


class Arrivals(NamedTuple):
    """
    What a receive call returned.

    @ivar datagrams: good until the next such call.
    @ivar stamps: when each came, in ns of the wall clock, 0 where that is not known.
    """

    datagrams: Sequence[bytes | memoryview]
    stamps: Sequence[int]


class IProbeReceiver(Interface):
    """
    Hears from a probe socket that has no descriptor to be watched.
    """

    def datagramsArrived(arrivals: Arrivals) -> None:
        """
        Datagrams came.
        """

    def probeUndelivered(undelivered: Undelivered) -> None:
        """
        The network said that a probe did not arrive.
        """


class IProbeSocket(Interface):
    """
    A socket that is connected to one peer.
    """

    source: DatagramAddress = Attribute("The local address.")
    stamped: bool = Attribute("Whether the kernel stamps what is sent and received.")
    most: int = Attribute("How many datagrams to send with one call.")

    def fileno() -> int:
        """
        The descriptor to watch, and to read when there is something; -1 if the socket calls its receiver.
        """

    def slot(index: int, size: int) -> memoryview | bytearray:
        """
        Where to write the datagram of C{size} bytes that is to be sent as number C{index} of the next call. What is written
        there stays until then, and what was there before is there still.
        """

    def send(count: int) -> Taken:
        """
        Send the first so many slots, each with the size that was last asked for.
        """

    def receive() -> Arrivals:
        """
        Receive what is there, up to 64 datagrams.
        """

    def readErrors() -> tuple[list[tuple[int, int]], list[Undelivered]]:
        """
        Read all that the error queue has.

        @return: when datagrams were sent, as pairs of the number of datagrams taken before and ns of the wall clock; and what
            the network said.
        """

    def drops() -> int | None:
        """
        How many datagrams the receive queue has dropped; C{None} where the system does not tell.
        """

    def close() -> None:
        """
        Close it. May be called twice.
        """


class Slots:
    """
    Memory for so many headers, with payload and control messages, as C{recvmmsg(2)} and C{sendmmsg(2)} want it.

    @ivar address: where the headers are.
    @ivar payloads: the room of each payload.
    @ivar sizes: the field of the lengths that a call has taken or returned.
    @ivar rooms: the field of the payloads' rooms.
    @ivar controlSizes: the field of what the control messages take.
    """

    def __init__(self, room: int, controls: bool, count: int = SLOTS) -> None:
        """
        @param room: how many bytes of payload each has.
        @param controls: whether to ask for control messages.
        @param count: how many there are.
        """
        self._count = count
        vectorsAt = count * _headerSize
        self._controlsAt = controlsAt = vectorsAt + count * _vectorSize
        payloadsAt = controlsAt + count * _controlRoom
        # A little more than a power of two, or the first lines of all would share a few places in the processor's cache.
        stride = -(-room // 64) * 64 + 64
        self._memory = memory = mmap.mmap(-1, payloadsAt + count * stride)
        self._anchor = ctypes.c_char.from_buffer(memory)
        self.address = base = ctypes.addressof(self._anchor)
        whole = memoryview(memory)
        self.payloads = []
        self._controlsRoom = _controlRoom if controls else 0
        for slot in range(count):
            vector, payload = vectorsAt + slot * _vectorSize, payloadsAt + slot * stride
            control = base + controlsAt + slot * _controlRoom if controls else 0
            _header.pack_into(memory, slot * _headerSize, 0, 0, base + vector, 1, control, self._controlsRoom, 0, 0)
            _vector.pack_into(memory, vector, base + payload, room)
            self.payloads.append(whole[payload : payload + room])

        def field(form: Literal["B", "I", "Q"], start: int, offset: int, step: int) -> memoryview:
            view, width = whole.cast("B").cast(form), struct.calcsize(form)
            return view[(start + offset) // width : (start + count * step) // width : step // width]

        self.controlSizes = field("Q", 0, 40, _headerSize)
        self.sizes = field("I", 0, 56, _headerSize)
        self.rooms = field("Q", vectorsAt, 8, _vectorSize)
        self._seconds = field("Q", controlsAt, _secondsAt, _controlRoom)
        self._nanoseconds = field("Q", controlsAt, _nanosecondsAt, _controlRoom)
        self._origins = field("B", controlsAt, _originAt, _controlRoom)
        self._ids = field("I", controlsAt, _idAt, _controlRoom)
        self._allControls = memoryview(array("Q", [self._controlsRoom] * count))

    def reset(self, count: int) -> None:
        """
        Make all the room for control messages there is again, after a call that has filled so many slots.
        """
        self.controlSizes[:count] = self._allControls[:count]

    def times(self, count: int) -> list[int]:
        """
        The stamps of the first so many, where each has one.
        """
        halves = zip(self._seconds[:count].tolist(), self._nanoseconds[:count].tolist())
        return [whole * _second + rest for whole, rest in halves]

    def origins(self, count: int) -> list[int]:
        """
        Who has put the first so many into the error queue, where the control messages of each begin with a stamp.
        """
        return self._origins[:count].tolist()

    def ids(self, count: int) -> list[int]:
        """
        The ids of the datagrams that the stamps in the error queue are of.
        """
        return self._ids[:count].tolist()

    def controls(self, slot: int, size: int) -> linux.Ancillary:
        """
        The control messages of one.

        @param size: what they take.
        """
        start = self._controlsAt + slot * _controlRoom
        return linux.unpackControls(self._memory[start : start + size])


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
        self._calls = calls.systemCalls()
        self._socket = sock
        self._descriptor = sock.fileno()
        bound = sock.getsockname()
        self.source = DatagramAddress(bound[:2])
        self.source.scopeID = bound[3] if len(bound) == 4 else 0
        self._peer = _readable(sock.getpeername())
        linux.askForErrors(sock)
        self.stamped = stamps and timestamps.whyNot() is None and timestamps.ask(sock) and timestamps.awaken() is None
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
        """
        @see: L{IProbeSocket.fileno}
        """
        return self._descriptor

    def slot(self, index: int, size: int) -> memoryview:
        """
        @see: L{IProbeSocket.slot}
        """
        slot = self._slots[index]
        if len(slot) != size:
            self._outgoing.rooms[index] = size
            self._slots[index] = slot = self._outgoing.payloads[index][:size]
        return slot

    def send(self, count: int) -> Taken:
        """
        @see: L{IProbeSocket.send}
        """
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
        """
        @see: L{IProbeSocket.receive}
        """
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
        """
        @see: L{IProbeSocket.readErrors}
        """
        self._readErrorQueue()
        found = self._stamps, self._undelivered
        self._stamps, self._undelivered = [], []
        return found

    def _readErrorQueue(self) -> None:
        errors, flags = self._errors, linux.MSG_ERRQUEUE | socket.MSG_DONTWAIT
        while True:
            count = self._calls.recvmmsg(self._descriptor, errors.address, SLOTS, flags, None)
            if count <= 0:
                return
            controls = errors.controlSizes[:count].tolist()
            origins = errors.origins(count)
            errors.reset(count)
            plain = origins.count(linux.SO_EE_ORIGIN_TIMESTAMPING) == count and any(
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
        queued = linux.readQueued(self._errors.controls(slot, size), quoted)
        if isinstance(queued, linux.QueuedStamp):
            self._sentAt(self._numbers.numberOf(queued.id), queued.time)
        elif queued is not None:
            self._undelivered.append(Undelivered(_reasonOf(queued, self._peer), queued.quoted))

    def _sentAt(self, number: int | None, time: int) -> None:
        if number is not None:
            self._stamps.append((number, time))

    def drops(self) -> int | None:
        """
        @see: L{IProbeSocket.drops}
        """
        return linux.kernelDrops(self._socket) if self._descriptor >= 0 else None

    def close(self) -> None:
        """
        @see: L{IProbeSocket.close}
        """
        self._descriptor = -1
        self._socket.close()


def _reasonOf(queued: linux.QueuedError, peer: str) -> EchoError:
    if queued.errno == errno.EMSGSIZE:
        return MessageTooLong(f"the path to {peer} carries {queued.info} bytes at the most, with headers", queued.errno)
    return unreachable(queued.errno, peer)


def _readable(name: tuple[Any, ...]) -> str:
    address = DatagramAddress(name[:2])
    address.scopeID = name[3] if len(name) == 4 else 0
    return str(address)


@implementer(IProbeSocket, INetworkErrorReceiver)
class TransportSocket(DatagramProtocol):
    """
    One datagram after the other through an ordinary connected transport, without stamps: in memory, and where the system has
    nothing better.

    @ivar source: the local address.
    @ivar stamped: never.
    @ivar most: 1.
    """

    noisy = False
    stamped = False
    most = 1
    source: DatagramAddress

    def __init__(self, receiver: IProbeReceiver) -> None:
        self._receiver = receiver
        self._slots: dict[int, bytearray] = {}
        self._current = bytearray()
        self._closed = False

    def startProtocol(self) -> None:
        """
        Note where datagrams leave from.
        """
        transport: Any = self.transport
        host = transport.getHost()
        self.source = DatagramAddress((host.host.partition("%")[0], host.port))

    def fileno(self) -> int:
        """
        @see: L{IProbeSocket.fileno}
        """
        return -1

    def slot(self, index: int, size: int) -> bytearray:
        """
        @see: L{IProbeSocket.slot}
        """
        if len(self._current) != size:
            self._current = bytearray(size)
        return self._current

    def send(self, count: int) -> Taken:
        """
        @see: L{IProbeSocket.send}
        """
        transport: Any = self.transport
        datagram = bytes(self._current)
        fates: list[str | None] = []
        try:
            if IDatagramTransport.providedBy(transport):
                transport.send(datagram, None, fates.append)
            else:
                transport.write(datagram, None)
        except error.MessageLengthError:
            return Taken(0, errno.EMSGSIZE)
        except OSError as e:
            return Taken(0, e.errno or errno.EIO)
        # One that waits for the send queue is on its way, for all that can be told now.
        return Taken(0, errno.EIO) if fates and fates[0] is not None else Taken(1)

    def receive(self) -> Arrivals:
        """
        @see: L{IProbeSocket.receive}
        """
        return Arrivals((), ())

    def readErrors(self) -> tuple[list[tuple[int, int]], list[Undelivered]]:
        """
        @see: L{IProbeSocket.readErrors}
        """
        return [], []

    def drops(self) -> int | None:
        """
        @see: L{IProbeSocket.drops}
        """
        kernelDrops: Callable[[], int | None] | None = getattr(self.transport, "getKernelDrops", None)
        return None if kernelDrops is None or self._closed else kernelDrops()

    def close(self) -> None:
        """
        @see: L{IProbeSocket.close}
        """
        transport: Any = self.transport
        if not self._closed:
            self._closed = True
            if IDatagramTransport.providedBy(transport):
                transport.abort()
            else:
                transport.stopListening()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """
        Hand a datagram over.
        """
        self._receiver.datagramsArrived(Arrivals((datagram,), (0,)))

    def connectionRefused(self) -> None:
        """
        Hand a refusal over.
        """
        transport: Any = self.transport
        peer = getattr(transport, "_peer", None)
        self.networkError(unreachable(errno.ECONNREFUSED, "the peer" if peer is None else str(peer)))

    def networkError(self, reason: EchoError) -> None:
        """
        Hand over what the network said.

        @see: L{INetworkErrorReceiver.networkError}
        """
        self._receiver.probeUndelivered(Undelivered(reason))


def openSocket(
    reactor: Any,
    peer: DatagramAddress,
    receiver: IProbeReceiver,
    size: int,
    options: SocketOptions = SocketOptions(),  # noqa: B008
    *,
    batches: bool = True,
    stamps: bool = True,
) -> IProbeSocket:
    """
    Open the best socket to a peer that reactor and system have.

    @param reactor: a reactor with file descriptors, or one in memory.
    @param peer: the peer.
    @param receiver: hears of what comes, if the socket has no descriptor to watch.
    @param size: the longest datagram to send.
    @param options: what to send with.
    @param batches: send and receive by the batch where that works.
    @param stamps: have the kernel stamp datagrams where it can.

    @raise error.CannotListenError: if the system refuses the local address.
    @raise HostUnreachable: if it has no way to the peer.
    @raise OSError: if it refuses an option.
    @raise ValueError: if options are asked for that a reactor in memory does not have.
    """
    try:
        if not IReactorFDSet.providedBy(reactor) or IDatagramReactor.providedBy(reactor):
            return _openInMemory(reactor, peer, receiver, options)
        if batches and batch.whyNot() is None:
            sock = connectedSocket(peer, options.bindAddress, RECEIVE_BUFFER)
            try:
                options.apply(sock)
                return BatchSocket(sock, size, stamps)
            except BaseException:
                sock.close()
                raise
        found = TransportSocket(receiver)
        port = dial(reactor, found, peer, options.bindAddress, RECEIVE_BUFFER)
        try:
            options.apply(port.socket)
        except BaseException:
            port.abort()
            raise
    except error.CannotListenError:
        raise
    except OSError as e:
        if e.errno in (errno.ENOPROTOOPT, errno.EMFILE, errno.ENFILE):
            raise
        refusal = unreachable(e.errno or 0, str(peer))
        if e.errno == errno.EINVAL and not peer.scopeID and peer.host.lower().startswith("fe80:"):
            refusal = HostUnreachable(f"{refusal.args[0]} (name its interface, as in {peer.host}%eth0)", e.errno)
        raise refusal from None
    return found


def _openInMemory(reactor: Any, peer: DatagramAddress, receiver: IProbeReceiver, options: SocketOptions) -> TransportSocket:
    if options._replace(bindAddress=None) != SocketOptions():
        raise ValueError("this reactor has no sockets to set a traffic class, a hop limit or fragmentation of")
    found = TransportSocket(receiver)
    host, number = options.bindAddress or ("::" if ":" in peer.host else "0.0.0.0", 0)
    if IDatagramReactor.providedBy(reactor):
        port: Any = reactor.listenDatagrams(number, found, host, MAX_DATAGRAM, False)
    else:
        port = IReactorUDP(reactor).listenUDP(number, found, host, MAX_DATAGRAM)
    try:
        port.connect(*peer)
    except BaseException:
        with suppress(Exception):
            port.stopListening()
        raise
    # Its address is known now.
    found.startProtocol()
    return found


def explain(number: int) -> str:
    """
    Say why the system did not send a datagram.

    @param number: the error number.
    """
    if number == errno.EMSGSIZE:
        return "too long for the path, or for any datagram"
    return os.strerror(number) if number else "the system does not say why"


__all__ = [
    "RECEIVE_BUFFER",
    "SLOTS",
    "Arrivals",
    "BatchSocket",
    "IProbeReceiver",
    "IProbeSocket",
    "Slots",
    "SocketOptions",
    "Taken",
    "TransportSocket",
    "Undelivered",
    "explain",
    "openSocket",
]
