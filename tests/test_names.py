"""Tests of the public names, and of what an import loads."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable

import pytest

import udpecho
from tests.support.source import ROOT, fresh, inside, loadedBy, moduleName, run, sources


class ImportTests:
    """What importing loads."""

    def test_package(self) -> None:
        """Importing C{udpecho} loads nothing of Twisted or zope, and of itself the version only."""
        loaded = loadedBy("import udpecho")
        assert {name for name in loaded if inside(name, "udpecho")} == {"udpecho", "udpecho._version"}
        # A distribution with a .pth file may load its own zope namespace in every Python.
        before = loadedBy("pass")
        assert not {name for name in loaded - before if inside(name, "twisted") or inside(name, "zope")}

    def test_plugin(self) -> None:
        """Importing the plugin, which every run of C{twistd} may do, loads neither C{udpecho} nor a reactor."""
        loaded = loadedBy("import twisted.plugins.udpecho_plugin")
        assert "twisted.plugins.udpecho_plugin" in loaded
        assert not {name for name in loaded if inside(name, "udpecho")}
        assert "twisted.internet.reactor" not in loaded

    def test_pluginsAnswers(self) -> None:
        """What the plugin names is there: C{twistd} finds the options and the service maker."""
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
        """Importing the plugin for pytest, which every run of pytest does, loads nothing of Twisted, and of C{udpecho} nothing
        else.
        """
        loaded = loadedBy("import udpecho.testing.pytest_plugin")
        assert {name for name in loaded if inside(name, "udpecho")} == {
            "udpecho",
            "udpecho._version",
            "udpecho.testing",
            "udpecho.testing.pytest_plugin",
        }
        # A distribution with a .pth file may load its own zope namespace in every Python.
        before = loadedBy("pass")
        assert not {name for name in loaded - before if inside(name, "twisted") or inside(name, "zope")}

    def test_everything(self) -> None:
        """Importing every module loads no reactor: the user's choice, made later, holds."""
        modules = ", ".join(moduleName(path) for path in sources())
        loaded = loadedBy(f"import {modules}")
        assert "udpecho.cli.main" in loaded
        assert "twisted.internet.reactor" not in loaded


API = (ROOT / "docs" / "api.rst").read_text()
#: What the page has of each public name: with its signature, if people call it.
TERMS = dict(re.findall(r"^``(\w+)(.*)``$", API, re.MULTILINE))


def signature(value: Callable[..., object]) -> str:
    """The signature of a public name as the page has it: without annotations, and with C{...} for a long default."""
    found = inspect.signature(value)
    parameters = []
    for parameter in found.parameters.values():
        isLong = parameter.default is not parameter.empty and len(repr(parameter.default)) > 20
        parameters.append(parameter.replace(annotation=parameter.empty, default=... if isLong else parameter.default))
    return str(found.replace(parameters=parameters, return_annotation=found.empty)).replace("Ellipsis", "...")


class ExportTests:
    """The public names."""

    def test_page(self) -> None:
        """The page of the public API has each name once, and no other."""
        assert sorted(re.findall(r"^``(\w+).*``$", API, re.MULTILINE)) == sorted(udpecho.__all__)

    @pytest.mark.parametrize("name", [name for name, shown in TERMS.items() if shown])
    def test_signature(self, name: str) -> None:
        """The page has the signature of what people call."""
        assert TERMS[name] == signature(getattr(udpecho, name))

    @pytest.mark.parametrize("name", sorted(set(TERMS) - {"DROP_REASONS", "__version__"}))
    def test_documented(self, name: str) -> None:
        """Each loads, has its name and a docstring, and every function its signature on the page."""
        value = getattr(udpecho, name)
        assert value.__name__ == name
        assert value.__doc__
        assert value.__doc__.strip()
        assert inside(value.__module__, "udpecho")
        assert TERMS[name] or not inspect.isfunction(value)

    def test_dir(self) -> None:
        """C{dir()} lists them before they are loaded."""
        assert set(udpecho.__all__) <= fresh("import udpecho", "dir(udpecho)")

    def test_star(self) -> None:
        """C{from udpecho import *} gives them all."""
        names: dict[str, object] = {}
        exec("from udpecho import *", names)
        assert set(udpecho.__all__) <= set(names)

    def test_unknown(self) -> None:
        """A name that is not there is missed as in any module."""
        with pytest.raises(AttributeError, match="module 'udpecho' has no attribute 'nonsense'"):
            udpecho.nonsense  # type: ignore[attr-defined]  # noqa: B018
        with pytest.raises(ImportError):
            exec("from udpecho import nonsense")

    def test_typeChecker(self) -> None:
        """What a type checker is told of the public names is where they are loaded from."""
        (block,) = (part for part in ast.parse((ROOT / "udpecho" / "__init__.py").read_text()).body if isinstance(part, ast.If))
        declared = {
            alias.name: (statement.module or "").removeprefix("udpecho.")
            for statement in block.body
            if isinstance(statement, ast.ImportFrom)
            for alias in statement.names
        }
        assert declared == vars(udpecho)["_homes"]

    def test_command(self) -> None:
        """C{python -m udpecho} is the C{udpecho} command."""
        assert run([sys.executable, "-m", "udpecho", "--version"], ROOT) == f"udpecho {udpecho.__version__}\n"

    def test_typed(self) -> None:
        """The package says that it is annotated (PEP 561)."""
        assert (ROOT / "udpecho" / "py.typed").exists()
