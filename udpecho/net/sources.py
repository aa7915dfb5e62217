"""The sources of datagrams: what a protocol gets as such, and what is known beyond it, which a reply needs.

An ordinary protocol gets a plain tuple, as from Twisted's own port: any code can serialise or compare it. So what is known is
remembered here. It is found by the very tuple, and for an equal one it is what the latest datagram from there came with.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from twisted.internet.protocol import DatagramProtocol

from udpecho.addresses import DatagramAddress, plainAddress
from udpecho.interfaces import IDatagramAddressReceiver

#: How many sources are remembered at the least. There are twice as many at the most, whatever is forged.
REMEMBERED = 4096


class Arrival(NamedTuple):
    """How a datagram came. The fields are those of L{DatagramAddress}."""

    localHost: str | None = None
    unicast: bool = True
    hopLimit: int | None = None
    interface: int = 0
    answerable: bool = True
    ecn: int | None = None

    @property
    def reason(self) -> str | None:
        """Why such a datagram is dropped, if it is: it has no hop left for a reply."""
        # What is sent to a group has one hop by default, and nobody is to answer it.
        return "loop_guard" if self.unicast and self.hopLimit is not None and self.hopLimit < 2 else None


class Source:
    """What is known of a source.

    @ivar address: what the protocol got.
    @ivar key: what it is found by when another datagram comes.
    @ivar isUsual: whether all such datagrams are handed over as they are.
    @ivar isShared: whether there are others of the same address that came in another way.
    @ivar destination: how to send to it, once that is known.
    @ivar isTaken: whether the system has taken a datagram for it.
    """

    __slots__ = ("address", "arrival", "destination", "isShared", "isTaken", "isUsual", "key")

    def __init__(self, address: tuple[str, int], arrival: Arrival, key: Hashable, isUsual: bool) -> None:
        self.address = address
        self.arrival = arrival
        self.key = key
        self.isUsual = isUsual
        self.isShared = self.isTaken = False
        self.destination: Any = None


class _Generation:
    """Sources: by key, the latest by address, and those that share an address by the identity of what the protocol got.
    C{usual} has what the protocol got, by key, where nothing else needs to be done.
    """

    __slots__ = ("byIdentity", "byKey", "latest", "usual")

    def __init__(self) -> None:
        self.usual: dict[Hashable, tuple[str, int]] = {}
        self.byKey: dict[Hashable, Source] = {}
        self.latest: dict[tuple[str, int], Source] = {}
        self.byIdentity: dict[int, Source] = {}


class Sources:
    """The sources of one port, in two generations: when the younger one is full, the older one is forgotten.

    @ivar usual: what the protocol gets, by the key of a datagram, for those that are handed over as they are. It is another
        object when a new generation begins.
    """

    def __init__(self, protocol: DatagramProtocol) -> None:
        self.wantsDetails = IDatagramAddressReceiver.providedBy(protocol)
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self._young, self._old = _Generation(), _Generation()
        self.usual = self._young.usual

    def handOver(self, key: Hashable, name: tuple[Any, ...], arrival: Arrival, isUsual: bool = True) -> tuple[str, int]:
        """What the protocol gets as the source of a datagram.

        @param key: all that it came with: the same datagrams have the same key.
        @param name: the socket address, as Python's C{socket} module has it.
        @param isUsual: whether others of this key need no look.
        """
        source = self._young.byKey.get(key) or self._old.byKey.get(key)
        if source is None:
            address = DatagramAddress(name[:2])
            if len(name) == 4:
                address.flowInfo, address.scopeID = name[2:]
            if self.wantsDetails:
                vars(address).update(arrival._asdict())
            source = Source(address if self.wantsDetails else plainAddress(address), arrival, key, isUsual)
        self._remember(source)
        return source.address

    def _remember(self, source: Source) -> None:
        """It is the latest of its address."""
        young, address = self._young, source.address
        if not self.wantsDetails:
            former = young.latest.get(address) or self._old.latest.get(address)
            if former is not None and former.arrival != source.arrival:
                former.isShared = source.isShared = True
                young.usual.pop(former.key, None)
                young.byIdentity[id(former.address)] = former
            if source.isShared:
                young.byIdentity[id(address)] = source
            young.latest[address] = source
        young.byKey[source.key] = source
        if source.isUsual and not source.isShared:
            young.usual[source.key] = address
        if len(young.byKey) >= REMEMBERED:
            self._old, self._young = young, _Generation()
            self.usual = self._young.usual

    def find(self, address: tuple[str, int]) -> Source | None:
        """What is known of the source that a protocol got as C{address}, or as one that equals it."""
        source = self._young.latest.get(address) or self._old.latest.get(address)
        if source is not None and source.isShared and source.address is not address:
            for generation in (self._young, self._old):
                same = generation.byIdentity.get(id(address))
                if same is not None and same.address is address:
                    return same
        return source

    def forget(self, source: Source) -> None:
        """What is known of a source is not true any more."""
        for generation in (self._young, self._old):
            generation.byKey.pop(source.key, None)
            generation.usual.pop(source.key, None)
            generation.latest.pop(source.address, None)
            generation.byIdentity.pop(id(source.address), None)
