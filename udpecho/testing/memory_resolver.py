"""Names of the hosts of a network in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        # Names are resolved at once.
        raise NotImplementedError


@implementer(IHostnameResolver)
class MemoryResolver:
    """Resolves the names of a network's hosts."""

    def __init__(self, addressesOf: Callable[[str], Sequence[str]]) -> None:
        """@param addressesOf: the addresses of a host by its name, none of an unknown one."""
        self._addressesOf = addressesOf

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Resolve at once."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        if isIPAddress(hostName) or isIPv6Address(hostName):
            addresses: Sequence[str] = [hostName]
        elif hostName == "localhost":
            addresses = ["127.0.0.1", "::1"]
        else:
            addresses = self._addressesOf(hostName)
        for address in addresses:
            kind = IPv6Address if ":" in address else IPv4Address
            if addressTypes is None or kind in addressTypes:
                resolutionReceiver.addressResolved(kind("UDP" if transportSemantics == "UDP" else "TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution
