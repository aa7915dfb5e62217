"""Tests of L{udpecho.daemon.health}."""

from __future__ import annotations

import errno
import re
import time
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.protocol import DatagramProtocol

from tests.support.running import PATIENCE, Recorder, Run, hasIPv6, sleep, unusedPort
from udpecho.addresses import DatagramAddress
from udpecho.daemon.health import AGE, SelfEcho, target
from udpecho.daemon.states import failures
from udpecho.errors import EchoError
from udpecho.guard.guard import Guard
from udpecho.guard.networks import parseNetwork
from udpecho.guard.policy import GuardPolicy
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer
from udpecho.server.service import EchoService


def at(host: str, port: int, scopeID: int = 0) -> DatagramAddress:
    address = DatagramAddress((host, port))
    address.scopeID = scopeID
    return address


class TargetTests:
    """L{target}."""

    @pytest.mark.parametrize(
        ("address", "host"),
        [
            (at("0.0.0.0", 7), "127.0.0.1"),
            (at("::", 7), "::1"),
            (at("192.0.2.1", 7), "192.0.2.1"),
            (at("::1", 7), "::1"),
            (at("fe80::1", 7, 3), "fe80::1%3"),
        ],
    )
    def test_target(self, address: DatagramAddress, host: str) -> None:
        """A wildcard address is checked at the loopback address, a link-local one with its scope."""
        assert target(address) == host


