"""The ports of a service: all are bound, or none.

A service serves in one of two ways, behind one interface, L{Listeners}: in this process, L{LocalListeners}, or in workers,
L{WorkerListeners <udpecho.server.worker_listeners.WorkerListeners>}.
"""

from __future__ import annotations

import errno
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeGuard, cast

from twisted.internet import defer, error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IListeningPort, IReactorFDSet, IReactorTime
from twisted.logger import Logger

from udpecho.addresses import DatagramAddress
from udpecho.guard.guard import Guard
from udpecho.guard.policy import GuardPolicy
from udpecho.interfaces import GuardLike, IDatagramLog, Reactor
from udpecho.net.open import adopt, listen
from udpecho.net.options import PortOptions
from udpecho.net.port import DatagramPort
from udpecho.net.reuseport import SocketGroup
from udpecho.net.sockets import checkAdoptable, hasBoth
from udpecho.net.stopping import stopAll
from udpecho.parsing import parseInterface
from udpecho.pieces import Work
from udpecho.server.counters import Counters, CountersView, WorkerGuardStats
from udpecho.server.datagram_log import DatagramLog
from udpecho.server.drop_watch import DropWatch
from udpecho.server.protocol import EchoServer, checkGuard
from udpecho.server.settings import ServiceOptions, checkInteger

#: The interfaces by default: only this machine reaches the server there.
LOOPBACK_INTERFACES = ("127.0.0.1", "::1")
#: Seconds in which to answer, at the stop, what is already queued.
DRAIN_TIMEOUT = 1.0

_portZeroTries = 10

_log = Logger()

#: Applies a change that was prepared.
Change = Callable[[], "defer.Deferred[None]"]
#: What listens on an address: a port of a reactor, or sockets for the workers.
BoundPort = IListeningPort | SocketGroup


@dataclass(frozen=True)
class ListenAddresses:
    """Where to listen: on local IP addresses (by default the loopback ones), or on bound sockets.

    @ivar port: the port number, 0 for any free one.
    """

    port: int
    interfaces: Sequence[str] | None
    sockets: Sequence[socket.socket] | None

    def __post_init__(self) -> None:
        checkInteger("port", self.port, 0, 65535)
        interfaces, sockets = self.interfaces, self.sockets
        if isinstance(interfaces, str):
            raise TypeError(f"interfaces must be a list of IP addresses, got {interfaces!r}")
        if interfaces is not None:
            if not interfaces:
                raise ValueError(f"interfaces must have an IP address, got {interfaces!r}: leave it out for the loopback ones")
            for interface in interfaces:
                parseInterface(interface)
        if sockets is not None:
            if interfaces is not None:
                raise ValueError(f"interfaces must be left out with sockets, which are bound, got {interfaces!r}")
            if not sockets:
                raise ValueError(f"sockets must have a socket, got {sockets!r}: leave it out to bind some")
            for sock in sockets:
                checkAdoptable(sock)


class SilentWorker(NamedTuple):
    """A worker that does not answer.

    @ivar number: its number, from 1.
    @ivar reason: what is known of it.
    @ivar starting: whether it is being started, and has not failed to.
    """

    number: int
    reason: str
    starting: bool


