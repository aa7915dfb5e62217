"""The upstream of a proxy: its addresses, looked up again for new clients."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import cast

from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.interfaces import Reactor
from udpecho.net.resolver import literal, resolve
from udpecho.net.sockets import isOwnAddress

#: Seconds that the first lookup of a name may take.
_FIRST_TIMEOUT = 5.0
#: Seconds that clients wait for a later one, before the address from the last one is used.
_TIMEOUT = 1.0
#: Seconds for which an answer is good, and seconds until a name is tried again that could not be looked up.
_CACHED = 1.0
_RETRY = 10.0

_log = Logger()


class Upstream:
    """Where the datagrams of a proxy's clients go.

    @ivar addresses: the addresses of the name, in the resolver's order; empty before the first lookup.
    """

    def __init__(self, reactor: Reactor, address: tuple[str, int]) -> None:
        """@param address: the port, and an IP address or a name.
        @raise error.DNSLookupError: if the scope of a link-local address is not an interface of this machine.
        """
        self._reactor = reactor
        self._host, self._port = address
        found = address if isinstance(address, DatagramAddress) else literal(*address)
        self._named = found is None
        self.addresses = [] if found is None else [found]
        self._refused: set[DatagramAddress] = set()
        self._goodUntil = reactor.seconds()
        self._waiting: list[defer.Deferred[None]] = []
        self._lookUp: defer.Deferred[None] | None = None
        self._failing = False

    @property
    def address(self) -> DatagramAddress | None:
        """The address for a new client: the first that has not refused one, C{None} before the first lookup."""
        return next((address for address in self.addresses if address not in self._refused), None)

    @property
    def current(self) -> bool:
        """Whether the addresses are as good as a lookup would find."""
        return not self._named or self._reactor.seconds() < self._goodUntil

    def lookUp(self) -> defer.Deferred[None]:
        """Look the name up.

        @return: fires when there is an answer. Fails as L{resolve} does, but not if there was an answer before: that is kept.
        """
        done: defer.Deferred[None] = defer.Deferred()
        self._waiting.append(done)
        if self._lookUp is None:
            timeout = _TIMEOUT if self.addresses else _FIRST_TIMEOUT
            self._lookUp = looking = resolve(self._reactor, self._host, self._port, timeout).addCallbacks(
                self._found, self._notFound
            )
            looking.addBoth(self._answer)
        return done

    def _found(self, addresses: list[DatagramAddress]) -> None:
        if self.addresses and set(addresses) != set(self.addresses):
            texts = ", ".join(map(formatAddress, addresses))
            _log.warn("upstream {name} has other addresses: {addresses}", name=self._host, addresses=texts)
        self.addresses = addresses
        self._refused &= set(addresses)
        self._goodUntil = self._reactor.seconds() + _CACHED
        self._failing = False

    def _notFound(self, failure: Failure) -> Failure | None:
        if not self.addresses or failure.check(defer.CancelledError):
            return failure
        self._goodUntil = self._reactor.seconds() + _RETRY
        if not self._failing:
            self._failing = True
            # A DNSLookupError makes a sentence of its own around its message.
            reason = str(cast(Exception, failure.value).args[0])
            _log.warn("{reason}; the address from the last lookup is used", reason=reason)
        return None

    def _answer(self, result: Failure | None) -> None:
        self._lookUp = None
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(result)

    def refused(self, address: DatagramAddress) -> bool:
        """Nothing listens at an address.

        @return: whether there is another one.
        """
        self._refused.add(address)
        if self.address is None:
            self._refused.clear()
        return self.address not in (None, address)

    def isProxy(self, address: DatagramAddress, listening: tuple[str, int]) -> bool:
        """Whether an upstream address is the one that the proxy itself listens on."""
        if address.port != listening[1]:
            return False
        own = _plain(listening[0])
        host = _reached(address)
        if not own.is_unspecified:
            return host == own
        # The wildcard of IPv6 is that of IPv4, too.
        return own.version in (6, host.version) and isOwnAddress(str(host), address.scopeID)

    def isSource(self, address: DatagramAddress) -> bool:
        """Whether a datagram comes from the upstream itself."""
        return address.port == self._port and any(sameHost(address, own) for own in self.addresses)

    def close(self) -> None:
        """Look nothing up any more."""
        if self._lookUp is not None:
            self._lookUp.cancel()


def sameHost(source: DatagramAddress, upstream: DatagramAddress) -> bool:
    """Whether a datagram comes from the host of an upstream address."""
    return (_plain(source.host), source.scopeID) == (_reached(upstream), upstream.scopeID)


def _reached(address: DatagramAddress) -> IPv4Address | IPv6Address:
    """The address that the system sends to."""
    host = _plain(address.host)
    if host.is_unspecified:
        # It is this machine (RFC 1122 section 3.2.1.3).
        return ip_address("127.0.0.1" if host.version == 4 else "::1")
    return host


def _plain(host: str) -> IPv4Address | IPv6Address:
    """An IPv4 address as such, also where IPv6 has it (RFC 4291 section 2.5.5.2)."""
    address = ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