class SelfEchoTests:
    """L{SelfEcho}."""

    @pytest.mark.parametrize("interfaces", [None, ["0.0.0.0"], ["0.0.0.0", "::"]])
    def test_healthy(self, interfaces: list[str] | None, run: Run) -> None:
        """Each address of a server that answers works; it has received one datagram, which is counted like any other."""
        if interfaces == ["0.0.0.0", "::"] and not hasIPv6():
            pytest.skip("no IPv6 here")

        async def check(reactor: Any) -> None:
            service = EchoService(reactor, 0, interfaces)
            service.startService()
            addresses = [str(address) for address in service.addresses]
            found = await SelfEcho(reactor, lambda: service.addresses).check()
            assert found == dict.fromkeys(addresses)
            await service.stopService()
            assert (service.counters.received, service.counters.echoed) == (len(addresses), len(addresses))

        run(check)

    def test_failures(self, runOnce: Run) -> None:
        """Each address that does not answer has its own reason: nothing listens, no reply, another payload."""

        class WrongPayload(DatagramProtocol):
            noisy = False

            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                assert self.transport is not None
                self.transport.write(b"something else", addr)

        async def check(reactor: Any) -> None:
            ports: list[Any] = [listen(reactor, 0, protocol) for protocol in (EchoServer(), Recorder(), WrongPayload())]
            unused = unusedPort()
            numbers = [port.getHost().port for port in ports] + [unused]
            health = SelfEcho(reactor, lambda: [at("127.0.0.1", number) for number in numbers], timeout=1)
            echoed, silent, wrong, refused = (await health.check()).values()
            assert echoed is None
            assert silent == f"no reply from 127.0.0.1:{numbers[1]} within 1 s"
            assert wrong is not None
            assert re.fullmatch(
                f"no reply from 127.0.0.1:{numbers[2]} within 1 s; [0-9]+ other datagrams? from it ignored", wrong
            )
            assert refused is not None
            assert f"127.0.0.1:{unused}" in refused
            for port in ports:
                await port.stopListening()

        runOnce(check)

    def test_guarded(self, runOnce: Run) -> None:
        """Without the service's watches, a guard that does not allow this machine makes the check fail."""

        async def check(reactor: Any) -> None:
            guard = Guard(GuardPolicy(allow=parseNetwork("192.0.2.0/24")))
            service = EchoService(reactor, 0, ["127.0.0.1"], guard=guard)
            service.startService()
            (reason,) = (await SelfEcho(reactor, lambda: service.addresses, timeout=0.5).check()).values()
            assert reason is not None
            assert service.counters.dropped == {"not_allowed": service.counters.received}
            await service.stopService()

        runOnce(check)

    def test_lost(self, runOnce: Run) -> None:
        """A datagram that is lost is sent again before the timeout."""

        class Second(Echoing):
            def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                if self.datagrams:
                    super().datagramReceived(datagram, addr)
                else:
                    self.datagrams.append((datagram, addr))

        async def check(reactor: Any) -> None:
            server = Second()
            port: Any = listen(reactor, 0, server)
            health = SelfEcho(reactor, lambda: [at("127.0.0.1", port.getHost().port)], timeout=PATIENCE)
            assert list((await health.check()).values()) == [None]
            assert len({payload for payload, _ in server.datagrams}) == 1
            await port.stopListening()

        runOnce(check)

    def test_late(self, run: Run) -> None:
        """If this process itself was kept waiting for longer than the timeout, that is not taken for the server's fault."""

        async def check(reactor: Any) -> None:
            port: Any = listen(reactor, 0, EchoServer())
            health = SelfEcho(reactor, lambda: [at("127.0.0.1", port.getHost().port)], timeout=0.2)
            checking = health.check()
            # The reactor is busy, and finds the timeout before it reads.
            time.sleep(0.6)
            assert list((await checking).values()) == [None]
            await port.stopListening()

        run(check)

    def test_refused(self, runOnce: Run) -> None:
        """With the service's watches, a drop by decision is told apart, and for the address alone at which it happens."""

        async def check(reactor: Any) -> None:
            guard = Guard(GuardPolicy(allow=parseNetwork("127.0.0.1")))
            service = EchoService(reactor, 0, ["127.0.0.1", "127.0.0.2"], guard=guard)
            service.startService()
            health = SelfEcho(reactor, lambda: service.addresses, watches=lambda: service.watches)
            found = await health.check()
            assert list(found.values()) == [None, "ok (refused by --allow)"]
            assert failures(found) == {}
            await service.stopService()

        runOnce(check)

    @pytest.mark.parametrize(
        ("failure", "reason"),
        [
            (OSError(errno.EMFILE, "Too many open files"), "not checked: this process has no file descriptor left"),
            (OSError(errno.ENFILE, "Too many open files"), "not checked: this process has no file descriptor left"),
            (EchoError("cannot open a socket", errno.EMFILE), "not checked: this process has no file descriptor left"),
            (ImportError("no module"), "not checked: no module"),
            (ZeroDivisionError(), "not checked: ZeroDivisionError"),
        ],
    )
    def test_cannotCheck(self, failure: Exception, reason: str, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever keeps an address from being checked, there is a result, and the next check is a new one."""

        async def check(reactor: Any) -> None:
            port: Any = listen(reactor, 0, EchoServer())
            address = at("127.0.0.1", port.getHost().port)
            health = SelfEcho(reactor, lambda: [address])
            with monkeypatch.context() as patched:
                patched.setattr("udpecho.daemon.health.connect", lambda *_, **__: defer.fail(failure))
                assert await health.check() == {str(address): reason}
            await sleep(reactor, 1.5 * AGE)
            assert await health.check() == {str(address): None}
            await port.stopListening()

        runOnce(check)

    def test_notListening(self, runOnce: Run) -> None:
        """A server that does not listen has no addresses."""

        async def check(reactor: Any) -> None:
            assert await SelfEcho(reactor, list).check() == {}

        runOnce(check)

    def test_broken(self, runOnce: Run) -> None:
        """A check that fails before its first datagram fails for all who wait; the next one is a new one."""

        async def check(reactor: Any) -> None:
            found: list[Any] = [OSError(errno.EMFILE, "Too many open files"), []]

            def addresses() -> list[DatagramAddress]:
                outcome = found.pop(0)
                if isinstance(outcome, OSError):
                    raise outcome
                return list(outcome)

            health = SelfEcho(reactor, addresses)
            with pytest.raises(OSError, match="Too many open files"):
                await health.check()
            assert await health.check() == {}

        runOnce(check)

    def test_shared(self, runOnce: Run) -> None:
        """Simultaneous checks, and one soon after, share one datagram; a later one has another payload."""

        async def check(reactor: Any) -> None:
            recorder = Echoing()
            port: Any = listen(reactor, 0, recorder)
            health = SelfEcho(reactor, lambda: [at("127.0.0.1", port.getHost().port)])
            first, *others = await defer.gatherResults([health.check() for _ in range(50)])
            assert list(first.values()) == [None]
            assert all(other == first and other is not first for other in others)
            assert await health.check() == first
            assert len(recorder.datagrams) == 1
            await sleep(reactor, 1.5 * AGE)
            await health.check()
            (one, _), (other, _) = recorder.datagrams
            assert one != other
            await port.stopListening()

        runOnce(check)

    def test_cancel(self, run: Run) -> None:
        """A check that is cancelled leaves the others their result. When all are cancelled nothing is left, and the next check
        is a new one.
        """

        async def check(reactor: Any) -> None:
            silent = Recorder()
            port: Any = listen(reactor, 0, silent)
            unused = unusedPort()
            health = SelfEcho(reactor, lambda: [at("127.0.0.1", port.getHost().port), at("127.0.0.1", unused)], timeout=0.1)
            one, other = health.check(), health.check()
            one.cancel()
            with pytest.raises(defer.CancelledError):
                await one
            assert all((await other).values())
            await sleep(reactor, 1.5 * AGE)
            alone = health.check()
            alone.cancel()
            with pytest.raises(defer.CancelledError):
                await alone
            # The timeout of the test itself.
            assert len(reactor.getDelayedCalls()) == 1
            assert all((await health.check()).values())
            await silent.count(3)
            # On a busy machine a check asks again, from the same port.
            assert len({peer for _, peer in silent.datagrams}) == 3
            await port.stopListening()

        run(check)


class Echoing(Recorder):
    """Keeps the datagrams, and sends them back."""

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        super().datagramReceived(datagram, addr)
        assert self.transport is not None
        self.transport.write(datagram, addr)
