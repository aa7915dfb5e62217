"""Tests of L{tests.benchmarks}: that they measure what they should, not how fast anything is."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import chaos, figures, loads, soak
from tests.benchmarks.chaos import GROWTH, IN_HAND, Done, Page, Process
from tests.benchmarks.figures import Figures, Measurement, Start, targets
from tests.benchmarks.loads import LOADS, Load
from tests.benchmarks.running import Memory
from tests.benchmarks.servers import SERVERS
from tests.benchmarks.soak import Accounts, Sent
from tests.benchmarks.workshop import HERE, ROOT, Missing, Processors, Workshop
from tests.support.guards import needsCompiler, onlyLinux
from tests.support.running import PATIENCE


def bench(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the commands, as from the repository."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=4 * PATIENCE,
        check=False,
    )


@contextmanager
def answering(answer: Callable[[bytes], list[bytes]]) -> Iterator[int]:
    """A server that may answer wrongly.

    @param answer: what it sends back for a datagram.
    @return: its port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                datagram, peer = sock.recvfrom(65536)
                if datagram == b"stop":
                    return
                for reply in answer(datagram):
                    sock.sendto(reply, peer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.sendto(b"stop", sock.getsockname())
            thread.join()


def everyThird(fault: Callable[[bytes], list[bytes]]) -> Callable[[bytes], list[bytes]]:
    """Echo, but do something else to every third datagram."""
    count = 0

    def answer(datagram: bytes) -> list[bytes]:
        nonlocal count
        count += 1
        return [datagram] if count % 3 else fault(datagram)

    return answer


@onlyLinux
@needsCompiler
class CompilingTests:
    """The programs in C."""

    @pytest.mark.parametrize("source", sorted(path.relative_to(HERE).as_posix() for path in HERE.rglob("*.c")))
    def test_compiles(self, source: str, tmp_path: Path) -> None:
        """Each compiles, without a warning."""
        workshop = Workshop(tmp_path)
        command = [workshop.tool("cc"), "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "out"), str(HERE / source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr

    def test_broken(self, tmp_path: Path) -> None:
        """One that does not compile is missing, and the reason is the compiler's."""
        source = tmp_path / "broken.c"
        source.write_text("not C\n")
        with pytest.raises(Missing, match=r"broken\.c cannot be built here: .*"):
            Workshop(tmp_path).compile(str(source))


@onlyLinux
@needsCompiler
class LoadTests:
    """The load, on servers that do it wrong."""

    load = Load("test", "one at a time", 1, 8, 64)

    def run(self, answer: Callable[[bytes], list[bytes]], tmp_path: Path, load: Load = load) -> loads.Heard:
        with answering(answer) as port:
            return loads.run(load, Workshop(tmp_path), Processors().load, "127.0.0.1", port, 0.3)

    def test_right(self, tmp_path: Path) -> None:
        """A true echo is counted, and nothing else is."""
        result = self.run(lambda datagram: [datagram], tmp_path)
        assert result.echoed == result.sent > 0
        assert (result.wrong, result.lost, result.late, result.failed) == (0, 0, 0, 0)
        assert 0 <= result.idle <= result.seconds

    @pytest.mark.parametrize(
        "fault",
        [
            lambda datagram: [datagram[:-1] + bytes([datagram[-1] ^ 1])],
            lambda datagram: [bytes([datagram[0] ^ 1]) + datagram[1:]],
            lambda datagram: [datagram[:-1]],
            lambda datagram: [datagram + b"x"],
            lambda datagram: [b""],
            lambda datagram: [datagram, datagram],
        ],
        ids=["last byte", "first byte", "shorter", "longer", "empty", "twice"],
    )
    def test_wrong(self, fault: Callable[[bytes], list[bytes]], tmp_path: Path) -> None:
        """What comes back otherwise than it went out, or twice, is wrong, and is not an echo."""
        result = self.run(everyThird(fault), tmp_path)
        assert result.wrong > 0
        assert 0 < result.echoed <= result.sent

    def test_lost(self, tmp_path: Path) -> None:
        """What does not come back is given up and sent again, so that the load goes on."""
        result = self.run(everyThird(lambda datagram: []), tmp_path)
        assert result.echoed > 8
        assert result.lost > 0
        assert result.sent == result.echoed + result.lost
        assert result.wrong == 0

    def test_gsoBatches(self, tmp_path: Path) -> None:
        """The datagrams of a GSO batch are counted one by one, where the server reads them one by one."""
        load = Load("test", "gso", 1, 1, 64, 16)
        try:
            result = self.run(lambda datagram: [datagram], tmp_path, load)
        except Missing as e:
            pytest.skip(str(e))
        assert result.echoed == result.sent > 0
        assert result.sent % 16 == result.wrong == result.lost == 0


@onlyLinux
class CommandTests:
    """C{python -m tests.benchmarks}."""

    @needsCompiler
    @pytest.mark.slow
    def test_quick(self, tmp_path: Path) -> None:
        """A short run ends with status 0, a table and JSON in which every datagram that came back was right."""
        path = tmp_path / "figures.json"
        ran = bench("tests.benchmarks", "--quick", "--servers", "ours,c-recvmmsg,c-offload", "--json", str(path))
        assert ran.returncode == 0, ran.stdout + ran.stderr
        found = json.loads(path.read_text())
        measured = {(one["server"], one["load"]) for one in found["measurements"]}
        expected = {(server, load) for server in ("ours", "c-recvmmsg", "c-offload") for load in LOADS}
        without = {pair for pair in expected if pair[1] in found["skipped"] or pair[0] in found["skipped"]}
        assert measured == expected - without
        assert all(one["echoed"] > 0 and one["wrong"] == 0 and one["cpu"] > 0 for one in found["measurements"])
        assert found["broken"] == []
        assert {kind: len(starts) for kind, starts in found["starts"].items()} == {"bare": 1, "ours": 1}
        assert {"ours", "c-recvmmsg"} <= {line.split()[0] for line in ran.stdout.splitlines() if line.strip()}
        assert "To reach" in ran.stdout

    @needsCompiler
    def test_skips(self, tmp_path: Path) -> None:
        """A load that a server cannot carry is named with the reason, and is not a failure."""
        ran = bench("tests.benchmarks", "--quick", "--servers", "socat", "--loads", "4x64", "--starts", "0")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "\nSkipped\n  socat" in ran.stdout

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--servers", "ours,bogus"], f"no server is called 'bogus': there are {', '.join(SERVERS)}"),
            (["--loads", "heavy"], f"no load is called 'heavy': there are {', '.join(LOADS)}"),
            (["--rounds", "0"], "--rounds is 1 or more, --starts 0 or more, --seconds from above 0 to 3600"),
            (["--chart", "chart.pdf"], "a chart is a .svg or a .png file, not chart.pdf"),
            (["--json", "nowhere/at/all.json"], "nowhere/at/all.json cannot be written"),
        ],
        ids=lambda value: value[0] if isinstance(value, list) else "",
    )
    def test_wrong(self, arguments: list[str], message: str) -> None:
        """A wrong argument ends with one line before anything is measured; the status is 2."""
        ran = bench("tests.benchmarks", *arguments)
        assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"benchmarks: {message}\n")

    @needsCompiler
    def test_chart(self, tmp_path: Path) -> None:
        """A chart is drawn where there is matplotlib; elsewhere one line names what is missing, and the status is 2."""
        path = tmp_path / "chart.svg"
        ran = bench(
            "tests.benchmarks", "--quick", "--servers", "c-recvmmsg", "--loads", "4x64", "--starts", "0", "--chart", str(path)
        )
        if ran.returncode == 2:
            assert ran.stderr == "benchmarks: matplotlib is not installed, and --chart needs it: pip install matplotlib\n"
        else:
            assert ran.returncode == 0, ran.stdout + ran.stderr
            assert "<svg" in path.read_text()


