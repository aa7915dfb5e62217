"""One exchange for each codebase: a client and a server of its own, and what they see of each other.

A play returns a list, which fills while the hosts run. It is of strings and numbers, to be printed and compared.
"""

# What the codebases define has no types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from importlib import import_module
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.internet.protocol import DatagramProtocol
from twisted.names import client, common, dns, server
from twisted.names.error import DomainError
from twisted.python.failure import Failure

from tests.strangers.stage import Stage


def name(result: Any) -> Any:
    """@return: the type of a failure, and anything else as it is."""
    return type(result.value).__name__ if isinstance(result, Failure) else result


class Zone(common.ResolverBase):
    """An authority that knows one address."""

    def _lookup(self, name: bytes, cls: int, type: int, timeout: object) -> Any:
        if name != b"www.example.com":
            return defer.fail(DomainError())
        return defer.succeed(([dns.RRHeader(name, dns.A, dns.IN, 60, dns.Record_A("192.0.2.1"))], [], []))


def nameServer(reactor: Any, port: int = 0) -> Any:
    """Start a server of C{twisted.names}.

    @return: its port.
    """
    return reactor.listenUDP(port, dns.DNSDatagramProtocol(server.DNSServerFactory(clients=[Zone()]), reactor=reactor))


def names(stage: Stage) -> list[Any]:
    """C{twisted.names}: a server, and a resolver that asks it for one address."""
    noted: list[Any] = []
    there, address = stage.host("server")
    here, _ = stage.host("client")
    with stage.on(there):
        port = nameServer(there).getHost().port
    with stage.on(here):
        resolver = client.Resolver(servers=[(address, port)])
        answer = resolver.lookupAddress(b"www.example.com")
        answer.addCallback(lambda sections: [record.payload.dottedQuad() for record in sections[0]])
        answer.addBoth(lambda result: noted.append(name(result)))
    return noted


def coap(stage: Stage) -> list[Any]:
    """txThings: a resource, and a client that asks for it once."""
    protocol, resource = import_module("txthings.coap"), import_module("txthings.resource")
    CoAPResource: Any = resource.CoAPResource
    noted: list[Any] = []
    there, address = stage.host("server")
    here, _ = stage.host("client")

    class Greeting(CoAPResource):
        def render_GET(self, request):
            return defer.succeed(protocol.Message(code=protocol.CONTENT, payload=b"hello"))

    with stage.on(there):
        root = CoAPResource()
        root.putChild(b"greeting", Greeting())
        port = there.listenUDP(0, protocol.Coap(resource.Endpoint(root))).getHost().port
    with stage.on(here):
        asking = protocol.Coap(resource.Endpoint(None))
        here.listenUDP(0, asking)
        request = protocol.Message(code=protocol.GET)
        request.opt.uri_path = (b"greeting",)
        request.remote = (ip_address(address), port)
        reply = asking.request(request).addCallback(lambda reply: reply.payload.decode("latin-1"))
        reply.addBoth(lambda result: noted.append(name(result)))
    return noted


def rpc(stage: Stage) -> list[Any]:
    """rpcudp: an account, and one deposit."""
    RPCProtocol: Any = import_module("rpcudp.protocol").RPCProtocol
    noted: list[Any] = []
    there, address = stage.host("server")
    here, _ = stage.host("client")

    class Account(RPCProtocol):
        def rpc_deposit(self, sender, amount):
            noted.append(f"deposit {amount}")
            return amount

    with stage.on(there):
        port = there.listenUDP(0, Account()).getHost().port
    with stage.on(here):
        teller = RPCProtocol()
        here.listenUDP(0, teller)
        teller.deposit((address, port), 10).addBoth(lambda result: noted.append(name(result)))
    return noted


def kademlia(stage: Stage) -> list[Any]:
    """kademlia: two nodes, of which the second stores a value."""
    Server = import_module("kademlia.network").Server
    noted: list[Any] = []
    there, address = stage.host("first")
    here, _ = stage.host("second")
    with stage.on(there):
        port = Server().listen(0).getHost().port
    with stage.on(here):
        node = Server()
        node.listen(0)
        joined = node.bootstrap([(address, port)])
        joined.addCallback(lambda nodes: node.set("key", "value"))
        joined.addBoth(lambda result: noted.append(name(result)))
    return noted


