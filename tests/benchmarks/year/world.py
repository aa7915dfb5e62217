"""The world in which the processes live: hosts, links, addresses, names, a clock and a disk."""

from __future__ import annotations

import os
import re
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from tests.benchmarks.workshop import Missing
from tests.support.namespaces import Host, run
from tests.support.wall_clock import WallClock

#: The name of the server, and its port.
NAME, PORT = "echo.test", 1234
#: The addresses of the server.
SERVER = ("198.18.3.1", "198.18.3.2", "fd00:3::1", "fd00:3::2")
#: An address that nothing comes back from.
SILENT = "198.18.9.9"
FAMILIES = (4, 6)
#: Seconds after which a name has been looked up again for certain.
_lookUpInterval = 90.0
#: Bytes of the disk with the logs: more than those of a day.
_diskSize = 32 * 2**20


def family(address: str) -> int:
    """@return: 4 or 6."""
    return ip_address(address).version


def _withPrefix(address: str) -> str:
    return f"{address}/{24 if family(address) == 4 else 64}"


@dataclass
class Uplink:
    """One of the client's two links to the router, which is the router's interface of the same name.

    @ivar number: its number in the addresses.
    @ivar hosts: by family, the number of the client in its address there.
    @ivar discarded: how the router discards what is for the client there: see L{World.discard}.
    """

    client: Host
    router: Host
    name: str
    number: int
    hosts: dict[int, int] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 1))
    discarded: str | None = None

    def address(self, version: int, host: int | None = None) -> str:
        """@return: the client's address, or that of another host on this link."""
        number = self.hosts[version] if host is None else host
        return f"198.18.{self.number}.{number}" if version == 4 else f"fd00:{self.number}::{number:x}"

    def make(self) -> None:
        """Connect the two, with their addresses."""
        self.client.ip(f"link add {self.name} type veth peer name {self.name} netns {self.router.name}")
        self.router.ip(f"link set {self.name} up", *(f"address add {self._of(254, v)}" for v in FAMILIES))
        self.client.ip(f"link set {self.name} up", *(f"address add {self._of(self.hosts[v], v)}" for v in FAMILIES))
        for host in (self.client, self.router):
            host.waitUntilReady(self.name)

    def delete(self) -> None:
        """Take both interfaces away."""
        self.client.ip(f"link delete {self.name}")

    def take(self, version: int, host: int) -> None:
        """Give the client an address."""
        self.hosts[version] = host
        self.client.ip(f"address add {self._of(host, version)}")

    def drop(self, version: int) -> None:
        """Take the client's address away, and its routes by this link."""
        self.client.ip(f"address delete {self._of(self.hosts[version], version)}")

    def _of(self, host: int, version: int) -> str:
        nodad = " nodad" if version == 6 else ""
        return f"{_withPrefix(self.address(version, host))} dev {self.name}{nodad}"


class Names:
    """The names that there are, in C{/etc/hosts} as the processes see it. What is not there is asked of a name server that does
    not exist: its host says so at once, or is silent.

    @ivar last: the address that L{NAME} has, or had before it had none.
    """

    def __init__(self, directory: Path) -> None:
        """@raise Missing: if this cannot be."""
        self._file = directory / "hosts"
        self._file.write_text("")
        self._servers = directory / "resolv.conf"
        self._servers.write_text("")
        for file, path in ((self._file, "/etc/hosts"), (self._servers, "/etc/resolv.conf")):
            if os.path.exists(path):
                mount("--bind", str(file), path)
        self.last = SERVER[1]
        self._since = {self.last: 0.0}
        self._fails = False

    @property
    def possible(self) -> frozenset[str]:
        """The addresses at which those may be that ask by the name, while all of them work."""
        now = time.monotonic()
        return frozenset(address for address, until in self._since.items() if address == self.last or now < until)

    @property
    def needed(self) -> frozenset[str]:
        """Those that must work for them to be served: while the name cannot be resolved, wherever they are."""
        return frozenset(SERVER if self._fails else {self.last})

    def set(self, address: str | None, silent: bool = False) -> None:
        """Give L{NAME} an address, or none.

        @param silent: whether who asks for what there is not waits for long.
        """
        self._since[self.last] = time.monotonic() + _lookUpInterval
        self.last = address or self.last
        self._since[self.last] = 0.0
        self._fails = address is None
        line = "" if address is None else f"{address} {NAME}"
        for path, text in (
            (self._servers, f"nameserver {SILENT if silent else '127.0.0.1'}"),
            (self._file, f"127.0.0.1 localhost\n::1 localhost\n{line}"),
        ):
            # At once and of one length: whoever reads it meanwhile finds the one or the other.
            with open(path, "r+b", buffering=0) as file:
                file.write(f"{text:<100}\n".encode())


