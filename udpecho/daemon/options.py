"""The command line of a daemon, made from its table of options, and its configuration file, which a reload reads again."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from twisted.python import usage

from udpecho.daemon.command_line import Changes, CommandLine, check, compare, expand, fileToCheck
from udpecho.daemon.config_file import ConfigurationError, FileOptions, contents, parse, parseInPieces
from udpecho.daemon.environment import readPassed
from udpecho.daemon.paths import fileLater
from udpecho.daemon.preload import rootProblem
from udpecho.daemon.start_errors import checkLibrary
from udpecho.interfaces import Reactor
from udpecho.net.threads import runInThread
from udpecho.options import LIST, SWITCH, Option, Table
from udpecho.parsing import optionValue
from udpecho.pieces import inPieces
from udpecho.printing import escapeWhatDoesNotFit


class DaemonOptions(usage.Options):
    """The options of a daemon. A subclass has its table.

    @cvar table: the options.
    @ivar arguments: the command line as it was given.
    @ivar commandLine: the command line with its file.
    @ivar file: what is in its file, if that has been read.
    @ivar passed: what systemd has passed in the environment.
    """

    table: ClassVar[Table] = {}
    optParameters: ClassVar[list[list[Any]]] = []
    optFlags: ClassVar[list[list[Any]]] = []
    commandLine: CommandLine
    file: FileOptions | None = None

    def __init_subclass__(cls) -> None:
        options = cls.table.values()
        cls.optParameters = [
            [option.name, option.short, option.default, option.usage] for option in options if option.kind not in (LIST, SWITCH)
        ]
        cls.optFlags = [[option.name, option.short, option.usage] for option in options if option.kind == SWITCH]
        # Twisted calls methods for the options that it does not store itself.
        for option in options:
            if option.kind == LIST:
                # One method, so that the short name is a synonym of the other.
                method = _listMethod(option)
                for name in filter(None, (option.name.replace("-", "_"), option.short)):
                    setattr(cls, f"opt_{name}", method)

    def __init__(self) -> None:
        super().__init__()
        escapeWhatDoesNotFit()
        self.passed = readPassed(os.environ)
        self.update({option.name: [] for option in self.table.values() if option.kind == LIST})

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read a command line, and the file that it names.

        @raise SystemExit: after C{--check-config}.
        """
        self.arguments = list(sys.argv[1:] if options is None else options)
        path = fileToCheck(self, self.arguments)
        if path is not None:
            raise SystemExit(check(path, self._checkAll))
        try:
            self._parseWithFile()
        except ConfigurationError as e:
            raise usage.UsageError(str(e)) from None

    def _parseWithFile(self) -> None:
        self.commandLine = expand(self, self.arguments, self.table, self.file)
        self.update(self.commandLine.parsed)
        super().parseOptions(self.arguments)

    def _checkAll(self) -> None:
        self._parseWithFile()
        problem = rootProblem(self)
        if problem is not None:
            raise usage.UsageError(problem)

    def postOptions(self) -> None:
        """@raise usage.UsageError: if a value is wrong, or excludes another."""
        for option in self.table.values():
            if option.parse is not None and isinstance(self[option.name], str):
                self[option.name] = optionValue(option.parse, option.name, self[option.name])
        if self["metrics"] is not None:
            checkLibrary()
        self.checkTogether()

    def checkTogether(self) -> None:
        """Check the values, which are parsed, against each other.

        @raise usage.UsageError: if one excludes another.
        """


def _listMethod(option: Option) -> Callable[[usage.Options, str], None]:
    """The method that Twisted calls with each value of an option that may be given several times."""

    def add(self: usage.Options, text: str) -> None:
        self[option.name] += option.listed(text if option.parse is None else optionValue(option.parse, option.name, text))

    add.__doc__ = option.usage
    return add


class Reload:
    """Reads a command line and its file again."""

    def __init__(self, reactor: Reactor, options: DaemonOptions) -> None:
        """@param reactor: an C{IReactorFromThreads} and C{IReactorTime} provider.
        @param options: those that the daemon was started with; they name a file.
        """
        self._reactor = reactor
        # The daemon may have another working directory then.
        self._path = fileLater(options["config"], options)
        # Of several files the last one counts.
        self._arguments = [*options.arguments, f"--config={self._path}"]
        self._make = type(options)
        self._inUse = options.commandLine.values

    async def __call__(self) -> tuple[Mapping[str, Any], Changes]:
        """@return: the options, and which of them have changed.
        @raise ValueError: if the file cannot be used.
        """
        options = self._make()
        options.file = await self._readFile(options.table)
        try:
            options.parseOptions(self._arguments)
        except usage.UsageError as e:
            raise ValueError(f"{self._path}: {e}") from None
        found = options.commandLine
        changes = compare(self._inUse, found.values, options.table, found.given)
        # What needs a restart is reported each time until there was one.
        kept = {name: value for name, value in self._inUse.items() if name in changes.needRestart}
        self._inUse = {**{name: value for name, value in found.values.items() if name not in changes.needRestart}, **kept}
        values = dict(options)
        # Twisted's options refer to themselves: thousands of networks would wait for the garbage collector.
        options.clear()
        del options.file, options.commandLine
        return values, changes

    async def _readFile(self, table: Table) -> FileOptions:
        # The file may be that of a server which does not answer.
        data = await runInThread(self._reactor, lambda: contents(self._path))
        found = await inPieces(self._reactor, parseInPieces(data, table))
        if found is None:
            # In one piece this may take long.
            found = await runInThread(self._reactor, lambda: parse(data, table, self._path))
        return found
