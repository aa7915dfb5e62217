"""What a NAT remembers: which outside port belongs to which endpoint inside, and who may answer it (RFC 4787)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import attrs

from udpecho.faults.models import number

Endpoint = tuple[str, int]

#: The behaviors of RFC 4787 sections 4.1 and 5, by its names.
ENDPOINT_INDEPENDENT = "endpoint-independent"
ADDRESS_DEPENDENT = "address-dependent"
ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
_behaviors = (ENDPOINT_INDEPENDENT, ADDRESS_DEPENDENT, ADDRESS_AND_PORT_DEPENDENT)

#: The ports of a NAT that does not keep the port of the endpoint inside, the first one first.
_firstPort, _afterPorts = 1024, 65536


def _isBehavior(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value not in _behaviors:
        raise ValueError(f"{attribute.name} must be one of {', '.join(_behaviors)}, got {value!r}")


def _isTimeout(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not number("timeout", value) > 0:
        raise ValueError(f"timeout must be a number of seconds, more than 0, got {value!r}")


@attrs.frozen(kw_only=True)
class NATBehavior:
    """How a NAT behaves, in the words of RFC 4787. By default as many at home do: the mapping is as peers wish it, the filter
    is strict.

    @ivar mapping: for which destinations an endpoint inside keeps its outside port (section 4.1).
    @ivar filtering: who outside may send to that port: anybody, or only those that the endpoint inside has sent to (section 5).
    @ivar timeout: seconds without a datagram after which a mapping, or a permission to send, is forgotten (section 4.3).
    @ivar hairpin: whether hosts inside reach each other by their outside addresses (section 6).
    @ivar preservePorts: whether the outside port is that of the endpoint inside, where it is free (section 4.2.1).
    @ivar refreshInbound: whether datagrams from outside keep a mapping too (section 4.3).
    """

    mapping: str = attrs.field(default=ENDPOINT_INDEPENDENT, validator=_isBehavior)
    filtering: str = attrs.field(default=ADDRESS_AND_PORT_DEPENDENT, validator=_isBehavior)
    timeout: float = attrs.field(default=120.0, validator=_isTimeout)
    hairpin: bool = True
    preservePorts: bool = True
    refreshInbound: bool = False


def _part(behavior: str, remote: Endpoint) -> str | Endpoint | None:
    """The part of a remote endpoint that a behavior looks at."""
    if behavior == ENDPOINT_INDEPENDENT:
        return None
    return remote[0] if behavior == ADDRESS_DEPENDENT else remote


@dataclass(eq=False)
class Mapping:
    """An outside port of an endpoint inside.

    @ivar inside: the endpoint.
    @ivar port: its port outside.
    @ivar isFixed: whether it was configured, and neither expires nor filters.
    @ivar usedAt: when it was last refreshed, in seconds.
    @ivar sentTo: when the endpoint last sent to those that the filter looks at, the longest ago first, in seconds.
    """

    inside: Endpoint
    port: int
    isFixed: bool = False
    usedAt: float = 0.0
    sentTo: dict[object, float] = field(default_factory=dict)


class Mappings:
    """The mappings of one NAT. Times are in seconds, on a clock that does not go back."""

    def __init__(self, behavior: NATBehavior) -> None:
        self.behavior = behavior
        self._byKey: dict[tuple[Endpoint, object], Mapping] = {}
        self._byPort: dict[int, Mapping] = {}
        self._fixed: dict[Endpoint, Mapping] = {}
        self._former: set[int] = set()
        self._next = _firstPort
        self._full = 1000
        self._noneUntil = 0.0

    @property
    def active(self) -> list[Mapping]:
        """The mappings that were made, also those that nobody has used for long."""
        return list(self._byPort.values())

    def forward(self, port: int, inside: Endpoint) -> None:
        """Map a port without a timeout, as a person does who configures a server inside.

        @raise ValueError: if the port is no number of a port, or is taken.
        """
        if not 1 <= port <= 65535:
            raise ValueError(f"port must be 1 to 65535, got {port!r}")
        if port in self._byPort:
            raise ValueError(f"port must be free, got {port}, which is that of {self._byPort[port].inside}")
        self._byPort[port] = self._fixed[inside] = Mapping(inside, port, isFixed=True)

    def outbound(self, inside: Endpoint, remote: Endpoint, now: float) -> Mapping | None:
        """An endpoint inside sends to a remote one.

        @return: its mapping, a new one if need be; C{None} if no port is free.
        """
        if inside in self._fixed:
            return self._fixed[inside]
        key = inside, _part(self.behavior.mapping, remote)
        mapping = self._byKey.get(key)
        if mapping is None or not self.isAlive(mapping, now):
            if len(self._byPort) >= self._full and now >= self._noneUntil:
                self._purge(now)
            port = self._choose(inside[1], now)
            if port is None:
                return None
            mapping = self._byKey[key] = self._byPort[port] = Mapping(inside, port)
        self._permit(mapping, _part(self.behavior.filtering, remote), now)
        return mapping

    def inbound(self, port: int, remote: Endpoint, now: float) -> Mapping | None:
        """A remote endpoint sends to a port outside.

        @return: the mapping, C{None} if there is none or the filter forbids it.
        """
        mapping = self._byPort.get(port)
        part = _part(self.behavior.filtering, remote)
        if mapping is None or not self.isAlive(mapping, now) or not self._permits(mapping, part, now):
            return None
        if self.behavior.refreshInbound and not mapping.isFixed:
            self._permit(mapping, part, now)
        return mapping

    def isAlive(self, mapping: Mapping, now: float) -> bool:
        """Whether a mapping is still in use."""
        if self._byPort.get(mapping.port) is not mapping:
            return False
        return mapping.isFixed or now - mapping.usedAt < self.behavior.timeout

    def forget(self) -> None:
        """Forget all mappings that were not configured: a restart."""
        self._byKey.clear()
        self._noneUntil = 0.0
        self._byPort = {mapping.port: mapping for mapping in self._fixed.values()}

    def rebind(self) -> None:
        """Forget them, and give none of their ports until the next time."""
        self._former = {port for port, mapping in self._byPort.items() if not mapping.isFixed}
        self.forget()

    def _permits(self, mapping: Mapping, part: object, now: float) -> bool:
        if mapping.isFixed or part is None:
            return True
        when = mapping.sentTo.get(part)
        return when is not None and now - when < self.behavior.timeout

    def _permit(self, mapping: Mapping, part: object, now: float) -> None:
        """Refresh a mapping, and the permission to answer; forget the permissions that are over."""
        mapping.usedAt, sentTo = now, mapping.sentTo
        sentTo.pop(part, None)
        sentTo[part] = now
        while now - sentTo[oldest := next(iter(sentTo))] >= self.behavior.timeout:
            del sentTo[oldest]

    def _choose(self, wanted: int, now: float) -> int | None:
        if now < self._noneUntil:
            return None
        for port in chain([wanted] if self.behavior.preservePorts else [], self._ports()):
            mapping = self._byPort.get(port)
            if port not in self._former and (mapping is None or not self.isAlive(mapping, now)):
                return port
        if self._former:
            # There are no others.
            self._former.clear()
            return self._choose(wanted, now)
        # A flood is not to look at all of them for each datagram.
        self._noneUntil = min(each.usedAt for each in self._byKey.values()) + self.behavior.timeout if self._byKey else now
        return None

    def _ports(self) -> Iterator[int]:
        """Each port once, from the one after the last on."""
        for _ in range(_firstPort, _afterPorts):
            port = self._next
            self._next = port + 1 if port + 1 < _afterPorts else _firstPort
            yield port

    def _purge(self, now: float) -> None:
        """Forget what nobody uses any more."""
        self._byKey = {key: mapping for key, mapping in self._byKey.items() if self.isAlive(mapping, now)}
        self._byPort = {port: mapping for port, mapping in self._byPort.items() if self.isAlive(mapping, now)}
        # Not again for each new one.
        self._full = min(2 * len(self._byPort) + 1000, _afterPorts - _firstPort)
