"""Tests between hosts: a narrow path, a full send queue, a firewall, an interface that goes down."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import Any

import pytest

from tests.support.hosts import (
    PORT,
    bothFamilies,
    connected,
    failure,
    listenOn,
    needsIPv6,
    patience,
    received,
    socketOn,
    stop,
    until,
    waitFor,
)
from tests.support.namespaces import (
    IPV4,
    IPV6,
    CommandFailed,
    Host,
    Network,
    Plan,
)
from tests.support.running import CuriousRecorder, Recorder, Run, sleep
from udpecho.client.connect import connect, echo
from udpecho.errors import HostUnreachable, MessageTooLong, NetworkUnreachable, PortUnreachable, ResponseTimeout
from udpecho.net.port import DatagramPort
from udpecho.server.protocol import EchoServer

pytestmark = pytest.mark.namespaces


class NarrowPathTests:
    """A link on the way carries 1400 bytes, where the next link carries 1500."""

    limits = {IPV4: 1372, IPV6: 1352}

    @bothFamilies
    def test_firstAndSecond(self, net: Network, run: Run, plan: Plan) -> None:
        """The first datagram that is too long for the path fails by name, with how much the path carries, before the deadline;
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
        """Over IPv4, where routers fragment what is too long for the next link, a reply does not get lost because the way back
        is narrow: the server can notify nobody.
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
            port = listenOn(net.client, reactor, plan.client, protocol, writeTimeout=1)
            self._stuck(net, port)
            outcomes: list[str | None] = []
            for _ in range(20):
                port.send(b"stuck", (plan.nearNobody, 9), outcomes.append)
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
            assert outcomes.count("send_timeout") == port.dropped["send_timeout"]
            assert outcomes.count(None) == 20 - port.dropped["send_timeout"]
            assert port not in reactor.getWriters()
            await stop(port)

        net.client.call(run, test)

    @bothFamilies
    def test_timeoutOfWrite(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """The same holds of C{write}, which is counted by the port only."""

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
            outcomes: list[str | None] = []
            with socketOn(net.router, plan.nearNobody) as peer:
                for number in range(20):
                    port.send(b"%d" % number, peer.getsockname()[:2], outcomes.append)
                waiting = 20 - len(outcomes)
                assert waiting > 5
                assert received(peer) == []
                link = net.router.hardwareAddress("eth0")
                net.client.ip(f"neigh replace {plan.nearNobody} dev eth0 lladdr {link} nud permanent")
                await until(reactor, lambda: len(outcomes) == 20, "the outcome of all")
                got: list[bytes] = []

                def all_() -> bool:
                    got.extend(received(peer))
                    return len(got) == 20

                await until(reactor, all_, "twenty datagrams")
            assert got == [b"%d" % number for number in range(20)]
            assert outcomes == [None] * 20
            assert not port.dropped
            assert port in reactor.getReaders()
            assert port not in reactor.getWriters()
            await stop(port)

        net.client.call(run, test)

    @bothFamilies
    @pytest.mark.parametrize("found", [False, True], ids=["lost", "found"])
    def test_counters(self, net: Network, run: Run, plan: Plan, found: bool) -> None:
        """The account of an echo server whose client does not answer for its link address adds up, whether the replies get out
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
        """When the system gives the neighbour up while datagrams wait, a connected port notifies its protocol, lives, and
        accounts for each of them.
        """

        async def test(reactor: Any) -> None:
            protocol = CuriousRecorder()
            port = connected(reactor, protocol, plan, plan.nearNobody)
            self._stuck(net, port)
            outcomes: list[str | None] = []
            for number in range(20):
                port.send(b"%d" % number, None, outcomes.append)
            assert len(outcomes) < 20
            # Only now: on a busy machine the neighbour could be given up before all are sent.
            net.client.giveUpSoon("eth0")
            await until(reactor, lambda: len(outcomes) == 20, "the outcome of all")
            # All were refused as soon as the neighbour was given up, and none waited for its deadline.
            assert "send_timeout" not in outcomes
            await protocol.until(lambda: bool(protocol.errors))
            assert {(type(reason), reason.errno) for reason in protocol.errors} == {(HostUnreachable, errno.EHOSTUNREACH)}
            assert sum(port.dropped.values()) == 20 - outcomes.count(None)
            net.router.take(f"{plan.nearNobody}/{plan.prefix}")
            peer = listenOn(net.router, reactor, plan.nearNobody, EchoServer())

            def helloComesBack() -> bool:
                # Some may share the outcome of what the system still keeps for the neighbour.
                port.write(b"hello")
                return b"hello" in [datagram for datagram, _ in protocol.datagrams]

            await until(reactor, helloComesBack, "an answer")
            await stop(port, peer)

        net.client.call(run, test)


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
        """A reply that the server's firewall refuses costs that one datagram, counted as C{send_failed}; the next client is
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
        """A client whose own firewall drops what it sends is notified at once, since the system reports it."""
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


class InterfaceDownTests:
    """The server's interface goes down in mid-flight, and comes back."""

    @bothFamilies
    @pytest.mark.parametrize("interface", ["wildcard", "near"])
    def test_replyRefused(self, net: Network, run: Run, plan: Plan, interface: str) -> None:
        """A request that was read too late for its reply to get out costs that one reply; when the interface is back the server
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

                def answered() -> bool:
                    # Until the neighbours have found each other again a datagram may be lost.
                    sock.sendto(b"after", (plan.near, PORT))
                    return server.counters.echoed > 1

                assert sock.recv(100) == b"before"
                await until(reactor, answered, "the third reply")
                assert sock.recv(100) == b"after"
            await stop(peer)

        net.client.call(run, test)

    @bothFamilies
    def test_clientLivesOn(self, net: Network, run: Run, plan: Plan) -> None:
        """A call that is made while the client's own interface is down fails for that reason; the same client is answered when
        it is back.
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
