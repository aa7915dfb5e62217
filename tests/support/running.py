"""Reactors of each kind, run and checked for leftovers; protocols that record; plain sockets."""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure
from zope.interface import implementer

from udpecho.errors import EchoError
from udpecho.interfaces import IDatagramAddressReceiver, IDropReceiver, INetworkErrorReceiver

_T = TypeVar("_T")

#: Reactors of each kind that the machine may have, by the name that C{twistd --reactor} knows them by.
REACTORS: dict[str, Callable[[], Any]] = {
    "select": SelectReactor,
    "asyncio": lambda: AsyncioSelectorReactor(asyncio.new_event_loop()),
}
if hasattr(select, "poll"):
    from twisted.internet.pollreactor import PollReactor

    REACTORS["poll"] = PollReactor
if hasattr(select, "epoll"):
    from twisted.internet.epollreactor import EPollReactor

    REACTORS["epoll"] = EPollReactor

#: The same, and uvloop, which C{twistd} has no name for.
ALL_REACTORS = dict(REACTORS)
with suppress(ImportError):
    import uvloop

    ALL_REACTORS["uvloop"] = lambda: AsyncioSelectorReactor(uvloop.new_event_loop())

#: Options of Python, and of pytest, that make an error of each warning; but Twisted's asyncio reactor asks for the current
#: event loop when there is none, of which Python 3.12 and 3.13 warn.
STRICT = ("-W", "error", "-W", "ignore:There is no current event loop:DeprecationWarning")

#: Seconds after which a test that waits for something has failed.
PATIENCE = 30


class Leftovers(AssertionError):
    """Something was left in the reactor, or a socket was left open."""


