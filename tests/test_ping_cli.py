"""
Tests of C{udpecho ping}, each on a real process.
"""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import socket
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Processes, Server, tool
from tests.support import udpSocket, unusedPort
from tests.transports import ResolvingClock
from udpecho.addresses import DatagramAddress
from udpecho.ping_cli import addPing, impolite, ping_
from udpecho.probe import report
from udpecho.probe.flow import Target
from udpecho.probe.schedule import Plan
from udpecho.server import EchoServer
from udpecho.sockets.port import listen
from udpecho.testing.network import MemoryNetwork

jsonschema: Any = pytest.importorskip("jsonschema", reason="jsonschema is not installed here")
needsQuit = pytest.mark.skipif(not hasattr(signal, "SIGQUIT"), reason="this system has no SIGQUIT")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """
    Starts processes in a directory of the test's own.
    """
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """
    Where our server answers, HOST:PORT.
    """
    with Processes(tmp_path_factory.mktemp("server")) as started:
        running: Server = started.server("--log-datagrams", "0", "--interface", "127.0.0.1")
        ((host, port),) = running.addresses
        yield f"{host}:{port}"
        running.stop()


class PoliteTests:
    """
    Who may be probed fast.
    """

    @pytest.mark.parametrize(
        ("host", "plan", "more", "what"),
        [
            ("8.8.8.8", Plan(flood=True), {}, "a flood"),
            ("8.8.8.8", Plan(interval=0.005), {}, "more than 100 probes a second"),
            ("2001:4860::1", Plan(interval=0.05), {"sources": 10}, "more than 100 probes a second"),
            ("8.8.8.8", Plan(interval=0.01), {}, None),
            ("8.8.8.8", Plan(flood=True), {"allow_strangers": True}, None),
            ("10.1.2.3", Plan(flood=True), {}, None),
            ("fe80::1", Plan(flood=True), {}, None),
            ("127.0.0.2", Plan(flood=True), {}, None),
        ],
    )
    def test_strangers(self, host: str, plan: Plan, more: dict[str, Any], what: str | None) -> None:
        """
        Strangers are not flooded by accident.
        """
        options = Namespace(**{"sources": 1, "allow_strangers": False, **more})
        sentence = impolite(plan, options, Target("them", DatagramAddress((host, 7))))
        assert (sentence is None) == (what is None)
        if what is not None and sentence is not None:
            assert what in sentence
            assert "--allow-strangers" in sentence


