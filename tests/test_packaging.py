"""
Tests of the package: what is built, what an import loads, which room stands on which, and that it installs in every way.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

import udpecho
from tests.processes import Processes, Server
from tests.support import udpSocket

ROOT = Path(__file__).parents[1]
#: Files at the top of the source distribution.
TOP = {"LICENSE", "MANIFEST.in", "NEWS.rst", "README.md", "pyproject.toml", "setup.cfg"}
#: Directories that are whole in it.
WHOLE = ("docs", "tests", "twisted", "udpecho")
#: Seconds in which an installer must be done, on a slow network too.
LONG = 300

_generated = ("__pycache__", "_build", "_trial_temp*", "build", "dist", "*.egg-info", "dropin.cache", "twistd.*")


def copyTree(destination: Path) -> Path:
    """
    Copy what a release is made from, without what tools leave behind.
    """
    return Path(shutil.copytree(ROOT, destination, ignore=shutil.ignore_patterns(".*", *_generated)))


def run(arguments: Sequence[str | Path], directory: Path) -> str:
    """
    Run a command that must succeed, as if from a shell: this test's own Python environment is not its own.

    @return: what it wrote, standard error too.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON") and name != "VIRTUAL_ENV"}
    done = subprocess.run(
        arguments,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, f"{done.args} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def fresh(statement: str, names: str) -> set[str]:
    """
    Run a statement in a fresh Python.

    @param names: an expression for the names to look at then.

    @return: those names.
    """
    code = f"import sys, json; sys.path.insert(0, {str(ROOT)!r}); {statement}; print(json.dumps(list({names})))"
    return set(json.loads(run([sys.executable, "-c", code], ROOT)))


def loadedBy(statement: str) -> set[str]:
    """
    The modules that a fresh Python has loaded after a statement.
    """
    return fresh(statement, "sys.modules")


def inside(name: str, package: str) -> bool:
    """
    Whether a module is a package, or in it.
    """
    return name == package or name.startswith(f"{package}.")


# What is built


class Built:
    """
    The two distributions, read.

    @ivar wheel: the wheel's path.
    @ivar sdist: the source distribution's path.
    @ivar log: what building them wrote.
    @ivar wheelFiles: the contents of the wheel by name.
    @ivar sdistFiles: those of the source distribution, by their names below its one directory.
    """

    def __init__(self, directory: Path, log: str) -> None:
        (self.wheel,) = directory.glob("*.whl")
        (self.sdist,) = directory.glob("*.tar.gz")
        self.log = log
        with zipfile.ZipFile(self.wheel) as archive:
            self.wheelFiles = {name: archive.read(name).decode() for name in archive.namelist()}
        self.sdistFiles: dict[str, str] = {}
        with tarfile.open(self.sdist) as tarball:
            for member in tarball.getmembers():
                content = tarball.extractfile(member)
                if content is not None:
                    top, _, name = member.name.partition("/")
                    assert top == f"udpecho-{udpecho.__version__}"
                    self.sdistFiles[name] = content.read().decode()

    @property
    def metadata(self) -> Message:
        """
        The wheel's metadata.
        """
        return message_from_string(self.wheelFiles[f"udpecho-{udpecho.__version__}.dist-info/METADATA"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """
    The source distribution, and the wheel built from it.
    """
    pytest.importorskip("build", reason="build is not installed here")
    directory = tmp_path_factory.mktemp("build")
    try:
        suffices = int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        suffices = False
    tree = copyTree(directory / "tree")
    how = ["--no-isolation"] if suffices else []
    log = run([sys.executable, "-m", "build", *how, "--outdir", directory / "dist", tree], directory)
    return Built(directory / "dist", log)


class BuildTests:
    """
    The wheel and the source distribution.
    """

    def test_wheel(self, built: Built) -> None:
        """
        In the wheel are all modules of C{udpecho}, C{py.typed}, the plugin, and nothing else: no tests, and no
        C{__init__.py} that would be installed over Twisted's own.
        """
        code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "udpecho").rglob("*.py")}
        about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}
        assert set(built.wheelFiles) == {
            *code,
            "udpecho/probe/report.schema.json",
            "udpecho/py.typed",
            "twisted/plugins/udpecho_plugin.py",
            *(f"udpecho-{udpecho.__version__}.dist-info/{name}" for name in about),
        }

    def test_anyPython(self, built: Built) -> None:
        """
        One wheel is for every system and every Python 3.
        """
        assert built.wheel.name == f"udpecho-{udpecho.__version__}-py3-none-any.whl"

    def test_sdist(self, built: Built, tmp_path: Path) -> None:
        """
        In the source distribution are the code, its tests and documentation, what the build needs, and nothing else.
        """
        tree = copyTree(tmp_path / "tree")
        wanted = {path.relative_to(tree).as_posix() for top in WHOLE for path in (tree / top).rglob("*") if path.is_file()}
        found = {name for name in built.sdistFiles if not name.startswith("udpecho.egg-info/")}
        assert found == {*TOP, *wanted, "PKG-INFO"}

    def test_namespace(self, built: Built) -> None:
        """
        C{twisted} and C{twisted.plugins} have no C{__init__.py} of ours, here and as built: uninstalling it would delete
        Twisted's own.
        """
        ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "twisted").rglob("*.py")}
        for names in (ours, built.wheelFiles, built.sdistFiles):
            assert {name for name in names if name.startswith("twisted/")} == {"twisted/plugins/udpecho_plugin.py"}

    def test_metadata(self, built: Built) -> None:
        """
        Name, version, Python, what is required and the long description are those of the tree, in both distributions.
        """
        for metadata in (built.metadata, message_from_string(built.sdistFiles["PKG-INFO"])):
            assert metadata["Name"] == "udpecho"
            assert metadata["Version"] == udpecho.__version__
            assert metadata["Requires-Python"] == ">=3.10"
            assert metadata["License-File"] == "LICENSE"
            assert metadata["Description-Content-Type"] == "text/markdown"
            assert metadata.get_payload() == (ROOT / "README.md").read_text()
            required = [str(line) for line in metadata.get_all("Requires-Dist", [])]
            always = {re.split(r"[^\w.-]", line)[0] for line in required if "extra ==" not in line}
            assert always == {"twisted", "zope.interface"}
            extras = set(metadata.get_all("Provides-Extra", []))
            assert "test" in extras
            assert extras == {match for line in required for match in re.findall(r'extra == "([^"]+)"', line)}

    def test_testExtra(self, built: Built) -> None:
        """
        The extra C{test} names what the tests import beyond the package itself.
        """
        lines = [str(line) for line in built.metadata.get_all("Requires-Dist", []) if 'extra == "test"' in str(line)]
        required = {re.split(r"[^\w.-]", line)[0] for line in lines}
        assert required >= {"build", "hypothesis", "jsonschema", "matplotlib", "prometheus-client", "pytest", "pytest-twisted"}
        assert required >= {"rich", "setuptools"}

    def test_entryPoints(self, built: Built) -> None:
        """
        There is one command, C{udpecho}, which is one that can be called, and one plugin for pytest.
        """
        parser = ConfigParser()
        parser.read_string(built.wheelFiles[f"udpecho-{udpecho.__version__}.dist-info/entry_points.txt"])
        assert {section: dict(parser[section]) for section in parser.sections()} == {
            "console_scripts": {"udpecho": "udpecho.cli:main"},
            "pytest11": {"udpecho": "udpecho.pytest_plugin"},
        }
        from udpecho.cli import main

        assert callable(main)

    def test_versionInOnePlace(self) -> None:
        """
        The version is written in C{udpecho/_version.py} alone.
        """
        for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "udpecho/__init__.py"):
            assert f'"{udpecho.__version__}"' not in (ROOT / name).read_text(), name
            assert not re.search(rf"version\s*=\s*{re.escape(udpecho.__version__)}", (ROOT / name).read_text()), name

    def test_noWarnings(self, built: Built) -> None:
        """
        Building uses nothing that setuptools is about to drop.
        """
        assert "DeprecationWarning" not in built.log


