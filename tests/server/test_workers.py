"""Tests of the workers: with fake processes in virtual time, and with real ones."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

import udpecho
from tests.server.test_protocol import Lines, lines
from tests.support.processes import Process, Processes, Server, catches, eventually, isRunning, logged, sums
from tests.support.running import REACTORS, hasIPv6, udpSocket
from udpecho.net import reuseport
from udpecho.server.datagram_log import DatagramLog
from udpecho.server.worker_messages import MAX_LINE, MAX_TEXT, LineBuffer, SentLines, SentLog, decode, encode
from udpecho.server.worker_pool import WorkerPool
from udpecho.server.worker_process import BackOff

__all__ = ["lines"]

pytestmark = pytest.mark.skipif(not reuseport.canShare, reason="only Linux shares out datagrams among sockets")

PEER = ["192.0.2.7", 4321, 0]


class BackOffTests:
    """L{BackOff}."""

    def test_ever(self) -> None:
        """The first time there is no wait, then it doubles up to its most."""
        backOff = BackOff()
        waits = [backOff.next(0) for _ in range(10)]
        assert waits == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10])

    @given(st.lists(st.floats(0, 30)))
    def test_begunAnew(self, lives: list[float]) -> None:
        """What lived long enough does not wait; nothing waits longer than the most."""
        backOff = BackOff()
        for lived in lives:
            wait = backOff.next(lived)
            assert 0 <= wait <= 10
            assert lived < 10 or wait == 0


class MessageTests:
    """L{udpecho.server.worker_messages}."""

    @given(st.lists(st.sampled_from([b"", b"x", b'{"ready":true}'])), st.lists(st.integers(1, 20)))
    def test_pieces(self, sent: list[bytes], sizes: list[int]) -> None:
        """Lines are the same in whatever pieces they come."""
        data = b"".join(line + b"\n" for line in sent)
        buffer, found = LineBuffer(), []
        for size in [*sizes, len(data)]:
            found += buffer.feed(data[:size])
            data = data[size:]
        assert found == sent

    def test_endless(self) -> None:
        """What has no end is cut, and memory does not grow with it."""
        buffer = LineBuffer()
        assert buffer.feed(b"x" * MAX_LINE) == []
        assert buffer.feed(b"x") == [b"x" * (MAX_LINE + 1)]
        assert buffer.feed(b"y\n") == [b"y"]

    def test_codec(self) -> None:
        """A message is read as it was written; other JSON, and what is none, is a mistake."""
        assert decode(encode("passed", [1, 2, 3, 4])) == ("passed", [1, 2, 3, 4])
        for line in (b"", b"hello", b"[]", b"{}", b'{"a":1,"b":2}'):
            with pytest.raises(ValueError):  # noqa: PT011
                decode(line)

    def test_log(self) -> None:
        """Warnings and failures are sent, with their tracebacks and not without end; what is less is not."""
        sent: list[bytes] = []
        observer = SentLog(sent.append)
        observer({"log_level": LogLevel.info, "log_format": "answering", "log_time": 0.0})
        observer({"log_level": LogLevel.warn, "log_format": "careful: {what}", "what": "ice", "log_time": 0.0})
        observer({"log_level": LogLevel.warn, "log_format": "x" * 100_000, "log_time": 0.0})
        try:
            raise ZeroDivisionError("by nought")
        except ZeroDivisionError:
            observer({"log_level": LogLevel.critical, "log_format": "bad", "log_failure": Failure(), "log_time": 0.0})
        first, second, third = [decode(line)[1] for line in sent]
        assert first == ["warn", "careful: ice"]
        assert len(second[1]) == MAX_TEXT
        assert third[0] == "critical"
        assert third[1].startswith("bad\n")
        assert "ZeroDivisionError: by nought" in third[1]


class FakeProcess:
    """
    A process that is none, from the parent's side.

    @ivar said: what the parent has written to it.
    @ivar inputEnded: whether its input is closed.
    @ivar killed: whether it was killed.
    """

    pid = 1

    def __init__(self, protocol: Any, arguments: list[str], childFDs: dict[int, Any]) -> None:
        self.protocol = protocol
        self.arguments = arguments
        self.childFDs = childFDs
        self.said = b""
        self.inputEnded = False
        self.killed = False

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        assert descriptor == 0
        self.said += data

    def closeStdin(self) -> None:
        self.inputEnded = True

    def signalProcess(self, name: str) -> None:
        assert name == "KILL"
        self.killed = True

    def say(self, kind: str, value: object = True) -> None:
        """Send the parent a message."""
        self.protocol.childDataReceived(1, encode(kind, value))

    def end(self, status: int | None = 0, number: int | None = None) -> None:
        """Be over, with an exit status or by a signal."""
        reason = error.ProcessTerminated(status, number) if status or number else error.ProcessDone(0)
        self.protocol.processEnded(Failure(reason))


@implementer(IReactorProcess)
class ProcessClock(Clock):
    """
    A clock that starts processes that are none.

    @ivar started: the processes.
    @ivar refusals: what the next attempts to start one raise.
    """

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
    """A pool of workers whose processes are none."""

    def __init__(self, sockets: list[list[socket.socket]], rate: int | None = 10) -> None:
        self.clock = ProcessClock()
        self.sockets = [sock for own in sockets for sock in own]
        for sock in self.sockets:
            sock.setblocking(False)
        self.pool = WorkerPool(self.clock, sockets, DatagramLog(rate, self.clock), logDatagrams=rate, maxPayload=5)
        self.ready: list[None] = []
        self.pool.start().addCallback(self.ready.append)

    @property
    def newest(self) -> FakeProcess:
        """The process that was started last."""
        return self.clock.started[-1]


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Two workers, with a socket each."""
    with udpSocket() as first, udpSocket() as second:
        yield Pool([[first], [second]])


