"""Tests of L{udpecho.server.metrics}: by the library's own parser, by C{promtool}, and by a real Prometheus."""

from __future__ import annotations

import json
import platform
import re
import socket
import sys
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import twisted
import udpecho
from tests.support.guards import tool
from tests.support.processes import Processes, eventually
from tests.support.running import PATIENCE, udpSocket
from tests.support.source import ROOT
from udpecho.guard.guard import Guard
from udpecho.guard.policy import GuardPolicy
from udpecho.interfaces import DROP_REASONS
from udpecho.net.linux import mmsg
from udpecho.server.counters import BATCH_SIZES, Counters
from udpecho.server.metrics import EchoCollector, makeRegistry, requireLibrary

#: A server with its pages, on the installed reactor as with C{twistd}.
SERVER = """
import sys
from twisted.internet import reactor
from twisted.python import log
from udpecho import EchoService
from udpecho.daemon.health import SelfEcho
from udpecho.daemon.http_pages import MetricsService
from udpecho.server.metrics import makeRegistry

log.startLogging(sys.stdout)
echo = EchoService(reactor, 0, ["127.0.0.1"])
health = SelfEcho(reactor, lambda: echo.addresses)
registry = makeRegistry(echo.counters, lambda: 0, lambda: 0.0)
pages = MetricsService(reactor, "tcp:0:interface=127.0.0.1", registry, health.check)
for service in (echo, pages):
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
reactor.run()
"""


