"""Tests of L{udpecho.net.groups}: ports that join multicast groups, beside the stock port, with real groups on loopback."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
from twisted.internet import error, udp
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IMulticastTransport
from twisted.internet.protocol import DatagramProtocol
from zope.interface.verify import verifyClass, verifyObject

from tests.support.guards import needsIPv6, onlyLinux
from tests.support.hosts import until
from tests.support.ports import address, path  # noqa: F401
from tests.support.running import Recorder, Run, udpSocket
from tests.support.server import check
from udpecho.net.open import listen
from udpecho.net.port import DatagramPort
from udpecho.server.protocol import EchoServer

#: Opens a port on an address, any number, with C{listenMultiple}.
Open = Callable[..., Any]

# Of this process alone: a port of Linux gets what is sent to a group that any program of the machine has joined.
GROUP4, GROUP6 = str(IPv4Address((239 << 24) + os.getpid() % 2**24)), f"ff12::{os.getpid() % 2**16:x}"
LOOPBACK = socket.if_nametoindex("lo") if "lo" in [name for _, name in socket.if_nameindex()] else 0
#: Twisted 24 has no groups of IPv6.
_stockHasIPv6 = hasattr(udp.MulticastMixin, "_joingroup")  # type: ignore[attr-defined]


def stock(reactor: Any, protocol: DatagramProtocol, interface: str = "", port: int = 0, listenMultiple: bool = False) -> Any:
    opened = udp.MulticastPort(port, protocol, interface, 8192, reactor, listenMultiple)
    opened.startListening()
    return opened


def ours(reactor: Any, protocol: DatagramProtocol, interface: str = "", port: int = 0, listenMultiple: bool = False) -> Any:
    return listen(reactor, port, protocol, interface, listenMultiple=listenMultiple)


both = pytest.mark.parametrize("opener", [stock, ours])


async def outcome(port: Any, method: str, *arguments: Any) -> object:
    """What a call gives: its result, or its exception, as far as code can tell it from others."""
    try:
        return await maybeDeferred(getattr(port, method), *arguments)
    except Exception as e:
        # Twisted has changed the text, not the type, nor the system's error.
        number = next((each for each in e.args if isinstance(each, int)), None)
        return type(e), number


CALLS: list[tuple[str, str, tuple[Any, ...]]] = [
    (family, method, arguments)
    for family, group, interface, bad, other in (
        ("0.0.0.0", GROUP4, "127.0.0.1", "127.0.0.1", "::1"),
        ("::", GROUP6, "::", "::1", "127.0.0.1"),
    )
    for method, arguments in (
        ("joinGroup", (group, interface)),
        ("joinGroup", (group, interface)),
        ("leaveGroup", (group, interface)),
        ("leaveGroup", (group, interface)),
        ("joinGroup", (bad,)),
        ("joinGroup", (other,)),
        ("joinGroup", (group, other if family == "0.0.0.0" else "127.0.0.1")),
        ("leaveGroup", (bad,)),
        ("getTTL", ()),
        ("setTTL", (7,)),
        ("getTTL", ()),
        ("setTTL", (0,)),
        ("setTTL", (255,)),
        ("setTTL", (256,)),
        ("setTTL", (-1,)),
        ("setTTL", ("7",)),
        ("getTTL", ()),
        ("getLoopbackMode", ()),
        ("setLoopbackMode", (0,)),
        ("getLoopbackMode", ()),
        ("setLoopbackMode", (True,)),
        ("getLoopbackMode", ()),
        ("getOutgoingInterface", ()),
        ("setOutgoingInterface", ("127.0.0.1",)),
        ("setOutgoingInterface", (LOOPBACK,)),
        ("getOutgoingInterface", ()),
        ("setOutgoingInterface", ("203.0.113.1",)),
        ("setOutgoingInterface", (2**30,)),
        ("getOutgoingInterface", ()),
    )
]


class StockTests:
    """The same calls as on the stock port have the same results, and the same errors."""

    @pytest.mark.parametrize(
        "interface",
        [
            "0.0.0.0",
            pytest.param(
                "::", marks=[needsIPv6, pytest.mark.skipif(not _stockHasIPv6, reason="this Twisted has no groups of IPv6")]
            ),
        ],
    )
    def test_sameResults(self, run: Run, interface: str) -> None:
        """One after the other, on one port."""

        async def test(reactor: Any) -> None:
            ports = [opener(reactor, Recorder(), interface) for opener in (stock, ours)]
            for family, method, arguments in CALLS:
                if family == interface:
                    expected, found = [await outcome(port, method, *arguments) for port in ports]
                    assert (method, arguments, found) == (method, arguments, expected)
            for port in ports:
                await port.stopListening()

        run(test)

    def test_interfaces(self, runOnce: Run) -> None:
        """It provides C{IMulticastTransport}."""
        assert verifyClass(IMulticastTransport, DatagramPort)

        async def test(reactor: Any) -> None:
            port = ours(reactor, Recorder())
            assert verifyObject(IMulticastTransport, port)
            await port.stopListening()

        runOnce(test)

    @both
    def test_names(self, runOnce: Run, opener: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        """Names are looked up by the reactor."""

        async def test(reactor: Any) -> None:
            async def resolve(name: str, timeout: object = None) -> str:
                return {"group.example": GROUP4, "near.example": "127.0.0.1"}[name]

            monkeypatch.setattr(reactor, "resolve", lambda name, timeout=None: maybeDeferred(resolve, name))
            port = opener(reactor, Recorder())
            assert await port.setOutgoingInterface("near.example") == 1
            assert port.getOutgoingInterface() == "127.0.0.1"
            await port.joinGroup("group.example", "near.example")
            await port.leaveGroup(GROUP4, "127.0.0.1")
            await port.stopListening()

        runOnce(test)


class DeliveryTests:
    """Datagrams to a group."""

    @both
    def test_joinAndLeave(self, run: Run, opener: Open) -> None:
        """They come after joining, and not after leaving; so do those to the port itself, before and after."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = opener(reactor, protocol)
            number = port.getHost().port
            sender = opener(reactor, Recorder())
            await sender.setOutgoingInterface("127.0.0.1")

            async def exchange(expected: list[bytes]) -> None:
                protocol.datagrams.clear()
                sender.write(b"to all", (GROUP4, number))
                sender.write(b"to one", ("127.0.0.1", number))
                await protocol.until(lambda: protocol.datagrams[-1:] != [] and protocol.datagrams[-1][0] == b"to one")
                assert [datagram for datagram, _ in protocol.datagrams] == expected

            await exchange([b"to one"])
            await port.joinGroup(GROUP4, "127.0.0.1")
            await exchange([b"to all", b"to one"])
            await port.leaveGroup(GROUP4, "127.0.0.1")
            await exchange([b"to one"])
            for each in (port, sender):
                await each.stopListening()

        run(test)

    @both
    def test_listenMultiple(self, run: Run, opener: Open) -> None:
        """Two sockets of one port both get what is sent to the group."""

        async def test(reactor: Any) -> None:
            protocols = Recorder(), Recorder()
            first = opener(reactor, protocols[0], listenMultiple=True)
            second = opener(reactor, protocols[1], port=first.getHost().port, listenMultiple=True)
            assert first.listenMultiple
            for port in (first, second):
                await port.joinGroup(GROUP4, "127.0.0.1")
            with udpSocket() as sock:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
                sock.sendto(b"all", (GROUP4, first.getHost().port))
                for protocol in protocols:
                    await protocol.count(1)
                    assert protocol.datagrams == [(b"all", sock.getsockname())]
            for port in (first, second):
                await port.stopListening()

        run(test)

    def test_notMultiple(self, runOnce: Run) -> None:
        """Without C{listenMultiple} the port is taken."""

        async def test(reactor: Any) -> None:
            first = ours(reactor, Recorder(), listenMultiple=True)
            with pytest.raises(error.CannotListenError):
                ours(reactor, Recorder(), port=first.getHost().port)
            await first.stopListening()

        runOnce(test)

    @both
    def test_replies(self, run: Run, opener: Open) -> None:
        """A protocol that answers a datagram to a group answers from an address of its own."""

        class Echo(Recorder):
            def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                assert self.transport is not None
                self.transport.write(datagram, addr)

        async def test(reactor: Any) -> None:
            port = opener(reactor, Echo())
            await port.joinGroup(GROUP4, "127.0.0.1")
            asking = Recorder()
            client = opener(reactor, asking, "127.0.0.1")
            await client.setOutgoingInterface("127.0.0.1")
            client.write(b"who is there?", (GROUP4, port.getHost().port))
            await asking.count(1)
            assert asking.datagrams == [(b"who is there?", ("127.0.0.1", port.getHost().port))]
            for each in (port, client):
                await each.stopListening()

        run(test)

    @onlyLinux
    def test_neverEchoed(self, run: Run) -> None:
        """An L{EchoServer} whose port has joined a group answers nothing that is sent to the group, and counts it."""

        async def test(reactor: Any) -> None:
            server = EchoServer()
            port = ours(reactor, server)
            await port.joinGroup(GROUP4, "127.0.0.1")
            with udpSocket() as sock:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
                for number in range(3):
                    sock.sendto(b"all", (GROUP4, port.getHost().port))
                    sock.sendto(b"%d" % number, ("127.0.0.1", port.getHost().port))
                await until(reactor, lambda: server.counters.received == 6, "all has come")
                await until(reactor, lambda: not server.counters.waiting, "all is answered")
                assert [sock.recv(10) for _ in range(3)] == [b"0", b"1", b"2"]
            check(server.counters)
            assert server.counters.dropped == {"not_allowed": 3}
            await port.stopListening()

        run(test)


