"""Tests of L{udpecho.daemon.plain_toml}."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.processes import Processes
from udpecho.daemon.config_file import FileOptions, parse, parseInPieces
from udpecho.daemon.plain_toml import readPlain
from udpecho.pieces import finish
from udpecho.server.settings import OPTIONS

pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli", reason="nothing reads TOML here")

#: What a text is made of.
PARTS = st.sampled_from(
    [
        *("a", "b-c", "a.b", '"a"', " = ", "=", " ", "\n", "\r\n", "\r", "\t", "[", "]", ",", "[a]\n", "[[a]]\n", "{a=1}"),
        *('"x"', '""', '"""x"""', '"""', '"\\n"', '"\\u00e9"', "'x'", "''", "'''x'''", '"é"', '"\x7f"', '"a\tb"', "'\\'", '"'),
        *("0", "1", "-1", "+1", "01", "1.5", "1.", ".5", "1e3", "1_000", "0x1f", "inf", "true", "false", "True", "1979-05-27"),
        *("# note", "# é\n", "# \x00\n", "#", "\x00", "\ufeff"),
    ]
)


def load(text: str) -> dict[str, Any] | None:
    """What the usual parser makes of a text; C{None} if it refuses it."""
    if sys.version_info >= (3, 11):
        import tomllib as toml
    else:
        import tomli as toml
    try:
        return toml.loads(text)
    except ValueError:
        return None


class ReadPlainTests:
    """L{readPlain}."""

    @settings(deadline=None, max_examples=1000)
    @given(st.lists(PARTS, max_size=14).map("".join))
    def test_anything(self, text: str) -> None:
        """It reads what the usual parser reads in the same way, or leaves it to that."""
        found = finish(readPlain(text))
        if found is not None:
            whole = load(text)
            assert whole == found
            assert [type(value) for value in found.values()] == [type(value) for value in whole.values()]

    @settings(deadline=None, max_examples=300)
    @given(
        st.dictionaries(
            st.sampled_from(["a", "b", "c-d", "5"]),
            st.sampled_from(["1", "'x' # y", '["x",\n"y" , ] ', "[]", "[ # x\n'x'\n]", "true", "-0.25", '[""]', "0 "]),
        ),
        st.sampled_from(["", "\n", "# x\n\n", "  "]),
    )
    def test_plain(self, lines: dict[str, str], between: str) -> None:
        """What options need is plain."""
        text = between + "".join(f"{name} = {value}\n{between}" for name, value in lines.items())
        assert finish(readPlain(text)) == load(text)

    @pytest.mark.parametrize(
        ("before", "after"), [("port = 1", ""), ("port = 1\n", "!"), ("a = [", "!"), ("a = ['x',", "# x\n]"), ("a = ['x'", "!")]
    )
    def test_muchSpace(self, processes: Processes, before: str, after: str) -> None:
        """Any amount of space, with anything after it, is read at once: in another process, since it may never end."""
        text = before + "\n" * 500 + "# y\n" * 500 + " " * 500 + after
        script = f"from tests.daemon.test_plain_toml import finish, readPlain; print(finish(readPlain({text!r})))"
        assert processes.run(sys.executable, "-c", script).stdout == f"{load(text)}\n"

    def test_pieces(self) -> None:
        """Thousands of networks are read in pieces."""
        names = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(5000)]
        text = "rate = 5\nallow = [\n" + "".join(f'  "{name}",\n' for name in names) + "]\n"
        work, pieces = parseInPieces(text.encode(), OPTIONS), 0
        found: FileOptions | None = None
        while found is None:
            try:
                next(work)
                pieces += 1
            except StopIteration as e:
                found = e.value
                break
        assert pieces > 100
        assert found == parse(text, OPTIONS)
        assert found.values["allow"] == tuple(names)

    @pytest.mark.parametrize("line", ["# y\n", "\n"])
    def test_piecesOfSpace(self, line: str) -> None:
        """So are thousands of lines without an option."""
        work = readPlain("rate = 5\n" + line * 100_000)
        assert sum(1 for _ in work) > 100

    @pytest.mark.parametrize(
        "text", [b"rate = -1", b"rat = 1", b"\xff", b"rate = 1\nrate = 2", b'rate = """1"""', b"allow = []"]
    )
    def test_wrong(self, text: bytes) -> None:
        """What is wrong with a file, or unusual, is for the other parser to find."""
        assert finish(parseInPieces(text, OPTIONS)) is None
