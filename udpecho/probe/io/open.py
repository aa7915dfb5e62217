"""Open a socket for probes."""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import Any

from twisted.internet import error
from twisted.internet.interfaces import IReactorFDSet, IReactorUDP

from udpecho.addresses import DatagramAddress
from udpecho.errors import HostUnreachable, unreachable
from udpecho.interfaces import IDatagramReactor, Reactor
from udpecho.net import selftest
from udpecho.net.open import dial
from udpecho.net.sockets import MAX_DATAGRAM, connectedSocket
from udpecho.probe.io.batch_socket import BatchSocket
from udpecho.probe.io.socket import IProbeReceiver, IProbeSocket, SocketOptions
from udpecho.probe.io.transport_socket import TransportSocket

#: The receive buffer to request, in bytes. Replies wait in it together with the timestamps of sending, each of which takes
#: about 1 KiB.
RECEIVE_BUFFER = 64 * 1024 * 1024


def openSocket(
    reactor: Reactor,
    peer: DatagramAddress,
    receiver: IProbeReceiver,
    size: int,
    options: SocketOptions = SocketOptions(),  # noqa: B008
    *,
    batches: bool = True,
    stamps: bool = True,
) -> IProbeSocket:
    """Open the best socket to a peer that reactor and system have.

    @param reactor: a reactor with file descriptors, or one in memory.
    @param receiver: is called with what comes, if the socket has no descriptor to watch.
    @param size: the longest datagram to send, in bytes.
    @param batches: send and receive in batches where that works.
    @param stamps: have the kernel make timestamps where it can.
    @raise error.CannotListenError: if the system refuses the local address.
    @raise HostUnreachable: if it has no route to the peer.
    @raise OSError: if it refuses an option.
    @raise ValueError: if the options include some that a reactor in memory does not have.
    """
    try:
        if not IReactorFDSet.providedBy(reactor) or IDatagramReactor.providedBy(reactor):
            return _openInMemory(reactor, peer, receiver, options)
        if batches and selftest.unsupportedReason() is None:
            sock = connectedSocket(peer, options.bindAddress, RECEIVE_BUFFER)
            try:
                options.apply(sock)
                return BatchSocket(sock, size, stamps)
            except BaseException:
                sock.close()
                raise
        found = TransportSocket(receiver, peer)
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


def _openInMemory(reactor: Reactor, peer: DatagramAddress, receiver: IProbeReceiver, options: SocketOptions) -> TransportSocket:
    if options._replace(bindAddress=None) != SocketOptions():
        raise ValueError(f"options must be bindAddress only on a reactor without sockets, got {options!r}")
    found = TransportSocket(receiver, peer)
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
