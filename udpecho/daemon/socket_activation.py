"""Sockets that systemd passes (C{sd_listen_fds(3)})."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import MutableMapping, Sequence

from udpecho.addresses import formatAddress

#: The descriptor of the first socket (C{SD_LISTEN_FDS_START} in C{sd-daemon.h}).
FIRST_DESCRIPTOR = 3
#: Selects every socket, whatever it is called.
ALL = "all"
#: What systemd calls a socket that has no name (C{sd_listen_fds_with_names(3)}).
UNNAMED = "unknown"

_activation = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class ActivationError(ValueError):
    """The sockets that were to be passed are not there, or are not of the right kind. The message is one sentence."""


def activatedSockets(
    environment: MutableMapping[str, str],
    selection: Sequence[str] = (ALL,),
    *,
    pid: int | None = None,
    firstDescriptor: int = FIRST_DESCRIPTOR,
) -> list[socket.socket]:
    """
    Take over the datagram sockets that were passed to this process.

    They are given back in the order of the selection, or as they were passed. No program that this process may start inherits
    one of the passed descriptors, selected or not.

    @param environment: the process's. The variables are taken out of it, whatever becomes of the sockets.
    @param selection: which ones: names (C{FileDescriptorName=} in a unit, by default the socket unit's own name, as in
        C{udpecho.socket}), which select all sockets of that name; numbers in the order they are passed in, from 0; or C{all}.
        A socket that is not selected is let be.
    @param pid: the identifier of this process.
    @param firstDescriptor: the descriptor of the first socket.

    @return: the sockets, bound, for UDP over IPv4 or IPv6, and not blocking; the caller's to close.

    @raise ActivationError: if none are passed, or one is not what it should be; the descriptors stay open then.
    """
    variables = {name: environment.pop(name, None) for name in _activation}
    number = _countOf(variables, os.getpid() if pid is None else pid)
    descriptors = range(firstDescriptor, firstDescriptor + number)
    for place, descriptor in enumerate(descriptors):
        try:
            os.set_inheritable(descriptor, False)
        except (OSError, OverflowError):
            raise ActivationError(
                f"LISTEN_FDS is {number}, but descriptor {descriptor} is not open: socket {place} was not passed, or was closed"
            ) from None
    names = _namesOf(variables["LISTEN_FDNAMES"], number)
    found: list[socket.socket] = []
    try:
        for place in _select(names, selection):
            found.append(_datagramSocket(descriptors[place], _called(place, names)))
    except BaseException:
        for sock in found:
            sock.detach()
        raise
    for sock in found:
        sock.setblocking(False)
    return found


def _countOf(variables: dict[str, str | None], pid: int) -> int:
    """How many descriptors there are for this process."""
    meant, number = variables["LISTEN_PID"], variables["LISTEN_FDS"]
    if meant is None or number is None:
        missing = "LISTEN_PID" if meant is None else "LISTEN_FDS"
        raise ActivationError(f"no sockets are passed: {missing} is not set; start the .socket unit, not the program by itself")
    if _natural(meant) is None:
        raise ActivationError(f"LISTEN_PID is {meant!a}: the identifier of a process would be right")
    if _natural(meant) != pid:
        raise ActivationError(
            f"the sockets are passed to process {_natural(meant)}, and this is process {pid}:"
            " nothing may stand between systemd and the server, and it runs with --nodaemon"
        )
    if _natural(number) is None:
        raise ActivationError(f"LISTEN_FDS is {number!a}: the number of sockets would be right")
    if number.strip("0") == "":
        raise ActivationError("no sockets are passed: LISTEN_FDS is 0; the .socket unit needs a ListenDatagram= line")
    return int(number)


def _natural(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,10}", text, re.ASCII) else None


def _namesOf(text: str | None, number: int) -> list[str]:
    if text is None:
        return [UNNAMED] * number
    names = text.split(":")
    if len(names) != number:
        raise ActivationError(
            f"LISTEN_FDNAMES has {len(names)} names and LISTEN_FDS says {number} sockets:"
            " one name for each, with colons between them, would be right"
        )
    return names


def _called(place: int, names: Sequence[str]) -> str:
    name = names[place]
    return f"socket {place} ({name if name.isascii() and name.isprintable() else ascii(name)})"


def _select(names: Sequence[str], selection: Sequence[str]) -> list[int]:
    """The places of the sockets that are selected, each once."""
    places: list[int] = []
    for wanted in selection:
        found = [place for place, name in enumerate(names) if wanted in (ALL, name)]
        if not found and _natural(wanted) is not None and int(wanted) < len(names):
            found = [int(wanted)]
        if not found:
            there = ", ".join(_called(place, names) for place in range(min(len(names), 10)))
            raise ActivationError(f"no socket {wanted!a} is passed: there is {there}{', ...' if len(names) > 10 else ''}")
        if not set(found).isdisjoint(places):
            raise ActivationError(f"socket {wanted!a} is selected already: once is enough")
        places += found
    if not places:
        raise ActivationError("no socket is selected: select one by its name or its number, or all of them with all")
    return places


def _datagramSocket(descriptor: int, called: str) -> socket.socket:
    """
    Take over one descriptor.

    @raise ActivationError: if it is not a bound and unconnected UDP socket; it stays open then.
    """
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as e:
        what = "no socket" if e.errno == errno.ENOTSOCK else f"not usable ({e.strerror})"
        raise ActivationError(f"{called} is {what}: a UDP socket would be right, ListenDatagram= in the .socket unit") from None
    try:
        complaint = _complaintAbout(sock)
    except OSError as e:
        complaint = f"is not usable ({e.strerror})"
    if complaint is not None:
        sock.detach()
        raise ActivationError(f"{called} {complaint}")
    return sock


def _complaintAbout(sock: socket.socket) -> str | None:
    right = "ListenDatagram= in the .socket unit makes what would be right"
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return f"is not for IPv4 or IPv6: {right}, with a port"
    if sock.type == socket.SOCK_STREAM:
        return f"is a stream socket: {right}, a datagram socket"
    if sock.type != socket.SOCK_DGRAM or sock.proto not in (0, socket.IPPROTO_UDP):
        return f"is not a UDP socket: {right}"
    try:
        peer = sock.getpeername()
    except OSError:
        peer = None
    if peer is not None:
        return f"is connected to {formatAddress(peer[:2])}: {right}, one that hears everybody"
    if sock.getsockname()[1] == 0:
        return f"is not bound to a port: {right}"
    return None
