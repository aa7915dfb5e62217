"""
Tests of C{docs/examples}: what the pages show is run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.application.service import IService, IServiceCollection, loadApplication

from udpecho import EchoService

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def run(folder: Path, *command: str) -> str:
    """
    Run a Python module in an empty folder.

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
    """
    The examples.
    """

    def test_pytest(self, tmp_path: Path) -> None:
        """
        The example for pytest passes.
        """
        assert "2 passed" in run(tmp_path, "pytest", "-p", "no:cacheprovider", str(EXAMPLES / "test_with_pytest.py"))

    def test_trial(self, tmp_path: Path) -> None:
        """
        The example for trial passes.
        """
        assert "PASSED (successes=2)" in run(tmp_path, "twisted.trial", "test_with_trial")

    def test_tac(self) -> None:
        """
        The example of an application has the server in it.
        """
        application = loadApplication(str(EXAMPLES / "echo.tac"), "python")
        (service,) = IServiceCollection(application)
        assert isinstance(service, EchoService)
        assert IService(application).running == 0