def rudp(stage: Stage, messages: int = 5) -> list[Any]:
    """txrudp: a connection with some messages, and what ends it."""
    connection, multiplexer = import_module("txrudp.connection"), import_module("txrudp.rudp")
    base: Any = connection.Handler
    factoryBase: Any = connection.HandlerFactory
    noted: list[Any] = []

    class Handler(base):
        def __init__(self):
            """It has no state."""

        def receive_message(self, message):
            noted.append(bytes(message).decode())

        def handle_shutdown(self):
            noted.append("shutdown")

    class Factory(factoryBase):
        def __init__(self):
            """It has no state."""

        def make_new_handler(self, *addresses):
            return Handler()

    def start(reactor: Any, address: str) -> Any:
        made = multiplexer.ConnectionMultiplexer(connection.ConnectionFactory(Factory()), address)
        reactor.listenUDP(0, made)
        return made

    there, address = stage.host("server")
    here, own = stage.host("client")
    with stage.on(there):
        listening = start(there, address)
    with stage.on(here):
        opening = start(here, own)
        made = opening.make_new_connection((own, opening.port), (address, listening.port))
        for number in range(messages):
            here.callLater(0.1 * number, made.send_message, f"message {number}".encode())
    return noted


def snmp(stage: Stage) -> list[Any]:
    """pysnmp: an agent, and a manager that asks for its description."""
    engine, config = import_module("pysnmp.entity.engine"), import_module("pysnmp.entity.config")
    responder, context = import_module("pysnmp.entity.rfc3413.cmdrsp"), import_module("pysnmp.entity.rfc3413.context")
    udp, api = import_module("pysnmp.carrier.twisted.dgram.udp"), import_module("pysnmp.hlapi.twisted")
    noted: list[Any] = []
    there, address = stage.host("agent")
    here, _ = stage.host("manager")
    port = stage.freePort()
    with stage.on(there):
        agent = engine.SnmpEngine()
        config.addTransport(agent, udp.domainName, udp.UdpTwistedTransport().openServerMode((address, port)))
        config.addV1System(agent, "area", "public")
        config.addVacmUser(agent, 2, "area", "noAuthNoPriv", (1, 3, 6), (1, 3, 6))
        responder.GetCommandResponder(agent, context.SnmpContext(agent))
    with stage.on(here):
        target = api.UdpTransportTarget((address, port), timeout=1, retries=5)
        what = api.ObjectType(api.ObjectIdentity("1.3.6.1.2.1.1.3.0"))
        reply = api.getCmd(api.SnmpEngine(), api.CommunityData("public"), target, api.ContextData(), what)
        reply.addCallback(lambda result: [f"{type(value).__name__} of {oid}" for oid, value in result[2]])
        reply.addBoth(lambda result: noted.append(name(result)))
    return noted


def ssdp(stage: Stage) -> list[Any]:
    """Cohen3: a device that announces itself, and a control point that looks for it, on the group of SSDP."""
    server, search = import_module("coherence.upnp.core.ssdp"), import_module("coherence.upnp.core.msearch")
    noted: list[Any] = []
    there, address = stage.host("device")
    here, _ = stage.host("control")
    with stage.on(there):
        server.SSDPServer().register("local", "uuid:1::upnp:rootdevice", "upnp:rootdevice", f"http://{address}/")
    with stage.on(here):
        control = server.SSDPServer()
        control.bind(new_device=lambda device_type, infos: noted.append(infos["USN"]))
        search.MSearch(control)
    return noted


class Canary:
    """The configuration and the logger of a honeypot."""

    LOG_TFTP, LOG_NTP_MONLIST, LOG_SIP_REQUEST = "tftp", "ntp", "sip"

    def __init__(self, stage: Stage, noted: list[Any]) -> None:
        self.ports = {service: stage.freePort() for service in ("sip", "tftp", "ntp")}
        self.noted = noted

    def getVal(self, key: str, default: Any = None) -> Any:
        """An option of its configuration."""
        service, _, option = key.partition(".")
        return self.ports[service] if option == "port" else default

    def log(self, data: dict[str, Any]) -> None:
        """An event."""
        self.noted.append(data["logtype"])


