"""Which targets may be probed fast only with their consent."""

from __future__ import annotations

import argparse
from ipaddress import ip_address

from udpecho.guard.networks import LOOPBACK, PRIVATE, AddressRanges
from udpecho.net.sockets import isOwnAddress
from udpecho.pieces import finish
from udpecho.probe.schedule import Plan
from udpecho.probe.target import Target

#: The rate that a public address need not have agreed to, in probes a second, as in C{ping -f}.
MAX_PUBLIC_RATE = 100
_localNetworks = {version: finish(AddressRanges.make([*LOOPBACK, *PRIVATE], version)) for version in (4, 6)}


def consentNeeded(plan: Plan, options: argparse.Namespace, target: Target) -> str | None:
    """The error message if a plan needs the consent of the target and the user has not given C{--allow-public}."""
    address = ip_address(target.address.host)
    if options.allow_public or int(address) in _localNetworks[address.version] or isOwnAddress(str(address)):
        return None
    if plan.flood:
        what = "a flood"
    elif options.sources / plan.interval > MAX_PUBLIC_RATE:
        what = f"more than {MAX_PUBLIC_RATE} probes a second"
    else:
        return None
    return f"{what} to a public address must have its consent and --allow-public, got {target.name}"
