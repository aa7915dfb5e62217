"""
Tests of C{docs/deployment}: the files are what the tools of their field take, and they agree with each other and with udpecho.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Processes, command, tool, without
from tests.support.running import PATIENCE, udpSocket, unusedPort
from tests.support.source import ROOT
from udpecho.daemon import config_file
from udpecho.daemon.server_tap import Options
from udpecho.probe.prober import Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.target import Target
from udpecho.server.settings import FILE_OPTIONS
from udpecho.testing.memory_network import MemoryNetwork

DEPLOYMENT = ROOT / "docs" / "deployment"
UNITS = DEPLOYMENT / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
KUBERNETES = DEPLOYMENT / "kubernetes"
#: What udpecho exports, with the labels that each has.
METRICS = {
    "udpecho_received_datagrams_total": set[str](),
    "udpecho_received_bytes_total": set[str](),
    "udpecho_echoed_datagrams_total": set[str](),
    "udpecho_echoed_bytes_total": set[str](),
    "udpecho_dropped_datagrams_total": {"reason"},
    "udpecho_kernel_dropped_datagrams_total": set[str](),
    "udpecho_batch_entries_bucket": {"le"},
    "udpecho_batch_entries_sum": set[str](),
    "udpecho_batch_entries_count": set[str](),
    "udpecho_limiter_fill_ratio": set[str](),
    "udpecho_build_info": {"version"},
}
#: What udpecho-probe exports, with the labels that each has.
PROBE_METRICS = {
    "udpecho_probe_up": {"target", "source"},
    "udpecho_probe_sent_total": {"target", "source"},
    "udpecho_probe_outcomes_total": {"target", "source", "outcome"},
    "udpecho_probe_reordered_total": {"target", "source"},
    "udpecho_probe_own_queue_drops_total": {"target", "source"},
    "udpecho_probe_round_trip_seconds_bucket": {"target", "source", "le"},
    "udpecho_probe_round_trip_seconds_sum": {"target", "source"},
    "udpecho_probe_round_trip_seconds_count": {"target", "source"},
    "udpecho_probe_send_error_seconds_bucket": {"target", "source", "le"},
    "udpecho_probe_send_error_seconds_sum": {"target", "source"},
    "udpecho_probe_send_error_seconds_count": {"target", "source"},
}
#: Options of C{twistd udpecho} itself, which no file has.
COMMAND_LINE = {"config", "check-config"}


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes in a directory of the test's own."""
    with Processes(tmp_path) as started:
        yield started