def page(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def samples(text: str) -> dict[str, float]:
    """The values of a page, by name and labels."""
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def collected(account: Counters, **state: Any) -> dict[str, float]:
    """The values of a collector, without those of the process."""
    registry = CollectorRegistry()
    registry.register(EchoCollector(account, **state))
    return samples(page(registry))


class CollectorTests:
    """L{EchoCollector}."""

    def test_empty(self) -> None:
        """New counters have all their metrics, each at 0, and the drops of every reason; what is unknown has no metric."""
        found = collected(Counters())
        (build,) = (name for name in found if name.startswith("udpecho_build_info"))
        version, python = udpecho.__version__, platform.python_version()
        assert build == f"udpecho_build_info{{python={python}}}{{twisted={twisted.__version__}}}{{version={version}}}"
        assert found.pop(build) == 1
        assert found == dict.fromkeys(
            [
                "udpecho_received_datagrams_total",
                "udpecho_received_bytes_total",
                "udpecho_echoed_datagrams_total",
                "udpecho_echoed_bytes_total",
                *(f"udpecho_dropped_datagrams_total{{reason={reason}}}" for reason in DROP_REASONS),
                *(f"udpecho_batch_entries_bucket{{le={size}.0}}" for size in BATCH_SIZES),
                "udpecho_batch_entries_bucket{le=+Inf}",
                "udpecho_batch_entries_count",
                "udpecho_batch_entries_sum",
            ],
            0,
        )

    def test_values(self) -> None:
        """The values are the current ones of the counters."""
        counters = Counters()
        registry = CollectorRegistry()
        registry.register(EchoCollector(counters))
        page(registry)
        counters.receive(30, 3)
        counters.echo(20, 2)
        counters.drop("truncated", 10)
        found = samples(page(registry))
        assert found["udpecho_received_datagrams_total"] == 3
        assert found["udpecho_received_bytes_total"] == 30
        assert found["udpecho_echoed_datagrams_total"] == 2
        assert found["udpecho_echoed_bytes_total"] == 20
        assert found["udpecho_dropped_datagrams_total{reason=truncated}"] == 1
        assert found["udpecho_dropped_datagrams_total{reason=too_large}"] == 0

    @given(st.lists(st.integers(1, mmsg.SLOTS)))
    def test_batches(self, sizes: list[int]) -> None:
        """The histogram has the number of batches with at most so many entries, their number, and their sum."""
        counters = Counters()
        for size in sizes:
            counters.receiveBatch(size, 0, size)
        found = collected(counters)
        for limit in BATCH_SIZES:
            assert found[f"udpecho_batch_entries_bucket{{le={limit}.0}}"] == sum(size <= limit for size in sizes)
        assert found["udpecho_batch_entries_bucket{le=+Inf}"] == found["udpecho_batch_entries_count"] == len(sizes)
        assert found["udpecho_batch_entries_sum"] == sum(sizes)

    def test_state(self) -> None:
        """The state of the server has metrics: the kernel's drops where known, the limiter's fill, workers, a dry run."""
        guard = Guard(GuardPolicy(rate=1), seconds=lambda: 0.0)
        guard.refuse(5, ("192.0.2.1", 40000))
        found = collected(Counters(), kernelDrops=lambda: 7, fill=lambda: guard.fill, workers=lambda: 2)
        assert found["udpecho_kernel_dropped_datagrams_total"] == 7
        assert 0 < found["udpecho_limiter_fill_ratio"] == guard.fill < 1
        assert found["udpecho_workers"] == 2
        assert "udpecho_kernel_dropped_datagrams_total" not in collected(Counters(), kernelDrops=lambda: None)
        found = collected(Counters(), wouldDrop=lambda: {"not_allowed": 3})
        would = {name: value for name, value in found.items() if name.startswith("udpecho_would_drop_datagrams_total")}
        assert would == {
            "udpecho_would_drop_datagrams_total{reason=loop_guard}": 0,
            "udpecho_would_drop_datagrams_total{reason=not_allowed}": 3,
            "udpecho_would_drop_datagrams_total{reason=rate_limited}": 0,
        }


class RegistryTests:
    """L{makeRegistry}."""

    def test_separate(self) -> None:
        """Each registry is a new one, with the metrics of the process, and without those of the global registry."""
        one, other = Counters(), Counters()
        one.receive(1)
        pages = [samples(page(makeRegistry(counters))) for counters in (one, other)]
        assert [found["udpecho_received_datagrams_total"] for found in pages] == [1, 0]
        if sys.platform == "linux":
            assert pages[0]["process_resident_memory_bytes"] > 0
            assert pages[0]["process_open_fds"] > 0
        assert not {name for found in pages for name in found if not name.startswith(("udpecho_", "process_"))}

    def test_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the library the message says what to install."""
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        for call in (requireLibrary, lambda: makeRegistry(Counters())):
            with pytest.raises(ImportError, match=r"^metrics need prometheus-client: install udpecho\[metrics\]$"):
                call()

    def test_lazy(self, processes: Processes) -> None:
        """Importing the module does not import the library."""
        code = "import sys, udpecho.server.metrics, udpecho.daemon.http_pages; print('prometheus_client' in sys.modules)"
        assert processes.run(sys.executable, "-c", code).stdout == "False\n"

    def test_promtool(self, processes: Processes) -> None:
        """C{promtool check metrics} accepts the page."""
        promtool = tool("promtool")
        counters = Counters()
        counters.receiveBatch(3, 30, 3)
        text = page(makeRegistry(counters, lambda: 1, lambda: 0.5, lambda: 2))
        checked = processes.run(promtool, "check", "metrics", feed=text.encode())
        assert (checked.status, checked.stdout, checked.stderr) == (0, "", "")
        # It does find errors.
        assert processes.run(promtool, "check", "metrics", feed=b"# TYPE a counter\na 1\n").status != 0


class PageTests:
    """C{docs/metrics.rst}."""

    text = (ROOT / "docs" / "metrics.rst").read_text()

    def test_table(self) -> None:
        """The table has every exported metric with its type, and no other."""
        documented = set(
            re.findall(r"^``(udpecho_\w+?)(?:_total)?(?:{.*})?`` +(counter|gauge|histogram) ", self.text, re.MULTILINE)
        )
        assert documented == {(family.name, family.type) for family in EchoCollector(Counters()).describe()}

    def test_queries(self, processes: Processes) -> None:
        """Prometheus can parse the queries."""
        promtool = tool("promtool")
        _, _, section = self.text.partition("Some questions")
        blocks = re.findall(r"^.. code-block:: text\n\n((?:   .*\n)+)", section.partition("\nHealth\n")[0], re.MULTILINE)
        assert len(blocks) == 7
        rules = [{"record": f"query:{number}", "expr": " ".join(block.split())} for number, block in enumerate(blocks)]
        # JSON is YAML too.
        (processes.directory / "rules.yml").write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
        checked = processes.run(promtool, "check", "rules", "rules.yml")
        assert (checked.status, checked.stderr) == (0, ""), checked


def fromAPI(address: str, path: str) -> Any:
    """Query Prometheus's API, which may not listen yet.

    @return: the data; C{None} if there are none.
    """
    try:
        with urlopen(f"http://{address}/api/v1/{path}", timeout=PATIENCE) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


def freePort() -> int:
    """A TCP port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


class PrometheusTests:
    """A real Prometheus scrapes a server."""

    def test_scrape(self, processes: Processes) -> None:
        """The target is up, its values are those of the server, and no sample was refused."""
        prometheus = tool("prometheus")
        server = processes.start(sys.executable, "-c", SERVER)
        host, port = server.until(r"answering on ([0-9.]+):([0-9]+)").groups()
        pages = server.until(r"metrics on (\S+)")[1]
        with udpSocket() as sock:
            for _ in range(3):
                sock.sendto(b"hello", (host, int(port)))
                assert sock.recv(100) == b"hello"
        (processes.directory / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            f"scrape_configs: [{{job_name: udpecho, static_configs: [{{targets: ['{pages}']}}]}}]\n"
        )
        address = f"127.0.0.1:{freePort()}"
        process = processes.start(
            prometheus,
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address={address}",
        )

        def value(query: str) -> float | None:
            found = fromAPI(address, f"query?query={quote(query)}")
            return float(found["result"][0]["value"][1]) if found and found["result"] else None

        eventually(lambda: value("up == 1"), "a scrape")
        (target,) = fromAPI(address, "targets")["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
        assert value("udpecho_received_datagrams_total") == 3
        assert value("udpecho_echoed_bytes_total") == 15
        assert value("sum(udpecho_dropped_datagrams_total)") == 0
        assert value("count(udpecho_dropped_datagrams_total)") == len(DROP_REASONS)
        assert value(f'udpecho_build_info{{version="{udpecho.__version__}"}}') == 1
        assert value("histogram_quantile(1, udpecho_batch_entries_bucket)") is not None
        types = fromAPI(address, "metadata")
        # In OpenMetrics, which Prometheus prefers, the family has no suffix.
        (counter,) = types.keys() & {"udpecho_received_datagrams", "udpecho_received_datagrams_total"}
        assert types[counter][0]["type"] == "counter"
        assert types["udpecho_batch_entries"][0]["type"] == "histogram"
        process.stop()
        server.stop()
        assert "Traceback" not in server.stdout
