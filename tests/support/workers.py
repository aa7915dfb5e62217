"""Workers without processes, in virtual time."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import error
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from udpecho.guard.policy import GuardPolicy
from udpecho.pieces import finish
from udpecho.server.datagram_log import DatagramLog
from udpecho.server.settings import ServiceOptions
from udpecho.server.worker_messages import WorkerSettings, decode, encode
from udpecho.server.worker_pool import WorkerPool


class FakeProcess:
    """A fake process, from the parent's side.

    @ivar received: what the parent has written to it.
    @ivar inputEnded: whether its input is closed.
    @ivar killed: whether it was killed.
    @ivar isGone: whether it is ending: nobody reads its input any more.
    @ivar isPaused: whether the parent does not read its output.
    """

    pid = 1

    def __init__(self, protocol: Any, arguments: list[str], childFDs: dict[int, Any]) -> None:
        self.protocol = protocol
        self.arguments = arguments
        self.childFDs = childFDs
        self.received = b""
        self.inputEnded = False
        self.killed = False
        self.isGone = False
        self.isPaused = False

    def pauseProducing(self) -> None:
        self.isPaused = True

    def resumeProducing(self) -> None:
        self.isPaused = False

    @property
    def messages(self) -> list[tuple[str, Any]]:
        """The kinds and the values of what it was sent."""
        return [decode(line) for line in self.received.splitlines()]

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        assert descriptor == 0
        if self.isGone:
            # As Twisted's, which keeps no pipe to a process that is ending.
            raise KeyError(descriptor)
        self.received += data

    def closeStdin(self) -> None:
        self.inputEnded = True

    def signalProcess(self, name: str) -> None:
        assert name == "KILL"
        self.killed = True

    def send(self, kind: str, value: object = True) -> None:
        """Send the parent a message."""
        self.protocol.childDataReceived(1, encode(kind, value))

    def apply(self) -> None:
        """Report that it serves with the newest settings that it was sent."""
        kind, value = self.messages[-1]
        assert kind == "settings"
        self.send("applied", value["number"])

    def end(self, status: int | None = 0, number: int | None = None) -> None:
        """Be over, with an exit status or by a signal."""
        reason = error.ProcessTerminated(status, number) if status or number else error.ProcessDone(0)
        self.protocol.processEnded(Failure(reason))


@implementer(IReactorProcess)
class ProcessClock(Clock):
    """A clock that starts fake processes.

    @ivar started: the processes.
    @ivar refusals: what the next attempts to start one raise.
    @ivar running: whether there are turns: else whatever comes is handled at once.
    """

    running = False

    def __init__(self) -> None:
        super().__init__()
        self.started: list[FakeProcess] = []
        self.refusals: list[OSError] = []

    def spawnProcess(
        self,
        processProtocol: Any,
        executable: Any,
        args: Any,
        env: Any = None,
        path: Any = None,
        uid: Any = None,
        gid: Any = None,
        usePTY: bool = False,
        childFDs: Any = None,
    ) -> Any:
        """Start one."""
        if self.refusals:
            raise self.refusals.pop(0)
        process = FakeProcess(processProtocol, args, childFDs)
        self.started.append(process)
        processProtocol.makeConnection(process)
        return process


class Pool:
    """A pool of workers with fake processes."""

    def __init__(self, sockets: list[list[socket.socket]], rate: int | None = 10) -> None:
        self.clock = ProcessClock()
        self.sockets = [sock for own in sockets for sock in own]
        for sock in self.sockets:
            sock.setblocking(False)
        self.log = DatagramLog(rate, self.clock)
        options = ServiceOptions(maxPayload=5, logDatagrams=rate)
        self.pool = WorkerPool(self.clock, sockets, self.log, finish(WorkerSettings.make(options, GuardPolicy())))
        self.ready: list[None] = []
        self.pool.start().addCallback(self.ready.append)

    @property
    def newest(self) -> FakeProcess:
        """The process that was started last."""
        return self.clock.started[-1]
