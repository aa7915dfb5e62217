"""Tests of L{udpecho.guard.policy}."""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from tests.support.source import ROOT
from udpecho.guard.networks import parseNetwork
from udpecho.guard.policy import SERVICES, GuardPolicy
from udpecho.pieces import finish


class GuardPolicyTests:
    """L{GuardPolicy}."""

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("rate", -1, "rate must be 0 or more, got -1"),
            ("burst", 0, "burst must be 1 or more, got 0"),
            ("maxRate", -1, "maxRate must be 0 or more, got -1"),
        ],
    )
    def test_range(self, name: str, value: int, message: str) -> None:
        """A number below the lowest is refused; the lowest is not."""
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            GuardPolicy(**{name: value})  # type: ignore[arg-type]
        assert getattr(GuardPolicy(**{name: value + 1}), name) == value + 1  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["rate", "burst", "maxRate"])
    @pytest.mark.parametrize("value", ["5", True, 1.5, None])
    def test_notAWholeNumber(self, name: str, value: Any) -> None:
        """Rates are whole numbers."""
        with pytest.raises(TypeError, match=f"^{re.escape(f'{name} must be an integer, got {value!r}')}$"):
            GuardPolicy(**{name: value})

    @pytest.mark.parametrize("name", ["allow", "trust"])
    @pytest.mark.parametrize(
        "value", ["", "192.0.2.0/24", ["private"], (IPv4Address("192.0.2.1"),), (IPv4Network("10.0.0.0/8"), "::/0")]
    )
    def test_notNetworks(self, name: str, value: Any) -> None:
        """Networks are networks, not their names."""
        message = f"{name} must be a tuple of networks, as parseNetwork returns, got {value!r}"
        with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
            GuardPolicy(**{name: value})

    def test_settings(self) -> None:
        """JSON carries a policy."""
        policy = GuardPolicy(
            allow=parseNetwork("private"),
            trust=parseNetwork("2001:db8::/32"),
            rate=7,
            burst=8,
            maxRate=9,
            refuseLoops=False,
            dryRun=True,
        )
        assert finish(GuardPolicy.fromSettings(json.loads(json.dumps(finish(policy.asSettings()))))) == policy


def test_documented() -> None:
    """The operators' page has every port that is refused."""
    page = (ROOT / "docs" / "guard.rst").read_text()
    assert {int(port) for port in re.findall(r"^   \* - (\d+)$", page, re.MULTILINE)} == set(SERVICES)
