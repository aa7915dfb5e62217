"""The command line and the configuration file, merged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from getopt import GetoptError, getopt

from twisted.python import usage

from udpecho.daemon.config_file import ConfigurationError, _shown, read
from udpecho.server.settings import SETTINGS, Setting, Values


@dataclass(frozen=True)
class Changes:
    """
    What is not the same in a file as it was before.

    @ivar applicable: the names of the options that can be applied while serving.
    @ivar needRestart: those that cannot.
    """

    applicable: tuple[str, ...]
    needRestart: tuple[str, ...]


@dataclass(frozen=True)
class CommandLine:
    """
    A command line, and the file behind it.

    @ivar arguments: what both say, for C{usage.Options.parseOptions}.
    @ivar values: what the file has.
    @ivar given: the names of the options that the command line has itself.
    """

    arguments: tuple[str, ...]
    values: Values
    given: frozenset[str]


def expand(options: usage.Options, arguments: Sequence[str], known: Mapping[str, Setting] = SETTINGS) -> CommandLine:
    """
    Read the file that a command line names with C{--config}, if it names one. If the command line is wrong, then what it has is
    for C{options} to complain about.

    @param options: knows the options, and which are short for which.
    @param arguments: the command line.
    @param known: the options that the file may have.

    @raise ConfigurationError: if the file cannot be used.
    """
    pairs = _pairs(options, arguments)
    given = frozenset(name for name, _ in pairs)
    paths = [path for name, path in pairs if name == "config"]
    values = read(paths[-1], known) if paths else {}
    return CommandLine((*merge(values, given), *arguments), values, given)


def merge(values: Values, given: Collection[str] = ()) -> list[str]:
    """
    Say on a command line what a file says.

    @param values: what the file has.
    @param given: the names of the options that the command line has itself: those stay as they are there. Of an option that may
        be given several times the file's are left out altogether.

    @return: arguments, to be put in front of those of the command line.
    """
    arguments: list[str] = []
    for name, value in values.items():
        if name in given or value is False:
            continue
        if value is True:
            arguments.append(f"--{name}")
        else:
            arguments += [f"--{name}={text}" for text in ((value,) if isinstance(value, str) else value)]
    return arguments


def compare(before: Values, after: Values, known: Mapping[str, Setting] = SETTINGS, given: Collection[str] = ()) -> Changes:
    """
    What a reload changes.

    @param before: what the file had.
    @param after: what it has now.
    @param known: the options.
    @param given: the names of the options that the command line has, which no file changes.
    """
    # A switch that is off is as one that is not there.
    changed = [name for name in known if name not in given and (before.get(name) or None) != (after.get(name) or None)]
    return Changes(
        tuple(name for name in changed if known[name].reloads), tuple(name for name in changed if not known[name].reloads)
    )


def check(
    path: str,
    write: Callable[[str], object],
    use: Callable[[list[str]], object] | None = None,
    known: Mapping[str, Setting] = SETTINGS,
) -> int:
    """
    C{--check-config}: tell what is wrong with a file, or that nothing is.

    @param path: the file's path.
    @param write: takes the lines.
    @param use: reads the arguments that the file stands for, and raises C{usage.UsageError} if they do not go together.
    @param known: the options that it may have.

    @return: an exit status, 0 or 1.
    """
    problems: Iterable[str]
    try:
        arguments = merge(read(path, known))
        if use is not None:
            use(arguments)
    except ConfigurationError as e:
        problems = e.problems
    except usage.UsageError as e:
        problems = [f"{_shown(path)}: {e}"]
    else:
        write(f"{_shown(path)}: ok")
        return 0
    for problem in problems:
        write(problem)
    return 1


def _pairs(options: usage.Options, arguments: Sequence[str]) -> list[tuple[str, str]]:
    """The options that a command line has, by their full names, with their values."""
    try:
        pairs, _ = getopt(list(arguments), options.shortOpt, options.longOpt)
    except GetoptError:
        return []
    synonyms = options.synonyms
    found = []
    for option, value in pairs:
        name = option.lstrip("-")
        # The methods of options are known by their Python names.
        found.append(((synonyms.get(name) or synonyms[name.replace("-", "_")]).replace("_", "-"), value))
    return found
