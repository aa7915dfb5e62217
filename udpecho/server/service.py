"""The server as a service: its ports, from binding them to the last sum in the log."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from twisted.internet import defer
from twisted.internet.interfaces import IReactorCore, IReactorProcess, IReactorTime
from twisted.logger import Logger

from udpecho.addresses import DatagramAddress
from udpecho.guard.policy import GuardPolicy
from udpecho.interfaces import GuardLike, IDatagramLog, Reactor
from udpecho.net.call_queue import CallQueue, cancelled
from udpecho.net.monotonic import useMonotonicTime
from udpecho.net.restartable import RestartableService
from udpecho.net.reuseport import canShare
from udpecho.net.stopping import stopAll
from udpecho.pieces import Work, finish
from udpecho.server.counters import Counters, CountersView
from udpecho.server.datagram_log import DatagramLog
from udpecho.server.drop_watch import DropWatch
from udpecho.server.interface_watch import InterfaceWatch
from udpecho.server.listeners import Change, ListenAddresses, Listeners, LocalListeners, SilentWorker
from udpecho.server.settings import DEFAULT_PORT, ServiceOptions

_log = Logger()


class EchoService(RestartableService):
    """An echo server on one or several interfaces.

    The ports are bound in C{privilegedStartService}, so that C{twistd --uid} can serve port 7, or else in C{startService}.
    C{stopService} answers what is already queued, for a second at the most, closes the ports and logs the sums.

    With several workers this process holds the sockets, several on each address, and keeps as many processes running that share
    the datagrams. Its counters are the sum of theirs, and its log has their lines.

    @ivar counters: what came in on all ports, and what became of it.
    @ivar kernelDropsReported: how many of the L{kernelDrops} have been logged; the others are logged at the stop.
    """

    counters: CountersView

    def __init__(
        self,
        reactor: Reactor,
        port: int = DEFAULT_PORT,
        interfaces: Sequence[str] | None = None,
        *,
        guard: GuardLike | GuardPolicy | None = None,
        counters: Counters | None = None,
        log: IDatagramLog | None = None,
        sockets: Sequence[socket.socket] | None = None,
        options: ServiceOptions | None = None,
        **changes: Any,
    ) -> None:
        """@param reactor: an C{IReactorUDP} and C{IReactorTime} provider; with several workers C{IReactorProcess} too.
        @param port: the port number; with 0 the system picks one, the same for all interfaces.
        @param interfaces: the local IP addresses to bind. By default C{127.0.0.1} and C{::1}, or the one that the machine has.
            C{"0.0.0.0"} is all of IPv4, C{"::"} all of IPv6, without IPv4. Without IPv6 in the kernel there is a warning, and
            the others are served.
        @param guard: decides who is answered, or the policy of the guard that does. With a policy that refuses loops, replies
            have one hop less left than the datagrams that they answer.
        @param counters: the counters to use.
        @param log: logs the datagrams, instead of one that logs C{logDatagrams} a second. With several workers it gets so many
            of each, and the sums of the others.
        @param sockets: bound UDP sockets to serve on, instead of binding any, as systemd passes them. The caller closes them:
            the service has duplicates (C{dup(2)}), and sets them to non-blocking mode.
        @param changes: fields of L{ServiceOptions} that differ from C{options}: C{EchoService(reactor, workers=4)}.
        @raise ValueError: if a value is out of its range or excludes another, or if the system cannot share a port among
            processes.
        @raise TypeError: if a value is of the wrong type.
        """
        super().__init__()
        useMonotonicTime(reactor)
        options = replace(options or ServiceOptions(), **changes)
        where = ListenAddresses(port, interfaces, sockets)
        guard = GuardPolicy() if guard is None else guard
        log = DatagramLog(options.logDatagrams, IReactorTime(reactor)) if log is None else log
        self._reactor = reactor
        self._listeners: Listeners
        if options.workers == 1:
            self._listeners = LocalListeners(reactor, where, options, log, guard, Counters() if counters is None else counters)
        else:
            # Most servers have no workers, and start sooner without this.
            from udpecho.server.worker_listeners import WorkerListeners

            policy = _checkWorkers(reactor, guard, counters, sockets)
            self._listeners = WorkerListeners(reactor, where, options, log, policy)
        self._interfaces = InterfaceWatch(self._listeners)
        self.counters = self._listeners.counters
        self.kernelDropsReported = 0
        self._hasBegun = False
        self._isServing = False
        self._waiting: list[defer.Deferred[None]] = []

    @property
    def addresses(self) -> list[DatagramAddress]:
        """The bound addresses in the order of the interfaces; none while the service is stopped."""
        return self._listeners.addresses

    @property
    def watches(self) -> list[DropWatch]:
        """For each of the L{addresses}, in their order, what looks for a self-echo among its drops."""
        return self._listeners.watches

    def _bind(self) -> None:
        self._listeners.bind()

    def _start(self) -> None:
        if IReactorCore.providedBy(self._reactor):
            # A supervisor that reads the line in the log may send a signal at once: the reactor must handle signals by then.
            self._reactor.callWhenRunning(self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        # It may have been stopped meanwhile, or started twice.
        if self._listeners.ports and not self._stopping and not self._hasBegun:
            self._hasBegun = True
            self._listeners.start().addCallback(lambda _: self._serves())

    @property
    def isServing(self) -> bool:
        """Whether the service has begun to answer, and not to stop."""
        return self._isServing

    def whenServing(self) -> defer.Deferred[None]:
        """@return: fires when the service answers."""
        if self._isServing:
            return defer.succeed(None)
        waiter: defer.Deferred[None] = defer.Deferred(cancelled)
        self._waiting.append(waiter)
        return waiter

    def _serves(self) -> None:
        self._isServing = True
        self._interfaces.start()
        self._logAddresses()
        if not self._isServing:
            # Stopped by an observer of the log.
            return
        calls = CallQueue()
        calls.addResults(self._waiting, None)
        calls.run()

    def kernelDrops(self) -> int | None:
        """How many datagrams the kernel has dropped since the ports were bound because the receive buffers were full; C{None}
        if it does not count them.
        """
        return self._listeners.kernelDrops()

    def limiterFill(self) -> float:
        """How full the table of the guard's limiter is, from 0 to 1; of several workers, the fullest one."""
        return self._listeners.guardStats.fill

    def wouldDrop(self) -> Mapping[str, int]:
        """In a dry run, how many datagrams the guard would have dropped, by reason."""
        return self._listeners.guardStats.wouldDrop

    def busiest(self, most: int) -> dict[str, list[tuple[str, int]]]:
        """The sources of most of what the guard dropped since the last call: L{Guard.busiest}."""
        return self._listeners.guardStats.busiest(most)

    def workersAlive(self) -> int:
        """How many processes answer: the workers, or this one."""
        return self._listeners.processes()

    def silentWorkers(self) -> list[SilentWorker]:
        """The workers that do not answer, each with what is known of it; none without workers."""
        return self._listeners.silentWorkers()

    def configure(self, policy: GuardPolicy, logDatagrams: int | None) -> defer.Deferred[None]:
        """Change the policy of the guard and the number of log lines, without a pause in the service.

        @param logDatagrams: how many datagrams a second get their lines in the log; C{None} for all, 0 for none.
        @return: fires when no process answers by the former policy any more.
        @raise ValueError: if the guard is one that was made elsewhere.
        """
        return finish(self.prepare(policy, logDatagrams))()

    def prepare(self, policy: GuardPolicy, logDatagrams: int | None) -> Work[Change]:
        """What takes long in L{configure} with many networks, in pieces.

        @return: does the rest, and returns what L{configure} does.
        """
        return self._listeners.prepare(policy, logDatagrams)

    def abort(self) -> None:
        """Close the ports at once, before anything was served."""
        self._listeners.abort()

    async def _stop(self) -> None:
        listeners = self._listeners
        self._hasBegun = self._isServing = False
        self._interfaces.stop()
        wasBound = bool(listeners.ports)
        steps: dict[str, Callable[[], object]] = {
            "answering": listeners.drain,
            "the count of the kernel": self._logKernelDrops,
            "the ports": listeners.close,
        }
        for name, step in steps.items():
            await stopAll({name: step})
        if wasBound:
            _log.info("stopped: {counters}", counters=str(self.counters), **self.counters.asFields())

    def _logKernelDrops(self) -> None:
        lost = (self._listeners.kernelDrops() or 0) - self.kernelDropsReported
        if lost > 0:
            _log.warn(
                "the kernel dropped {kernelDropped} datagrams before they were received: --receive-buffer helps against bursts",
                kernelDropped=lost,
            )

    def _logAddresses(self) -> None:
        _log.info("answering on {addresses}", addresses=", ".join(map(str, self.addresses)))
        if self._listeners.where.sockets is None and all(ip_address(address.host).is_loopback for address in self.addresses):
            _log.info(
                "only this machine can reach these addresses;"
                " --interface 0.0.0.0 --interface :: serves the network (in Python: interfaces=['0.0.0.0', '::'])"
            )
        for address, granted in self._listeners.smallBuffers():
            _log.warn(
                "{address} has a receive buffer of {granted} bytes, not {wanted}: the system's limit is lower"
                " (on Linux: sysctl net.core.rmem_max={wanted})",
                address=address,
                granted=granted,
                wanted=self._listeners.options.receiveBuffer,
            )


def _checkWorkers(reactor: object, guard: object, counters: object, sockets: object) -> GuardPolicy:
    if not canShare:
        raise ValueError("workers must be 1 on this system, which cannot share a port among processes: only Linux can")
    if not IReactorProcess.providedBy(reactor):
        raise TypeError(f"reactor must start processes to have several workers, got {reactor!r}")
    for name, value in (("counters", counters), ("sockets", sockets)):
        if value is not None:
            raise ValueError(f"{name} must be left out with several workers: processes do not share them")
    if not isinstance(guard, GuardPolicy):
        raise ValueError(f"guard must be a GuardPolicy with several workers, got {guard!r}: each of them makes its own guard")
    return guard