class Disk:
    """A small disk."""

    def __init__(self, directory: Path) -> None:
        """@param directory: where it is mounted."""
        self.directory = directory
        directory.mkdir()
        mount("-t", "tmpfs", "-o", f"size={_diskSize}", "tmpfs", str(directory))
        self._ballast = directory / "ballast"

    def fill(self) -> None:
        """Leave no room on it."""
        with suppress(OSError), open(self._ballast, "ab", buffering=0) as file:
            while file.write(bytes(65536)):
                pass

    def free(self) -> None:
        """Make room again."""
        self._ballast.unlink()


class World:
    """All of it.

    @ivar active: the number of the uplink that the client's default routes take.
    @ivar ahead: how far the clock is ahead of the machine's, in seconds.
    """

    def __init__(self, directory: Path) -> None:
        """@raise Missing: if this machine cannot have it."""
        self._hosts = ExitStack()
        self.client, self.router, self.server = (self._host(role) for role in ("client", "router", "server"))
        # The first address of a network takes the others with it otherwise.
        self.server.configure("net.ipv4.conf.all.promote_secondaries=1")
        self.router.configure("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self.router.ip(f"route add blackhole {SILENT}")
        for host in (self.client, self.router, self.server):
            host.ip("link set lo up")
        self.uplinks = [Uplink(self.client, self.router, f"eth{i}", i + 1) for i in range(2)]
        for link in self.uplinks:
            link.make()
        self.active = 0
        self.route()
        self.makeServerLink()
        self.names = Names(directory)
        self.names.set(self.names.last)
        self.disk = Disk(directory / "disk")
        clock = directory / "clock"
        clock.mkdir()
        self.clock = WallClock(clock)
        self.ahead = 0

    def _host(self, role: str) -> Host:
        made = Host(role)
        self._hosts.callback(made.delete)
        return made

    def close(self) -> None:
        """Take the hosts away."""
        self._hosts.close()

    @property
    def uplink(self) -> Uplink:
        """The one that the client's default routes take."""
        return self.uplinks[self.active]

    def route(self) -> None:
        """Have the client's default routes take the active uplink."""
        link = self.uplink
        for version in FAMILIES:
            self.client.ip(f"route replace default via {link.address(version, 254)} dev {link.name}")

    def unroute(self, version: int) -> None:
        """Take the client's default route of a family away."""
        run(["ip", "-n", self.client.name, f"-{version}", "route", "flush", "exact", "default"])

    def discard(self, link: Uplink, kind: str | None) -> None:
        """Have the router discard what is for the client at a link.

        @param kind: C{blackhole} to be silent about it, C{unreachable} to report it; C{None} to deliver it again.
        """
        if link.discarded == kind:
            return
        link.discarded = kind
        for version in FAMILIES:
            # More specific than the route of the link.
            network = f"{link.address(version, 0)}/{25 if version == 4 else 65}"
            self.router.ip(f"route delete {network}" if kind is None else f"route add {kind} {network}")

    def setClock(self, by: int) -> None:
        """Set the wall clock of the processes, by so many seconds."""
        self.ahead += by
        self.clock.shift(self.ahead)

    def makeServerLink(self) -> None:
        """Connect the server and the router."""
        self.server.ip(f"link add eth0 type veth peer name eth2 netns {self.router.name}")
        self.router.ip("link set eth2 up", "address add 198.18.3.254/24 dev eth2", "address add fd00:3::fe/64 dev eth2 nodad")
        self.server.ip("link set eth0 up")
        for address in SERVER:
            self.take(address)
        self.routeServer()
        for host, name in ((self.server, "eth0"), (self.router, "eth2")):
            host.waitUntilReady(name)

    def routeServer(self) -> None:
        """Give the server its default routes."""
        self.server.ip("route replace default via 198.18.3.254", "route replace default via fd00:3::fe dev eth0")

    def take(self, address: str) -> None:
        """Give the server one of its addresses."""
        self.server.ip(f"address add {_withPrefix(address)} dev eth0{' nodad' if family(address) == 6 else ''}")

    def drop(self, address: str) -> None:
        """Take it away."""
        self.server.ip(f"address delete {_withPrefix(address)} dev eth0")

    def withoutSocket(self) -> int:
        """@return: how many datagrams came to ports of the server's host at which there was no socket."""

        def read() -> int:
            # Of the thread that asks: the process may be in another network.
            directory = Path("/proc/thread-self/net")
            lines = (directory / "snmp").read_text().splitlines()
            names, numbers = (line.split() for line in lines if line.startswith("Udp:"))
            six = re.search(r"^Udp6NoPorts\s+(\d+)$", (directory / "snmp6").read_text(), re.MULTILINE)
            return int(numbers[names.index("NoPorts")]) + (0 if six is None else int(six[1]))

        return self.server.call(read)


def mount(*arguments: str) -> None:
    """@raise Missing: if it is refused."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"mount {' '.join(arguments)}: {done.stderr.strip()}")
