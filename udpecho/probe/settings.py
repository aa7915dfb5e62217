"""The one table of options of C{twistd udpecho-probe}. The command line and the configuration file are made from it, and tests
check that the table in the documentation has the same. What an option sets is a field of L{Plan} or L{SocketOptions}.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from udpecho.options import CONFIG, LIST, NUMBER, TEXT, Option, fieldsOf, makeTable
from udpecho.parsing import (
    parseEndpoint,
    parseInterval,
    parseLocalAddress,
    parseNumber,
    parseSizes,
    parseTarget,
    parseTOS,
)
from udpecho.probe.io.socket import SocketOptions
from udpecho.probe.schedule import Plan

_sources = partial(parseNumber, lowest=1, highest=1024, what="number of sources")
_plan = partial(Option, owner=Plan)
_socket = partial(Option, owner=SocketOptions)

# An option in one line or two, which the formatter would make eight.
# fmt: off
_options = (
    Option("target", LIST, "HOST:PORT", parse=parseTarget, reloads=True, short="t",
           help="A server to probe, HOST:PORT or [ADDR]:PORT."),
    _plan("interval", NUMBER, "TIME", f"{Plan.interval:g}", parse=parseInterval, short="i",
          help="Time between two probes to a target."),
    _plan("timeout", NUMBER, "TIME", f"{Plan.timeout:g}", parse=parseInterval, short="W",
          help="Time until a probe without a reply is lost; a reply after that is late."),
    _plan("size", NUMBER, "BYTES", "64", parse=parseSizes, attribute="sizes", short="s",
          help="Bytes of payload: a size, a list 64,512 or a range 64-1400:8, used in turn."),
    Option("sources", NUMBER, "N", "1", parse=_sources, help="Number of local ports to probe each target from."),
    _socket("bind", TEXT, "ADDR", defaultText="the system's choice", short="b",
            parse=parseLocalAddress, attribute="bindAddress", help="The local address to send from: ADDR or ADDR:PORT."),
    _socket("tos", NUMBER, "CLASS", defaultText="the system's", parse=parseTOS, attribute="trafficClass", short="Q",
            help="The traffic class: a byte, or the name of a code point, as in EF."),
    Option("resolve-interval", NUMBER, "TIME", "60", parse=parseInterval,
           help="Time between two lookups of a target's name; sooner while it does not answer."),
    Option("metrics", TEXT, "ENDPOINT", defaultText="nowhere", parse=parseEndpoint, short="m",
           help="Serve Prometheus metrics and health checks at ENDPOINT, as in tcp:9108:interface=127.0.0.1."),
    *CONFIG,
)
# fmt: on
#: All options by name, in the order of the documentation.
OPTIONS = makeTable(_options)


def settingsFrom(values: Mapping[str, Any]) -> tuple[Plan, SocketOptions]:
    """Make the settings objects of the parsed values, by the names of their options.

    @raise ValueError: if too many probes would be outstanding to match their replies.
    """
    plan, socket = (fieldsOf(OPTIONS, owner, values) for owner in (Plan, SocketOptions))
    return Plan(**plan), SocketOptions(**socket)
