"""Tests of C{docs/examples}: what the pages show is run."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.application.service import IService, IServiceCollection, loadApplication

from udpecho.cli import main
from udpecho.server.service import EchoService
from udpecho.testing import pytest_plugin
from udpecho.testing.trial import UDPEchoMixin

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def run(folder: Path, *command: str) -> str:
    """Run a Python module in an empty folder.

    @return: what it printed.
    """
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES)}
    ran = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


class ExampleTests:
    """The examples."""

    def test_pytest(self, tmp_path: Path) -> None:
        """The example for pytest passes."""
        assert "2 passed" in run(tmp_path, "pytest", "-n0", "-p", "no:cacheprovider", str(EXAMPLES / "test_with_pytest.py"))

    def test_globalReactor(self, tmp_path: Path) -> None:
        """The example of a program that imports the reactor passes."""
        assert "1 passed" in run(tmp_path, "pytest", "-n0", "-p", "no:cacheprovider", str(EXAMPLES / "test_global_reactor.py"))

    def test_memoryTCP(self, tmp_path: Path) -> None:
        """The example of TCP in memory passes."""
        assert "2 passed" in run(tmp_path, "pytest", "-n0", "-p", "no:cacheprovider", str(EXAMPLES / "test_memory_tcp.py"))

    def test_trial(self, tmp_path: Path) -> None:
        """The example for trial passes."""
        assert "PASSED (successes=2)" in run(tmp_path, "twisted.trial", "test_with_trial")

    @pytest.mark.parametrize("reactor", ["default", "asyncio"])
    def test_fixtures(self, reactor: str, tmp_path: Path) -> None:
        """The example of the fixtures passes, and has each of them."""
        path = EXAMPLES / "test_fixtures.py"
        found = {name for name, value in vars(pytest_plugin).items() if isinstance(value, type(pytest_plugin.udp_network))}
        assert found == {"udpecho_server", "udp_proxy", "udp_network", "udp_errors", "udp_leaks"}
        assert not {name for name in found if name not in path.read_text()}
        options = ("-W", "error", "-n0", "-p", "no:cacheprovider", f"--reactor={reactor}")
        assert "4 passed" in run(tmp_path, "pytest", *options, str(path))

    def test_networkRuns(self, tmp_path: Path) -> None:
        """So does that of how a network is run."""
        assert "1 passed" in run(tmp_path, "pytest", "-n0", "-p", "no:cacheprovider", str(EXAMPLES / "test_network_runs.py"))

    def test_rules(self, tmp_path: Path) -> None:
        """The examples of rules and of Hypothesis pass."""
        paths = [str(EXAMPLES / name) for name in ("test_rules.py", "test_with_hypothesis.py")]
        assert "3 passed" in run(tmp_path, "pytest", "-W", "error", "-n0", "-p", "no:cacheprovider", *paths)

    def test_badDays(self, tmp_path: Path) -> None:
        """The example of hosts and links passes."""
        assert "5 passed" in run(tmp_path, "pytest", "-n0", "-p", "no:cacheprovider", str(EXAMPLES / "test_bad_days.py"))

    def test_mixin(self, tmp_path: Path) -> None:
        """The example of the mixin passes, and has each of its methods."""
        text = (EXAMPLES / "test_mixin.py").read_text()
        assert not [name for name, value in vars(UDPEchoMixin).items() if inspect.isfunction(value) and name not in text]
        assert "PASSED (successes=3)" in run(tmp_path, "twisted.trial", "test_mixin")

    @pytest.mark.parametrize("path", [path for path in EXAMPLES.iterdir() if path.is_file()], ids=lambda path: path.name)
    def test_shown(self, path: Path) -> None:
        """Each example is shown on a page."""
        pages = "".join(page.read_text() for page in EXAMPLES.parent.glob("*.rst"))
        assert f"literalinclude:: examples/{path.name}\n" in pages

    def test_proxyOptions(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The page has every option of C{udpecho proxy}, and no other."""
        with pytest.raises(SystemExit):
            main.main(["proxy", "--help"])
        helped = set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", capsys.readouterr().out))
        _, _, section = (EXAMPLES.parent / "testing.rst").read_text().partition("A bad network between real programs\n---")
        assert set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", section)) == helped - {"help"}

    def test_tac(self) -> None:
        """The example of an application has the server in it."""
        application = loadApplication(str(EXAMPLES / "echo.tac"), "python")
        (service,) = IServiceCollection(application)
        assert isinstance(service, EchoService)
        assert IService(application).running == 0
