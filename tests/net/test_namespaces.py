"""
Tests between real hosts, in network namespaces: what the network says of a datagram, a narrow path, a link without an answer,
several addresses, broadcast, a firewall, and an interface that goes down and comes back.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.protocol import DatagramProtocol

from tests.support.namespaces import (
    IPV4,
    IPV6,
    LINK_LOCAL_HOST,
    LINK_LOCAL_ROUTER,
    CommandFailed,
    Host,
    Network,
    Plan,
    hasIPv6,
    network,
    whyNot,
)
from tests.support.processes import Processes
from tests.support.running import PATIENCE, CuriousRecorder, Recorder, Run, sleep, udpSocket
from tests.support.transports import Resolver
from udpecho.addresses import formatAddress
from udpecho.client.connect import connect, echo
from udpecho.errors import EchoError, HostUnreachable, MessageTooLong, NetworkUnreachable, PortUnreachable, ResponseTimeout
from udpecho.net.open import listen
from udpecho.net.port import DatagramPort
from udpecho.server.protocol import EchoServer
from udpecho.server.service import EchoService

#: Where the servers listen.
PORT = 7777

#: What C{linux/in.h}, C{linux/in6.h} and C{asm-generic/socket.h} name, and Python does not.
SO_BINDTODEVICE = getattr(socket, "SO_BINDTODEVICE", 25)

needsIPv6 = pytest.mark.skipif(not hasIPv6(), reason="this machine has no IPv6")
bothFamilies = pytest.mark.parametrize("plan", [IPV4, pytest.param(IPV6, marks=needsIPv6)], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def possible() -> None:
    """Skip the test where namespaces cannot be had."""
    reason = whyNot()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def net(possible: None) -> Iterator[Network]:
    """A network for one test. It is there before the reactor is, and goes after it."""
    with network() as made:
        yield made


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes in a directory of the test's own, and leaves none."""
    with Processes(tmp_path) as started:
        yield started


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
    """
    Why a host cannot be reached.

    @ivar name: what it is.
    @ivar target: which address of the L{Plan} cannot be reached.
    @ivar reason: what a caller is told.
    @ivar errno: the system's error number for it.
    @ivar reasonIPv6: what a caller is told over IPv6, where that is something else.
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
        """
        Have it so.

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
        """Look at what a caller was told."""
        kind, number = self.reason, self.errno
        if plan is IPV6:
            kind, number = self.reasonIPv6 or kind, self.errnoIPv6 or number
        assert (type(reason), reason.errno) == (kind, number), reason
        assert str(reason) == f"{formatAddress((address, PORT))} cannot be reached: {os.strerror(number)}"


