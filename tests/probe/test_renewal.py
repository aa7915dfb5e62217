"""Tests of probers between hosts whose addresses, routes and interfaces change."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import capturedLogs, formatEvent

from tests.support.hosts import PORT, bothFamilies, listenOn, needsIPv6, stop, until
from tests.support.namespaces import IPV4, IPV6, LINK_LOCAL_ROUTER, Network, Plan, network
from tests.support.processes import Processes, eventually
from tests.support.running import PATIENCE, Run, sleep
from tests.support.sums import checkSums
from tests.support.transports import Resolver
from udpecho.addresses import formatAddress
from udpecho.probe import schedule
from udpecho.probe.flow import Flow
from udpecho.probe.io.socket import SocketOptions
from udpecho.probe.outcomes import Event, Outcome
from udpecho.probe.prober import Backend, Prober
from udpecho.server.protocol import EchoServer

pytestmark = pytest.mark.namespaces


@pytest.fixture
def net() -> Iterator[Network]:
    """A network for one test."""
    with network() as made:
        yield made


class Probing:
    """Probes from the client of a network to an echo server.

    @ivar events: the events so far.
    """

    def __init__(self, net: Network, reactor: Any, address: str, target: str | None = None, **how: Any) -> None:
        self.reactor = reactor
        self.events: list[Event] = []
        self.server = (
            listenOn(net.router, reactor, "::", EchoServer())
            if "%" in address
            else listenOn(net.server, reactor, address, EchoServer())
        )
        self.prober = Prober(
            reactor,
            [target or formatAddress((address, PORT))],
            schedule.Plan(interval=0.05, timeout=0.5),
            listener=lambda flow, event: self.events.append(event),
            **how,
        )
        self.over = self.prober.start()

    @property
    def flow(self) -> Flow:
        return self.prober.flows[0]

    async def answered(self) -> Event:
        """Wait for the next probes to be answered.

        @return: the last of them.
        """
        before = self.count(Outcome.ANSWERED)
        await until(self.reactor, lambda: self.count(Outcome.ANSWERED) >= before + 3, "a target that answers again")
        return [event for event in self.events if event.outcome is Outcome.ANSWERED][-1]

    async def silent(self, outcome: Outcome, number: int = 25) -> None:
        """Wait for more probes to fail: the prober has looked for another way meanwhile, in vain."""
        before = self.count(outcome)
        await until(self.reactor, lambda: self.count(outcome) >= before + number, f"probes that are {outcome.value}")

    def count(self, outcome: Outcome) -> int:
        return self.flow.statistics.count(outcome)

    async def end(self) -> None:
        """Stop, and check that each probe has one outcome, and one number."""
        self.prober.stop()
        await self.over
        await stop(self.server)
        checkSums(self.flow.statistics)
        first = [event.sequence or 0 for event in self.events if event.outcome is Outcome.ANSWERED]
        assert first == sorted(set(first))


class RenewalTests:
    """L{Prober}, with what C{connect(2)} has chosen gone."""

    @bothFamilies
    @pytest.mark.parametrize("batches", [True, False], ids=["batches", "single datagrams"])
    def test_address(self, net: Network, runOnce: Run, plan: Plan, batches: bool) -> None:
        """A client with another address goes on from there: with the same numbers, and a line in the log."""
        other = plan.client + "7"

        async def test(reactor: Any) -> None:
            probing = Probing(net, reactor, plan.server, backend=Backend(batches=batches))
            former = await probing.answered()
            net.client.ip(f"address add {other}/{plan.prefix} dev eth0 {'nodad' if plan is IPV6 else ''}")
            with capturedLogs() as logged:
                net.client.ip(f"address delete {plan.client}/{plan.prefix} dev eth0")
                if plan is IPV4:
                    # The second address of a network goes with the first one.
                    net.client.ip(
                        f"address replace {other}/{plan.prefix} dev eth0", f"route replace {plan.site} via {plan.near}"
                    )
                event = await probing.answered()
            assert former.source is not None
            assert event.source == str(probing.flow.source)
            assert event.source.strip("[").startswith(other)
            assert probing.count(Outcome.NOT_SENT) + probing.count(Outcome.LOST) + probing.count(Outcome.OUTSTANDING)
            if batches:
                target = formatAddress((plan.server, PORT))
                text = f"probing {target} at {target} from {event.source}, was at {target} from {former.source}"
                assert [formatEvent(each) for each in logged if "was" in formatEvent(each)] == [text]
                assert probing.flow.timestampSource == "kernel"
            await probing.end()

        net.client.call(runOnce, test)

    @bothFamilies
    def test_route(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """When the route moves to another link, and nothing comes back to the address on the former one, the prober goes on
        from the address on the new link.
        """
        near, client = ("198.18.3.254", "198.18.3.1") if plan is IPV4 else ("fd00:3::fe", "fd00:3::1")
        net.client.ip(f"link add eth1 type veth peer name eth2 netns {net.router.name}", "link set eth1 addrgenmode none up")
        net.router.ip("link set eth2 addrgenmode none up")
        net.router.take(f"{near}/{plan.prefix}", "eth2")
        net.client.take(f"{client}/{plan.prefix}", "eth1")

        async def test(reactor: Any) -> None:
            probing = Probing(net, reactor, plan.server)
            await probing.answered()
            net.router.ip(f"route add blackhole {plan.client}")
            net.client.ip(f"route replace {plan.site} via {near} dev eth1")
            event = await probing.answered()
            assert event.source is not None
            assert event.source.strip("[").startswith(client)
            assert probing.count(Outcome.LOST) + probing.count(Outcome.OUTSTANDING)
            assert not probing.count(Outcome.NOT_SENT)
            await probing.end()

        net.client.call(runOnce, test)

    @bothFamilies
    def test_interfaceMadeAnew(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """An interface that is deleted, and made anew with another address."""
        other = plan.client + "7"

        async def test(reactor: Any) -> None:
            probing = Probing(net, reactor, plan.server)
            await probing.answered()
            net.client.ip("link delete eth0")
            await probing.silent(Outcome.NOT_SENT)
            remake(net)
            net.router.take(f"{plan.near}/{plan.prefix}", "eth0")
            net.client.take(f"{other}/{plan.prefix}")
            net.client.ip(f"route add {plan.site} via {plan.near}")
            event = await probing.answered()
            assert event.source is not None
            assert event.source.strip("[").startswith(other)
            await probing.end()

        net.client.call(runOnce, test)

    @needsIPv6
    def test_scope(self, net: Network, runOnce: Run) -> None:
        """A link-local target is reached by the interface of that name, which has another index when it is made anew."""

        async def test(reactor: Any) -> None:
            probing = Probing(net, reactor, f"{LINK_LOCAL_ROUTER}%eth0")
            await probing.answered()
            before = probing.flow.target.address.scopeID
            with capturedLogs() as logged:
                net.client.ip("link delete eth0")
                await probing.silent(Outcome.NOT_SENT)
                remake(net)
                net.router.ip(f"address add {LINK_LOCAL_ROUTER}/64 dev eth0 nodad")
                net.client.ip("address add fe80::1/64 dev eth0 nodad")
                await probing.answered()
            assert probing.flow.target.address.scopeID != before
            texts = [formatEvent(each) for each in logged]
            assert sum("this machine has no interface 'eth0'" in str(text) for text in texts) == 1
            await probing.end()

        net.client.call(runOnce, test)

    @needsIPv6
    def test_otherFamily(self, net: Network, runOnce: Run) -> None:
        """When one family has no route any more, a name that has addresses of both is probed by the other."""

        async def test(reactor: Any) -> None:
            kinds = {IPV6: IPv6Address, IPV4: IPv4Address}
            found = [kind("UDP", plan.server, PORT) for plan, kind in kinds.items()]
            reactor.installNameResolver(Resolver({"server": found}))
            other = listenOn(net.server, reactor, IPV4.server, EchoServer())
            probing = Probing(net, reactor, IPV6.server, target=f"server:{PORT}")
            await until(reactor, lambda: probing.prober.flows, "a name that is looked up")
            await probing.answered()
            net.client.ip(f"route delete {IPV6.site} via {IPV6.near}")
            event = await probing.answered()
            assert event.peer == f"{IPV4.server}:{PORT}"
            await stop(other)
            await probing.end()

        net.client.call(runOnce, test)

    @bothFamilies
    def test_linkDown(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """A link that is down for a while, with its routes gone."""

        async def test(reactor: Any) -> None:
            probing = Probing(net, reactor, plan.server)
            await probing.answered()
            net.client.ip("link set eth0 down")
            await probing.silent(Outcome.NOT_SENT)
            assert not probing.flow.isUp()
            net.client.ip("link set eth0 up")
            net.client.waitUntilReady()
            net.client.ip(f"route replace {plan.site} via {plan.near}")
            await probing.answered()
            assert probing.flow.isUp()
            await probing.end()

        net.client.call(runOnce, test)

    @bothFamilies
    def test_boundAddress(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """An address that the user has chosen is kept: the log says once that it is gone, and it is used when it is back."""
        options = SocketOptions((plan.client, 0))
        outcome = Outcome.NOT_SENT if plan is IPV4 else Outcome.LOST

        async def test(reactor: Any) -> None:
            probing = Probing(net, reactor, plan.server, options=options)
            await probing.answered()
            net.client.take(f"{plan.client}7/{plan.prefix}")
            with capturedLogs() as logged:
                net.client.ip(f"address delete {plan.client}/{plan.prefix} dev eth0")
                if plan is IPV4:
                    net.client.ip(f"address replace {plan.client}7/{plan.prefix} dev eth0")
                    net.client.ip(f"route replace {plan.site} via {plan.near}")
                await probing.silent(outcome, 60)
                reason = f"cannot send from {formatAddress((plan.client, 0))}: Cannot assign requested address"
                assert probing.flow.problem == reason
                net.client.take(f"{plan.client}/{plan.prefix}")
                event = await probing.answered()
            assert event.source is not None
            assert event.source.strip("[").startswith(plan.client + ("]" if plan is IPV6 else ":"))
            assert sum(reason in str(formatEvent(each)) for each in logged) == 1
            await until(reactor, lambda: probing.flow.problem is None, "a problem that is over")
            await probing.end()

        net.client.call(runOnce, test)

    def test_boundPort(self, net: Network, runOnce: Run) -> None:
        """A port that the user has chosen is kept, when the address is the system's choice, and so is what else was chosen."""
        plan = IPV4
        options = SocketOptions(("0.0.0.0", 5555), trafficClass=184, hopLimit=17)

        async def test(reactor: Any) -> None:
            probing = Probing(net, reactor, plan.server, options=options)
            await probing.answered()
            readdress(net)
            assert (await probing.answered()).source == f"{plan.client}7:5555"
            with socket.socket(fileno=os.dup(probing.flow.socket.fileno())) as sock:
                found = [sock.getsockopt(socket.IPPROTO_IP, option) for option in (socket.IP_TOS, socket.IP_TTL)]
            assert found == [184, 17]
            await probing.end()

        net.client.call(runOnce, test)

    @bothFamilies
    @pytest.mark.parametrize("verb", ["drop", "reject"])
    def test_silentTarget(self, net: Network, runOnce: Run, plan: Plan, verb: str) -> None:
        """A target that is silent, or out of reach, and could not be reached in another way, keeps socket and port."""

        async def test(reactor: Any) -> None:
            probing = Probing(net, reactor, plan.server)
            await probing.answered()
            before = probing.flow.socket
            net.router.giveUpSoon("eth1")
            await stop(probing.server)
            if verb == "reject":
                net.router.ip(f"route add unreachable {plan.server}")
            else:
                net.router.ip(f"route add blackhole {plan.server}")
            with capturedLogs() as logged:
                await sleep(reactor, 2.5)
                assert not probing.flow.isUp()
            assert not logged
            assert probing.flow.socket is before
            net.router.ip(f"route delete {plan.server}")
            probing.server = listenOn(net.server, reactor, plan.server, EchoServer())
            await probing.answered()
            assert probing.flow.socket is before
            await probing.end()

        net.client.call(runOnce, test)


