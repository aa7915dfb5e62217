"""Tests of L{udpecho.daemon.config_file} and L{udpecho.daemon.command_line}."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.python import usage

from udpecho.daemon import command_line
from udpecho.daemon.command_line import CommandLine, check, compare, expand
from udpecho.daemon.config_file import MAX_SIZE, ConfigurationError, parse, read
from udpecho.daemon.server_tap import Options
from udpecho.guard.networks import LOOPBACK, parseNetwork
from udpecho.options import Value, makeTable
from udpecho.server.settings import OPTIONS

FILE_OPTIONS = makeTable(option for option in OPTIONS.values() if option.inFile)

pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli", reason="nothing reads TOML here")


def problems(text: str | bytes) -> tuple[str, ...]:
    """What is wrong with a text."""
    with pytest.raises(ConfigurationError) as caught:
        parse(text, OPTIONS, path="udpecho.toml")
    assert all(problem.isprintable() for problem in caught.value.problems)
    return caught.value.problems


def problem(text: str | bytes) -> str:
    """The one thing that is wrong with a text."""
    (found,) = problems(text)
    return found


class ParseTests:
    """L{parse}."""

    def test_everything(self) -> None:
        """All options may be in the file, and have the values that the command line would give them."""
        text = """
            port = 7                        # a number
            interface = ["0.0.0.0", "::"]   # several
            max-payload = "1k"              # or as on the command line
            log-datagrams = "all"
            write-timeout = 0.5
            receive-buffer = "4M"
            workers = "auto"
            no-offload = false
            allow = "192.0.2.0/24"          # one of several
            trust = ["private", "loopback"]
            rate = 1_000
            burst = 0x10
            max-rate = 0
            no-loop-guard = true
            dry-run = false
            metrics = "tcp:9107:interface=127.0.0.1"
            socket-activation = "all"
        """
        found = parse(text, OPTIONS).values
        assert set(found) == set(FILE_OPTIONS)
        assert found == {
            "port": "7",
            "interface": ("0.0.0.0", "::"),
            "max-payload": "1k",
            "log-datagrams": "all",
            "write-timeout": "0.5",
            "receive-buffer": "4M",
            "workers": "auto",
            "no-offload": False,
            "allow": ("192.0.2.0/24",),
            "trust": ("private", "loopback"),
            "rate": "1000",
            "burst": "16",
            "max-rate": "0",
            "no-loop-guard": True,
            "dry-run": False,
            "metrics": "tcp:9107:interface=127.0.0.1",
            "socket-activation": ("all",),
        }

    def test_empty(self) -> None:
        """An empty file changes nothing; a byte order mark is no matter."""
        assert parse("", OPTIONS) == parse(b"\xef\xbb\xbf# nothing\r\n", OPTIONS) == ({}, {})

    @pytest.mark.parametrize(
        ("written", "text"), [("1e-7", "0.0000001"), ("5.0", "5"), ("0.1", "0.1"), ("1e6", "1000000"), ("0.0", "0.0")]
    )
    def test_numbers(self, written: str, text: str) -> None:
        """Numbers are written as options read them, without exponents."""
        assert parse(f"write-timeout = {written}", OPTIONS).values == {"write-timeout": text}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("rate = true", "1: rate: must be a number or a string, got a boolean"),
            ("\n\ndry-run = 1", "3: dry-run: must be true or false, got a number"),
            ('dry-run = "yes"', "1: dry-run: must be true or false, got a string"),
            ("metrics = 9107", "1: metrics: must be a string, got a number"),
            ("allow = 10", "1: allow: must be a string or an array of strings, got a number"),
            (
                "allow = [\n'any',\n10]",
                "1: allow: must be a string or an array of strings, got an array with a number",
            ),
            ("allow = []", "1: allow: must have a value, got an empty array: leave the option out for its default"),
            ('metrics = ""', "1: metrics: must have a value, got an empty string: leave the option out for its default"),
            ('metrics = "a\\u0000"', "1: metrics: must not have a NUL, which no command line can have"),
            (f"metrics = '{'x' * 1001}'", "1: metrics: must have at most 1000 characters, got 1001"),
            ("port = 1979-05-27", "1: port: must be a number or a string, got a date or a time"),
            ("port = [1]", "1: port: must be a number or a string, got an array"),
            ("port = 99999", "1: port: port must be 0 to 65535, got '99999'"),
            ("rate = 0x" + "f" * 9999, "1: rate: must have at most 20 digits, got more"),
            (
                "# rate = 1\nrate = -1",
                "2: rate: limit must be 1 to 1000000000 datagrams, or 0 for no limit, got '-1'",
            ),
            ("write-timeout = nan", "1: write-timeout: duration must be 0s to 366 days, as in 0.5s or 500ms, got 'nan'"),
            ("trust = ['any', 'alle']", "1: trust: network must be "),
            ("'burst' = 0", "1: burst: limit must be 1 to 1000000000 datagrams, got '0'"),
        ],
    )
    def test_wrongValue(self, text: str, message: str) -> None:
        """A value of the wrong type, or that its option does not read, is reported with its line, and what it must be."""
        assert problem(text).startswith(f"udpecho.toml:{message}")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("ratte = 1", "1: ratte: unknown option: did you mean rate?"),
            ("port = 7\nMax_Rate = 1", "2: Max_Rate: unknown option: did you mean max-rate?"),
            ("config = 'x'", "1: config: unknown option"),
            ('"a\\nb" = 1', " 'a\\nb': unknown option"),
            ("\n[guard]\nrate = 1", "2: guard: options must not be in a table: write name = value"),
            ("[[x]]\n", "1: x: options must not be in a table: write name = value"),
            ("rate.x = 1", "1: rate: must be a number or a string, got a table"),
        ],
    )
    def test_unknown(self, text: str, message: str) -> None:
        """An unknown name is reported, with a similar option if there is one."""
        assert problem(text) == f"udpecho.toml:{message}"

    @pytest.mark.parametrize(
        ("text", "line"), [("rate = ", 1), ("\nrate = 1\nrate = 2\n", 3), ("x = '''\n\n", 3), ("a = 1\n\nb = \x01", 3)]
    )
    def test_notTOML(self, text: str, line: int) -> None:
        """What is not TOML is reported with the line."""
        found = problem(text)
        assert found.startswith((f"udpecho.toml:{line}: must be TOML: ", f"udpecho.toml:{line - 1}: must be TOML: "))
        assert "(at " not in found

    def test_notUTF8(self) -> None:
        """Bytes that are no text are reported with their line."""
        assert problem(b"# a\n# \xff") == "udpecho.toml:2: must be UTF-8, got byte 0xff"

    def test_nested(self) -> None:
        """What is nested deeper than Python can follow is reported, too."""
        assert "udpecho.toml" in problem("rate = " + "[" * 100000)

    def test_all(self) -> None:
        """All problems are reported, each in its line and in the order of the file, and the first one stands for them."""
        text = "rate = 'x'\nport = 7\nburst = 0\nfoo = 1"
        found = problems(text)
        assert [line.split(":")[1] for line in found] == ["1", "3", "4"]
        with pytest.raises(ConfigurationError) as caught:
            parse(text, OPTIONS, path="udpecho.toml")
        assert str(caught.value) == f"{found[0]} (and 2 more: --check-config prints all)"

    def test_many(self) -> None:
        """Of very many problems only the first are reported, and that does not take long."""
        assert len(problems("\n".join(f"x{number} = {number}" for number in range(20000)))) == 20

    def test_lineInString(self) -> None:
        """What looks like the option inside of a string is not taken for it."""
        with pytest.raises(ConfigurationError) as caught:
            parse('metrics = """\nrate = 5\n"""\nrate = true', OPTIONS, path="udpecho.toml")
        assert [line.partition(": ")[0] for line in caught.value.problems] == ["udpecho.toml:1", "udpecho.toml:4"]

    def test_spaces(self) -> None:
        """A long line of spaces does not take long to look through."""
        assert problem(" " * 300000 + "\n  rate = true").startswith("udpecho.toml:2: rate: ")

    def test_oddPath(self) -> None:
        """A path with a line end in it leaves a problem in one line."""
        with pytest.raises(ConfigurationError) as caught:
            parse("x = 1", OPTIONS, path="a\nb")
        assert str(caught.value).isprintable()

    def test_missingLibrary(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where nothing reads TOML, one line names what to install."""
        for name in ("tomllib", "tomli"):
            monkeypatch.setitem(sys.modules, name, None)
        assert (
            problem("") == "udpecho.toml: tomli must be installed to read TOML with Python 3.10: pip install 'udpecho[config]'"
        )

    @settings(deadline=None)
    @given(st.one_of(st.binary(), st.text()))
    def test_anything(self, data: str | bytes) -> None:
        """Any text is read, or each problem is one line."""
        _read(data)

    @settings(deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.one_of(st.sampled_from([*FILE_OPTIONS, "'rate'", "x", "rate.a", "[x]", "rate\n"]), st.text(max_size=5)),
                st.one_of(
                    st.sampled_from(["1", "true", "nan", "1e400", "-0", "07:32:00", "[[]]", "{a=1}", "'", '"\\U0010ffff"']),
                    st.integers().map(str),
                    st.floats().map(repr),
                    st.text(max_size=9).map(repr),
                    st.lists(st.text(max_size=5).map(repr), max_size=3).map(lambda texts: f"[{', '.join(texts)}]"),
                ),
            ),
            max_size=6,
        )
    )
    def test_almost(self, lines: list[tuple[str, str]]) -> None:
        """The same, of what looks like a configuration."""
        _read("\n".join(f"{name} = {value}" for name, value in lines))


