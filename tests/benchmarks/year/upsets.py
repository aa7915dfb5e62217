"""What happens to the processes in a year: signals, files, descriptors and the disk."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from contextlib import suppress

from tests.benchmarks.year.checks import Check, Needs
from tests.benchmarks.year.events import CLIENT_PROCESSES, CLOCK, SERVER_PROCESSES, SERVERS_HOST, Event, Stage
from tests.benchmarks.year.processes import PROXY_PORT, WORKERS, Daemon, Process
from tests.benchmarks.year.world import SERVER

_nothing = Needs(frozenset())


class _Reload(Event):
    """SIGHUP, after a change of the configuration file of the server or the probe service."""

    touches = SERVER_PROCESSES | CLIENT_PROCESSES
    #: What it logs about it.
    says: str

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.daemon: Daemon = self.random.choice([stage.server, stage.probe])

    def detail(self) -> str:
        """See L{Event.detail}."""
        return f" ({self.daemon.name})"

    def file(self) -> str | None:
        """@return: the new file; C{None} if there is none."""
        raise NotImplementedError

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.mark = self.daemon.logged()
        self.daemon.configure(self.file())
        self.daemon.send(signal.SIGHUP)

    def proofs(self) -> Sequence[Check]:
        """See L{Event.proofs}."""

        def fault() -> str | None:
            return None if self.says in self.daemon.text(self.mark) else f"the log does not say {self.says!r}"

        return [Check("log of the reload", _nothing, self.daemon, fault)]

    def undo(self) -> None:
        """See L{Event.undo}."""
        self.daemon.configure(self.daemon.usual)
        self.daemon.send(signal.SIGHUP)


class ReloadGood(_Reload):
    """The file has other settings."""

    name, says = "reload-good", "configuration reloaded"

    def file(self) -> str | None:
        """See L{_Reload.file}."""
        return self.daemon.other


class ReloadRefusing(_Reload):
    """The server's file refuses the client, and perhaps its own health check, which is well nevertheless."""

    name, says = "reload-refusing", "configuration reloaded"

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.daemon = stage.server

    def file(self) -> str | None:
        """See L{_Reload.file}."""
        own = self.random.choice(["", ', "198.18.3.0/24", "fd00:3::/64"'])
        return f'log-datagrams = 0\nallow = ["203.0.113.0/24"{own}]\n'

    def happen(self) -> None:
        """See L{Event.happen}."""
        super().happen()
        self.cut = SERVER


class ReloadBad(_Reload):
    """The file has errors."""

    name, says = "reload-bad", "cannot reload"

    def file(self) -> str | None:
        """See L{_Reload.file}."""
        return f"{self.daemon.other}metrics = \n"


class ReloadMissing(_Reload):
    """There is no file."""

    name, says = "reload-missing", "cannot reload"

    def file(self) -> str | None:
        """See L{_Reload.file}."""
        return None


class KillWorker(Event):
    """A worker is killed."""

    name, lasts = "kill-worker", False
    touches = SERVER_PROCESSES

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.victim = self.random.choice(self.stage.server.workers())
        os.kill(self.victim, signal.SIGKILL)
        self.stopped = frozenset({"worker"})

    def afterwards(self) -> Sequence[Check]:
        """See L{Event.afterwards}."""
        return [self.replaced()]

    def replaced(self) -> Check:
        """@return: that the worker is replaced."""
        server = self.stage.server

        def fault() -> str | None:
            workers = server.workers()
            return None if len(workers) == WORKERS and self.victim not in workers else "it is not replaced"

        return Check("another worker", _nothing, server, fault)


class StopWorker(KillWorker):
    """A worker stands still: it must be noticed within ten seconds."""

    name, lasts = "stop-worker", False
    patience = 15.0

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.victim = self.random.choice(self.stage.server.workers())
        os.kill(self.victim, signal.SIGSTOP)
        self.stopped = frozenset({"worker"})


class _Pause(Event):
    """Processes stand still for a time."""

    # As long as a worker may stand still, and longer.
    longest = 15.0

    def pids(self) -> list[int]:
        """@return: the processes; of the first one the children are not to change."""
        raise NotImplementedError

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.still = self.pids()
        self.before = self.stage.server.workers()
        for pid in self.still:
            os.kill(pid, signal.SIGSTOP)

    def undo(self) -> None:
        """See L{Event.undo}."""
        for pid in self.still:
            os.kill(pid, signal.SIGCONT)


class _PauseOfServer(_Pause):
    """The server stands still, and its workers are the same afterwards: the time was nobody's."""

    def afterwards(self) -> Sequence[Check]:
        """See L{Event.afterwards}."""
        server = self.stage.server

        def fault() -> str | None:
            return None if server.workers() == self.before else "workers were replaced that were not to blame"

        return [Check("the same workers", _nothing, server, fault)]


