"""Tests of L{udpecho.net.threads}."""

from __future__ import annotations

import sys

import pytest

from tests.support.processes import Processes

_script = """
import threading, time
from twisted.internet import reactor, threads
from udpecho.net.threads import abandonThreads

{abandon}

def begin():
    threads.deferToThread(lambda: (reactor.callFromThread(reactor.stop), time.sleep({seconds})))
    threads.deferToThread(lambda: None)

reactor.callWhenRunning(begin)
reactor.run()
print("over", sum(thread is not threading.main_thread() for thread in threading.enumerate()))
"""


class AbandonTests:
    """L{abandonThreads <udpecho.net.threads.abandonThreads>}."""

    @pytest.mark.parametrize(("abandon", "left"), [("abandonThreads(reactor)", 1), ("", 0)])
    def test_ends(self, processes: Processes, abandon: str, left: int) -> None:
        """The process ends without the thread that is at work; those that are idle have ended."""
        seconds = 3600 if abandon else 0.2
        process = processes.run(sys.executable, "-c", _script.format(abandon=abandon, seconds=seconds))
        assert (process.status, process.stdout, process.stderr) == (0, f"over {left}\n", "")