def _read(data: str | bytes) -> None:
    """Read a text, and look at what comes."""
    message: tuple[str, ...] = ()
    values: dict[str, Value] = {}
    try:
        values = parse(data, OPTIONS).values
    except ConfigurationError as e:
        message = e.problems
    assert all(line.isprintable() and line.startswith("configuration:") for line in message)
    assert set(values) <= set(FILE_OPTIONS)
    assert all(isinstance(value, (str, bool)) or all(isinstance(text, str) for text in value) for value in values.values())


class ReadTests:
    """L{read}."""

    def test_file(self, tmp_path: Path) -> None:
        """A file is read."""
        path = tmp_path / "udpecho.toml"
        path.write_text("rate = 1")
        assert read(str(path), OPTIONS) == ({"rate": "1"}, {"rate": 1})

    def test_unreadable(self, tmp_path: Path) -> None:
        """A file that is missing, is none, or is too long, is reported with its path; a pipe does not block."""
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "long").write_bytes(b"#" * (MAX_SIZE + 1))
        reason = "must be a regular file, which a reload can read again"
        for path, message in (
            (tmp_path / "missing", "No such file or directory"),
            (tmp_path / "pipe", reason),
            (tmp_path, reason),
            (tmp_path / "long", f"must have at most {MAX_SIZE} bytes, got more"),
        ):
            with pytest.raises(ConfigurationError) as caught:
                read(str(path), OPTIONS)
            assert str(caught.value) == f"{path}: {message}"

    @settings(deadline=None)
    @given(st.text())
    def test_anyPath(self, path: str) -> None:
        """No path makes it raise anything else."""
        with pytest.raises(ConfigurationError) as caught:
            read("/no/such/" + path, OPTIONS)
        assert str(caught.value).isprintable()


