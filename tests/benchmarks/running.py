"""A server process that is measured: started, asked until it answers, read in C{/proc}, stopped."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.benchmarks.workshop import Workshop, on

#: Seconds in which a server must have answered, or ended.
PATIENCE = 20
#: Seconds between two questions, at the start.
ASK_EVERY = 0.0005


class Broken(Exception):
    """A server did not start, did not answer or did not stop; the message says which."""


@dataclass(frozen=True)
class Memory:
    """What a process, and its children, have in memory, in bytes.

    @ivar resident: VmRSS; pages that others have too are counted in full.
    @ivar proportional: Pss; such pages are counted in part.
    @ivar unique: Private_Clean and Private_Dirty; such pages are not counted.
    """

    resident: int
    proportional: int | None
    unique: int | None


@dataclass(frozen=True)
class Used:
    """What a process, and its children, have had of the processors, in seconds.

    @ivar cpu: the time in which they ran, user and system.
    @ivar waited: the time in which one of their threads, the one that waited longest, was ready to run, and the system ran
        others. The times of several threads overlap, and threads of one process wait for each other too.
    """

    cpu: float
    waited: float


def freePort() -> int:
    """A UDP port that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


class Running:
    """A process; as a context manager, ended at the end.

    @ivar pid: its process identifier.
    @ivar started: when it was started, on the clock of C{time.perf_counter}.
    """

    def __init__(
        self, command: Sequence[str], workshop: Workshop, processors: set[int], name: str, keepsOutput: bool = True
    ) -> None:
        """@param command: what to run.
        @param processors: where.
        @param name: what to call it when it is broken.
        @param keepsOutput: whether its standard output goes to a file, or to C{/dev/null}.
        """
        self._name = name
        self._log = workshop.directory / "log"
        self._log.unlink(missing_ok=True)
        with on(processors), open(self._log, "ab") as log:
            self.started = time.perf_counter()
            self._popen = subprocess.Popen(
                command,
                cwd=workshop.directory,
                env=workshop.environment,
                stdin=subprocess.DEVNULL,
                stdout=log if keepsOutput else subprocess.DEVNULL,
                stderr=log,
                # What it starts is ended with it.
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self._kill()

    @property
    def log(self) -> str:
        """What it has written, to standard error and, if that is kept, to standard output."""
        return self._log.read_text(errors="replace")

    def untilAnswered(self, host: str, port: int) -> float:
        """Ask until it answers.

        @return: the seconds from its start to its first reply.
        @raise Broken: if it does not.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            while time.perf_counter() < self.started + PATIENCE and self._popen.poll() is None:
                with suppress(OSError):
                    sock.sendto(b"first", (host, port))
                if select.select([sock], [], [], ASK_EVERY)[0]:
                    return time.perf_counter() - self.started
        raise self._broken("does not answer")

    def untilLogged(self, text: str) -> None:
        """Wait until it has written something, without a datagram.

        @raise Broken: if it does not.
        """
        while time.perf_counter() < self.started + PATIENCE and self._popen.poll() is None:
            if text in self.log:
                return
            time.sleep(ASK_EVERY)
        raise self._broken(f"does not say {text!r}")

    def untilTold(self, sock: socket.socket) -> float:
        """Wait for a datagram from it.

        @param sock: where it comes to.
        @return: the seconds from its start.
        @raise Broken: if none comes.
        """
        while time.perf_counter() < self.started + PATIENCE and self._popen.poll() is None:
            if select.select([sock], [], [], ASK_EVERY)[0]:
                return time.perf_counter() - self.started
        raise self._broken("does not tell that it runs")

    def used(self) -> Used:
        """The processor time of all threads of it and of its children so far.

        The scheduler has nanoseconds for the threads there are (C{/proc/PID/task/*/schedstat}, kernel documentation,
        C{scheduler/sched-stats}); children that have ended are in C{/proc/PID/stat} (C{proc_pid_stat(5)}, cutime, cstime), in
        hundredths of a second, and so is everything where the scheduler does not tell.
        """
        cpu, waited = 0.0, 0.0
        ticks = os.sysconf("SC_CLK_TCK")
        exact = os.path.exists("/proc/self/schedstat")
        for pid in self._tree():
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                cpu += (int(fields[13]) + int(fields[14])) / ticks
                if not exact:
                    cpu += (int(fields[11]) + int(fields[12])) / ticks
                    continue
                for task in os.listdir(f"/proc/{pid}/task"):
                    with suppress(OSError):
                        ran, ready, _ = Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()
                        cpu += int(ran) / 1e9
                        waited = max(waited, int(ready) / 1e9)
        return Used(cpu, waited)

    def memory(self) -> Memory:
        """Its memory now."""
        resident, proportional, unique = 0, 0, 0
        rolled = True
        for pid in self._tree():
            with suppress(OSError):
                resident += sum(_kilobytes(pid, "status", "VmRSS"))
                try:
                    proportional += sum(_kilobytes(pid, "smaps_rollup", "Pss"))
                    unique += sum(_kilobytes(pid, "smaps_rollup", "Private_Clean|Private_Dirty"))
                except OSError:
                    rolled = False
        return Memory(resident, proportional if rolled else None, unique if rolled else None)

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self._tree())

    def stop(self) -> str:
        """Ask it to end, with C{SIGTERM}.

        @return: all that it has written.
        @raise Broken: if it does not end.
        """
        if self._popen.poll() is not None:
            raise self._broken("has ended by itself")
        self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise self._broken("does not stop") from None
        return self.log

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def _tree(self) -> list[int]:
        found = [self.pid]
        for pid in found:
            with suppress(OSError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    with suppress(OSError):
                        found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        return found

    def _broken(self, what: str) -> Broken:
        status = self._popen.poll()
        ended = "" if status is None else f" (exit status {status})"
        lines = self.log.strip().splitlines()[-3:]
        return Broken(f"{self._name} {what}{ended}" + "".join(f"\n    {line}" for line in lines))


def _kilobytes(pid: int, file: str, names: str) -> list[int]:
    """@return: those lines of a file of C{/proc}, in bytes."""
    text = Path(f"/proc/{pid}/{file}").read_text()
    return [int(number) * 1024 for number in re.findall(rf"^(?:{names}):\s+(\d+) kB$", text, re.MULTILINE)]