class FiguresTests:
    """L{figures}: from measurements to what is to be reached."""

    def measured(self, server: str, load: str, *cpu: float) -> list[Measurement]:
        return [Measurement(server, load, number, 1.0, each, 1.0, 0.0, 0.5, 1, 0, 0) for number, each in enumerate(cpu)]

    def test_targets(self) -> None:
        """A target compares medians, and is open while one of the two is missing."""
        found = Figures(self.measured("ours", "4x64", 1.0, 9.0, 2.0) + self.measured("c-recvmmsg", "4x64", 2.0, 2.0))
        reached = {target.name: (target.value, target.reached) for target in targets(found)}
        assert reached["processor time, 4x64, ours to c-recvmmsg"] == (1.0, True)
        assert reached["processor time, 4x64, ours to stock"] == (None, None)
        assert {value for name, value in reached.items() if "4x64, ours to c" not in name} == {(None, None)}

    def test_memory(self) -> None:
        """Memory is what we have after the load above what the bare one has."""
        bare, small, big = (Memory(size * 10**6, None, None) for size in (30, 31, 42))
        found = Figures(starts={"bare": [Start(0.2, bare)], "ours": [Start(0.3, small, big)]})
        values = [(target.value, target.reached) for target in targets(found) if target.value is not None]
        assert values == [(12.0, False), (pytest.approx(1.5), False)]

    def test_spread(self) -> None:
        """The spread has the median, the lowest and the highest."""
        assert figures.Spread.of([3.0, 1.0, 2.0]) == figures.Spread(2.0, 1.0, 3.0)


