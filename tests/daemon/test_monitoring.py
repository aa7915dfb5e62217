"""Tests of C{docs/deployment/prometheus} and C{docs/deployment/grafana}: they query metrics that udpecho exports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.deployment import DEPLOYMENT, METRICS, PROBE_METRICS, documents, run
from tests.support.guards import tool
from udpecho.probe.prober import Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.target import Target
from udpecho.testing.memory_network import MemoryNetwork


def checkExpressions(expressions: list[str], directory: Path) -> None:
    """Check that Prometheus can parse some queries, and that they use metrics of udpecho and labels of these."""
    rules = [{"record": f"query:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    path = directory / "rules.json"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    for expression in expressions:
        checkNames(expression)
    assert f"{len(rules)} rules found" in run(tool("promtool"), "check", "rules", path)


def checkNames(expression: str) -> None:
    """Check that a query uses metrics of udpecho, and labels of these."""
    names = set(re.findall(r"\budpecho_[a-z_]+\b", expression))
    known = METRICS | PROBE_METRICS
    assert names <= set(known), expression
    own = {"job", "instance"}.union(*(known[name] for name in names))
    for clause in re.findall(r"\b(?:by|without) *\(([^)]*)\)|\{([^}]*)\}", expression):
        labels = re.findall(r"([a-z]+)(?= *(?:=|!|,|$))", re.sub(r'"[^"]*"', "", clause[0] or clause[1]))
        assert set(labels) <= own, expression


#: The files of alert rules, the server's and the prober's.
RULES = ["alerts", "probe-alerts"]


@pytest.mark.parametrize("name", RULES)
class PrometheusTests:
    """The alert rules."""

    def test_check(self, name: str) -> None:
        """C{promtool} accepts them."""
        assert "SUCCESS" in run(tool("promtool"), "check", "rules", DEPLOYMENT / "prometheus" / f"{name}.yml")

    def test_rules(self, name: str) -> None:
        """They fire when they should, and only then."""
        output = run(tool("promtool"), "test", "rules", f"{name}.test.yml", directory=DEPLOYMENT / "prometheus")
        assert "SUCCESS" in output

    def test_everyAlert(self, name: str) -> None:
        """Each alert is tested to fire and not to fire, uses metrics of udpecho, and has a description of what to do."""
        (rules,) = documents((DEPLOYMENT / "prometheus" / f"{name}.yml").read_text())
        (tests,) = documents((DEPLOYMENT / "prometheus" / f"{name}.test.yml").read_text())
        alerts = [rule for group in rules["groups"] for rule in group["rules"]]
        tested = [(each["alertname"], bool(each["exp_alerts"])) for test in tests["tests"] for each in test["alert_rule_test"]]
        assert alerts
        for alert in alerts:
            assert {(alert["alert"], True), (alert["alert"], False)} <= set(tested)
            assert set(alert["annotations"]) == {"summary", "description"}
            assert alert["labels"]["severity"] in ("critical", "warning")
            checkNames(alert["expr"])


#: The dashboards, with the metrics of each.
DASHBOARDS = {"udpecho": METRICS, "udpecho-probe": PROBE_METRICS}
dashboards = pytest.mark.parametrize("name", DASHBOARDS)


def read(name: str) -> dict[str, Any]:
    """A dashboard."""
    found: dict[str, Any] = json.loads((DEPLOYMENT / "grafana" / f"{name}.json").read_text())
    return found


class GrafanaTests:
    """The dashboards, the server's and the prober's."""

    @dashboards
    def test_queries(self, name: str, tmp_path: Path) -> None:
        """Prometheus can parse every query, and each is for metrics of udpecho."""
        dashboard = read(name)
        expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        expressions += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
        checkExpressions([expression.replace("$__rate_interval", "1m") for expression in expressions], tmp_path)

    @dashboards
    def test_everyMetric(self, name: str) -> None:
        """Every metric of its daemon is on it."""
        dashboard = read(name)
        text = json.dumps(dashboard)
        assert not [metric for metric in DASHBOARDS[name] if metric not in text]

    @dashboards
    def test_variables(self, name: str) -> None:
        """Every variable that is used is defined, and every panel has the data source that is chosen."""
        dashboard = read(name)
        defined = {variable["name"] for variable in dashboard["templating"]["list"]}
        used = set(re.findall(r"\$\{?([a-z_]+)", json.dumps(dashboard["panels"])))
        ours = {"target"} if name == "udpecho-probe" else set()
        assert used - {"__rate_interval"} == defined == {"datasource", "job", "instance", *ours}
        for panel in dashboard["panels"]:
            assert {json.dumps(each["datasource"]) for each in (panel, *panel["targets"])} == {
                json.dumps({"type": "prometheus", "uid": "${datasource}"})
            }

    @dashboards
    def test_places(self, name: str) -> None:
        """No panel overlaps another or leaves the page, and each has its own number, a title and a description."""
        dashboard = read(name)
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert not cells & taken
            assert max(x for x, _ in cells) < 24
            taken |= cells
            assert panel["title"]
            assert panel["description"]
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])

    def test_probeMetrics(self) -> None:
        """The metrics that the prober's dashboard may use are the exported ones."""
        client = pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")
        from udpecho.probe.metrics import ProbeMetrics

        network = MemoryNetwork()
        here = network.host("here", "192.0.2.1")
        prober = Prober(here, [Target.of("192.0.2.1:7")], Plan(count=2))
        prober.start()
        metrics = ProbeMetrics()
        metrics.add(prober.flows[0], 0)
        network.advance(5)
        found: dict[str, set[str]] = {}
        for family in metrics.collect():
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
        assert client.Metric
        assert found == PROBE_METRICS
