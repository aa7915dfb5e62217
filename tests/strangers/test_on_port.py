"""Codebases from the package index on L{DatagramPort}, beside the stock port."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.strangers.shelf import Shelf
from tests.support.running import REACTORS

pytestmark = pytest.mark.slow

#: The plays: the codebase, and all that is noted when nothing is lost.
PLAYS: dict[str, tuple[str | None, list[Any]]] = {
    "names": (None, [["192.0.2.1"]]),
    "coap": ("txthings", ["hello"]),
    "rpc": ("rpcudp", ["deposit 10", [True, 10]]),
    "kademlia": ("kademlia", [True]),
    "rudp": ("txrudp", [f"message {number}" for number in range(5)]),
    "snmp": ("pysnmp", [["TimeTicks of 1.3.6.1.2.1.1.3.0"]]),
    "canary": ("opencanary", ["sip", "tftp", "ntp"] * 2),
    "metrics": (
        "carbon",
        [
            [metric, 1700000000.0 + second, value]
            for second in range(3)
            for metric, value in (("load.one", 1.5), ("load.two", 2.5))
        ],
    ),
}

SUITES = {
    "kademlia": ["kademlia.tests.test_node", "kademlia.tests.test_routing", "kademlia.tests.test_utils"],
    "txrudp": ["tests.test_connection", "tests.test_heap", "tests.test_packet", "tests.test_rudp"],
}


def onPort(folder: Path | None, *arguments: str, cwd: Path | None = None) -> tuple[int, Any]:
    """Run L{tests.strangers.on_port}.

    @return: how many of our ports were opened, and the result.
    """
    # A codebase may have a package "tests", as this one has.
    here = Path(__file__).parents[2]
    script = "import runpy, sys; sys.argv[0] = 'on_port'; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    command = [sys.executable, "-W", "ignore", "-c", script, str(Path(__file__).with_name("on_port.py")), *arguments]
    path = os.pathsep.join(map(str, filter(None, [folder, here] if arguments[2] == "suite" else [here, folder])))
    ran = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    opened, result = json.loads(ran.stdout)
    return opened, result


@pytest.mark.parametrize("reactor", list(REACTORS))
class OnPortTests:
    """Programs that know nothing of this package."""

    @pytest.mark.parametrize("play", list(PLAYS))
    def test_play(self, play: str, reactor: str, shelf: Shelf, tmp_path: Path) -> None:
        """A client and a server of each codebase see the same on both ports."""
        name, expected = PLAYS[play]
        folder = None if name is None else shelf.folderOf(name)
        arguments = ("play", play, str(len(expected)))
        assert onPort(folder, reactor, "stock", *arguments, cwd=tmp_path) == (0, expected)
        opened, noted = onPort(folder, reactor, "ours", *arguments, cwd=tmp_path)
        assert noted == expected
        assert opened >= 2

    @pytest.mark.parametrize("name", list(SUITES))
    def test_suite(self, name: str, reactor: str, shelf: Shelf, tmp_path: Path) -> None:
        """Their own tests have the same outcomes on both ports."""
        folder = shelf.folderOf(name)
        _, stock = onPort(folder, reactor, "stock", "suite", *SUITES[name], cwd=tmp_path)
        _, ours = onPort(folder, reactor, "ours", "suite", *SUITES[name], cwd=tmp_path)
        assert ours == stock
        # Of those of txrudp six compare texts with bytes, since they are older than Python 3.
        assert list(stock.values()).count("passed") >= len(stock) - 6 > 0
