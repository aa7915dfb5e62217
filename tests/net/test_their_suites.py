"""The suites of others on our port: C{twisted.names}, and what Twisted tests of UDP, with C{reactor.listenUDP} made ours."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.running import REACTORS

SUITES = ("twisted.names.test", "twisted.test.test_udp", "twisted.test.test_internet", "twisted.test.test_sip")
_MODULES = {"select": "selectreactor", "poll": "pollreactor", "epoll": "epollreactor", "asyncio": "asyncioreactor"}
_OURS = """
import atexit
import udpecho
opened = []
begin = udpecho.DatagramPort.startListening
def startListening(self):
    opened.append(self)
    begin(self)
udpecho.DatagramPort.startListening = startListening
atexit.register(lambda: print("opened", len(opened)))
udpecho.useDatagramPorts(reactor)
"""


def results(folder: Path, reactor: str, ours: bool) -> tuple[dict[str, str], int]:
    """Run the suites under trial.

    @return: the result of each test by its name, and how many ports of ours were opened.
    """
    module = _MODULES[reactor]
    lines = f"from twisted.internet import {module}\n{module}.install()\nfrom twisted.internet import reactor\n"
    lines += _OURS if ours else ""
    lines += "from twisted.scripts.trial import run\nrun()"
    ran = subprocess.run(
        [sys.executable, "-c", lines, f"--temp-directory={folder / str(ours)}", "--reporter=bwverbose", *SUITES],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found: dict[str, str] = {}
    path: list[str] = []
    for line in ran.stdout.splitlines():
        if line.startswith("=" * 20):
            break
        names = re.match(r"( *)([\w.]+)(?: \.\.\. +(\[\w+\]))?", line)
        if names is not None:
            path[len(names[1]) // 2 :] = [names[2]]
            if names[3]:
                found[".".join(path)] = names[3]
    counted = re.search(r"^opened (\d+)$", ran.stdout, re.MULTILINE)
    return found, 0 if counted is None else int(counted[1])


@pytest.mark.slow
class SuiteTests:
    """Suites of others."""

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_noDifference(self, tmp_path: Path, reactor: str) -> None:
        """Each test has the result that it has on the stock port, and many of them are on ours."""
        expected, none = results(tmp_path, reactor, ours=False)
        found, opened = results(tmp_path, reactor, ours=True)
        assert found == expected
        assert list(found.values()).count("[OK]") > 600
        assert none == 0
        assert opened > 30