class PingTests:
    """
    C{udpecho ping} against our server and others.
    """

    def test_lines(self, processes: Processes, server: str) -> None:
        """
        A line for each reply, and the summary; all answered is exit status 0.
        """
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
        """
        With --quiet there is no line for each.
        """
        done = processes.run("udpecho", "ping", "-q", "-c", "3", "-i", "10ms", server)
        assert "seq=" not in done.stdout
        assert "3 probes sent, 3 received" in done.stdout

    def test_json(self, processes: Processes, server: str) -> None:
        """
        One document that is as its schema says, with a target for each source of each target.
        """
        done = processes.run(
            "udpecho", "ping", "--json", "-c", "5", "-i", "5ms", "--sources", "2", "-s", "64,100", server, server
        )
        document = json.loads(done.stdout)
        jsonschema.validate(document, report.schema())
        assert [target["target"] for target in document["targets"]] == [server] * 4
        assert [target["received"] for target in document["targets"]] == [5] * 4
        assert len({target["source"] for target in document["targets"]}) == 4
        assert document["targets"][0]["sizes"] == [64, 100]

    def test_ndjson(self, processes: Processes, server: str) -> None:
        """
        An object for each event, as the schema says.
        """
        done = processes.run("udpecho", "ping", "--ndjson", "-c", "3", "--rate", "200", server)
        schema = report.schema()
        events = [json.loads(line) for line in done.stdout.splitlines()]
        for event in events:
            jsonschema.validate(event, {"$defs": schema["$defs"], "$ref": "#/$defs/probe"})
        assert [event["seq"] for event in events] == [0, 1, 2]

    def test_csv(self, processes: Processes, server: str) -> None:
        """
        A header, and a row for each event.
        """
        done = processes.run("udpecho", "ping", "--csv", "-c", "3", "-i", "5ms", server)
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert [(row["seq"], row["outcome"]) for row in rows] == [(str(number), "answered") for number in range(3)]

    def test_fping(self, processes: Processes, server: str) -> None:
        """
        A line for each target at the end, a dash for what is lost.
        """
        with udpSocket() as sock:
            host, port = sock.getsockname()
            done = processes.run("udpecho", "ping", "--fping", "-c", "3", "-i", "5ms", "-W", "50ms", server, f"{host}:{port}")
        lines = done.stdout.splitlines()
        assert re.fullmatch(rf"{re.escape(server)} :( [\d.]+){{3}}", lines[0])
        assert lines[1] == f"{host}:{port} : - - -"
        assert done.status == 1

    def test_socat(self, processes: Processes) -> None:
        """
        Another server's replies are as good.
        """
        port = unusedPort()
        processes.start(tool("socat"), "-b", "70000", f"UDP4-RECVFROM:{port},fork", "EXEC:cat")
        # Until it is there, it refuses.
        done = processes.run("udpecho", "ping", "-q", "-c", "20", "-i", "100ms", f"127.0.0.1:{port}")
        assert re.search(r"20 probes sent, (1\d|20) received", done.stdout)

    def test_refused(self, processes: Processes) -> None:
        """
        A port where nothing listens is told at once, without a count too, and the exit status is 3.
        """
        port = unusedPort()
        done = processes.run("udpecho", "ping", f"127.0.0.1:{port}")
        assert f"127.0.0.1:{port}: seq=0 refused, nothing listens on that port\n" in done.stdout
        assert done.status == 3
        done = processes.run("udpecho", "ping", "-c", "3", "-i", "5ms", f"127.0.0.1:{port}")
        assert "without a reply: 3 refused\n" in done.stdout
        assert done.status == 3

    def test_lost(self, processes: Processes) -> None:
        """
        Silence is loss, and exit status 1.
        """
        with udpSocket() as sock:
            done = processes.run("udpecho", "ping", "-c", "2", "-i", "5ms", "-W", "50ms", at(sock))
        assert "seq=1 no reply\n" in done.stdout
        assert "2 probes sent, 0 received, 100% loss" in done.stdout
        assert done.status == 1

    def test_interrupted(self, processes: Processes, server: str) -> None:
        """
        An interrupt is the normal end: the summary, and the status of what was answered.
        """
        process = processes.start("udpecho", "ping", "-i", "10ms", server)
        process.until(r"seq=3 ")
        process.signal(signal.SIGINT)
        process.finish()
        assert "ping statistics ---\n" in process.stdout
        assert (process.status, process.stderr) == (0, "")

    def test_terminated(self, processes: Processes, server: str) -> None:
        """
        Being told to end is the same but for the status.
        """
        process = processes.start("udpecho", "ping", "-i", "10ms", server)
        process.until(r"seq=0 ")
        process.stop()
        assert "ping statistics ---\n" in process.stdout
        assert process.status == 128 + signal.SIGTERM

    @needsQuit
    def test_quit(self, processes: Processes, server: str) -> None:
        """
        SIGQUIT prints a summary to standard error, and it goes on.
        """
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
        """
        A process that is stopped for a while sends late what was due meanwhile, and says so.
        """
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
            assert max(event["send_error"] for event in answered.values()) > 0.05

    def test_closedOutput(self, processes: Processes, server: str) -> None:
        """
        Who stops reading ends it, without a complaint.
        """
        process = processes.start("sh", "-c", f"{_command()} ping -i 5ms {server} | head -n 3")
        process.finish()
        assert len(process.stdout.splitlines()) == 3
        assert process.stderr == ""

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["127.0.0.1"], "'127.0.0.1' has no port: write HOST:PORT, as in 127.0.0.1:1234"),
            (["-c", "0", "127.0.0.1:7"], "'0' is not a number of probes: a whole number from 1 to 1000000000000000 is"),
            (["-i", "1x", "127.0.0.1:7"], "'1x' is not a duration"),
            (["--tos", "EG", "127.0.0.1:7"], "'EG' is not a TOS byte"),
            (["-p", "zz", "127.0.0.1:7"], "'zz' is not a pattern"),
            (["-6", "127.0.0.1:7"], "127.0.0.1 is not an address of IPv6"),
            (["-s", "2", "-i", "1ms", "127.0.0.1:7"], "no more than 256 can be told apart"),
            (["--fping", "127.0.0.1:7"], "give it one, as in --count 10"),
            (["--flood", "192.0.2.1:7"], "a flood needs --allow-strangers"),
            (["--json", "--csv", "127.0.0.1:7"], "not allowed with argument"),
            (["-b", "::1", "-c", "1", "127.0.0.1:7"], "127.0.0.1 is not an address of IPv6"),
            (["-b", "192.0.2.77", "-c", "1", "127.0.0.1:7"], "cannot send from 192.0.2.77:0: "),
        ],
    )
    def test_wrong(self, processes: Processes, arguments: list[str], sentence: str) -> None:
        """
        Bad input is one clear line, and exit status 2.
        """
        done = processes.run("udpecho", "ping", *arguments)
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1
        assert (done.status, done.stdout) == (2, "")


class LookUpTests:
    """
    Names.
    """

    def options(self, *arguments: str) -> Namespace:
        """
        Read a command line.
        """
        parser = ArgumentParser()
        addPing(parser.add_subparsers())
        return parser.parse_args(["ping", *arguments])

    def test_interrupted(self) -> None:
        """
        An interrupt while a name is looked up is an end too, with nothing answered.
        """
        clock = ResolvingClock({})
        over = ping_(clock, self.options("nobody.invalid:7"))
        over.cancel()
        assert over.result == 1
        assert not clock.getDelayedCalls()

    def test_someUnknown(self, capsys: pytest.CaptureFixture[str]) -> None:
        """
        A name without an address is told of, and the other targets are probed.
        """
        network = MemoryNetwork()
        here, there = network.host("here", "192.0.2.1"), network.host("there", "192.0.2.2")
        listen(there, 7, EchoServer(), "192.0.2.2")
        over = ping_(here, self.options("-c", "2", "--allow-strangers", "nobody:7", "there:7"))
        network.advance(10)
        assert over.result == 1
        written = capsys.readouterr()
        assert "no address for 'nobody'" in written.err
        assert "2 probes sent, 2 received" in written.out


def at(sock: socket.socket) -> str:
    """
    The address of a plain socket, as people write it.
    """
    host, port = sock.getsockname()
    return f"{host}:{port}"


def echo(sock: socket.socket) -> None:
    """
    Answer one datagram.
    """
    datagram, client = sock.recvfrom(65536)
    sock.sendto(datagram, client)


def echoAll(sock: socket.socket) -> None:
    """
    Answer until nothing comes for as long as the socket's timeout is.
    """
    with suppress(TimeoutError):
        while True:
            echo(sock)


def _command() -> str:
    import shlex

    from tests.processes import command

    return shlex.join(command("udpecho"))
