"""Tests of L{udpecho.net.selftest}."""

from __future__ import annotations

import errno
import socket
from functools import partial

import pytest

from tests.support.guards import needsBatches, needsCtypes, onlyLinux
from udpecho.net import batch as module
from udpecho.net.linux import cmsg, library, sockopt
from udpecho.net.linux.mmsg import SystemCalls, systemCalls
from udpecho.net.selftest import batching, unsupportedReason


@onlyLinux
@needsCtypes
def test_works() -> None:
    """Linux has batches, whatever the width and the order of its numbers. All other tests of batches are skipped where this
    fails.
    """
    assert unsupportedReason() is None


@onlyLinux
@pytest.mark.parametrize(("part", "reason"), [("ctypes", "built without ctypes"), ("find", "the C library has no")])
def test_missing(monkeypatch: pytest.MonkeyPatch, part: str, reason: str) -> None:
    """What Python or the C library does not have is a reason."""
    if part == "find":
        monkeypatch.setattr(library, "find", partial(lambda find, name, types: find("no" + name, types), library.find))
    else:
        monkeypatch.setattr(library, part, None)
    systemCalls.cache_clear()
    batching.forget()
    try:
        assert reason in str(unsupportedReason())
    finally:
        systemCalls.cache_clear()
        batching.forget()


@needsBatches
class SystemCallsTests:
    """L{systemCalls} and L{unsupportedReason}."""

    def test_wrongLayout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A layout that is not this machine's is found out."""
        batching.forget()
        real = systemCalls()

        def recvmmsg(descriptor: int, address: int, count: int, flags: int, timeout: None) -> int:
            result = real.recvmmsg(descriptor, address, count, flags, timeout)
            return min(result, 3)

        monkeypatch.setattr(module, "systemCalls", lambda: SystemCalls(recvmmsg, real.sendmmsg, real.lastError))
        try:
            assert unsupportedReason() == "a batch has not the lengths of what was sent"
        finally:
            batching.forget()

    def test_controlMessageMissing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A kernel that agrees to report the hop limit, and does not, is found out."""
        batching.forget()
        monkeypatch.setattr(sockopt, "enableRecvHopLimit", lambda sock, wanted: True)
        try:
            assert unsupportedReason() == "a batch has not the control messages of what was sent"
        finally:
            batching.forget()

    @pytest.mark.parametrize(("member", "shift"), [("localAt", -4), ("destinationAt", 4), ("hopLimitAt", 4)])
    def test_otherPlaces(self, monkeypatch: pytest.MonkeyPatch, member: str, shift: int) -> None:
        """Control messages that a kernel puts elsewhere are found out: most are read and changed where they are."""
        batching.forget()
        real = cmsg.controlLayout

        def elsewhere(*arguments: bool) -> cmsg.ControlLayout:
            layout = real(*arguments)
            return layout._replace(**{member: getattr(layout, member) + shift})

        monkeypatch.setattr(cmsg, "controlLayout", elsewhere)
        try:
            assert unsupportedReason() is not None
        finally:
            batching.forget()

    def test_refusedOnce(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the system refuses to the test is tried again; what is proven stands."""
        batching.forget()

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", refuse)
            assert unsupportedReason() == "Too many open files"
        assert unsupportedReason() is None
        monkeypatch.setattr(socket, "socket", refuse)
        assert unsupportedReason() is None
