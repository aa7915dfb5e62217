"""Hosts in network namespaces of this machine, for tests that need a real network and must not touch the one outside.

A L{Host} is a namespace; a L{Network} is a client and a server with a router between them. They have no link to
anything else.

The code under test runs in the test's own process. A socket stays in the namespace that it was opened in, so
one reactor can hold the sockets of several hosts: see L{Host.call}.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.support.running import PATIENCE

_T = TypeVar("_T")

_CLONE_NEWNET = 0x40000000
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Plan:
    """The addresses of a L{Network}, of one family.

    @ivar client: of the client.
    @ivar near: of the router, on the client's link.
    @ivar far: of the router, on the server's link.
    @ivar server: of the server.
    @ivar second: the server's second one.
    @ivar nearNobody: of no host, on the client's link.
    @ivar farNobody: of no host, on the server's link.
    @ivar nowhere: of no network: the client has a route to it, the router has none.
    @ivar lost: of no network, and the client has no route to it.
    @ivar wildcard: all of a host's.
    @ivar prefix: the length of a link's prefix, in bits.
    @ivar site: the prefix of all but C{lost}.
    """

    client: str
    near: str
    far: str
    server: str
    second: str
    nearNobody: str
    farNobody: str
    nowhere: str
    lost: str
    wildcard: str
    prefix: int
    site: str


#: Addresses for tests of network devices (RFC 2544).
IPV4 = Plan(
    client="198.18.1.1",
    near="198.18.1.254",
    far="198.18.2.254",
    server="198.18.2.1",
    second="198.18.2.2",
    nearNobody="198.18.1.99",
    farNobody="198.18.2.99",
    nowhere="198.18.9.1",
    lost="198.19.0.1",
    wildcard="0.0.0.0",
    prefix=24,
    site="198.18.0.0/16",
)
#: Addresses that no site uses outside (RFC 4193).
IPV6 = Plan(
    client="fd00:1::1",
    near="fd00:1::fe",
    far="fd00:2::fe",
    server="fd00:2::1",
    second="fd00:2::2",
    nearNobody="fd00:1::99",
    farNobody="fd00:2::99",
    nowhere="fd00:9::1",
    lost="fd99::1",
    wildcard="::",
    prefix=64,
    site="fd00::/16",
)
#: The same on every link: of the client and the server, and of the router.
LINK_LOCAL_HOST = "fe80::1"
LINK_LOCAL_ROUTER = "fe80::fe"


class Host:
    """A network namespace.

    @ivar name: its name, which no other has.
    """

    def __init__(self, role: str) -> None:
        """@param role: what it is, for people who look at a list of namespaces."""
        self.name = f"udpecho-{os.getpid()}-{next(_numbers)}-{role}"
        run(["ip", "netns", "add", self.name])
        try:
            self._prepare()
        except BaseException:
            self.delete()
            raise

    def _prepare(self) -> None:
        # Answers are not to depend on the machine, nor on how fast they are asked for.
        self.configure(
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
            "net.ipv4.icmp_ratemask=0",
            "net.ipv6.icmp.ratelimit=0",
            "net.ipv6.conf.default.accept_dad=0",
            "net.ipv6.conf.default.accept_ra=0",
            "net.ipv6.conf.default.keep_addr_on_down=1",
        )

    def ip(self, *commands: str) -> str:
        """Run commands of C{ip(8)}, written without the C{ip}, in this namespace.

        @return: what they print.
        """
        return run(["ip", "-n", self.name, "-batch", "-"], "\n".join(commands) + "\n")

    def take(self, address: str, interface: str = "eth0") -> None:
        """Take another address, and wait for it to be usable.

        @param address: with the length of its prefix, if that is not the whole of it.
        """
        # Without duplicate address detection (RFC 4862) an IPv6 address is usable at once.
        self.ip(f"address add {address} dev {interface}{' nodad' if ':' in address else ''}")
        self.waitUntilReady(interface)

    def configure(self, *assignments: str) -> None:
        """Set kernel parameters of this namespace.

        @param assignments: as C{sysctl(8)} takes them; those that this kernel does not have are left out.
        """
        with self.entered():
            for assignment in assignments:
                name, _, value = assignment.partition("=")
                try:
                    with open("/proc/sys/" + name.replace(".", "/"), "w") as parameter:
                        parameter.write(value)
                except FileNotFoundError:
                    continue

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in this namespace, the thread that asks for it and what it starts meanwhile."""
        with _descriptor("/proc/thread-self/ns/net") as outside, _descriptor(f"/run/netns/{self.name}") as inside:
            _enter(inside)
            try:
                yield
            finally:
                _enter(outside)

    def call(self, function: Callable[..., _T], *arguments: Any, **options: Any) -> _T:
        """Call a function in this namespace; the sockets that it opens stay there.

        @return: what it returned.
        """
        with self.entered():
            return function(*arguments, **options)

    def waitUntilReady(self, interface: str = "eth0") -> None:
        """Wait for an interface to be up, and its addresses to be usable."""
        deadline = time.monotonic() + PATIENCE
        while True:
            shown = self.ip(f"link show dev {interface}", f"address show dev {interface} tentative")
            # The state of a loopback interface is not known.
            if "state DOWN" not in shown and "LOWER_UP" in shown and "tentative" not in shown:
                return
            assert time.monotonic() < deadline, f"{self.name} does not get ready: {shown}"

    def giveUpSoon(self, interface: str) -> None:
        """Give up a neighbour that does not answer after 50 ms instead of 3 s."""
        self._probeNeighbours(interface, "retrans 50 mcast_probes 1")

    def neverGiveUp(self, interface: str) -> None:
        """Keep asking for a neighbour that does not answer, for more time than any test takes."""
        self._probeNeighbours(interface, "retrans 1000 mcast_probes 1000")

    def _probeNeighbours(self, interface: str, how: str) -> None:
        self.ip(f"ntable change name arp_cache dev {interface} {how}")
        if hasIPv6():
            self.ip(f"ntable change name ndisc_cache dev {interface} {how}")

    def hardwareAddress(self, interface: str) -> str:
        """@return: the address of an interface on its link, as C{ip(8)} has it."""
        words = self.ip(f"link show dev {interface}").split()
        return words[words.index("link/ether") + 1]

    def forbid(self, port: int, verb: str) -> None:
        """Have this host's firewall refuse UDP datagrams that it sends to a port.

        @param verb: C{drop}, or C{reject}, which has the host send itself an ICMP message about it.
        @raise CommandFailed: if it has none that works.
        """
        with self.entered():
            if shutil.which("nft") is not None:
                chain = "inet udpecho output"
                run(
                    ["nft", "-f", "-"],
                    "add table inet udpecho\n"
                    f"add chain {chain} {{ type filter hook output priority 0; }}\n"
                    f"add rule {chain} udp dport {port} {verb}\n",
                )
                return
            commands = ["iptables", "ip6tables"] if hasIPv6() else ["iptables"]
            for command in commands:
                if shutil.which(command) is None:
                    raise CommandFailed("there is neither nft(8) nor iptables(8) here, to make a firewall with")
                run([command, "-A", "OUTPUT", "-p", "udp", "--dport", str(port), "-j", verb.upper()])

    def delete(self) -> None:
        """Remove the namespace and its interfaces, as soon as no socket belongs to it."""
        run(["ip", "netns", "delete", self.name])


