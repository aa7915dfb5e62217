"""Tests of L{udpecho.net.call_queue}."""

from __future__ import annotations

import threading

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.conftest import CaughtErrors
from tests.support.depth import stackDepth
from udpecho.net.call_queue import MAX_NESTED, CallQueue, cancelled
from udpecho.net.failure_log import MOST

#: Frames that one call of an application takes, at the most, with all that is between it and the next one inside it.
_framesPerCall = 15


class CallQueueTests:
    """L{CallQueue}."""

    def test_order(self) -> None:
        """Calls are made in the order in which they were collected; those that are collected meanwhile come last."""
        calls = CallQueue()
        made: list[int] = []

        def first() -> None:
            calls.call(made.append, 3)
            made.append(1)

        calls.add(first)
        calls.add(made.append, 2)
        assert made == []
        calls.run()
        assert made == [1, 2, 3]

    def test_notNested(self) -> None:
        """No call is inside another one, however many each of them makes."""
        calls = CallQueue()
        depths: list[int] = []

        def call(left: int) -> None:
            depths.append(stackDepth())
            for _ in range(2):
                if left:
                    calls.call(call, left - 1)

        calls.call(call, 9)
        assert len(depths) == 2**10 - 1
        assert len(set(depths)) == 1

    def test_exception(self, caught: CaughtErrors) -> None:
        """An exception is logged, and the next call is made."""
        calls = CallQueue()
        made: list[int] = []

        def fail() -> None:
            raise RuntimeError("of the test")

        calls.add(fail)
        calls.call(made.append, 1)
        assert made == [1]
        assert [str(failure) for failure in caught.flush(RuntimeError)] == ["of the test"]

    def test_manyExceptions(self, caught: CaughtErrors) -> None:
        """Whoever sends datagrams can cause one with each: only the first of a second are logged."""
        calls = CallQueue()
        for _ in range(50 * MOST):
            calls.call(lambda: 1 / 0)
        assert 0 < len(caught.flush(ZeroDivisionError)) < 50 * MOST

    def test_interrupted(self, caught: CaughtErrors) -> None:
        """What ends a program is logged too, as in a Deferred: the next call would be made late or never."""
        calls = CallQueue()
        made: list[int] = []

        def interrupt() -> None:
            raise KeyboardInterrupt

        calls.add(interrupt)
        calls.add(made.append, 1)
        calls.run()
        assert made == [1]
        assert len(caught.flush(KeyboardInterrupt)) == 1

    def test_severalQueues(self) -> None:
        """Calls of many objects that make each other are not ever deeper inside each other."""
        queues = [CallQueue() for _ in range(1000)]
        depths: list[int] = []

        def call(number: int) -> None:
            depths.append(stackDepth())
            if number + 1 < len(queues):
                queues[number + 1].call(call, number + 1)

        queues[0].call(call, 0)
        assert len(depths) == 1000
        assert max(depths) - min(depths) <= MAX_NESTED * _framesPerCall

    def test_insideAnother(self) -> None:
        """A call inside one of another object is made at once, as a program expects that goes on inside a callback."""
        made: list[int] = []

        def outer() -> None:
            CallQueue().call(made.append, 1)
            made.append(2)

        CallQueue().call(outer)
        assert made == [1, 2]

    def test_threads(self) -> None:
        """Calls of one thread do not wait for those of another one."""
        made: list[int] = []

        def call(left: int) -> None:
            if left:
                CallQueue().call(call, left - 1)
                return
            thread = threading.Thread(target=CallQueue().call, args=(made.append, 1))
            thread.start()
            thread.join()
            made.append(2)

        call(MAX_NESTED)
        assert made == [1, 2]


class ResultTests:
    """Results of Deferreds in a L{CallQueue}."""

    def test_results(self) -> None:
        """A Deferred gets its result, or the exception that it fails with."""
        calls = CallQueue()
        results: list[object] = []
        for result in (5, ValueError("of the test")):
            done: Deferred[object] = Deferred()
            done.addBoth(results.append)
            calls.addResult(done, result)
        calls.run()
        assert results[0] == 5
        assert isinstance(results[1], Failure)
        assert results[1].check(ValueError)

    def test_cancelledMeanwhile(self) -> None:
        """A Deferred that is cancelled before its turn has one result."""
        calls = CallQueue()
        results: list[object] = []
        second: Deferred[object] = Deferred(cancelled)
        first: Deferred[int] = Deferred()
        first.addCallback(lambda _: second.cancel())
        second.addBoth(results.append)
        calls.addResult(first, 1)
        calls.addResult(second, 2)
        calls.run()
        (failure,) = results
        assert isinstance(failure, Failure)
        assert failure.check(CancelledError)


class CancelledTests:
    """L{cancelled}."""

    def test_atOnce(self) -> None:
        """The callbacks run before C{cancel} returns."""
        results: list[object] = []
        done: Deferred[None] = Deferred(cancelled)
        done.addBoth(results.append)
        done.cancel()
        (failure,) = results
        assert isinstance(failure, Failure)
        assert failure.check(CancelledError)

    def test_chain(self) -> None:
        """Each of 1000 Deferreds cancels the next one when it fails: each fails once, and not ever deeper."""
        all_: list[Deferred[None]] = [Deferred(cancelled) for _ in range(1000)]
        depths: list[int] = []

        def failed(failure: Failure, number: int) -> None:
            failure.trap(CancelledError)
            depths.append(stackDepth())
            if number + 1 < len(all_):
                all_[number + 1].cancel()

        for number, done in enumerate(all_):
            done.addErrback(failed, number)
        all_[0].cancel()
        assert len(depths) == 1000
        assert max(depths) - min(depths) <= MAX_NESTED * _framesPerCall