@dataclass(eq=False)
class Listeners(ABC):
    """The ports of a service, and what serves on them.

    @ivar reactor: an C{IReactorUDP} and C{IReactorTime} provider.
    @ivar policy: the policy of the guard; C{None} if the guard was made elsewhere.
    @ivar ports: the bound ports, in the order of the interfaces; none while the service is stopped.
    @ivar counters: what came in on all ports, and what became of it.
    @ivar guardStats: the statistics of the guard, or of those of all workers.
    @ivar watches: for each of the ports, in their order, what looks for a self-echo among its drops.
    """

    reactor: Reactor
    where: ListenAddresses
    options: ServiceOptions
    log: IDatagramLog
    policy: GuardPolicy | None
    ports: list[BoundPort] = field(default_factory=list, init=False)
    counters: CountersView = field(init=False)
    guardStats: Guard | WorkerGuardStats = field(init=False)
    _pastKernelDrops: int = field(default=0, init=False)
    watches: list[DropWatch] = field(default_factory=list, init=False)

    @property
    def addresses(self) -> list[DatagramAddress]:
        """The bound addresses."""
        return [boundAddress(port) for port in self.ports]

    def bind(self) -> None:
        """Bind the ports, if they are not bound.

        @raise error.CannotListenError: if the system refuses one; none is bound then.
        """
        tries = _portZeroTries if self.where.port == 0 else 1
        while not self.ports:
            tries -= 1
            try:
                self._bindAll()
            except error.CannotListenError as e:
                # What is free on one interface may be taken on the next.
                if self.where.port != 0 or e.port == 0 or not tries:
                    raise

    def _bindAll(self) -> None:
        interfaces, number = self.where.interfaces, self.where.port
        missing: list[error.CannotListenError] = []
        try:
            if self.where.sockets is not None:
                for sock in self.where.sockets:
                    self.ports.append(self._adopt(sock))
                return
            for interface in LOOPBACK_INTERFACES if interfaces is None else interfaces:
                try:
                    port = self._listen(interface, number, len(self.ports))
                except error.CannotListenError as e:
                    if not _isMissing(e, isGiven=interfaces is not None):
                        raise
                    missing.append(e)
                    continue
                self.ports.append(port)
                number = boundAddress(port).port
            if not self.ports:
                raise missing[0]
        except BaseException:
            self.abort()
            raise
        for refusal in missing:
            text, reason = "only the other addresses are served, not {interface}: {reason}", refusal.socketError.strerror
            _log.warn(text, interface=refusal.interface, reason=reason)

    @abstractmethod
    def _listen(self, interface: str, number: int, index: int) -> BoundPort:
        """@param index: the place among the ports.
        @raise error.CannotListenError: if the system refuses.
        """

    def _adopt(self, sock: socket.socket) -> BoundPort:
        raise NotImplementedError

    def reopen(self, port: BoundPort, interface: str) -> BoundPort:
        """Open a port anew, with the same number on an interface, and close the old one.

        @return: the new one.
        @raise error.CannotListenError: if the system refuses; the old one stays open.
        """
        index = self.ports.index(port)
        opened = self._listen(interface, boundAddress(port).port, index)
        if _isOpen(port):
            self._pastKernelDrops += port.getKernelDrops() or 0
        self.ports[index] = opened
        _abort(port)
        return opened

    def abort(self) -> None:
        """Close the ports at once."""
        for port in self.ports:
            _abort(port)
        self.ports, self._pastKernelDrops = [], 0

    async def close(self) -> None:
        """Close the ports."""
        ports, self.ports, self._pastKernelDrops = self.ports, [], 0
        await stopAll({str(boundAddress(port)): port.stopListening for port in ports})

    def kernelDrops(self) -> int | None:
        """@see: L{EchoService.kernelDrops <udpecho.server.service.EchoService.kernelDrops>}"""
        counts = [port.getKernelDrops() for port in self.ports if _isOpen(port)]
        known = [number for number in counts if number is not None]
        return self._pastKernelDrops + sum(known) if known else None

    def smallBuffers(self) -> list[tuple[DatagramAddress, int]]:
        """The addresses whose receive buffers are smaller than requested, with the sizes in bytes."""
        wanted = self.options.receiveBuffer
        if wanted is None:
            return []
        granted = [(boundAddress(port), port.getReceiveBuffer()) for port in self.ports if _isOpen(port)]
        return [(address, size) for address, size in granted if size is not None and size < wanted]

    @abstractmethod
    def start(self) -> defer.Deferred[None]:
        """Serve on the bound ports. The Deferred fires when all answer, or never."""

    async def drain(self) -> None:
        """Answer what is queued, for L{DRAIN_TIMEOUT} seconds at most, and serve no more."""
        if not await self._drain():
            text = "stopped with datagrams still queued: not all could be answered within {seconds} s"
            _log.warn(text, seconds=DRAIN_TIMEOUT)

    @abstractmethod
    async def _drain(self) -> bool:
        """@return: whether all that was queued is answered."""

    def prepare(self, policy: GuardPolicy, logDatagrams: int | None) -> Work[Change]:
        """Prepare a change of the policy of the guard and of the number of log lines. Whether the guard refuses loops stays as
        it is, since it is set on the sockets when they are opened.

        @return: applies the change, without a pause, however many networks there are. Its Deferred fires when no process
            answers by the former policy any more.
        @raise ValueError: if the guard is one that was made elsewhere.
        """
        if self.policy is None:
            raise ValueError("guard must be a GuardPolicy to be changed, got one that was made elsewhere: configure that one")
        policy = replace(policy, refuseLoops=self.policy.refuseLoops)
        options = replace(self.options, logDatagrams=logDatagrams)
        serve = yield from self._prepare(options, policy)

        def apply() -> defer.Deferred[None]:
            self.policy, self.options = policy, options
            if isinstance(self.log, DatagramLog):
                self.log.setRate(logDatagrams)
            return serve()

        return apply

    @abstractmethod
    def _prepare(self, options: ServiceOptions, policy: GuardPolicy) -> Work[Change]:
        """Prepare to serve with changed settings."""

    @abstractmethod
    def processes(self) -> int:
        """How many processes answer."""

    def silentWorkers(self) -> list[SilentWorker]:
        """The workers that do not answer."""
        return []


