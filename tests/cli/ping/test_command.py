"""Tests of C{udpecho ping}, each on a real process."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import select
import signal
import socket
import struct
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.support.guards import needsQuit, tool
from tests.support.processes import Processes, Server
from tests.support.running import PATIENCE, udpSocket, unusedPort
from tests.support.transports import ResolvingClock
from udpecho.addresses import DatagramAddress
from udpecho.cli.ping.command import addPing, ping_
from udpecho.cli.ping.consent import consentNeeded
from udpecho.net.open import listen
from udpecho.probe import records
from udpecho.probe.prober import Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.target import Target
from udpecho.server.protocol import EchoServer
from udpecho.testing.memory_network import MemoryNetwork

jsonschema: Any = pytest.importorskip("jsonschema", reason="jsonschema is not installed here")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where our server answers, HOST:PORT."""
    with Processes(tmp_path_factory.mktemp("server")) as started:
        running: Server = started.server("--log-datagrams", "0", "--interface", "127.0.0.1")
        ((host, port),) = running.addresses
        yield f"{host}:{port}"
        running.stop()


class ConsentTests:
    """Which targets may be probed fast."""

    @pytest.mark.parametrize(
        ("host", "plan", "more", "what"),
        [
            ("8.8.8.8", Plan(flood=True), {}, "a flood"),
            ("8.8.8.8", Plan(interval=0.005), {}, "more than 100 probes a second"),
            ("2001:4860::1", Plan(interval=0.05), {"sources": 10}, "more than 100 probes a second"),
            ("8.8.8.8", Plan(interval=0.01), {}, None),
            ("8.8.8.8", Plan(flood=True), {"allow_public": True}, None),
            ("10.1.2.3", Plan(flood=True), {}, None),
            ("fe80::1", Plan(flood=True), {}, None),
            ("127.0.0.2", Plan(flood=True), {}, None),
            ("239.1.2.3", Plan(flood=True), {}, "a flood"),
        ],
    )
    def test_public(self, host: str, plan: Plan, more: dict[str, Any], what: str | None) -> None:
        """Public addresses are not flooded by accident."""
        options = Namespace(**{"sources": 1, "allow_public": False, **more})
        sentence = consentNeeded(plan, options, Target("them", DatagramAddress((host, 7))))
        assert (sentence is None) == (what is None)
        if what is not None and sentence is not None:
            assert what in sentence
            assert "--allow-public" in sentence

    def test_own(self) -> None:
        """This machine needs no consent, with any of its addresses."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                # Nothing is sent.
                sock.connect(("192.0.2.77", 9))
            except OSError as e:
                pytest.skip(f"this machine has no address but the loopback's: {e.strerror}")
            host = sock.getsockname()[0]
        options = Namespace(sources=1, allow_public=False)
        assert consentNeeded(Plan(flood=True), options, Target("us", DatagramAddress((host, 7)))) is None


class PingTests:
    """C{udpecho ping} against our server and others."""

    def test_lines(self, processes: Processes, server: str) -> None:
        """A line for each reply, and the summary; all answered is exit status 0."""
        done = processes.run("udpecho", "ping", "-c", "3", "-i", "10ms", server)
        where = re.escape(server)
        assert re.fullmatch(
            rf"PING {where} 64 bytes of data\n"
            + "".join(rf"64 bytes from {where}: seq={number} time=[\d.]+ ms\n" for number in range(3))
            + rf"\n--- {where} ping statistics ---\n3 probes sent, 3 received, 0% loss, time \d+ms\n(.+\n)+",
            done.stdout,
        )
        assert (done.status, done.stderr) == (0, "")

    def test_quiet(self, processes: Processes, server: str) -> None:
        """With --quiet there are no lines of events."""
        done = processes.run("udpecho", "ping", "-q", "-c", "3", "-i", "10ms", server)
        assert "seq=" not in done.stdout
        assert "3 probes sent, 3 received" in done.stdout

    def test_json(self, processes: Processes, server: str) -> None:
        """One document that is valid, with a target for each source of each target."""
        done = processes.run(
            "udpecho", "ping", "--json", "-c", "5", "-i", "5ms", "--sources", "2", "-s", "64,100", server, server
        )
        document = json.loads(done.stdout)
        jsonschema.validate(document, records.schema())
        assert [target["target"] for target in document["targets"]] == [server] * 4
        assert [target["received"] for target in document["targets"]] == [5] * 4
        assert len({target["source"] for target in document["targets"]}) == 4
        assert document["targets"][0]["sizes"] == [64, 100]

    def test_bindPort(self, processes: Processes, server: str) -> None:
        """Each source of each target has a port of its own: the given one, and the next ones."""
        port = unusedPort()
        if port > 65000:
            pytest.skip("there may be no next ports")
        bind = f"127.0.0.1:{port}"
        done = processes.run("udpecho", "ping", "--json", "-c", "2", "-i", "5ms", "-b", bind, "--sources", "2", server, server)
        sources = [target["source"] for target in json.loads(done.stdout)["targets"]]
        assert sources == [f"127.0.0.1:{port + number}" for number in range(4)]

    def test_ndjson(self, processes: Processes, server: str) -> None:
        """A line for each event, which is valid."""
        done = processes.run("udpecho", "ping", "--ndjson", "-c", "3", "--rate", "200", server)
        schema = records.schema()
        events = [json.loads(line) for line in done.stdout.splitlines()]
        for event in events:
            jsonschema.validate(event, {"$defs": schema["$defs"], "$ref": "#/$defs/probe"})
        assert [event["seq"] for event in events] == [0, 1, 2]

    def test_csv(self, processes: Processes, server: str) -> None:
        """A header, and a row for each event."""
        done = processes.run("udpecho", "ping", "--csv", "-c", "3", "-i", "5ms", server)
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert [(row["seq"], row["outcome"]) for row in rows] == [(str(number), "answered") for number in range(3)]

    def test_fping(self, processes: Processes, server: str) -> None:
        """A line for each target at the end, a dash for what is lost."""
        with udpSocket() as sock:
            host, port = sock.getsockname()
            done = processes.run("udpecho", "ping", "--fping", "-c", "3", "-i", "5ms", "-W", "50ms", server, f"{host}:{port}")
        lines = done.stdout.splitlines()
        assert re.fullmatch(rf"{re.escape(server)} :( [\d.]+){{3}}", lines[0])
        assert lines[1] == f"{host}:{port} : - - -"
        assert done.status == 1

    def test_socat(self, processes: Processes) -> None:
        """Other servers work too."""
        port = unusedPort()
        processes.start(tool("socat"), "-b", "70000", f"UDP4-RECVFROM:{port},fork", "EXEC:cat")
        # Until it is there, it refuses.
        done = processes.run("udpecho", "ping", "-q", "-c", "20", "-i", "100ms", f"127.0.0.1:{port}")
        assert re.search(r"20 probes sent, (1\d|20) received", done.stdout)

    def test_refused(self, processes: Processes) -> None:
        """A refusal is reported at once, without a count too, and the exit status is 3."""
        port = unusedPort()
        done = processes.run("udpecho", "ping", f"127.0.0.1:{port}")
        assert f"127.0.0.1:{port}: seq=0 refused, nothing listens on that port\n" in done.stdout
        assert done.status == 3
        done = processes.run("udpecho", "ping", "-c", "3", "-i", "5ms", f"127.0.0.1:{port}")
        assert "no reply: 3 refused\n" in done.stdout
        assert done.status == 3

    def test_lost(self, processes: Processes) -> None:
        """Silence is loss, and exit status 1."""
        with udpSocket() as sock:
            done = processes.run("udpecho", "ping", "-c", "2", "-i", "5ms", "-W", "50ms", at(sock))
        assert "seq=1 no reply\n" in done.stdout
        assert "2 probes sent, 0 received, 100% loss" in done.stdout
        assert done.status == 1

    def test_interrupted(self, processes: Processes, server: str) -> None:
        """An interrupt is the normal end: the summary, and the status of what was answered."""
        process = processes.start("udpecho", "ping", "-i", "10ms", server)
        process.until(r"seq=3 ")
        process.signal(signal.SIGINT)
        process.finish()
        assert "ping statistics ---\n" in process.stdout
        assert (process.status, process.stderr) == (0, "")

    def test_terminated(self, processes: Processes, server: str) -> None:
        """SIGTERM is the same except for the status."""
        process = processes.start("udpecho", "ping", "-i", "10ms", server)
        process.until(r"seq=0 ")
        process.stop()
        assert "ping statistics ---\n" in process.stdout
        assert process.status == 128 + signal.SIGTERM

    @needsQuit
    def test_quit(self, processes: Processes, server: str) -> None:
        """SIGQUIT prints a summary to standard error, and it goes on."""
        process = processes.start("udpecho", "ping", "-i", "10ms", server)
        process.until(r"seq=3 ")
        process.signal(signal.SIGQUIT)
        process.until("ping statistics ---", "stderr")
        seen = max(int(number) for number in re.findall(r"seq=(\d+) ", process.stdout))
        process.until(rf"seq={seen + 2} ")
        process.signal(signal.SIGINT)
        assert process.finish().status == 0

    @pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system has no SIGSTOP")
    def test_suspended(self, processes: Processes) -> None:
        """A process that was stopped sends the probes that were due late, and reports that."""
        with udpSocket() as sock:
            process = processes.start(
                "udpecho", "ping", "-i", "50ms", "-c", "10", "-W", "100ms", "--wait", "1s", "--ndjson", at(sock)
            )
            echo(sock)
            process.until('"seq": 0,')
            datagram, client = sock.recvfrom(100)
            process.signal(signal.SIGSTOP)
            sock.sendto(datagram, client)
            sock.settimeout(0.4)
            # Those that left before it was stopped.
            echoAll(sock)
            process.signal(signal.SIGCONT)
            sock.settimeout(1)
            echoAll(sock)
            process.finish()
            events = [json.loads(line) for line in process.stdout.splitlines()]
            answered = {event["seq"]: event for event in events if event["outcome"] in ("answered", "late")}
            assert sorted(answered) == list(range(10))
            assert max(event["schedule_deviation"] for event in answered.values()) > 0.05

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["127.0.0.1"], "address must be HOST:PORT, as in localhost:1234, got '127.0.0.1'"),
            (["-c", "0", "127.0.0.1:7"], "number of probes must be 1 to 1000000000000000, got '0'"),
            (["-i", "1x", "127.0.0.1:7"], "duration must be 1us to 366 days, as in 0.5s or 500ms, got '1x'"),
            (["--tos", "EG", "127.0.0.1:7"], "TOS must be a DSCP name, as in EF or AF41, or 0 to 255, got 'EG'"),
            (["-p", "zz", "127.0.0.1:7"], "pattern must be 1 to 16 bytes in hexadecimal digits, as in ff00, got 'zz'"),
            (["-6", "127.0.0.1:7"], "127.0.0.1:7 must be an IPv6 address, got 127.0.0.1"),
            (["-s", "2", "-i", "1ms", "127.0.0.1:7"], "outstanding probes of 2 bytes must be 256 or fewer"),
            (["--rate", "1m", "-W", "2s", "127.0.0.1:7"], "outstanding probes must be 1048576 or fewer, got 2000000"),
            (["--fping", "127.0.0.1:7"], "--fping must have --count or --duration, as in --count 10"),
            (
                ["--flood", "192.0.2.1:7"],
                "a flood to a public address must have its consent and --allow-public, got 192.0.2.1:7",
            ),
            (["--json", "--csv", "127.0.0.1:7"], "not allowed with argument"),
            (["-b", "::1", "-c", "1", "127.0.0.1:7"], "127.0.0.1:7 must be an IPv6 address, got 127.0.0.1"),
            (["-b", "127.0.0.1:65535", "--sources", "2", "127.0.0.1:7"], "local ports must be 1 to 65535, got 65535 to 65536"),
            (["-b", "192.0.2.77", "-c", "1", "127.0.0.1:7"], "cannot send from 192.0.2.77:0: "),
        ],
    )
    def test_wrong(self, processes: Processes, arguments: list[str], sentence: str) -> None:
        """Bad input is one clear line, and exit status 2."""
        done = processes.run("udpecho", "ping", *arguments)
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1
        assert (done.status, done.stdout) == (2, "")


class LimitTests:
    """Limits for scripts."""

    def test_kept(self, processes: Processes, server: str) -> None:
        """Within all limits the status is 0, without a message."""
        limits = ("--fail-if-loss", "0", "--fail-if-rtt", "median=1s", "--fail-if-rtt", "max=1s")
        done = processes.run("udpecho", "ping", "-q", "-c", "5", "-i", "5ms", *limits, server)
        assert (done.status, done.stderr) == (0, "")

    def test_exceeded(self, processes: Processes, server: str) -> None:
        """Each exceeded limit has a sentence, with the target's name, and the status is 1. A percentile of too few replies
        exceeds its limit.
        """
        limits = ("--fail-if-rtt", "median=0.001us", "--fail-if-rtt", "p99=20ms", "--fail-if-rtt", "max=1s")
        done = processes.run("udpecho", "ping", "-q", "-c", "5", "-i", "5ms", *limits, server)
        where = re.escape(server)
        assert re.fullmatch(
            rf"udpecho: {where}: rtt median must be 1ns or less, got [\d.]+[mu]?s\n"
            rf"udpecho: {where}: rtt p99 must be 20ms or less, got 5 replies, which are too few: it needs 299 or more\n",
            done.stderr,
        )
        assert done.status == 1

    @pytest.mark.parametrize(("limit", "status"), [("50%", 0), ("49.9%", 1), (None, 1)])
    def test_loss(self, processes: Processes, limit: str | None, status: int) -> None:
        """Losses within the limit do not give status 1, more do, and without a limit any does."""
        limits = () if limit is None else ("--fail-if-loss", limit)
        with udpSocket() as sock:
            process = processes.start("udpecho", "ping", "-c", "4", "-i", "5ms", "-W", "500ms", *limits, at(sock))
            for _ in range(2):
                echo(sock)
            process.finish()
        assert "4 probes sent, 2 received, 50% loss" in process.stdout
        assert process.status == status
        message = f"udpecho: {process.arguments[-1]}: loss must be 49.9% or less, got 50%: 2 of 4, "
        assert process.stderr.startswith(message) if limit == "49.9%" else not process.stderr

    def test_refused(self, processes: Processes) -> None:
        """A target that refuses has status 3, also if all may be lost."""
        done = processes.run(
            "udpecho", "ping", "-q", "-c", "2", "-i", "5ms", "--fail-if-loss", "100%", f"127.0.0.1:{unusedPort()}"
        )
        assert "loss must be 100% or less, got no probe that was lost or answered" in done.stderr
        assert done.status == 3

    def test_late(self, processes: Processes) -> None:
        """Late is not lost: with a limit of loss it does not give status 1, without one it does."""
        for limits, status in ((("--fail-if-loss", "0"), 0), ((), 1)):
            with udpSocket() as sock:
                process = processes.start("udpecho", "ping", "-c", "1", "-W", "1ms", "--wait", "10s", *limits, at(sock))
                datagram, client = sock.recvfrom(100)
                process.until("seq=0 no reply")
                sock.sendto(datagram, client)
                process.finish()
            assert "(late)" in process.stdout
            assert process.status == status


class PictureTests:
    """C{--plot}."""

    @pytest.mark.parametrize("name", ["rtt.svg", "rtt.png"])
    def test_drawn(self, processes: Processes, server: str, name: str) -> None:
        """There is a plot at the end, in addition to the output, with the losses."""
        pytest.importorskip("matplotlib", reason="matplotlib is not installed here")
        with udpSocket() as sock:
            done = processes.run("udpecho", "ping", "-c", "3", "-i", "5ms", "-W", "50ms", "--plot", name, server, at(sock))
        assert "3 probes sent, 3 received" in done.stdout
        picture = (processes.directory / name).read_bytes()
        if name.endswith(".png"):
            assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        else:
            text = picture.decode()
            assert "3 lost" in text
            assert f"{server}: 3 sent, 3 received, loss 0%" in text

    def test_interrupted(self, processes: Processes, server: str) -> None:
        """An interrupt is a normal end, with a plot."""
        pytest.importorskip("matplotlib", reason="matplotlib is not installed here")
        process = processes.start("udpecho", "ping", "-i", "10ms", "--plot", "rtt.svg", server)
        process.until(r"seq=3 ")
        process.signal(signal.SIGINT)
        assert process.finish().status == 0
        assert (processes.directory / "rtt.svg").stat().st_size > 1000

    def test_times(self) -> None:
        """A listener can read when the probe of an event was sent."""
        network = MemoryNetwork()
        here, there = network.host("here", "192.0.2.1"), network.host("there", "192.0.2.2")
        listen(there, 7, EchoServer(), "192.0.2.2")
        times: list[float | None] = []
        prober = Prober(
            here,
            [Target("there", DatagramAddress(("192.0.2.2", 7)))],
            Plan(interval=0.5, count=9),
            listener=lambda flow, event: times.append(flow.timeOf(event)),
        )
        prober.start()
        network.advance(10)
        assert [(time or 0) - prober.startedAt for time in times] == pytest.approx([number / 2 for number in range(9)])

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["--plot", "rtt.pdf"], "file of a plot must have a name that ends in .svg or .png, as in rtt.svg, got 'rtt.pdf'"),
            (["--plot", "there/is/no/rtt.svg"], "directory of --plot must exist, got there/is/no/rtt.svg"),
            (["--plot", "rtt.svg", "--sources", "17"], "targets times sources of --plot must be 16 or fewer, got 17"),
        ],
    )
    def test_wrong(self, processes: Processes, server: str, arguments: list[str], sentence: str) -> None:
        """A plot that is not possible is reported before the first probe."""
        pytest.importorskip("matplotlib", reason="matplotlib is not installed here")
        done = processes.run("udpecho", "ping", "-c", "1", *arguments, server)
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1
        assert (done.status, done.stdout) == (2, "")

    def test_notWritten(self, processes: Processes, server: str) -> None:
        """A file that cannot be written is reported after the summary."""
        pytest.importorskip("matplotlib", reason="matplotlib is not installed here")
        (processes.directory / "rtt.svg").mkdir()
        done = processes.run("udpecho", "ping", "-q", "-c", "1", "--plot", "rtt.svg", server)
        assert "1 probes sent, 1 received" in done.stdout
        assert (done.status, done.stderr) == (2, "udpecho: cannot write rtt.svg: Is a directory\n")

    @pytest.mark.parametrize(
        ("module", "arguments", "sentence"),
        [
            (
                "matplotlib",
                ["--plot", "rtt.svg"],
                r"matplotlib must be installed for --plot, got .*: pip install 'udpecho\[plot\]'",
            ),
            ("rich", ["--live"], r"rich must be installed for --live, got .*: pip install 'udpecho\[live\]'"),
        ],
    )
    def test_missing(self, processes: Processes, server: str, module: str, arguments: list[str], sentence: str) -> None:
        """A missing package is reported before the first probe, in one line."""
        (processes.directory / "missing").mkdir()
        (processes.directory / "missing" / f"{module}.py").write_text("raise ImportError('not here')\n")
        code = "import sys; sys.path.insert(0, 'missing'); from udpecho.cli.main import main; sys.exit(main())"
        done = processes.run(sys.executable, "-c", code, "ping", "-c", "1", *arguments, server)
        assert re.fullmatch(rf"udpecho: {sentence}\n", done.stderr)
        assert (done.status, done.stdout) == (2, "")


class LiveTests:
    """C{--live}."""

    def test_terminal(self, processes: Processes, server: str) -> None:
        """On a terminal there is a view instead of a line for each reply, which is gone when the summary is printed."""
        pytest.importorskip("rich", reason="rich is not installed here")
        with terminal() as (ours, theirs):
            process = processes.start(
                "udpecho", "ping", "--live", "-c", "30", "-i", "20ms", server, stderr=theirs, environment={"TERM": "xterm"}
            )
            process.finish()
            drawn = read(ours)
        assert "seq=" not in process.stdout
        assert "30 probes sent, 30 received" in process.stdout
        assert process.status == 0
        for part in ("sent/s", "received", server, "so far"):
            assert part in drawn
        # The cursor is there again.
        assert drawn.rindex("\x1b[?25h") > drawn.rindex("so far")

    @needsQuit
    def test_interim(self, processes: Processes, server: str) -> None:
        """SIGQUIT prints a summary in the place of the view, which comes back below; an interrupt ends both."""
        pytest.importorskip("rich", reason="rich is not installed here")
        with terminal() as (ours, theirs):
            process = processes.start(
                "udpecho", "ping", "--live", "-i", "20ms", "--csv", server, stderr=theirs, environment={"TERM": "xterm"}
            )
            process.until("answered")
            process.signal(signal.SIGQUIT)
            drawn = ""
            while "so far" not in drawn.partition("ping statistics ---")[2]:
                drawn += read(ours, 1)
            process.signal(signal.SIGINT)
            assert process.finish().status == 0

    def test_noTerminal(self, processes: Processes, server: str) -> None:
        """Without a terminal the option has no effect."""
        pytest.importorskip("rich", reason="rich is not installed here")
        done = processes.run("udpecho", "ping", "--live", "-c", "2", "-i", "5ms", server)
        assert "seq=1 time=" in done.stdout
        assert (done.status, done.stderr) == (0, "")


class LookUpTests:
    """Names."""

    def options(self, *arguments: str) -> Namespace:
        """Read a command line."""
        parser = ArgumentParser()
        addPing(parser.add_subparsers())
        return parser.parse_args(["ping", *arguments])

    def test_interrupted(self) -> None:
        """An interrupt while a name is looked up is an end too, with nothing answered."""
        clock = ResolvingClock({})
        over = ping_(clock, self.options("nobody.invalid:7"))
        over.cancel()
        assert over.result == 1
        assert not clock.getDelayedCalls()

    def test_someUnknown(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A name without an address is reported, and the other targets are probed."""
        network = MemoryNetwork()
        here, there = network.host("here", "192.0.2.1"), network.host("there", "192.0.2.2")
        listen(there, 7, EchoServer(), "192.0.2.2")
        over = ping_(here, self.options("-c", "2", "--allow-public", "nobody:7", "there:7"))
        network.advance(10)
        assert over.result == 1
        written = capsys.readouterr()
        assert "no address for 'nobody'" in written.err
        assert "2 probes sent, 2 received" in written.out


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Two ends of a terminal, of 80 characters by 24."""
    pty = pytest.importorskip("pty", reason="this system has no such terminals")
    termios = pytest.importorskip("termios", reason="this system has no such terminals")
    fcntl = pytest.importorskip("fcntl", reason="this system has no such terminals")
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def read(descriptor: int, most: int = 1000) -> str:
    """What is there to be read, in so many pieces at the most; waits for the first of them only.

    @raise AssertionError: if nothing comes.
    """
    assert select.select([descriptor], [], [], PATIENCE)[0]
    found = bytearray()
    for _ in range(most):
        if not select.select([descriptor], [], [], 0)[0]:
            break
        found += os.read(descriptor, 65536)
    return found.decode(errors="replace")


def at(sock: socket.socket) -> str:
    """The address of a plain socket, as people write it."""
    host, port = sock.getsockname()
    return f"{host}:{port}"


def echo(sock: socket.socket) -> None:
    """Answer one datagram."""
    datagram, client = sock.recvfrom(65536)
    sock.sendto(datagram, client)


def echoAll(sock: socket.socket) -> None:
    """Answer until nothing comes for as long as the socket's timeout is."""
    with suppress(TimeoutError):
        while True:
            echo(sock)


def _command() -> str:
    import shlex

    from tests.support.processes import command

    return shlex.join(command("udpecho"))