class SoakTests:
    """L{soak}."""

    def faults(self, sent: int = 10, gsoBatches: int = 0, wrong: int = 0, replies: int = 8, **accounts: int) -> int:
        kept = {"received": 10, "echoed": 8, "dropped": 2, "kernel": 0, **accounts}
        return len(soak.faults(Sent(1.0, sent, 0, replies, wrong, gsoBatches, 1, 1), Accounts(**kept)))

    def test_balances(self) -> None:
        """Accounts balance if each datagram that was sent is in one of them."""
        assert self.faults() == 0
        assert self.faults(sent=13, kernel=3) == 0

    def test_doesNotBalance(self) -> None:
        """One datagram too many or too few anywhere is a fault, as is one wrong reply."""
        for wrong in (
            {"sent": 11},
            {"sent": 9},
            {"kernel": 1},
            {"echoed": 9, "replies": 9},
            {"dropped": 1},
            {"wrong": 1},
            {"replies": 9},
        ):
            assert self.faults(**wrong) == 1, wrong

    def test_gsoBatches(self) -> None:
        """The kernel counts a dropped GSO batch once, where it would have been read as one; so much is not a fault."""
        assert self.faults(sent=10 + 64, gsoBatches=1, kernel=1) == 0
        assert self.faults(sent=10 + 65, gsoBatches=1, kernel=1) == 1
        assert self.faults(sent=10 + 64, gsoBatches=0, kernel=1) == 1
        assert self.faults(sent=10 + 1, gsoBatches=1, kernel=2) == 1

    @onlyLinux
    @needsCompiler
    @pytest.mark.slow
    def test_short(self) -> None:
        """The accounts of a short run balance, with replies to all that was sent."""
        ran = bench("tests.benchmarks.soak", "--minutes", "0.01", "--rate", "3000", "--sources", "3000")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert ran.stdout.endswith("the accounts balance\n")


