"""Tests of L{udpecho.net.options}."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest

from udpecho.net.open import listen
from udpecho.net.options import PortOptions


class PortOptionsTests:
    """L{PortOptions}."""

    def test_keywords(self) -> None:
        """The keyword arguments of L{listen} are its fields, with its defaults, but for that of connected ports."""
        defaults = {option.name: option.default for option in fields(PortOptions) if option.name != "memory"}
        keywords = {
            name: parameter.default
            for name, parameter in inspect.signature(listen).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and name != "maxPacketSize"
        }
        assert keywords == defaults

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("writeTimeout", -1, "writeTimeout must be a finite number of seconds from 0 on, got -1"),
            ("writeTimeout", float("inf"), "writeTimeout must be a finite number of seconds from 0 on, got inf"),
            ("writeTimeout", float("nan"), "writeTimeout must be a finite number of seconds from 0 on, got nan"),
            ("maxWaiting", -1, "maxWaiting must be 0 or more datagrams, got -1"),
            ("receiveBuffer", 0, "receiveBuffer must be 1 or more bytes, got 0"),
        ],
    )
    def test_outOfRange(self, option: str, value: Any, message: str) -> None:
        """A number out of its range is refused where it is given."""
        with pytest.raises(ValueError, match=r"must be") as caught:
            PortOptions(**{option: value})
        assert str(caught.value) == message
