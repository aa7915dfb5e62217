"""Every system call that the server makes fails in turn, injected by C{strace}: it starts completely or not at all, continues
to serve, and accounts for every datagram.
"""

from __future__ import annotations

import re
import socket
from contextlib import suppress

import pytest

from tests.support.guards import onlyLinux, tool
from tests.support.processes import Late, Process, Processes, command, sums
from tests.support.running import udpSocket

pytestmark = [pytest.mark.slow, onlyLinux]

#: No call is made more often in the life of a server that receives a few datagrams, except the reactor's waiting.
_each = range(1, 17)
#: The calls in the life of one process, each with an error of its man page, which of them fail in turn, and whether Twisted's
#: reactor makes them too: it reports its own failures with a traceback.
_calls = [
    ("socket", "EMFILE", _each, False),
    ("bind", "EADDRINUSE", _each, False),
    ("setsockopt", "ENOPROTOOPT", _each, False),
    ("getsockname", "ENOBUFS", _each, False),
    ("getpeername", "ENOBUFS", _each, False),
    ("getsockopt", "ENOPROTOOPT", _each, False),
    ("connect", "EADDRNOTAVAIL", _each, False),
    ("sendto", "ENOBUFS", _each, False),
    ("recvfrom", "ENOMEM", _each, False),
    ("recvmsg", "ENOMEM", _each, False),
    ("recvmmsg", "ENOMEM", _each, False),
    ("sendmmsg", "EPERM", _each, False),
    ("epoll_create1", "EMFILE", _each, True),
    ("pipe2", "EMFILE", _each, True),
    # The rest remove a socket, for which there is no error except of the program.
    ("epoll_ctl", "ENOMEM", range(1, 4), True),
    ("epoll_wait", "EINTR", range(1, 5), False),
    ("getrandom", "ENOSYS", _each, False),
]
#: The same for the parent of two workers, with metrics: the calls that it makes in addition.
_callsOfParent = [
    ("socket", "EMFILE", _each, False),
    ("getsockname", "ENOBUFS", _each, False),
    ("memfd_create", "EMFILE", range(1, 2), False),
    ("ftruncate", "ENOSPC", range(1, 2), False),
    ("listen", "EADDRINUSE", range(1, 2), False),
    # The first for a worker; one that cannot be started is tried again.
    ("pipe2", "EMFILE", range(3, 4), False),
]
#: The errors that may be repeated while it serves, and the least number of twelve datagrams that are answered then.
_serving = [
    ("recvmmsg", "EINTR", 12),
    ("recvmmsg", "ENOMEM", 12),
    ("recvmmsg", "ENOBUFS", 12),
    ("recvmmsg", "EIO", 12),
    ("recvmmsg", "EAGAIN", 12),
    ("recvmmsg", "ECONNREFUSED", 12),
    ("sendmmsg", "EINTR", 12),
    ("sendmmsg", "EAGAIN", 12),
    ("sendmmsg", "ENOBUFS", 9),
    ("sendmmsg", "EPERM", 9),
    ("sendmmsg", "EINVAL", 9),
    ("sendmmsg", "ENETUNREACH", 9),
    ("epoll_wait", "EINTR", 12),
    ("getsockopt", "ENOPROTOOPT", 12),
]


@pytest.fixture(autouse=True)
def _needsStrace() -> None:
    tool("strace")


class Client:
    """Sends datagrams and counts the replies.

    @ivar replies: how many there were.
    """

    def __init__(self, sock: socket.socket, address: tuple[str, int]) -> None:
        self.replies = 0
        self._socket = sock
        sock.settimeout(0.3)
        sock.connect(address)

    def send(self, times: int) -> None:
        """Send so many, one after the other, each when the one before has a reply or has waited for a while."""
        for number in range(times):
            self._socket.send(b"%d" % number)
            with suppress(TimeoutError):
                self._socket.recv(100)
                self.replies += 1

    def countLate(self) -> None:
        """Count the late replies of a server that has stopped."""
        self._socket.setblocking(False)
        with suppress(OSError):
            while True:
                self._socket.recv(100)
                self.replies += 1


def failing(
    processes: Processes, call: str, error: str, when: str, *options: str, children: bool = True, lacking: str | None = None
) -> Process:
    """Start a server one of whose system calls fails.

    @param when: which of the calls, as C{inject=} of C{strace(1)} has it.
    @param children: whether those of its children fail too; the calls of each are counted separately.
    @param lacking: a call that this system does not have.
    """
    return processes.start(
        # The tracer is not the parent: the process is the server itself, with its signals and its exit status.
        *["strace", "--daemonize", "--quiet=all", "-o", str(processes.directory / "calls")],
        *(["--follow-forks", "--seccomp-bpf"] if children else []),
        *["-e", f"trace={','.join(filter(None, [call, lacking]))}", "-e", f"inject={call}:error={error}:when={when}"],
        *(["-e", f"inject={lacking}:error=ENOSYS"] if lacking else []),
        *command("twistd"),
        *["-n", "--pidfile=", "udpecho", "--port", "0", "--interface", "127.0.0.1", "--log-datagrams", "0", *options],
    )