class ChaosTests:
    """L{chaos}."""

    def page(self, received: int, echoed: int, dropped: int = 0, kernel: int = 0) -> Page:
        return Page.parse(
            "# TYPE udpecho_received_datagrams counter\n"
            f"udpecho_received_datagrams_total {received}.0\nudpecho_echoed_datagrams_total {echoed}.0\n"
            f'udpecho_dropped_datagrams_total{{reason="rate_limited"}} {dropped}.0\n'
            f"udpecho_kernel_dropped_datagrams_total {kernel}.0\nudpecho_workers 2.0\n"
        )

    def faults(self, sent: int = 10, killed: int = 0, last: Page | None = None, log: str = "", **done: Any) -> list[str]:
        log = f"stopped: received=10 echoed=8 dropped=2\n{log}" + killed * "worker 1 was killed by SIGKILL\n"
        return chaos.faults(Sent(1.0, sent, 0, 8, 0, 0, 1, 1), last or self.page(10, 8, 2), log, Done(killed=killed, **done))

    def test_pages(self) -> None:
        """No number goes back from one page to the next, and what was received by one is answered or dropped by the next, but
        for what is in hand.
        """
        before = self.page(100, 90, 4)
        assert chaos.pageFaults(before, self.page(110, 98, 5), 0) == []
        assert chaos.pageFaults(before, self.page(100, 90, 4), 6) == []
        assert len(chaos.pageFaults(before, self.page(100, 90, 4), 5)) == 1
        assert len(chaos.pageFaults(before, self.page(110, 98, 3), 0)) == 1
        assert len(chaos.pageFaults(self.page(100, 101), self.page(100, 101), 0)) == 1

    def test_balances(self) -> None:
        """What is missing is explained by what the killed workers had not finished, and by nothing else."""
        assert self.faults() == []
        assert self.faults(sent=10 + IN_HAND, killed=1) == []
        wrong: dict[str, Any]
        for wrong in (
            {"sent": 11},
            {"sent": 9},
            {"sent": 11 + IN_HAND, "killed": 1},
            {"last": self.page(10, 9, 1)},
            {"log": "Traceback (most recent call last):"},
            {"asked": 1},
            {"applied": 1},
            {"refused": 1},
        ):
            assert len(self.faults(**wrong)) == 1, wrong

    def test_growth(self) -> None:
        """Memory may grow a little, and descriptors not at all."""
        first = [Process(10 * GROWTH, 20)]
        assert chaos.growth("it", [first]) == []
        assert chaos.growth("it", [first, [Process(11 * GROWTH, 20)]]) == []
        assert len(chaos.growth("it", [first, [Process(11 * GROWTH + 1, 20)]])) == 1
        assert len(chaos.growth("it", [first, first, first, [Process(0, 21)]])) == 1

    @onlyLinux
    @needsCompiler
    @pytest.mark.slow
    def test_short(self) -> None:
        """The accounts of a short run balance."""
        periods = ["--kill-every", "1", "--reload-every", "3", "--ask-every", "2", "--look-every", "0.5"]
        ran = bench("tests.benchmarks.chaos", "--minutes", "0.1", "--rate", "2000", "--sources", "3000", *periods)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert ran.stdout.endswith("the accounts balance\n")
        assert not re.search(r"^0 workers killed", ran.stdout, re.MULTILINE)


@onlyLinux
@needsCompiler
@pytest.mark.slow
class PingTests:
    """The prober's benchmark."""

    def test_table(self) -> None:
        """Each figure has its line, with what it should be, and a number or what is missing here."""
        done = bench("tests.benchmarks.ping", "--rounds", "1", "--seconds", "0.5", "--virtual", "2")
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
        assert len(lines) == 7
        for line in lines:
            assert re.search(r"  (\d+\.\d{3}|missing: .+)$", line), line
        assert re.search(r"^probes a second +>= 50000  \d", done.stdout, re.MULTILINE)


class PortTests:
    """The benchmark of the port."""

    def test_table(self) -> None:
        """Each combination has its line, with both costs and their ratio."""
        done = bench("tests.benchmarks.port", "--pairs", "1", "--datagrams", "256")
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()[2:]
        assert len({tuple(line.split()[:-3]) for line in lines}) == 16
        for line in lines:
            assert re.search(r"( +\d+\.\d\d){3}$", line), line
