"""Minutes, or days, of load on a server that everything happens to, and whether its accounts balance:

    python -m tests.benchmarks.chaos [--minutes 10] [--rate 20000] [--workers 2]

Workers are killed (C{SIGKILL}), the configuration file changes (C{SIGHUP}), once in a while to one that cannot be used, the
sums are asked for (C{SIGUSR1}), and the metrics are read every second. The load is that of L{tests.benchmarks.soak}, without
GSO batches, since the kernel counts a GRO batch that it drops as one datagram.

At the end, what the load has sent is what the server has received, what the kernel has dropped before, and at the most
L{IN_HAND} datagrams for each worker that was killed: those that it had received and not counted yet. What it had counted and
not answered yet its parent books as C{send_failed}. Every number that was read, in the metrics and in the log, is at least the
one before; memory and descriptors do not grow.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

from tests.benchmarks.running import PATIENCE, Broken, Running, freePort
from tests.benchmarks.servers import LOOPBACK
from tests.benchmarks.soak import Accounts, Sent
from tests.benchmarks.workshop import Missing, Processors, Workshop, on

#: Datagrams that a worker may have between the kernel and its account: one batch.
IN_HAND = 64
#: How much more memory a process may have in the second half than in the first, in bytes.
GROWTH = 2 * 2**20
#: What of its processors the server may use.
MOST_BUSY = 0.8

#: What the file says, in turn; each has what it does to the server, or C{None} where it cannot be used.
_files = (
    ('log-datagrams = 0\nallow = ["127.0.0.0/8"]\ntrust = ["loopback"]\n', "is open"),
    ("log-datagrams = 0\nmax-rate = {quarter}\n", "drops"),
    ("log-datagrams = 3\n", "logs"),
    ('log-datagrams = "some"\n', None),
    ("log-datagrams = 0\n", "is as it was"),
)
_sample = re.compile(r"^(udpecho_[a-z_]+(?:\{[^}]*\})?) ([-+0-9.e]+)$", re.MULTILINE)


class Page(dict[str, float]):
    """The samples of a page of metrics, by name and labels."""

    @classmethod
    def read(cls, url: str) -> Page:
        """Ask a server.

        @raise Broken: if it does not answer.
        """
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return cls.parse(answer.read().decode())
        except OSError as e:
            raise Broken(f"the metrics cannot be read: {e}") from None

    @classmethod
    def parse(cls, text: str) -> Page:
        """Read the text format of Prometheus."""
        return cls({name: float(number) for name, number in _sample.findall(text)})

    @property
    def received(self) -> int:
        """Datagrams that came in."""
        return int(self["udpecho_received_datagrams_total"])

    @property
    def echoed(self) -> int:
        """Datagrams that went back."""
        return int(self["udpecho_echoed_datagrams_total"])

    @property
    def dropped(self) -> int:
        """Datagrams that did not."""
        return int(sum(number for name, number in self.items() if name.startswith("udpecho_dropped_datagrams_total")))

    @property
    def kernel(self) -> int:
        """What the kernel dropped before."""
        return int(self["udpecho_kernel_dropped_datagrams_total"])

    @property
    def workers(self) -> int:
        """How many workers answer."""
        return int(self["udpecho_workers"])


def pageFaults(before: Mapping[str, float], now: Mapping[str, float], inHand: int) -> list[str]:
    """What cannot be of two pages, one after the other.

    The numbers of one page are read one by one while workers count, so a page need not balance in itself. But what came in
    before one page has met its fate by the next, but for what the workers have in hand; and the other way round.

    @param inHand: so many datagrams may be received and not settled.
    @return: a line for each fault.
    """
    found = [
        f"{name} went from {before[name]:.0f} back to {now.get(name, 0):.0f}"
        for name in before
        if not name.startswith(("udpecho_workers", "udpecho_limiter_fill")) and now.get(name, 0) < before[name]
    ]
    first, second = Page(before), Page(now)
    if first.received - second.echoed - second.dropped > inHand:
        found.append(f"{first.received} were received and, later, {second.echoed} echoed and {second.dropped} dropped")
    if first.echoed + first.dropped > second.received:
        found.append(f"{first.echoed} were echoed and {first.dropped} dropped, and, later, {second.received} received")
    return found


@dataclass(frozen=True)
class Process:
    """What a process has at some moment.

    @ivar resident: VmRSS, in bytes.
    @ivar descriptors: how many files and sockets it has open.
    """

    resident: int
    descriptors: int

    @classmethod
    def look(cls, pid: int) -> Process:
        """Read it in C{/proc}."""
        resident = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return cls(0 if resident is None else int(resident[1]) * 1024, len(os.listdir(f"/proc/{pid}/fd")))


def growth(name: str, looks: Sequence[Sequence[Process]]) -> list[str]:
    """Compare the second half of the time with the first.

    @param name: whose they are.
    @param looks: what was seen each time, of each of several processes.
    @return: a line for each fault.
    """
    if len(looks) < 2:
        return []
    half = (len(looks) + 1) // 2
    first, second = ([process for look in part for process in look] for part in (looks[:half], looks[half:]))
    found = []
    resident = [max(process.resident for process in part) for part in (first, second)]
    # While a worker is replaced or a page is read there are some more or less.
    descriptors = [median(process.descriptors for process in part) for part in (first, second)]
    for what, allowed, (before, after) in (("bytes resident", GROWTH, resident), ("descriptors", 0, descriptors)):
        if after > before + allowed:
            found.append(f"{name} had {before:.10g} {what} in the first half, and {after:.10g} in the second")
    return found


@dataclass
class Done:
    """What was done to the server, and seen of it.

    @ivar killed: how many workers.
    @ivar applied: how many files it was to apply.
    @ivar refused: how many it was to refuse.
    @ivar asked: how often the sums were asked for.
    @ivar wasToDrop: whether one of the files had it drop for some seconds.
    @ivar busy: seconds of processor time, and those in which they were had.
    """

    killed: int = 0
    applied: int = 0
    refused: int = 0
    asked: int = 0
    read: int = 0
    wasToDrop: bool = False
    busy: tuple[float, float] = (0.0, 0.0)
    parent: list[list[Process]] = field(default_factory=list)
    workers: list[list[Process]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def faults(sent: Sent, last: Page, log: str, done: Done) -> list[str]:
    """What does not balance at the end.

    @param last: the metrics when the load was over.
    @param log: all that the server has logged.
    @return: a line for each fault.
    """
    accounts = Accounts.read(log)
    found = []
    if accounts.received != accounts.echoed + accounts.dropped:
        found.append(f"received {accounts.received} is not echoed {accounts.echoed} + dropped {accounts.dropped}")
    unexplained, explained = sent.sent - accounts.received - accounts.kernel, IN_HAND * done.killed
    if not 0 <= unexplained <= explained:
        found.append(f"{unexplained} datagrams are missing, and the workers that were killed had {explained} at the most")
    if sent.wrong:
        found.append(f"{sent.wrong} replies were not what was sent")
    # What a worker has sent and not counted when it is killed is booked as send_failed.
    if sent.replies > accounts.echoed + explained:
        found.append(f"{sent.replies} replies came to {accounts.echoed} echoes")
    told = (accounts.received, accounts.echoed, accounts.dropped, accounts.kernel)
    if told != (last.received, last.echoed, last.dropped, last.kernel):
        found.append(f"the log ends with {told}, and the metrics with {last.received, last.echoed, last.dropped, last.kernel}")
    if done.wasToDrop and not last.get('udpecho_dropped_datagrams_total{reason="rate_limited"}'):
        found.append("a ceiling was set by SIGHUP, and nothing was dropped")
    return found + _logFaults(log, done)


def _logFaults(log: str, done: Done) -> list[str]:
    found = []
    for what, pattern, wanted in (
        ("workers killed", r"worker \d+ was killed by SIGKILL", done.killed),
        ("files read again", r"configuration reloaded", done.applied),
        ("files refused", r"cannot reload", done.refused),
        ("sums asked for", r"\] counters: ", done.asked),
    ):
        number = len(re.findall(pattern, log))
        if number != wanted:
            found.append(f"{what}: {wanted}, and the log has {number}")
    asked = [tuple(map(int, numbers)) for numbers in re.findall(r"\] counters: received=(\d+) echoed=(\d+) dropped=(\d+)", log)]
    for before, now in pairwise(asked):
        if any(later < earlier for earlier, later in zip(before, now)):
            found.append(f"the sums that were asked for went from {before} to {now}")
    if "Traceback" in log:
        found.append("there is a traceback in the log")
    return found


class Chaos:
    """Does to a server, second by second, what can happen to one."""

    def __init__(self, server: Running, url: str, file: Path, options: argparse.Namespace) -> None:
        """@param url: where its metrics are.
        @param file: its configuration file.
        """
        self.done = Done()
        self._server = server
        self._url = url
        self._file = file
        self._options = options
        self._random = random.Random(options.seed)
        self._page: Page | None = None
        self._used: tuple[float, float] | None = None
        self._turn = 0
        self._next = {"kill": options.kill_every, "hup": options.reload_every, "usr1": options.ask_every, "look": 0.0}

    def second(self, sent: Sent) -> None:
        """A second is over.

        @param sent: what the load has sent.
        """
        page = self.page()
        self._lookAtProcessor()
        if page.workers < self._options.workers:
            # One is on its way; the rest waits, that one thing at a time happens.
            return
        workers = self._children()
        if self._isDue("look", sent, self._options.look_every):
            self._look(sent, page, workers)
        if self._isDue("hup", sent, self._options.reload_every):
            self._change()
        elif self._isDue("usr1", sent, self._options.ask_every):
            os.kill(self._server.pid, signal.SIGUSR1)
            self.done.asked += 1
        elif self._isDue("kill", sent, self._options.kill_every) and workers:
            os.kill(self._random.choice(workers), signal.SIGKILL)
            self.done.killed += 1

    def page(self) -> Page:
        """Read the metrics, and compare them with those before."""
        page = Page.read(self._url)
        if self._page is not None:
            self.done.faults += pageFaults(self._page, page, IN_HAND * self._options.workers)
        self._page = page
        self.done.read += 1
        return page

    def settled(self) -> Page:
        """Wait until all workers are there and nothing more comes.

        @return: the metrics then.
        @raise Broken: if it does not come to that.
        """
        deadline = time.monotonic() + PATIENCE
        page = self.page()
        while time.monotonic() < deadline:
            time.sleep(0.5)
            before, page = page, self.page()
            if page.workers == self._options.workers and page.received == before.received == page.echoed + page.dropped:
                return page
        raise Broken(f"after the load, {page.workers} workers are alive, and {page.received} received do not settle")

    def _isDue(self, what: str, sent: Sent, every: float) -> bool:
        if sent.seconds < self._next[what]:
            return False
        # Not in step with anything.
        self._next[what] = sent.seconds + every * (1 if what == "look" else self._random.uniform(0.7, 1.3))
        return True

    def _children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text().split()]

    def _change(self) -> None:
        text, effect = _files[self._turn % len(_files)]
        self._turn += 1
        # In one step, as a careful operator writes it.
        written = self._file.with_suffix(".new")
        written.write_text(text.replace("{quarter}", str(max(1, self._options.rate // 4))))
        written.replace(self._file)
        os.kill(self._server.pid, signal.SIGHUP)
        if effect is None:
            self.done.refused += 1
        else:
            self.done.applied += 1
            # Known to have worked when the next one is due, and not when the run ends before.
            self.done.wasToDrop = self.done.wasToDrop or _files[(self._turn - 2) % len(_files)][1] == "drops"

    def _lookAtProcessor(self) -> None:
        now, used = time.monotonic(), self._server.used().cpu
        if self._used is not None and used >= self._used[1]:
            # A worker that is gone has taken its time along.
            busy, seconds = self.done.busy
            self.done.busy = (busy + used - self._used[1], seconds + now - self._used[0])
        self._used = (now, used)

    def _look(self, sent: Sent, page: Page, workers: Sequence[int]) -> None:
        parent = Process.look(self._server.pid)
        found: list[Process] = []
        for pid in workers:
            with suppress(OSError):
                found.append(Process.look(pid))
        self.done.parent.append([parent])
        self.done.workers.append(found)
        resident = "+".join(f"{process.resident / 1e6:.1f}" for process in found)
        descriptors = "+".join(str(process.descriptors) for process in found)
        print(
            f"{sent.seconds / 60:>8.1f}{parent.resident / 1e6:>11.1f}{resident:>14}{parent.descriptors:>5}{descriptors:>9}"
            f"{sent.sent:>12}{page.received:>12}{page.echoed:>12}{page.dropped:>10}{page.kernel:>8}{self.done.killed:>7}",
            flush=True,
        )


_heading = (
    f"{'minutes':>8}{'parent MB':>11}{'workers MB':>14}{'fds':>5}{'workers':>9}"
    f"{'sent':>12}{'received':>12}{'echoed':>12}{'dropped':>10}{'kernel':>8}{'kills':>7}"
)


def main(arguments: Sequence[str]) -> int:
    """Run it.

    @return: the exit status: 0, 1 if something does not balance or the server failed, 2 if what was asked for cannot be.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.chaos", description="Load on a server in trouble.")
    parser.add_argument("--minutes", type=float, default=10, help="how long [10]")
    parser.add_argument("--rate", type=int, default=20_000, help="datagrams a second [20000]")
    parser.add_argument("--sources", type=int, default=50_000, help="source ports to go through [50000]")
    parser.add_argument("--workers", type=int, default=2, help="processes of the server, two or more [2]")
    parser.add_argument("--kill-every", type=float, default=20, metavar="S", help="seconds between two dead workers [20]")
    parser.add_argument("--reload-every", type=float, default=15, metavar="S", help="seconds between two files [15]")
    parser.add_argument("--ask-every", type=float, default=30, metavar="S", help="seconds between two SIGUSR1 [30]")
    parser.add_argument("--look-every", type=float, default=60, metavar="S", help="seconds between two lines [60]")
    parser.add_argument("--seed", type=int, default=1, help="of the load, and of when what happens [1]")
    options = parser.parse_args(arguments)
    periods = (options.minutes, options.rate, options.kill_every, options.reload_every, options.ask_every, options.look_every)
    if not (all(number > 0 for number in periods) and options.workers >= 2 and 2048 <= options.sources <= 5_000_000):
        parser.error("numbers are above 0, --workers is 2 or more, --sources is from 2048 to 5000000")
    try:
        return _run(options)
    except Missing as e:
        print(f"chaos: {e}", file=sys.stderr)
        return 2
    except Broken as e:
        print(f"chaos: {e}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    processors = Processors()
    with tempfile.TemporaryDirectory(prefix="udpecho-chaos-") as directory:
        workshop = Workshop(Path(directory))
        load = workshop.compile("soak.c")
        port, metrics = freePort(), freePort()
        file = Path(directory, "udpecho.toml")
        file.write_text(_files[-1][0])
        chosen = ["--workers", str(options.workers), "--config", str(file), "--receive-buffer", "4M"]
        command = workshop.udpecho(LOOPBACK, port, *chosen, "--metrics", f"tcp:{metrics}:interface={LOOPBACK}")
        own = processors.server(options.workers)
        with Running(command, workshop, own, "udpecho") as server:
            # Not asked, as what it receives is counted.
            server.untilLogged("answering on")
            chaos = Chaos(server, f"http://{LOOPBACK}:{metrics}/metrics", file, options)
            numbers = (options.minutes * 60, options.rate, options.sources, 0, 1, options.seed)
            sent = _watch([load, LOOPBACK, str(port), *map(str, numbers)], processors.load, chaos)
            last = chaos.settled()
            log = server.stop()
    return _tell(sent, last, log, chaos.done, len(own))


def _watch(command: Sequence[str], processors: set[int], chaos: Chaos) -> Sent:
    """Run the load, which has a line each second.

    @return: the last one.
    """
    print(_heading, flush=True)
    last = None
    with on(processors), subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        try:
            assert load.stdout is not None
            for line in load.stdout:
                last = Sent(**json.loads(line))
                chaos.second(last)
        finally:
            load.kill()
    if last is None or load.returncode not in (0, -signal.SIGKILL):
        raise Broken("the load has failed")
    return last


def _tell(sent: Sent, last: Page, log: str, done: Done, processors: int) -> int:
    accounts = Accounts.read(log)
    seconds = done.busy[1] or 1.0
    busy = done.busy[0] / seconds / processors
    inHand = sum(map(int, re.findall(r"in hand counts as send_failed: (\d+)", log)))
    print(
        f"sent {sent.sent} from {sent.sources} sources, {sent.replies} replies; the server was busy for {busy:.0%} of its time"
    )
    print(
        f"{done.killed} workers killed, {done.applied} files applied and {done.refused} refused,"
        f" {done.asked} times asked for sums, {done.read} pages of metrics read"
    )
    print(
        f"received {accounts.received}, echoed {accounts.echoed}, dropped {accounts.dropped}; by the kernel {accounts.kernel};"
        f" in the hands of killed workers {inHand} counted, {sent.sent - accounts.received - accounts.kernel} not"
    )
    wrong = [*done.faults, *faults(sent, last, log, done)]
    wrong += growth("the parent", done.parent) + growth("a worker", done.workers)
    if busy > MOST_BUSY:
        wrong.append(f"the server was busy for more than {MOST_BUSY:.0%} of its time: choose a lower --rate")
    for line in wrong:
        print(f"does not balance: {line}")
    if not wrong:
        print("the accounts balance")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
