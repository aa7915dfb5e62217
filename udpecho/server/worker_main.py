"""A worker: a process that serves on its parent's sockets, reports what is to be logged, and ends when its input does."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.process import ProcessReader
from twisted.internet.task import LoopingCall
from twisted.logger import LogBeginner, Logger, globalLogPublisher
from twisted.python.failure import Failure
from twisted.python.reflect import namedAny, namedModule

from udpecho.guard.policy import GuardPolicy
from udpecho.net.stopping import stopAll
from udpecho.pieces import Work, finish, inPieces, spareGarbageCollector
from udpecho.server.counters import divide
from udpecho.server.listeners import Change, ListenAddresses, LocalListeners
from udpecho.server.settings import ServiceOptions, fromWorkerSettings
from udpecho.server.worker_messages import MessageReceiver, SentDatagramLog, SentLog, encode

#: Seconds between two reports of the guard's statistics.
_reportInterval = 1.0
#: How many prefixes a report has for each reason.
_prefixes = 16

_log = Logger()


class Worker:
    """Serves with the settings in the parent's messages, which it reads from standard input.

    @ivar status: the exit status to end with.
    """

    def __init__(self, reactor: Any, write: Callable[[bytes], object]) -> None:
        """@param write: takes messages to the parent."""
        self._messages = MessageReceiver({"serve": self._setPlace, "settings": self._setSettings}, self._failed)
        self.status = 0
        self._place: Mapping[str, Any] = {}
        self._listeners: LocalListeners | None = None
        self._reportedDrops: Counter[str] = Counter()
        self._reactor = reactor
        self._write = write
        self._messages.makeConnection(ProcessReader(reactor, self, 0, 0))

    def childDataReceived(self, descriptor: int, data: bytes) -> None:
        """Data came through the pipe."""
        self._messages.dataReceived(data)

    def childConnectionLost(self, descriptor: int, reason: Failure) -> None:
        """The parent has closed the pipe, because this process is to stop, or has ended."""
        self.stop()

    def stop(self) -> None:
        """Answer what is queued, and end."""
        # A signal and the end of the input may both come.
        with suppress(error.ReactorNotRunning):
            self._reactor.stop()

    def _failed(self, what: object, failure: Failure | None = None) -> None:
        text = "a message of the parent must be one that can be handled, got {what}"
        _log.failure(text, failure, what=str(what)[:200])
        self.status = 1
        self.stop()

    def _setPlace(self, place: Mapping[str, Any]) -> None:
        self._place = place

    def _setSettings(self, settings: Mapping[str, Any]) -> None:
        number, listeners = settings["number"], self._listeners
        if listeners is None:
            self._serve(*finish(fromWorkerSettings(settings)))
            spareGarbageCollector()
            self._write(encode("applied", number))
            return

        def prepare() -> Work[Change]:
            options, policy = yield from fromWorkerSettings(settings)
            return (yield from listeners.prepare(policy, options.logDatagrams))

        # The parent sends no others before these are applied.
        changing = inPieces(self._reactor, prepare()).addCallback(lambda apply: apply())
        changing.addCallback(lambda _: self._write(encode("applied", number)))
        changing.addErrback(lambda failure: self._failed("settings", failure))

    def _serve(self, options: ServiceOptions, policy: GuardPolicy) -> None:
        reactor, place = self._reactor, self._place
        sockets = [socket.socket(fileno=descriptor) for descriptor in place["sockets"]]
        watches, counters = divide(memoryview(mmap.mmap(place["memory"], 0)), len(sockets))
        listeners = self._listeners = LocalListeners(
            reactor,
            ListenAddresses(0, None, sockets),
            options,
            SentDatagramLog(options.logDatagrams, reactor, self._write),
            policy,
            counters[place["slot"]],
            watches,
        )
        listeners.bind()
        # A sign of life, too: the parent replaces a worker that is silent.
        reports = LoopingCall(self._reportGuard)
        reports.clock = reactor
        reports.start(_reportInterval, now=False)
        reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(self._shutDown(listeners)))

    async def _shutDown(self, listeners: LocalListeners) -> None:
        await stopAll({"answering": listeners.drain})
        await stopAll({"the ports": listeners.close})
        self._reportGuard()

    def _reportGuard(self) -> None:
        """Report the statistics of the guard."""
        assert self._listeners is not None
        stats = self._listeners.guardStats
        busiest, fill, drops = stats.busiest(_prefixes), stats.fill, Counter(stats.wouldDrop)
        added, self._reportedDrops = drops - self._reportedDrops, drops
        self._write(encode("guard", {"busiest": busiest, "wouldDrop": added, "fill": fill}))


def main(module: str, *loop: str) -> None:
    """Be a worker, with the parent's kind of reactor: its module, and the class of its event loop if it has one."""
    # What a library prints is no message.
    output = os.dup(1)
    os.dup2(2, 1)

    def write(message: bytes) -> None:
        # Waits while the parent does not read, as a process waits for its own log. The parent may have ended.
        with suppress(BrokenPipeError):
            while message:
                message = message[os.write(output, message) :]

    namedModule(module).install(*(namedAny(name)() for name in loop))
    from twisted.internet import reactor as installed

    reactor: Any = installed
    beginner = LogBeginner(globalLogPublisher, sys.stderr, sys, warnings)
    beginner.beginLoggingTo([SentLog(write)], redirectStandardIO=False)
    worker = Worker(reactor, write)
    # The reactor installs its own handler when it starts; a second stop would be an error there.
    reactor.callWhenRunning(signal.signal, signal.SIGTERM, lambda *_: reactor.callFromThread(worker.stop))
    reactor.run()
    sys.exit(worker.status)
