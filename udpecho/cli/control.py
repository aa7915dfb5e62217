"""C{udpecho proxy --control}: an HTTP API that changes the proxies while they run."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from twisted.internet import error

from udpecho.addresses import formatAddress
from udpecho.cli.console import complain
from udpecho.parsing import parseEndpoint, parseLocalAddress, parsePort

if TYPE_CHECKING:
    from udpecho.faults.control_pages import Control


def parseControl(text: str) -> str:
    """Read where the API is: a port of 127.0.0.1, C{ADDR:PORT}, or an endpoint that names its interface.

    @return: the endpoint, as in C{tcp:8474:interface=127.0.0.1}.
    """
    if re.fullmatch("[0-9]+", text):
        return f"tcp:{parsePort(text, lowest=0)}:interface=127.0.0.1"
    with suppress(ValueError):
        host, port = parseLocalAddress(text)
        if host != text and not text.startswith(("tcp", "unix")):
            escaped = host.replace(":", "\\:")
            return f"tcp{'6' if ':' in host else ''}:{port}:interface={escaped}"
    if re.match("(haproxy:)?(tcp6?|ssl):", text) and not re.search(":interface=.", text):
        raise ValueError(f"control must name its interface, as in tcp:8474:interface=127.0.0.1, got {text!r}")
    return parseEndpoint(text)


async def startControl(control: Control, endpoint: str) -> None:
    """Serve the API, and print where.

    @raise ValueError: if the system refuses the endpoint.
    """
    try:
        address: Any = await control.start(endpoint)
    except (error.CannotListenError, OSError) as e:
        reason: Any = getattr(e, "socketError", e)
        raise ValueError(f"cannot serve the control on {endpoint}: {getattr(reason, 'strerror', None) or reason}") from None
    host = getattr(address, "host", None)
    if host is None:
        complain(f"control on {endpoint}")
        return
    complain(f"control on http://{formatAddress((host, address.port))}")
    if not ip_address(host).is_loopback:
        complain("whoever reaches the control can have datagrams sent anywhere: 127.0.0.1 would keep it to this machine")
