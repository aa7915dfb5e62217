"""Make C{reactor.listenUDP} open L{DatagramPort}s, for a program that calls it itself and is not changed.

The methods of one reactor are replaced, as attributes of that object: whoever has the reactor, however long, calls the new
ones. Only who has kept a bound method, as in C{listen = reactor.listenUDP}, has the former one. C{twisted.internet.udp} is not
touched: classes derive from what it has.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from twisted.internet import error
from twisted.internet.interfaces import IListeningPort, IReactorFDSet
from twisted.internet.protocol import DatagramProtocol

from udpecho.interfaces import Reactor
from udpecho.net.open import openPort
from udpecho.net.options import PortOptions
from udpecho.net.port import DatagramPort
from udpecho.net.sockets import MAX_DATAGRAM

_NAMES = ("listenUDP", "listenMulticast", "adoptDatagramPort")


def useDatagramPorts(reactor: Reactor, options: PortOptions = PortOptions()) -> ExitStack:  # noqa: B008
    """From now on C{listenUDP}, C{listenMulticast} and C{adoptDatagramPort} of a reactor open L{DatagramPort}s::

        from twisted.internet import reactor
        udpecho.useDatagramPorts(reactor)

    A port that is open stays what it is. Without C{maxPacketSize} datagrams of any size are received.

    @param reactor: an C{IReactorFDSet} provider: Twisted's own but for Windows' IOCP.
    @param options: those of the ports.
    @return: C{close()} takes it back, and so does the end of a C{with} statement. Calls may be nested, and taken back in any
        order: the last one that is not taken back counts.
    @raise TypeError: if the reactor cannot have such ports, or the options are none.
    """
    if not IReactorFDSet.providedBy(reactor):
        raise TypeError(f"reactor must provide IReactorFDSet, got {reactor!r}")
    if not isinstance(options, PortOptions):
        raise TypeError(f"options must be PortOptions, got {options!r}")
    undo = ExitStack()
    undo.callback(_Listening(reactor, options).undo)
    return undo


class _Listening:
    """The methods that stand in the place of a reactor's. One that somebody keeps when they are taken back calls what was there
    before.
    """

    def __init__(self, reactor: Reactor, options: PortOptions) -> None:
        self._reactor = reactor
        self._options = options
        self._before = {name: getattr(reactor, name) for name in _NAMES if hasattr(reactor, name)}
        #: Those that somebody else has replaced: the rest are the class's.
        self._replaced = {name: method for name, method in vars(reactor).items() if name in _NAMES}
        self._active = True
        for name in self._before:
            setattr(reactor, name, getattr(self, name))

    def undo(self) -> None:
        """Take it back; what others have put in its place since stays."""
        self._active = False
        for name in self._before:
            while isinstance(there := self._inPlace(name), _Listening) and not there._active:
                if name in there._replaced:
                    setattr(self._reactor, name, there._replaced[name])
                else:
                    delattr(self._reactor, name)

    def _inPlace(self, name: str) -> object:
        return getattr(vars(self._reactor).get(name), "__self__", None)

    def listenUDP(
        self, port: int, protocol: DatagramProtocol, interface: str = "", maxPacketSize: int | None = None
    ) -> IListeningPort:
        """@see: C{IReactorUDP.listenUDP}"""
        if not self._active:
            return self._call("listenUDP", maxPacketSize, port, protocol, interface)
        return self._listen(port, protocol, interface, maxPacketSize, self._options)

    def listenMulticast(
        self,
        port: int,
        protocol: DatagramProtocol,
        interface: str = "",
        maxPacketSize: int | None = None,
        listenMultiple: bool = False,
    ) -> IListeningPort:
        """@see: C{IReactorMulticast.listenMulticast}"""
        if not self._active:
            return self._call("listenMulticast", maxPacketSize, port, protocol, interface, listenMultiple=listenMultiple)
        options = replace(self._options, listenMultiple=bool(listenMultiple) or self._options.listenMultiple)
        return self._listen(port, protocol, interface, maxPacketSize, options)

    def adoptDatagramPort(
        self, fileDescriptor: int, addressFamily: int, protocol: DatagramProtocol, maxPacketSize: int | None = None
    ) -> IListeningPort:
        """@see: C{IReactorSocket.adoptDatagramPort}"""
        if not self._active:
            return self._call("adoptDatagramPort", maxPacketSize, fileDescriptor, addressFamily, protocol)
        if addressFamily not in (socket.AF_INET, socket.AF_INET6):
            raise error.UnsupportedAddressFamily(addressFamily)
        sock = socket.fromfd(fileDescriptor, addressFamily, socket.SOCK_DGRAM)
        sock.setblocking(False)
        return openPort(self._reactor, sock, protocol, self._options, True, _sizeOf(maxPacketSize))

    def _listen(
        self, port: int, protocol: DatagramProtocol, interface: str, maxPacketSize: int | None, options: PortOptions
    ) -> DatagramPort:
        listening = DatagramPort(port, protocol, interface, _sizeOf(maxPacketSize), self._reactor, options)
        listening.startListening()
        return listening

    def _call(self, name: str, maxPacketSize: int | None, *arguments: Any, **options: Any) -> IListeningPort:
        if maxPacketSize is not None:
            options["maxPacketSize"] = maxPacketSize
        listening: IListeningPort = self._before[name](*arguments, **options)
        return listening


def _sizeOf(maxPacketSize: int | None) -> int:
    return MAX_DATAGRAM if maxPacketSize is None else maxPacketSize
