"""What happens in a year, and what each event breaks: to addresses, routes, interfaces, names and the clock."""

from __future__ import annotations

import random
import shutil
import socket
import threading
from collections.abc import Sequence

from tests.benchmarks.year.checks import Check, Checks
from tests.benchmarks.year.processes import Application, Probe, Process, Proxy, Server
from tests.benchmarks.year.world import FAMILIES, PORT, SERVER, Uplink, World, family
from tests.support.namespaces import run

#: What an event acts on.
CLIENT, SERVERS_HOST, NAMES, CLOCK, SERVER_PROCESSES, CLIENT_PROCESSES = (
    frozenset({what}) for what in ("client's host", "server's host", "names", "clock", "server's processes", "other processes")
)


class Stage:
    """What an event acts on.

    @ivar random: decides what can be one way or the other.
    """

    def __init__(self, world: World, server: Server, probe: Probe, proxy: Proxy, application: Application, seed: int) -> None:
        self.world = world
        self.server = server
        self.probe = probe
        self.proxy = proxy
        self.application = application
        self.random = random.Random(seed)
        self.checks = Checks(world, server, probe, proxy, application)

    @property
    def processes(self) -> Sequence[Process]:
        """All processes."""
        return self.server, self.probe, self.proxy, self.application


class Event:
    """Something that happens, and what it breaks until it is undone. Everything else must work meanwhile.

    @ivar name: what it is called.
    @ivar touches: what it acts on; two events that touch different things may happen at once.
    @ivar patience: the seconds in which everything must work when it is over.
    @ivar lasts: whether it lasts for a time; else it is over when it has happened.
    @ivar longest: the seconds that it may last at the most, after all is known that must be.
    @ivar cut: the server's addresses that the client cannot reach.
    @ivar ill: those of them that do not work at the server itself.
    @ivar stopped: the processes that do not work.
    """

    name: str
    touches: frozenset[str]
    patience = 10.0
    lasts = True
    longest = 2.0

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.world = stage.world
        self.random = stage.random
        self.cut: Sequence[str] = ()
        self.ill: Sequence[str] = ()
        self.stopped: frozenset[str] = frozenset()

    @classmethod
    def whyNot(cls) -> str | None:
        """@return: why it cannot happen on this machine."""
        return None

    def happen(self) -> None:
        """Make it happen, and know what it breaks."""
        raise NotImplementedError

    def meanwhile(self) -> None:
        """Called again and again until it is undone."""

    def proofs(self) -> Sequence[Check]:
        """What must come true before it is undone, in addition to what the pages must say."""
        return ()

    def undo(self) -> None:
        """End it, if it lasts."""

    def afterwards(self) -> Sequence[Check]:
        """What must come true after it was undone, in addition to all else."""
        return ()

    def __str__(self) -> str:
        return f"{self.name}{self.detail()}"

    def detail(self) -> str:
        """What one event has that others of its name have not, for people."""
        return ""

    def cuts(self, version: int | None = None) -> list[str]:
        """@return: the server's addresses, of one family or all."""
        return [address for address in SERVER if version in (None, family(address))]


class Two(Event):
    """Two events at once."""

    name = "two-at-once"

    def __init__(self, stage: Stage, first: Event, second: Event) -> None:
        super().__init__(stage)
        self.both = (first, second)
        # Of the two, for this one.
        self.lasts = first.lasts or second.lasts
        self.patience = max(first.patience, second.patience)
        self.longest = max(first.longest, second.longest)

    def __str__(self) -> str:
        return " + ".join(map(str, self.both))

    def happen(self) -> None:
        """See L{Event.happen}."""
        for event in self.both:
            event.happen()
            self.cut = [*self.cut, *event.cut]
            self.ill = [*self.ill, *event.ill]
            self.stopped |= event.stopped

    def meanwhile(self) -> None:
        """See L{Event.meanwhile}."""
        for event in self.both:
            event.meanwhile()

    def proofs(self) -> Sequence[Check]:
        """See L{Event.proofs}."""
        return [check for event in self.both for check in event.proofs()]

    def undo(self) -> None:
        """See L{Event.undo}."""
        for event in reversed(self.both):
            event.undo()

    def afterwards(self) -> Sequence[Check]:
        """See L{Event.afterwards}."""
        return [check for event in self.both for check in event.afterwards()]


