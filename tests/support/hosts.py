"""What tests between hosts in network namespaces share: fixtures, sockets of a host, and why a host cannot be reached."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.protocol import DatagramProtocol

from tests.support.namespaces import (
    IPV4,
    IPV6,
    Host,
    Network,
    Plan,
    hasIPv6,
)
from tests.support.running import PATIENCE, sleep, udpSocket
from udpecho.addresses import formatAddress
from udpecho.client.connect import echo
from udpecho.errors import EchoError, HostUnreachable, NetworkUnreachable
from udpecho.net.open import listen
from udpecho.net.port import DatagramPort

#: Where the servers listen.
PORT = 7777


#: What C{linux/in.h}, C{linux/in6.h} and C{asm-generic/socket.h} name, and Python does not.
SO_BINDTODEVICE = getattr(socket, "SO_BINDTODEVICE", 25)


needsIPv6 = pytest.mark.skipif(not hasIPv6(), reason="this machine has no IPv6")


bothFamilies = pytest.mark.parametrize("plan", [IPV4, pytest.param(IPV6, marks=needsIPv6)], ids=["IPv4", "IPv6"])


async def until(reactor: Any, condition: Callable[[], object], what: str) -> None:
    """Look again and again, while the reactor turns, for what cannot be waited for."""
    deadline = time.monotonic() + PATIENCE / 2
    while not condition():
        assert time.monotonic() < deadline, what
        await sleep(reactor, 0.005)


async def failure(reactor: Any, host: str, timeout: float = 10, payload: bytes = b"anybody there?") -> EchoError:
    """@return: what an echo fails with."""
    try:
        size = await echo(reactor, host, PORT, payload, timeout)
    except EchoError as e:
        return e
    raise AssertionError(f"{host} has answered {size} bytes")


@contextmanager
def patience(seconds: int) -> Iterator[None]:
    """Fail if what is done inside takes longer, also where it never lets the reactor turn."""

    def late(*_: object) -> None:
        raise AssertionError(f"not over after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def listenOn(host: Host, reactor: Any, interface: str, protocol: DatagramProtocol, **options: Any) -> DatagramPort:
    """Listen on a host's address, at L{PORT}."""
    port = host.call(listen, reactor, PORT, protocol, interface, ipv6Only=True, **options)
    assert isinstance(port, DatagramPort)
    return port


def connected(reactor: Any, protocol: DatagramProtocol, plan: Plan, host: str) -> DatagramPort:
    """A port that is connected to a host's L{PORT}."""
    port = listen(reactor, 0, protocol, plan.wildcard)
    assert isinstance(port, DatagramPort)
    port.connect(host, PORT)
    return port


async def stop(*ports: Any) -> None:
    await gatherResults([maybeDeferred(port.stopListening) for port in ports])


@contextmanager
def socketOn(host: Host, address: str, port: int = 0) -> Iterator[socket.socket]:
    """A plain socket of a host, bound."""
    with host.entered(), udpSocket(address, port) as sock:
        yield sock


def received(sock: socket.socket) -> list[bytes]:
    """All that a socket has received."""
    datagrams = []
    while select.select([sock], [], [], 0)[0]:
        datagrams.append(sock.recv(65536))
    return datagrams


def waitFor(port: DatagramPort) -> None:
    """Wait until something is in a port's receive queue."""
    assert select.select([port.socket], [], [], PATIENCE)[0]


@dataclass(frozen=True)
class Trouble:
    """Why a host cannot be reached.

    @ivar name: what it is.
    @ivar target: which address of the L{Plan} cannot be reached.
    @ivar reason: what a call fails with.
    @ivar errno: the system's error number for it.
    @ivar reasonIPv6: what a call fails with over IPv6, where that is something else.
    @ivar errnoIPv6: its number.
    @ivar client: what C{ip(8)} does on the client to have it so; the address is filled in.
    @ivar router: what it does on the router.
    """

    name: str
    target: str
    reason: type[EchoError]
    errno: int
    reasonIPv6: type[EchoError] | None = None
    errnoIPv6: int | None = None
    client: str = ""
    router: str = ""

    def make(self, net: Network, plan: Plan) -> str:
        """Have it so.

        @return: the address.
        """
        net.client.giveUpSoon("eth0")
        net.router.giveUpSoon("eth1")
        address: str = getattr(plan, self.target)
        for host, command in ((net.client, self.client), (net.router, self.router)):
            if command:
                host.ip(command.format(address=address, client=plan.client))
        return address

    def check(self, plan: Plan, address: str, reason: EchoError) -> None:
        """Check what a call failed with."""
        kind, number = self.reason, self.errno
        if plan is IPV6:
            kind, number = self.reasonIPv6 or kind, self.errnoIPv6 or number
        assert (type(reason), reason.errno) == (kind, number), reason
        assert str(reason) == f"{formatAddress((address, PORT))} cannot be reached: {os.strerror(number)}"


#: What the network reports, some time after the datagram was sent.
REPORTED = [
    Trouble("no such host on the link", "nearNobody", HostUnreachable, errno.EHOSTUNREACH),
    Trouble("the router finds no such host", "farNobody", HostUnreachable, errno.EHOSTUNREACH),
    Trouble("the router has no route", "nowhere", NetworkUnreachable, errno.ENETUNREACH),
    Trouble(
        "the router has an unreachable route",
        "nowhere",
        HostUnreachable,
        errno.EHOSTUNREACH,
        # Linux says "no route" here, over IPv6.
        NetworkUnreachable,
        errno.ENETUNREACH,
        router="route add unreachable {address}",
    ),
    Trouble(
        "the router prohibits it",
        "nowhere",
        HostUnreachable,
        errno.EHOSTUNREACH,
        errnoIPv6=errno.EACCES,
        router="route add prohibit {address}",
    ),
]


#: What the machine itself reports, at connect(2).
OWN = [
    Trouble("no route", "lost", NetworkUnreachable, errno.ENETUNREACH),
    Trouble("an unreachable route", "nowhere", HostUnreachable, errno.EHOSTUNREACH, client="route add unreachable {address}"),
    Trouble("a prohibited route", "nowhere", HostUnreachable, errno.EACCES, client="route add prohibit {address}"),
    Trouble("a black hole", "nowhere", HostUnreachable, errno.EINVAL, client="route add blackhole {address}"),
    Trouble("a thrown route", "nowhere", NetworkUnreachable, errno.ENETUNREACH, client="route add throw {address}"),
]
