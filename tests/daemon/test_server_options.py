"""Tests of the options of C{twistd udpecho}, and of the line with the reason why it cannot start, in this process."""

from __future__ import annotations

import errno
import os

import pytest
from twisted.internet import error
from twisted.python import usage
from twisted.scripts._twistd_unix import UnixApplicationRunner

from udpecho.daemon.server_tap import Options
from udpecho.daemon.start_errors import CannotStart, exitOnStartError


class OptionsTests:
    """L{Options}."""

    @pytest.mark.parametrize(
        ("name", "texts"),
        [
            ("port", ["99999", "-1", "x", "", "1.5"]),
            ("interface", ["localhost", "127.0.0.1:1234", "[::1]", ""]),
            ("log-datagrams", ["-1", "1.5", "some"]),
            ("write-timeout", ["nan", "-1", "inf", "x", "99999999999999999999"]),
            ("receive-buffer", ["0", "-1", "4x", "1g"]),
            ("max-payload", ["70000", "-1", "x"]),
            ("allow", ["everybody", "10.0.0.0/33"]),
            ("trust", ["everybody", ""]),
            ("rate", ["many", "-1"]),
            ("burst", ["0", "x"]),
            ("max-rate", ["-1", "x"]),
            ("workers", ["0", "257", "x"]),
            ("metrics", ["nowhere", ""]),
        ],
    )
    def test_wrong(self, name: str, texts: list[str]) -> None:
        """A wrong value gets one sentence, with the option and the value."""
        for text in texts:
            with pytest.raises(usage.UsageError) as caught:
                Options().parseOptions([f"--{name}={text}"])
            message = str(caught.value)
            assert message.startswith(f"--{name}: ")
            assert repr(text) in message
            assert message.isprintable()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["-i", "::1", "-i", "127.0.0.1", "-i", "::1"], "--interface: each must be given once, got ::1 twice"),
            (["-i", "0:0::1", "-i", "::1"], "--interface: each must be given once, got ::1 twice"),
            (["-i", "127.0.0.1", "-i", "0.0.0.0"], "--interface: 0.0.0.0 has 127.0.0.1 in it: give one of them"),
            (
                ["--socket-activation", "all", "--port", "7"],
                "--socket-activation: the sockets are bound: leave --port and --interface out",
            ),
            (
                ["--socket-activation", "all", "-i", "::1"],
                "--socket-activation: the sockets are bound: leave --port and --interface out",
            ),
            (
                ["--socket-activation", "all", "--workers", "2"],
                "--socket-activation: one process serves on passed sockets: leave --workers out",
            ),
            (["stray"], "Wrong number of arguments."),
        ],
    )
    def test_together(self, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Values that exclude each other get one sentence."""
        monkeypatch.setattr("udpecho.daemon.server_tap.canShare", True)
        with pytest.raises(usage.UsageError) as caught:
            Options().parseOptions(arguments)
        assert str(caught.value) == message

    def test_workersElsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where processes cannot share a port, several of them are refused."""
        monkeypatch.setattr("udpecho.daemon.server_tap.canShare", False)
        Options().parseOptions(["--workers", "1"])
        with pytest.raises(usage.UsageError, match=r"^--workers: must be 1 on this system"):
            Options().parseOptions(["--workers", "2"])


class CannotStartTests:
    """L{CannotStart}."""

    def test_becomesUsable(self) -> None:
        """An address that becomes usable between the refusal and the look at its state is tried again."""
        tries: list[None] = []

        def start() -> None:
            tries.append(None)
            if len(tries) == 1:
                raise error.CannotListenError("127.0.0.1", 7, OSError(errno.EADDRNOTAVAIL, "refused"))

        exitOnStartError(start)
        assert len(tries) == 2

    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "::1", "2001:db8:1234:5678:9abc:def0:1234:5678", "fe80::1234:5678:9abc:def0%enp0s31f6np12vx"]
    )
    @pytest.mark.parametrize(
        ("number", "port"), [(errno.EADDRINUSE, 65535), (errno.EADDRNOTAVAIL, 65535), (errno.EACCES, 1023)]
    )
    def test_refused(self, host: str, number: int, port: int) -> None:
        """In the foreground the line has a hint. In the background, where C{twistd} shows 100 bytes, it has the address and the
        reason, however long they are.
        """
        reason = os.strerror(number)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

        def start() -> None:
            raise error.CannotListenError(host, port, OSError(number, reason))

        with pytest.raises(CannotStart) as caught:
            exitOnStartError(start)
        assert str(caught.value.code).startswith(f"udpecho: cannot listen on {address}: {reason}; ")
        shown = UnixApplicationRunner._formatChildException(UnixApplicationRunner({}), caught.value)
        assert shown.startswith(b"1 udpecho: ")
        assert address.encode() in shown
        assert reason.encode() in shown