@needsIPv6
class MendedTests:
    """What the stock port does wrong with IPv6."""

    def test_hopLimit(self, runOnce: Run) -> None:
        """C{setTTL} sets the hop limit of what is sent to groups of IPv6, and of IPv4 on a socket for both."""

        async def test(reactor: Any) -> None:
            port = ours(reactor, Recorder(), "::")
            port.setTTL(9)
            handle = port.getHandle()
            assert handle.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS) == 9
            assert handle.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 9
            await port.stopListening()

        runOnce(test)

    @onlyLinux
    @pytest.mark.parametrize(
        ("joining", "leaving"),
        [
            ((GROUP6, "::1"), (GROUP6, "lo")),
            ((GROUP6, str(LOOPBACK)), (GROUP6, LOOPBACK)),
            ((f"{GROUP6}%lo",), (GROUP6, "::1%lo")),
        ],
        ids=["address", "index", "scope"],
    )
    def test_interface(self, runOnce: Run, joining: tuple[Any, ...], leaving: tuple[Any, ...]) -> None:
        """The interface of a group may be given by each of its names, which mean the same one."""

        async def test(reactor: Any) -> None:
            port = ours(reactor, Recorder(), "::")
            await port.joinGroup(*joining)
            assert _memberships(GROUP6) == {"lo"}
            await port.leaveGroup(*leaving)
            assert _memberships(GROUP6) == set()
            await port.stopListening()

        runOnce(test)

    @onlyLinux
    @pytest.mark.parametrize("interface", ["nosuch0", "2001:db8::1", "fe80::1%nosuch0", 2**30])
    def test_noInterface(self, runOnce: Run, interface: str | int) -> None:
        """An interface that this machine does not have is an error of joining."""

        async def test(reactor: Any) -> None:
            port = ours(reactor, Recorder(), "::")
            with pytest.raises(error.MulticastJoinError):
                await port.joinGroup(GROUP6, interface)
            await port.stopListening()

        runOnce(test)


def _memberships(group: str) -> set[str]:
    """The interfaces that have joined a group of IPv6."""
    packed = socket.inet_pton(socket.AF_INET6, group).hex()
    with open("/proc/net/igmp6") as file:
        return {fields[1] for fields in map(str.split, file) if fields[2] == packed}