class MergeTests:
    """L{expand}: the command line wins."""

    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> None:
        """Where the file is."""
        self.path = tmp_path / "udpecho.toml"

    def parse(self, text: str, *arguments: str) -> Options:
        """Read a command line with a file behind it."""
        self.path.write_text(text)
        options = Options()
        options.parseOptions(["--config", str(self.path), *arguments])
        return options

    def test_fileAlone(self) -> None:
        """What is not on the command line is as in the file."""
        options = self.parse("port = 7\nrate = 5\ndry-run = true\nno-offload = false\ninterface = ['::', '0.0.0.0']")
        written = {**self.parse(""), "port": 7, "rate": 5, "dry-run": True, "no-offload": False, "interface": ["::", "0.0.0.0"]}
        assert dict(options) == written

    @pytest.mark.parametrize("arguments", [["--port", "9"], ["--port=9"], ["-p9"], ["-p", "9"], ["--po", "9"]])
    def test_commandLine(self, arguments: list[str]) -> None:
        """What is on the command line counts, however it is written; even the default."""
        assert self.parse("port = 7\nrate = 5", *arguments)["port"] == 9
        assert self.parse("port = 7\nrate = 5", *arguments)["rate"] == 5
        assert self.parse("port = 7", "--port", "1234")["port"] == 1234

    @pytest.mark.parametrize("name", ["--interface", "-i", "--int"])
    def test_lists(self, name: str) -> None:
        """Of an option with several values the command line has all, or the file."""
        assert self.parse("interface = ['::', '0.0.0.0']", name, "::1")["interface"] == ["::1"]

    def test_networks(self) -> None:
        """A name stands for as many networks as on the command line."""
        found = self.parse("allow = ['loopback', '192.0.2.0/24']", "--trust", "loopback", "--trust", "192.0.2.0/24")
        assert found["allow"] == found["trust"] == [*LOOPBACK, *parseNetwork("192.0.2.0/24")]

    def test_methods(self) -> None:
        """An option that is a method with a name of several words is known by its own."""
        assert expand(Options(), ["--socket-activation", "a", "-i", "::1"], OPTIONS).given == {"socket-activation", "interface"}

    def test_noFile(self) -> None:
        """Without a file there is the command line."""
        assert expand(Options(), ["-p", "7"], OPTIONS) == CommandLine({}, {}, frozenset(["port"]))

    def test_lastFile(self, tmp_path: Path) -> None:
        """Of several files the last one counts, as of several values."""
        self.path.write_text("port = 7")
        found = expand(Options(), ["--config", "/no/such/file", f"--conf={self.path}"], OPTIONS)
        assert (found.values, found.parsed) == ({"port": "7"}, {"port": 7})

    def test_wrongFile(self) -> None:
        """A file that cannot be read is reported."""
        with pytest.raises(ConfigurationError, match=r"^/no/such/file: No such file or directory$"):
            expand(Options(), ["--config", "/no/such/file"], OPTIONS)

    @pytest.mark.parametrize("arguments", [["--nonsense"], ["--port"], ["--dry-run=1"]])
    def test_wrongCommandLine(self, arguments: list[str]) -> None:
        """A command line that is wrong is the options' to complain about."""
        with pytest.raises(usage.UsageError):
            self.parse("port = 7", *arguments)


