"""Twisted's own UDP tests, with our port in the place of the stock port."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.running import REACTORS
from tests.support.source import ROOT


class StockTests:
    """L{tests.support.stock_udp}."""

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_pass(self, reactor: str, tmp_path: Path) -> None:
        """C{twisted.test.test_udp} and C{twisted.internet.test.test_udp} pass, and are not merely skipped."""
        ran = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.support.stock_udp",
                f"--reactor={reactor}",
                f"--temp-directory={tmp_path / 'trial'}",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout
        successes = re.search(r"successes=(\d+)", ran.stdout)
        assert successes is not None
        assert int(successes[1]) >= 100
