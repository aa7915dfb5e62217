"""Which client of a proxy is forgotten first."""

from __future__ import annotations

from collections import OrderedDict

from udpecho.faults.proxy_client import ProxyClient


class IdleOrder:
    """The clients in the order of their last datagram: those that may be forged first, then those that are not, since they have
    sent again after a reply.
    """

    def __init__(self) -> None:
        self._orders: tuple[OrderedDict[ProxyClient, None], OrderedDict[ProxyClient, None]] = OrderedDict(), OrderedDict()

    def touch(self, client: ProxyClient) -> None:
        """A client is active."""
        order = self._orders[client.known]
        order[client] = None
        order.move_to_end(client)

    def know(self, client: ProxyClient) -> None:
        """A client has sent again."""
        if client.answered and not client.known:
            self.remove(client)
            client.known = True

    def remove(self, client: ProxyClient) -> None:
        """A client is forgotten."""
        self._orders[client.known].pop(client, None)

    def first(self) -> ProxyClient:
        """The client to forget first."""
        return next(iter(self._orders[False] or self._orders[True]))

    def longestIdle(self) -> list[ProxyClient]:
        """The longest idle client of those that may be forged, and of those that are not, as far as there are any."""
        return [next(iter(order)) for order in self._orders if order]
