"""Output is data: of each command and format none of it is lost, ends the command in an odd way, or controls a terminal."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.commands import at, complaint, oneLine
from tests.support.processes import Process, Processes, command, eventually, isRunning
from tests.support.running import udpSocket
from udpecho.parsing import parseAddress, parseTarget
from udpecho.printing import printable, printableLines

FULL = "/dev/full"
FORMATS = ["", "--csv", "--ndjson", "--json", "--fping", "--quiet"]
HELPS = ["--help", "--version", "ping --help", "send --help", "proxy --help"]


@pytest.fixture
def target(processes: Processes) -> str:
    """The address of a server."""
    host, port = processes.server("--interface", "127.0.0.1").addresses[0]
    return f"{host}:{port}"


@contextmanager
def brokenPipe() -> Iterator[int]:
    """A pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def finishedPing(processes: Processes, form: str, target: str, stdout: int) -> Process:
    """C{udpecho ping} to an output, at its end."""
    return processes.run("udpecho", "ping", "-c", "3", "-i", "5ms", *form.split(), target, stdout=stdout)


class EndTests:
    """Output that ends."""

    @pytest.mark.parametrize("form", FORMATS)
    def test_ping(self, processes: Processes, target: str, form: str) -> None:
        """A reader that is gone gives status 141 and no message; a full disk 1 and one line."""
        with brokenPipe() as pipe:
            pinged = finishedPing(processes, form, target, pipe)
            assert (pinged.status, pinged.stderr) == (141, "")
        if os.path.exists(FULL):
            with open(FULL, "wb") as full:
                pinged = finishedPing(processes, form, target, full.fileno())
            assert pinged.status == 1
            assert oneLine(pinged) == "udpecho: cannot write to standard output: No space left on device\n"

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    @pytest.mark.parametrize("arguments", HELPS)
    def test_help(self, processes: Processes, arguments: str, unbuffered: str) -> None:
        """So do the help and the version, which argparse prints."""
        environment = {"PYTHONUNBUFFERED": unbuffered}
        with brokenPipe() as pipe:
            helped = processes.run("udpecho", *arguments.split(), stdout=pipe, environment=environment)
            assert (helped.status, helped.stderr) == (141, "")
        if os.path.exists(FULL):
            with open(FULL, "wb") as full:
                helped = processes.run("udpecho", *arguments.split(), stdout=full, environment=environment)
            assert helped.status == 1
            assert oneLine(helped) == "udpecho: cannot write to standard output: No space left on device\n"

    def test_proxy(self, processes: Processes, target: str) -> None:
        """So do the lines of C{udpecho proxy}, and its sums at the end."""
        with brokenPipe() as pipe, udpSocket() as client:
            proxying = processes.start("udpecho", "proxy", "-v", "127.0.0.1:0", target, stdout=pipe)
            port = int(proxying.until(r"from 127\.0\.0\.1:([0-9]+) to", "stderr")[1])
            client.sendto(b"hello", ("127.0.0.1", port))
            proxying.finish()
            assert (proxying.status, proxying.stderr.count("\n")) == (141, 1)

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_errors(self, processes: Processes, unbuffered: str) -> None:
        """Messages that cannot be written do not change the status."""
        with brokenPipe() as pipe:
            used = processes.run("udpecho", "ping", stderr=pipe, environment={"PYTHONUNBUFFERED": unbuffered})
        assert (used.status, used.stdout) == (2, "")

    def test_readerLeaves(self, processes: Processes, target: str) -> None:
        """C{head} gets its lines."""
        ping = shlex.join([*command("udpecho"), "ping", "-i", "5ms", target])
        piped = processes.run("sh", "-c", f"( {ping}; echo $? >status ) | head -n 3")
        assert (len(piped.stdout.splitlines()), piped.stderr) == (3, "")
        assert (processes.directory / "status").read_text() == "141\n"


class WaitTests:
    """Output that waits."""

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_nonBlocking(self, processes: Processes, unbuffered: str) -> None:
        """A pipe that another program has made non-blocking gets each row, however late it is read."""
        with fullPipe() as (reading, writing), udpSocket() as silent:
            os.set_blocking(writing, False)
            arguments = ["ping", "-c", "3000", "-i", "50us", "-W", "1ms", "--csv", at(silent)]
            pinging = processes.start("udpecho", *arguments, stdout=writing, environment={"PYTHONUNBUFFERED": unbuffered})
            os.close(writing)
            untilFull(reading)
            rows = b""
            while data := os.read(reading, 65536):
                rows += data
        pinging.finish()
        assert pinging.stderr == ""
        sequences = [line.split(b",")[2] for line in rows.splitlines()[1:]]
        assert sorted(map(int, sequences)) == list(range(3000))

    def test_secondSignal(self, processes: Processes, target: str) -> None:
        """A command that is stuck, because nobody reads its output, ends at the second signal, a second after the first."""
        with fullPipe() as (reading, writing):
            stuck = processes.start("udpecho", "ping", "-i", "1ms", "--csv", target, stdout=writing)
            os.close(writing)
            untilFull(reading)

            def isOver() -> bool:
                stuck.signal(signal.SIGTERM)
                return not isRunning(stuck.pid)

            eventually(isOver, "the end")
            stuck.finish()
        assert stuck.status == -signal.SIGTERM


