"""Tests of L{udpecho.net.selftest}."""

from __future__ import annotations

import errno
import socket
import sys
from typing import Any

import pytest

from tests.support.guards import needsBatches, onlyLinux
from udpecho.net import batch as module
from udpecho.net.linux import sockopt
from udpecho.net.linux.mmsg import SystemCalls, systemCalls
from udpecho.net.selftest import provenMismatch, unsupportedReason


@onlyLinux
@pytest.mark.skipif(sys.maxsize < 2**63 - 1 or sys.byteorder != "little", reason="the layouts are others here")
def test_works() -> None:
    """Linux has batches. All other tests of batches are skipped where this fails."""
    assert unsupportedReason() is None


@needsBatches
class SystemCallsTests:
    """L{systemCalls} and L{unsupportedReason}."""

    @pytest.mark.parametrize(("name", "value"), [("byteorder", "big"), ("maxsize", 2**31 - 1)])
    def test_otherLayouts(self, monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
        """Where the layouts are others there are no batches, and there is a reason."""
        monkeypatch.setattr(sys, name, value)
        systemCalls.cache_clear()
        provenMismatch.cache_clear()
        try:
            assert "64 bits, little-endian" in str(unsupportedReason())
        finally:
            systemCalls.cache_clear()
            provenMismatch.cache_clear()

    def test_wrongLayout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A layout that is not this machine's is found out."""
        provenMismatch.cache_clear()
        real = systemCalls()

        def recvmmsg(descriptor: int, address: int, count: int, flags: int, timeout: None) -> int:
            result = real.recvmmsg(descriptor, address, count, flags, timeout)
            return min(result, 3)

        monkeypatch.setattr(module, "systemCalls", lambda: SystemCalls(recvmmsg, real.sendmmsg, real.lastError))
        try:
            assert unsupportedReason() == "a batch has not the lengths of what was sent"
        finally:
            provenMismatch.cache_clear()

    def test_controlMessageMissing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A kernel that agrees to report the hop limit, and does not, is found out."""
        provenMismatch.cache_clear()
        monkeypatch.setattr(sockopt, "enableRecvHopLimit", lambda sock: True)
        try:
            assert unsupportedReason() == "a batch has not the control messages of what was sent"
        finally:
            provenMismatch.cache_clear()

    def test_refusedOnce(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the system refuses to the test is tried again; what is proven stands."""
        provenMismatch.cache_clear()

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", refuse)
            assert unsupportedReason() == "Too many open files"
        assert unsupportedReason() is None
        monkeypatch.setattr(socket, "socket", refuse)
        assert unsupportedReason() is None
