"""Targets of probes."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.errors import NO_DESCRIPTOR
from udpecho.interfaces import Reactor
from udpecho.net.features import Refused
from udpecho.net.resolver import literal, resolve
from udpecho.parsing import parseAddress

#: How long looking up a target may take, in seconds.
LOOKUP_TIMEOUT = 5.0

#: Seconds in which a lack of file descriptors is logged once, and when it was logged last, by reactor.
_quiet = 60.0
_exhausted: WeakKeyDictionary[Reactor, float] = WeakKeyDictionary()


@dataclass(frozen=True)
class Target:
    """A peer to probe.

    @ivar name: the address as the user wrote it.
    @ivar family: 4 or 6 if the name is looked up for IPv4 or IPv6 addresses only.
    """

    name: str
    address: DatagramAddress
    family: int | None = None

    def __post_init__(self) -> None:
        """@raise ValueError: if the address is not an IP address and a port to send to."""
        address = self.address
        if not isinstance(address, DatagramAddress) or literal(*address) is None:
            raise ValueError(f"address of a target must be a DatagramAddress with an IP address, got {address!r}")
        if not 1 <= address.port <= 65535:
            raise ValueError(f"port must be 1 to 65535, got {address.port!r}")

    @classmethod
    def of(cls, text: str) -> Target:
        """Read C{ADDR:PORT} or C{[ADDR]:PORT}; a name needs L{findTarget}.

        @raise ValueError: with the form that is expected.
        """
        host, port = parseAddress(text)
        address = literal(host, port)
        if address is None:
            raise ValueError(f"host must be an IP address, got {host!r}: look the name up first")
        return cls(text, address)

    @property
    def isLiteral(self) -> bool:
        """Whether the name needs no lookup."""
        try:
            return literal(*parseAddress(self.name)) is not None
        except ValueError:
            return True
        except error.DNSLookupError:
            # An interface that is not there at the moment.
            return True

    def current(self) -> Target:
        """This target as it is reached now: an interface that was made anew has another index.

        @raise error.DNSLookupError: if there is no interface with that name.
        """
        try:
            address = literal(*parseAddress(self.name))
        except ValueError:
            return self
        return self if address is None or isSame(address, self.address) else replace(self, address=address)


def isSame(one: DatagramAddress, other: DatagramAddress) -> bool:
    """Whether two addresses are equal, also in their scope."""
    return one == other and one.scopeID == other.scopeID


def isRepeated(reactor: Reactor, reason: BaseException | None) -> bool:
    """Whether the log has had this lately, for another target: when there is no file descriptor left, all targets lack one."""
    if getattr(getattr(reason, "socketError", reason), "errno", None) not in NO_DESCRIPTOR:
        return False
    now, before = float(reactor.seconds()), _exhausted.get(reactor)
    if before is not None and now - before < _quiet:
        return True
    _exhausted[reactor] = now
    return False


def failureMessage(reason: BaseException) -> str:
    """Why a target cannot be probed: the message for an exception of L{findTarget}, or one in L{Prober.failures
    <udpecho.probe.prober.Prober>}.
    """
    if isinstance(reason, error.CannotListenError):
        return f"cannot send from {formatAddress((reason.interface, reason.port))}: {failureMessage(reason.socketError)}"
    number = getattr(reason, "errno", None)
    if number == errno.ENOPROTOOPT and not isinstance(reason, Refused):
        return f"the system refuses an option: {os.strerror(number)}"
    if number in NO_DESCRIPTOR:
        return f"no file descriptor is left: {os.strerror(number)} (ulimit -n, LimitNOFILE=)"
    # A DNSLookupError is an OSError with a message and no strerror.
    return getattr(reason, "strerror", None) or str(reason.args[0])


async def addressesOf(reactor: Reactor, text: str, family: int | None = None) -> list[DatagramAddress]:
    """Look up all addresses of a target. The parameters and exceptions are those of L{findTarget}."""
    host, port = parseAddress(text)
    found = literal(host, port)
    if found is not None and family is not None and (6 if ":" in found.host else 4) != family:
        raise ValueError(f"{text} must be an IPv{family} address, got {host}")
    types: Sequence[type[IAddress]] | None = None if family is None else [IPv6Address if family == 6 else IPv4Address]
    return await resolve(reactor, host, port, LOOKUP_TIMEOUT, types)


async def findTarget(reactor: Reactor, text: str, family: int | None = None) -> Target:
    """Look up a target.

    @param reactor: an C{IReactorTime} and C{IReactorPluggableNameResolver} provider.
    @param text: C{HOST:PORT}, or C{[ADDR]:PORT}.
    @param family: 4 or 6 for IPv4 or IPv6 addresses only.
    @raise ValueError: if the text is not an address, or one of the other family.
    @raise error.DNSLookupError: if the name has no address.
    @raise ResponseTimeout: after L{LOOKUP_TIMEOUT}.
    @raise EchoError: if there is no descriptor left.
    """
    return Target(text, (await addressesOf(reactor, text, family))[0], family)