def run(*arguments: str | Path, directory: Path | None = None) -> str:
    """
    Run a tool that must succeed.

    @return: what it wrote, standard error too.
    """
    done = subprocess.run(
        arguments,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{done.args}:\n{done.stdout}"
    return done.stdout


def options(arguments: list[str]) -> dict[str, list[str]]:
    """The long options of a command line for udpecho, which has no others, with their values."""
    found: dict[str, list[str]] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            found.setdefault(name, []).extend([value] if equals else [])
        else:
            found[name].append(argument)
    return found


def checkOptions(arguments: list[str]) -> None:
    """Look that all options are ones of udpecho, and that their values can be read."""
    for name, values in options(arguments).items():
        if name in COMMAND_LINE:
            continue
        setting = FILE_OPTIONS[name]
        for value in values:
            if setting.parse is not None:
                setting.parse(value)


class SampleTests:
    """The sample of a configuration."""

    @pytest.mark.parametrize(
        "path", [DEPLOYMENT / "udpecho.toml", KUBERNETES / "base" / "udpecho.toml"], ids=["any", "kubernetes"]
    )
    def test_read(self, path: Path) -> None:
        """It can be read."""
        assert config_file.read(str(path))

    def test_comments(self) -> None:
        """What is commented out in it can be read as well."""
        text = re.sub(r"^#(?=[a-z-]+ = )", "", (DEPLOYMENT / "udpecho.toml").read_text(), flags=re.MULTILINE)
        assert {"interface", "port", "receive-buffer"} < set(config_file.parse(text))


# systemd


def unit(name: str) -> dict[str, list[tuple[str, str]]]:
    """A unit's settings by section, in their order, as names may come several times."""
    sections: dict[str, list[tuple[str, str]]] = {}
    section = ""
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            sections[section] = []
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            sections[section].append((key, value))
    return sections


def settings(name: str, section: str, key: str) -> list[str]:
    """All values of a setting."""
    return [value for found, value in unit(name)[section] if found == key]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units in a directory, with a program where they expect theirs."""
    program = tmp_path / "twistd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for path in UNITS.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/udpecho/bin/twistd", str(program)))
    return tmp_path


@cache
def allowedCalls() -> frozenset[str]:
    """The system calls that the units allow, as this systemd has them in its groups."""
    groups: dict[str, set[str]] = {}
    name = ""
    for line in run(tool("systemd-analyze"), "syscall-filter", "--no-pager").splitlines():
        if line.startswith("@"):
            name = line.strip()
            groups[name] = set()
        elif line.startswith("    ") and not line.strip().startswith("#"):
            groups[name].add(line.strip())

    def expand(group: str) -> set[str]:
        return {call for item in groups[group] for call in (expand(item) if item.startswith("@") else {item})}

    allowed = expand("@default")
    for value in settings("udpecho.service", "Service", "SystemCallFilter"):
        calls = {call for group in value.lstrip("~").split() for call in expand(group)}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    return frozenset(allowed)


# Forbids this process and what it executes to have memory that can be run and was written, prctl(2) since Linux 6.3; what
# systemd does for MemoryDenyWriteExecute= where it can.
_noWriteExecute = """
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0):
    sys.exit(77)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class UnitTests:
    """The units."""

    @pytest.mark.parametrize("name", sorted(path.name for path in UNITS.iterdir()))
    def test_verify(self, name: str, installed: Path) -> None:
        """C{systemd-analyze verify} has nothing to say of it."""
        said = run(tool("systemd-analyze"), "verify", "--man=no", installed / name)
        assert not [line for line in said.splitlines() if "udpecho" in line], said

    @pytest.mark.parametrize("name", SERVICES)
    def test_security(self, name: str, installed: Path) -> None:
        """C{systemd-analyze security} finds an exposure of 1.5 or less, "OK"."""
        analyze = tool("systemd-analyze")
        if int(run(analyze, "--version").split()[1]) < 250:
            pytest.skip("this systemd-analyze cannot look at files")
        said = run(analyze, "security", "--offline=true", "--no-pager", "--threshold=15", installed / name)
        assert "OK" in said.splitlines()[-1]

    @pytest.mark.parametrize("name", SERVICES)
    def test_commands(self, name: str) -> None:
        """
        All commands are C{twistd}'s, in the foreground and without a pid file, with options that udpecho has; or the signal for
        a reload.
        """
        lines = [value for key, value in unit(name)["Service"] if key.startswith("Exec")]
        assert lines.pop() == "kill -HUP $MAINPID"
        assert len(lines) == 3
        for line in lines:
            program, *arguments = shlex.split(line)
            assert program == "/opt/udpecho/bin/twistd"
            assert arguments[:3] == ["--nodaemon", "--pidfile=", "udpecho"]
            checkOptions(arguments[3:])

    @pytest.mark.parametrize("name", SERVICES)
    def test_supervised(self, name: str) -> None:
        """systemd is told when it is ready, watches it, and starts it again."""
        for key, value in (("Type", "notify"), ("NotifyAccess", "main"), ("Restart", "on-failure"), ("DynamicUser", "yes")):
            assert settings(name, "Service", key) == [value]
        assert float(settings(name, "Service", "WatchdogSec")[0]) >= 10

    def test_socket(self) -> None:
        """Each family has its own socket on port 7, by the name that the service selects."""
        assert settings("udpecho.socket", "Socket", "ListenDatagram") == ["0.0.0.0:7", "[::]:7"]
        assert settings("udpecho.socket", "Socket", "BindIPv6Only") == ["ipv6-only"]
        (name,) = settings("udpecho.socket", "Socket", "FileDescriptorName")
        (line,) = settings("udpecho.service", "Service", "ExecStart")
        assert options(shlex.split(line)[4:])["socket-activation"] == [name]

    def test_privileges(self) -> None:
        """With the sockets passed there is no capability; without, the one for the port."""
        for key in ("CapabilityBoundingSet", "AmbientCapabilities"):
            assert settings("udpecho.service", "Service", key) == [""]
            assert settings("udpecho-privileged-port.service", "Service", key) == ["CAP_NET_BIND_SERVICE"]
        (line,) = settings("udpecho-privileged-port.service", "Service", "ExecStart")
        assert options(shlex.split(line)[4:])["port"] == ["7"]

    def test_hardenedAlike(self) -> None:
        """The two services differ in their privileges only."""
        differ = {"ExecStart", "CapabilityBoundingSet", "AmbientCapabilities", "PrivateUsers"}
        first, second = ({pair for pair in unit(name)["Service"] if pair[0] not in differ} for name in SERVICES)
        assert first == second

    def test_noWriteExecute(self, processes: Processes) -> None:
        """Under C{MemoryDenyWriteExecute=} the server starts and echoes, and its system calls for batches work."""
        python = processes.run(
            sys.executable,
            "-c",
            _noWriteExecute,
            sys.executable,
            "-c",
            "from udpecho.net import selftest; print(selftest.unsupportedReason())",
        )
        if python.status == 77:
            pytest.skip("this kernel cannot forbid it")
        unrestricted = processes.run(
            sys.executable, "-c", "from udpecho.net import selftest; print(selftest.unsupportedReason())"
        )
        assert python.status == 0, python
        assert python.stdout == unrestricted.stdout
        echoes(processes, [sys.executable, "-c", _noWriteExecute, *command("twistd"), "-n", "--pidfile="])

    def test_systemCalls(self, processes: Processes) -> None:
        """No system call is outside of the units' filters, from the start to the stop."""
        strace = tool("strace")
        trace = processes.directory / "trace"
        echoes(processes, [strace, "-f", "-qq", "-o", str(trace), *command("twistd"), "-n", "--pidfile="])
        called = set(re.findall(r"^[0-9]+ +([a-z0-9_]+)\(", trace.read_text(), re.MULTILINE))
        assert {"recvmsg", "sendmsg", "recvmmsg", "sendmmsg"} & called
        assert called <= allowedCalls()

    def test_families(self, processes: Processes) -> None:
        """No socket is of another family than the units allow."""
        strace = tool("strace")
        trace = processes.directory / "trace"
        echoes(processes, [strace, "-f", "-qq", "-e", "trace=socket,socketpair", "-o", str(trace), *command("twistd"), "-n"])
        families = set(re.findall(r"\((AF_[A-Z0-9_]+)", trace.read_text()))
        assert families <= set(settings("udpecho.service", "Service", "RestrictAddressFamilies")[0].split())


