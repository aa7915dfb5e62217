"""The global reactor, as long as a network in memory has it."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

import twisted.internet

from udpecho.interfaces import Reactor
from udpecho.testing.clock import NetworkClock
from udpecho.testing.substitution import Substitution

_name = "twisted.internet.reactor"
#: These go on with the reactor that was installed: they run the tests.
_spared = frozenset({"pytest_twisted", "twisted.trial", __name__})


class Network(Protocol):
    """What has the global reactor."""

    clock: NetworkClock


#: The networks that have the global reactor, each with the host for code outside of callbacks. The last one is in effect.
_stack: list[tuple[Network, Reactor]] = []


def currentHost() -> Reactor:
    """The host whose code runs; without a network the installed reactor."""
    for network, _ in reversed(_stack):
        if network.clock.owner is not None:
            return network.clock.owner
    return _stack[-1][1] if _stack else import_module(_name)


class GlobalReactor:
    """What C{twisted.internet.reactor} is meanwhile: in each callback the host that is called, the given one elsewhere.

    There is one such object. A module that got hold of it while no reactor was installed keeps it; without a network it is the
    installed reactor, which becomes Twisted's default when it is used first, as C{twisted.internet.reactor} does.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(currentHost(), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(currentHost(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(currentHost(), name)

    def __dir__(self) -> list[str]:
        return dir(currentHost())

    def __repr__(self) -> str:
        return f"<the global reactor, now {currentHost()!r}>"


_reactor = GlobalReactor()


@contextmanager
def globalReactor(network: Network, host: Reactor) -> Generator[None, None, None]:
    """Make a network the global reactor.

    @param host: the host for code outside of the network's callbacks.
    """
    entry = (network, host)
    installed: Any = sys.modules.get(_name)
    _stack.append(entry)
    if installed is not _reactor:
        _install(_reactor, installed)
    try:
        yield
    finally:
        _stack.remove(entry)
        if installed is not _reactor:
            _install(installed, _reactor)


def _install(new: Any, old: object) -> None:
    """Put a reactor in the place of another one, or of none."""
    if new is None:
        sys.modules.pop(_name, None)
        vars(twisted.internet).pop("reactor", None)
        return
    sys.modules[_name] = new
    vars(twisted.internet)["reactor"] = new
    if old is not None:
        Substitution([(old, new)]).run(_spared)