# What is imported


class ImportTests:
    """
    What importing loads.
    """

    def test_package(self) -> None:
        """
        Importing C{udpecho} loads nothing of Twisted or zope, and of itself the version only.
        """
        loaded = loadedBy("import udpecho")
        assert {name for name in loaded if inside(name, "udpecho")} == {"udpecho", "udpecho._version"}
        # A distribution with a .pth file may load its own zope namespace in every Python.
        before = loadedBy("pass")
        assert not {name for name in loaded - before if inside(name, "twisted") or inside(name, "zope")}

    def test_plugin(self) -> None:
        """
        Importing the plugin, which every run of C{twistd} may do, loads neither C{udpecho} nor a reactor.
        """
        loaded = loadedBy("import twisted.plugins.udpecho_plugin")
        assert "twisted.plugins.udpecho_plugin" in loaded
        assert not {name for name in loaded if inside(name, "udpecho")}
        assert "twisted.internet.reactor" not in loaded

    def test_pluginsAnswers(self) -> None:
        """
        What the plugin names is there: C{twistd} finds the options and the service maker.
        """
        from twisted.plugins import udpecho_plugin

        for maker, name in (
            (udpecho_plugin.udpecho, "udpecho"),
            (udpecho_plugin.udpechoClient, "udpecho-client"),
            (udpecho_plugin.udpechoProbe, "udpecho-probe"),
        ):
            assert maker.tapname == name
            assert maker.options().getSynopsis()
            assert callable(maker.makeService)

    def test_pytestPlugin(self) -> None:
        """
        Importing the plugin for pytest, which every run of pytest does, loads nothing of Twisted, and of C{udpecho} nothing
        else.
        """
        loaded = loadedBy("import udpecho.pytest_plugin")
        assert {name for name in loaded if inside(name, "udpecho")} == {"udpecho", "udpecho._version", "udpecho.pytest_plugin"}
        # A distribution with a .pth file may load its own zope namespace in every Python.
        before = loadedBy("pass")
        assert not {name for name in loaded - before if inside(name, "twisted") or inside(name, "zope")}

    def test_everything(self) -> None:
        """
        Importing every module loads no reactor: the user's choice, made later, holds.
        """
        modules = ", ".join(moduleName(path) for path in sources())
        loaded = loadedBy(f"import {modules}")
        assert "udpecho.cli" in loaded
        assert "twisted.internet.reactor" not in loaded


