"""The one table of options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from udpecho.guard.networks import parseNetwork
from udpecho.parsing import (
    parseBytes,
    parseEndpoint,
    parseInterface,
    parseLimit,
    parseLogRate,
    parsePayloadSize,
    parsePort,
    parseSeconds,
    parseWorkers,
)

#: An option's value as the command line would have it: its text, those of an option that may be given several times, or whether
#: a switch is on.
Value = str | tuple[str, ...] | bool
#: Values by the names of their options.
Values = Mapping[str, Value]

TEXT = "text"
NUMBER = "number"
LIST = "list"
SWITCH = "switch"


@dataclass(frozen=True)
class Setting:
    """
    What an option takes.

    @ivar kind: L{TEXT}, a string; L{NUMBER}, a number, or a string such as C{"4M"} or C{"all"}; L{LIST}, a string or an array
        of strings; L{SWITCH}, C{true} or C{false}.
    @ivar parse: reads one text, and raises C{ValueError} with a sentence if it is wrong; C{None} if only the option can.
    @ivar reloads: whether it can be applied while serving.
    """

    kind: str
    parse: Callable[[str], object] | None = None
    reloads: bool = False


#: The options of C{twistd udpecho} that a file may have.
SETTINGS: Mapping[str, Setting] = {
    "port": Setting(NUMBER, partial(parsePort, lowest=0)),
    "interface": Setting(LIST, parseInterface),
    "max-payload": Setting(NUMBER, parsePayloadSize),
    "log-datagrams": Setting(NUMBER, parseLogRate, reloads=True),
    "write-timeout": Setting(NUMBER, parseSeconds),
    "receive-buffer": Setting(NUMBER, parseBytes),
    "workers": Setting(NUMBER, parseWorkers),
    "no-offload": Setting(SWITCH),
    "allow": Setting(LIST, parseNetwork, reloads=True),
    "trust": Setting(LIST, parseNetwork, reloads=True),
    "rate": Setting(NUMBER, parseLimit, reloads=True),
    "burst": Setting(NUMBER, partial(parseLimit, lowest=1), reloads=True),
    "max-rate": Setting(NUMBER, parseLimit, reloads=True),
    "no-loop-guard": Setting(SWITCH),
    "dry-run": Setting(SWITCH, reloads=True),
    "metrics": Setting(TEXT, parseEndpoint),
    "socket-activation": Setting(LIST),
}