class WorkerPoolTests:
    """L{WorkerPool}, in virtual time."""

    def test_start(self, pool: Pool) -> None:
        """Each worker is told what to do, and gets the memory of the accounts and its sockets; they are ready when all are."""
        first, second = pool.clock.started
        for index, process in enumerate((first, second)):
            assert process.childFDs[3] == pool.pool.memory
            assert process.childFDs.keys() == {0, 1, 2, 3, 4}
            assert decode(process.said) == (
                "configure",
                {"slot": index, "memory": 3, "sockets": [4], "maxPayload": 5, "logDatagrams": 10},
            )
        assert first.childFDs[4] != second.childFDs[4]
        first.say("ready")
        assert not pool.ready
        second.say("ready")
        assert pool.ready == [None]

    def test_replaced(self, pool: Pool, lines: Lines) -> None:
        """
        A worker that dies is replaced at once, by one with the same sockets and the same account; what it had in hand is
        booked.
        """
        for process in pool.clock.started:
            process.say("ready")
        account = pool.pool.accounts[0]
        account.receive(10, 2)
        account.echo(4)
        pool.clock.started[0].end(None, signal.SIGKILL)
        assert lines.texts == [
            "worker 1 was killed by SIGKILL; what it had in hand counts as send_failed: 1; another takes its place at once"
        ]
        assert account.dropped == {"send_failed": 1}
        assert account.droppedBytes == 6
        pool.clock.advance(0)
        assert len(pool.clock.started) == 3
        assert pool.newest.childFDs == pool.clock.started[0].childFDs
        assert pool.newest.said == pool.clock.started[0].said

    def test_backOff(self, pool: Pool, lines: Lines) -> None:
        """
        If it keeps dying it is replaced ever later; one that lived for long is replaced at once again. Each death is a line.
        """
        for wait in (0, 0.1, 0.2, 0.4):
            started = len(pool.clock.started)
            (pool.clock.started[0] if started == 2 else pool.newest).end(1)
            when = f"in {wait:g} s" if wait else "at once"
            assert lines.texts[-1] == f"worker 1 ended with exit status 1 before it was ready; another takes its place {when}"
            if wait:
                pool.clock.advance(wait * 0.9)
                assert len(pool.clock.started) == started
            pool.clock.advance(wait * 0.11)
            assert len(pool.clock.started) == started + 1
        pool.newest.say("ready")
        pool.clock.advance(10)
        pool.newest.end(0)
        assert lines.texts[4:] == ["worker 1 ended with exit status 0; another takes its place at once"]

    def test_noneCanStart(self, pool: Pool, lines: Lines) -> None:
        """
        If all end before they are ready, that is said once, and they are tried on; when one is ready and they fail again, it is
        said again.
        """
        sentence = "no worker can start: nothing is answered until one does, and they are tried again and again"
        first, second = pool.clock.started
        first.end(1)
        assert sentence not in lines.texts
        second.end(1)
        for _ in range(3):
            pool.clock.advance(10)
            for process in pool.clock.started[-2:]:
                process.end(1)
        assert lines.texts.count(sentence) == 1
        pool.clock.advance(10)
        for process in pool.clock.started[-2:]:
            process.say("ready")
        assert pool.ready == [None]
        for _ in range(2):
            for process in pool.clock.started[-2:]:
                process.end(1)
            pool.clock.advance(10)
        assert lines.texts.count(sentence) == 2

    def test_refused(self, pool: Pool, lines: Lines) -> None:
        """A process that the system does not let start is tried again like one that died."""
        pool.clock.refusals = [OSError(errno.EAGAIN, "no more processes")]
        pool.clock.started[0].end(None, signal.SIGKILL)
        pool.clock.advance(0)
        assert "worker 1 cannot be started: [Errno 11] no more processes" in lines.texts[-1]
        assert lines.texts[-1].endswith("another takes its place in 0.1 s")
        pool.clock.advance(0.1)
        assert len(pool.clock.started) == 3

    def test_stop(self, pool: Pool, lines: Lines) -> None:
        """On stopping the input of each is closed; it is over when all have ended, and nothing is left to come."""
        stopped: list[None] = []
        pool.pool.stop(1.0).addCallback(stopped.append)
        first, second = pool.clock.started
        assert first.inputEnded
        assert second.inputEnded
        first.end(0)
        assert not stopped
        second.end(0)
        assert stopped == [None]
        assert pool.clock.getDelayedCalls() == []
        assert lines.texts == []
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(pool.pool.memory)

    def test_accountAfterStop(self, pool: Pool) -> None:
        """The accounts can be read after the stop."""
        pool.pool.accounts[1].receive(5)
        pool.pool.accounts[1].echo(5)
        pool.pool.stop(1.0)
        for process in pool.clock.started:
            process.end(0)
        assert pool.pool.accounts[1].echoed == 1

    def test_stopWhileWaiting(self, pool: Pool) -> None:
        """On stopping nobody waits for a worker that would have been started later."""
        first, second = pool.clock.started
        for process in (first, second):
            process.end(1)
        stopped: list[None] = []
        pool.pool.stop(1.0).addCallback(stopped.append)
        assert stopped == [None]
        assert pool.pool.undrained() == [0, 1]
        assert len(pool.clock.started) == 2
        assert pool.clock.getDelayedCalls() == []

    def test_stopWhileOneIsQueued(self, pool: Pool, lines: Lines) -> None:
        """But where something is queued for it, it is started to answer that."""
        first, second = pool.clock.started
        for process in (first, second):
            process.end(1)
        with udpSocket() as peer:
            peer.sendto(b"hello", pool.sockets[1].getsockname())
            stopped: list[None] = []
            pool.pool.stop(1.0).addCallback(stopped.append)
        assert len(pool.clock.started) == 3
        assert decode(pool.newest.said)[1]["slot"] == 1
        assert pool.newest.inputEnded
        assert not stopped
        pool.newest.end(0)
        assert stopped == [None]
        assert pool.pool.undrained() == [0]
        assert pool.clock.getDelayedCalls() == []

    def test_killed(self, pool: Pool, lines: Lines) -> None:
        """A worker that does not end is killed, and that is said; what it had in hand is booked."""
        stopped: list[None] = []
        pool.pool.stop(1.0).addCallback(stopped.append)
        first, second = pool.clock.started
        first.end(0)
        pool.clock.advance(5.9)
        assert not second.killed
        pool.clock.advance(0.1)
        assert second.killed
        assert not first.killed
        pool.pool.accounts[1].receive(7)
        second.end(None, signal.SIGKILL)
        assert stopped == [None]
        assert lines.texts == [
            "worker 2 does not end, and is killed",
            "worker 2 was killed by SIGKILL; what it had in hand counts as send_failed: 1",
        ]
        assert pool.clock.getDelayedCalls() == []

    def test_immortal(self, pool: Pool, lines: Lines) -> None:
        """A process that cannot even be killed does not keep the service from stopping."""
        stopped: list[None] = []
        pool.pool.stop(1.0).addCallback(stopped.append)
        pool.clock.pump([6, 5])
        assert stopped == [None]
        assert lines.texts[-1] == "workers cannot be killed: [1, 2]"
        assert pool.clock.getDelayedCalls() == []

    def test_nonsense(self, pool: Pool, lines: Lines, caught: Any) -> None:
        """What is no message is logged, and the worker goes on."""
        pool.newest.protocol.childDataReceived(1, b"what?\n")
        assert len(caught.flush(ValueError)) == 1
        pool.newest.say("nothing-known")
        assert len(caught.flush(KeyError)) == 1
        assert all(text.startswith("worker 2 said what makes no sense: ") for text in lines.texts)

    def test_standardError(self, pool: Pool, lines: Lines) -> None:
        """What a worker writes to its standard error is logged, the lines of a moment together, and not without end."""
        protocol = pool.newest.protocol
        protocol.childDataReceived(2, b"Traceback\n")
        protocol.childDataReceived(2, b"  more\n")
        assert lines.texts == []
        pool.clock.advance(0.5)
        assert lines.texts == ["worker 2 wrote to its standard error: Traceback\n  more"]
        for _ in range(100):
            protocol.childDataReceived(2, b"x" * 1000)
        pool.newest.end(1)
        assert lines.texts[1].startswith(
            "worker 2 wrote to its standard error (and what else it writes there is left out): xxx"
        )
        assert len(lines.texts[1]) < 17_000
        assert lines.texts[2].startswith("worker 2 ended with exit status 1 before")
        pool.pool.stop(1.0)
        pool.clock.started[0].end()
        assert pool.clock.getDelayedCalls() == []

    def test_warnings(self, pool: Pool, lines: Lines) -> None:
        """What a worker logs is logged, at its level, with its number."""
        pool.newest.say("log", ["warn", "careful with {braces}"])
        assert lines.texts == ["worker 2: careful with {braces}"]
        assert lines.events[0]["log_level"] is LogLevel.warn