PUBLIC = [
    "ClientClosed",
    "Counters",
    "DatagramAddress",
    "DatagramPort",
    "EchoClient",
    "EchoError",
    "EchoServer",
    "EchoService",
    "HostUnreachable",
    "MessageTooLong",
    "NetworkUnreachable",
    "PortUnreachable",
    "Prober",
    "Reply",
    "ResponseTimeout",
    "Statistics",
    "__version__",
    "connect",
    "echo",
    "listen",
]


class ExportTests:
    """
    The public names.
    """

    def test_names(self) -> None:
        """
        They are these, and no name comes or goes by accident.
        """
        assert udpecho.__all__ == PUBLIC

    @pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
    def test_documented(self, name: str) -> None:
        """
        Each loads, is what it is called, and says what it is.
        """
        value = getattr(udpecho, name)
        assert value.__name__ == name
        assert value.__doc__
        assert value.__doc__.strip()
        assert inside(value.__module__, "udpecho")

    def test_dir(self) -> None:
        """
        C{dir()} lists them before they are loaded.
        """
        assert set(PUBLIC) <= fresh("import udpecho", "dir(udpecho)")

    def test_star(self) -> None:
        """
        C{from udpecho import *} gives them all.
        """
        names: dict[str, object] = {}
        exec("from udpecho import *", names)
        assert set(PUBLIC) <= set(names)

    def test_unknown(self) -> None:
        """
        A name that is not there is missed as in any module.
        """
        with pytest.raises(AttributeError, match="module 'udpecho' has no attribute 'nonsense'"):
            udpecho.nonsense  # noqa: B018
        with pytest.raises(ImportError):
            exec("from udpecho import nonsense")

    def test_typeChecker(self) -> None:
        """
        What a type checker is told of the public names is where they are loaded from.
        """
        tree = ast.parse((ROOT / "udpecho" / "__init__.py").read_text())
        told = {
            alias.name: (statement.module or "").removeprefix("udpecho.")
            for block in tree.body
            if isinstance(block, ast.If)
            for statement in block.body
            if isinstance(statement, ast.ImportFrom)
            for alias in statement.names
        }
        assert told == udpecho._homes

    def test_typed(self) -> None:
        """
        The package says that it is annotated (PEP 561).
        """
        assert (ROOT / "udpecho" / "py.typed").exists()


