"""Tests of L{udpecho.server.interface_watch}: a real server on an interface that is made anew."""

from __future__ import annotations

import pytest

from tests.support.guards import needsIPv6, needsSharing
from tests.support.namespaces import Host
from tests.support.processes import Processes, eventually
from tests.support.running import udpSocket


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