#: What the network says, some time after the datagram was sent.
TOLD = [
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
#: What the machine itself says, at connect(2).
OWN = [
    Trouble("no route", "lost", NetworkUnreachable, errno.ENETUNREACH),
    Trouble("an unreachable route", "nowhere", HostUnreachable, errno.EHOSTUNREACH, client="route add unreachable {address}"),
    Trouble("a prohibited route", "nowhere", HostUnreachable, errno.EACCES, client="route add prohibit {address}"),
    Trouble("a black hole", "nowhere", HostUnreachable, errno.EINVAL, client="route add blackhole {address}"),
    Trouble("a thrown route", "nowhere", NetworkUnreachable, errno.ENETUNREACH, client="route add throw {address}"),
]


class UnreachableTests:
    """L{echo} to where nobody is."""

    @bothFamilies
    @pytest.mark.parametrize("trouble", TOLD, ids=lambda trouble: trouble.name)
    def test_told(self, net: Network, run: Run, plan: Plan, trouble: Trouble) -> None:
        """What the network says ends the call at once, by its class and number, and nothing is left."""
        address = trouble.make(net, plan)

        async def test(reactor: Any) -> None:
            trouble.check(plan, address, await failure(reactor, address))

        net.client.call(run, test)

    @bothFamilies
    @pytest.mark.parametrize("trouble", OWN, ids=lambda trouble: trouble.name)
    def test_own(self, net: Network, runOnce: Run, plan: Plan, trouble: Trouble) -> None:
        """So does what the machine's own routing table says."""
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
        """Where the router has a black hole nobody says anything, and the deadline ends the call."""
        net.router.ip(f"route add blackhole {plan.nowhere}")

        async def test(reactor: Any) -> None:
            reason = await failure(reactor, plan.nowhere, 0.1)
            assert type(reason) is ResponseTimeout
            assert str(reason) == f"no reply from {formatAddress((plan.nowhere, PORT))} within 0.1 s"

        net.client.call(run, test)

    @bothFamilies
    def test_manyOnTheirWay(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """All that a client has on its way to a host that is not there fails for the one reason; each is told once."""
        trouble = TOLD[1]
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
        """A link-local address without a scope fails, with a sentence that says what is missing."""

        async def test(reactor: Any) -> None:
            with pytest.raises(Exception, match=r"interface|scope"):
                await echo(reactor, LINK_LOCAL_ROUTER, PORT, b"where?", 0.3)

        net.client.call(runOnce, test)

    def test_everyICMP(self, net: Network, runOnce: Run) -> None:
        """
        Each ICMP message about a datagram (RFC 792, RFC 1812 section 5.2.7) ends the call by its class and number, but the one
        that only says that a path is narrow.
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
        """
        The protocol is told of each of two failures, by C{connectionRefused} if it knows nothing better; the port lives, and
        works when the host is there.
        """
        address = TOLD[1].make(net, plan)

        async def test(reactor: Any) -> None:
            protocol = protocolClass()
            port = connected(reactor, protocol, plan, address)
            told = (lambda: len(protocol.errors)) if isinstance(protocol, CuriousRecorder) else (lambda: protocol.refusals)
            for times in (1, 2):
                port.write(b"anybody there?")
                await protocol.until(lambda: told() == times)  # noqa: B023
            net.server.take(f"{address}/{plan.prefix}")
            peer = listenOn(net.server, reactor, address, EchoServer())
            port.write(b"hello")
            await protocol.count(1)
            assert protocol.datagrams == [(b"hello", (address, PORT))]
            assert told() == 2
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
        """
        When the machine itself loses its route, what is written then is counted, the protocol is told from the reactor, and
        the port works when the route is back.
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
        """A client whose calls have failed for want of the host answers the next, when the host is there."""
        trouble = TOLD[1]
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


class NarrowPathTests:
    """A link on the way carries 1400 bytes, where the next link carries 1500."""

    limits = {IPV4: 1372, IPV6: 1352}

    @bothFamilies
    def test_firstAndSecond(self, net: Network, run: Run, plan: Plan) -> None:
        """
        The first datagram that is too long for the path fails by name, with how much the path carries, before the deadline;
        from then on the system knows, and sends in fragments.
        """
        net.router.ip("link set eth1 mtu 1400")
        net.server.ip("link set eth0 mtu 1400")

        async def test(reactor: Any) -> None:
            server = EchoServer()
            peer = listenOn(net.server, reactor, plan.server, server)
            reason = await failure(reactor, plan.server, payload=b"x" * 1450)
            assert isinstance(reason, MessageTooLong)
            assert (reason.errno, reason.limit) == (errno.EMSGSIZE, self.limits[plan])
            assert f"more than {reason.limit} bytes" in str(reason)
            assert server.counters.received == 0
            assert await echo(reactor, plan.server, PORT, b"x" * 1450, 10) == 1450
            await stop(peer)

        net.client.call(run, test)

    @bothFamilies
    def test_shorterOnesGetThrough(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """Of what one client has on its way, only what is too long for the path fails; the longest that fits is answered."""
        net.router.ip("link set eth1 mtu 1400")
        net.server.ip("link set eth0 mtu 1400")
        limit = self.limits[plan]

        async def test(reactor: Any) -> None:
            peer = listenOn(net.server, reactor, plan.server, EchoServer())
            client = await connect(reactor, plan.server, PORT, 10)
            fits = client.echo(b"x" * limit)
            long = client.echo(b"x" * (limit + 1))
            with pytest.raises(MessageTooLong):
                await long
            assert await fits == limit
            assert await client.echo(b"x" * (limit + 1)) == limit + 1
            await client.close()
            await stop(peer)

        net.client.call(runOnce, test)

    def test_wayBack(self, net: Network, runOnce: Run) -> None:
        """
        Over IPv4, where routers cut what is too long for the next link, a reply does not get lost because the way back is
        narrow: the server has nobody to tell.
        """
        net.router.ip("link set eth0 mtu 1400")
        net.client.ip("link set eth0 mtu 1400")

        async def test(reactor: Any) -> None:
            peer = listenOn(net.server, reactor, IPV4.wildcard, EchoServer())
            assert await echo(reactor, IPV4.server, PORT, b"x" * 1450, 1) == 1450
            await stop(peer)

        net.client.call(runOnce, test)

    @needsIPv6
    def test_wayBackIPv6(self, net: Network, runOnce: Run) -> None:
        """Over IPv6 the first reply may be lost, and the second is not."""
        net.router.ip("link set eth0 mtu 1400")
        net.client.ip("link set eth0 mtu 1400")

        async def test(reactor: Any) -> None:
            peer = listenOn(net.server, reactor, IPV6.wildcard, EchoServer())
            with suppress(ResponseTimeout):
                await echo(reactor, IPV6.server, PORT, b"x" * 1450, 0.3)
            assert await echo(reactor, IPV6.server, PORT, b"x" * 1450, 10) == 1450
            await stop(peer)

        net.client.call(runOnce, test)


class SendQueueTests:
    """A link where nobody answers: the system keeps a few datagrams for the neighbour, then the send queue is full."""

    def _stuck(self, net: Network, port: DatagramPort) -> None:
        net.client.neverGiveUp("eth0")
        port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)

    @bothFamilies
    def test_timeout(self, net: Network, run: Run, plan: Plan) -> None:
        """Nothing is raised; what does not get out in time is counted; reading pauses meanwhile and then goes on."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = listenOn(net.client, reactor, plan.client, protocol, writeTimeout=0.3)
            self._stuck(net, port)
            fates: list[str | None] = []
            for _ in range(20):
                port.send(b"stuck", (plan.nearNobody, 9), fates.append)
            assert not port.dropped
            assert port not in reactor.getReaders()
            assert port in reactor.getWriters()
            with socketOn(net.client, plan.client) as own:
                own.sendto(b"meanwhile", (plan.client, PORT))
            await sleep(reactor, 0.1)
            assert protocol.datagrams == []
            await protocol.count(1)
            assert set(port.dropped) == {"send_timeout"}
            assert 0 < port.dropped["send_timeout"] < 20
            assert fates.count("send_timeout") == port.dropped["send_timeout"]
            assert fates.count(None) == 20 - port.dropped["send_timeout"]
            assert port not in reactor.getWriters()
            await stop(port)

        net.client.call(run, test)

    @bothFamilies
    def test_timeoutOfWrite(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """The same holds of C{write}, which tells nobody but the port's own account."""

        async def test(reactor: Any) -> None:
            port = listenOn(net.client, reactor, plan.client, Recorder(), writeTimeout=0.1)
            self._stuck(net, port)
            for _ in range(20):
                port.write(b"stuck", (plan.nearNobody, 9))
            assert not port.dropped
            assert port not in reactor.getReaders()
            await until(reactor, lambda: port in reactor.getReaders(), "reading again")
            assert set(port.dropped) == {"send_timeout"}
            assert 0 < port.dropped["send_timeout"] < 20
            await stop(port)

        net.client.call(runOnce, test)

    @bothFamilies
    def test_neighbourAnswers(self, net: Network, run: Run, plan: Plan) -> None:
        """When the neighbour is found meanwhile, all that waits gets out, in order, and nothing is counted as dropped."""

        async def test(reactor: Any) -> None:
            port = listenOn(net.client, reactor, plan.client, Recorder())
            self._stuck(net, port)
            # A host that takes what is sent to it, and does not answer questions for its link address.
            net.router.take(plan.nearNobody, "lo")
            net.router.ip("link set eth0 arp off")
            fates: list[str | None] = []
            with socketOn(net.router, plan.nearNobody) as peer:
                for number in range(20):
                    port.send(b"%d" % number, peer.getsockname()[:2], fates.append)
                waiting = 20 - len(fates)
                assert waiting > 5
                assert received(peer) == []
                link = net.router.hardwareAddress("eth0")
                net.client.ip(f"neigh replace {plan.nearNobody} dev eth0 lladdr {link} nud permanent")
                await until(reactor, lambda: len(fates) == 20, "the fate of all")
                got: list[bytes] = []

                def all_() -> bool:
                    got.extend(received(peer))
                    return len(got) == 20

                await until(reactor, all_, "twenty datagrams")
            assert got == [b"%d" % number for number in range(20)]
            assert fates == [None] * 20
            assert not port.dropped
            assert port in reactor.getReaders()
            assert port not in reactor.getWriters()
            await stop(port)

        net.client.call(run, test)

    @bothFamilies
    @pytest.mark.parametrize("found", [False, True], ids=["lost", "found"])
    def test_counters(self, net: Network, run: Run, plan: Plan, found: bool) -> None:
        """
        The account of an echo server whose client does not answer for its link address adds up, whether the replies get out
        in the end or not.
        """

        async def test(reactor: Any) -> None:
            server = EchoServer()
            port = listenOn(net.client, reactor, plan.client, server, writeTimeout=5 if found else 0.05)
            self._stuck(net, port)
            net.router.take(plan.nearNobody, "lo")
            net.router.ip("link set eth0 arp off")
            link = net.client.hardwareAddress("eth0")
            net.router.ip(f"neigh replace {plan.client} dev eth0 lladdr {link} nud permanent")
            counters = server.counters
            with socketOn(net.router, plan.nearNobody) as peer:
                for number in range(12):
                    peer.sendto(b"%d" % number, (plan.client, PORT))
                await until(reactor, lambda: counters.waiting, "a reply that waits")
                assert 1 <= counters.waiting <= counters.received
                if found:
                    link = net.router.hardwareAddress("eth0")
                    net.client.ip(f"neigh replace {plan.nearNobody} dev eth0 lladdr {link} nud permanent")
                await until(reactor, lambda: counters.received == 12 and not counters.waiting, "the end of all")
                assert counters.received == counters.echoed + sum(counters.dropped.values())
                if found:
                    assert counters.echoed == 12
                    for number in range(12):
                        assert peer.recv(100) == b"%d" % number
                else:
                    assert set(counters.dropped) == {"send_timeout"}
            await stop(port)
            assert not counters.waiting

        net.client.call(run, test)

    @bothFamilies
    def test_hostGivenUpMeanwhile(self, net: Network, run: Run, plan: Plan) -> None:
        """
        When the system gives the neighbour up while datagrams wait, a connected port tells its protocol, lives, and accounts
        for each of them.
        """

        async def test(reactor: Any) -> None:
            protocol = CuriousRecorder()
            port = connected(reactor, protocol, plan, plan.nearNobody)
            self._stuck(net, port)
            net.client.giveUpSoon("eth0")
            fates: list[str | None] = []
            for number in range(20):
                port.send(b"%d" % number, None, fates.append)
            assert len(fates) < 20
            await until(reactor, lambda: len(fates) == 20, "the fate of all")
            await protocol.until(lambda: bool(protocol.errors))
            assert {(type(reason), reason.errno) for reason in protocol.errors} == {(HostUnreachable, errno.EHOSTUNREACH)}
            assert sum(port.dropped.values()) == 20 - fates.count(None)
            net.router.take(f"{plan.nearNobody}/{plan.prefix}")
            peer = listenOn(net.router, reactor, plan.nearNobody, EchoServer())

            def helloComesBack() -> bool:
                # Some may share the fate of what the system still keeps for the neighbour.
                port.write(b"hello")
                return b"hello" in [datagram for datagram, _ in protocol.datagrams]

            await until(reactor, helloComesBack, "an answer")
            await stop(port, peer)

        net.client.call(run, test)


class SourceAddressTests:
    """The reply leaves from the address that was asked: a connected client hears no other."""

    @bothFamilies
    @pytest.mark.parametrize("asked", ["server", "second"])
    def test_wildcard(self, net: Network, runOnce: Run, plan: Plan, asked: str) -> None:
        """A server on all addresses is asked at the first and at the second one of its interface."""

        async def test(reactor: Any) -> None:
            peer = listenOn(net.server, reactor, plan.wildcard, EchoServer())
            assert await echo(reactor, getattr(plan, asked), PORT, b"hello", 10) == 5
            await stop(peer)

        net.client.call(runOnce, test)

    @needsIPv6
    def test_bothFamiliesOnOneSocket(self, net: Network, runOnce: Run) -> None:
        """So is one on all addresses of both families."""

        async def test(reactor: Any) -> None:
            peer: Any = net.server.call(listen, reactor, PORT, EchoServer(), "::")
            for plan in (IPV4, IPV6):
                for address in (plan.server, plan.second):
                    assert await echo(reactor, address, PORT, b"hello", 10) == 5
            await stop(peer)

        net.client.call(runOnce, test)

    @bothFamilies
    def test_addressOfAnotherInterface(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """The router is asked at the address that it has on its other link."""

        async def test(reactor: Any) -> None:
            peer = listenOn(net.router, reactor, plan.wildcard, EchoServer())
            assert await echo(reactor, plan.far, PORT, b"hello", 10) == 5
            await stop(peer)

        net.client.call(runOnce, test)

    @bothFamilies
    def test_writtenLater(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """So does a reply that is written later, to the address object that came with the datagram."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            peer = listenOn(net.server, reactor, plan.wildcard, protocol)
            client = await connect(reactor, plan.second, PORT, 10)
            done = client.echo(b"hello")
            await protocol.count(1)
            datagram, address = protocol.datagrams[0]
            assert address.localHost == plan.second
            await sleep(reactor, 0.01)
            peer.write(datagram, address)
            assert await done == 5
            await client.close()
            await stop(peer)

        net.client.call(runOnce, test)


@needsIPv6
class LinkLocalTests:
    """Addresses that mean something on one link only."""

    @pytest.mark.parametrize("interface", ["::", f"{LINK_LOCAL_ROUTER}%eth0"], ids=["wildcard", "own"])
    def test_echo(self, net: Network, run: Run, interface: str) -> None:
        """
        A link-local peer is answered, by a server on all addresses and by one on that address, and the server knows its scope.
        """

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            peer = listenOn(net.router, reactor, interface, protocol)
            client = await connect(reactor, f"{LINK_LOCAL_ROUTER}%eth0", PORT, 10)
            done = client.exchange(b"hello")
            await protocol.count(1)
            datagram, address = protocol.datagrams[0]
            index = net.router.call(socket.if_nametoindex, "eth0")
            assert (address.host, address.scopeID, address.localHost) == (LINK_LOCAL_HOST, index, LINK_LOCAL_ROUTER)
            assert str(address) == f"[{LINK_LOCAL_HOST}%{index}]:{address.port}"
            peer.write(datagram, address)
            assert (await done).peer == (LINK_LOCAL_ROUTER, PORT)
            await client.close()
            await stop(peer)

        net.client.call(run, test)

    def test_sameAddressOnTwoLinks(self, net: Network, run: Run) -> None:
        """Two peers of one address and port, each on its own link, get each its own reply."""

        async def test(reactor: Any) -> None:
            server = EchoServer()
            peer = listenOn(net.router, reactor, "::", server)
            clients = [
                await host.call(
                    connect, reactor, f"{LINK_LOCAL_ROUTER}%eth0", PORT, 10, bindAddress=(f"{LINK_LOCAL_HOST}%eth0", 5000)
                )
                for host in (net.client, net.server)
            ]
            for payload in (b"both", b"both again"):
                assert await gatherResults([client.echo(payload) for client in clients]) == [len(payload)] * 2
            for number, client in enumerate(clients):
                assert await client.echo(b"one: %d" % number) == 6
            assert [client.ignored for client in clients] == [0, 0]
            assert (server.counters.received, server.counters.echoed) == (6, 6)
            for client in clients:
                await client.close()
            await stop(peer)

        net.client.call(run, test)

    def test_service(self, net: Network, runOnce: Run) -> None:
        """L{EchoService} serves a link-local address, and its C{addresses} have the scope."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, [f"{LINK_LOCAL_ROUTER}%eth0"])
            net.router.call(service.startService)
            (address,) = service.addresses
            assert (address.host, address.scopeID) == (LINK_LOCAL_ROUTER, net.router.call(socket.if_nametoindex, "eth0"))
            assert await echo(reactor, f"{LINK_LOCAL_ROUTER}%eth0", address.port, b"hello", 10) == 5
            await service.stopService()
            assert (service.counters.received, service.counters.echoed) == (1, 1)

        net.client.call(runOnce, test)

    def test_commands(self, net: Network, processes: Processes) -> None:
        """
        C{twistd udpecho} serves a link-local address, and C{udpecho send} gets its reply from there, also from an address of
        its own that is named.
        """
        server = net.router.call(processes.server, "--interface", f"{LINK_LOCAL_ROUTER}%eth0")
        ((host, port),) = server.addresses
        assert host.partition("%")[0] == LINK_LOCAL_ROUTER
        index = net.client.call(socket.if_nametoindex, "eth0")
        for scope in ("eth0", str(index)):
            peer = f"[{LINK_LOCAL_ROUTER}%{scope}]:{port}"
            for options in ([], ["--bind", f"{LINK_LOCAL_HOST}%eth0"]):
                sent = net.client.call(processes.run, "udpecho", "send", *options, peer, feed=b"hello")
                assert (sent.status, sent.stderr) == (0, "")
                lines = sent.stdout.splitlines()
                assert lines[0] == "packet-written: bytes=5"
                assert lines[1].startswith(f"packet-received: bytes=5 from=[{LINK_LOCAL_ROUTER}")
        assert server.stop()["echoed"] == 4

    def test_wrongScope(self, net: Network, processes: Processes) -> None:
        """An interface that there is not is told in one line."""
        sent = net.client.call(processes.run, "udpecho", "send", f"[{LINK_LOCAL_ROUTER}%eth9]:{PORT}", feed=b"hello")
        assert sent.status == 2
        assert sent.stderr == f"udpecho: this machine has no interface 'eth9' to reach {LINK_LOCAL_ROUTER} by\n"


class BroadcastTests:
    """What was sent to more hosts than one is not answered."""

    def _check(self, net: Network, runOnce: Run, interface: str, asked: str, datagrams: Callable[[socket.socket], int]) -> None:
        """
        @param interface: where the router listens.
        @param asked: its address, for a request that is answered.
        @param datagrams: sends from a client's socket what is not, and says how many.
        """

        async def test(reactor: Any) -> None:
            server = EchoServer()
            peer: Any = net.router.call(listen, reactor, PORT, server, interface)
            for group in ("224.0.0.251", "239.1.2.3"):
                if ":" not in interface:
                    membership = socket.inet_aton(group) + socket.inet_aton(IPV4.near)
                    peer.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            with socketOn(net.client, IPV6.client if ":" in asked else IPV4.client) as sock:
                sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth0")
                number = datagrams(sock)
                sock.sendto(b"to one", (asked, PORT))
                await until(reactor, lambda: server.counters.received == number + 1, "all requests")
                assert sock.recv(100) == b"to one"
                assert received(sock) == []
            assert server.counters.dropped == {"not_allowed": number}
            assert server.counters.echoed == 1
            await stop(peer)

        net.client.call(runOnce, test)

    @pytest.mark.parametrize("interface", ["0.0.0.0", pytest.param("::", marks=needsIPv6)])
    def test_broadcast(self, net: Network, runOnce: Run, interface: str) -> None:
        """Requests to the link's broadcast address and to all ones are counted as C{not_allowed}; the next one is answered."""

        def datagrams(sock: socket.socket) -> int:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            for address in ("198.18.1.255", "255.255.255.255"):
                sock.sendto(b"to all", (address, PORT))
            return 2

        net.client.ip(f"address change {IPV4.client}/24 broadcast + dev eth0")
        net.router.ip(f"address change {IPV4.near}/24 broadcast + dev eth0")
        self._check(net, runOnce, interface, IPV4.near, datagrams)

    def test_multicast(self, net: Network, runOnce: Run) -> None:
        """So are requests to a group that the host is in: all hosts, and two that the port has joined."""

        def datagrams(sock: socket.socket) -> int:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(IPV4.client))
            for group in ("224.0.0.1", "224.0.0.251", "239.1.2.3"):
                sock.sendto(b"to many", (group, PORT))
            return 3

        self._check(net, runOnce, "0.0.0.0", IPV4.near, datagrams)

    @needsIPv6
    def test_multicastIPv6(self, net: Network, runOnce: Run) -> None:
        """So are requests to all nodes and all routers of a link."""

        def datagrams(sock: socket.socket) -> int:
            index = socket.if_nametoindex("eth0")
            for group in ("ff02::1", "ff02::2"):
                sock.sendto(b"to many", (group, PORT, 0, index))
            return 2

        self._check(net, runOnce, "::", IPV6.near, datagrams)


class FirewallTests:
    """The machine's own firewall refuses what is sent."""

    @staticmethod
    def forbid(host: Host, port: int, verb: str) -> None:
        try:
            host.forbid(port, verb)
        except CommandFailed as e:
            pytest.skip(str(e))

    @bothFamilies
    @pytest.mark.parametrize("verb", ["drop", "reject"])
    def test_server(self, net: Network, run: Run, plan: Plan, verb: str) -> None:
        """
        A reply that the server's firewall refuses costs that one datagram, counted as C{send_failed}; the next client is
        answered.
        """

        async def test(reactor: Any) -> None:
            server = EchoServer()
            peer = listenOn(net.server, reactor, plan.wildcard, server)
            with socketOn(net.client, plan.client) as forbidden, socketOn(net.client, plan.client) as allowed:
                self.forbid(net.server, forbidden.getsockname()[1], verb)
                for number, sock in enumerate([forbidden, allowed, forbidden, allowed], 1):
                    sock.sendto(b"hello", (plan.server, PORT))
                    await until(reactor, lambda: server.counters.received == number, "a request")  # noqa: B023
                for _ in range(2):
                    assert allowed.recv(100) == b"hello"
                assert received(forbidden) == []
            assert server.counters.dropped == {"send_failed": 2}
            assert server.counters.echoed == 2
            assert peer.dropped == {"send_failed": 2}
            await stop(peer)

        net.client.call(run, test)

    @bothFamilies
    def test_clientDropped(self, net: Network, run: Run, plan: Plan) -> None:
        """A client whose own firewall drops what it sends is told so at once, since the system says it."""
        self.forbid(net.client, PORT, "drop")

        async def test(reactor: Any) -> None:
            reason = await failure(reactor, plan.server, 1)
            assert (type(reason), reason.errno) == (HostUnreachable, errno.EPERM)

        net.client.call(run, test)

    @bothFamilies
    def test_clientRejected(self, net: Network, run: Run, plan: Plan) -> None:
        """A firewall that also sends itself an ICMP message for each refusal does not keep the reactor busy."""
        self.forbid(net.client, PORT, "reject")

        async def test(reactor: Any) -> None:
            with patience(5):
                reason = await failure(reactor, plan.server, 1)
            assert isinstance(reason, (HostUnreachable, PortUnreachable))

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


class InterfaceDownTests:
    """The server's interface goes down in mid-flight, and comes back."""

    @bothFamilies
    @pytest.mark.parametrize("interface", ["wildcard", "near"])
    def test_replyRefused(self, net: Network, run: Run, plan: Plan, interface: str) -> None:
        """
        A request that was read too late for its reply to get out costs that one reply; when the interface is back the server
        goes on.
        """

        async def test(reactor: Any) -> None:
            server = EchoServer()
            peer = listenOn(net.router, reactor, getattr(plan, interface), server)
            with socketOn(net.client, plan.client) as sock:
                sock.sendto(b"before", (plan.near, PORT))
                await until(reactor, lambda: server.counters.echoed == 1, "the first reply")
                peer.stopReading()
                sock.sendto(b"in mid-flight", (plan.near, PORT))
                waitFor(peer)
                net.router.ip("link set eth0 down")
                peer.startReading()
                await until(reactor, lambda: server.counters.received == 2, "the second request")
                assert server.counters.dropped == {"send_failed": 1}
                net.router.ip("link set eth0 up")
                net.router.waitUntilReady()
                net.client.waitUntilReady()
                sock.sendto(b"after", (plan.near, PORT))
                assert sock.recv(100) == b"before"
                await until(reactor, lambda: server.counters.echoed == 2, "the third reply")
                assert sock.recv(100) == b"after"
            await stop(peer)

        net.client.call(run, test)

    @bothFamilies
    def test_clientLivesOn(self, net: Network, run: Run, plan: Plan) -> None:
        """
        A call that is made while the client's own interface is down fails for that reason; the same client is answered when it
        is back.
        """

        async def test(reactor: Any) -> None:
            peer = listenOn(net.router, reactor, plan.wildcard, EchoServer())
            client = await connect(reactor, plan.near, PORT, 10)
            assert await client.echo(b"before") == 6
            net.client.ip("link set eth0 down")
            with pytest.raises(NetworkUnreachable):
                await client.echo(b"meanwhile")
            net.client.ip("link set eth0 up")
            net.client.waitUntilReady()
            net.router.waitUntilReady()
            assert await client.echo(b"after") == 5
            await client.close()
            await stop(peer)

        net.client.call(run, test)

    @bothFamilies
    def test_addressGoes(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """A server on an address that is taken away and given back answers there again."""

        async def test(reactor: Any) -> None:
            server = EchoServer()
            peer = listenOn(net.server, reactor, plan.second, server)
            assert await echo(reactor, plan.second, PORT, b"before", 10) == 6
            net.server.ip(f"address delete {plan.second}/{plan.prefix} dev eth0")
            net.server.take(f"{plan.second}/{plan.prefix}")
            assert await echo(reactor, plan.second, PORT, b"after", 10) == 5
            assert (server.counters.received, server.counters.echoed) == (2, 2)
            await stop(peer)

        net.client.call(runOnce, test)