def echoes(processes: Processes, twistd: list[str], *arguments: str) -> None:
    """Run a server, have a datagram echoed, and stop it."""
    server = processes.server("--interface", "127.0.0.1", *arguments, twistd=twistd)
    with udpSocket() as sock:
        sock.sendto(b"hello", server.addresses[0])
        assert sock.recv(100) == b"hello"
    if "strace" in twistd[0]:
        # strace keeps its own signals to itself.
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        server.process.finish()
    else:
        server.stop()


# The container


def instructions() -> list[tuple[str, str]]:
    """The instructions of the container file."""
    text = (DEPLOYMENT / "container" / "Containerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def instruction(name: str) -> str:
    """The last instruction of a name, which is the one that counts."""
    return [rest for found, rest in instructions() if found == name][-1]


class ContainerTests:
    """The container file."""

    def test_user(self) -> None:
        """It runs as a number that is not root's, from the last stage, in which nothing is run as root after it."""
        assert re.fullmatch("[1-9][0-9]+:[1-9][0-9]+", instruction("USER"))
        names = [name for name, _ in instructions()]
        assert not {"RUN", "COPY"} & set(names[names.index("USER") :])

    def test_ports(self) -> None:
        """The ports that it exposes are those that the server and its metrics have, and need no privilege."""
        found = options(json.loads(instruction("CMD")))
        metrics = found["metrics"][0].split(":")[1]
        assert instruction("EXPOSE") == f"{found['port'][0]}/udp {metrics}/tcp"
        assert int(found["port"][0]) >= 1024

    def test_options(self) -> None:
        """It gives udpecho options that it has."""
        assert json.loads(instruction("ENTRYPOINT")) == ["twistd", "--nodaemon", "--pidfile=", "udpecho"]
        checkOptions(json.loads(instruction("CMD")))

    def test_runs(self, processes: Processes) -> None:
        """
        Its command runs where nothing can be written and without a capability, and the health check finds it well; without the
        server the health check fails.
        """
        arguments = json.loads(instruction("CMD"))
        if not set(options(arguments)) <= {name.replace("_", "-") for name in Options().synonyms}:
            pytest.skip("this udpecho has no metrics")
        pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")
        port, metrics = unusedPort(), unusedPort()
        arguments = [argument.replace("1234", str(port)).replace("9107", str(metrics)) for argument in arguments]
        process = processes.start(*self.readOnly(), *command("twistd"), *json.loads(instruction("ENTRYPOINT"))[1:], *arguments)
        process.until("answering on ")
        check = json.loads(re.sub(r"^.* CMD ", "", instruction("HEALTHCHECK")))
        check[-1] = check[-1].replace("1234", str(port)).replace("udpecho", shlex.join(command("udpecho")))
        assert processes.run(*check).status == 0
        # twistd ends by the signal that ended it.
        assert process.stop().status == -signal.SIGTERM, process
        assert processes.run(*check).status

    def test_healthCheck(self, processes: Processes) -> None:
        """The health check succeeds where the server answers, and fails where nothing does."""
        server = processes.server("--interface", "127.0.0.1")
        check = json.loads(re.sub(r"^.* CMD ", "", instruction("HEALTHCHECK")))
        check[-1] = check[-1].replace("1234", str(server.addresses[0][1])).replace("udpecho", shlex.join(command("udpecho")))
        assert processes.run(*check).status == 0
        server.stop()
        assert processes.run(*check).status

    def readOnly(self) -> list[str]:
        """How to run a command where the root directory is read-only and no capability is left."""
        if os.geteuid() != 0:
            pytest.skip("only root has a root directory of its own")
        if subprocess.run([tool("unshare"), "--mount", "mount", "-o", "remount,bind,ro", "/"], capture_output=True).returncode:
            pytest.skip("mounts cannot be changed here")
        script = 'mount -o remount,bind,ro / && cd / && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, "sh", *without("all"), "--no-new-privs"]


# Kubernetes


def documents(text: str) -> list[dict[str, Any]]:
    """The resources in a text."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed here")
    return [document for document in yaml.safe_load_all(text) if document]


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
        """
        The pods keep to the "restricted" Pod Security Standard, with a read-only root besides, and no token of an account.
        """
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
        values = config_file.read(str(KUBERNETES / "base" / "udpecho.toml"))
        ports = {port["name"]: port for port in container["ports"]}
        assert str(ports["echo"]["containerPort"]) == values["port"]
        assert ports["echo"]["protocol"] == "UDP"
        assert values["metrics"] == f"tcp:{ports['metrics']['containerPort']}"
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
    def test_selectors(self, overlay: str) -> None:
        """Every selector finds what it should, and the alerts' job is what the C{ServiceMonitor} makes it."""
        found = resources(overlay)
        workload = found[OVERLAYS[overlay]]["spec"]
        labels = workload["template"]["metadata"]["labels"]
        selectors = [workload["selector"]["matchLabels"]]
        selectors += [each["spec"]["selector"] for key, each in found.items() if key.startswith("Service/")]
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


# Prometheus and Grafana


def checkExpressions(expressions: list[str], directory: Path) -> None:
    """Look that Prometheus can parse some queries, and that they ask for what udpecho exports, by labels that there are."""
    rules = [{"record": f"query:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    path = directory / "rules.json"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    for expression in expressions:
        checkNames(expression)
    assert f"{len(rules)} rules found" in run(tool("promtool"), "check", "rules", path)


def checkNames(expression: str) -> None:
    """Look that a query asks for metrics of udpecho, by labels that they have."""
    names = set(re.findall(r"\budpecho_[a-z_]+\b", expression))
    known = METRICS | PROBE_METRICS
    assert names <= set(known), expression
    own = {"job", "instance"}.union(*(known[name] for name in names))
    for clause in re.findall(r"\b(?:by|without) *\(([^)]*)\)|\{([^}]*)\}", expression):
        labels = re.findall(r"([a-z]+)(?= *(?:=|!|,|$))", re.sub(r'"[^"]*"', "", clause[0] or clause[1]))
        assert set(labels) <= own, expression


class PrometheusTests:
    """The alert rules."""

    def test_check(self) -> None:
        """C{promtool} takes them."""
        assert "SUCCESS" in run(tool("promtool"), "check", "rules", DEPLOYMENT / "prometheus" / "alerts.yml")

    def test_rules(self) -> None:
        """They fire when they should, and not else."""
        said = run(tool("promtool"), "test", "rules", "alerts.test.yml", directory=DEPLOYMENT / "prometheus")
        assert "SUCCESS" in said

    def test_everyAlert(self) -> None:
        """Each alert is tested to fire and not to fire, asks for what udpecho exports, and says what to do."""
        (rules,) = documents((DEPLOYMENT / "prometheus" / "alerts.yml").read_text())
        (tests,) = documents((DEPLOYMENT / "prometheus" / "alerts.test.yml").read_text())
        alerts = [rule for group in rules["groups"] for rule in group["rules"]]
        tested = [(each["alertname"], bool(each["exp_alerts"])) for test in tests["tests"] for each in test["alert_rule_test"]]
        for alert in alerts:
            assert {(alert["alert"], True), (alert["alert"], False)} <= set(tested)
            assert set(alert["annotations"]) == {"summary", "description"}
            assert alert["labels"]["severity"] in ("critical", "warning")
            checkNames(alert["expr"])


#: The dashboards, with what each is to show.
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
        """Prometheus can parse every query, and each is of what udpecho exports."""
        dashboard = read(name)
        expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        expressions += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
        checkExpressions([expression.replace("$__rate_interval", "1m") for expression in expressions], tmp_path)

    @dashboards
    def test_everyMetric(self, name: str) -> None:
        """Every metric of its own is on it."""
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
        """No panel lies on another or beside the page, and each has its own number, a title and a description."""
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
        """What the prober's dashboard may ask for is what is exported."""
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


class PageTests:
    """The operator's page."""

    page = (DEPLOYMENT.parent / "deployment.rst").read_text()

    def test_reload(self) -> None:
        """It names every option that a reload applies."""
        _, _, text = self.page.partition("``SIGHUP``")
        text = text.partition("applied while serving")[0]
        assert set(re.findall(r"``([a-z-]+)``", text)) == {name for name, setting in FILE_OPTIONS.items() if setting.reloads}

    def test_metrics(self) -> None:
        """It explains every metric that an alert looks at."""
        names = set(re.findall(r"udpecho_[a-z_]+[a-z]", (DEPLOYMENT / "prometheus" / "alerts.yml").read_text()))
        assert not [name for name in names if name not in self.page]

    def test_problems(self) -> None:
        """The problems that it shows are told so."""
        block = textwrap.dedent(self.page.partition(".. code-block:: text\n\n")[2].partition("\n\n")[0])
        text = "\n\nmax-rat = 1\n\nrate = -1"
        with pytest.raises(config_file.ConfigurationError) as caught:
            config_file.parse(text, path="/etc/udpecho/udpecho.toml")
        assert "\n".join(caught.value.problems) == block