class _OfFamily(Event):
    """Something that happens to one family."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.version = self.random.choice(FAMILIES)

    def detail(self) -> str:
        """See L{Event.detail}."""
        return f" (IPv{self.version})"


def _otherHost(chance: random.Random, link: Uplink, version: int) -> int:
    return chance.choice([host for host in range(1, 100) if host != link.hosts[version]])


class AddressChanges(_OfFamily):
    """The client has another address from now on."""

    name, lasts = "address-changes", False
    touches = CLIENT

    def happen(self) -> None:
        """See L{Event.happen}."""
        link = self.world.uplink
        link.drop(self.version)
        link.take(self.version, _otherHost(self.random, link, self.version))
        self.world.route()


class AddressGoes(_OfFamily):
    """The client has no address for a time, and perhaps another one then."""

    name = "address-goes"
    touches = CLIENT

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.world.uplink.drop(self.version)
        # By IPv6 the other uplink's address would do.
        self.world.unroute(self.version)
        self.cut = self.cuts(self.version)

    def undo(self) -> None:
        """See L{Event.undo}."""
        link = self.world.uplink
        same = self.random.random() < 0.5
        link.take(self.version, link.hosts[self.version] if same else _otherHost(self.random, link, self.version))
        self.world.route()


class RouteMoves(Event):
    """The client's default routes take the other uplink, and what is for the one before is lost."""

    name, lasts = "route-moves", False
    touches = CLIENT

    def happen(self) -> None:
        """See L{Event.happen}."""
        world = self.world
        before = world.uplink
        world.active = 1 - world.active
        world.discard(world.uplink, None)
        world.route()
        world.discard(before, "blackhole")


class LinkGoesDown(Event):
    """The client's interface is down for a time."""

    name = "link-down"
    touches = CLIENT

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.world.client.ip(f"link set {self.world.uplink.name} down")
        self.cut = self.cuts()

    def undo(self) -> None:
        """See L{Event.undo}."""
        self.world.client.ip(f"link set {self.world.uplink.name} up")
        self.world.client.waitUntilReady(self.world.uplink.name)
        self.world.route()


class InterfaceAnew(Event):
    """The client's interface goes, and another one of its name comes."""

    name = "interface-anew"
    touches = CLIENT

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.world.uplink.delete()
        self.cut = self.cuts()

    def undo(self) -> None:
        """See L{Event.undo}."""
        self.world.uplink.make()
        self.world.route()


class PathLost(Event):
    """A router does not deliver what is for the client, and says so or does not."""

    name = "path-lost"
    touches = CLIENT

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.kind = self.random.choice(["blackhole", "unreachable"])

    def detail(self) -> str:
        """See L{Event.detail}."""
        return f" ({self.kind})"

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.world.discard(self.world.uplink, self.kind)
        self.cut = self.cuts()

    def undo(self) -> None:
        """See L{Event.undo}."""
        self.world.discard(self.world.uplink, None)


class ServerAddressGoes(Event):
    """The server's host loses one of its addresses for a time."""

    name = "server-address-goes"
    touches = SERVERS_HOST

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.address = self.random.choice(SERVER)

    def detail(self) -> str:
        """See L{Event.detail}."""
        return f" ({self.address})"

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.world.drop(self.address)
        self.world.routeServer()
        self.cut = self.ill = [self.address]

    def undo(self) -> None:
        """See L{Event.undo}."""
        self.world.take(self.address)
        self.world.routeServer()


class NameMoves(ServerAddressGoes):
    """The server's name has another address from now on, and the one before works no more for a time."""

    name = "name-moves"
    touches = SERVERS_HOST | NAMES

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.address = self.world.names.last
        self.new = self.random.choice([address for address in SERVER if address != self.address])

    def detail(self) -> str:
        """See L{Event.detail}."""
        return f" ({self.address} to {self.new})"

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.world.names.set(self.new)
        super().happen()
        # The proxy keeps the address of a client that it has.
        self.stage.checks.oldClient.forget()


