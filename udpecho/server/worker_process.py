"""One worker process, as its parent sees it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from twisted.internet import error
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.python.reflect import qual

from udpecho.net import features
from udpecho.net.delayed_calls import SingleCall
from udpecho.net.turn import TurnBudget, turnBudget
from udpecho.server.worker_fork import ForkedWorker, mustFork
from udpecho.server.worker_messages import MessageReceiver, WorkerSettings, encode

_log = Logger()

#: Bytes of messages to handle until the next look at the time: some lines for the log.
_pieceSize = 512
#: Bytes of a process's standard error that are logged.
_maxStandardError = 16384
#: Seconds in which the lines of one traceback come.
_tracebackTime = 0.5
#: Seconds between two attempts to reap a process whose output has ended.
_reapInterval = 0.05
#: The module search path is the parent's; with C{-m} the working directory would be in it. The terminal's interrupt and hang-up
#: are for the parent, which ends the workers.
_program = (
    "import sys; n = int(sys.argv[1]) + 2; sys.path[:] = sys.argv[2:n];"
    " import signal; [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)];"
    " from udpecho.server.worker_main import main; main(*sys.argv[n:])"
)


class WorkerProcess(ProcessProtocol):
    """A worker's process.

    @ivar ready: whether it answers.
    @ivar applied: the number of the settings that it serves with, or has been started with.
    @ivar started: when it was started, in the reactor's seconds.
    @ivar silence: how many looks in succession have found nothing from it; whoever looks adds to it.
    """

    transport: IProcessTransport
    #: For the L{MessageReceiver}, whose transport this is.
    disconnecting = False

    def __init__(
        self, reactor: Any, name: int, handlers: Mapping[str, Callable[[Any], object]], ended: Callable[[BaseException], object]
    ) -> None:
        """@param reactor: an C{IReactorProcess} and C{IReactorTime} provider.
        @param name: the number of the worker, for the log.
        @param handlers: called with the value of each message, by its kind, except C{log} and C{lacks}.
        @param ended: called with the reason when the process has ended, or could not be started.
        """
        self.ready = False
        self.applied = self._sent = 0
        self.silence = 0
        self.started = reactor.seconds()
        self._reactor = reactor
        self._name = name
        self._ended = ended
        own = {"log": self._logEvent, "lacks": _logLack}
        self._messages = MessageReceiver({**handlers, **own}, lambda line: self._refuse(f"an invalid message: {line[:200]!r}"))
        self._messages.makeConnection(cast(Any, self))
        self._turn: TurnBudget | None = None
        self._unhandled = b""
        self._paused = False
        self._standardError = b""
        self._standardErrorSize = 0
        self._logging = SingleCall(reactor, self._logStandardError)
        self._reaping = SingleCall(reactor, self._reap)

    def start(self, slot: int, descriptors: Sequence[int], settings: WorkerSettings) -> None:
        """Start the process with descriptors, of the counters' memory and of the sockets.

        @param slot: the place of its counters in that memory.
        """
        # After standard input, output and error.
        numbers = range(3, 3 + len(descriptors))
        childFDs: dict[int, int | str] = {0: "w", 1: "r", 2: "r", **dict(zip(numbers, descriptors))}
        self._turn = turnBudget(self._reactor)
        try:
            if mustFork():
                ForkedWorker(self._reactor, self, _names(self._reactor), childFDs)
            else:
                commandLine = [sys.executable, "-c", _program, str(len(sys.path)), *sys.path, *_names(self._reactor)]
                self._reactor.spawnProcess(self, sys.executable, commandLine, env=None, childFDs=childFDs)
        except Exception as e:
            # No descriptor, no process or no memory left, most of the time.
            self._closeTurn()
            self._ended(e)
            return
        memory, *sockets = numbers
        self.applied = self._sent = settings.number
        self._write(encode("serve", {"slot": slot, "memory": memory, "sockets": sockets}) + settings.message)

    def update(self, settings: WorkerSettings) -> None:
        """Send the process settings, unless it has them, or has not applied the last ones yet: those that wait for it are the
        newest, and no others.
        """
        if self._sent == self.applied != settings.number:
            self._sent = settings.number
            self._write(settings.message)

    def confirm(self, number: int) -> None:
        """The process serves with settings.

        @raise ValueError: if it was not sent them.
        """
        if number not in (self.applied, self._sent):
            raise ValueError(f"number of settings must be {self._sent}, got {number!r}")
        self.applied, self.ready = number, True

    def _write(self, data: bytes) -> None:
        # Twisted has no pipe any more to a process that is ending.
        with suppress(KeyError):
            self.transport.writeToChild(0, data)

    def stop(self) -> None:
        """Have the process end when it has answered what is queued."""
        self.transport.closeStdin()

    def kill(self) -> None:
        """End the process at once."""
        with suppress(error.ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """The process has written messages, or to its standard error."""
        if childFD == 1:
            self.silence = 0
            self._unhandled += data
            assert self._turn is not None
            self._turn.run(self._handle)
            if self._unhandled:
                # The process waits when its pipe is full.
                self._paused = True
                cast(Any, self.transport).pauseProducing()
            return
        left = _maxStandardError - self._standardErrorSize
        self._standardError += data[:left]
        self._standardErrorSize += len(data[:left])
        if left:
            self._logging.schedule(_tracebackTime)

    def _handle(self) -> None:
        """Handle messages until the turn is over: many workers may have many lines for the log."""
        # It is no silence that its messages wait here.
        self.silence = 0
        while self._unhandled and not self.disconnecting:
            data = self._unhandled
            # A long line in one piece: the receiver copies all of it that it has.
            size = data.rfind(b"\n", 0, _pieceSize) + 1 or data.find(b"\n") + 1 or len(data)
            self._unhandled = data[size:]
            self._messages.dataReceived(data[:size])
            if self._unhandled and self._turn is not None and self._turn.isOver():
                self._turn.postpone(self._handle)
                return
        # What follows an invalid message is left out.
        self._unhandled = b""
        if self._paused:
            self._paused = False
            cast(Any, self.transport).resumeProducing()

    def _closeTurn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.closed(self._handle)

    def loseConnection(self) -> None:
        """The process has sent a message that is too long."""
        self._refuse(f"a message of more than {self._messages.MAX_LENGTH} bytes")

    def _refuse(self, what: str) -> None:
        # What follows may be anything, and any number of lines.
        self.disconnecting = True
        _log.error("worker {worker} sent {what}, and is killed", worker=self._name, what=what)
        self.kill()

    def childConnectionLost(self, childFD: int) -> None:
        """The process has closed its output: it is ending."""
        if childFD == 1:
            self._reaping.schedule(_reapInterval)

    def _reap(self) -> None:
        # Reactors do it on SIGCHLD, but not without their signal handlers, nor on an event loop that has its own.
        from twisted.internet.process import reapAllProcesses

        self._reaping.schedule(_reapInterval)
        reapAllProcesses()

    def _logEvent(self, value: Sequence[str]) -> None:
        level, text = value
        _log.emit(LogLevel.lookupByName(level), "worker {worker}: {text}", worker=self._name, text=text)

    def _logStandardError(self) -> None:
        self._logging.cancel()
        if self._standardError:
            more = " (the rest is left out)" if self._standardErrorSize == _maxStandardError else ""
            text, self._standardError = self._standardError.decode(errors="replace").rstrip(), b""
            _log.warn("worker {worker} wrote to its standard error{more}: {text}", worker=self._name, text=text, more=more)

    def processEnded(self, reason: Failure) -> None:
        """The process has ended, and its output has been read."""
        self._closeTurn()
        self._handle()
        self._logStandardError()
        self._reaping.cancel()
        assert reason.value is not None
        self._ended(reason.value)


def _logLack(value: Sequence[str]) -> None:
    name, reason = value
    features.missed(features.FEATURES[name], reason)


def _names(reactor: object) -> list[str]:
    """The kind of reactor that runs this process, as the arguments of a worker's L{main <udpecho.server.worker_main.main>}."""
    loop = getattr(reactor, "_asyncioEventloop", None)
    return [type(reactor).__module__, *([] if loop is None else [qual(type(loop))])]


def describeEnd(reason: BaseException) -> str:
    """How a process ended, for the log."""
    number = getattr(reason, "signal", None)
    if number is not None:
        try:
            return f"was killed by {signal.Signals(number).name}"
        except ValueError:
            return f"was killed by signal {number}"
    if isinstance(reason, (error.ProcessDone, error.ProcessTerminated)):
        return f"ended with exit status {reason.exitCode}"
    return f"cannot be started: {reason}"