class CompareTests:
    """L{compare}."""

    def test_changes(self) -> None:
        """What can be applied while serving is separate from what needs a restart; what stays, or is the command line's, is not
        named.
        """
        before = parse("port = 7\nrate = 5\nburst = 5\ntrust = 'any'\nmax-rate = 9\ndry-run = false", OPTIONS).values
        after = parse("port = 8\nrate = 6\nburst = 5\nallow = 'any'\nmax-rate = 10\nworkers = 2", OPTIONS).values
        changes = compare(before, after, OPTIONS, given=["max-rate"])
        assert changes.applicable == ("allow", "trust", "rate")
        assert changes.needRestart == ("port", "workers")

    def test_reloads(self) -> None:
        """These are what a reload applies."""
        assert {name for name, setting in FILE_OPTIONS.items() if setting.reloads} == {
            "allow",
            "trust",
            "rate",
            "burst",
            "max-rate",
            "dry-run",
            "log-datagrams",
        }

    def test_nothing(self) -> None:
        """A file with the same values, written differently, changes nothing."""
        before = parse("rate = 1\nallow = 'any'\ndry-run = false", OPTIONS).values
        changes = compare(before, parse("allow = ['any']\nrate = '1'", OPTIONS).values, OPTIONS)
        assert changes == command_line.Changes((), ())


class CheckTests:
    """L{check}."""

    @pytest.fixture(autouse=True)
    def capture(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def check(self, path: Path, parse: Callable[[], object] = list) -> tuple[int, list[str]]:
        """Check a file.

        @return: the exit status, and the lines, without the file's directory.
        """
        status = check(str(path), parse)
        return status, [line.removeprefix(f"{path.parent}{os.sep}") for line in self.capsys.readouterr().out.splitlines()]

    def test_good(self, tmp_path: Path) -> None:
        """A good file is reported as one."""
        assert self.check(tmp_path / "x.toml") == (0, ["x.toml: ok"])

    def test_bad(self, tmp_path: Path) -> None:
        """All problems are reported."""
        path = tmp_path / "x.toml"
        path.write_text("port = -1\nx = 1")
        status, lines = self.check(path, lambda: read(str(path), OPTIONS))
        assert status == 1
        assert [line[:16] for line in lines] == ["x.toml:1: port: ", "x.toml:2: x: unk"]

    def test_together(self, tmp_path: Path) -> None:
        """Values that exclude each other are reported as by the options."""

        def parse() -> None:
            raise usage.UsageError("--interface: each must be given once, got ::1 twice")

        wanted = (1, ["x.toml: --interface: each must be given once, got ::1 twice"])
        assert self.check(tmp_path / "x.toml", parse) == wanted
