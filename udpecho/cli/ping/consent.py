"""Which targets need the user's consent."""

from __future__ import annotations

import argparse
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

from udpecho.guard.networks import LOOPBACK, PRIVATE, AddressRanges
from udpecho.probe.schedule import Plan
from udpecho.probe.target import Target

#: To how many probes a second from one port a stranger need not have agreed, as C{ping -f} has it.
POLITE_RATE = 100
_ownNetworks = {version: AddressRanges([*LOOPBACK, *PRIVATE], version) for version in (4, 6)}


def impolite(plan: Plan, options: argparse.Namespace, target: Target) -> str | None:
    """
    Whether a target should have been asked first.

    @return: what is wrong, or C{None}.
    """
    address = ip_address(target.address.host)
    if options.allow_strangers or int(address) in _ownNetworks[address.version] or _isOurs(address):
        return None
    if plan.flood:
        what = "a flood"
    elif options.sources / plan.interval > POLITE_RATE:
        what = f"more than {POLITE_RATE} probes a second"
    else:
        return None
    return f"{target.name} is neither this machine nor in a private network: {what} needs --allow-strangers, and its consent"


def _isOurs(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of this machine: then it can be bound. So can groups, which are others' too."""
    if address.is_multicast:
        return False
    try:
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind((str(address), 0))
    except OSError:
        return False
    return True
