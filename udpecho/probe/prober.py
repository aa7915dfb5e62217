"""The prober: flows to targets, driven by a reactor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, cast

from twisted.internet import defer, error
from twisted.internet.interfaces import IReactorFDSet
from twisted.python.failure import Failure

from udpecho.addresses import DatagramAddress
from udpecho.interfaces import Reactor
from udpecho.net.call_queue import CallQueue, finish
from udpecho.net.monotonic import useMonotonicTime
from udpecho.net.resolver import literal
from udpecho.parsing import parseAddress
from udpecho.probe.flow import Flow, Listener
from udpecho.probe.io.open import chooseSource, openSocket
from udpecho.probe.io.socket import IProbeSocket, SocketOptions
from udpecho.probe.io.timer import DelayedTurns, Watch, openWatch
from udpecho.probe.io.timestamps import Clocks, StepWatch
from udpecho.probe.outcomes import Event
from udpecho.probe.renewal import Renewal
from udpecho.probe.schedule import Plan
from udpecho.probe.target import Target, findTarget

#: How many batches one turn reads from a socket, so that the reactor's other work has its turn.
_readsPerTurn = 8
_second = 1_000_000_000
#: For how many ns a receive queue that is never found empty keeps probes from being lost.
_patience = _second


class Backend(NamedTuple):
    """What a prober uses of the system. The default is the best that system and reactor have; tests and comparisons use less.

    @ivar clocks: the clocks; by default the system's, or those of a reactor in memory.
    @ivar batches: send and receive many datagrams with one system call where possible.
    @ivar timestamps: use the kernel's timestamps where possible.
    """

    clocks: Clocks | None = None
    batches: bool = True
    timestamps: bool = True


class Prober:
    """Probes one or several targets, each from one or several local ports.

    Each pair of a target and a port is a L{Flow}, with its own schedule and L{Statistics
    <udpecho.probe.stats.summary.Statistics>}, which may be read at any time. The schedules of the flows are shifted against
    each other, so that their probes do not leave all at once.

    While nothing is answered, the system's choices are looked at again about every second: a flow goes on from another local
    address or interface, or to another address of a name, with the same numbers and statistics. The log has a line about that.

    A probe leaves at its scheduled time, also if replies are missing. If this process is late, the probe is late, and its
    event has the deviation; a probe that is more than a second late is not sent.

    @ivar flows: the flows that could be opened, by target and then by port; filled by L{start}.
    @ivar failures: names of the other targets, each with the exception; filled by L{start}.
    @ivar running: whether it was started and has not stopped.
    @ivar startedAt: the scheduled time of the first probe, in seconds as L{seconds} returns them; set by L{start}.
    """

    def __init__(
        self,
        reactor: Reactor,
        targets: Sequence[Target | str],
        plan: Plan | None = None,
        *,
        sources: int = 1,
        options: SocketOptions | None = None,
        listener: Listener | None = None,
        backend: Backend | None = None,
        resolveInterval: float | None = None,
    ) -> None:
        """@param reactor: an C{IReactorFDSet} and C{IReactorTime} provider, or a reactor in memory; for names it must provide
            C{IReactorPluggableNameResolver}.
        @param targets: what to probe: targets, or C{HOST:PORT}. L{start} looks names up.
        @param plan: what to send, and when; by default 64 bytes every second.
        @param sources: from how many local ports to probe each target. Routers that share the load between several paths choose
            by port among others (RFC 2991, RFC 6438), so that several ports cover several paths.
        @param options: the socket options. A port in C{bindAddress} is that of the first flow, the others use the next ones.
        @param listener: called with the flow and each L{Event}. Without a listener and L{events} no events are made.
        @param resolveInterval: how often names are looked up again, in seconds; by default only while a target does not answer.
        @raise ValueError: if there is no target or no source, a text is not an address, or there are too few ports.
        """
        if isinstance(targets, str) or not targets:
            raise ValueError(f"targets must be a list of one target or more, got {targets!r}")
        if not isinstance(sources, int) or sources < 1:
            raise ValueError(f"sources must be 1 port or more, got {sources!r}")
        if resolveInterval is not None and not 0 < resolveInterval < float("inf"):
            raise ValueError(f"resolveInterval must be a number of seconds above 0, got {resolveInterval!r}")
        self._targets = [_known(target) for target in targets]
        self._options = options or SocketOptions()
        port = self._options.bindAddress[1] if self._options.bindAddress is not None else 0
        last = port + len(targets) * sources - 1
        if port and last > 65535:
            raise ValueError(f"local ports must be 1 to 65535, got {port} to {last}")
        self.flows: list[Flow] = []
        self.failures: list[tuple[str, Exception]] = []
        self.startedAt = 0.0
        useMonotonicTime(reactor)
        self._reactor = reactor
        self._plan = plan or Plan()
        self._sources = sources
        self._listeners: list[Listener] = [] if listener is None else [listener]
        self._backend = backend or Backend()
        self._clocks = self._backend.clocks or _clocksOf(reactor)
        self._watch: Watch | DelayedTurns | None = None
        self._renewal = Renewal(reactor, self._choose, self._reopen, resolveInterval)
        self._lookup: defer.Deferred[None] | None = None
        self._byDescriptor: dict[int, tuple[Flow, IProbeSocket]] = {}
        self._lastRead: dict[int, int] = {}
        self._unreadSince: dict[Flow, int] = {}
        self._started = self.running = False
        self._done: defer.Deferred[None] = defer.Deferred(self._cancel)
        self._calls = CallQueue()
        self._iterators: list[_Events] = []

    def seconds(self) -> float:
        """The current time, in seconds of the monotonic clock."""
        return self._clocks.monotonic() / _second

    def start(self) -> defer.Deferred[None]:
        """Look up names, open the sockets and begin. May be called once.

        If no name has to be looked up, L{flows} and L{failures} are complete when this method returns.

        @return: fires when all probes were sent and no reply is waited for, or after L{stop}; all sockets are closed then.
            Fails with the first exception of L{failures} if no target can be probed. May be cancelled, which stops too.
        """
        if self._started:
            return defer.fail(RuntimeError("a prober must be started once, got a second start: make another one"))
        self._started = self.running = True
        if any(isinstance(target, str) for target in self._targets):
            self._lookup = defer.Deferred.fromCoroutine(self._lookUp())
            # Cancelled by stop(), which has fired the result.
            self._lookup.addErrback(lambda failure: self._end(None if failure.check(defer.CancelledError) else failure))
        else:
            self._begin([target for target in self._targets if isinstance(target, Target)])
        return self._done

    async def _lookUp(self) -> None:
        lookups: list[defer.Deferred[Target]] = [
            defer.succeed(target)
            if isinstance(target, Target)
            else defer.Deferred.fromCoroutine(findTarget(self._reactor, target, self._options.family))
            for target in self._targets
        ]
        found = []
        results = await defer.DeferredList(lookups, consumeErrors=True)
        if not self.running:
            return
        for name, (_, result) in zip(self._targets, results):
            if isinstance(result, Failure):
                self.failures.append((str(name), cast(Exception, result.value)))
            else:
                found.append(result)
        self._lookup = None
        self._begin(found)

    def _begin(self, targets: Sequence[Target]) -> None:
        try:
            self._watch = openWatch(self._reactor, self._turn, self._clocks.monotonic)
        except OSError as e:
            self.failures += [(target.name, e) for target in targets]
            self._end(Failure(e))
            return
        steps = StepWatch(self._clocks)
        opened = []
        for index, target in enumerate(targets):
            try:
                opened += self._open(target, index * self._sources, steps)
            except Exception as e:
                self.failures.append((target.name, e))
        if not self.running:
            # Stopped by an observer of the log.
            for _, sock in opened:
                sock.close()
            return
        if not opened:
            self._end(Failure(self.failures[0][1]))
            return
        start = self._clocks.monotonic()
        self.startedAt = start / _second
        shift = 0 if self._plan.flood else self._plan.interval * _second / len(opened)
        for number, (flow, sock) in enumerate(opened):
            flow.begin(sock, start + round(number * shift))
            self.flows.append(flow)
            self._watchSocket(flow)
            self._renewal.add(flow)
        self._watch.setDeadline(start)

    def _open(self, target: Target, first: int, steps: StepWatch) -> list[tuple[Flow, IProbeSocket]]:
        """Open the flows to a target; C{first} is the number of the first one among all."""
        found: list[tuple[Flow, IProbeSocket]] = []
        listener = self._notify if self._listeners else None
        try:
            for number in range(first, first + self._sources):
                flow = Flow(target, self._plan, self._clocks, steps, listener, self._arrived, self._renewal.unanswered)
                if self._options.bindAddress is not None:
                    host, port = self._options.bindAddress
                    flow.bindAddress = (host, port and port + number)
                found.append((flow, self._openSocket(flow, target)))
        except BaseException:
            for _, sock in found:
                sock.close()
            raise
        return found

    def _openSocket(self, flow: Flow, target: Target) -> IProbeSocket:
        batches = self._backend.batches and isinstance(self._watch, Watch)
        return openSocket(
            self._reactor,
            target.address,
            flow,
            max(self._plan.sizes),
            self._options._replace(bindAddress=flow.bindAddress),
            batches=batches,
            stamps=self._backend.timestamps,
            taken=flow.taken,
        )

    def _watchSocket(self, flow: Flow) -> None:
        descriptor = flow.socket.fileno()
        if descriptor >= 0 and self._watch is not None:
            self._byDescriptor[descriptor] = flow, flow.socket
            self._watch.watch(descriptor)

    def _choose(self, flow: Flow, target: Target) -> DatagramAddress:
        if not IReactorFDSet.providedBy(self._reactor):
            return flow.source
        return chooseSource(target.address, flow.bindAddress)

    def _reopen(self, flow: Flow, target: Target) -> None:
        if flow.sockets.isOpen and flow.bindAddress is not None and flow.bindAddress[1]:
            flow.release()
            if not self.running:
                # Stopped by a listener, to which the last replies went.
                return
        flow.use(self._openSocket(flow, target), target)
        self._byDescriptor = {number: pair for number, pair in self._byDescriptor.items() if pair[1].fileno() >= 0}
        self._watchSocket(flow)

    def stop(self) -> None:
        """Stop at once. Outstanding probes stay so in the statistics. May be called often."""
        self._end(None)

    def _cancel(self, done: defer.Deferred[None]) -> None:
        self._end(None)
        finish(done, None)

    def _end(self, result: Failure | None) -> None:
        if not self.running:
            return
        self.running = False
        if self._lookup is not None:
            self._lookup.cancel()
        self._renewal.stop()
        if self._watch is not None:
            self._watch.close()
        for flow in self.flows:
            flow.close()
        for iterator in self._iterators:
            self._calls.add(iterator.put, None)
        self._calls.addResult(self._done, result)
        self._calls.run()

    def events(self) -> AsyncIterator[tuple[Flow, Event]]:
        """All events, for a coroutine that awaits Deferreds; the iteration ends with the prober. Call it before L{start}.
        Events are kept until they are fetched.
        """
        events = _Events()
        self._iterators.append(events)
        self._listeners.append(lambda flow, event: events.put((flow, event)))
        return events

    def _notify(self, flow: Flow, event: Event) -> None:
        for listener in self._listeners:
            self._calls.add(listener, flow, event)
        self._calls.run()

    # Turns

    def _arrived(self) -> None:
        """A socket that is not watched has received something, which may be the last reply."""
        if self.running and self._watch is not None:
            self._watch.setDeadline(self._clocks.monotonic())

    def _turn(self, ready: set[int] | frozenset[int]) -> None:
        try:
            self._sendAndRead(ready)
        except Exception:
            # There would be no further turn.
            self._end(Failure())

    def _sendAndRead(self, ready: set[int] | frozenset[int]) -> None:
        """Send what is due, read what has come, and go on sending between two batches of that."""
        self._sendDue()
        unread = self._readSome(ready)
        if not self.running or self._watch is None:
            return
        now = self._clocks.monotonic()
        self._unreadSince = {flow: self._unreadSince.get(flow, now) for flow in unread}
        for flow, since in self._unreadSince.items():
            if now - since >= _patience:
                del unread[flow]
        # No probe expires whose reply may be in the receive queue: this process may have been stopped for a while. What came
        # before the last datagram that was read is not in it.
        for flow in self.flows:
            if not ready and flow.socket.fileno() >= 0:
                for sock in list(flow.sockets.all):
                    self._read(flow, sock, unread)
            flow.expire(unread.get(flow, now))
        if not self.running:
            return
        if all(flow.isOver(unread.get(flow, now)) for flow in self.flows):
            self.stop()
            return
        times = [time for time in (flow.next(now) for flow in self.flows) if time is not None]
        self._watch.setDeadline(min(times) if times else None)

    def _sendDue(self) -> None:
        """Send one batch of each flow, if due. More at once could overflow the peer's receive queue; the next turn comes
        immediately, after replies were read.
        """
        for flow in self.flows:
            if not self.running:
                return
            flow.send(self._clocks.monotonic())

    def _readSome(self, ready: set[int] | frozenset[int]) -> dict[Flow, int]:
        """Read as long as the turn has time, first from the sockets that were not read for longest.

        @return: the flows with sockets that may have more, each with the time until which all that came was read.
        """
        unread: dict[Flow, int] = {}
        isFirst = True
        for descriptor in sorted(ready, key=lambda descriptor: self._lastRead.get(descriptor, 0)):
            pair = self._byDescriptor.get(descriptor)
            if pair is None or self._watch is None:
                continue
            if isFirst or not self._watch.isOver():
                self._lastRead[descriptor] = self._clocks.monotonic()
                self._read(*pair, unread)
                isFirst = False
            else:
                unread[pair[0]] = 0
        return unread

    def _read(self, flow: Flow, sock: IProbeSocket, unread: dict[Flow, int]) -> None:
        """Read from a socket, and add the flow if there may be more."""
        for _ in range(_readsPerTurn):
            if not self.running or not flow.read(sock):
                return
            self._sendDue()
            if self._watch is None or self._watch.isOver():
                break
        unread[flow] = min(flow.readUntil, unread.get(flow, flow.readUntil))


class _Events(defer.DeferredQueue["tuple[Flow, Event] | None"]):
    """An iterator over a queue that ends with C{None}. Not a generator, which would end if a wait is cancelled."""

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> tuple[Flow, Event]:
        found = await self.get()
        if found is None:
            self.put(None)
            raise StopAsyncIteration
        return found


def _known(target: Target | str) -> Target | str:
    """A target whose address is known, or the text of a name to look up. Anything else raises C{ValueError}."""
    if isinstance(target, Target):
        return target
    if not isinstance(target, str):
        raise ValueError(f"target must be a Target or text, got {target!r}")
    host, port = parseAddress(target)
    try:
        address = literal(host, port)
    except error.DNSLookupError:
        # An unknown interface is reported when the target is looked up.
        return target
    return target if address is None else Target(target, address)


def _clocksOf(reactor: Reactor) -> Clocks:
    if IReactorFDSet.providedBy(reactor):
        return Clocks()

    def now() -> int:
        return round(float(reactor.seconds()) * _second)

    return Clocks(now, now)