# The house

#: Which floor each room is on. C{udpecho} itself, the public names, loads them all when they are used.
FLOORS = {
    "_version": 0,
    "addresses": 0,
    "arguments": 0,
    "busiest": 0,
    "counters": 0,
    "errors": 0,
    "interfaces": 0,
    "limiter": 0,
    "networks": 0,
    "droplog": 1,
    "configuration": 1,
    "console": 1,
    "guard": 1,
    "inputs": 1,
    "journal": 1,
    "messages": 1,
    "metrics": 1,
    "resolution": 1,
    "sockets": 1,
    "systemd": 1,
    "client": 2,
    "health": 2,
    "probe": 2,
    "server": 2,
    "testing": 2,
    "workers": 2,
    "web": 2,
    "daemon": 3,
    "ping_pictures": 3,
    "probe_service": 3,
    "service": 3,
    "transfer": 3,
    "cli": 4,
    "ping_cli": 4,
    "client_tap": 4,
    "probe_tap": 4,
    "tap": 4,
    "worker": 4,
    "pytest_plugin": 5,
}
#: Who may import from a room on the same floor.
BESIDE = {
    ("daemon", "service"),
    ("interfaces", "errors"),
    ("interfaces", "addresses"),
    ("arguments", "addresses"),
    ("messages", "journal"),
    ("testing", "server"),
    ("health", "client"),
    ("cli", "ping_cli"),
}
#: The shelves of the test kit, from below: a module there imports from those below it only.
SHELVES = {
    "clock": 0,
    "faults": 0,
    "leaks": 0,
    "memoryport": 1,
    "network": 2,
    "proxy": 1,
    "trial": 3,
}


def sources() -> list[Path]:
    """
    All modules of the package.
    """
    return sorted((ROOT / "udpecho").rglob("*.py"))


def rooms() -> list[Path]:
    """
    Those that are on a floor: all but the public names, which come from every one.
    """
    return [path for path in sources() if path != ROOT / "udpecho" / "__init__.py"]


