"""Tests of L{udpecho.probe.target}."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer, error
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from tests.support.probes import World
from udpecho.addresses import DatagramAddress
from udpecho.probe.renewal import Renewal
from udpecho.probe.target import Target, findTarget, isRepeated


class TargetTests:
    """L{Target} and L{findTarget}."""

    @pytest.mark.parametrize(("text", "address"), [("192.0.2.2:7", ("192.0.2.2", 7)), ("[2001:db8::2]:7", ("2001:db8::2", 7))])
    def test_of(self, text: str, address: tuple[str, int]) -> None:
        """An address is read, and stays the name as it was written."""
        target = Target.of(text)
        assert (target.name, tuple(target.address)) == (text, address)

    @pytest.mark.parametrize(
        ("address", "message"),
        [
            (("192.0.2.2", 7), "address of a target must be a DatagramAddress with an IP address, got ('192.0.2.2', 7)"),
            (
                DatagramAddress(("there", 7)),
                "address of a target must be a DatagramAddress with an IP address, got ('there', 7)",
            ),
            (DatagramAddress(("192.0.2.2", 0)), "port must be 1 to 65535, got 0"),
            (DatagramAddress(("192.0.2.2", 65536)), "port must be 1 to 65535, got 65536"),
        ],
    )
    def test_wrong(self, address: Any, message: str) -> None:
        """An address that cannot be sent to is refused where it is given."""
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            Target("x", address)
        assert str(caught.value) == message

    def test_noAddress(self) -> None:
        """A name is not an address."""
        with pytest.raises(ValueError, match="host must be an IP address, got 'there': look the name up first"):
            Target.of("there:7")

    def test_name(self) -> None:
        """A name is looked up, and stays the target's name."""
        found = defer.Deferred.fromCoroutine(findTarget(World().here, "there:7", 6))
        target: Any = found.result
        assert (target.name, tuple(target.address)) == ("there:7", ("2001:db8::2", 7))

    @pytest.mark.parametrize(("text", "family"), [("192.0.2.2:7", 6), ("[2001:db8::2]:7", 4)])
    def test_otherFamily(self, text: str, family: int) -> None:
        """An address of the other family is refused."""
        failed: list[Any] = []
        defer.Deferred.fromCoroutine(findTarget(World().here, text, family=family)).addErrback(failed.append)
        failed[0].trap(ValueError)
        assert f"must be an IPv{family} address, got" in str(failed[0].value)


class IsRepeatedTests:
    """L{isRepeated}."""

    def test_descriptors(self) -> None:
        """A lack of descriptors is news once a minute, whichever target has it; other reasons always are."""
        clock = Clock()
        lack = OSError(errno.EMFILE, "Too many open files")
        assert not isRepeated(clock, lack)
        assert isRepeated(clock, error.CannotListenError("127.0.0.1", 0, lack))
        assert not isRepeated(clock, OSError(errno.ENETUNREACH, "Network is unreachable"))
        clock.advance(60)
        assert not isRepeated(clock, lack)

    def test_renewal(self) -> None:
        """Flows that cannot open another socket for lack of descriptors are logged once."""

        def exhausted(*_: object) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

        renewal = Renewal(Clock(), exhausted, exhausted, None)
        with capturedLogs() as events:
            for name in ("192.0.2.1:7", "192.0.2.2:7"):
                target = Target.of(name)
                flow: Any = SimpleNamespace(
                    target=target, problem=None, sockets=SimpleNamespace(isOpen=True), source=target.address
                )
                renewal.add(flow)
                renewal.unanswered(flow)
                assert "no file descriptor" in str(flow.problem)
        assert [event["target"] for event in events] == ["192.0.2.1:7"]
