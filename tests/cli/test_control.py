"""Tests of C{udpecho proxy --control}, as a real process."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import usageError
from tests.support.guards import tool
from tests.support.processes import Processes, Server
from tests.support.proxy import ProxyProcess
from tests.support.running import PATIENCE, udpSocket
from udpecho.addresses import formatAddress
from udpecho.cli.control import parseControl

JSON = {"Content-Type": "application/json"}

#: Requests that cannot be met, and their statuses.
WRONG: list[tuple[str, str, Any, int]] = [
    ("GET", "/", None, 404),
    ("GET", "/proxies/none", None, 404),
    ("PUT", "/proxies", {}, 405),
    ("POST", "/proxies", {"name": "x"}, 400),
    ("POST", "/proxies", {"name": "x/y", "upstream": "127.0.0.1:9"}, 400),
    ("POST", "/proxies", {"name": 1, "upstream": "127.0.0.1:9"}, 400),
    ("POST", "/proxies", {"name": "x", "upstream": "127.0.0.1:9", "enabled": "no"}, 400),
    ("POST", "/proxies", {"name": "x", "upstream": "127.0.0.1:9", "listen": ":9000"}, 400),
    ("POST", "/proxies", {"name": "x", "upstream": "nowhere.invalid:9"}, 400),
    ("POST", "/proxies", [], 400),
    ("POST", "/populate", {}, 400),
    ("POST", "/populate", [1], 400),
    ("POST", "/proxies", b"{", 400),
    ("POST", "/proxies", b"[" * 60000, 400),
    ("POST", "/proxies", b"\xff", 400),
    ("POST", "/proxies", b" " * 70000, 413),
    ("POST", "/proxies/proxy/toxics", {"type": "slicer"}, 400),
    ("POST", "/proxies/proxy/toxics", {"type": "loss", "stream": "up"}, 400),
    ("POST", "/proxies/proxy/toxics", {"type": "loss", "toxicity": "all"}, 400),
    ("POST", "/proxies/proxy/toxics", {"type": "loss", "attributes": 5}, 400),
    ("POST", "/proxies/proxy/toxics", b'{"type": "latency", "attributes": {"latency": 1e999}}', 400),
    ("POST", "/proxies/proxy/toxics", b'{"type": "latency", "attributes": {"latency": 1%s}}' % (b"0" * 999), 400),
    ("POST", "/proxies/proxy/toxics", b'{"type": "latency", "attributes": {"latency": NaN}}', 400),
    ("POST", "/proxies/proxy/toxics", b'{"type": "timeout", "attributes": {"timeout": 1e999}}', 400),
]
#: Headers, and the status of a request with them.
HEADERS = [
    ({**JSON, "Origin": "https://stranger.example"}, 403),
    ({**JSON, "Sec-Fetch-Site": "cross-site"}, 403),
    ({**JSON, "Host": "stranger.example:8474"}, 403),
    ({**JSON, "User-Agent": "Mozilla/5.0 (compatible; MSIE 9.0)"}, 403),
    ({"Content-Type": "text/plain"}, 415),
    ({}, 415),
    ({**JSON, "Host": "[::1]:8474"}, 201),
    ({"Content-Type": "Application/JSON; charset=utf-8", "Host": "localhost"}, 201),
]


class Controlled(ProxyProcess):
    """A proxy with a control."""

    def __init__(self, processes: Processes, upstream: tuple[str, int], *options: str) -> None:
        super().__init__(processes, upstream, "--control", "0", *options)
        self.port = int(self.process.until(r"^udpecho: control on http://127\.0\.0\.1:(\d+)$", "stderr")[1])

    def ask(self, method: str, path: str, body: Any = None, headers: Any = JSON) -> tuple[int, Any]:
        """Make a request.

        @return: the status, and what the JSON says.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, dict(headers))
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, json.loads(content) if content else None


@pytest.fixture
def controlled(processes: Processes, server: Server) -> Iterator[Controlled]:
    """A proxy before a server; it has written no traceback in the end."""
    made = Controlled(processes, server.addresses[0], "--seed", "7")
    yield made
    made.process.signal(2)
    made.process.finish()
    assert "Traceback" not in made.process.stderr, made.process
    assert made.process.status == 130, made.process


def answers(address: tuple[str, int], patience: float = PATIENCE) -> bool:
    """Whether a datagram comes back."""
    with udpSocket() as sock:
        sock.connect(address)
        sock.settimeout(patience)
        try:
            sock.send(b"hello")
            return sock.recv(100) == b"hello"
        except (TimeoutError, ConnectionRefusedError):
            return False


