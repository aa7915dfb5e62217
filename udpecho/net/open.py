"""Open a L{DatagramPort}: listen, dial, adopt."""

from __future__ import annotations

import socket

from twisted.internet.interfaces import IListeningPort, IReactorFDSet, IReactorUDP
from twisted.internet.protocol import DatagramProtocol

from udpecho.addresses import DatagramAddress
from udpecho.interfaces import IDatagramReactor
from udpecho.net.port import DatagramPort
from udpecho.net.sender import MAX_WAITING, WRITE_TIMEOUT
from udpecho.net.sockets import MAX_DATAGRAM, checkAdoptable, connectedSocket


def adopt(
    reactor: IReactorFDSet,
    sock: socket.socket,
    protocol: DatagramProtocol,
    *,
    writeTimeout: float = WRITE_TIMEOUT,
    offload: bool = True,
    decrementHopLimit: bool = False,
) -> DatagramPort:
    """
    Listen on a socket that is bound already.

    @param reactor: the reactor to read with.
    @param sock: the socket. It stays the caller's: the port has a duplicate (C{dup(2)}), and the socket is in non-blocking mode
        from now on.
    @param protocol: the protocol that gets the datagrams.
    @param writeTimeout: how many seconds a datagram waits for a full send queue.
    @param offload: as for L{udpecho.net.open.listen}.
    @param decrementHopLimit: the same.

    @raise ValueError: if it is not a UDP socket, or not bound.
    @raise TypeError: if the reactor cannot read sockets.
    @raise OSError: if it is not open, or there is no descriptor left.
    """
    if not IReactorFDSet.providedBy(reactor):
        raise TypeError(f"{reactor!r} cannot read sockets")
    checkAdoptable(sock)
    own = sock.dup()
    try:
        own.setblocking(False)
        port = DatagramPort(
            None,
            protocol,
            own.getsockname()[0],
            reactor=reactor,
            writeTimeout=writeTimeout,
            offload=offload,
            decrementHopLimit=decrementHopLimit,
        )
        port._preexistingSocket = own
        port.startListening()
    except BaseException:
        own.close()
        raise
    return port


def dial(
    reactor: IReactorFDSet,
    protocol: DatagramProtocol,
    peer: DatagramAddress,
    bindAddress: tuple[str, int] | None = None,
    receiveBuffer: int | None = None,
) -> DatagramPort:
    """
    Open a L{DatagramPort} that is connected (C{connect(2)}) to one peer before anything can be queued on it: no datagram of
    anybody else's reaches the protocol, and no datagram leaves for the connecting.

    @param reactor: the reactor to read with.
    @param protocol: the protocol that gets the peer's datagrams.
    @param peer: the peer, with its scope where it is link-local.
    @param bindAddress: the local C{(host, port)} to send from; by default the system chooses.
    @param receiveBuffer: how many bytes of receive buffer to ask of the system.

    @raise error.CannotListenError: if the system refuses the local address.
    @raise OSError: if it refuses the peer's, say for want of a route.
    """
    sock = connectedSocket(peer, bindAddress, receiveBuffer)
    try:
        port = DatagramPort(None, protocol, sock.getsockname()[0], reactor=reactor)
        port._preexistingSocket = sock
        port.startListening()
    except BaseException:
        sock.close()
        raise
    return port


def listen(
    reactor: IReactorUDP,
    port: int,
    protocol: DatagramProtocol,
    interface: str = "127.0.0.1",
    *,
    maxPacketSize: int = MAX_DATAGRAM,
    writeTimeout: float = WRITE_TIMEOUT,
    maxWaiting: int = MAX_WAITING,
    receiveBuffer: int | None = None,
    ipv6Only: bool = False,
    batches: bool = True,
    offload: bool = True,
    decrementHopLimit: bool = False,
) -> IListeningPort:
    """
    Listen on a L{DatagramPort}; on a reactor that has no file descriptors (one in memory, or Windows' IOCP), on that reactor's
    own UDP port.

    @param reactor: the reactor to listen on.
    @param port: the port number, 0 for any free one.
    @param protocol: the protocol that gets the datagrams.
    @param interface: the local IP address to bind: C{""} for all of IPv4, C{"::"} for all of both families.
    @param maxPacketSize: the longest datagram to hand over, in bytes.
    @param writeTimeout: how many seconds a datagram waits for a full send queue.
    @param maxWaiting: how many datagrams may wait for it.
    @param receiveBuffer: how many bytes of receive buffer to ask of the system.
    @param ipv6Only: keep IPv4 out of a socket bound to C{"::"}.
    @param batches: receive by the batch, where the system can.
    @param offload: have the system keep bursts of one flow together, for a protocol that takes batches.
    @param decrementHopLimit: send replies with one hop less than what they reply to has left, where the system can.

    @raise TypeError: if C{port} is not a whole number.
    @raise ValueError: if it is not a port's.
    @raise error.InvalidAddressError: if C{interface} is not an IP address.
    @raise error.CannotListenError: if the system refuses the address.
    """
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"a port is a whole number, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"{port!r} is not a port: a number from 0 to 65535 is")
    if IDatagramReactor.providedBy(reactor):
        return reactor.listenDatagrams(port, protocol, interface, maxPacketSize, ipv6Only)
    if not IReactorFDSet.providedBy(reactor):
        return reactor.listenUDP(port, protocol, interface, maxPacketSize)
    listening = DatagramPort(
        port,
        protocol,
        interface,
        maxPacketSize,
        reactor,
        writeTimeout,
        maxWaiting,
        receiveBuffer,
        ipv6Only,
        batches,
        offload,
        decrementHopLimit,
    )
    listening.startListening()
    return listening