class Run:
    """One reactor of a kind, and what a test does with it.

    @ivar reactor: the reactor. It is not the installed one.
    """

    def __init__(self, name: str) -> None:
        self._sockets = openSockets()
        self.reactor = ALL_REACTORS[name]()
        self._own = 0

    def __call__(self, function: Callable[..., Coroutine[Any, Any, _T]], *arguments: Any) -> _T:
        """Run a coroutine function in the running reactor until it is over; may be called once.

        @param function: called with the reactor and C{arguments}.
        @return: what it returned.
        @raise Leftovers: if it left a reader, a writer, a delayed call or a socket.
        """
        reactor = self.reactor
        outcome: list[Any] = []

        def begin() -> None:
            # Some reactors open what they need themselves when they run.
            self._own = len(openSockets() - self._sockets)
            work: Deferred[Any] = Deferred.fromCoroutine(function(reactor, *arguments))
            patience = reactor.callLater(PATIENCE, work.cancel)

            def over(result: Any) -> None:
                outcome.append(result)
                if patience.active():
                    patience.cancel()
                if not isinstance(result, Failure):
                    outcome.append(leftovers(reactor, self._sockets, self._own))
                reactor.stop()

            work.addBoth(over)

        reactor.callWhenRunning(reactor.callLater, 0, begin)
        reactor.run(installSignalHandlers=False)
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        if outcome[1]:
            raise Leftovers("; ".join(outcome[1]))
        return outcome[0]  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close what the reactor itself holds."""
        for reader in list(self.reactor._internalReaders):
            self.reactor._internalReaders.remove(reader)
            self.reactor.removeReader(reader)
            reader.connectionLost(None)
        if hasattr(getattr(self.reactor, "_poller", None), "close"):
            self.reactor._poller.close()
        if isinstance(self.reactor, AsyncioSelectorReactor):
            self.reactor._asyncioEventloop.close()


def openSockets() -> set[str]:
    """The sockets that this process has open, by inode; none where the system has no C{/proc}."""
    found = set()
    if os.path.isdir("/proc/self/fd"):
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{descriptor}")
            except OSError:
                continue
            if target.startswith("socket:"):
                found.add(target)
    return found


def leftovers(reactor: Any, socketsBefore: set[str], own: int) -> list[str]:
    """What is left in a reactor that should be idle.

    @param socketsBefore: the sockets that were open before the reactor was made.
    @param own: how many the reactor has for itself.
    """
    left = [f"delayed call {call}" for call in reactor.getDelayedCalls()]
    left += [f"reader {reader}" for reader in reactor.getReaders() if reader not in reactor._internalReaders]
    left += [f"writer {writer}" for writer in reactor.getWriters()]
    sockets = len(openSockets() - socketsBefore) - own
    if sockets > 0:
        left.append(f"{sockets} open socket(s)")
    return left


class Recorder(DatagramProtocol):
    """Keeps the datagrams that come, and the refusals, and lets a test wait for them.

    @ivar datagrams: C{(datagram, address)} pairs.
    @ivar refusals: how often C{connectionRefused} was called.
    """

    noisy = False

    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, Any]] = []
        self.refusals = 0
        self._waiters: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.datagrams.append((datagram, addr))
        self.changed()

    def connectionRefused(self) -> None:
        self.refusals += 1
        self.changed()

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """@return: fires when, after a datagram or a refusal, C{condition} holds."""
        done: Deferred[None] = Deferred()
        self._waiters.append((condition, done))
        self.changed()
        return done

    def count(self, number: int) -> Deferred[None]:
        """@return: fires when so many datagrams have come."""
        return self.until(lambda: len(self.datagrams) >= number)

    def changed(self) -> None:
        """Fire what has waited for this."""
        for waiter in self._waiters[:]:
            condition, done = waiter
            if waiter in self._waiters and condition():
                self._waiters.remove(waiter)
                done.callback(None)


@implementer(IDatagramAddressReceiver)
class DetailedRecorder(Recorder):
    """A recorder that wants to know all that the port knows of a source."""


@implementer(INetworkErrorReceiver, IDropReceiver)
class CuriousRecorder(DetailedRecorder):
    """Records all that a port reports.

    @ivar errors: what C{networkError} was called with.
    @ivar drops: C{(reason, size)} pairs of what the transport dropped.
    @ivar stops: how often C{stopProtocol} was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[EchoError] = []
        self.drops: list[tuple[str, int]] = []
        self.stops = 0

    def networkError(self, reason: EchoError) -> None:
        self.errors.append(reason)
        self.changed()

    def datagramDropped(self, reason: str, size: int, address: tuple[str, int]) -> None:
        self.drops.append((reason, size))
        self.changed()

    def stopProtocol(self) -> None:
        self.stops += 1


def sleep(reactor: Any, seconds: float = 0) -> Deferred[None]:
    """Let the reactor run for some seconds."""
    done: Deferred[None] = Deferred()
    reactor.callLater(seconds, done.callback, None)
    return done


@contextmanager
def udpSocket(host: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    """A plain blocking socket, bound, that gives up after a while."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.bind((host, port))
        yield sock


def _reservedPorts() -> Iterator[int]:
    """Port numbers that the system gives to nobody who asks for any, ip(7); none where there are too few.

    Other tests run at the same time: a port from the system's range could be one of theirs a moment later.
    """
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return
    if lowest < 32768:
        return
    # Above those of services that the guard knows. Each process begins somewhere else.
    ports = range(28000, lowest)
    for number in itertools.count(os.getpid() * 97):
        yield ports[number % len(ports)]


_candidates = _reservedPorts()


def unusedPort(host: str = "127.0.0.1") -> int:
    """A port where nothing listens, of UDP or TCP."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = next(_candidates, 0)
        with (
            socket.socket(family, socket.SOCK_DGRAM) as udp,
            socket.socket(family, socket.SOCK_STREAM) as tcp,
            suppress(OSError),
        ):
            udp.bind((host, port))
            port = udp.getsockname()[1]
            tcp.bind((host, port))
            return int(port)


def hasIPv6() -> bool:
    """Whether C{::1} works here."""
    try:
        with udpSocket("::1"):
            return True
    except OSError:
        return False
