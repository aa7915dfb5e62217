"""Addresses whose interface was made anew."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress

from twisted.internet import error
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from udpecho.server.listeners import BoundPort, Listeners, boundAddress

#: Seconds between two checks.
CHECK_INTERVAL = 2.0

_log = Logger()


class InterfaceWatch:
    """Opens the port on a link-local address again when its interface was made anew.

    C{bind(2)} to a link-local address fixes the index of the interface (C{sin6_scope_id} in C{ipv6(7)}). An interface that is
    deleted and made anew, as VPNs and virtual machines do it, has another index, and the socket gets nothing from it. Without
    link-local addresses this does nothing. A passed socket is its owner's to bind.
    """

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._names: dict[BoundPort, str] = {}
        self._check = LoopingCall(self.check)
        self._check.clock = listeners.reactor
        self._failed: set[BoundPort] = set()

    def start(self) -> None:
        """Remember the interfaces of the bound ports, and check them from now on."""
        if self._listeners.where.sockets is None:
            for port in self._listeners.ports:
                with suppress(OSError):
                    self._names[port] = socket.if_indextoname(boundAddress(port).scopeID)
        if self._names:
            self._check.start(CHECK_INTERVAL, now=False)

    def stop(self) -> None:
        """Check no more."""
        if self._check.running:
            self._check.stop()
        self._names.clear()
        self._failed.clear()

    def check(self) -> None:
        """Open the ports again whose interface has another index."""
        for port, name in list(self._names.items()):
            try:
                self._checkOne(port, name)
            except Exception:
                # The watch goes on, whatever it is, unless the service was stopped meanwhile.
                if port in self._names and self._isFirst(port):
                    _log.failure("cannot check interface {interface}", interface=name)

    def _checkOne(self, port: BoundPort, name: str) -> None:
        try:
            # It may have another name by now.
            self._names[port] = socket.if_indextoname(boundAddress(port).scopeID)
        except OSError:
            self._reopen(port, name)

    def _isFirst(self, port: BoundPort) -> bool:
        """Whether the port has not failed before."""
        isFirst = port not in self._failed
        self._failed.add(port)
        return isFirst

    def _reopen(self, port: BoundPort, name: str) -> None:
        address = boundAddress(port)
        try:
            socket.if_nametoindex(name)
        except OSError:
            # It is not there yet.
            return
        try:
            opened = self._listeners.reopen(port, f"{address.host}%{name}")
        except (error.CannotListenError, OSError) as e:
            reason = e.socketError if isinstance(e, error.CannotListenError) else e
            # The interface may not have the address yet.
            if reason.errno != errno.EADDRNOTAVAIL and self._isFirst(port):
                _log.warn("interface {interface} was made anew, but {error}", interface=name, error=e)
            return
        self._failed.discard(port)
        del self._names[port]
        self._names[opened] = name
        _log.warn(
            "interface {interface} was made anew: answering on {address}", interface=name, address=str(boundAddress(opened))
        )
