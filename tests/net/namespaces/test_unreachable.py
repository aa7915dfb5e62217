"""Tests between hosts: what the network reports of a datagram, and how it recovers."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address

from tests.support.hosts import (
    OWN,
    PORT,
    REPORTED,
    Trouble,
    bothFamilies,
    connected,
    failure,
    listenOn,
    needsIPv6,
    stop,
    until,
)
from tests.support.namespaces import (
    IPV4,
    IPV6,
    LINK_LOCAL_ROUTER,
    Network,
    Plan,
)
from tests.support.running import CuriousRecorder, Recorder, Run
from tests.support.transports import Resolver
from udpecho.addresses import formatAddress
from udpecho.client.connect import connect, echo
from udpecho.errors import EchoError, HostUnreachable, NetworkUnreachable, PortUnreachable, ResponseTimeout
from udpecho.server.protocol import EchoServer

pytestmark = pytest.mark.namespaces


class UnreachableTests:
    """L{echo} to where nobody is."""

    @bothFamilies
    @pytest.mark.parametrize("trouble", REPORTED, ids=lambda trouble: trouble.name)
    def test_reported(self, net: Network, run: Run, plan: Plan, trouble: Trouble) -> None:
        """What the network reports ends the call at once, by its class and number, and nothing is left."""
        address = trouble.make(net, plan)

        async def test(reactor: Any) -> None:
            trouble.check(plan, address, await failure(reactor, address))

        net.client.call(run, test)

    @bothFamilies
    @pytest.mark.parametrize("trouble", OWN, ids=lambda trouble: trouble.name)
    def test_own(self, net: Network, runOnce: Run, plan: Plan, trouble: Trouble) -> None:
        """So does what the machine's own routing table reports."""
        address = trouble.make(net, plan)

        async def test(reactor: Any) -> None:
            trouble.check(plan, address, await failure(reactor, address))

        net.client.call(runOnce, test)

    @bothFamilies
    def test_routersGoInCircles(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """A datagram whose time to live is over on the way has not reached the host."""
        net.server.configure("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        net.router.ip(f"route add {plan.nowhere} via {plan.server}")

        async def test(reactor: Any) -> None:
            reason = await failure(reactor, plan.nowhere)
            assert (type(reason), reason.errno) == (HostUnreachable, errno.EHOSTUNREACH)

        net.client.call(runOnce, test)

    @bothFamilies
    def test_routerSaysNothing(self, net: Network, run: Run, plan: Plan) -> None:
        """Where the router has a black hole nothing is reported, and the deadline ends the call."""
        net.router.ip(f"route add blackhole {plan.nowhere}")

        async def test(reactor: Any) -> None:
            reason = await failure(reactor, plan.nowhere, 0.1)
            assert type(reason) is ResponseTimeout
            assert str(reason) == f"no reply from {formatAddress((plan.nowhere, PORT))} within 0.1 s"

        net.client.call(run, test)

    @bothFamilies
    def test_manyOnTheirWay(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """All that a client has on its way to a host that is not there fails for the one reason; each is reported once."""
        trouble = REPORTED[1]
        address = trouble.make(net, plan)

        async def test(reactor: Any) -> None:
            client = await connect(reactor, address, PORT, 10)
            reasons: list[Any] = []
            for number in range(5):
                client.echo(b"%d" % number).addErrback(lambda reason: reasons.append(reason.value))
            await until(reactor, lambda: len(reasons) == 5, "five failures")
            for reason in reasons:
                trouble.check(plan, address, reason)
            await client.close()

        net.client.call(runOnce, test)

    @needsIPv6
    def test_linkLocal(self, net: Network, runOnce: Run) -> None:
        """The scope of a link-local address that nobody has is in the message."""
        net.client.giveUpSoon("eth0")

        async def test(reactor: Any) -> None:
            reason = await failure(reactor, "fe80::99%eth0")
            assert (type(reason), reason.errno) == (HostUnreachable, errno.EHOSTUNREACH)
            index = socket.if_nametoindex("eth0")
            assert str(reason).startswith(f"[fe80::99%{index}]:{PORT} cannot be reached: ")

        net.client.call(runOnce, test)

    @needsIPv6
    def test_linkLocalWithoutScope(self, net: Network, runOnce: Run) -> None:
        """A link-local address without a scope fails, with a message that has what is missing."""

        async def test(reactor: Any) -> None:
            with pytest.raises(HostUnreachable) as caught:
                await echo(reactor, LINK_LOCAL_ROUTER, PORT, b"where?", 0.3)
            assert caught.value.errno == errno.EINVAL
            assert str(caught.value) == (
                f"[{LINK_LOCAL_ROUTER}]:{PORT} cannot be reached: {os.strerror(errno.EINVAL)}"
                f" (name its interface, as in {LINK_LOCAL_ROUTER}%eth0)"
            )

        net.client.call(runOnce, test)

    def test_everyICMP(self, net: Network, runOnce: Run) -> None:
        """Each ICMP message about a datagram (RFC 792, RFC 1812 section 5.2.7) ends the call by its class and number, but the
        one that only reports a narrow path.
        """
        net.router.ip(f"route add blackhole {IPV4.nowhere}")
        unreachable = 3
        meanings: dict[tuple[int, int], tuple[type[EchoError], int]] = {
            (unreachable, 0): (NetworkUnreachable, errno.ENETUNREACH),
            (unreachable, 1): (HostUnreachable, errno.EHOSTUNREACH),
            (unreachable, 2): (HostUnreachable, errno.ENOPROTOOPT),
            (unreachable, 3): (PortUnreachable, errno.ECONNREFUSED),
            (unreachable, 5): (HostUnreachable, errno.EOPNOTSUPP),
            (unreachable, 6): (NetworkUnreachable, errno.ENETUNREACH),
            (unreachable, 7): (HostUnreachable, errno.EHOSTDOWN),
            (unreachable, 8): (HostUnreachable, errno.ENONET),
            (unreachable, 9): (NetworkUnreachable, errno.ENETUNREACH),
            (unreachable, 10): (HostUnreachable, errno.EHOSTUNREACH),
            (unreachable, 11): (NetworkUnreachable, errno.ENETUNREACH),
            (unreachable, 12): (HostUnreachable, errno.EHOSTUNREACH),
            (unreachable, 13): (HostUnreachable, errno.EHOSTUNREACH),
            (unreachable, 14): (HostUnreachable, errno.EHOSTUNREACH),
            (unreachable, 15): (HostUnreachable, errno.EHOSTUNREACH),
            (11, 0): (HostUnreachable, errno.EHOSTUNREACH),
            (12, 0): (HostUnreachable, errno.EPROTO),
        }

        async def test(reactor: Any) -> None:
            raw = net.router.call(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            client = await connect(reactor, IPV4.nowhere, PORT, 10)
            assert client.transport is not None
            ownPort = client.transport.getHost().port
            for (kind, code), (reason, number) in meanings.items():
                done = client.echo(b"?")
                raw.sendto(icmp(kind, code, (IPV4.client, ownPort), (IPV4.nowhere, PORT)), (IPV4.client, 0))
                with pytest.raises(EchoError) as caught:
                    await done
                assert (type(caught.value), caught.value.errno) == (reason, number), (kind, code)
            await client.close()
            raw.close()

        net.client.call(runOnce, test)


def icmp(kind: int, code: int, source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """Make an ICMP message about a datagram of one byte."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 29, 1, 0, 64, socket.IPPROTO_UDP, 0)
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    quoted = header + addresses + struct.pack("!HHHH", source[1], destination[1], 9, 0)
    message = struct.pack("!BBHI", kind, code, 0, 0) + quoted
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", total ^ 0xFFFF) + message[4:]


class RecoveryTests:
    """A connected L{DatagramPort} whose peer cannot be reached, and then can."""

    @bothFamilies
    @pytest.mark.parametrize("protocolClass", [Recorder, CuriousRecorder])
    def test_hostComesBack(self, net: Network, run: Run, plan: Plan, protocolClass: type[Recorder]) -> None:
        """The protocol is notified of each of two failures, by C{connectionRefused} if it has nothing better; the port lives,
        and works when the host is there.
        """
        address = REPORTED[1].make(net, plan)

        async def test(reactor: Any) -> None:
            protocol = protocolClass()
            port = connected(reactor, protocol, plan, address)
            notified = (lambda: len(protocol.errors)) if isinstance(protocol, CuriousRecorder) else (lambda: protocol.refusals)
            for times in (1, 2):
                port.write(b"anybody there?")
                await protocol.until(lambda: notified() == times)  # noqa: B023
            net.server.take(f"{address}/{plan.prefix}")
            peer = listenOn(net.server, reactor, address, EchoServer())
            port.write(b"hello")
            await protocol.count(1)
            assert protocol.datagrams == [(b"hello", (address, PORT))]
            assert notified() == 2
            assert not port.dropped
            if isinstance(protocol, CuriousRecorder):
                assert protocol.refusals == 0
                assert {(type(reason), reason.errno) for reason in protocol.errors} == {(HostUnreachable, errno.EHOSTUNREACH)}
            await stop(port, peer)

        net.client.call(run, test)

    @bothFamilies
    def test_routersRouteComesBack(self, net: Network, run: Run, plan: Plan) -> None:
        """As above, for a network that the router has no route to at first."""

        async def test(reactor: Any) -> None:
            protocol = CuriousRecorder()
            port = connected(reactor, protocol, plan, plan.nowhere)
            port.write(b"anybody there?")
            await protocol.until(lambda: len(protocol.errors) == 1)
            assert (type(protocol.errors[0]), protocol.errors[0].errno) == (NetworkUnreachable, errno.ENETUNREACH)
            net.router.ip(f"route add {plan.nowhere} via {plan.server}")
            net.server.take(plan.nowhere, "lo")
            peer = listenOn(net.server, reactor, plan.wildcard, EchoServer())
            port.write(b"hello")
            await protocol.count(1)
            assert len(protocol.errors) == 1
            assert not port.dropped
            await stop(port, peer)

        net.client.call(run, test)

    @bothFamilies
    def test_ownRouteComesBack(self, net: Network, run: Run, plan: Plan) -> None:
        """When the machine itself loses its route, what is written then is counted, the protocol is notified from the reactor,
        and the port works when the route is back.
        """

        async def test(reactor: Any) -> None:
            protocol = CuriousRecorder()
            peer = listenOn(net.server, reactor, plan.server, EchoServer())
            port = connected(reactor, protocol, plan, plan.server)
            port.write(b"before")
            await protocol.count(1)
            net.client.ip(f"route delete {plan.site}")
            port.write(b"meanwhile")
            assert protocol.errors == []
            await protocol.until(lambda: len(protocol.errors) == 1)
            assert (type(protocol.errors[0]), protocol.errors[0].errno) == (NetworkUnreachable, errno.ENETUNREACH)
            assert port.dropped == {"send_failed": 1}
            net.client.ip(f"route add {plan.site} via {plan.near}")
            port.write(b"after")
            await protocol.count(2)
            assert [datagram for datagram, _ in protocol.datagrams] == [b"before", b"after"]
            assert len(protocol.errors) == 1
            await stop(port, peer)

        net.client.call(run, test)

    @bothFamilies
    def test_clientLivesOn(self, net: Network, run: Run, plan: Plan) -> None:
        """A client whose calls have failed because there was no host answers the next, when the host is there."""
        trouble = REPORTED[1]
        address = trouble.make(net, plan)

        async def test(reactor: Any) -> None:
            client = await connect(reactor, address, PORT, 10)
            for _ in range(2):
                with pytest.raises(HostUnreachable) as caught:
                    await client.echo(b"anybody there?")
                trouble.check(plan, address, caught.value)
            net.server.take(f"{address}/{plan.prefix}")
            peer = listenOn(net.server, reactor, address, EchoServer())
            assert await client.echo(b"hello") == 5
            await client.close()
            await stop(peer)

        net.client.call(run, test)


class SeveralAddressesTests:
    """A name with several addresses."""

    @needsIPv6
    @pytest.mark.parametrize("trouble", OWN, ids=lambda trouble: trouble.name)
    def test_nextOne(self, net: Network, runOnce: Run, trouble: Trouble) -> None:
        """Where connect(2) fails for the first address, the second is tried."""
        unreachable = trouble.make(net, IPV6)

        async def test(reactor: Any) -> None:
            reactor.installNameResolver(
                Resolver({"server.test": [IPv6Address("UDP", unreachable, 0), IPv4Address("UDP", IPV4.server, 0)]})
            )
            peer = listenOn(net.server, reactor, IPV4.server, EchoServer())
            assert await echo(reactor, "server.test", PORT, b"hello", 10) == 5
            client = await connect(reactor, "server.test", PORT, 10)
            assert (await client.exchange(b"hello")).peer == (IPV4.server, PORT)
            await client.close()
            await stop(peer)

        net.client.call(runOnce, test)

    @needsIPv6
    def test_noneIsLeft(self, net: Network, runOnce: Run) -> None:
        """Where it fails for all, the failure is the last one's."""

        async def test(reactor: Any) -> None:
            reactor.installNameResolver(
                Resolver({"server.test": [IPv6Address("UDP", IPV6.lost, 0), IPv4Address("UDP", IPV4.lost, 0)]})
            )
            reason = await failure(reactor, "server.test")
            assert type(reason) is NetworkUnreachable
            assert IPV4.lost in str(reason)

        net.client.call(runOnce, test)
