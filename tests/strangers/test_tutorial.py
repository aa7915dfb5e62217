"""Tests of C{docs/strangers.rst}."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.strangers.shelf import CODEBASES, Shelf

DOCS = Path(__file__).parents[2] / "docs"


class PageTests:
    """The page."""

    def test_versions(self) -> None:
        """It names the versions that the tests install."""
        page = (DOCS / "strangers.rst").read_text()
        pins = [codebase.pins[0].replace("==", " ") for codebase in CODEBASES.values()]
        assert not [pin for pin in pins if pin not in page]

    def test_length(self) -> None:
        """The test that a newcomer copies is short."""
        assert len((DOCS / "examples" / "test_deposit.py").read_text().splitlines()) < 30

    @pytest.mark.slow
    def test_tutorial(self, shelf: Shelf, tmp_path: Path) -> None:
        """The test finds the bug with the seed, and prints the trace, that the page shows."""
        command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", str(DOCS / "examples" / "test_deposit.py")]
        environment = {**os.environ, "PYTHONPATH": str(shelf.folderOf("rpcudp"))}
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert ran.returncode == 1, ran.stdout
        shown = re.findall(r"^   (E  .*|FAILED .*|1 failed.*)$", (DOCS / "strangers.rst").read_text(), re.MULTILINE)
        assert len(shown) == 7
        for line in shown:
            assert line.removeprefix("FAILED test_deposit.py").strip() in ran.stdout
