"""Tests of L{udpecho.server.worker_pool} with fake processes, in virtual time."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from tests.support.guards import needsSharing
from tests.support.running import udpSocket
from tests.support.server import Lines
from tests.support.workers import FakeProcess, Pool, ProcessClock
from udpecho.guard.policy import GuardPolicy
from udpecho.net.turn import TURN_TIME
from udpecho.pieces import finish
from udpecho.server.datagram_log import DatagramLog
from udpecho.server.listeners import ListenAddresses
from udpecho.server.settings import ServiceOptions, toWorkerSettings
from udpecho.server.worker_listeners import WorkerListeners
from udpecho.server.worker_messages import SentDatagramLog, WorkerSettings, decode, encode

pytestmark = needsSharing

PEER = ["192.0.2.7", 4321, 0]


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Two workers, with a socket each."""
    with udpSocket() as first, udpSocket() as second:
        yield Pool([[first], [second]])


class WorkerPoolTests:
    """L{WorkerPool}, in virtual time."""

    def test_start(self, pool: Pool) -> None:
        """Each worker gets its settings, the memory of the counters and its sockets; the pool is ready when all of them are."""
        first, second = pool.clock.started
        for index, process in enumerate((first, second)):
            assert process.childFDs[3] == pool.pool.memory
            assert process.childFDs.keys() == {0, 1, 2, 3, 4}
            (serve, settings) = process.messages
            assert serve == ("serve", {"slot": index, "memory": 3, "sockets": [4]})
            assert settings == decode(pool.pool.settings.message)
        assert first.childFDs[4] != second.childFDs[4]
        first.apply()
        assert not pool.ready
        second.apply()
        assert pool.ready == [None]

    def test_replaced(self, pool: Pool, lines: Lines) -> None:
        """A worker that dies is replaced at once, by one with the same sockets and the same counters; its pending
        datagrams are written off.
        """
        for process in pool.clock.started:
            process.apply()
        counters = pool.pool.counters[0]
        counters.receive(10, 2)
        counters.echo(4)
        pool.clock.started[0].end(None, signal.SIGKILL)
        assert lines.texts == [
            "worker 1 was killed by SIGKILL; unfinished datagrams, counted as send_failed: 1; another takes its place at once"
        ]
        assert counters.dropped == {"send_failed": 1}
        assert counters.droppedBytes == 6
        pool.clock.advance(0)
        assert len(pool.clock.started) == 3
        assert pool.newest.childFDs == pool.clock.started[0].childFDs
        assert pool.newest.received == pool.clock.started[0].received

    def test_backOff(self, pool: Pool, lines: Lines) -> None:
        """If it keeps dying it is replaced ever later; one that lived for long is replaced at once again. Each
        death is a line.
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
        pool.newest.apply()
        pool.clock.advance(10)
        pool.newest.end(0)
        assert lines.texts[4:] == ["worker 1 ended with exit status 0; another takes its place at once"]

    def test_noneCanStart(self, pool: Pool, lines: Lines) -> None:
        """If all end before they are ready, that is logged once, while they are started again; when one was ready and they fail
        again, it is logged again.
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
            process.apply()
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
        pool.pool.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(pool.pool.memory)

    def test_accountAfterStop(self, pool: Pool) -> None:
        """The counters can be read after the stop."""
        pool.pool.counters[1].receive(5)
        pool.pool.counters[1].echo(5)
        pool.pool.stop(1.0)
        for process in pool.clock.started:
            process.end(0)
        pool.pool.close()
        assert pool.pool.counters[1].echoed == 1

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
        assert pool.newest.messages[0][1]["slot"] == 1
        assert pool.newest.inputEnded
        assert not stopped
        pool.newest.end(0)
        assert stopped == [None]
        assert pool.pool.undrained() == [0]
        assert pool.clock.getDelayedCalls() == []

    def test_killed(self, pool: Pool, lines: Lines) -> None:
        """A worker that does not end is killed, with a warning; its pending datagrams are written off."""
        stopped: list[None] = []
        pool.pool.stop(1.0).addCallback(stopped.append)
        first, second = pool.clock.started
        first.end(0)
        pool.clock.advance(5.9)
        assert not second.killed
        pool.clock.advance(0.1)
        assert second.killed
        assert not first.killed
        pool.pool.counters[1].receive(7)
        second.end(None, signal.SIGKILL)
        assert stopped == [None]
        assert lines.texts == [
            "worker 2 does not end, and is killed",
            "worker 2 was killed by SIGKILL; unfinished datagrams, counted as send_failed: 1",
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

    @pytest.mark.parametrize(
        "line", [b"what?", b'{"nothing-known":1}', b'{"applied":7}', b'{"received":[1]}', b'{"log":["odd","x"]}']
    )
    def test_nonsense(self, pool: Pool, lines: Lines, line: bytes) -> None:
        """A worker that sends what is no message is killed, with one line in the log, however much follows."""
        pool.newest.protocol.childDataReceived(1, (line + b"\n") * 1000)
        pool.newest.protocol.childDataReceived(1, line + b"\n")
        assert pool.newest.killed
        assert lines.texts == [f"worker 2 sent an invalid message: {line!r}, and is killed"]

    def test_half(self, pool: Pool, lines: Lines) -> None:
        """The beginning of a message, at the end of a process that was killed, is nothing."""
        pool.newest.protocol.childDataReceived(1, b'{"log":["warn","to')
        pool.newest.end(None, signal.SIGKILL)
        assert [text.partition(";")[0] for text in lines.texts] == ["worker 2 was killed by SIGKILL before it was ready"]

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
        assert lines.texts[1].startswith("worker 2 wrote to its standard error (the rest is left out): xxx")
        assert len(lines.texts[1]) < 17_000
        assert lines.texts[2].startswith("worker 2 ended with exit status 1 before")
        pool.pool.stop(1.0)
        pool.clock.started[0].end()
        assert pool.clock.getDelayedCalls() == []

    def test_warnings(self, pool: Pool, lines: Lines) -> None:
        """What a worker logs is logged, at its level, with its number."""
        pool.newest.send("log", ["warn", "careful with {braces}"])
        assert lines.texts == ["worker 2: careful with {braces}"]
        assert lines.events[0]["log_level"] is LogLevel.warn

    def test_tooLong(self, pool: Pool, lines: Lines) -> None:
        """A worker that sends a message without end is killed."""
        for _ in range(65):
            pool.newest.protocol.childDataReceived(1, b"x" * 65536)
        assert pool.newest.killed
        assert lines.texts == ["worker 2 sent a message of more than 4194304 bytes, and is killed"]


class ChangeTests:
    """L{WorkerPool.change}."""

    @staticmethod
    def settings(rate: int = 7, logDatagrams: int | None = None) -> WorkerSettings:
        """Other settings."""
        return finish(WorkerSettings.make(ServiceOptions(logDatagrams=logDatagrams), GuardPolicy(rate=rate)))

    @staticmethod
    def rates(process: FakeProcess) -> list[int]:
        """The rates that a process was sent, the first one included."""
        return [value["policy"]["rate"] for kind, value in process.messages if kind == "settings"]

    def test_changed(self, pool: Pool, lines: Lines) -> None:
        """A change of the settings reaches the workers, and those that replace them start with the new ones: the policy and the
        number of lines.
        """
        first, second = pool.clock.started
        pool.pool.change(self.settings())
        assert second.messages[-1] == decode(pool.pool.settings.message)
        pool.log.setRate(None)
        second.send("written", [5, *PEER])
        assert lines.texts == ["packet-written: bytes=5 to=192.0.2.7:4321"]
        first.end(1)
        pool.clock.advance(0)
        assert pool.newest.messages[1:] == [decode(pool.pool.settings.message)]
        assert pool.newest.messages[-1][1]["options"]["logDatagrams"] is None

    def test_changedWhileNoneRuns(self, pool: Pool, lines: Lines) -> None:
        """So it is if there is no process at the time, and its lines are logged at the new rate."""
        for process in pool.clock.started:
            process.end(1)
        assert pool.pool.change(self.settings()).called
        pool.log.setRate(None)
        pool.clock.advance(0)
        assert self.rates(pool.newest) == [7]
        del lines.events[:]
        for _ in range(20):
            pool.newest.send("written", [5, *PEER])
        assert len(lines.texts) == 20

    def test_everywhere(self, pool: Pool) -> None:
        """The change is over when all have applied the newest settings, and not before."""
        changes = [pool.pool.change(self.settings(rate)) for rate in (1, 2)]
        first, second = pool.clock.started
        first.apply()
        first.apply()
        assert self.rates(first) == [1000, 1, 2]
        second.apply()
        assert not any(change.called for change in changes)
        second.apply()
        assert all(change.called for change in changes)

    def test_newestOnly(self, pool: Pool) -> None:
        """For a worker that does not read, only the newest settings wait."""
        for process in pool.clock.started:
            process.apply()
        _, stopped = pool.clock.started
        changes = [pool.pool.change(self.settings(rate)) for rate in range(1, 1001)]
        assert self.rates(stopped) == [1000, 1]
        stopped.apply()
        assert self.rates(stopped) == [1000, 1, 1000]
        stopped.apply()
        assert not changes[-1].called
        for _ in range(2):
            pool.clock.started[0].apply()
        assert all(change.called for change in changes)

    @pytest.mark.parametrize("isReady", [False, True])
    def test_gone(self, pool: Pool, isReady: bool) -> None:
        """A worker whose pipe is gone keeps the others from nothing; the one in its place has the newest settings."""
        first, second = pool.clock.started
        if isReady:
            first.apply()
            second.apply()
        first.isGone = True
        changed = pool.pool.change(self.settings())
        second.apply()
        assert self.rates(second) == [1000, 7]
        assert not changed.called
        first.end(None, signal.SIGKILL)
        assert changed.called
        pool.clock.advance(0)
        assert self.rates(pool.newest) == [7]

    def test_diesOnceMore(self, pool: Pool) -> None:
        """If the one in its place is gone too, the next has the newest settings."""
        first, second = pool.clock.started
        for rate in range(1, 5):
            first.isGone = True
            changed = pool.pool.change(self.settings(rate))
            second.apply()
            first.end(1)
            assert changed.called
            pool.clock.advance(10)
            first = pool.newest
            assert self.rates(first) == [rate]

    def test_reopened(self, pool: Pool) -> None:
        """A worker that is to end, since it has the former sockets, may be gone as well."""
        with udpSocket() as one, udpSocket() as other:
            pool.pool.serve([[one], [other]])
            for process in pool.clock.started:
                process.isGone = True
            changed = pool.pool.change(self.settings())
            for process in list(pool.clock.started):
                process.end()
            assert changed.called
            pool.clock.advance(0)
            assert [self.rates(process) for process in pool.clock.started[2:]] == [[7], [7]]

    def test_stopped(self, pool: Pool) -> None:
        """A change that the stop comes after, or before, is over at once."""
        changed = pool.pool.change(self.settings())
        pool.pool.stop(1.0)
        assert changed.called
        assert pool.pool.change(self.settings()).called
        for process in pool.clock.started:
            assert self.rates(process) == [1000, 7]
            process.end()


class WorkerListenersTests:
    """L{WorkerListeners}, with fake processes."""

    def test_configure(self, lines: Lines) -> None:
        """A reload reaches the workers, and those that replace them later; it does not change whether loops are refused, since
        the sockets are made for that.
        """
        clock = ProcessClock()
        where, options = ListenAddresses(0, ["127.0.0.1"], None), ServiceOptions(workers=2, maxPayload=5)
        listeners = WorkerListeners(clock, where, options, DatagramLog(10, clock), GuardPolicy())
        listeners.bind()
        listeners.start()
        finish(listeners.prepare(GuardPolicy(rate=7, refuseLoops=False), 3))()
        wanted = finish(toWorkerSettings(ServiceOptions(workers=2, logDatagrams=3, maxPayload=5), GuardPolicy(rate=7)))
        clock.started[0].end(None, signal.SIGKILL)
        clock.advance(0)
        for process in clock.started[1:]:
            kind, value = process.messages[-1]
            assert (kind, value.pop("number") > 0, value) == ("settings", True, wanted)
        stopped = Deferred.fromCoroutine(listeners.drain())
        for process in clock.started[1:]:
            process.end()
        assert stopped.called
        Deferred.fromCoroutine(listeners.close())


class LineTests:
    """The lines of several workers in one log."""

    def log(self, process: FakeProcess, rate: int, clock: Clock) -> SentDatagramLog:
        """The log of a worker."""
        return SentDatagramLog(rate, clock, lambda data: process.protocol.childDataReceived(1, data))

    def test_asOne(self, lines: Lines) -> None:
        """Two workers together have as many lines a second as one; the sum has the rest of both."""
        pool = Pool([[], []], 3)
        logs = [self.log(process, 3, pool.clock) for process in pool.clock.started]
        for _ in range(5):
            for log in logs:
                log.written(5, ("192.0.2.7", 1), log.received(7, ("192.0.2.7", 1)))
        pool.clock.pump([1, 1, 1])
        for log in logs:
            log.close()
        pool.log.close()
        assert sum(text.startswith("packet-received: bytes=7 from=192.0.2.7:1") for text in lines.texts) == 3
        left = [event for event in lines.events if "receivedBytes" in event]
        totals = [sum(event[name] for event in left) for name in ("received", "receivedBytes", "written", "writtenBytes")]
        assert totals == [7, 49, 10 - sum(text.startswith("packet-written") for text in lines.texts), totals[3]]

    def test_pairs(self, lines: Lines) -> None:
        """A reply has its line if its datagram had, and else is in the sum; a scope is kept."""
        pool = Pool([[], []], 2)
        first, second = pool.clock.started
        first.send("received", [5, *PEER])
        second.send("received", [5, "fe80::1", 7, 2])
        second.send("received", [6, *PEER])
        second.send("written", [6, *PEER])
        second.send("written", [5, "fe80::1", 7, 2])
        first.send("written", [5, *PEER])
        first.send("written", [5, *PEER])
        pool.log.close()
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
            pool.newest.send("received", [5, "192.0.2.7", port, 0])
        for port in range(1, 3001):
            pool.newest.send("written", [5, "192.0.2.7", port, 0])
        assert len(lines.texts) == 6000

    def test_forgotten(self, lines: Lines) -> None:
        """Else the oldest of very many that have no reply yet are forgotten: theirs is in the sum when it comes."""
        pool = Pool([[]], 3000)
        for port in range(1, 2001):
            pool.newest.send("received", [5, "192.0.2.7", port, 0])
        for port in range(1, 2001):
            pool.newest.send("written", [5, "192.0.2.7", port, 0])
        pool.log.close()
        assert len(lines.texts) == 2000 + 1024 + 1
        assert lines.texts[-1] == "datagrams-not-logged: received=0 bytes=0 written=976 bytes=4880"

    @pytest.mark.parametrize("ends", [False, True])
    def test_turn(self, ends: bool) -> None:
        """The lines of a turn take no longer than all else in it. The processes wait meanwhile, also those that end."""
        pool = Pool([[], []], None)
        handled: list[int] = []

        def slow(size: int, address: object) -> bool:
            end = time.perf_counter() + TURN_TIME
            while time.perf_counter() < end:
                pass
            handled.append(size)
            return True

        pool.log.received = slow  # type: ignore[method-assign]
        pool.clock.running = True
        for process in pool.clock.started:
            process.protocol.childDataReceived(1, b"".join(encode("received", [size, *PEER]) for size in range(40)))
        assert 0 < len(handled) < 40
        assert all(process.isPaused for process in pool.clock.started)
        for process in pool.clock.started if ends else ():
            process.end()
        for _ in range(80):
            pool.clock.advance(0)
        assert sorted(handled) == sorted([*range(40)] * 2)
        assert not any(process.isPaused for process in pool.clock.started)
