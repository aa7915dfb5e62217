"""Tests of L{udpecho.daemon.socket_activation}: sockets on real descriptors of this process."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.guards import needsIPv6, onlyLinux
from tests.support.running import PATIENCE, openSockets
from udpecho.daemon.socket_activation import ActivationError, activatedSockets
from udpecho.net.sockets import hasBoth

pytestmark = onlyLinux

PID = 4711


def bound(host: str = "127.0.0.1", kind: int = socket.SOCK_DGRAM) -> socket.socket:
    """A socket that is bound to any free port."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    sock.settimeout(PATIENCE)
    sock.bind((host, 0))
    return sock


class Passed:
    """Sockets at consecutive descriptors, as systemd passes them.

    @ivar first: the first of these descriptors.
    @ivar count: the number of them.
    """

    def __init__(self, first: int, count: int) -> None:
        self.first = first
        self.count = count

    def take(self, *selection: str, names: str | None = None, **environment: str) -> list[socket.socket]:
        """Take sockets over.

        @param names: C{LISTEN_FDNAMES}.
        @param environment: variables that replace the right ones.
        """
        variables = {"LISTEN_PID": str(PID), "LISTEN_FDS": str(self.count)}
        if names is not None:
            variables["LISTEN_FDNAMES"] = names
        variables.update(environment)
        return activatedSockets(variables, selection or ["all"], pid=PID, firstDescriptor=self.first)

    def refusal(self, *selection: str, names: str | None = None, **environment: str) -> str:
        """@return: the message of the failure, which is one line; the descriptors are still open."""
        with pytest.raises(ActivationError) as caught:
            self.take(*selection, names=names, **environment)
        for descriptor in range(self.first, self.first + self.count):
            os.fstat(descriptor)
        message = str(caught.value)
        assert message.isprintable()
        return message


@contextmanager
def passed(*sockets: Any) -> Iterator[Passed]:
    """Move sockets to consecutive descriptors."""
    # Above all that a test has open.
    first = 600
    try:
        for index, sock in enumerate(sockets):
            os.dup2(sock.fileno(), first + index)
            sock.close()
        yield Passed(first, len(sockets))
    finally:
        for descriptor in range(first, first + len(sockets)):
            # The test has closed those that it took over.
            with suppress(OSError):
                os.close(descriptor)


@contextmanager
def taken(sockets: list[socket.socket]) -> Iterator[list[socket.socket]]:
    """Close sockets at the end."""
    with ExitStack() as stack:
        for sock in sockets:
            stack.enter_context(sock)
        yield sockets


