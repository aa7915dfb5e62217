"""The measurements, in their order."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from itertools import product

from tests.benchmarks import loads, ticker
from tests.benchmarks.figures import Figures, Gap, Measurement, Start
from tests.benchmarks.loads import LOADS, Load
from tests.benchmarks.running import Broken, Running, Used, freePort
from tests.benchmarks.servers import LOOPBACK, SERVERS, Server
from tests.benchmarks.workshop import Missing, Processors, Workshop

#: Seconds of load that nobody looks at, after each start.
_warmUp = 0.2
#: Seconds of load before memory is read.
_filling = 0.5

Say = Callable[[str], None]


class Bench:
    """Measures.

    @ivar figures: what has been found so far.
    """

    def __init__(self, workshop: Workshop, processors: Processors, seconds: float, say: Say) -> None:
        """@param seconds: how long each load lasts.
        @param say: tells people how it goes.
        """
        self.figures = Figures()
        self._workshop = workshop
        self._processors = processors
        self._seconds = seconds
        self._say = say

    def echoes(self, servers: Sequence[Server], wanted: Sequence[Load], rounds: int) -> None:
        """Measure servers under loads, each once in every round; every second round has them in reverse."""
        there = [server for server in servers if self._isThere(server)]
        for server in there:
            unbearable = [load.name for load in wanted if not server.bears(load.name)]
            if unbearable:
                self.figures.skipped[f"{server.name} under {', '.join(unbearable)}"] = server.why
        for number in range(rounds):
            for server in there[:: -1 if number % 2 else 1]:
                self._say(f"round {number + 1} of {rounds}: {server.name}")
                try:
                    self._measure(server, wanted, number)
                except Broken as e:
                    self.figures.broken.append(str(e))

    def starts(self, count: int) -> None:
        """Start ours and the bare one in turn, after one start of each that does not count."""
        try:
            for number in range(count + 1 if count else 0):
                self._say(f"start {number} of {count}")
                for kind, start in (("bare", self._startBare), ("ours", self._startOurs)):
                    started = start()
                    if number:
                        self.figures.starts.setdefault(kind, []).append(started)
        except Broken as e:
            self.figures.broken.append(str(e))

    def gaps(self, rounds: int, sizes: Sequence[int]) -> None:
        """Run the ticker under floods.

        @param sizes: those of the floods' datagrams, in bytes.
        """
        found: dict[tuple[int, str], list[ticker.Measurement]] = {}
        for number, (size, port) in product(range(rounds), product(sizes, ("ours", "stock"))):
            self._say(f"ticker, round {number + 1} of {rounds}: {port}, {size} B")
            found.setdefault((size, port), []).append(ticker.measure(port, size, self._seconds, None))
        self.figures.gaps = [
            Gap(port, size, max(one.gap for one in every), max(one.ownGap for one in every))
            for (size, port), every in found.items()
        ]

    def _isThere(self, server: Server) -> bool:
        try:
            server.command(self._workshop, 1)
        except Missing as e:
            self.figures.skipped[server.name] = str(e)
            return False
        return True

    def _measure(self, server: Server, wanted: Sequence[Load], number: int) -> None:
        port = freePort()
        command = server.command(self._workshop, port)
        processors = self._processors.server(server.processors)
        with Running(command, self._workshop, processors, server.name, server.keepsOutput) as running:
            running.untilAnswered(server.asked, port)
            warm = False
            for load in (load for load in wanted if server.bears(load.name)):
                try:
                    if not warm:
                        self._load(load, server.asked, port, min(_warmUp, self._seconds))
                        warm = True
                    before = running.used()
                    heard = self._load(load, server.asked, port, self._seconds)
                    after = running.used()
                except Missing as e:
                    self.figures.skipped[load.name] = str(e)
                    continue
                except Broken as e:
                    self.figures.broken.append(f"{server.name}: {e}")
                    continue
                self.figures.measurements.append(_measurement(server.name, load.name, number, heard, before, after))
            running.stop()

    def _load(self, load: Load, host: str, port: int, seconds: float) -> loads.Heard:
        return loads.run(load, self._workshop, self._processors.load, host, port, seconds)

    def _startOurs(self) -> Start:
        port = freePort()
        command = SERVERS["ours"].command(self._workshop, port)
        with Running(command, self._workshop, self._processors.server(1), "ours") as running:
            seconds = running.untilAnswered(LOOPBACK, port)
            memory = running.memory()
            self._load(LOADS["4x64"], LOOPBACK, port, min(_filling, self._seconds))
            return Start(seconds, memory, running.memory())

    def _startBare(self) -> Start:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((LOOPBACK, 0))
            command = self._workshop.twistd("udpecho-bare", "--tell", str(sock.getsockname()[1]))
            with Running(command, self._workshop, self._processors.server(1), "the bare twistd") as running:
                seconds = running.untilTold(sock)
                return Start(seconds, running.memory())


def _measurement(server: str, load: str, number: int, heard: loads.Heard, before: Used, after: Used) -> Measurement:
    rate = heard.echoedInTime / heard.seconds
    cpu = (after.cpu - before.cpu) / heard.echoed
    others = (after.waited - before.waited) / heard.seconds
    # Not the processor time over the seconds: some of it went to the last replies, which came after them.
    worked = cpu * rate
    # Threads of one server that wait for each other do not make it idle.
    busy = worked / max(1 - others, worked)
    return Measurement(
        server, load, number, rate, cpu, busy, others, heard.idle / heard.seconds, heard.echoed, heard.lost, heard.wrong
    )
