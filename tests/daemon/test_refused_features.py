"""The commands on systems that refuse single features: everything works that can, what is lacking is in the log once, and no
figure claims more than is known.
"""

from __future__ import annotations

import errno
import json
import re
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.guards import needsIPv6, needsSharing, onlyLinux
from tests.support.processes import Process, Processes, Server, command, eventually
from tests.support.refusals import Refusals
from tests.support.running import udpSocket
from tests.support.source import ROOT
from udpecho.net import features
from udpecho.net.features import Feature
from udpecho.net.linux import sockopt

pytestmark = onlyLinux

_ip, _ipv6, _socket = socket.IPPROTO_IP, getattr(socket, "IPPROTO_IPV6", 41), socket.SOL_SOCKET
_pktinfo = {f"set.{_ip}.{sockopt.IP_PKTINFO}": errno.ENOPROTOOPT}
_hopLimit = {f"set.{_ip}.{sockopt.IP_RECVTTL}": errno.EPERM}
_recvErr = {f"set.{_ip}.{sockopt.IP_RECVERR}": errno.ENOPROTOOPT}
_memInfo = {f"get.{_socket}.{sockopt.SO_MEMINFO}": errno.ENOPROTOOPT}
_timestamps = {f"set.{_socket}.{sockopt.SO_TIMESTAMPING}": errno.EINVAL}
_mtu = f"set.{_ip}.{sockopt.IP_MTU_DISCOVER}"
_sharing = {f"set.{_socket}.{getattr(socket, 'SO_REUSEPORT', 15)}": errno.ENOPROTOOPT}

#: What is refused, with the features that a server on all addresses, and those that C{ping}, names as lacking.
_cases: dict[str, tuple[Mapping[str, int], list[Feature], list[Feature]]] = {
    "IP_PKTINFO": (_pktinfo, [features.PKTINFO], []),
    "IP_PKTINFO to send": ({f"cmsg.{_ip}.{sockopt.IP_PKTINFO}": errno.EINVAL}, [features.PKTINFO], []),
    "IP_RECVTTL": (_hopLimit, [features.HOP_LIMIT], []),
    "IP_TTL to send": ({f"cmsg.{_ip}.{sockopt.IP_TTL}": errno.EINVAL}, [features.HOP_LIMIT], []),
    "IP_RECVERR": (_recvErr, [], [features.RECVERR]),
    "IP_MTU_DISCOVER": ({_mtu: errno.ENOPROTOOPT}, [features.PMTU], []),
    "SO_MEMINFO": (_memInfo, [features.DROPS], [features.DROPS]),
    "SO_TIMESTAMPING": (_timestamps, [], [features.TIMESTAMPS]),
    "SO_RCVBUFFORCE": ({f"set.{_socket}.{sockopt.SO_RCVBUFFORCE}": errno.EPERM}, [], []),
    "UDP_GRO": ({f"set.{sockopt.SOL_UDP}.{sockopt.UDP_GRO}": errno.ENOPROTOOPT}, [features.GRO], []),
    "UDP_SEGMENT": ({f"cmsg.{sockopt.SOL_UDP}.{sockopt.UDP_SEGMENT}": errno.EINVAL}, [features.GSO], []),
    "recvmmsg": ({"call.recvmmsg": errno.ENOSYS}, [features.BATCHES], []),
    "sendmmsg": ({"call.sendmmsg": errno.EPERM}, [features.BATCHES], []),
    "sendmsg": ({"call.sendmsg": errno.EPERM}, [features.GSO, features.HOP_LIMIT, features.PKTINFO], []),
    "epoll": ({"call.epoll_create1": errno.EPERM}, [features.EPOLL], [features.TIMER]),
    "timerfd": ({"call.timerfd_create": errno.EPERM}, [], [features.TIMER]),
    "timerfd_settime": ({"call.timerfd_settime": errno.EPERM}, [], [features.TIMER]),
    "madvise": ({"call.madvise": errno.EINVAL}, [], []),
    "memfd_create": ({"call.memfd_create": errno.EPERM}, [], []),
    "IPV6_V6ONLY": ({f"set.{_ipv6}.26": errno.ENOPROTOOPT}, [], []),
}
#: What of these is logged without a warning, which the commands do not print.
_quiet = [feature for feature in features.FEATURES.values() if feature.level.name == "info"]


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Refusals:
    """The library, compiled once."""
    return Refusals(tmp_path_factory.mktemp("refusals"))


