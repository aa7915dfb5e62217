"""Tests of the types that users see: what the pages show, and a program with each public name, pass the type checkers.

A checker runs once over all files, which takes a few seconds. Without the command C{pyright} its test is skipped: it comes by
C{pip install pyright}, which needs node.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

import udpecho
from tests.support.guards import tool
from tests.support.source import LONG, ROOT

CONSUMER = ROOT / "tests" / "support" / "consumer.py"
EXAMPLES = ROOT / "docs" / "examples"
#: For blocks and examples: they leave out annotations, as people do in tests and scripts, and Twisted itself is not wholly
#: annotated. All the rest is strict.
HEADER = "# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators\n"
#: What a page assumes that its reader has.
PRELUDE = """\
from typing import Any
from twisted.internet.defer import gatherResults
from udpecho import *
reactor: Any = None
"""
#: Mistakes, one a line, that every checker must see.
WRONG = [
    "udpecho.nothing",
    "udpecho.echo(None, '127.0.0.1', 'port', b'')",
    "udpecho.EchoServer(guard=5)",
    "udpecho.EchoService(None, interfaces=5)",
    "udpecho.listen(None, 0, udpecho.EchoServer()).nothing",
    "udpecho.listen(None, 0, udpecho.EchoServer()).getHost().nothing",
    "udpecho.EchoService(None).counters.nothing",
    "udpecho.Counters().received + 'x'",
]

#: What the example of C{docs/strangers.rst} needs of rpcudp.
RPCUDP = """\
from typing import Any
from twisted.internet.protocol import DatagramProtocol
class RPCProtocol(DatagramProtocol):
    def __getattr__(self, name: str) -> Any: ...
"""


def markdownBlocks(text: str) -> list[str]:
    """The blocks of Python in a Markdown page."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def restBlocks(text: str) -> list[str]:
    """The blocks of Python in a reStructuredText page."""
    blocks = re.findall(r"^( *)\.\. code-block:: python\n\n((?:\1 +.*\n|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block) for _, block in blocks]


def program(block: str) -> str:
    """Make a program of a block: one that awaits, outside a function, is the body of a coroutine function."""
    if re.search(r"^\S.*\bawait ", block, re.MULTILINE):
        block = "async def main():\n" + textwrap.indent(block, "    ")
    return HEADER + ("" if "reactor" in re.findall(r"^from .* import (\w+)", block, re.MULTILINE) else PRELUDE) + block


def ours(text: str) -> str:
    """A program without what it calls on Twisted's own interfaces: no checker binds their methods without a plugin."""
    text = text.replace("self.transport.", "transport.")
    if re.search(r"\breactor\.\w", text):
        text = text.replace("from twisted.internet import reactor\n", "reactor: Any = None\n")
    return f"from typing import Any\ntransport: Any = None\n{text}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a user's programs: the consumer, every block and example, and one program with the mistakes."""
    (tmp_path / "consumer.py").write_text(CONSUMER.read_text())
    blocks = {"README": markdownBlocks((ROOT / "README.md").read_text())}
    blocks |= {page.stem: restBlocks(page.read_text()) for page in (ROOT / "docs").glob("*.rst")}
    for page, found in blocks.items():
        for number, block in enumerate(found):
            (tmp_path / f"{page}_{number}.py").write_text(ours(program(block)))
    for example in EXAMPLES.iterdir():
        if example.suffix in (".py", ".tac"):
            (tmp_path / f"example_{example.stem}.py").write_text(HEADER + ours(example.read_text()))
    # For an example; the codebase itself has no annotations, and is not installed here.
    (tmp_path / "rpcudp").mkdir()
    (tmp_path / "rpcudp" / "__init__.py").write_text("")
    (tmp_path / "rpcudp" / "protocol.py").write_text(RPCUDP)
    (tmp_path / "wrong.py").write_text("import udpecho\n" + "\n".join(WRONG) + "\n")
    return tmp_path


def check(folder: Path, *command: str) -> str:
    """Run a type checker, outside of this project and its configuration.

    @return: what it printed.
    """
    return subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=LONG, check=False
    ).stdout


def assertMistakes(found: dict[str, set[int]], output: str) -> None:
    """Look that the mistakes are found, each of them, and nothing else."""
    assert found == {"wrong.py": set(range(2, 2 + len(WRONG)))}, output


class CheckerTests:
    """Type checkers, as users run them."""

    @pytest.mark.slow
    @pytest.mark.parametrize("plugin", ["", "mypy_zope"])
    def test_mypy(self, folder: Path, plugin: str) -> None:
        """C{mypy --strict}, with and without the plugin for zope's interfaces."""
        for module in filter(None, ("mypy", plugin)):
            if find_spec(module) is None:
                pytest.skip(f"{module} is not installed here")
        (folder / "mypy.ini").write_text(
            "[mypy]\nstrict = true\n"
            + (f"plugins = {plugin}:plugin\n" if plugin else "")
            # It has no annotations.
            + "[mypy-pytest_twisted]\nignore_missing_imports = true\n"
        )
        output = check(folder, sys.executable, "-m", "mypy", "--no-error-summary", ".")
        found: dict[str, set[int]] = {}
        for line in output.splitlines():
            name, number, kind = line.split(":")[:3]
            if kind != " note":
                found.setdefault(name, set()).add(int(number))
        assertMistakes(found, output)

    @pytest.mark.slow
    def test_pyright(self, folder: Path) -> None:
        """Pyright, as it is."""
        pyright = tool("pyright")
        # Without it the package of pip fetches one.
        tool("node")
        output = check(folder, pyright, "--pythonpath", sys.executable, "--outputjson")
        found: dict[str, set[int]] = {}
        for entry in json.loads(output)["generalDiagnostics"]:
            if entry["severity"] == "error":
                found.setdefault(Path(entry["file"]).name, set()).add(entry["range"]["start"]["line"] + 1)
        assertMistakes(found, output)


class ConsumerTests:
    """The programs that are checked."""

    def test_everyName(self) -> None:
        """The consumer has each public name."""
        words = set(re.findall(r"\w+", CONSUMER.read_text().partition('"""\n\nfrom')[2]))
        assert not set(udpecho.__all__) - words

    def test_blocks(self) -> None:
        """Blocks are found, and made programs."""
        page = "Text\n\n.. code-block:: python\n\n   a = 1\n\n   b = await c()\n\nText\n\n.. code-block:: sh\n\n   ls\n"
        assert restBlocks(page) == ["a = 1\n\nb = await c()\n\n"]
        assert program("b = await c()\n").endswith("async def main():\n    b = await c()\n")
        assert markdownBlocks("```sh\nls\n```\n\n```python\na = 1\n```\n") == ["a = 1\n"]
        assert len(markdownBlocks((ROOT / "README.md").read_text())) >= 7
        assert all(restBlocks((ROOT / "docs" / f"{page}.rst").read_text()) for page in ("client", "guard", "metrics", "server"))
