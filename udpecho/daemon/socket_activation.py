"""Sockets that systemd passes (C{sd_listen_fds(3)})."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import MutableMapping, Sequence
from contextlib import suppress

from udpecho.addresses import formatAddress

#: The descriptor of the first socket (C{SD_LISTEN_FDS_START} in C{sd-daemon.h}).
FIRST_DESCRIPTOR = 3
#: Selects all sockets.
ALL = "all"
#: systemd's name for a socket without one (C{sd_listen_fds_with_names(3)}).
UNNAMED = "unknown"

_variables = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class ActivationError(ValueError):
    """Sockets are missing, or are of the wrong kind. The message is one line."""


def activatedSockets(
    environment: MutableMapping[str, str],
    selection: Sequence[str] = (ALL,),
    *,
    pid: int | None = None,
    firstDescriptor: int = FIRST_DESCRIPTOR,
) -> list[socket.socket]:
    """Take over the datagram sockets that systemd has passed. No child inherits a passed descriptor, selected or not.

    @param environment: the environment of the process; the variables are removed from it in any case.
    @param selection: the sockets, in the order to return them: a name (C{FileDescriptorName=} in a unit, by default the name of
        the socket unit, as in C{udpecho.socket}) selects all sockets of that name, a number the socket at that index, from 0,
        and C{all} all of them. The others stay open.
    @return: bound, non-blocking UDP sockets for IPv4 or IPv6. The caller must close them.
    @raise ActivationError: if there are none, or one is of the wrong kind; the descriptors stay open.
    """
    variables = {name: environment.pop(name, None) for name in _variables}
    count = _socketCount(variables["LISTEN_PID"], variables["LISTEN_FDS"], os.getpid() if pid is None else pid)
    descriptors = range(firstDescriptor, firstDescriptor + count)
    for index, descriptor in enumerate(descriptors):
        try:
            os.set_inheritable(descriptor, False)
        except (OSError, OverflowError):
            raise ActivationError(
                f"LISTEN_FDS is {count}, but descriptor {descriptor} is not open: socket {index} was not passed, or was closed"
            ) from None
    names = _socketNames(variables["LISTEN_FDNAMES"], count)
    sockets: list[socket.socket] = []
    try:
        for index in _select(names, selection):
            sockets.append(_datagramSocket(descriptors[index], _describe(index, names)))
    except BaseException:
        for sock in sockets:
            sock.detach()
        raise
    for sock in sockets:
        sock.setblocking(False)
    return sockets


def parseNatural(text: str) -> int | None:
    """@return: a number of at most ten digits; C{None} if the text is something else."""
    return int(text) if re.fullmatch("[0-9]{1,10}", text, re.ASCII) else None


def _socketCount(listenPID: str | None, listenFDs: str | None, pid: int) -> int:
    if listenPID is None or listenFDs is None:
        missing = "LISTEN_PID" if listenPID is None else "LISTEN_FDS"
        raise ActivationError(f"no sockets were passed: {missing} is not set; start the .socket unit, not the program itself")
    receiver, count = parseNatural(listenPID), parseNatural(listenFDs)
    if receiver is None:
        raise ActivationError(f"LISTEN_PID must be a process identifier, got {listenPID!a}")
    if receiver != pid:
        raise ActivationError(
            f"LISTEN_PID must be {pid}, this process, got {receiver}: systemd must start the server itself, with --nodaemon"
        )
    if count is None:
        raise ActivationError(f"LISTEN_FDS must be the number of sockets, got {listenFDs!a}")
    if not count:
        raise ActivationError("no sockets were passed: LISTEN_FDS is 0; the .socket unit needs a ListenDatagram= line")
    return count


def _socketNames(text: str | None, count: int) -> list[str]:
    if text is None:
        return [UNNAMED] * count
    names = text.split(":")
    if len(names) != count:
        raise ActivationError(f"LISTEN_FDNAMES must have a name for each of {count} sockets, got {len(names)} names")
    return names


def _describe(index: int, names: Sequence[str]) -> str:
    name = names[index]
    return f"socket {index} ({name if name.isascii() and name.isprintable() else ascii(name)})"


def _select(names: Sequence[str], selection: Sequence[str]) -> list[int]:
    selected: list[int] = []
    for wanted in selection:
        indexes = [index for index, name in enumerate(names) if wanted in (ALL, name)]
        number = parseNatural(wanted)
        if not indexes and number is not None and number < len(names):
            indexes = [number]
        if not indexes:
            known = ", ".join(_describe(index, names) for index in range(min(len(names), 10)))
            raise ActivationError(f"the socket must be one of {known}{', ...' if len(names) > 10 else ''}, got {wanted!a}")
        if not set(indexes).isdisjoint(selected):
            raise ActivationError(f"each socket must be selected once, got {wanted!a} again")
        selected += indexes
    if not selected:
        raise ActivationError("a socket must be selected, by its name, its number or all, got none")
    return selected


def _datagramSocket(descriptor: int, description: str) -> socket.socket:
    wanted = f"{description} must be a bound UDP socket, from ListenDatagram= in the .socket unit"
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as e:
        found = "no socket" if e.errno == errno.ENOTSOCK else f"an unusable one ({e.strerror})"
        raise ActivationError(f"{wanted}, got {found}") from None
    try:
        problem = _problem(sock)
    except OSError as e:
        problem = f"an unusable one ({e.strerror})"
    if problem is not None:
        # The descriptor stays open.
        sock.detach()
        raise ActivationError(f"{wanted}, got {problem}")
    return sock


def _problem(sock: socket.socket) -> str | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "one that is neither IPv4 nor IPv6"
    if sock.type == socket.SOCK_STREAM:
        return "a stream socket"
    if sock.type != socket.SOCK_DGRAM or sock.proto not in (0, socket.IPPROTO_UDP):
        return "one of another protocol"
    with suppress(OSError):
        return f"one connected to {formatAddress(sock.getpeername()[:2])}"
    return "an unbound one" if sock.getsockname()[1] == 0 else None