class ActivationTests:
    """L{activatedSockets}, on descriptors of this process."""

    def test_all(self) -> None:
        """Without a selection all sockets are taken over, in their order; they are at the passed descriptors, non-blocking, and
        not inherited.
        """
        first, second = bound(), bound("127.0.0.2")
        addresses = [first.getsockname(), second.getsockname()]
        with passed(first, second) as there, taken(there.take()) as sockets:
            assert [sock.getsockname() for sock in sockets] == addresses
            assert [sock.fileno() for sock in sockets] == [there.first, there.first + 1]
            assert not any(sock.getblocking() or os.get_inheritable(sock.fileno()) for sock in sockets)

    @needsIPv6
    def test_ipv6(self) -> None:
        """Sockets may be for IPv6; L{hasBoth} knows which of them receives IPv4 too."""
        both, alone = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        for sock, only in ((both, 0), (alone, 1)):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            sock.bind(("::", 0))
        with passed(both, alone, bound()) as there, taken(there.take()) as sockets:
            assert [sock.family for sock in sockets] == [socket.AF_INET6, socket.AF_INET6, socket.AF_INET]
            assert [hasBoth(sock) for sock in sockets] == [True, False, False]

    def test_selection(self) -> None:
        """A name selects all sockets of that name, a number the one at that index; a name takes precedence over a number. The
        order is that of the selection. A socket that is not selected stays open, but no child inherits it.
        """
        with passed(bound(), bound(), bound(), bound()) as there:
            with taken(there.take("b", "0", names="a:b:3:b")) as sockets:
                assert [sock.fileno() - there.first for sock in sockets] == [1, 3, 0]
            assert not os.get_inheritable(there.first + 2)
            os.set_inheritable(there.first + 2, True)
        with passed(bound(), bound()) as there, taken(there.take("0", names="1:0")) as sockets:
            assert [sock.fileno() - there.first for sock in sockets] == [1]

    def test_environment(self) -> None:
        """The variables are removed from the environment, and no others, after a success and after a failure."""
        for pid in (PID, PID + 1):
            environment = {"LISTEN_PID": str(pid), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a", "LISTEN_PIDFDID": "7", "HOME": "/"}
            with passed(bound()) as there:
                try:
                    found = activatedSockets(environment, pid=PID, firstDescriptor=there.first)
                except ActivationError:
                    assert pid != PID
                else:
                    found[0].close()
            assert environment == {"HOME": "/"}

    @pytest.mark.parametrize(
        ("environment", "message"),
        [
            ({"LISTEN_PID": ""}, "LISTEN_PID must be a process identifier, got ''"),
            ({"LISTEN_PID": "-1"}, "LISTEN_PID must be a process identifier, got '-1'"),
            (
                {"LISTEN_PID": "12"},
                f"LISTEN_PID must be {PID}, this process, got 12: systemd must start the server itself, with --nodaemon",
            ),
            ({"LISTEN_FDS": "two"}, "LISTEN_FDS must be the number of sockets, got 'two'"),
            ({"LISTEN_FDS": "-1"}, "LISTEN_FDS must be the number of sockets, got '-1'"),
            ({"LISTEN_FDS": "0"}, "no sockets were passed: LISTEN_FDS is 0; the .socket unit needs a ListenDatagram= line"),
            ({"LISTEN_FDNAMES": "a:b"}, "LISTEN_FDNAMES must have a name for each of 1 sockets, got 2 names"),
        ],
    )
    def test_badEnvironment(self, environment: dict[str, str], message: str) -> None:
        """A wrong variable is named, with what it must be."""
        with passed(bound()) as there:
            assert there.refusal(**environment) == message

    @pytest.mark.parametrize("name", ["LISTEN_PID", "LISTEN_FDS"])
    def test_noEnvironment(self, name: str) -> None:
        """Started by hand there are no sockets: the message names what to start instead."""
        environment = {"LISTEN_PID": str(PID), "LISTEN_FDS": "1"}
        del environment[name]
        with pytest.raises(ActivationError, match=rf"^no sockets were passed: {name} is not set; start the \.socket unit"):
            activatedSockets(environment, pid=PID)

    @pytest.mark.parametrize("number", ["2", "9999999999"])
    def test_missing(self, number: str) -> None:
        """A descriptor that is not open is named, however many there should be."""
        with passed(bound()) as there:
            assert there.refusal(LISTEN_FDS=number) == (
                f"LISTEN_FDS is {number}, but descriptor {there.first + 1} is not open: socket 1 was not passed, or was closed"
            )

    @pytest.mark.parametrize(
        ("make", "found"),
        [
            (lambda: bound(kind=socket.SOCK_STREAM), "a stream socket"),
            (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), "one that is neither IPv4 nor IPv6"),
            (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "an unbound one"),
            (tempfile.TemporaryFile, "no socket"),
        ],
        ids=["stream", "unix", "unbound", "file"],
    )
    def test_wrongKind(self, make: Callable[[], Any], found: str) -> None:
        """A descriptor of another kind is named by its index and its name, even if the first ones are right."""
        with passed(bound(), make()) as there:
            wanted = "socket 1 (two) must be a bound UDP socket, from ListenDatagram= in the .socket unit"
            assert there.refusal(names="one:two") == f"{wanted}, got {found}"

    def test_connected(self) -> None:
        """A connected socket is refused."""
        sock = bound()
        sock.connect(("127.0.0.1", 9))
        with passed(sock) as there:
            assert there.refusal().endswith(", got one connected to 127.0.0.1:9")

    def test_streamNotSelected(self) -> None:
        """A stream socket may be passed for another use, if it is not selected."""
        with passed(bound(kind=socket.SOCK_STREAM), bound()) as there, taken(there.take("udp", names="tcp:udp")) as (sock,):
            assert sock.type == socket.SOCK_DGRAM

    @pytest.mark.parametrize(
        ("selection", "message"),
        [
            (["nobody"], "the socket must be one of socket 0 (a), socket 1 (b), got 'nobody'"),
            (["2"], "the socket must be one of socket 0 (a), socket 1 (b), got '2'"),
            (["a", "0"], "each socket must be selected once, got '0' again"),
            (["all", "a"], "each socket must be selected once, got 'a' again"),
        ],
    )
    def test_badSelection(self, selection: list[str], message: str) -> None:
        """A name or number of no socket, and one that is selected again, are refused."""
        with passed(bound(), bound()) as there:
            assert there.refusal(*selection, names="a:b") == message

    def test_nothingSelected(self) -> None:
        """An empty selection is refused."""
        with passed(bound()) as there, pytest.raises(ActivationError, match=r"^a socket must be selected"):
            activatedSockets({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, [], pid=1, firstDescriptor=there.first)

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]),
            st.one_of(st.text(), st.sampled_from(["0", "1", "2", str(PID), "a:b", "1\n", "٣", "a\udcff:b", "+1", " 1"])),
        ),
        st.lists(st.one_of(st.text(), st.sampled_from(["all", "a", "b", "0", "1"])), max_size=3),
    )
    def test_anything(self, environment: dict[str, str], selection: list[str]) -> None:
        """Any environment and selection give either usable sockets or a message of one line; nothing is left open, and the
        environment is empty.
        """
        before = openSockets()
        environment = {"LISTEN_PID": str(PID), "LISTEN_FDS": "2", **environment}
        with passed(bound(), bound()) as there:
            sockets: list[socket.socket] = []
            message = ""
            try:
                sockets = activatedSockets(environment, selection, pid=PID, firstDescriptor=there.first)
            except ActivationError as e:
                message = str(e)
            with taken(sockets):
                assert bool(sockets) != bool(message)
                assert message.isprintable()
                assert all(sock.getsockname()[1] for sock in sockets)
        assert environment == {}
        assert openSockets() == before
