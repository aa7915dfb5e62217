"""The prober as a daemon: the probe service, with what all daemons have."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet import defer

from udpecho.daemon.base import BaseDaemon, Reloader
from udpecho.daemon.start_errors import checkSender
from udpecho.daemon.states import Works
from udpecho.errors import EXHAUSTED
from udpecho.interfaces import Reactor
from udpecho.pieces import Work
from udpecho.probe.service import ProbeService
from udpecho.probe.target import failureMessage

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from udpecho.probe.metrics import ProbeMetrics


class ProbeDaemon(BaseDaemon):
    """A L{ProbeService} as a daemon. C{SIGUSR1} logs the results so far.

    It is healthy unless it can send no probe because this process or this machine lacks something: a restart may help then. It
    is ready while one target or more is probed. Both pages have each target, and why one is not probed.
    """

    name = "prober"

    def __init__(
        self,
        reactor: Reactor,
        probes: ProbeService,
        environment: MutableMapping[str, str],
        *,
        metrics: str | None = None,
        probeMetrics: ProbeMetrics | None = None,
        reload: Reloader | None = None,
    ) -> None:
        """@param reactor: one that C{probes} can run on too; for it and the other parameters see L{BaseDaemon}.
        @param probeMetrics: the metrics of C{probes}; needed for C{metrics}.
        """
        self.probes = probes
        self._probeMetrics = probeMetrics
        super().__init__(reactor, probes, environment, metrics, reload)

    def _makeRegistry(self) -> CollectorRegistry:
        from udpecho.probe.metrics import makeRegistry

        assert self._probeMetrics is not None
        return makeRegistry(self._probeMetrics)

    def _bindSockets(self) -> None:
        # Each target has its own socket, which is opened, and opened again, at any time.
        for address in self.probes.bindAddresses:
            checkSender(*address)

    def _status(self) -> str:
        targets = list(self.probes.states())
        return f"probing {len(targets)} target{'s' if len(targets) > 1 else ''}: {', '.join(targets)}"

    def _logResults(self) -> None:
        self.probes.logResults()

    def _prepare(self, options: Mapping[str, Any]) -> Work[Callable[[], object]]:
        yield
        return partial(self.probes.configure, options["target"])

    def check(self) -> defer.Deferred[dict[str, str | None]]:
        """Check whether probes can be sent, as far as this machine is concerned.

        @return: fires with the state of the prober, and with the targets, which do not decide.
        """
        states = self.probes.states()
        lacks = None if None in states.values() else _lacks()
        return self._withTargets(None if lacks is None else f"cannot send: {lacks}")

    def checkReady(self) -> defer.Deferred[dict[str, str | None]]:
        """Check whether any target is probed.

        @return: fires as L{check}.
        """
        return self._withTargets(None if None in self.probes.states().values() else "no target is probed")

    def _withTargets(self, state: str | None) -> defer.Deferred[dict[str, str | None]]:
        states = self.probes.states().items()
        targets = {name: None if reason is None else Works(f"not probed: {reason}") for name, reason in states}
        return defer.succeed({self.name: state, **targets})


def _lacks() -> str | None:
    """What keeps this process from opening a socket; C{None} if nothing does."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except OSError as e:
        return failureMessage(e) if e.errno in EXHAUSTED else None
    return None
