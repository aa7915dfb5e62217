"""Runs the commands of C{udpecho}."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import defer
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, formatEvent, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import provider

from udpecho._version import __version__
from udpecho.cli.console import SIGNALLED, UNANSWERED, CannotPrint, Parser, complain
from udpecho.cli.ping.command import addPing
from udpecho.cli.proxy import addProxy
from udpecho.cli.send import addSend
from udpecho.net.installed import installedReactor
from udpecho.net.threads import abandonThreads
from udpecho.printing import escapeWhatDoesNotFit

#: Each adds a subcommand to the parser.
_commands = (addSend, addProxy, addPing)
#: Seconds after which a second signal ends the command as it is, if the first one has not been dealt with.
PATIENCE = 1.0


def _makeParser() -> argparse.ArgumentParser:
    parser = Parser(prog="udpecho", description="UDP echo: see whether datagrams get through, and back.")
    parser.add_argument("--version", action="version", version=f"udpecho {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in _commands:
        add(commands)
    return parser


def _runReactor(start: Callable[[Any], defer.Deferred[int]], interrupted: int | None = None) -> int:
    """Run the reactor until a Deferred fires with the exit status, or a signal comes.

    @param interrupted: the signal that is a normal end of the command, so that its own exit status stands.
    """
    reactor = installedReactor()
    abandonThreads(reactor)
    status = UNANSWERED
    over = False
    waitingSince: float | None = None
    numbers = _endingSignals()
    work: defer.Deferred[int] = defer.Deferred()

    def finished(result: int | Failure) -> None:
        nonlocal status, over
        over = True
        if isinstance(result, Failure):
            complain(result.getTraceback())
        elif status < SIGNALLED:
            status = result
        reactor.stop()

    def catchSignals() -> None:
        for number in numbers:
            signal.signal(number, caught)

    def caught(number: int, frame: object) -> None:
        nonlocal waitingSince
        if waitingSince is None:
            waitingSince = reactor.seconds()
            reactor.callFromThread(interrupt, number)
        elif reactor.seconds() - waitingSince > PATIENCE:
            # The reactor is stuck, because nobody reads what it prints.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def begin() -> None:
        nonlocal work
        # The reactor has replaced a handler meanwhile.
        catchSignals()
        # Whatever it raises ends the command.
        work = defer.maybeDeferred(start, reactor)
        work.addBoth(finished)

    def interrupt(number: int) -> None:
        nonlocal status, waitingSince
        if number != interrupted:
            status = SIGNALLED + number
        if not over:
            work.cancel()
        waitingSince = None

    catchSignals()
    globalLogBeginner.beginLoggingTo([_print], redirectStandardIO=False)
    reactor.callWhenRunning(begin)
    reactor.run()
    return status


def _endingSignals() -> list[signal.Signals]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    # Ignored under nohup.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


@provider(ILogObserver)
def _print(event: LogEvent) -> None:
    """Print the warnings of the log, as the messages of a command. C{udpecho ping} prints those of its prober itself."""
    level, origin = event.get("log_level", LogLevel.info), event.get("log_namespace", "")
    if event.get("log_failure") is not None or level is LogLevel.critical:
        complain(eventAsText(event, includeTimestamp=False, includeSystem=False))
    elif level >= LogLevel.warn and origin.startswith("udpecho.") and not origin.startswith("udpecho.probe."):
        complain(formatEvent(event))


def run(arguments: Sequence[str] | None) -> int:
    """Run the command of a command line, and return its exit status. See L{udpecho.cli.main.main}."""
    escapeWhatDoesNotFit()
    parser = _makeParser()
    try:
        # argparse takes an optional operand next to the first one only, but FILE may come after an option too.
        options, others = parser.parse_known_args(arguments)
    except CannotPrint as e:
        return e.complain()
    if len(others) == 1 and not others[0].startswith("-") and getattr(options, "file", None) == "-":
        options.file = others.pop()
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    return _runReactor(lambda reactor: options.run(reactor, options), getattr(options, "interrupted", None))