class CommandTests:
    """What a user sees of it."""

    def test_ping(self, net: Network, processes: Processes) -> None:
        """C{udpecho ping} notifies on standard error; its lines and its summary go on."""
        plan = IPV4
        target = f"{plan.server}:{PORT}"
        net.server.call(processes.server, "--interface", plan.server, port=PORT)
        ping = net.client.call(processes.start, "udpecho", "ping", "-i", "100ms", "-W", "1s", target)
        ping.until(r"seq=\d+ time=")
        readdress(net)
        way = f"at {target} from {plan.client}"
        ping.until(f"^udpecho: probing {target} {way}7:\\d+, was {way}:\\d+$", "stderr")
        ping.until(r"(?s)not sent: .*seq=\d+ time=")
        ping.signal(signal.SIGINT)
        ping.finish()
        assert re.search(r"no reply: .*\d+ not sent", ping.stdout)
        assert ping.stderr.count("\n") == 1
        assert ping.status == 1

    def test_warning(self, net: Network, processes: Processes) -> None:
        """A warning of the prober is one line of C{udpecho ping}."""
        plan = IPV4
        target = f"{plan.server}:{PORT}"
        net.server.call(processes.server, "--interface", plan.server, port=PORT)
        ping = net.client.call(processes.start, "udpecho", "ping", "-i", "100ms", "-W", "1s", "-b", plan.client, target)
        ping.until(r"seq=\d+ time=")
        net.client.ip(f"address delete {plan.client}/{plan.prefix} dev eth0")
        ping.until(f"^udpecho: cannot open another socket to {target}: ", "stderr")
        ping.signal(signal.SIGINT)
        ping.finish()
        assert ping.stderr.count("\n") == 1

    def test_daemon(self, net: Network, processes: Processes) -> None:
        """C{twistd udpecho-probe} measures again, and its counters go on."""
        plan = IPV4
        target = f"{plan.server}:{PORT}"
        net.server.call(processes.server, "--interface", plan.server, port=PORT)
        net.client.ip("link set lo up")
        probe = net.client.call(
            processes.start,
            *("twistd", "-n", "--pidfile=", "udpecho-probe", "--target", target, "-i", "100ms"),
            *("--metrics", "tcp:9108:interface=127.0.0.1"),
        )
        probe.until("metrics on")

        def value(name: str) -> float:
            page = net.client.call(lambda: urlopen("http://127.0.0.1:9108/metrics", timeout=PATIENCE).read().decode())
            return next(float(line.split()[-1]) for line in page.splitlines() if line.startswith(f"udpecho_probe_{name} "))

        labels = f'source="0",target="{target}"'
        answered, up = f'outcomes_total{{outcome="answered",{labels}}}', f"up{{{labels}}}"
        eventually(lambda: value(up) == 1, "an answer")
        net.client.ip(f"address delete {plan.client}/{plan.prefix} dev eth0")
        eventually(lambda: value(up) == 0, "a target that is lost")
        before = value(answered)
        net.client.ip(f"address add {plan.client}7/{plan.prefix} dev eth0", f"route add {plan.site} via {plan.near}")
        eventually(lambda: value(up) == 1, "an answer again")
        after = value(answered)
        assert after > before
        assert value(f'outcomes_total{{outcome="not_sent",{labels}}}') > 0
        assert value(f"sent_total{{{labels}}}") >= after
        probe.stop()


def readdress(net: Network) -> None:
    """Give the client another address."""
    plan = IPV4
    net.client.ip(
        f"address delete {plan.client}/{plan.prefix} dev eth0",
        f"address add {plan.client}7/{plan.prefix} dev eth0",
        f"route add {plan.site} via {plan.near}",
    )


def remake(net: Network) -> None:
    """Make the link of client and router anew, with other indices."""
    net.client.ip(
        f"link add eth0 index 77 type veth peer name eth0 netns {net.router.name}", "link set eth0 addrgenmode none up"
    )
    net.router.ip("link set eth0 addrgenmode none up")