class LineTests:
    """The lines of several workers in one log."""

    def send(self, process: FakeProcess) -> SentLines:
        """Where a worker's lines go."""
        return SentLines(lambda data: process.protocol.childDataReceived(1, data))

    def test_asOne(self, lines: Lines) -> None:
        """Two workers together have as many lines a second as one; the rest is summed up, whoever left it out."""
        pool = Pool([[], []], 3)
        journals = [DatagramLog(3, pool.clock, self.send(process)) for process in pool.clock.started]
        for _ in range(5):
            for journal in journals:
                journal.written(5, ("192.0.2.7", 1), journal.received(7, ("192.0.2.7", 1)))
        pool.clock.pump([1, 1, 1])
        for journal in journals:
            journal.close()
        pool.pool.journal.close()
        assert sum(text.startswith("packet-received: bytes=7 from=192.0.2.7:1") for text in lines.texts) == 3
        left = [event for event in lines.events if "receivedBytes" in event]
        totals = [sum(event[name] for event in left) for name in ("received", "receivedBytes", "written", "writtenBytes")]
        assert totals == [7, 49, 10 - sum(text.startswith("packet-written") for text in lines.texts), totals[3]]

    def test_pairs(self, lines: Lines) -> None:
        """A reply has its line if its datagram had, and else is in the sum; a scope is kept."""
        pool = Pool([[], []], 2)
        first, second = pool.clock.started
        first.say("received", [5, *PEER])
        second.say("received", [5, "fe80::1", 7, 2])
        second.say("received", [6, *PEER])
        second.say("written", [6, *PEER])
        second.say("written", [5, "fe80::1", 7, 2])
        first.say("written", [5, *PEER])
        first.say("written", [5, *PEER])
        pool.pool.journal.close()
        assert lines.texts == [
            "packet-received: bytes=5 from=192.0.2.7:4321",
            "packet-received: bytes=5 from=[fe80::1%2]:7",
            "packet-written: bytes=5 to=[fe80::1%2]:7",
            "packet-written: bytes=5 to=192.0.2.7:4321",
            "datagrams-not-logged: received=1 bytes=6 written=2 bytes=11",
        ]

    def test_all(self, lines: Lines) -> None:
        """If all have lines, all have them, however many there are that were never answered."""
        pool = Pool([[]], None)
        for port in range(1, 3001):
            pool.newest.say("received", [5, "192.0.2.7", port, 0])
        for port in range(1, 3001):
            pool.newest.say("written", [5, "192.0.2.7", port, 0])
        assert len(lines.texts) == 6000

    def test_forgotten(self, lines: Lines) -> None:
        """Else the oldest of very many that have no reply yet are forgotten: theirs is in the sum when it comes."""
        pool = Pool([[]], 3000)
        for port in range(1, 2001):
            pool.newest.say("received", [5, "192.0.2.7", port, 0])
        for port in range(1, 2001):
            pool.newest.say("written", [5, "192.0.2.7", port, 0])
        pool.pool.journal.close()
        assert len(lines.texts) == 2000 + 1024 + 1
        assert lines.texts[-1] == "datagrams-not-logged: received=0 bytes=0 written=976 bytes=4880"


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes in a directory of the test's own."""
    with Processes(tmp_path) as started:
        yield started


