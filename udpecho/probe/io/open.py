"""Open a socket for probes."""

from __future__ import annotations

import errno

from twisted.internet import error
from twisted.internet.interfaces import IReactorFDSet

from udpecho.addresses import DatagramAddress
from udpecho.errors import EXHAUSTED
from udpecho.interfaces import Reactor
from udpecho.net import selftest
from udpecho.net.features import Refused
from udpecho.net.network_errors import connectFailure
from udpecho.net.open import dial
from udpecho.net.sockets import connectedSocket, datagramAddress
from udpecho.probe.io.batch_socket import BatchSocket
from udpecho.probe.io.socket import IProbeReceiver, IProbeSocket, SocketOptions
from udpecho.probe.io.transport_socket import TransportSocket

#: The receive buffer to request, in bytes. Replies wait in it together with the timestamps of sending, each of which takes
#: about 1 KiB.
RECEIVE_BUFFER = 64 * 1024 * 1024
#: Errors that are this machine's own, whatever the peer.
_notOfThePeer = EXHAUSTED | {errno.ENOPROTOOPT}


def openSocket(
    reactor: Reactor,
    peer: DatagramAddress,
    receiver: IProbeReceiver,
    size: int,
    options: SocketOptions = SocketOptions(),  # noqa: B008
    *,
    batches: bool = True,
    stamps: bool = True,
    taken: int = 0,
) -> IProbeSocket:
    """Open the best socket to a peer that reactor and system have.

    @param reactor: a reactor with file descriptors, or one in memory.
    @param receiver: is called with what comes, if the socket has no descriptor to watch.
    @param size: the longest datagram to send, in bytes.
    @param batches: send and receive in batches where that works.
    @param stamps: have the kernel make timestamps where it can.
    @param taken: how many datagrams were sent by other sockets for the same receiver.
    @raise error.CannotListenError: if the system refuses the local address.
    @raise HostUnreachable: if it has no route to the peer.
    @raise OSError: if it refuses an option.
    @raise ValueError: if the options include some that a reactor in memory does not have.
    """
    try:
        hasDescriptors = IReactorFDSet.providedBy(reactor)
        if not hasDescriptors and options._replace(bindAddress=None) != SocketOptions():
            raise ValueError(f"options must be bindAddress only on a reactor without sockets, got {options!r}")
        if hasDescriptors and batches and selftest.unsupportedReason() is None:
            sock = connectedSocket(peer, options.bindAddress, RECEIVE_BUFFER)
            try:
                options.apply(sock)
                return BatchSocket(sock, size, stamps, taken)
            except BaseException:
                sock.close()
                raise
        found = TransportSocket(receiver, peer)
        # The prober notices itself when it has to open another one.
        dial(reactor, found, peer, options.bindAddress, RECEIVE_BUFFER, options.apply, renewed=False)
    except error.CannotListenError:
        raise
    except OSError as e:
        raise _refusal(e, peer) from None
    return found


def chooseSource(peer: DatagramAddress, bindAddress: tuple[str, int] | None) -> DatagramAddress:
    """Find the local address that the system would choose for a socket to a peer now. Nothing is sent.

    The exceptions are those of L{openSocket}.
    """
    try:
        # The port is perhaps that of a socket of ours.
        with connectedSocket(peer, bindAddress and (bindAddress[0], 0)) as trial:
            return datagramAddress(trial.getsockname())
    except error.CannotListenError as e:
        raise error.CannotListenError(*(bindAddress or ("", 0)), e.socketError) from None
    except OSError as e:
        raise _refusal(e, peer) from None


def _refusal(reason: OSError, peer: DatagramAddress) -> Exception:
    if reason.errno in _notOfThePeer or isinstance(reason, Refused):
        return reason
    return connectFailure(reason.errno or 0, peer)