def named(text: str) -> list[str]:
    """The features that a log, or standard error, says to be lacking, each as often as it does."""
    return sorted(re.findall(r"this system does not have (.*?) \(", text))


def exchange(server: Server, host: str = "127.0.0.1", count: int = 5) -> None:
    """Have a server echo."""
    with udpSocket(host) as sock:
        for size in range(count):
            sock.sendto(bytes(size), (host, server.addresses[0][1]))
        for size in range(count):
            assert sock.recv(100) == bytes(size)


def closedPort() -> int:
    """A port of 127.0.0.1 where nothing listens."""
    with udpSocket() as sock:
        port: int = sock.getsockname()[1]
        return port


def pinged(process: Process) -> list[dict[str, Any]]:
    """The targets in the document that C{ping --json} has printed."""
    assert "Traceback" not in process.stderr, process
    found: list[dict[str, Any]] = json.loads(process.stdout)["targets"]
    return found


def test_documented() -> None:
    """The table in the documentation has each feature."""
    table = (ROOT / "docs" / "systems.rst").read_text().partition(".. features")[2].partition(".. end of features")[0]
    assert re.findall(r"^(\w.*?)   ", table, re.MULTILINE)[1:] == list(features.FEATURES)


class ServerTests:
    """C{twistd udpecho}."""

    def test_wildcard(self, processes: Processes, refusals: Refusals) -> None:
        """Without IP_PKTINFO and IP_RECVTTL, a server on all addresses names each once, and what mends it, and answers."""
        environment = refusals.environment({**_pktinfo, **_hopLimit})
        server = processes.server("--interface", "0.0.0.0", environment=environment)
        exchange(server)
        log = "\n".join(server.log())
        assert named(log) == ["IP_PKTINFO", "IP_RECVTTL"]
        assert "IP_PKTINFO (Protocol not available)" in log
        assert "--interface ADDRESS" in log
        counts = server.stop()
        assert (counts["received"], counts["echoed"]) == (5, 5)

    def test_oneAddress(self, processes: Processes, refusals: Refusals) -> None:
        """A server on one address does not need IP_PKTINFO, and replies have one hop less without it, too."""
        server = processes.server("--interface", "127.0.0.1", environment=refusals.environment(_pktinfo))
        with udpSocket() as sock:
            sock.setsockopt(_ip, sockopt.IP_RECVTTL, 1)
            sock.setsockopt(_ip, socket.IP_TTL, 9)
            sock.sendto(b"hops", ("127.0.0.1", server.addresses[0][1]))
            _, controls, _, _ = sock.recvmsg(100, 100)
        assert [int.from_bytes(data, "little") for _, _, data in controls] == [8]
        assert not named("\n".join(server.log()))
        server.stop()

    @needsIPv6
    def test_onlyIPv6(self, processes: Processes, refusals: Refusals) -> None:
        """A server on all of IPv6 needs the options of IPv6 only."""
        server = processes.server("--interface", "::", environment=refusals.environment({**_pktinfo, **_hopLimit}))
        exchange(server, "::1")
        assert not named("\n".join(server.log()))
        assert server.stop()["echoed"] == 5
        lacking = {
            f"set.{_ipv6}.{sockopt.IPV6_RECVPKTINFO}": errno.EPERM,
            f"set.{_ipv6}.{sockopt.IPV6_RECVHOPLIMIT}": errno.EPERM,
        }
        server = processes.server("--interface", "::", environment=refusals.environment(lacking))
        exchange(server, "::1")
        assert named("\n".join(server.log())) == ["IP_PKTINFO", "IP_RECVTTL"]
        assert server.stop()["echoed"] == 5

    @needsIPv6
    def test_cannotSeparate(self, processes: Processes, refusals: Refusals) -> None:
        """Without IPV6_V6ONLY a server cannot keep IPv4 out of C{::}, and does not start; one on C{::1} does."""
        environment = refusals.environment({f"set.{_ipv6}.{socket.IPV6_V6ONLY}": errno.ENOPROTOOPT})
        process = processes.run("twistd", "-n", "udpecho", "--port", "0", "--interface", "::", environment=environment)
        assert process.status == 1
        assert ":: must have IPV6_V6ONLY to keep IPv4 out, and this system refuses it: Protocol not available" in process.stdout
        server = processes.server("--interface", "::1", environment=environment)
        exchange(server, "::1")
        server.stop()

    @needsSharing
    def test_cannotShare(self, processes: Processes, refusals: Refusals) -> None:
        """Without SO_REUSEPORT there are no workers, and the one line says so, and does not blame the port."""
        process = processes.run(
            "twistd", "-n", "udpecho", "--port", "0", "--workers", "2", environment=refusals.environment(_sharing)
        )
        assert process.status == 1
        text = "udpecho: workers must have SO_REUSEPORT to share a port, and this system refuses it: Protocol not available"
        assert process.stdout.endswith(f" {text}\n")
        assert "Traceback" not in process.stdout + process.stderr

    @needsSharing
    def test_workers(self, processes: Processes, refusals: Refusals) -> None:
        """What each worker lacks is in the log once. Without memfd_create they share a file."""
        lacking = {**_pktinfo, **_memInfo, "call.memfd_create": errno.EPERM, "call.recvmmsg": errno.ENOSYS}
        environment = refusals.environment(lacking)
        server = processes.server("--interface", "0.0.0.0", "--workers", "2", environment=environment)
        exchange(server)
        assert named("\n".join(server.log())) == ["IP_PKTINFO", "SO_MEMINFO", "memfd_create", "recvmmsg and sendmmsg"]
        assert server.stop()["echoed"] == 5

    def test_status(self, processes: Processes, refusals: Refusals) -> None:
        """SIGUSR1 logs what is lacking, with the counters, in which there is no number for what is not known."""
        server = processes.server(environment=refusals.environment(_memInfo))
        server.process.signal(signal.SIGUSR1)
        line = server.process.until(r"counters: (.*)$")[1]
        assert "kernel-dropped=unknown" in line
        assert "lacking: SO_MEMINFO" in line
        server.stop()