class ControlTests:
    """The API, as Toxiproxy's clients use it."""

    def test_toxics(self, controlled: Controlled) -> None:
        """A toxic is in force until it is removed, is shown, and can be changed."""
        ask, toxics = controlled.ask, "/proxies/proxy/toxics"
        assert answers(controlled.address)
        loss = {"name": "loss_upstream", "type": "loss", "stream": "upstream", "toxicity": 1.0, "attributes": {"loss": 1.0}}
        assert ask("POST", toxics, {"type": "loss", "stream": "upstream"}) == (200, loss)
        assert ask("POST", toxics, {"type": "loss", "stream": "upstream"})[0] == 409
        assert ask("GET", toxics) == (200, [loss])
        assert ask("GET", f"{toxics}/loss_upstream") == (200, loss)
        assert not answers(controlled.address, 0.2)
        assert ask("POST", f"{toxics}/loss_upstream", {"attributes": {"loss": 0}})[1]["attributes"] == {"loss": 0}
        assert answers(controlled.address)
        assert ask("PATCH", f"{toxics}/loss_upstream", {"attributes": {"loss": 2}})[0] == 400
        assert ask("DELETE", f"{toxics}/loss_upstream") == (204, None)
        assert ask("DELETE", f"{toxics}/loss_upstream")[0] == 404
        shown = ask("GET", "/proxies/proxy")[1]
        assert shown["up"] == {"datagrams": 3, "delivered": 2, "lost": 1}
        assert (shown["enabled"], shown["toxics"], shown["listen"]) == (True, [], controlled.written)

    def test_enabled(self, controlled: Controlled) -> None:
        """A proxy that is not enabled is down, and comes back at its address; so it does after a reset, without its toxics."""
        ask = controlled.ask
        assert ask("POST", "/proxies/proxy", {"enabled": False})[1]["enabled"] is False
        assert not answers(controlled.address, 0.2)
        assert ask("PATCH", "/proxies/proxy", {"enabled": True})[1]["listen"] == controlled.written
        assert answers(controlled.address)
        ask("POST", "/proxies/proxy", {"enabled": False})
        ask("POST", "/proxies/proxy/toxics", {"type": "timeout", "attributes": {"timeout": 0}})
        assert ask("POST", "/reset") == (204, None)
        assert answers(controlled.address)

    def test_proxies(self, controlled: Controlled, server: Server) -> None:
        """Proxies are made, moved to another upstream, replaced and deleted."""
        ask, upstream = controlled.ask, formatAddress(server.addresses[0])
        status, made = ask("POST", "/proxies", {"name": "a b", "listen": "localhost:0", "upstream": "127.0.0.1:9"})
        assert (status, made["enabled"], made["toxics"]) == (201, True, [])
        host, _, port = made["listen"].partition(":")
        assert ask("POST", "/proxies", {"name": "a b", "upstream": upstream})[0] == 409
        ask("POST", "/proxies/a%20b/toxics", {"type": "duplicate"})
        moved = ask("POST", "/proxies/a%20b", {"upstream": upstream})[1]
        assert (moved["listen"], moved["upstream"]) == (made["listen"], upstream)
        with udpSocket() as sock:
            sock.settimeout(PATIENCE)
            sock.sendto(b"hello", (host, int(port)))
            assert [sock.recv(9), sock.recv(9)] == [b"hello", b"hello"]
        status, populated = ask("POST", "/populate", [{**made, "upstream": upstream}, {"name": "c", "upstream": upstream}])
        assert status == 201
        assert [each["name"] for each in populated["proxies"]] == ["a b", "c"]
        assert sorted(ask("GET", "/proxies")[1]) == ["a b", "c", "proxy"]
        # An address that is taken leaves all as it was.
        assert ask("POST", "/proxies/c", {"listen": controlled.written})[0] == 409
        assert ask("GET", "/proxies/c")[1]["enabled"] is True
        assert ask("DELETE", "/proxies/a%20b") == (204, None)
        assert not answers((host, int(port)), 0.2)
        assert ask("GET", "/proxies/a%20b")[0] == 404

    def test_together(self, controlled: Controlled) -> None:
        """Of several requests at a time each sees what those before it have done, though they wait for lookups."""
        with ThreadPoolExecutor(8) as pool:
            made = list(
                pool.map(lambda _: controlled.ask("POST", "/proxies", {"name": "x", "upstream": "localhost:9"})[0], range(8))
            )
        assert sorted(made) == [201, *[409] * 7]

    def test_resetByBrowser(self, controlled: Controlled) -> None:
        """A reset needs no body, but it is no web page's either."""
        controlled.ask("POST", "/proxies/proxy/toxics", {"type": "loss", "stream": "Upstream"})
        for headers in ({"User-Agent": "Mozilla/5.0"}, {"Origin": "null"}, {"Sec-Fetch-Site": "none"}, {"Host": "a.example"}):
            assert controlled.ask("POST", "/reset", None, headers)[0] == 403
        assert [toxic["name"] for toxic in controlled.ask("GET", "/proxies/proxy/toxics")[1]] == ["loss_upstream"]

    def test_wrong(self, controlled: Controlled) -> None:
        """What is wrong is refused with a sentence, and changes nothing."""
        for method, path, body, status in WRONG:
            found, content = controlled.ask(method, path, body)
            assert found == status, (method, path, body)
            assert content is None or (content["status"] == status and content["error"]), content
        assert list(controlled.ask("GET", "/proxies")[1]) == ["proxy"]

    def test_browsers(self, controlled: Controlled) -> None:
        """No web page can use it."""
        body = {"name": "x", "upstream": "127.0.0.1:9"}
        for headers, status in HEADERS:
            assert controlled.ask("POST", "/proxies", body, headers)[0] == status, headers
            controlled.ask("DELETE", "/proxies/x")

    def test_example(self, controlled: Controlled) -> None:
        """The example of the documentation works as it stands."""
        tool("curl")
        script = Path(__file__).parents[2] / "docs/examples/control.sh"
        done = subprocess.run(
            ["sh", "-e", str(script)],
            env={**os.environ, "API": f"http://127.0.0.1:{controlled.port}", "no_proxy": "*"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done
        proxies = controlled.ask("GET", "/proxies")[1]
        assert sorted(proxies) == ["dns", "proxy"]
        assert proxies["proxy"]["toxics"] == []

    def test_toxiproxyClient(self, controlled: Controlled) -> None:
        """A client library of Toxiproxy works."""
        library = pytest.importorskip("toxiproxy")
        client = library.Toxiproxy()
        client.update_api_consumer("127.0.0.1", controlled.port)
        one = client.create(name="one", listen="127.0.0.1:0", upstream="127.0.0.1:9")
        one.add_toxic(type="latency", attributes={"latency": 5})
        assert one.get_toxic("latency_downstream").attributes == {"latency": 5, "jitter": 0}
        one.disable()
        assert client.get_proxy("one").enabled is False
        client.reset()
        assert client.get_proxy("one").toxics() == {}
        client.destroy_all()
        assert client.proxies() == {}


class WhereTests:
    """Where the API is."""

    @pytest.mark.parametrize(
        ("text", "endpoint"),
        [
            ("8474", "tcp:8474:interface=127.0.0.1"),
            ("127.0.0.1:8474", "tcp:8474:interface=127.0.0.1"),
            ("[::1]:8474", "tcp6:8474:interface=\\:\\:1"),
            ("0.0.0.0:8474", "tcp:8474:interface=0.0.0.0"),
            ("tcp:8474:interface=127.0.0.1", "tcp:8474:interface=127.0.0.1"),
            ("unix:/tmp/control.sock", "unix:/tmp/control.sock"),
        ],
    )
    def test_right(self, text: str, endpoint: str) -> None:
        """A mere port is on 127.0.0.1; all other addresses are named."""
        assert parseControl(text) == endpoint

    @pytest.mark.parametrize("text", ["tcp:8474", "tcp6:8474", "tcp:8474:interface=", "haproxy:tcp:8474"])
    def test_open(self, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        """An endpoint that would be open to the network without a word is refused."""
        sentence = f"argument --control: control must name its interface, as in tcp:8474:interface=127.0.0.1, got {text!r}"
        assert sentence in usageError(capsys, "proxy", "127.0.0.1:0", "127.0.0.1:9", "--control", text)

    @pytest.mark.parametrize("text", ["65536", "x", "", "127.0.0.1"])
    def test_wrong(self, text: str) -> None:
        """What is none is refused."""
        with pytest.raises(ValueError, match="must be"):
            parseControl(text)

    def test_taken(self, processes: Processes) -> None:
        """A port that is taken ends the command with one line."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            number = str(sock.getsockname()[1])
            done = processes.run("udpecho", "proxy", "127.0.0.1:0", "127.0.0.1:9", "--control", number)
        assert done.status == 2, done
        assert done.stderr.splitlines()[-1].startswith("udpecho: cannot serve the control on tcp:"), done
        assert "Address already in use" in done.stderr
        assert "Traceback" not in done.stderr
