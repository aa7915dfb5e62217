"""Tests of the layout: a package imports from lower layers and from itself only, and nothing grows too large to read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.source import ROOT, imports, inside, moduleName, outsideFunctions, sources

#: The layer of each package. The public names in C{udpecho} itself are from all layers, and nothing imports them.
LAYERS = {
    "_version": 1,
    "addresses": 1,
    "errors": 1,
    "processors": 1,
    "interfaces": 2,
    "options": 2,
    "parsing": 2,
    "pieces": 2,
    "printing": 2,
    "guard": 3,
    "net": 3,
    "client": 4,
    "faults": 4,
    "probe": 4,
    "server": 4,
    "cli": 5,
    "daemon": 5,
    "testing": 5,
}
#: Modules that import public names: they are above all layers.
FACE = {"udpecho", "udpecho.__main__"}

MAX_FILE_LINES = 450
MAX_CLASS_LINES = 350
MAX_FUNCTION_LINES = 60
MAX_CONSTRUCTOR_PARAMETERS = 8
MAX_TEST_FILE_LINES = 600
MAX_PACKAGE_LINES = 31_308


def packageOf(module: str) -> str:
    """The package of a module: C{net} for C{udpecho.net.port}."""
    return module.split(".")[1]


def filesOfTests() -> list[Path]:
    """All Python files of the tests."""
    return sorted((ROOT / "tests").rglob("*.py"))


def relativeName(path: Path) -> str:
    """A file below the root."""
    return path.relative_to(ROOT).as_posix()


def importedModules(path: Path, modules: set[str]) -> set[str]:
    """Which of our modules a file imports, in functions and for type checkers too."""
    module = moduleName(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for name in imports(ast.parse(path.read_text()), package):
        while inside(name, "udpecho") and name not in modules:
            name = name.rpartition(".")[0]
        if inside(name, "udpecho") and name != module:
            found.add(name)
    return found


def graph() -> dict[str, set[str]]:
    """Every module, with the modules of ours that it imports."""
    modules = {moduleName(path): path for path in sources()}
    return {module: importedModules(path, set(modules)) for module, path in modules.items()}


def violation(importer: str, imported: str) -> str | None:
    """What is wrong with an import, if anything is."""
    if imported in FACE:
        return f"{importer} imports the public names"
    package, other = packageOf(importer), packageOf(imported)
    if package == other or LAYERS[other] < LAYERS[package]:
        return None
    return f"{importer} (layer {LAYERS[package]}) imports {imported} (layer {LAYERS[other]})"


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, or none."""
    done: set[str] = set()

    def follow(module: str, way: list[str]) -> list[str]:
        if module in way:
            return way[way.index(module) :]
        if module not in done:
            for other in sorted(edges[module]):
                found = follow(other, [*way, module])
                if found:
                    return found
            done.add(module)
        return []

    return next((found for found in (follow(module, []) for module in sorted(edges)) if found), [])


class LayerTests:
    """The imports."""

    def test_everyPackageHasALayer(self) -> None:
        """The table has every module, and no other."""
        assert {packageOf(module) for module in graph() if module not in FACE} == set(LAYERS)

    def test_layers(self) -> None:
        """A module imports from lower layers and from its own package only."""
        found = [violation(module, other) for module, others in graph().items() if module not in FACE for other in others]
        assert not [text for text in found if text]

    def test_circles(self) -> None:
        """No module imports itself by way of others."""
        assert circle(graph()) == []

    @pytest.mark.parametrize("path", [*sources(), ROOT / "twisted/plugins/udpecho_plugin.py"], ids=moduleName)
    def test_reactorIsAParameter(self, path: Path) -> None:
        """No module imports the global reactor when it is itself imported."""
        for statement in outsideFunctions(ast.parse(path.read_text())):
            assert "twisted.internet.reactor" not in set(imports(statement, "")), f"line {statement.lineno}"

    def test_plugin(self) -> None:
        """The plugin imports Twisted's service maker and nothing else."""
        tree = ast.parse((ROOT / "twisted/plugins/udpecho_plugin.py").read_text())
        assert set(imports(tree, "")) == {"twisted.application.service.ServiceMaker"}

    def test_guardIsPure(self) -> None:
        """The guard decides; it opens no socket and knows no reactor."""
        paths = list((ROOT / "udpecho/guard").glob("*.py"))
        assert len(paths) > 5
        for path in paths:
            names = set(imports(ast.parse(path.read_text()), "udpecho.guard"))
            assert not {name for name in names if inside(name, "twisted.internet") or name == "socket.socket"}, path

    @pytest.mark.parametrize("path", sources(), ids=moduleName)
    def test_ctypes(self, path: Path) -> None:
        """Only C{net/linux/} calls the C library."""
        names = set(imports(ast.parse(path.read_text()), moduleName(path).rpartition(".")[0]))
        assert inside(moduleName(path), "udpecho.net.linux") or not {name for name in names if inside(name, "ctypes")}

    @pytest.mark.parametrize("path", filesOfTests(), ids=relativeName)
    def test_testsStandAlone(self, path: Path) -> None:
        """A test module imports from C{tests.support} what it shares with others, and nothing from them."""
        names = imports(ast.parse(path.read_text()), "tests")
        assert not [name for name in names if re.match(r"tests\.(.*\.)?test_", name)]

    def test_publicNames(self) -> None:
        """Only the package itself has C{__all__}: what is public elsewhere has no leading underscore."""
        having = [path for path in [*sources(), *filesOfTests()] if re.search(r"^__all__", path.read_text(), re.MULTILINE)]
        assert having == [ROOT / "udpecho/__init__.py"]

    def test_noDescriptor(self) -> None:
        """Which errors of the system mean that no descriptor is left is in one place."""
        naming = [path for path in sources() if re.search(r"errno\.(EMFILE|ENFILE)", path.read_text())]
        assert naming == [ROOT / "udpecho/errors.py"]


