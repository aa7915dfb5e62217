"""The server as a service: its ports, from binding them to the last sum in the log."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet import defer, error
from twisted.internet.interfaces import IListeningPort, IReactorCore, IReactorFDSet, IReactorProcess, IReactorTime
from twisted.logger import Logger

from udpecho.addresses import DatagramAddress
from udpecho.guard.guard import Guard
from udpecho.guard.policy import GuardPolicy
from udpecho.interfaces import GuardLike, IDatagramLog, Reactor
from udpecho.net.open import adopt, listen
from udpecho.net.options import PortOptions
from udpecho.net.port import DatagramPort
from udpecho.net.reuseport import SocketGroup, canShare
from udpecho.net.sockets import MAX_DATAGRAM, hasBoth
from udpecho.parsing import MAX_WORKERS, checkTimeout
from udpecho.server.counters import Account, Counters, SummedCounters
from udpecho.server.datagram_log import DEFAULT_RATE, DatagramLog
from udpecho.server.listeners import (
    DRAIN_TIMEOUT,
    LOOPBACK,
    _boundAddress,
    _checkSockets,
    _drain,
    _hasIPv6Loopback,
    _isLoopback,
    _isOpen,
    _portZeroTries,
)
from udpecho.server.protocol import EchoServer

if TYPE_CHECKING:
    from udpecho.server.shared_counters import SharedCounters
    from udpecho.server.worker_pool import WorkerPool

#: The port of the seed.
DEFAULT_PORT = 1234

_log = Logger()


class EchoService(Service):
    """
    An echo server on one or several interfaces.

    The ports are bound in C{privilegedStartService}, so that C{twistd --uid} can serve port 7, or else in C{startService}.
    C{stopService} answers what is already queued, and logs the sums.

    With several workers this process echoes nothing itself: it holds the sockets, several on each address, and keeps as many
    processes running that share the datagrams. Its counters are the sum of theirs, its log is that of all.

    @ivar counters: what came in on all ports, and what became of it.
    @ivar kernelDropsTold: how many of the L{kernelDrops} the log has already; the rest is told at the stop.
    """

    counters: Account

    def __init__(
        self,
        reactor: Reactor,
        port: int = DEFAULT_PORT,
        interfaces: Sequence[str] | None = None,
        *,
        guard: GuardLike | GuardPolicy | None = None,
        counters: Counters | None = None,
        maxPayload: int | None = None,
        logDatagrams: int | None = DEFAULT_RATE,
        writeTimeout: float = PortOptions.writeTimeout,
        receiveBuffer: int | None = None,
        journal: IDatagramLog | None = None,
        sockets: Sequence[socket.socket] | None = None,
        workers: int = 1,
        offload: bool = True,
    ) -> None:
        """
        @param reactor: an C{IReactorUDP} and C{IReactorTime} provider; with several workers an C{IReactorProcess} provider too.
        @param port: the port number; with 0 the system picks one, the same for all interfaces.
        @param interfaces: the local IP addresses to bind. By default C{127.0.0.1}, and C{::1} where the machine has it.
            C{"0.0.0.0"} is all of IPv4, C{"::"} all of IPv6, and of IPv6 only.
        @param guard: decides who is answered, or the policy of the one that does; by default a L{GuardPolicy} as it is. With a
            policy that refuses loops, replies have one hop less than what they reply to.
        @param counters: the account to keep; by default a new one.
        @param maxPayload: the longest payload to answer, in bytes.
        @param logDatagrams: how many datagrams a second have their lines in the log; C{None} for all, 0 for none.
        @param writeTimeout: how many seconds a reply waits for a full send queue.
        @param receiveBuffer: how many bytes of receive buffer to ask of the system, for each interface, and for each worker.
        @param journal: writes down the datagrams, instead of one that logs C{logDatagrams} a second. With several workers it
            hears of so many of each, and of the sums of the rest.
        @param sockets: bound UDP sockets to serve on, instead of binding any: what systemd hands over, say. They stay the
            caller's to close: the service has duplicates (C{dup(2)}), which put them in non-blocking mode.
        @param workers: how many processes serve; with 1 it is this one. Each has a guard of its own.
        @param offload: have the system keep bursts of one flow together, both ways, where it can.

        @raise ValueError: if C{interfaces} is empty, or a number out of its range, or one value excludes another, or this
            system cannot share a port among processes.
        @raise TypeError: if a value is of the wrong type.
        """
        if isinstance(interfaces, str):
            raise TypeError(f"interfaces is a list of addresses, as in [{interfaces!r}]")
        if interfaces is not None and not interfaces:
            raise ValueError("there are no interfaces to listen on: leave them out for the loopback ones")
        _checkNumber("port", port, 0, 65535)
        checkTimeout(writeTimeout)
        if maxPayload is not None:
            _checkNumber("maxPayload", maxPayload, 0, MAX_DATAGRAM)
        if logDatagrams is not None:
            _checkNumber("logDatagrams", logDatagrams, 0, sys.maxsize)
        if receiveBuffer is not None:
            _checkNumber("receiveBuffer", receiveBuffer, 1, 2**30 - 1)
        _checkNumber("workers", workers, 1, MAX_WORKERS)
        if sockets is not None:
            _checkSockets(sockets, interfaces)
        if workers > 1:
            _checkWorkers(reactor, guard, counters, sockets)
        self._account = Counters() if counters is None else counters
        # The own one first, then those of the workers while there are any.
        self._accounts: list[Account] = [self._account]
        self.counters = self._account if workers == 1 else SummedCounters(self._accounts)
        self._reactor = reactor
        self._port = port
        self._interfaces = interfaces
        self._policy: GuardPolicy | None = None
        if guard is None or isinstance(guard, GuardPolicy):
            self._policy = guard or GuardPolicy()
            guard = Guard(self._policy, dualStack=any(map(hasBoth, sockets or ())), seconds=IReactorTime(reactor).seconds)
        elif not callable(getattr(guard, "refuse", None)):
            raise TypeError(f"a guard has a method refuse(size, address), and {guard!r} has none: give one, or a GuardPolicy")
        self._guard: GuardLike = guard
        self._offload = offload
        self._maxPayload = maxPayload
        self._logDatagrams = logDatagrams
        self._writeTimeout = writeTimeout
        self._receiveBuffer = receiveBuffer
        self._journal = journal
        self._sockets = sockets
        self._workers = workers
        self._ports: list[IListeningPort] = []
        self._groups: list[SocketGroup] = []
        self._pool: WorkerPool | None = None
        # Made with the ports, since there may be no room for it, and given to the pool.
        self._shared: SharedCounters | None = None
        # Those whose rate may be changed.
        self._journals: list[DatagramLog] = [journal] if isinstance(journal, DatagramLog) else []
        self.kernelDropsTold = 0
        self._isServing = False
        self._awaited: list[defer.Deferred[None]] = []
        self._stopping: list[defer.Deferred[None]] = []

    @property
    def addresses(self) -> list[DatagramAddress]:
        """
        The bound addresses, C{(host, port)} pairs with attributes C{host} and C{port}, in the order of the interfaces; none
        while the service is stopped.
        """
        return [_boundAddress(port) for port in self._bound()]

    def _bound(self) -> list[IListeningPort | SocketGroup]:
        return [*self._ports, *self._groups]

    def privilegedStartService(self) -> None:
        """
        Bind the ports.

        @raise error.CannotListenError: if the system refuses one; none is bound then.
        """
        super().privilegedStartService()
        self._bind()

    def startService(self) -> None:
        """
        Say where the server answers. The ports are bound first, if C{privilegedStartService} has not been called.

        @raise error.CannotListenError: if the system refuses one; none is bound then.
        """
        self._bind()
        super().startService()
        if IReactorCore.providedBy(self._reactor):
            # Whoever waits for this line may stop the process on reading it, and the reactor then handles signals.
            self._reactor.callWhenRunning(self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        """Serve, if it has not been stopped meanwhile."""
        if not self._bound():
            return
        if self._workers == 1:
            self._serves()
        elif self._pool is None:
            self._startWorkers()

    def _startWorkers(self) -> None:
        from udpecho.server.worker_pool import WorkerPool

        shared, self._shared = self._shared, None
        pool = WorkerPool(
            self._reactor,
            list(zip(*(group.sockets for group in self._groups))),
            self._makeJournal(),
            maxPayload=self._maxPayload,
            logDatagrams=self._logDatagrams,
            shared=shared,
            writeTimeout=self._writeTimeout,
            offload=self._offload,
            policy=None if self._policy is None else self._policy.asSettings(),
        )
        self._pool = pool
        self._accounts += pool.accounts
        pool.start().addCallback(lambda _: self._serves())

    def whenServing(self) -> defer.Deferred[None]:
        """@return: fires when the service answers; at once if it does."""
        if self._isServing:
            return defer.succeed(None)
        waiter: defer.Deferred[None] = defer.Deferred()
        self._awaited.append(waiter)
        return waiter

    def _serves(self) -> None:
        self._isServing = True
        self._announce()
        awaited, self._awaited = self._awaited, []
        for waiter in awaited:
            waiter.callback(None)

    # What there is to know beside the counters

    def kernelDrops(self) -> int | None:
        """
        How many datagrams the system has dropped for want of room in the receive buffers, since the ports were bound; C{None}
        where it does not tell.
        """
        told = [port.getKernelDrops() for port in self._bound() if _isOpen(port)]
        known = [number for number in told if number is not None]
        return sum(known) if known else None

    def limiterFill(self) -> float:
        """How full the table of the guard's limiter is, from 0 to 1; with several workers, the fullest one."""
        if self._pool is not None:
            return self._pool.news.fill
        return self._guard.fill if isinstance(self._guard, Guard) else 0.0

    def wouldDrop(self) -> Mapping[str, int]:
        """In a dry run, how many datagrams the guard would have dropped, by reason."""
        if self._pool is not None:
            return self._pool.news.wouldDrop
        return self._guard.wouldDrop if isinstance(self._guard, Guard) else {}

    def busiest(self, most: int) -> dict[str, list[tuple[str, int]]]:
        """
        Say from where most of what the guard dropped came, since the last call.

        @see: L{Guard.busiest}
        """
        if self._pool is not None:
            return self._pool.news.busiest(most)
        return self._guard.busiest(most) if isinstance(self._guard, Guard) else {}

    def workersAlive(self) -> int:
        """How many processes answer: the workers, or this one."""
        if self._workers == 1:
            return int(self._isServing)
        return 0 if self._pool is None else self._pool.alive()

    def configure(self, policy: GuardPolicy, logDatagrams: int | None) -> None:
        """
        Go on with another policy and another number of log lines, without a pause. Whether loops are refused stays as it is,
        since the ports are made for that.

        @param policy: the policy of the guard.
        @param logDatagrams: how many datagrams a second have their lines in the log; C{None} for all, 0 for none.

        @raise ValueError: if the guard is one that was made elsewhere.
        """
        if self._policy is None:
            raise ValueError("this service was given a guard: configure that one")
        self._policy = policy = replace(policy, loops=self._policy.loops)
        self._logDatagrams = logDatagrams
        if isinstance(self._guard, Guard):
            self._guard.configure(policy)
        for journal in self._journals:
            journal.setRate(logDatagrams)
        if self._pool is not None:
            self._pool.change(logDatagrams, policy=policy.asSettings())

    def _announce(self) -> None:
        """Say where the server answers."""
        _log.info("answering on {addresses}", addresses=", ".join(map(str, self.addresses)))
        if all(_isLoopback(address.host) for address in self.addresses):
            _log.info(
                "only this machine can reach these addresses;"
                " --interface 0.0.0.0 --interface :: serves the network (in Python: interfaces=['0.0.0.0', '::'])"
            )
        self._warnOfSmallBuffers()

    def abort(self) -> None:
        """Close the ports at once, before anything was served."""
        for port in self._bound():
            port.abort() if isinstance(port, DatagramPort) else port.stopListening()
        self._ports, self._groups = [], []
        self._forgetShared()

    def _forgetShared(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()

    def stopService(self) -> defer.Deferred[None]:
        """
        Answer what is already queued, for a second at the most, close the ports and log the sums.

        @return: fires when the ports are closed.
        """
        super().stopService()
        stopped: defer.Deferred[None] = defer.Deferred()
        self._stopping.append(stopped)
        if len(self._stopping) == 1:
            defer.Deferred.fromCoroutine(self._stop()).addBoth(self._stopped)
        return stopped

    def _stopped(self, result: object) -> None:
        stopping, self._stopping = self._stopping, []
        for stopped in stopping:
            stopped.callback(result)  # type: ignore[arg-type]

    async def _stop(self) -> None:
        bound, pool = self._bound(), self._pool
        self._isServing = False
        drained = await (_drain(self._ports) if pool is None else self._stopWorkers(pool, self._groups))
        self._ports, self._groups, self._pool = [], [], None
        self._forgetShared()
        lost = sum(port.getKernelDrops() or 0 for port in bound if _isOpen(port)) - self.kernelDropsTold
        if lost > 0:
            self._warnOfKernelDrops(lost)
        await defer.gatherResults([defer.maybeDeferred(port.stopListening) for port in bound])
        if not drained:
            _log.warn(
                "stopped with datagrams still queued: {seconds} s were not enough, or they cannot be read",
                seconds=DRAIN_TIMEOUT,
            )
        if bound:
            _log.info("stopped: {counters}", counters=str(self.counters), **self.counters.asFields())

    async def _stopWorkers(self, pool: WorkerPool, groups: Sequence[SocketGroup]) -> bool:
        """@return: whether nothing is queued where no worker could see to it; of the rest the workers tell themselves."""
        await pool.stop(DRAIN_TIMEOUT)
        queued = any(group.hasQueued(index) for group in groups for index in pool.undrained())
        for account in pool.accounts:
            self._accounts.remove(account)
            self._account.add(account)
        pool.journal.close()
        return not queued

    def _warnOfKernelDrops(self, lost: int) -> None:
        _log.warn(
            "the kernel dropped {kernelDropped} datagrams before they were received: --receive-buffer helps against bursts",
            kernelDropped=lost,
        )

    def _makeJournal(self) -> IDatagramLog:
        if self._journal is not None:
            return self._journal
        journal = DatagramLog(self._logDatagrams, IReactorTime(self._reactor))
        self._journals = [journal]
        return journal

    def _bind(self) -> None:
        if self._bound():
            return
        tries = _portZeroTries if self._port == 0 else 1
        while True:
            tries -= 1
            try:
                bound = self._listenOnAll()
                self._groups = [port for port in bound if isinstance(port, SocketGroup)]
                self._ports = [port for port in bound if not isinstance(port, SocketGroup)]
                if isinstance(self._guard, Guard):
                    self._guard.setOwnPorts(address.port for address in self.addresses)
                if self._workers > 1:
                    self._makeShared()
                return
            except error.CannotListenError as e:
                # What is free on one interface may be taken on the next.
                if self._port != 0 or e.port == 0 or not tries:
                    raise

    def _makeShared(self) -> None:
        """@raise error.CannotListenError: if there is no room for the accounts of the workers; nothing is left bound then."""
        from udpecho.server.shared_counters import SharedCounters

        address = self.addresses[0]
        try:
            self._shared = SharedCounters(self._workers)
        except OSError as e:
            self.abort()
            raise error.CannotListenError(address.host, self._port, e) from None

    def _listenOnAll(self) -> list[IListeningPort | SocketGroup]:
        """@raise error.CannotListenError: if one of the interfaces refuses; nothing is left bound then."""
        ports: list[IListeningPort | SocketGroup] = []
        number = self._port
        journal = self._makeJournal()
        try:
            if self._sockets is not None:
                for sock in self._sockets:
                    ports.append(self._adopt(sock, journal))
                return ports
            for interface in LOOPBACK if self._interfaces is None else self._interfaces:
                try:
                    port = self._listenOn(interface, number, journal)
                except error.CannotListenError:
                    if self._interfaces is None and ports and not _hasIPv6Loopback(self._reactor):
                        continue
                    raise
                ports.append(port)
                number = _boundAddress(port).port
        except BaseException:
            for port in ports:
                port.abort() if isinstance(port, DatagramPort) else port.stopListening()
            raise
        return ports

    def _adopt(self, sock: socket.socket, journal: IDatagramLog) -> DatagramPort:
        return adopt(
            IReactorFDSet(self._reactor),
            sock,
            self._makeServer(journal),
            writeTimeout=self._writeTimeout,
            offload=self._offload,
            decrementHopLimit=self._refusesLoops,
        )

    @property
    def _refusesLoops(self) -> bool:
        return self._policy is not None and self._policy.loops

    def _listenOn(self, interface: str, number: int, journal: IDatagramLog) -> IListeningPort | SocketGroup:
        """@raise error.CannotListenError: if the system refuses."""
        if self._workers > 1:
            return SocketGroup(number, interface, self._workers, self._receiveBuffer)
        return listen(
            self._reactor,
            number,
            self._makeServer(journal),
            interface,
            writeTimeout=self._writeTimeout,
            receiveBuffer=self._receiveBuffer,
            ipv6Only=True,
            offload=self._offload,
            decrementHopLimit=self._refusesLoops,
        )

    def _makeServer(self, journal: IDatagramLog) -> EchoServer:
        return EchoServer(self._guard, self._account, self._maxPayload, journal)

    def _warnOfSmallBuffers(self) -> None:
        if self._receiveBuffer is None:
            return
        for port in self._bound():
            granted = port.getReceiveBuffer() if _isOpen(port) else None
            if granted is not None and granted < self._receiveBuffer:
                _log.warn(
                    "{address} has a receive buffer of {granted} bytes, not {wanted}: the system's limit is lower"
                    " (on Linux: sysctl net.core.rmem_max={wanted})",
                    address=_boundAddress(port),
                    granted=granted,
                    wanted=self._receiveBuffer,
                )


def _checkNumber(name: str, value: int, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a whole number, not {value!r}")
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is a number from {lowest} to {highest}, not {value!r}")


def _checkWorkers(reactor: object, guard: object, counters: object, sockets: object) -> None:
    if not canShare:
        raise ValueError("several workers cannot share a port on this system: only Linux shares out datagrams among sockets")
    if not IReactorProcess.providedBy(reactor):
        raise TypeError(f"several workers need a reactor that starts processes, not {reactor!r}")
    own = None if isinstance(guard, GuardPolicy) else guard
    for name, value, instead in (
        ("guard", own, "; a GuardPolicy goes to each"),
        ("counters", counters, ""),
        ("sockets", sockets, ""),
    ):
        if value is not None:
            raise ValueError(f"{name} and several workers exclude each other: processes share none{instead}")