class PingTests:
    """C{udpecho ping}."""

    def test_figures(self, processes: Processes, refusals: Refusals) -> None:
        """A refusal is none of the lost, what a full queue dropped is not known, and the clock is the other one."""
        environment = refusals.environment({**_recvErr, **_memInfo, **_timestamps})
        server = processes.server()
        targets = [f"127.0.0.1:{server.addresses[0][1]}", f"127.0.0.1:{closedPort()}"]
        process = processes.run("udpecho", "ping", *targets, "-c3", "-i50ms", "--json", environment=environment)
        assert process.status == 3
        assert named(process.stderr) == ["IP_RECVERR", "SO_MEMINFO", "SO_TIMESTAMPING"]
        answered, refused = pinged(process)
        assert (answered["outcomes"]["answered"], refused["outcomes"]["refused"]) == (3, 3)
        for target in (answered, refused):
            assert (target["own_queue_drops"], target["outcomes"]["lost_own"]) == (None, None)
            assert target["timestamp_source"] == "monotonic"
        server.stop()

    def test_silence(self, processes: Processes, refusals: Refusals) -> None:
        """What the network lost is not told from what a full queue dropped, where drops are not known."""
        with udpSocket() as silent:
            where = f"127.0.0.1:{silent.getsockname()[1]}"
            environment = refusals.environment(_memInfo)
            process = processes.run("udpecho", "ping", where, "-c1", "--timeout", "100ms", environment=environment)
        assert "no reply: 1 lost by the network or in our own receive queue" in process.stdout
        assert process.status == 1

    def test_metrics(self, processes: Processes, refusals: Refusals) -> None:
        """The metrics of the prober have no number of drops, and those of the server neither."""
        environment = refusals.environment(_memInfo)
        server = processes.server("--metrics", f"unix:{processes.directory}/server", environment=environment)
        target = f"127.0.0.1:{server.addresses[0][1]}"
        pages = f"unix:{processes.directory}/probe"
        twistd = ["twistd", "-n", "--pidfile", "probe.pid", "udpecho-probe"]
        prober = processes.start(*twistd, "--target", target, "--metrics", pages, environment=environment)
        prober.until("SO_MEMINFO")
        for name, present in (("server", "udpecho_received_datagrams_total"), ("probe", "udpecho_probe_sent_total")):

            def page(name: str = name) -> str:
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(f"{processes.directory}/{name}")
                    sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                    return b"".join(iter(lambda: sock.recv(65536), b"")).decode()

            text = eventually(page, "the metrics")
            assert f"\n{present}" in text
            assert not re.search(r"^udpecho_(kernel_dropped|probe_own_queue_drops)\S* ", text, re.MULTILINE)
        prober.stop()
        server.stop()

    @pytest.mark.parametrize(
        ("option", "key", "text"),
        [
            (["--ttl", "9"], f"set.{_ip}.{socket.IP_TTL}", "a hop limit must have IP_TTL"),
            (["--tos", "8"], f"set.{_ip}.{socket.IP_TOS}", "a traffic class must have IP_TOS"),
            (
                ["--dont-fragment"],
                f"set.{_ip}.{sockopt.IP_MTU_DISCOVER}",
                '"do not fragment" must have IP_MTU_DISCOVER',
            ),
        ],
    )
    def test_options(self, processes: Processes, refusals: Refusals, option: list[str], key: str, text: str) -> None:
        """An option that the system refuses is named: the peer is not blamed."""
        environment = refusals.environment({key: errno.ENOPROTOOPT})
        process = processes.run("udpecho", "ping", "127.0.0.1:9", "-c1", *option, environment=environment)
        assert process.stderr == f"udpecho: 127.0.0.1:9: {text}, and this system refuses it: Protocol not available\n"
        assert process.status == 2

    def test_tooLong(self, processes: Processes, refusals: Refusals) -> None:
        """A probe that is too long is called so where datagrams are sent one by one, too."""
        environment = refusals.environment({"call.recvmmsg": errno.ENOSYS, "largest": 1000})
        process = processes.run("udpecho", "ping", "127.0.0.1:9", "-c1", "-s1200", environment=environment)
        assert "not sent: too long for the path, or for any datagram" in process.stdout


