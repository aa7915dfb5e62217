"""Tests of C{docs/deployment/kubernetes}: the manifests follow the schemas, and agree with each other and with udpecho."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.deployment import KUBERNETES, documents, instruction, run
from tests.support.guards import tool
from tests.support.running import PATIENCE
from udpecho.daemon import config_file
from udpecho.server.settings import OPTIONS


def resources(overlay: str) -> dict[str, dict[str, Any]]:
    """What an overlay and the base have, by kind; of several of a kind, and of services by name."""
    paths = [path for folder in ("base", overlay) for path in sorted((KUBERNETES / folder).glob("*.yaml"))]
    found = [document for path in paths for document in documents(path.read_text())]
    return {
        f"{each['kind']}/{each['metadata']['name']}" if each["kind"] == "Service" else each["kind"]: each
        for each in found
        if each["kind"] != "Kustomization"
    }


OVERLAYS = {"deployment": "Deployment", "daemonset": "DaemonSet"}
overlays = pytest.mark.parametrize("overlay", OVERLAYS)
#: What is used of a ServiceMonitor, as the Prometheus Operator's API reference has it (monitoring.coreos.com/v1). Its whole
#: schema is in none of the tools here.
SERVICE_MONITOR = {
    "type": "object",
    "required": ["selector", "endpoints"],
    "additionalProperties": False,
    "properties": {
        "jobLabel": {"type": "string"},
        "selector": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}},
        },
        "endpoints": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "port": {"type": "string"},
                    "path": {"type": "string"},
                    "interval": {"type": "string", "pattern": "^[0-9]+s$"},
                    "scrapeTimeout": {"type": "string", "pattern": "^[0-9]+s$"},
                },
            },
        },
    },
}


class KubernetesTests:
    """The manifests."""

    @overlays
    @pytest.mark.parametrize("version", ["1.30", None], ids=["1.30", "newest"])
    def test_schemas(self, overlay: str, version: str | None) -> None:
        """Every resource is as the published schemas want it, and has nothing that they do not know."""
        validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed here")
        for kind, resource in resources(overlay).items():
            if kind != "ServiceMonitor":
                validate.validate(resource, version or validate.latest_version(), strict=True)

    def test_serviceMonitor(self) -> None:
        """So is the C{ServiceMonitor}, of which only a part is used."""
        jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed here")
        monitor = resources("deployment")["ServiceMonitor"]
        assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
        jsonschema.validate(monitor["spec"], SERVICE_MONITOR)

    @overlays
    def test_kustomize(self, overlay: str) -> None:
        """C{kubectl kustomize} makes one of them, with the configuration, of all the files."""
        made = documents(run(tool("kubectl"), "kustomize", KUBERNETES / overlay))
        kinds = [each["kind"] for each in made]
        assert sorted(kinds) == sorted([*(key.partition("/")[0] for key in resources(overlay)), "ConfigMap"])
        (configMap,) = (each for each in made if each["kind"] == "ConfigMap")
        assert configMap["data"] == {"udpecho.toml": (KUBERNETES / "base" / "udpecho.toml").read_text()}
        (workload,) = (each for each in made if each["kind"] == OVERLAYS[overlay])
        (volume,) = workload["spec"]["template"]["spec"]["volumes"]
        assert volume["configMap"]["name"] == configMap["metadata"]["name"] != "udpecho"

    @overlays
    def test_restricted(self, overlay: str) -> None:
        """The pods keep to the "restricted" Pod Security Standard, with a read-only root, and no token of an account."""
        pod, container = self.pod(overlay)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == instruction("USER")
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not [port for port in container["ports"] if "hostPort" in port]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)

    @overlays
    def test_ports(self, overlay: str) -> None:
        """The ports of the configuration, the container, the services, the probes and the scrapes are the same ones."""
        found = resources(overlay)
        _, container = self.pod(overlay)
        values = config_file.read(str(KUBERNETES / "base" / "udpecho.toml"), OPTIONS).values
        ports = {port["name"]: port for port in container["ports"]}
        assert str(ports["echo"]["containerPort"]) == values["port"]
        assert ports["echo"]["protocol"] == "UDP"
        # All families that the service and the probes may use.
        assert values["interface"] == ("0.0.0.0", "::")
        assert values["metrics"] == f"tcp6:{ports['metrics']['containerPort']}"
        (echo,) = found["Service/udpecho"]["spec"]["ports"]
        assert (echo["protocol"], echo["port"], echo["targetPort"]) == ("UDP", 7, "echo")
        assert found["Service/udpecho"]["spec"]["externalTrafficPolicy"] == "Local"
        (metrics,) = found["Service/udpecho-metrics"]["spec"]["ports"]
        assert (metrics["protocol"], metrics["targetPort"]) == ("TCP", "metrics")
        (endpoint,) = found["ServiceMonitor"]["spec"]["endpoints"]
        assert endpoint["port"] == metrics["name"]
        for probe, path in (("readinessProbe", "/-/ready"), ("livenessProbe", "/-/healthy")):
            assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}

    @overlays
    def test_networkPolicy(self, overlay: str) -> None:
        """The policy is for these pods, lets in datagrams from anywhere and scrapes from one namespace, and nothing out."""
        found = resources(overlay)
        _, container = self.pod(overlay)
        ports = {(port["protocol"], port["containerPort"]) for port in container["ports"]}
        policy = found["NetworkPolicy"]["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert policy["egress"] == []
        rules = {(port["protocol"], port["port"]): rule.get("from") for rule in policy["ingress"] for port in rule["ports"]}
        assert set(rules) == ports
        assert [pair for pair, sources in rules.items() if sources is None] == [("UDP", 1234)]

    @overlays
    def test_namespace(self, overlay: str) -> None:
        """All is in one namespace, whose own standard the pods meet."""
        made = documents(run(tool("kubectl"), "kustomize", KUBERNETES / overlay))
        (namespace,) = (each for each in made if each["kind"] == "Namespace")
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        others = {each["metadata"].get("namespace") for each in made if each["kind"] != "Namespace"}
        assert others == {namespace["metadata"]["name"]}

    @pytest.mark.slow
    @overlays
    def test_linter(self, overlay: str, tmp_path: Path) -> None:
        """Checkov finds nothing, but what the manifests give it reasons for."""
        checkov = tool("checkov")
        (tmp_path / "all.yaml").write_text(run(tool("kubectl"), "kustomize", KUBERNETES / overlay))
        options = ["--framework", "kubernetes", "--skip-download", "--compact", "--output", "json"]
        found = json.loads(run(checkov, "--file", tmp_path / "all.yaml", *options, patience=10 * PATIENCE))
        assert found["summary"]["failed"] == 0
        assert found["summary"]["passed"] > 50

    @overlays
    def test_selectors(self, overlay: str) -> None:
        """Every selector finds what it should, and the alerts' job is what the C{ServiceMonitor} makes it."""
        found = resources(overlay)
        workload = found[OVERLAYS[overlay]]["spec"]
        labels = workload["template"]["metadata"]["labels"]
        selectors = [workload["selector"]["matchLabels"]]
        selectors += [each["spec"]["selector"] for key, each in found.items() if key.startswith("Service/")]
        selectors.append(found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"])
        if "PodDisruptionBudget" in found:
            selectors.append(found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])
        assert all(selector.items() <= labels.items() for selector in selectors)
        monitor = found["ServiceMonitor"]["spec"]
        scraped = [
            key
            for key, each in found.items()
            if key.startswith("Service/") and monitor["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
        ]
        assert scraped == ["Service/udpecho-metrics"]
        assert found[scraped[0]]["metadata"]["labels"][monitor["jobLabel"]] == "udpecho"

    @overlays
    def test_configuration(self, overlay: str) -> None:
        """The server reads the file that is mounted."""
        pod, container = self.pod(overlay)
        (mount,) = container["volumeMounts"]
        assert container["args"] == ["--config", f"{mount['mountPath']}/udpecho.toml"]
        assert mount["readOnly"] is True
        assert [volume["name"] for volume in pod["volumes"]] == [mount["name"]]

    def pod(self, overlay: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The pod of an overlay, and its one container."""
        pod = resources(overlay)[OVERLAYS[overlay]]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        return pod, container