@contextmanager
def fullPipe() -> Iterator[tuple[int, int]]:
    """A pipe with little room. The writing end is closed by the caller."""
    fcntl = pytest.importorskip("fcntl", reason="this system has no fcntl")
    if not hasattr(fcntl, "F_SETPIPE_SZ"):
        pytest.skip("this system has pipes of one size only")
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    yield reading, writing
    os.close(reading)


def untilFull(reading: int) -> None:
    """Wait until no line fits into such a pipe."""
    import fcntl
    import termios

    def isFull() -> bool:
        queued = fcntl.ioctl(reading, termios.FIONREAD, bytes(4))
        return int.from_bytes(queued, sys.byteorder) > 3900

    eventually(isFull, "a full pipe")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
class HangupTests:
    """The terminal is gone."""

    def test_summary(self, processes: Processes, target: str) -> None:
        """C{SIGHUP} ends C{udpecho ping} as C{SIGTERM} does: with the document and the plot."""
        pytest.importorskip("matplotlib", reason="matplotlib is not installed here")
        pinging = processes.start("udpecho", "ping", "-i", "10ms", "--ndjson", "--plot", "plot.svg", target)
        pinging.until('"answered"')
        pinging.signal(signal.SIGHUP)
        pinging.finish()
        assert (pinging.status, pinging.stderr) == (129, "")
        assert (processes.directory / "plot.svg").read_text().endswith("</svg>\n")
        assert [path.name for path in processes.directory.glob("plot*")] == ["plot.svg"]

    def test_document(self, processes: Processes, target: str) -> None:
        """The JSON document is whole."""
        pinging = processes.start("udpecho", "ping", "-i", "10ms", "--json", target)
        with udpSocket():
            processes.run("udpecho", "ping", "-c", "1", target)
        pinging.signal(signal.SIGHUP)
        pinging.finish()
        assert pinging.status == 129
        assert json.loads(pinging.stdout)["targets"][0]["target"] == target

    def test_nohup(self, processes: Processes, target: str) -> None:
        """Under C{nohup} it goes on."""
        line = shlex.join([*command("udpecho"), "ping", "-c", "100", "-i", "10ms", target])
        pinging = processes.start("sh", "-c", f"trap '' HUP; exec {line}")
        pinging.until("seq=0")
        pinging.signal(signal.SIGHUP)
        pinging.finish()
        assert pinging.status == 0


class PrintableTests:
    """What is not printable."""

    @given(st.text(st.characters(codec=None, categories=None, exclude_categories=())) | st.text())
    def test_printable(self, text: str) -> None:
        """It is escaped, and nothing is lost."""
        written = printable(text)
        assert written.isprintable()
        assert printableLines(text) == "\n".join(map(printable, text.split("\n")))
        if text.isprintable():
            assert written == text
        elif "\\" not in text and text.isascii():
            assert written.encode().decode("unicode_escape") == text

    @pytest.mark.parametrize(
        ("text", "written"),
        [
            ("a\x1b[31m\r\nb", "a\\x1b[31m\\r\\nb"),
            ("caf\xe9", "caf\xe9"),
            ("\udcff\x9b", "\\udcff\\x9b"),
            ("\u202ea", "\\u202ea"),
        ],
    )
    def test_examples(self, text: str, written: str) -> None:
        """Terminal escapes, ends of lines, bytes that were no letters, and what turns text around; but no letter."""
        assert printable(text) == written

    @pytest.mark.parametrize("host", ["a\x1b[31mb", "a\nb", "a b", "a\0", "\udcff", "\x9b", "a\u2028", "\xa0"])
    def test_names(self, host: str) -> None:
        """No name of a host has any of them."""
        with pytest.raises(ValueError, match=r"^host must be a name or an IP address, as in localhost, got '[ -~]*'$"):
            parseAddress(f"{host}:7")

    def test_otherLocale(self) -> None:
        """A name in UTF-8 is read where the locale has another charset, and Python has kept its bytes."""
        kept = "b\xfccher.example:7".encode().decode("ascii", "surrogateescape")
        assert parseAddress(kept) == ("b\xfccher.example", 7)
        assert parseTarget(kept) == "b\xfccher.example:7"

    def test_file(self, processes: Processes) -> None:
        """A file's name is printed in one line."""
        sent = processes.run("udpecho", "send", "127.0.0.1:9", "a\x1b[31m\nb", stdin=subprocess.DEVNULL)
        assert complaint(sent) == "udpecho: cannot read a\\x1b[31m\\nb: No such file or directory\n"

    def test_usage(self, processes: Processes) -> None:
        """So is an argument that is not known."""
        used = processes.run("udpecho", "ping", "127.0.0.1:9", "-c", "1", "--\x1b[31m\n")
        assert complaint(used).startswith("udpecho: unrecognized arguments: --\\x1b[31m\\n (see")

    def test_plotIsWhole(self, processes: Processes, target: str) -> None:
        """A plot that cannot be written leaves nothing, and what is there."""
        pytest.importorskip("matplotlib", reason="matplotlib is not installed here")
        (processes.directory / "plot.svg").mkdir()
        pinged = processes.run("udpecho", "ping", "-q", "-c", "1", "--plot", "plot.svg", target)
        assert pinged.status == 2
        assert oneLine(pinged) == "udpecho: cannot write plot.svg: Is a directory\n"
        assert [path.name for path in processes.directory.iterdir() if path.name.startswith("plot")] == ["plot.svg"]