class StopServer(_PauseOfServer):
    """The parent of the workers stands still: they answer."""

    name = "stop-server"
    touches = SERVER_PROCESSES

    def pids(self) -> list[int]:
        """See L{_Pause.pids}."""
        self.stopped = frozenset({"server"})
        return [self.stage.server.pid]


class Suspend(_PauseOfServer):
    """All processes stand still, as on a laptop that is closed; the wall clock may be another afterwards."""

    name = "suspend"
    touches = SERVER_PROCESSES | CLIENT_PROCESSES | CLOCK

    def undo(self) -> None:
        """See L{Event.undo}."""
        self.world.setClock(self.random.choice([0, 3600]))
        super().undo()

    def pids(self) -> list[int]:
        """See L{_Pause.pids}."""
        self.stopped = frozenset({"server", "worker", *(process.name for process in self.stage.processes)})
        return [pid for process in self.stage.processes for pid in process.tree()]


class _OfProcess(Event):
    """Something that happens to one process."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.process: Process = self.random.choice(stage.processes)

    def detail(self) -> str:
        """See L{Event.detail}."""
        return f" ({self.process.name})"


class StopClient(_Pause):
    """The probe, the proxy or the application stands still."""

    name = "stop-client"
    touches = CLIENT_PROCESSES

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.process = self.random.choice(stage.processes[1:])

    def detail(self) -> str:
        """See L{Event.detail}."""
        return f" ({self.process.name})"

    def pids(self) -> list[int]:
        """See L{_Pause.pids}."""
        self.stopped = frozenset({self.process.name})
        return [self.process.pid]


class Descriptors(_OfProcess):
    """A process can open no file and no socket for a time."""

    name = "descriptors"
    touches = SERVER_PROCESSES | CLIENT_PROCESSES

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.mark, self.wanted = self.process.logged(), False
        self.process.limitDescriptors()
        self.stopped = frozenset({self.process.name})
        if self.process is self.stage.server and self.random.random() < 0.5:
            # It cannot be replaced until it is over.
            os.kill(self.random.choice(self.stage.server.workers()), signal.SIGKILL)
            self.stopped |= {"worker"}

    def meanwhile(self) -> None:
        """Want what needs a descriptor."""
        self.wanted = True
        if self.process is self.stage.proxy:
            self.stage.checks.newClient.forget()
            self.stage.checks.newClient.send("127.0.0.1", PROXY_PORT)
        else:
            with suppress(OSError):
                self.process.get("/-/healthy")

    def undo(self) -> None:
        """See L{Event.undo}."""
        self.process.freeDescriptors()

    def afterwards(self) -> Sequence[Check]:
        """See L{Event.afterwards}."""
        process, mark = self.process, self.mark

        def fault() -> str | None:
            said = re.search("descriptor|Too many open files", process.text(mark))
            return None if said else "the log does not say that there were no descriptors"

        return [Check("reason in the log", _nothing, process, fault)] if self.wanted else []


class DiskFull(KillWorker):
    """The disk with the logs is full for a time, when there is much to log: all go on, and log afterwards."""

    name, lasts = "disk-full", True

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.world.disk.fill()
        self.stage.server.configure(self.stage.server.usual.replace("log-datagrams = 0", "log-datagrams = 2"))
        self.stage.server.send(signal.SIGHUP)
        super().happen()

    def proofs(self) -> Sequence[Check]:
        """See L{Event.proofs}."""
        return [self.replaced()]

    def undo(self) -> None:
        """See L{Event.undo}."""
        self.world.disk.free()
        self.mark = self.stage.server.logged()
        self.stage.server.configure(self.stage.server.usual)
        self.stage.server.send(signal.SIGHUP)

    def afterwards(self) -> Sequence[Check]:
        """See L{Event.afterwards}."""
        server = self.stage.server

        def fault() -> str | None:
            return None if "configuration reloaded" in server.text(self.mark) else "the log has no line since there is room"

        return [Check("log", _nothing, server, fault)]


class ServerRestarts(Event):
    """The server is restarted, as for a new version: its port is closed for a time."""

    name = "server-restarts"
    touches = SERVER_PROCESSES | SERVERS_HOST

    def happen(self) -> None:
        """See L{Event.happen}."""
        self.stage.server.stop()
        self.before = self.world.withoutSocket()
        self.stopped = frozenset({"server", "worker"})
        self.cut = SERVER

    def undo(self) -> None:
        """See L{Event.undo}."""
        self.stage.server.start()
        self.stage.server.missed += self.world.withoutSocket() - self.before


UPSETS: tuple[type[Event], ...] = (
    ReloadGood,
    ReloadRefusing,
    ReloadBad,
    ReloadMissing,
    KillWorker,
    StopWorker,
    StopServer,
    Suspend,
    StopClient,
    Descriptors,
    DiskFull,
    ServerRestarts,
)