def moduleName(path: Path) -> str:
    """
    The name by which a file is imported.
    """
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def roomOf(module: str) -> str:
    """
    The room that a module is in: C{sockets} for C{udpecho.sockets.port}.
    """
    return module.split(".")[1]


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """
    The full names of everything that a piece of code imports, wherever in it: C{a.b} for C{from a import b}.

    @param package: the package that relative imports are relative to.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def outsideFunctions(tree: ast.AST) -> Iterator[ast.stmt]:
    """
    The statements that run when a module is imported.
    """
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        yield from outsideFunctions(child)


def complaint(importer: str, imported: str) -> str | None:
    """
    What is wrong with one room importing from another, if anything is.
    """
    if importer == imported or (importer, imported) in BESIDE:
        return None
    if imported not in FLOORS:
        return f"{importer} imports {imported}, which has no floor"
    if FLOORS[imported] < FLOORS[importer]:
        return None
    return f"{importer} (floor {FLOORS[importer]}) imports {imported} (floor {FLOORS[imported]})"


class HouseTests:
    """
    A room imports from the floors below it only.
    """

    def test_everyRoomHasAFloor(self) -> None:
        """
        The table has every module, and no other.
        """
        assert {roomOf(moduleName(path)) for path in rooms()} == set(FLOORS)

    @pytest.mark.parametrize("path", rooms(), ids=moduleName)
    def test_floors(self, path: Path) -> None:
        """
        No module imports from above, or from beside it unless the table says so; nor the public names, whose home is below.
        """
        module = moduleName(path)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        names = [name for name in imports(ast.parse(path.read_text()), package) if inside(name, "udpecho")]
        assert "udpecho" not in names, f"{module} imports the whole package"
        complaints = {complaint(roomOf(module), roomOf(name)) for name in names} - {None}
        assert not complaints

    def test_shelves(self) -> None:
        """
        In the test kit, a module imports from the shelves below it only; what is pure knows of no reactor and no socket.
        """
        modules = {path.stem: path for path in (ROOT / "udpecho" / "testing").glob("*.py") if path.stem != "__init__"}
        assert set(modules) == set(SHELVES)
        for name, path in modules.items():
            tree = ast.parse(path.read_text())
            # What is for type checkers only is not imported.
            tree.body = [
                node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
            ]
            imported = set(imports(tree, "udpecho.testing"))
            own = {module.split(".")[2] for module in imported if inside(module, "udpecho.testing")}
            assert not {other for other in own if SHELVES[other] >= SHELVES[name]}, name
        pure = set(imports(ast.parse(modules["faults"].read_text()), "udpecho.testing"))
        assert not {module for module in pure if inside(module, "twisted") or inside(module, "socket")}

    @pytest.mark.parametrize("path", [*sources(), ROOT / "twisted/plugins/udpecho_plugin.py"], ids=moduleName)
    def test_reactorIsAParameter(self, path: Path) -> None:
        """
        No module imports the global reactor when it is itself imported.
        """
        for statement in outsideFunctions(ast.parse(path.read_text())):
            assert "twisted.internet.reactor" not in set(imports(statement, "")), f"line {statement.lineno}"

    def test_plugin(self) -> None:
        """
        The plugin imports Twisted's service maker and nothing else.
        """
        tree = ast.parse((ROOT / "twisted/plugins/udpecho_plugin.py").read_text())
        assert set(imports(tree, "")) == {"twisted.application.service.ServiceMaker"}

    @pytest.mark.parametrize(
        ("code", "names"),
        [
            ("import udpecho.cli", {"udpecho.cli"}),
            ("from udpecho import cli, tap", {"udpecho.cli", "udpecho.tap"}),
            ("from udpecho.client import echo", {"udpecho.client.echo"}),
            ("def f():\n    from udpecho.tap import Options", {"udpecho.tap.Options"}),
            ("from . import linux", {"udpecho.sockets.linux"}),
            ("from .. import cli", {"udpecho.cli"}),
            ("from ..client import echo", {"udpecho.client.echo"}),
        ],
    )
    def test_imports(self, code: str, names: set[str]) -> None:
        """
        The check sees imports of every form.
        """
        assert set(imports(ast.parse(code), "udpecho.sockets")) == names

    def test_complaints(self) -> None:
        """
        The check complains of an import from above and from beside, and of no other.
        """
        assert complaint("client", "service") == "client (floor 2) imports service (floor 3)"
        assert complaint("client", "server") == "client (floor 2) imports server (floor 2)"
        assert complaint("client", "nonsense") == "client imports nonsense, which has no floor"
        for importer, imported in (("service", "client"), ("sockets", "sockets"), ("interfaces", "errors")):
            assert complaint(importer, imported) is None

    def test_outsideFunctions(self) -> None:
        """
        The check of the reactor sees what is in an C{if}, a C{try} and a class, and not what is in a function.
        """
        code = "if True:\n import a\ntry:\n import b\nexcept E:\n import c\nclass C:\n import d\n def f(self):\n  import e"
        found = [name for statement in outsideFunctions(ast.parse(code)) for name in imports(statement, "")]
        assert found == ["a", "b", "c", "d"]


# Installed


class Environment:
    """
    A fresh virtual environment, with Twisted and setuptools in it.

    @ivar directory: an empty directory to work in.
    @ivar plugins: the commands that C{twistd} lists there, without ours.
    """

    def __init__(self, root: Path) -> None:
        self._root = root / "environment"
        self.directory = root / "elsewhere"
        self.directory.mkdir()
        run([sys.executable, "-m", "venv", self._root], self.directory)
        twisted = f"twisted=={importlib.metadata.version('twisted')}"
        self.pip("install", twisted, "zope.interface", "setuptools>=77")
        self.plugins = self.listed(self.directory)
        self._files = self._installed()

    def script(self, name: str) -> Path:
        """
        A command of the environment.
        """
        return self._root / "bin" / name

    def pip(self, *arguments: str | Path) -> str:
        """
        Run pip in it.
        """
        return run([self.script("python"), "-m", "pip", "--disable-pip-version-check", *arguments], self.directory)

    def listed(self, directory: Path) -> list[str]:
        """
        The commands that C{twistd --help} lists when it is run in a directory.
        """
        _, _, commands = run([self.script("twistd"), "--help"], directory).partition("\nCommands:\n")
        return sorted(re.findall(r"^    (\S+) ", commands, re.MULTILINE))

    def changes(self) -> set[str]:
        """
        Which files have come or gone since it was made.
        """
        return self._files ^ self._installed()

    def _installed(self) -> set[str]:
        return {
            path.relative_to(self._root).as_posix()
            for path in self._root.rglob("*")
            if path.is_file() and path.suffix != ".pyc" and path.name != "dropin.cache"
        }


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """
    One environment for all ways to install: each is uninstalled again, without a trace.
    """
    return Environment(tmp_path_factory.mktemp("install"))


#: How to install: pip's arguments, for the path of a distribution or of the tree.
WAYS = {
    "wheel": (),
    "sdist": (),
    "directory": (),
    "editable": ("--editable",),
    "editable-compat": ("--config-settings", "editable_mode=compat", "--editable"),
    "editable-strict": ("--config-settings", "editable_mode=strict", "--editable"),
}


@pytest.mark.slow
class InstallTests:
    """
    Installed in a virtual environment in each of the ways that people install.
    """

    @pytest.mark.parametrize("way", WAYS)
    def test_install(self, way: str, environment: Environment, built: Built, tmp_path: Path) -> None:
        """
        C{twistd --help} lists each of the three plugins once, from the directory of the sources too; the server runs and
        echoes, the command sends; uninstalling leaves Twisted as it was, to the last file.
        """
        tree = copyTree(tmp_path / "tree")
        source = {"wheel": built.wheel, "sdist": built.sdist}.get(way, tree)
        # Nothing may be fetched: the requirements are there already, and they are all that it takes.
        environment.pip("install", "--no-index", "--no-build-isolation", *WAYS[way], source)
        try:
            for directory in (environment.directory, tree):
                assert environment.listed(directory) == sorted(
                    [*environment.plugins, "udpecho", "udpecho-client", "udpecho-probe"]
                )
            self._echoes(environment)
        finally:
            environment.pip("uninstall", "--yes", "udpecho")
        assert environment.listed(environment.directory) == environment.plugins
        assert not environment.changes()

    def _echoes(self, environment: Environment) -> None:
        # The processes' own default is to find the udpecho that is tested elsewhere.
        nothingElse = {"PYTHONPATH": ""}
        with Processes(environment.directory) as processes, udpSocket() as sock:
            server = Server(
                processes.start(
                    str(environment.script("twistd")),
                    *("-n", "udpecho", "--port", "0", "--interface", "127.0.0.1"),
                    environment=nothingElse,
                )
            )
            ((host, port),) = server.addresses
            sock.sendto(b"\0hello\0", (host, port))
            assert sock.recvfrom(100) == (b"\0hello\0", (host, port))
            sent = processes.run(
                str(environment.script("udpecho")), "send", f"{host}:{port}", feed=b"hello", environment=nothingElse
            )
            assert sent.stdout == f"packet-written: bytes=5\npacket-received: bytes=5 from={host}:{port}\n"
            assert sent.status == 0
            assert server.stop()["echoed"] == 2

    def test_withoutIt(self, environment: Environment) -> None:
        """
        The environment of these tests has no C{udpecho} of its own that they could find by mistake.
        """
        assert "udpecho" not in environment.plugins
        assert "web" in environment.plugins
        code = "import importlib.util as u; print(u.find_spec('udpecho'))"
        assert run([environment.script("python"), "-c", code], environment.directory) == "None\n"


__all__ = ["LONG", "ROOT", "run"]