class SizeTests:
    """What one has to read at once."""

    @pytest.mark.parametrize("path", sources(), ids=moduleName)
    def test_sizes(self, path: Path) -> None:
        """Files, classes, functions and constructors are small."""
        text = path.read_text()
        assert text.count("\n") <= MAX_FILE_LINES
        assert not list(oversized(ast.parse(text)))

    @pytest.mark.parametrize("path", filesOfTests(), ids=relativeName)
    def test_testFiles(self, path: Path) -> None:
        """Test files are, too."""
        assert path.read_text().count("\n") <= MAX_TEST_FILE_LINES

    def test_package(self) -> None:
        """So is the whole."""
        assert sum(path.read_text().count("\n") for path in sources()) <= MAX_PACKAGE_LINES


def oversized(tree: ast.AST) -> Iterator[str]:
    """Name what is too large."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > (MAX_CLASS_LINES if isinstance(node, ast.ClassDef) else MAX_FUNCTION_LINES):
                yield f"{node.name} has {lines} lines"
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs][1:]
            if len(parameters) > MAX_CONSTRUCTOR_PARAMETERS:
                yield f"line {node.lineno}: a constructor has {len(parameters)} parameters"


class RuleTests:
    """That the rules above see what they should."""

    @pytest.mark.parametrize(
        ("code", "names"),
        [
            ("import udpecho.cli", {"udpecho.cli"}),
            ("from udpecho import cli, daemon", {"udpecho.cli", "udpecho.daemon"}),
            ("from udpecho.errors import EchoError", {"udpecho.errors.EchoError"}),
            ("def f():\n    from udpecho.cli.main import main", {"udpecho.cli.main.main"}),
            ("if TYPE_CHECKING:\n    import udpecho.cli", {"udpecho.cli"}),
            ("from . import port", {"udpecho.net.port"}),
            ("from .. import cli", {"udpecho.cli"}),
            ("from ..errors import EchoError", {"udpecho.errors.EchoError"}),
        ],
    )
    def test_imports(self, code: str, names: set[str]) -> None:
        """Imports of every form are seen."""
        assert set(imports(ast.parse(code), "udpecho.net")) == names

    def test_violations(self) -> None:
        """An import from above, from the same layer or of the public names is wrong, any other is right."""
        assert violation("udpecho.net.port", "udpecho.server.service") == (
            "udpecho.net.port (layer 3) imports udpecho.server.service (layer 4)"
        )
        assert violation("udpecho.client.connect", "udpecho.server.service")
        assert violation("udpecho.client.connect", "udpecho")
        assert violation("udpecho.net.port", "udpecho.net.batch") is None
        assert violation("udpecho.net.port", "udpecho.errors") is None

    def test_circle(self) -> None:
        """A circle is found wherever it is."""
        assert circle({"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": {"b"}}) == ["b", "c", "d"]
        assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []

    def test_outsideFunctions(self) -> None:
        """The check of the reactor sees what is in an C{if}, a C{try} and a class, and not what is in a function."""
        code = "if True:\n import a\ntry:\n import b\nexcept E:\n import c\nclass C:\n import d\n def f(self):\n  import e"
        found = [name for statement in outsideFunctions(ast.parse(code)) for name in imports(statement, "")]
        assert found == ["a", "b", "c", "d"]

    def test_oversized(self) -> None:
        """What is one too large is named."""
        body = "\n".join(["    x = 1"] * MAX_FUNCTION_LINES)
        assert list(oversized(ast.parse(f"def f():\n{body}"))) == [f"f has {MAX_FUNCTION_LINES + 1} lines"]
        parameters = ", ".join(f"p{number}" for number in range(MAX_CONSTRUCTOR_PARAMETERS + 1))
        assert list(oversized(ast.parse(f"class C:\n def __init__(self, {parameters}): pass")))