class FilterTests:
    """The kernel itself denies system calls, as the filter of a container does."""

    @needsSharing
    def test_filter(self, processes: Processes, refusals: Refusals) -> None:
        """Server, workers and C{ping} work on, and say what is lacking."""
        program, environment = refusals.denied("recvmmsg", "sendmmsg", "timerfd_create", "memfd_create")
        twistd = [program, *command("twistd"), "-n"]
        server = processes.server("--workers", "2", twistd=twistd, environment=environment)
        where = f"127.0.0.1:{server.addresses[0][1]}"
        ping = processes.run(program, *command("udpecho"), "ping", where, "-c3", "-i50ms", "--json", environment=environment)
        (target,) = pinged(ping)
        assert (ping.status, target["outcomes"]["answered"], target["timestamp_source"]) == (0, 3, "monotonic")
        assert named(ping.stderr) == ["timerfd and epoll"]
        server.process.stop()
        assert named(server.process.stdout) == ["memfd_create", "recvmmsg and sendmmsg"]
        assert "Traceback" not in server.process.stdout


@pytest.mark.slow
@pytest.mark.parametrize("case", _cases)
class EachTests:
    """Each feature in turn."""

    def test_server(self, processes: Processes, refusals: Refusals, case: str) -> None:
        """A server on all addresses answers, its account balances, and its log names what is lacking once."""
        lacking, expected, _ = _cases[case]
        server = processes.server("--interface", "0.0.0.0", environment=refusals.environment(lacking))
        exchange(server)
        if features.PKTINFO not in expected:
            exchange(server, "127.0.0.2")
        assert server.stop()["dropped"] == 0
        assert named("\n".join(server.log())) == sorted(feature.name for feature in expected)

    @needsSharing
    def test_workers(self, processes: Processes, refusals: Refusals, case: str) -> None:
        """So does one with workers."""
        lacking, expected, _ = _cases[case]
        server = processes.server("--interface", "0.0.0.0", "--workers", "2", environment=refusals.environment(lacking))
        exchange(server)
        assert server.stop()["dropped"] == 0
        names = [*(feature.name for feature in expected), *([case] if case == "memfd_create" else [])]
        assert named("\n".join(server.log())) == sorted(names)

    def test_ping(self, processes: Processes, refusals: Refusals, case: str) -> None:
        """C{ping} and C{send} have the replies, and the refusal of a closed port."""
        lacking, _, expected = _cases[case]
        environment = refusals.environment(lacking)
        server = processes.server()
        closed = f"127.0.0.1:{closedPort()}"
        targets = [f"127.0.0.1:{server.addresses[0][1]}", closed]
        process = processes.run("udpecho", "ping", *targets, "-c3", "-i50ms", "--json", environment=environment)
        answered, refused = pinged(process)
        assert (answered["outcomes"]["answered"], refused["outcomes"]["refused"], process.status) == (3, 3, 3)
        assert named(process.stderr) == sorted(feature.name for feature in expected if feature not in _quiet)
        assert processes.run("udpecho", "send", targets[0], feed=b"hello", environment=environment).status == 0
        process = processes.run("udpecho", "send", closed, feed=b"hello", environment=environment)
        assert (process.status, "Traceback" in process.stderr) == (3, False)
        server.stop()