def children(pid: int) -> list[int]:
    """The processes that a process has started, oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == pid and state != "Z":
                found.append(int(entry.name))
    return sorted(found)


def descriptors(pid: int) -> list[str]:
    """What a process has open."""
    return sorted(re.sub(r"\d+", "", os.readlink(entry)) for entry in Path(f"/proc/{pid}/fd").iterdir())


@pytest.fixture
def flows() -> Iterator[list[socket.socket]]:
    """Sixteen plain sockets: with two workers it is as good as certain that each has some of them."""
    with ExitStack() as stack:
        yield [stack.enter_context(udpSocket()) for _ in range(16)]


def connect(server: Server, flows: list[socket.socket]) -> None:
    """Connect sockets to the server's first address."""
    for flow in flows:
        flow.connect(server.addresses[0])


def echo(flows: list[socket.socket], payload: bytes = b"hello") -> None:
    """Send on all sockets, and wait for all replies."""
    for flow in flows:
        flow.send(payload)
    for flow in flows:
        assert flow.recv(65536) == payload


def answered(flows: list[socket.socket]) -> list[socket.socket]:
    """Those that have a reply to read."""
    return select.select(flows, [], [], 0)[0]


def signalAll(pids: list[int], number: int) -> None:
    """Send a signal to several processes."""
    for pid in pids:
        os.kill(pid, number)


