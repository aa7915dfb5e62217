"""A worker: a process that serves on sockets of its parent's, tells it what is to be logged, and ends when its input does."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet import error
from twisted.internet import main as _main
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, globalLogBeginner
from twisted.python.failure import Failure
from twisted.python.reflect import namedAny, namedModule

from udpecho.guard.policy import GuardPolicy
from udpecho.server.counters import COUNTERS_SIZE, Counters
from udpecho.server.datagram_log import DatagramLog
from udpecho.server.service import EchoService
from udpecho.server.worker_messages import LineBuffer, SentLines, SentLog, decode, encode

#: Seconds between two looks at what the guard has to tell.
_tellEvery = 1.0
#: How many prefixes it tells of, for each reason.
_prefixes = 16

_log = Logger()


class _WorkerService(EchoService):
    """The service without what the parent says for all workers."""

    def _announce(self) -> None:
        """Nothing: the parent says where they answer."""

    def _warnOfKernelDrops(self, lost: int) -> None:
        """Nothing: the parent has the same socket."""


class Instructions(FileDescriptor):
    """Reads what the parent says."""

    def __init__(
        self, reactor: IReactorFDSet, descriptor: int, received: Callable[[bytes], None], ended: Callable[[], None]
    ) -> None:
        """
        @param reactor: tells when there is something to read.
        @param descriptor: a pipe, open for reading.
        @param received: called with each line.
        @param ended: called at the end of the pipe: the parent wants this process to stop, or is gone.
        """
        super().__init__(reactor)
        self._descriptor = descriptor
        self._lines = LineBuffer()
        self._received = received
        self._ended = ended

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def logPrefix(self) -> str:
        """The name of this reader in logs."""
        return type(self).__name__

    def doRead(self) -> Exception | None:
        """Read what is there."""
        data = os.read(self._descriptor, 65536)
        if not data:
            return _main.CONNECTION_DONE
        for line in self._lines.feed(data):
            self._received(line)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """The parent has closed the pipe, or is gone."""
        self.stopReading()
        self._ended()


class Worker:
    """
    Does what the parent says.

    @ivar status: the exit status to end with.
    """

    def __init__(self, reactor: Any, write: Callable[[bytes], object]) -> None:
        """
        @param reactor: the reactor to serve with.
        @param write: takes messages to the parent.
        """
        self.status = 0
        self._service: _WorkerService | None = None
        self._told: Counter[str] = Counter()
        self._fill = 0.0
        self._reactor = reactor
        self._write = write

    def heard(self, line: bytes) -> None:
        """
        The parent said something.

        @param line: a message.
        """
        try:
            kind, value = decode(line)
            {"configure": self._configure, "change": self._change}[kind](value)
        except Exception:
            _log.failure("cannot do what the parent said")
            self.status = 1
            self.stop()

    def stop(self) -> None:
        """End, having answered what is queued."""
        # A signal and the end of the input may come both.
        with suppress(error.ReactorNotRunning):
            self._reactor.stop()

    def _configure(self, settings: Mapping[str, Any]) -> None:
        """Start to serve."""
        reactor = self._reactor
        offset = settings["slot"] * COUNTERS_SIZE
        memory = memoryview(mmap.mmap(settings["memory"], 0))
        service = self._service = _WorkerService(
            reactor,
            sockets=[socket.socket(fileno=descriptor) for descriptor in settings["sockets"]],
            counters=Counters(memory[offset : offset + COUNTERS_SIZE]),
            journal=DatagramLog(settings["logDatagrams"], reactor, SentLines(self._write)),
            maxPayload=settings["maxPayload"],
            writeTimeout=settings["writeTimeout"],
            offload=settings["offload"],
            guard=None if settings["policy"] is None else GuardPolicy.fromSettings(settings["policy"]),
        )
        service.startService()
        reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
        if settings["policy"] is not None:
            looking = LoopingCall(self._tellOfGuard)
            looking.clock = reactor
            looking.start(_tellEvery, now=False)
            reactor.addSystemEventTrigger("before", "shutdown", self._tellOfGuard)
        self._write(encode("ready", True))

    def _tellOfGuard(self) -> None:
        """Tell the parent what the guard tells, if it has anything new."""
        assert self._service is not None
        busiest, fill = self._service.busiest(_prefixes), self._service.limiterFill()
        wouldDrop = Counter(self._service.wouldDrop())
        news, self._told = wouldDrop - self._told, wouldDrop
        if busiest or news or fill != self._fill:
            self._fill = fill
            self._write(encode("guard", {"busiest": busiest, "wouldDrop": news, "fill": fill}))

    def _change(self, settings: Mapping[str, Any]) -> None:
        """Go on with other settings."""
        assert self._service is not None
        self._service.configure(GuardPolicy.fromSettings(settings["policy"]), settings["logDatagrams"])


def _writeAll(descriptor: int, data: bytes) -> None:
    """
    Write to the parent, and wait while it does not read, as a process waits for its own log. If the parent is gone, so is
    whoever would read it.
    """
    with suppress(BrokenPipeError):
        while data:
            data = data[os.write(descriptor, data) :]


def _installReactor(module: str, loop: str | None = None) -> Any:
    """
    @param module: the module of the parent's reactor.
    @param loop: the class of its event loop, if it has one.

    @return: one of the same kind.
    """
    arguments = [] if loop is None else [namedAny(loop)()]
    namedModule(module).install(*arguments)
    from twisted.internet import reactor

    return reactor


def main(arguments: Sequence[str]) -> None:
    """
    Be a worker.

    @param arguments: the module of the reactor, and the class of its event loop, if it has one.
    """
    # What a library prints is no message.
    output = os.dup(1)
    os.dup2(2, 1)

    def write(message: bytes) -> None:
        _writeAll(output, message)

    reactor = _installReactor(*arguments)
    globalLogBeginner.beginLoggingTo([SentLog(write)], redirectStandardIO=False)
    worker = Worker(reactor, write)
    Instructions(reactor, 0, worker.heard, worker.stop).startReading()
    # The reactor's own handler, which is there when it runs, minds being told to stop twice.
    reactor.callWhenRunning(signal.signal, signal.SIGTERM, lambda *_: reactor.callFromThread(worker.stop))
    reactor.run()
    sys.exit(worker.status)