class NameFails(Event):
    """The server's name cannot be resolved for a time. All that are there keep its address."""

    name, longest = "name-fails", 10.0
    touches = NAMES

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.silent = self.random.random() < 0.5

    def detail(self) -> str:
        """See L{Event.detail}."""
        return " (after a long time)" if self.silent else " (at once)"

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.world.names.set(None, self.silent)

    def undo(self) -> None:
        """See L{Event.undo}."""
        self.world.names.set(self.world.names.last)


class ServerInterfaceAnew(Event):
    """The server's interface goes, and another one of its name comes."""

    name = "server-interface-anew"
    touches = SERVERS_HOST

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.world.server.ip("link delete eth0")
        self.cut = self.ill = self.cuts()

    def undo(self) -> None:
        """See L{Event.undo}."""
        self.world.makeServerLink()


class IPv6Goes(Event):
    """A host has no IPv6 for a time."""

    name = "ipv6-goes"
    touches = CLIENT | SERVERS_HOST

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.host = self.random.choice([self.world.client, self.world.server])

    def detail(self) -> str:
        """See L{Event.detail}."""
        return " (client)" if self.host is self.world.client else " (server)"

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.host.configure("net.ipv6.conf.all.disable_ipv6=1")
        self.cut = self.cuts(6)
        self.ill = self.cut if self.host is self.world.server else ()

    def undo(self) -> None:
        """See L{Event.undo}."""
        self.host.configure("net.ipv6.conf.all.disable_ipv6=0")
        if self.host is self.world.server:
            for address in self.cuts(6):
                self.world.take(address)
            self.world.routeServer()
            return
        for link in self.world.uplinks:
            link.take(6, link.hosts[6])
        self.world.route()


class Firewall(ServerAddressGoes):
    """The server's host drops what is for one of its addresses, while the guard drops somebody's datagrams at another."""

    name = "firewall"

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.other = self.random.choice([a for a in SERVER if a != self.address and family(a) == family(self.address)])
        self.over = threading.Event()

    @classmethod
    def whyNot(cls) -> str | None:
        """See L{Event.whyNot}."""
        return None if shutil.which("nft") else "nft is not installed"

    def happen(self) -> None:
        """See L{Event.happen}."""
        kind = "ip" if family(self.address) == 4 else "ip6"
        rules = (
            "table inet firewall {\n chain input {\n  type filter hook input priority -10\n"
            f"  {kind} daddr {self.address} udp dport {PORT} drop\n }}\n}}\n"
        )
        self.world.server.call(run, ["nft", "-f", "-"], rules)
        self.cut = self.ill = [self.address]
        version = socket.AF_INET if kind == "ip" else socket.AF_INET6
        noise = self.world.client.call(socket.socket, version, socket.SOCK_DGRAM)
        # Echo's own port: whoever sends from there might answer the reply.
        noise.bind(("", 7))

        def makeNoise() -> None:
            with noise:
                while not self.over.wait(0.1):
                    noise.sendto(b"noise", (self.other, PORT))

        self.noise = threading.Thread(target=makeNoise, daemon=True)
        self.noise.start()

    def undo(self) -> None:
        """See L{Event.undo}."""
        self.over.set()
        self.noise.join()
        self.world.server.call(run, ["nft", "delete", "table", "inet", "firewall"])


class ClockSet(Event):
    """The wall clock is set, by an hour at the most."""

    name, lasts = "clock-set", False
    touches = CLOCK

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.by = self.random.choice([-3600, 3600, self.random.randint(-3600, 3600)])

    def detail(self) -> str:
        """See L{Event.detail}."""
        return f" (by {self.by:+d} s)"

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.world.setClock(self.by)


EVENTS: tuple[type[Event], ...] = (
    AddressChanges,
    AddressGoes,
    RouteMoves,
    LinkGoesDown,
    InterfaceAnew,
    PathLost,
    ServerAddressGoes,
    NameMoves,
    NameFails,
    ServerInterfaceAnew,
    IPv6Goes,
    Firewall,
    ClockSet,
)
