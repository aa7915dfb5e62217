"""Options of a daemon: each is a row of its one table, from which the command line, the configuration file and the
documentation are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: An option's value as the command line would have it: its text, those of an option that may be given several times, or whether
#: a switch is on.
Value = str | tuple[str, ...] | bool
#: Values by the names of their options.
Values = Mapping[str, Value]

TEXT, NUMBER, LIST, SWITCH = "text", "number", "list", "switch"


@dataclass(frozen=True)
class Option:
    """An option of C{twistd udpecho} or C{twistd udpecho-probe}.

    @ivar name: on the command line and in the configuration file.
    @ivar kind: L{TEXT}, a string; L{NUMBER}, a number, or a string such as C{"4M"} or C{"all"}; L{LIST}, a string or an array
        of strings; L{SWITCH}, C{true} or C{false}.
    @ivar metavar: what the documentation calls the value.
    @ivar default: the default as the command line would have it; C{None} if no text stands for it.
    @ivar parse: reads the text, and raises C{ValueError} if it is wrong; C{None} if any text will do.
    @ivar defaultText: what applies without the option, where there is no C{default}.
    @ivar owner: the class with a field for the value, if there is one. The field has the option's name, without C{no-},
        unless C{attribute} names it.
    @ivar reloads: whether a reload applies it while the daemon works.
    @ivar inFile: whether the configuration file may have it.
    """

    name: str
    kind: str
    metavar: str = ""
    default: str | None = None
    help: str = ""
    parse: Callable[[str], object] | None = None
    defaultText: str = ""
    owner: type[Any] | None = None
    attribute: str = ""
    reloads: bool = False
    inFile: bool = True
    short: str | None = None

    @property
    def description(self) -> str:
        """The whole help."""
        return f"{self.help} May be given several times." if self.kind == LIST else self.help

    @property
    def usage(self) -> str:
        """The whole help, with what applies without the option."""
        return self.description + (f" [default: {self.defaultText}]" if self.defaultText else "")

    @property
    def field(self) -> str:
        """The name of the field."""
        first, *others = self.name.removeprefix("no-").split("-")
        return self.attribute or first + "".join(map(str.capitalize, others))

    @staticmethod
    def listed(parsed: Any) -> Any:
        """What the parser of an option that may be given several times has made, as values: a name may stand for several."""
        return [parsed] if isinstance(parsed, str) else parsed

    def fieldValue(self, value: Any) -> Any:
        """The value for the field, from the parsed value."""
        if self.kind == LIST:
            return tuple(value)
        return bool(value) != self.name.startswith("no-") if self.kind == SWITCH else value


#: The options of every daemon that reads a configuration file.
CONFIG = (
    Option(
        "config",
        TEXT,
        "FILE",
        defaultText="none",
        inFile=False,
        help="A TOML file with options; those on the command line win. SIGHUP reads it again.",
    ),
    Option(
        "check-config",
        TEXT,
        "FILE",
        defaultText="none",
        inFile=False,
        help="Print what is wrong with a configuration file or the other options, and exit.",
    ),
)

#: Options by name, in the order of the documentation.
Table = Mapping[str, Option]


def makeTable(options: Iterable[Option]) -> Table:
    """Make a table of options."""
    return {option.name: option for option in options}


def fieldsOf(table: Table, owner: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for an owner of options, from the parsed values by the names of their options. An empty list stands for
    the default.
    """
    chosen = (option for option in table.values() if option.owner is owner and values[option.name] != [])
    return {option.field: option.fieldValue(values[option.name]) for option in chosen}
