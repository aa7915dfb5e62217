"""The command line and the configuration file, merged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from getopt import GetoptError, getopt
from typing import Any

from twisted.python import usage

from udpecho.daemon.config_file import ConfigurationError, FileOptions, read
from udpecho.options import Table, Values
from udpecho.printing import printable


@dataclass(frozen=True)
class Changes:
    """The names of the options that differ between two versions of a file, by whether they can be applied without a restart."""

    applicable: tuple[str, ...]
    needRestart: tuple[str, ...]


@dataclass(frozen=True)
class CommandLine:
    """A command line, with the file that it names.

    @ivar values: those of the file.
    @ivar parsed: what the parsers of the options have made of these, without those in C{given}.
    @ivar given: the names of the options in the command line itself.
    """

    values: Values
    parsed: Mapping[str, Any]
    given: frozenset[str]


def expand(options: usage.Options, arguments: Sequence[str], table: Table, file: FileOptions | None = None) -> CommandLine:
    """Read the file that a command line names with C{--check-config} or C{--config}, if it does. Errors in the command line
    itself are left for C{options} to report.

    @param table: the options of the daemon.
    @param file: what is in the file, if it has been read.
    @raise ConfigurationError: if the file cannot be used.
    """
    pairs = _pairs(options, arguments)
    given = frozenset(name for name, _ in pairs)
    paths = _valuesOf("check-config", pairs) or _valuesOf("config", pairs)
    if file is None:
        file = read(paths[-1], table) if paths else FileOptions({}, {})
    values, parsed = file
    return CommandLine(values, {name: value for name, value in parsed.items() if name not in given}, given)


def fileToCheck(options: usage.Options, arguments: Sequence[str]) -> str | None:
    """The file that a command line names with C{--check-config}, if it does."""
    paths = _valuesOf("check-config", _pairs(options, arguments))
    return paths[-1] if paths else None


def compare(before: Values, after: Values, table: Table, given: Collection[str] = ()) -> Changes:
    """Compare two versions of a file. No file changes the options that the command line has given."""
    # A switch that is off is as one that is left out.
    changed = [name for name in table if name not in given and (before.get(name) or None) != (after.get(name) or None)]
    applicable = tuple(name for name in changed if table[name].reloads)
    return Changes(applicable, tuple(name for name in changed if name not in applicable))


def check(path: str, parse: Callable[[], object]) -> int:
    """C{--check-config}: print the problems of a file and of the options that were given with it, or that there are none.

    @param parse: reads all of them as the start would. It raises L{ConfigurationError} if the file cannot be used, and
        C{usage.UsageError} if another option is wrong, or if options exclude each other.
    @return: an exit status, 0 or 1.
    """
    problems: Sequence[str] = ()
    try:
        parse()
    except ConfigurationError as e:
        problems = e.problems
    except usage.UsageError as e:
        problems = [f"{printable(path)}: {e}"]
    print(*(problems or [f"{printable(path)}: ok"]), sep="\n")
    return 1 if problems else 0


def _valuesOf(option: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [value for name, value in pairs if name == option]


def _pairs(options: usage.Options, arguments: Sequence[str]) -> list[tuple[str, str]]:
    """The options in a command line, by their full names, with their values."""
    try:
        pairs, _ = getopt(list(arguments), options.shortOpt, options.longOpt)
    except GetoptError:
        return []
    synonyms = options.synonyms
    found = []
    for option, value in pairs:
        name = option.lstrip("-")
        # Twisted has the options that are methods by their Python names.
        found.append(((synonyms.get(name) or synonyms[name.replace("-", "_")]).replace("_", "-"), value))
    return found