REQUEST = "\r\n".join(
    [
        "OPTIONS sip:test@host SIP/2.0",
        "Via: SIP/2.0/UDP 10.0.0.9:5061;branch=z9hG4bK-1",
        "From: <sip:caller@host>;tag=1",
        "To: <sip:test@host>",
        "Call-ID: 1@host",
        "CSeq: 1 OPTIONS",
        "Content-Length: 0",
        "\r\n",
    ]
).encode()


def _honeypot(stage: Stage, noted: list[Any]) -> tuple[dict[str, tuple[str, int]], Any]:
    """Start those services of opencanary that listen on UDP without raw sockets.

    @return: their addresses, and a host that can send to them.
    """
    modules = [import_module(f"opencanary.modules.{module}") for module in ("sip", "tftp", "ntp")]
    honeypot = Canary(stage, noted)
    there, address = stage.host("honeypot")
    here, _ = stage.host("intruder")
    with stage.on(there):
        for kind in (modules[0].CanarySIP, modules[1].CanaryTftp, modules[2].CanaryNtp):
            kind(config=honeypot, logger=honeypot).getService().startService()
    return {service: (address, port) for service, port in honeypot.ports.items()}, here


def canary(stage: Stage) -> list[Any]:
    """opencanary: two rounds of an intruder at three services."""
    noted: list[Any] = []
    services, here = _honeypot(stage, noted)
    datagrams = {"sip": REQUEST, "tftp": b"\0\1name\0octet\0", "ntp": b"\x17\0\3*" + bytes(4)}
    with stage.on(here):
        sender = here.listenUDP(0, DatagramProtocol())
        for turn in range(2):
            for number, (service, datagram) in enumerate(datagrams.items()):
                here.callLater(turn + 0.1 * number, sender.write, datagram, services[service])
    return noted


def emptyDatagram(stage: Stage) -> list[Any]:
    """opencanary: somebody sends an empty datagram to NTP."""
    noted: list[Any] = []
    services, here = _honeypot(stage, noted)
    with stage.on(here):
        here.listenUDP(0, DatagramProtocol()).write(b"", services["ntp"])
    return noted


def metrics(stage: Stage) -> list[Any]:
    """carbon: its UDP listener, and a program that sends two metrics in each of three datagrams."""
    protocols, events = import_module("carbon.protocols"), import_module("carbon.events")
    noted: list[Any] = []
    events.metricReceived.handlers[:] = [lambda metric, datapoint: noted.append([metric, *datapoint])]
    there, address = stage.host("carbon")
    here, _ = stage.host("program")
    with stage.on(there):
        port = there.listenUDP(0, protocols.MetricDatagramReceiver()).getHost().port
    with stage.on(here):
        sender = here.listenUDP(0, DatagramProtocol())
        for number in range(3):
            lines = f"load.one 1.5 {1700000000 + number}\nload.two 2.5 {1700000000 + number}\n"
            here.callLater(0.1 * number, sender.write, lines.encode(), (address, port))
    return noted


def upload(stage: Stage, folder: Path, contents: bytes = b"contents") -> list[Any]:
    """python-tx-tftp: a server, and a client of our own (RFC 1350) that repeats what is not acknowledged."""
    backend, tftp = import_module("tftp.backend"), import_module("tftp.protocol")
    noted: list[Any] = []
    there, address = stage.host("server")
    here, _ = stage.host("client")

    class Upload(DatagramProtocol):
        transport: Any

        def startProtocol(self):
            self.block = 0
            self.send(b"\0\2file\0octet\0", (address, port))

        def send(self, datagram, peer, times=4):
            self.transport.write(datagram, peer)
            self.repeating = here.callLater(1, self.send, datagram, peer, times - 1) if times > 1 else None

        def datagramReceived(self, datagram, peer):
            if self.repeating is not None and self.repeating.active():
                self.repeating.cancel()
            if datagram[1] == 5:
                noted.append(datagram[4:-1].decode())
            elif self.block == 0:
                self.block = 1
                self.send(b"\0\3\0\1" + contents, peer)
            elif not noted:
                noted.append("done")

    port = stage.freePort()
    with stage.on(there):
        there.listenUDP(port, tftp.TFTP(backend.FilesystemSynchronousBackend(str(folder))))
    with stage.on(here):
        here.listenUDP(0, Upload())
    return noted
