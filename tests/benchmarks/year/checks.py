"""What must work: each check says what does not, and which addresses and processes it depends on."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from tests.benchmarks.chaos import Page
from tests.benchmarks.year.processes import (
    PROXY_PORT,
    TARGETS,
    WORKERS,
    Application,
    Daemon,
    Probe,
    Process,
    Proxy,
    Server,
)
from tests.benchmarks.year.world import NAME, PORT, SERVER, Names, World, family
from tests.support.namespaces import Host

#: Seconds to wait for a reply.
_replyTimeout = 0.5
#: Seconds that a client of the application may be late with a deadline of one second.
_mostLate = 3.0
#: How often in turn a page must say what does not work.
_times = 3


@dataclass(frozen=True)
class Needs:
    """What a check depends on.

    @ivar processes: their names; C{worker} is the server's workers, C{server} their parent.
    @ivar remote: returns the addresses that the client's host must reach.
    @ivar local: the addresses that must work at the server itself.
    """

    processes: frozenset[str]
    remote: Callable[[], frozenset[str]] = frozenset
    local: frozenset[str] = frozenset()


@dataclass
class Check:
    """Something that must work.

    @ivar begin: called before it is asked for the first time, to know what there was before.
    @ivar fault: returns what is wrong, or C{None} if it works.
    @ivar culprit: the process that it is about.
    @ivar times: how often in turn it must work.
    """

    name: str
    needs: Needs
    culprit: Process
    fault: Callable[[], str | None]
    begin: Callable[[], None] = lambda: None
    times: int = 1

    def look(self) -> str | None:
        """@return: what is wrong; that there is no answer is, too."""
        try:
            return self.fault()
        except OSError as e:
            return str(e) or type(e).__name__

    def isAffected(self, cut: Sequence[str], ill: Sequence[str], stopped: frozenset[str]) -> bool:
        """Whether it need not work while these do not: see L{Truths.of}."""
        needs = self.needs
        return bool(needs.processes & stopped or needs.remote().intersection(cut) or needs.local.intersection(ill))


@dataclass
class Asker:
    """A client of the rehearsal's own, at the client's host.

    @ivar sent: how many datagrams it has sent.
    @ivar received: how many replies it has received.
    """

    host: Host
    sent: int = 0
    received: int = 0
    _socket: socket.socket | None = field(default=None, repr=False)

    def forget(self) -> None:
        """Use another source port from now on."""
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def send(self, address: str, port: int) -> tuple[socket.socket, bytes]:
        """Send a datagram.

        @return: where the reply will come, and what it will be.
        """
        if self._socket is None:
            version = socket.AF_INET if family(address) == 4 else socket.AF_INET6
            self._socket = self.host.call(socket.socket, version, socket.SOCK_DGRAM)
        payload = os.urandom(16)
        self._socket.sendto(payload, (address, port))
        self.sent += 1
        return self._socket, payload

    def ask(self, address: str, port: int) -> str | None:
        """Send a datagram, and wait for the reply.

        @return: what is wrong.
        """
        sock, payload = self.send(address, port)
        deadline = time.monotonic() + _replyTimeout
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            with suppress(TimeoutError):
                reply = sock.recv(65536)
                self.received += 1
                # Others are late replies to those before.
                if reply == payload:
                    return None
        return "no reply"


class Checks:
    """All checks.

    @ivar direct: the client that asks the server; each time by another port.
    @ivar newClient: that which asks the proxy, each time by another port.
    @ivar oldClient: that which asks it always by the same one.
    """

    def __init__(self, world: World, server: Server, probe: Probe, proxy: Proxy, application: Application) -> None:
        self.direct, self.newClient, self.oldClient = (Asker(world.client) for _ in range(3))
        self._world = world
        self._server = server
        self._probe = probe
        self._proxy = proxy
        self._application = application
        self._before: dict[str, float] = {}
        self.all = [*self._echoes(), *self._ofProbe(), *self._ofApplication(), *self._ofServer()]

    def remote(self, target: str) -> frozenset[str]:
        """@return: the addresses that must work for a target to be served."""
        host = _host(target)
        return self._world.names.needed if host == NAME else frozenset({host})

    def _echoes(self) -> Iterator[Check]:
        for address in SERVER:
            needs = Needs(frozenset({"worker"}), partial(frozenset, {address}))
            yield Check(f"server at {address}", needs, self._server, partial(self._askServer, address))
        needs = Needs(frozenset({"worker", "proxy"}), partial(self.remote, f"{NAME}:{PORT}"))
        yield Check("proxy, new client", needs, self._proxy, partial(self._askProxy, self.newClient, new=True))
        yield Check("proxy, old client", needs, self._proxy, partial(self._askProxy, self.oldClient))

    def _askServer(self, address: str) -> str | None:
        self.direct.forget()
        return self.direct.ask(address, PORT)

    def _askProxy(self, client: Asker, new: bool = False) -> str | None:
        if new:
            client.forget()
        return client.ask("127.0.0.1", PROXY_PORT)

    def _ofProbe(self) -> Iterator[Check]:
        for target in TARGETS:
            needs = Needs(frozenset({"worker", "probe"}), partial(self.remote, target))
            yield self._progress(f"probe of {target}", needs, self._probe, partial(self._probed, target))
        yield Check("probe's health", Needs(frozenset({"probe"})), self._probe, self._probeHealth)
        yield self._fed(self._probe, Needs(frozenset({"probe"})))

    def _probed(self, target: str) -> tuple[float, str | None]:
        page = self._probe.metrics()
        up = isUp(page, target)
        return answered(page, target), None if up else f"udpecho_probe_up is {up:g}"

    def _probeHealth(self) -> str | None:
        status, text = self._probe.get("/-/healthy")
        return None if status == 200 else f"{status}: {text.strip()}"

    def _ofApplication(self) -> Iterator[Check]:
        for target in TARGETS:
            needs = Needs(frozenset({"worker", "application"}), partial(self.remote, target))
            name = f"application's client of {target}"
            yield self._progress(name, needs, self._application, partial(self._asked, target))

    def _asked(self, target: str) -> tuple[float, str | None]:
        sums = self._application.sums()[target]
        outcomes = sums["outcomes"]
        oldest = f"one has waited for {sums['oldest']:.1f} s" if sums["oldest"] > _mostLate else None
        return outcomes.get("answered", 0), oldest

    def _progress(self, name: str, needs: Needs, culprit: Process, look: Callable[[], tuple[float, str | None]]) -> Check:
        """A check that a number grows."""

        def begin() -> None:
            self._before.pop(name, None)

        def fault() -> str | None:
            number, wrong = look()
            before = self._before.setdefault(name, number)
            return wrong or (f"there were {number:g}, and no more come" if number <= before else None)

        return Check(name, needs, culprit, fault, begin)

    def _ofServer(self) -> Iterator[Check]:
        server = self._server
        processes = frozenset({"worker", "server"})
        for address in SERVER:
            needs = Needs(processes, local=frozenset({address}))
            yield Check(f"health of {address}", needs, server, partial(self._health, address))
        everywhere = frozenset(SERVER)
        yield Check("health", Needs(processes, local=everywhere), server, partial(self._page, "/-/healthy"))
        yield Check("readiness", Needs(processes, local=everywhere), server, partial(self._page, "/-/ready"))
        yield Check("workers", Needs(processes), server, self._workers)
        yield self._fed(server, Needs(processes, local=everywhere))

    def _health(self, address: str) -> str | None:
        reason = self._server.health()[1].get(address, "is not on the page")
        return None if reason.startswith("ok") else reason

    def _page(self, path: str) -> str | None:
        status, text = self._server.get(path)
        return None if status == 200 else f"{status}: {' '.join(text.split())}"

    def _workers(self) -> str | None:
        number = self._server.metrics().workers
        return None if number == WORKERS else f"{number} of {WORKERS} answer"

    def _fed(self, daemon: Daemon, needs: Needs) -> Check:
        return self._progress(f"watchdog of the {daemon.name}", needs, daemon, lambda: (daemon.readKeepAlives(), None))


def _host(target: str) -> str:
    return target.rpartition(":")[0].strip("[]")


def isUp(page: Page, target: str) -> float:
    """@return: C{udpecho_probe_up} of a target."""
    return page.get(f'udpecho_probe_up{{source="0",target="{target}"}}', 0.0)


def answered(page: Page, target: str) -> float:
    """@return: how many probes of a target were answered."""
    return page.get(f'udpecho_probe_outcomes_total{{outcome="answered",source="0",target="{target}"}}', 0.0)


class Truths:
    """What the pages must say while something does not work."""

    def __init__(self, names: Names, server: Server, probe: Probe) -> None:
        self._names = names
        self._server = server
        self._probe = probe

    def of(self, cut: Sequence[str], ill: Sequence[str], stopped: frozenset[str]) -> list[Check]:
        """@param cut: the addresses that the client does not reach.
        @param ill: those that do not work at the server itself.
        @param stopped: the processes that do not work.
        """
        found = []
        nothing = Needs(frozenset())
        if not stopped & {"server", "worker"}:
            for address in ill:
                name = f"health knows that {address} does not answer"
                found.append(Check(name, nothing, self._server, partial(self._isIll, address), times=_times))
        if "probe" not in stopped:
            for target in TARGETS:
                host = _host(target)
                if (self._names.possible if host == NAME else {host}).issubset(cut):
                    name = f"probe knows that {target} does not answer"
                    found.append(Check(name, nothing, self._probe, partial(self._isDown, target), times=_times))
        return found

    def _isIll(self, address: str) -> str | None:
        status, reasons = self._server.health()
        wrong = status != 503 or reasons.get(address, "ok").startswith("ok")
        return f"status {status}: {reasons.get(address)}" if wrong else None

    def _isDown(self, target: str) -> str | None:
        up = isUp(self._probe.metrics(), target)
        return f"udpecho_probe_up is {up:g}" if up else None