def isStopped(pid: int) -> bool:
    """Whether a process has been stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def halt(pids: list[int]) -> None:
    """Stop processes, and wait until they are."""
    signalAll(pids, signal.SIGSTOP)
    for pid in pids:
        eventually(lambda pid=pid: isStopped(pid), "it goes on")  # type: ignore[misc]


class WorkersTests:
    """C{twistd -n udpecho --workers}."""

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_answers(self, processes: Processes, flows: list[socket.socket], reactor: str) -> None:
        """On each reactor all workers have some of the flows; the stop is that of one server, and leaves no process."""
        server = processes.server("--workers", "2", twistd=["twistd", "-n", "--reactor", reactor])
        port = server.addresses[0][1]
        assert server.addresses == [("127.0.0.1", port), *([("::1", port)] if hasIPv6() else [])]
        pids = children(server.process.pid)
        assert len(pids) == 2
        connect(server, flows)
        halt(pids[:1])
        for flow in flows:
            flow.send(b"hello")
        eventually(lambda: answered(flows), "nobody answers")
        signalAll(pids, signal.SIGCONT)
        for flow in flows:
            assert flow.recv(100) == b"hello"
        for host, _ in server.addresses[1:]:
            with udpSocket(host) as sock:
                sock.sendto(b"again", (host, port))
                assert sock.recv(100) == b"again"
        found = server.stop()
        assert found["received"] == found["echoed"] == 15 + len(server.addresses)
        assert not [pid for pid in pids if isRunning(pid)]
        assert os.listdir(processes.directory) == []
        assert [line for line in server.log() if "worker" in line] == []

    def test_shared(self, processes: Processes, flows: list[socket.socket]) -> None:
        """While one worker hangs, some flows are answered, and some are not."""
        server = processes.server("--workers", "2", "--interface", "127.0.0.1")
        connect(server, flows)
        for pid in children(server.process.pid):
            halt([pid])
            for flow in flows:
                flow.send(b"hello")
            some = eventually(lambda: answered(flows), "nobody answers")
            for flow in some:
                flow.recv(100)
            os.kill(pid, signal.SIGCONT)
            waiting = [flow for flow in flows if flow not in some]
            for flow in waiting:
                assert flow.recv(100) == b"hello"
            assert waiting
        assert server.stop()["echoed"] == 2 * len(flows)

    def test_oneLog(self, processes: Processes, flows: list[socket.socket]) -> None:
        """The log of two reads as that of one: as many lines in all as were asked for, and one sum."""
        server = processes.server("--workers", "2", "--interface", "127.0.0.1", "--log-datagrams", "3")
        connect(server, flows)
        pids = children(server.process.pid)
        halt(pids)
        for flow in flows:
            flow.send(b"hello")
        signalAll(pids, signal.SIGCONT)
        for flow in flows:
            assert flow.recv(100) == b"hello"
        server.stop()
        told = [line for line in server.log() if line.startswith(("packet-", "datagrams-"))]
        peers = {f"{host}:{port}" for host, port in (flow.getsockname() for flow in flows)}
        assert told[-1] == "datagrams-not-logged: received=13 bytes=65 written=13 bytes=65"
        received = [line.partition("from=")[2] for line in told if line.startswith("packet-received: bytes=5 ")]
        sent = [line.partition("to=")[2] for line in told if line.startswith("packet-written: bytes=5 ")]
        assert len(told) == 7
        assert len(received) == 3
        assert set(received) <= peers
        assert sorted(sent) == sorted(received)

    def test_queueOutlivesWorker(self, processes: Processes, flows: list[socket.socket]) -> None:
        """What is queued for a worker that is killed is answered by the next one, all of it, and no descriptor is left over."""
        server = processes.server("--workers", "2", "--interface", "127.0.0.1")
        connect(server, flows)
        pids = children(server.process.pid)
        before = descriptors(server.process.pid)
        halt(pids)
        for number in range(10):
            for flow in flows:
                flow.send(struct.pack("!I", number))
        signalAll(pids, signal.SIGKILL)
        for flow in flows:
            assert [struct.unpack("!I", flow.recv(100))[0] for _ in range(10)] == list(range(10))
        for name in ("1", "2"):
            server.process.until(f"worker {name} was killed by SIGKILL; another takes its place at once$")
        assert descriptors(server.process.pid) == before
        found = server.stop()
        assert (found["received"], found["echoed"], found["dropped"]) == (160, 160, 0)

    def test_killedUnderLoad(self, processes: Processes, flows: list[socket.socket]) -> None:
        """
        A worker that is killed at work leaves an account that adds up: what was sent is what was received, what the kernel says
        it dropped, and no more than the batch that the worker had taken and not yet counted.
        """
        server = processes.server("--workers", "2", "--interface", "127.0.0.1", "--log-datagrams", "0")
        connect(server, flows)
        for flow in flows:
            flow.setblocking(False)
        sent = echoed = 0
        for turn in range(400):
            if turn == 200:
                os.kill(children(server.process.pid)[0], signal.SIGKILL)
            for flow in flows:
                flow.send(b"hello")
                sent += 1
            for flow in answered(flows):
                flow.recv(100)
                echoed += 1
        server.process.until("worker [12] was killed by SIGKILL")
        # What is queued is answered when the last are.
        for flow in flows:
            flow.settimeout(0.2)
            last = b""
            while last != b"last":
                sent += flow.send(b"last") // 4
                with suppress(TimeoutError):
                    while last != b"last":
                        last = flow.recv(100)
        found = server.stop()
        dropped = re.search("the kernel dropped ([0-9]+) datagrams", server.process.stdout)
        inHand = sent - found["received"] - (int(dropped[1]) if dropped else 0)
        assert 0 <= inHand <= 64
        assert found.get("send_failed", 0) <= 64
        assert echoed <= found["received"]

    def test_parentKilled(self, processes: Processes, flows: list[socket.socket]) -> None:
        """If the parent is killed the workers answer what is queued and end, and the port is free."""
        server = processes.server("--workers", "2", "--interface", "127.0.0.1")
        connect(server, flows)
        pids = children(server.process.pid)
        halt(pids)
        for flow in flows:
            flow.send(b"hello")
        server.process.signal(signal.SIGKILL)
        signalAll(pids, signal.SIGCONT)
        for flow in flows:
            assert flow.recv(100) == b"hello"
        for pid in pids:
            eventually(lambda pid=pid: not isRunning(pid), "it goes on")  # type: ignore[misc]
        with udpSocket(*server.addresses[0]):
            pass

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_stop(self, processes: Processes, flows: list[socket.socket], number: int) -> None:
        """
        A stop answers what is queued, also when the signal is for the whole group of processes, as an interrupt at the terminal
        is.
        """
        server = processes.server("--workers", "2", "--interface", "127.0.0.1", "--log-datagrams", "0")
        connect(server, flows)
        pids = children(server.process.pid)
        halt(pids)
        for _ in range(10):
            for flow in flows:
                flow.send(b"hello")
        os.killpg(server.process.pid, number)
        signalAll(pids, signal.SIGCONT)
        for flow in flows:
            assert [flow.recv(100) for _ in range(10)] == [b"hello"] * 10
        server.process.finish()
        found = sums(server.process.stdout)
        assert (found["received"], found["echoed"]) == (160, 160)
        assert "Traceback" not in server.process.stdout

    def test_oneWorkerStopped(self, processes: Processes, flows: list[socket.socket]) -> None:
        """A worker that is told to end does so, and is replaced."""
        server = processes.server("--workers", "2", "--interface", "127.0.0.1")
        connect(server, flows)
        pid = children(server.process.pid)[0]
        assert catches(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)
        server.process.until("worker [12] ended with exit status 0; another takes its place at once$")
        echo(flows)
        assert server.stop()["echoed"] == len(flows)

    @pytest.mark.parametrize(("first", "second"), [("2", "2"), ("2", "1"), ("1", "2")])
    def test_inUse(self, processes: Processes, first: str, second: str) -> None:
        """A port that another server has is refused, also between two that would share it."""
        server = processes.server("--workers", first, "--interface", "127.0.0.1")
        port = server.addresses[0][1]
        refused = processes.run("twistd", "-n", "--pidfile=", "udpecho", "--port", str(port), "--workers", second)
        assert refused.status == 1
        said = refused.stdout + refused.stderr
        assert said.count(f"cannot listen on 127.0.0.1:{port}: {os.strerror(errno.EADDRINUSE)}") == 1
        assert "Traceback" not in said
        server.stop()

    def test_limits(self, processes: Processes) -> None:
        """The workers have the server's limits, and warnings are about each address once."""
        server = processes.server(
            *["--workers", "2", "--interface", "127.0.0.1", "--max-payload", "4"],
            *["--receive-buffer", "4k", "--log-datagrams", "0"],
        )
        pids = children(server.process.pid)
        halt(pids)
        with udpSocket() as sock:
            for _ in range(100):
                sock.sendto(b"12345" * 100, server.addresses[0])
        signalAll(pids, signal.SIGCONT)
        found = server.stop()
        (warning,) = [line for line in server.log() if line.startswith("the kernel dropped ")]
        assert found["too_large"] == found["received"] == 100 - int(re.findall("[0-9]+", warning)[0])

    def test_cannotStart(self, processes: Processes) -> None:
        """Workers that cannot start are tried again, with their traceback and one clear line in the log, and the stop stops."""
        (processes.directory / "broken.tac").write_text(
            textwrap.dedent(
                """
                import sys
                from twisted.application.service import Application
                from twisted.internet import reactor
                from udpecho import EchoService

                application = Application("broken")
                EchoService(reactor, 0, ["127.0.0.1"], workers=2).setServiceParent(application)
                sys.path[:] = [path for path in sys.path if "site-packages" not in path]
                """
            )
        )
        process = processes.start("twistd", "-n", "--pidfile=", "-oy", "broken.tac")
        process.until("no worker can start: nothing is answered until one does")
        process.until("worker 2 ended with exit status 1 before it was ready; another takes its place in 0.1 s$")
        process.stop()
        assert "answering on" not in process.stdout
        assert "Traceback" not in process.stderr
        assert re.search("worker 1 wrote to its standard error: Traceback", process.stdout)
        assert "ModuleNotFoundError" in process.stdout
        assert sums(process.stdout)["received"] == 0

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")
    def test_privileged(self, processes: Processes, flows: list[socket.socket]) -> None:
        """Root binds port 7 and then becomes nobody, and so do the workers, and those that replace them."""
        nobody = 65534
        roots = str(Path(udpecho.__file__).parents[1])
        how: dict[str, Any] = {"user": nobody, "group": nobody, "cwd": "/", "env": {"PYTHONPATH": roots}}
        try:
            subprocess.run([sys.executable, "-c", "import udpecho.server.worker_main"], check=True, capture_output=True, **how)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("nobody may read this Python")
        try:
            with udpSocket(port=7):
                pass
        except OSError:
            pytest.skip("port 7 is taken")
        server = processes.server(
            *["--interface", "127.0.0.1", "--workers", "2"],
            twistd=["twistd", "-n", "--pidfile=", "--uid", str(nobody), "--gid", str(nobody)],
            port=7,
        )
        connect(server, flows)
        echo(flows)
        pids = children(server.process.pid)
        for pid in pids:
            status = Path(f"/proc/{pid}/status").read_text()
            ids = dict(re.findall(r"^([UG]id):\s+(.*)$", status, re.MULTILINE))
            assert {*ids["Uid"].split(), *ids["Gid"].split()} == {str(nobody)}
        signalAll(pids, signal.SIGKILL)
        echo(flows)
        assert server.stop()["echoed"] == 2 * len(flows)

    def test_workingDirectory(self, processes: Processes, flows: list[socket.socket]) -> None:
        """A worker imports nothing from the working directory that the parent would not."""
        for name in ("signal", "json", "mmap"):
            (processes.directory / f"{name}.py").write_text("raise SystemExit('from the working directory')")
        server = processes.server("--workers", "2", environment={"PYTHONSAFEPATH": "1"})
        connect(server, flows)
        echo(flows)
        server.stop()
        assert "from the working directory" not in server.process.stdout

    def test_daemon(self, processes: Processes, flows: list[socket.socket]) -> None:
        """In the background it does the same."""
        pidFile, log = processes.daemon("echo.pid"), processes.directory / "echo.log"
        arguments = ["--pidfile", "echo.pid", "--logfile", "echo.log", "udpecho", "--port", "0", "--workers", "auto"]
        started = processes.run("twistd", *arguments)
        assert (started.status, started.stdout, started.stderr) == (0, "", "")
        pid = int(pidFile.read_text())
        found = eventually(lambda: re.search("answering on 127.0.0.1:([0-9]+)", log.read_text()), "it does not answer")
        expected = len(os.sched_getaffinity(0))
        pids = children(pid)
        assert len(pids) == (expected if expected > 1 else 0)
        for flow in flows:
            flow.connect(("127.0.0.1", int(found[1])))
        echo(flows)
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not isRunning(pid), "it goes on")
        assert not [pid for pid in pids if isRunning(pid)]
        assert sums(log.read_text())["echoed"] == len(flows)

    def test_json(self, processes: Processes, flows: list[socket.socket]) -> None:
        """A log in JSON has the values of the workers' lines as fields."""
        server = processes.server("--workers", "2", twistd=["twist", "--log-format=json"])
        connect(server, flows)
        echo(flows[:1])
        process: Process = server.process.stop()
        events: list[dict[str, Any]] = [json.loads(line) for line in process.stdout.replace("\x1e", "").splitlines()]
        own = "{}:{}".format(*flows[0].getsockname())
        assert [(event["bytes"], event["from"]) for event in events if "from" in event] == [(5, own)]
        assert [(event["bytes"], event["to"]) for event in events if "to" in event] == [(5, own)]
        assert [event["echoed"] for event in events if "echoed" in event] == [1]

    @pytest.mark.parametrize("text", ["0", "257", "x"])
    def test_wrong(self, processes: Processes, text: str) -> None:
        """A wrong number gets one line."""
        said = processes.run("twistd", "-n", "udpecho", "--port", "0", "--workers", text)
        written = said.stdout + said.stderr
        sentence = f"--workers: workers must be 1 to 256, or auto, got {text!r}"
        assert len([line for line in written.splitlines() if sentence in line]) == 1
        assert "Traceback" not in written
        assert logged(written) == []
