"""Open a L{DatagramPort}: listen on an address or on a bound socket, or connect to a peer."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import cast

from twisted.internet.interfaces import IReactorFDSet, IReactorMulticast
from twisted.internet.protocol import DatagramProtocol

from udpecho.addresses import DatagramAddress
from udpecho.interfaces import IDatagramReactor, Reactor
from udpecho.net.connection import Connection
from udpecho.net.options import PortOptions
from udpecho.net.port import DatagramPort
from udpecho.net.sockets import MAX_DATAGRAM, checkAdoptable


def adopt(
    reactor: Reactor,
    sock: socket.socket,
    protocol: DatagramProtocol,
    options: PortOptions = PortOptions(),  # noqa: B008
) -> DatagramPort:
    """Listen on a socket that is bound already.

    @param reactor: an C{IReactorFDSet} and C{IReactorTime} provider.
    @param sock: stays the caller's: the port has a duplicate (C{dup(2)}), and both are in non-blocking mode from now on.
    @raise ValueError: if it is not a UDP socket, or not bound.
    @raise TypeError: if the reactor cannot read sockets.
    @raise OSError: if it is not open, or there is no descriptor left.
    """
    if not IReactorFDSet.providedBy(reactor):
        raise TypeError(f"reactor must provide IReactorFDSet, got {reactor!r}")
    checkAdoptable(sock)
    own = sock.dup()
    own.setblocking(False)
    return openSocket(reactor, own, protocol, options)


def dial(
    reactor: Reactor,
    protocol: DatagramProtocol,
    peer: DatagramAddress,
    bindAddress: tuple[str, int] | None = None,
    receiveBuffer: int | None = None,
    configure: Callable[[socket.socket], object] | None = None,
    replaced: DatagramPort | None = None,
    renewed: bool = True,
    options: PortOptions = PortOptions(),  # noqa: B008
) -> DatagramPort:
    """Open a L{DatagramPort} that is connected (C{connect(2)}) to one peer before anything can be queued on it: only the peer's
    datagrams reach the protocol. No datagram is sent for the connecting.

    On a reactor without file descriptors the result is that reactor's own UDP port, as for L{listen}; only C{bindAddress}
    matters then.

    @param reactor: as for L{listen}.
    @param replaced: a port that is to be closed, and whose C{bindAddress} this one may have.
    @param renewed: whether the port opens its socket again, and logs it, when the addresses, routes or interfaces of this
        machine change.
    @see: L{connectedSocket <udpecho.net.sockets.connectedSocket>} for the other parameters, and what is raised.
    """
    if not IReactorFDSet.providedBy(reactor):
        host, number = bindAddress or ("::" if ":" in peer.host else "0.0.0.0", 0)
        listening = listen(reactor, number, protocol, host)
        try:
            listening.connect(*peer)
        except BaseException:
            listening.stopListening()
            raise
        return listening
    connection = Connection(peer, bindAddress, receiveBuffer, configure)
    sock = connection.open(None if replaced is None else replaced.socket)
    port = openSocket(reactor, sock, protocol, options, adopted=False)
    if renewed:
        port.keepConnected(connection)
    return port


def openSocket(
    reactor: Reactor,
    sock: socket.socket,
    protocol: DatagramProtocol,
    options: PortOptions,
    adopted: bool = True,
    maxPacketSize: int = MAX_DATAGRAM,
) -> DatagramPort:
    """Open a port on a socket, which becomes the port's own.

    @param adopted: whether another program has made it.
    """
    try:
        port = DatagramPort(None, protocol, sock.getsockname()[0], maxPacketSize, reactor, options)
        port._preexistingSocket = sock
        port._context.adopted = adopted
        port.startListening()
    except BaseException:
        sock.close()
        raise
    return port


def listen(
    reactor: Reactor,
    port: int,
    protocol: DatagramProtocol,
    interface: str = "127.0.0.1",
    *,
    maxPacketSize: int = MAX_DATAGRAM,
    writeTimeout: float = PortOptions.writeTimeout,
    maxWaiting: int = PortOptions.maxWaiting,
    receiveBuffer: int | None = PortOptions.receiveBuffer,
    ipv6Only: bool = PortOptions.ipv6Only,
    batches: bool = PortOptions.batches,
    offload: bool = PortOptions.offload,
    decrementHopLimit: bool | None = PortOptions.decrementHopLimit,
    listenMultiple: bool = PortOptions.listenMultiple,
    writeRaises: bool = PortOptions.writeRaises,
) -> DatagramPort:
    """Listen on a L{DatagramPort}. The options from C{writeTimeout} on are those of L{PortOptions}.

    On a reactor without file descriptors (one in memory, or Windows' IOCP) the result is that reactor's own UDP port, in spite
    of the annotation: it has no more than C{IListeningPort} and C{IUDPTransport}, and C{IMulticastTransport} where the reactor
    provides C{IReactorMulticast}.

    @param reactor: an C{IReactorUDP} provider; a L{DatagramPort} needs C{IReactorFDSet} and C{IReactorTime}, too.
    @param port: the port number, 0 for any free one.
    @param interface: the local IP address to bind: C{""} for all of IPv4, C{"::"} for all of both families.
    @param maxPacketSize: the longest datagram to hand over, in bytes.
    @raise TypeError: if C{port} is not an integer.
    @raise ValueError: if it is not from 0 to 65535, or an option is out of its range.
    @raise error.InvalidAddressError: if C{interface} is not an IP address.
    @raise error.CannotListenError: if the system refuses the address.
    """
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be an integer, got {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be 0 to 65535, got {port!r}")
    options = PortOptions(
        writeTimeout=writeTimeout,
        maxWaiting=maxWaiting,
        receiveBuffer=receiveBuffer,
        ipv6Only=ipv6Only,
        batches=batches,
        offload=offload,
        decrementHopLimit=decrementHopLimit,
        listenMultiple=listenMultiple,
        writeRaises=writeRaises,
    )
    if IDatagramReactor.providedBy(reactor):
        inMemory = reactor.listenDatagrams(
            port, protocol, interface, maxPacketSize, ipv6Only, decrementHopLimit, listenMultiple, writeRaises
        )
        return cast(DatagramPort, inMemory)
    if not IReactorFDSet.providedBy(reactor):
        if IReactorMulticast.providedBy(reactor):
            return cast(DatagramPort, reactor.listenMulticast(port, protocol, interface, maxPacketSize, listenMultiple))
        return cast(DatagramPort, reactor.listenUDP(port, protocol, interface, maxPacketSize))
    listening = DatagramPort(port, protocol, interface, maxPacketSize, reactor, options)
    listening.startListening()
    return listening
