"""Tests of L{udpecho.printing}: names whose letters the charset of standard output or error lacks."""

from __future__ import annotations

import io
import sys

import pytest

from tests.support.processes import Processes
from udpecho.printing import escapeWhatDoesNotFit

ASCII = {"PYTHONIOENCODING": "ascii"}


def wide(text: str) -> str:
    """The same in fullwidth letters, which the resolver takes for the others (RFC 3491 section 4)."""
    return "".join(chr(ord(letter) + 0xFEE0) for letter in text)


class EscapeTests:
    """L{escapeWhatDoesNotFit}."""

    def test_streams(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Letters that do not fit, and bytes of the command line that were no letters, are written in another way."""
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "latin-1"))
        monkeypatch.setattr(sys, "stderr", None)
        escapeWhatDoesNotFit()
        print("café \u0142 \udcff", flush=True)
        assert written.getvalue() == b"caf\xe9 \\u0142 \\udcff\n"

    @pytest.mark.parametrize("encoding", ["idna", "undefined"])
    def test_strict(self, processes: Processes, encoding: str) -> None:
        """Where Python's codec for the charset escapes nothing, the output is ASCII, and the command ends."""
        environment = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"}
        sent = processes.run("udpecho", "send", "127.0.0.1:9", "no\xe4", environment=environment)
        assert (sent.status, sent.stdout) == (2, "")
        assert sent.stderr.startswith("udpecho: cannot read no\\xe4: ")

    def test_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What an application has put in the place of standard output stays as it is."""
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stdout", stream)
        escapeWhatDoesNotFit()
        assert sys.stdout is stream


class CommandTests:
    """Each command does what it does elsewhere."""

    @pytest.mark.parametrize("form", ["", "--csv", "--ndjson", "--json", "--fping", "--quiet"])
    def test_ping(self, processes: Processes, form: str) -> None:
        """C{udpecho ping}, in each format."""
        server = processes.server("--interface", "127.0.0.1")
        target = f"{wide('localhost')}:{server.addresses[0][1]}"
        pinged = processes.run("udpecho", "ping", "-4", "-c", "2", "-i", "10ms", *form.split(), target, environment=ASCII)
        assert (pinged.status, pinged.stderr) == (0, "")
        assert "\\uff4c" in pinged.stdout

    def test_send(self, processes: Processes) -> None:
        """C{udpecho send}: the name that has no address."""
        sent = processes.run("udpecho", "send", wide("no") + ".invalid:9", feed=b"", environment=ASCII)
        assert (sent.status, sent.stdout) == (2, "")
        (line,) = sent.stderr.splitlines()
        assert "\\uff4e\\uff4f.invalid" in line

    def test_proxy(self, processes: Processes) -> None:
        """C{udpecho proxy}: so does it."""
        proxied = processes.run("udpecho", "proxy", "127.0.0.1:0", wide("no") + ".invalid:9", environment=ASCII)
        assert proxied.status == 2
        (line,) = proxied.stderr.splitlines()
        assert "\\uff4e\\uff4f.invalid" in line

    @pytest.mark.parametrize(
        "arguments",
        [
            ("udpecho", "--port", wide("a")),
            ("udpecho-client", "--host", "a", "--port", wide("a")),
            ("udpecho-probe", "--target", wide("a")),
        ],
        ids=lambda arguments: arguments[0],
    )
    def test_usage(self, processes: Processes, arguments: tuple[str, ...]) -> None:
        """C{twistd} prints what is wrong with its options on standard output."""
        wrong = processes.run("twistd", "-n", *arguments, environment=ASCII)
        assert (wrong.status, wrong.stderr) == (1, "")
        assert "\\uff41" in wrong.stdout.splitlines()[-1]

    def test_log(self, processes: Processes) -> None:
        """A line of the log is not lost: C{twistd -n} writes it to standard output."""
        logged = processes.run("twistd", "-n", "udpecho-client", "--host", wide("no") + ".invalid", feed=b"", environment=ASCII)
        assert "\\uff4e\\uff4f.invalid" in logged.stdout
        assert "Traceback" not in logged.stdout + logged.stderr