class OtherSystemsTests:
    """The plain path, as macOS and the BSDs would have it: datagrams longer than SO_SNDBUF are refused, and ENOBUFS means to
    wait.
    """

    def test_longDatagrams(self, processes: Processes, refusals: Refusals) -> None:
        """The send buffer is made large enough for the longest reply."""
        server = self.plain(processes, refusals, {"largest": 9216})
        with udpSocket() as sock:
            sock.sendto(bytes(65507), ("127.0.0.1", server.addresses[0][1]))
            assert len(sock.recv(65535)) == 65507
        server.process.stop()

    def test_queueOfAnInterface(self, processes: Processes, refusals: Refusals) -> None:
        """A reply waits while the queue of an interface is full."""
        server = self.plain(processes, refusals, {"full": 3})
        exchange(server)
        server.process.stop()

    def plain(self, processes: Processes, refusals: Refusals, items: Mapping[str, int]) -> Server:
        """A server that takes this system for another one."""
        program = "; ".join(
            [
                "import sys",
                "from udpecho.net.linux import sockopt",
                "sockopt.available = False",
                "from twisted.scripts.twistd import run",
                "sys.argv[0] = 'twistd'",
                "run()",
            ]
        )
        twistd = [sys.executable, "-c", program, "-n"]
        server = processes.server("--interface", "0.0.0.0", twistd=twistd, environment=refusals.environment(items))
        eventually(lambda: "IP_PKTINFO" in server.process.stdout, "the line about what is lacking")
        return server
