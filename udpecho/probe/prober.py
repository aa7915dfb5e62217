"""The prober: flows to targets, driven by a reactor."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from twisted.internet import defer
from twisted.internet.interfaces import IReactorFDSet
from twisted.logger import Logger
from twisted.python.failure import Failure

from udpecho.probe.flow import Flow, Listener
from udpecho.probe.io.open import openSocket
from udpecho.probe.io.socket import SocketOptions
from udpecho.probe.io.timer import DelayedTurns, Watch, openWatch
from udpecho.probe.io.timestamps import Clocks, StepWatch
from udpecho.probe.outcomes import Event
from udpecho.probe.records import document
from udpecho.probe.schedule import Plan
from udpecho.probe.target import Target

#: How many batches of replies one turn reads from a socket, so that the reactor's other work has its turn.
_readsPerTurn = 8
_second = 1_000_000_000

_log = Logger()


class Prober:
    """
    Probes one or several targets, each from one or several ports.

    Each pair of a target and a port is a L{Flow}, with its own schedule and L{Statistics
    <udpecho.probe.stats.summary.Statistics>}, which may be read at any time. The schedules of the flows are shifted against
    each other, so that their probes leave one after the other and not all at once.

    A probe leaves at its time, whatever has come back by then. If this process is late, the probe leaves late, and its event
    has the deviation; a probe that would leave more than a second late is not sent.

     @ivar flows: those that could be opened, by target and then by port; after L{start}.
     @ivar failures: why other targets could not, as pairs; after L{start}.
     @ivar clocks: what tells the time.
     @ivar startedAt: when the first probe was to leave, in ns of the monotonic clock; after L{start}.
    """

    def __init__(
        self,
        reactor: Any,
        targets: Sequence[Target],
        plan: Plan | None = None,
        *,
        sources: int = 1,
        options: SocketOptions | None = None,
        listener: Listener | None = None,
        clocks: Clocks | None = None,
        batches: bool = True,
        stamps: bool = True,
    ) -> None:
        """
        @param reactor: any reactor, of L{udpecho.testing.memory_network} too.
        @param targets: whom to probe.
        @param plan: what to send, and when; by default 64 bytes a second.
        @param sources: from how many ports to probe each target: routers that share the load between several paths choose by
            the port, among others (RFC 2991, RFC 6438), so that several ports cover several paths.
        @param options: what to send with; a port there is that of the first source of the first target, and the others are
            the next ones.
        @param listener: called with the flow and each L{Event}. Without a listener, and without L{events}, they cost nothing.
        @param clocks: what tells the time; by default the system's, and the reactor's for one that is in memory.
        @param batches: send and receive many datagrams with one system call, where the system can.
        @param stamps: take round trips from the kernel's stamps, where it makes them.

        @raise ValueError: if there is no target, or no source.
        """
        if not targets:
            raise ValueError("there is no target: one or more are needed")
        if sources < 1:
            raise ValueError(f"{sources} is not a number of sources: 1 or more is")
        self.flows: list[Flow] = []
        self.failures: list[tuple[Target, Exception]] = []
        self._reactor = reactor
        self._targets = targets
        self._plan = plan or Plan()
        self._sources = sources
        self._options = options or SocketOptions()
        self._listeners: list[Listener] = [] if listener is None else [listener]
        self.clocks = clocks or _clocksOf(reactor)
        self.startedAt = 0
        self._batches = batches
        self._stamps = stamps
        self._watch: Watch | DelayedTurns | None = None
        self._byDescriptor: dict[int, Flow] = {}
        self._running = False
        self._done: defer.Deferred[None] = defer.Deferred(lambda _: self.stop())
        self._iterators: list[_Events] = []

    @property
    def running(self) -> bool:
        """Whether it is between start and stop."""
        return self._running

    def start(self) -> defer.Deferred[None]:
        """
        Open the sockets and begin. May be called once.

        @return: fires when all probes were sent and nothing is waited for, or after L{stop}; all sockets are closed then. Fails
            with what L{openSocket} raises if no target at all can be opened. May be cancelled, which stops too.
        """
        if self._watch is not None:
            return defer.fail(RuntimeError("a prober starts once: make another one"))
        self._watch = openWatch(self._reactor, self._turn, self.clocks.monotonic)
        steps = StepWatch(self.clocks)
        opened = []
        for index, target in enumerate(self._targets):
            try:
                opened += self._open(target, index * self._sources, steps)
            except Exception as e:
                self.failures.append((target, e))
        if not opened:
            self._watch.close()
            return defer.fail(self.failures[0][1])
        self._running = True
        start = self.startedAt = self.clocks.monotonic()
        shift = 0 if self._plan.flood else self._plan.interval * _second / len(opened)
        for number, (flow, sock) in enumerate(opened):
            flow.begin(sock, start + round(number * shift))
            self.flows.append(flow)
            if sock.fileno() >= 0:
                self._byDescriptor[sock.fileno()] = flow
                self._watch.watch(sock.fileno())
        self._watch.setDeadline(start)
        return self._done

    def _open(self, target: Target, first: int, steps: StepWatch) -> list[tuple[Flow, Any]]:
        """
        Open the flows to a target.

        @param first: the number of its first flow, of all.
        @param steps: knows whether the wall clock was set.
        """
        found: list[tuple[Flow, Any]] = []
        watches = isinstance(self._watch, Watch)
        size = max(self._plan.sizes)
        listener = self._hear if self._listeners else None
        try:
            for number in range(first, first + self._sources):
                flow = Flow(target, self._plan, self.clocks, steps, listener, self._arrived)
                options = self._options
                if options.bindAddress is not None and options.bindAddress[1]:
                    host, port = options.bindAddress
                    options = options._replace(bindAddress=(host, port + number))
                sock = openSocket(
                    self._reactor, target.address, flow, size, options, batches=self._batches and watches, stamps=self._stamps
                )
                found.append((flow, sock))
        except BaseException:
            for _, sock in found:
                sock.close()
            raise
        return found

    def stop(self) -> None:
        """Stop at once. What is under way then stays so in the statistics. May be called often."""
        self._end(None)

    def _end(self, result: Failure | None) -> None:
        if not self._running:
            return
        self._running = False
        if self._watch is not None:
            self._watch.close()
        for flow in self.flows:
            flow.close()
        for iterator in self._iterators:
            iterator.end()
        if not self._done.called:
            self._done.callback(result)

    def events(self) -> AsyncIterator[tuple[Flow, Event]]:
        """
        What happens, one after the other, to be iterated over in a coroutine that waits for Deferreds; it ends with the prober.
        To be called before L{start}. What is not fetched is kept.
        """
        events = _Events()
        self._iterators.append(events)
        self._listeners.append(events.add)
        return events

    def document(self) -> dict[str, Any]:
        """All flows as one JSON document."""
        return document(flow.report() for flow in self.flows)

    def _hear(self, flow: Flow, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(flow, event)
            except Exception:
                _log.failure("Unhandled error in {listener} on being told of a probe", listener=listener)

    # Turns

    def _arrived(self) -> None:
        """Something came by a socket that is not watched: it may have been what was waited for."""
        if self._running and self._watch is not None:
            self._watch.setDeadline(self.clocks.monotonic())

    def _turn(self, ready: set[int] | frozenset[int]) -> None:
        try:
            self._sendAndRead(ready)
        except Exception:
            # Nothing would call for another turn.
            self._end(Failure())

    def _sendAndRead(self, ready: set[int] | frozenset[int]) -> None:
        """Send what is due, read what is there, and go on sending between two batches of that."""
        self._sendDue()
        unread = False
        for descriptor in ready:
            flow = self._byDescriptor.get(descriptor)
            if flow is not None:
                unread = self._read(flow) or unread
        if not self._running or self._watch is None:
            return
        now = self.clocks.monotonic()
        if not unread:
            # Nobody is given up whose reply is in the receive queue: this process may have been stopped for a while.
            for flow in self.flows:
                if not ready and flow.socket.fileno() >= 0:
                    unread = self._read(flow) or unread
                flow.expire(now)
        if not self._running:
            return
        if not unread and all(flow.isOver(now) for flow in self.flows):
            self.stop()
            return
        times = [time for time in (flow.next(now) for flow in self.flows) if time is not None]
        self._watch.setDeadline(min(times) if times else None)

    def _sendDue(self) -> None:
        """
        Send one batch of what is due by each flow. More would be a burst that a peer has no room for; the next turn comes at
        once, when replies have been read.
        """
        for flow in self.flows:
            if not self._running:
                return
            flow.send(self.clocks.monotonic())

    def _read(self, flow: Flow) -> bool:
        """@return: whether more may be there."""
        for _ in range(_readsPerTurn):
            if not self._running or not flow.read():
                return False
            self._sendDue()
        return True


class _Events:
    """Keeps what a listener is told until it is fetched."""

    def __init__(self) -> None:
        self._kept: deque[tuple[Flow, Event]] = deque()
        self._waiting: defer.Deferred[None] | None = None
        self._over = False

    def add(self, flow: Flow, event: Event) -> None:
        self._kept.append((flow, event))
        self._wake()

    def end(self) -> None:
        self._over = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> tuple[Flow, Event]:
        while not self._kept:
            if self._over:
                raise StopAsyncIteration
            self._waiting = defer.Deferred()
            await self._waiting
        return self._kept.popleft()


def _clocksOf(reactor: Any) -> Clocks:
    if IReactorFDSet.providedBy(reactor):
        return Clocks()

    def now() -> int:
        return round(float(reactor.seconds()) * _second)

    return Clocks(now, now)
