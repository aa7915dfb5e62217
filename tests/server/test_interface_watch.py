"""Tests of L{udpecho.server.interface_watch}: a real server on an interface that is made anew."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.address import IPv6Address
from twisted.internet.task import Clock

from tests.support.guards import needsIPv6, needsSharing
from tests.support.namespaces import Host
from tests.support.processes import Processes, eventually
from tests.support.running import udpSocket
from tests.support.server import Lines
from udpecho.server.interface_watch import CHECK_INTERVAL, InterfaceWatch
from udpecho.server.listeners import ListenAddresses


def makeInterface(host: Host) -> None:
    """Make C{eth0}, with a link-local address."""
    host.ip(
        "link add eth0 type veth peer name eth1",
        "link set eth0 addrgenmode none up",
        "link set eth1 addrgenmode none up",
        "address add fe80::1/64 dev eth0 nodad",
    )
    host.waitUntilReady()


def asks(host: Host, port: int) -> bool:
    """Whether a server answers on the address of C{eth0}."""
    with host.entered(), udpSocket("::") as sock:
        sock.settimeout(0.2)
        try:
            sock.sendto(b"?", ("fe80::1%eth0", port))
            return sock.recv(10) == b"?"
        except OSError:
            return False


@needsIPv6
@pytest.mark.namespaces
class InterfaceWatchTests:
    """A server on a link-local address."""

    @pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=needsSharing)])
    def test_madeAnew(self, processes: Processes, workers: str) -> None:
        """It answers again on an interface that was deleted and made anew, which has another index, and its sums are right."""
        host = Host("server")
        try:
            host.ip("link set lo up")
            makeInterface(host)
            options = ("--interface", "fe80::1%eth0", "--interface", "127.0.0.1", "--workers", workers, "--log-datagrams", "0")
            with host.entered():
                server = processes.server(*options)
            port = server.addresses[0][1]
            assert eventually(lambda: asks(host, port), "the first answer")
            host.ip("link delete eth0")
            assert not asks(host, port)
            makeInterface(host)
            assert eventually(lambda: asks(host, port), "an answer on the new interface")
            assert server.stop()["dropped"] == 0
            assert sum("interface eth0 was made anew: answering on" in line for line in server.log()) == 1, server.process
        finally:
            host.delete()


class BoundTo:
    """A port on the link-local address of an interface."""

    def __init__(self, index: int) -> None:
        self._index = index

    def getHost(self) -> IPv6Address:
        return IPv6Address("UDP", "fe80::1", 7, 0, self._index)


class FailingListeners:
    """Listeners whose port cannot be opened again for some time.

    @ivar failures: what is raised, one after the other.
    """

    where = ListenAddresses(7, ["fe80::1%eth0"], None)

    def __init__(self, *failures: Exception) -> None:
        self.reactor = Clock()
        self.ports = [BoundTo(1)]
        self.failures = [*failures]

    def reopen(self, port: BoundTo, interface: str) -> BoundTo:
        if self.failures:
            raise self.failures.pop(0)
        self.ports = [BoundTo(2)]
        return self.ports[0]


class FailureTests:
    """L{InterfaceWatch} with ports that cannot be opened again."""

    @pytest.mark.parametrize(
        ("failure", "message"),
        [
            (OSError(errno.EMFILE, "Too many open files"), "interface eth0 was made anew, but [Errno 24] Too many open files"),
            (
                # What a port below 1024 gets after --uid.
                error.CannotListenError("fe80::1%eth0", 7, PermissionError(errno.EACCES, "Permission denied")),
                "interface eth0 was made anew, but Couldn't listen on fe80::1%eth0:7: [Errno 13] Permission denied.",
            ),
            (RuntimeError("unexpected"), "cannot check interface eth0"),
        ],
        ids=["descriptors", "privileges", "unexpected"],
    )
    def test_triedAgain(
        self, failure: Exception, message: str, lines: Lines, caught: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first failure is logged, and it is tried until the port is open, whatever fails."""
        names = {1: "eth0"}

        def nameOf(index: int) -> str:
            if index not in names:
                raise OSError(errno.ENXIO, "No such device or address")
            return names[index]

        monkeypatch.setattr(socket, "if_indextoname", nameOf)
        monkeypatch.setattr(socket, "if_nametoindex", lambda name: 2)
        listeners: Any = FailingListeners(failure, failure, failure)
        watch = InterfaceWatch(listeners)
        watch.start()
        names = {2: "eth0"}
        for _ in range(5):
            listeners.reactor.advance(CHECK_INTERVAL)
        assert lines.texts == [message, "interface eth0 was made anew: answering on [fe80::1%2]:7"]
        watch.stop()
        assert not listeners.reactor.getDelayedCalls()
        caught.flush(RuntimeError)
