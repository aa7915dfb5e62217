"""Chooses again, while a prober runs, what was chosen when it began: local address, interface, and address of a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from twisted.internet import error
from twisted.logger import Logger

from udpecho.addresses import DatagramAddress
from udpecho.errors import EchoError
from udpecho.interfaces import Reactor
from udpecho.probe.flow import Flow
from udpecho.probe.lookup import Lookup
from udpecho.probe.target import Target, failureMessage, isRepeated, isSame

_log = Logger()


class Renewal:
    """Opens another socket for a flow that is not answered, if the system would choose another local address or interface now,
    and for one whose name has other addresses. A target that is only silent keeps its socket and its local port, by which
    routers choose the path (RFC 2991).
    """

    def __init__(
        self,
        reactor: Reactor,
        choose: Callable[[Flow, Target], DatagramAddress],
        reopen: Callable[[Flow, Target], object],
        interval: float | None,
    ) -> None:
        """@param choose: finds the local address that the system would choose for a flow now. May raise what C{reopen} raises.
        @param reopen: puts another socket in the place of that of a flow, to a target that may have moved.
        @param interval: how often names are looked up again, in seconds; C{None} only while a target is not answered.
        """
        self._reactor = reactor
        self._choose = choose
        self._reopen = reopen
        self._interval = interval
        self._flows: list[Flow] = []
        self._lookups: dict[str, Lookup] = {}
        self._stopped = False

    def add(self, flow: Flow) -> None:
        """Look after a flow that has begun."""
        self._flows.append(flow)
        target = flow.target
        if target.name not in self._lookups and not target.isLiteral:
            self._lookups[target.name] = Lookup(self._reactor, target, self._interval, self._resolved)

    def stop(self) -> None:
        """Look up no more, and open no more sockets."""
        self._stopped = True
        for lookup in self._lookups.values():
            lookup.stop()

    def unanswered(self, flow: Flow) -> None:
        """A flow is not answered. To be called about every second for as long."""
        self._renew(flow, flow.target)
        lookup = self._lookups.get(flow.target.name)
        if lookup is not None:
            lookup.request()

    def _resolved(self, name: str, addresses: Sequence[DatagramAddress]) -> None:
        for flow in self._flows:
            if flow.target.name != name:
                continue
            # A family without a route is not the only one that the target may have.
            if flow.problem is not None or not any(isSame(flow.target.address, each) for each in addresses):
                any(self._renew(flow, replace(flow.target, address=each)) for each in addresses)

    def _renew(self, flow: Flow, target: Target) -> bool:
        """@return: whether the flow has a socket as the system would open it now."""
        if self._stopped:
            # By an observer of the log.
            return False
        try:
            target = target.current()
            moved = not isSame(target.address, flow.target.address)
            if not moved and flow.sockets.isOpen:
                chosen, source = self._choose(flow, target), flow.source
                if (chosen.host, chosen.scopeID) == (source.host, source.scopeID):
                    flow.problem = None
                    return True
            formerPeer, formerSource = str(flow.target.address), str(flow.source)
            self._reopen(flow, target)
        except (error.CannotListenError, EchoError, OSError) as e:
            reason = failureMessage(e)
            if reason != flow.problem:
                flow.problem = reason
                if isRepeated(self._reactor, e):
                    return False
                _log.warn("cannot open another socket to {target}: {reason}", target=target.name, reason=reason)
            return False
        flow.problem = None
        _log.info(
            "probing {target} at {peer} from {source}, was at {formerPeer} from {formerSource}",
            target=target.name,
            peer=str(target.address),
            source=str(flow.source),
            formerPeer=formerPeer,
            formerSource=formerSource,
        )
        return True