class LocalListeners(Listeners):
    """Ports on which this process serves."""

    counters: Counters

    def __init__(
        self,
        reactor: Reactor,
        where: ListenAddresses,
        options: ServiceOptions,
        log: IDatagramLog,
        guard: GuardLike | GuardPolicy,
        counters: Counters,
        watches: Sequence[DropWatch] = (),
    ) -> None:
        """@param guard: decides who is answered, or the policy of the guard that does.
        @param watches: those of the ports; by default new ones.
        """
        policy = None
        if isinstance(guard, GuardPolicy):
            policy = guard
            guard = Guard(policy, dualStack=any(map(hasBoth, where.sockets or ())), seconds=IReactorTime(reactor).seconds)
        checkGuard(guard)
        super().__init__(reactor, where, options, log, policy)
        self._guard: GuardLike = guard
        self.guardStats = guard if isinstance(guard, Guard) else WorkerGuardStats()
        self.counters = counters
        self.watches = [*watches]
        # A policy that replaces this one does not change it.
        self._decrementHopLimit = None if policy is None else policy.refuseLoops
        self._answers = False

    def bind(self) -> None:
        """Bind the ports, and pass their numbers to the guard."""
        super().bind()
        if isinstance(self._guard, Guard):
            self._guard.setOwnPorts(address.port for address in self.addresses)

    def _listen(self, interface: str, number: int, index: int) -> BoundPort:
        return listen(
            self.reactor,
            number,
            self._makeServer(index),
            interface,
            writeTimeout=self.options.writeTimeout,
            receiveBuffer=self.options.receiveBuffer,
            ipv6Only=True,
            offload=self.options.offload,
            decrementHopLimit=self._decrementHopLimit,
        )

    def _adopt(self, sock: socket.socket) -> BoundPort:
        options = PortOptions(
            writeTimeout=self.options.writeTimeout, offload=self.options.offload, decrementHopLimit=self._decrementHopLimit
        )
        try:
            return adopt(IReactorFDSet(self.reactor), sock, self._makeServer(len(self.ports)), options)
        except OSError as e:
            host, number, *_ = sock.getsockname()
            raise error.CannotListenError(host, number, e) from None

    def _makeServer(self, index: int) -> EchoServer:
        if index == len(self.watches):
            self.watches.append(DropWatch())
        return EchoServer(self._guard, self.counters, self.options.maxPayload, self.log, self.watches[index])

    def start(self) -> defer.Deferred[None]:
        """Nothing: a bound port answers."""
        self._answers = True
        return defer.succeed(None)

    async def _drain(self) -> bool:
        self._answers = False
        ours = [port for port in self.ports if isinstance(port, DatagramPort)]
        # A port that cannot be read any more is closed like the others.
        return all(await defer.gatherResults([port.drain(DRAIN_TIMEOUT).addErrback(lambda _: False) for port in ours]))

    def _prepare(self, options: ServiceOptions, policy: GuardPolicy) -> Work[Change]:
        guard = self._guard
        if not isinstance(guard, Guard):
            return lambda: defer.succeed(None)
        verdicts = yield from guard.makeVerdicts(policy)
        return lambda: defer.execute(guard.configure, verdicts)

    def processes(self) -> int:
        """@return: 1 while this process answers."""
        return int(self._answers)


def boundAddress(port: BoundPort) -> DatagramAddress:
    """The local address of a port."""
    host = cast("IPv4Address | IPv6Address", port.getHost())
    address = DatagramAddress((host.host, host.port))
    address.scopeID = int(getattr(host, "scopeID", 0))
    return address


def _abort(port: BoundPort) -> None:
    port.abort() if isinstance(port, DatagramPort) else port.stopListening()


def _isOpen(port: object) -> TypeGuard[DatagramPort | SocketGroup]:
    """Whether a port has a socket to query."""
    return isinstance(port, SocketGroup) or (isinstance(port, DatagramPort) and bool(port.connected))


def _isMissing(reason: error.CannotListenError, isGiven: bool) -> bool:
    """Whether others may be served without this address: the kernel has not its family, or it is only one by default."""
    number = getattr(reason.socketError, "errno", None)
    return number == errno.EAFNOSUPPORT or (number == errno.EADDRNOTAVAIL and not isGiven)