def hasFailed(processes: Processes) -> bool:
    """Whether there was such a call, and it failed."""
    return "(INJECTED)" in (processes.directory / "calls").read_text()


def addressOf(process: Process) -> tuple[str, int]:
    """Where a server answers.

    @raise Late: if it does not come to that.
    """
    host, port = process.until(r"answering on ([0-9.]+:[0-9]+)")[1].split(":")
    return host, int(port)


def live(process: Process, times: int) -> dict[str, int] | None:
    """Send a server datagrams, if it starts, and have it stop.

    @return: the counters in its last line, which agree with the replies; C{None} if it did not start.
    """
    try:
        address = addressOf(process)
    except Late:
        process.finish()
        return None
    with udpSocket() as sock:
        client = Client(sock, address)
        client.send(times)
        process.stop()
        client.countLate()
    counts = sums(process.stdout)
    assert counts["received"] == times, process
    assert counts["echoed"] == client.replies, process
    return counts


def checkOutput(process: Process, started: bool, ofReactor: bool) -> None:
    """Check what a server wrote: one line if it could not start, and no traceback, unless Twisted's reactor could not be made
    or could not have its signal handlers.
    """
    output = process.stdout + process.stderr
    assert ofReactor or "Traceback" not in output, process
    ours = re.findall(r'^\s*File "[^"]*/udpecho/[^"]*", line \d+, in \w+\n\s*(.*)$', output, re.MULTILINE)
    if started:
        assert ours == [], process
    else:
        lines = ["cannot"] * output.count("] udpecho: cannot ")
        assert [*ours, *lines] in (["reactor = installedReactor()", "from twisted.internet import reactor"], ["cannot"]), (
            process
        )


def checkLife(processes: Processes, call: str, error: str, which: range, ofReactor: bool, *options: str) -> None:
    """Let one of the calls fail, then the next one, and so on: the server answers, or it ends with a line with the reason."""
    for number in which:
        process = failing(processes, call, error, str(number), *options, children=not options)
        counts = live(process, 3)
        if not hasFailed(processes):
            assert counts is not None
            assert number > which.start, f"no {call} was made"
            return
        checkOutput(process, counts is not None, ofReactor)
        if counts is None:
            assert process.status == 1, process
            assert "answering on" not in process.stdout, process
        else:
            assert counts["echoed"] >= 2, process


class SystemCallTests:
    """C{twistd udpecho} on a system that fails."""

    @pytest.mark.parametrize(("call", "error", "which", "ofReactor"), _calls)
    def test_inTurn(self, processes: Processes, call: str, error: str, which: range, ofReactor: bool) -> None:
        """Whichever of its calls fails, it starts, answers and stops, or it ends with an error."""
        checkLife(processes, call, error, which, ofReactor)

    @pytest.mark.parametrize(("call", "error", "which", "ofReactor"), _callsOfParent)
    def test_parent(self, processes: Processes, call: str, error: str, which: range, ofReactor: bool) -> None:
        """The same holds for a parent of workers that serves metrics."""
        checkLife(processes, call, error, which, ofReactor, "--workers", "2", "--metrics", "tcp:0:interface=127.0.0.1")

    @pytest.mark.parametrize(("call", "error", "least"), _serving)
    def test_serving(self, processes: Processes, call: str, error: str, least: int) -> None:
        """Errors while it serves do not stop it: the datagrams of a failed call are accounted for, and there is
        no traceback.
        """
        process = failing(processes, call, error, "3+5")
        counts = live(process, 12)
        assert hasFailed(processes)
        assert counts is not None
        assert counts["echoed"] >= least
        assert "Traceback" not in process.stdout + process.stderr

    @pytest.mark.parametrize(("call", "error", "least"), [("recvmmsg", "ENOMEM", 12), ("sendmmsg", "EPERM", 9)])
    def test_workers(self, processes: Processes, call: str, error: str, least: int) -> None:
        """That holds for workers too."""
        process = failing(processes, call, error, "3+5", "--workers", "2")
        counts = live(process, 12)
        assert hasFailed(processes)
        assert counts is not None
        assert counts["echoed"] >= least
        assert "Traceback" not in process.stdout + process.stderr

    @pytest.mark.parametrize(
        ("call", "error", "least"), [("recvmsg", "ENOMEM", 12), ("sendmsg", "EAGAIN", 12), ("sendmsg", "EPERM", 9)]
    )
    def test_withoutBatches(self, processes: Processes, call: str, error: str, least: int) -> None:
        """That holds where the system has no batches, and datagrams are received and sent one by one."""
        process = failing(processes, call, error, "3+5", lacking="recvmmsg")
        counts = live(process, 12)
        assert "this system does not have recvmmsg and sendmmsg (Function not implemented)" in process.stdout
        assert re.search(rf"{call}\(.*\(INJECTED\)", (processes.directory / "calls").read_text())
        assert counts is not None
        assert counts["echoed"] >= least
        assert "Traceback" not in process.stdout + process.stderr