class Network:
    """A client and a server, and a router between them::

        client eth0 ---- eth0 router eth1 ---- eth0 server

    The client sends what is for the site, and not for its own link, to the router; so does the server. The router knows its
    two links only.

    @ivar client: has the addresses C{client} of L{IPV4} and L{IPV6}, and L{LINK_LOCAL_HOST}.
    @ivar router: has C{near} and L{LINK_LOCAL_ROUTER} on C{eth0}, and C{far} and L{LINK_LOCAL_ROUTER} on C{eth1}.
    @ivar server: has C{server}, C{second} and L{LINK_LOCAL_HOST}.
    """

    def __init__(self, client: Host, router: Host, server: Host) -> None:
        self.client = client
        self.router = router
        self.server = server
        router.configure("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        client.ip(f"link add eth0 type veth peer name eth0 netns {router.name}", "link set eth0 addrgenmode none up")
        server.ip(f"link add eth0 type veth peer name eth1 netns {router.name}", "link set eth0 addrgenmode none up")
        self._address(router, eth0=["near"], eth1=["far"])
        self._address(client, eth0=["client"])
        self._address(server, eth0=["server", "second"])
        client.ip(*(f"route add {plan.site} via {plan.near}" for plan in self.plans))
        server.ip(*(f"route add {plan.site} via {plan.far}" for plan in self.plans))
        for host, interface in ((client, "eth0"), (router, "eth0"), (router, "eth1"), (server, "eth0")):
            host.waitUntilReady(interface)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The families that this machine has."""
        return (IPV4, IPV6) if hasIPv6() else (IPV4,)

    def _address(self, host: Host, **names: list[str]) -> None:
        """Give a host its addresses.

        @param names: those of the L{Plan}, by interface.
        """
        commands = ["link set lo up", *(f"link set {interface} addrgenmode none up" for interface in names)]
        for interface in names:
            for plan in self.plans:
                commands += [f"address add {getattr(plan, name)}/{plan.prefix} dev {interface}" for name in names[interface]]
            if IPV6 in self.plans:
                local = LINK_LOCAL_ROUTER if host is self.router else LINK_LOCAL_HOST
                commands.append(f"address add {local}/64 dev {interface}")
        host.ip(*commands)


@contextmanager
def network() -> Iterator[Network]:
    """A L{Network} that is gone afterwards."""
    with ExitStack() as hosts:

        def host(role: str) -> Host:
            made = Host(role)
            hosts.callback(made.delete)
            return made

        yield Network(host("client"), host("router"), host("server"))


def whyNot() -> str | None:
    """@return: why this machine cannot do what this module is for; L{None} if it can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces are for root"
    if shutil.which("ip") is None:
        return "there is no ip(8) here, which makes network namespaces: iproute2 has it"
    try:
        with network() as trial:
            trial.client.call(int)
    except (OSError, CommandFailed) as e:
        return f"network namespaces do not work here: {e}"
    return None


class CommandFailed(Exception):
    """A command failed; the message is what it wrote."""


def run(command: list[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)}: {done.stderr.strip()} ({text.strip()})")
    return done.stdout


@contextmanager
def _descriptor(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _enter(namespace: int) -> None:
    # Python has os.setns from 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def hasIPv6() -> bool:
    """Whether a namespace of this machine has IPv6."""
    return os.path.exists("/proc/sys/net/ipv6")
