"""Tests of the public names, and of what an import loads."""

from __future__ import annotations

import ast

import pytest

import udpecho
from tests.support.source import ROOT, fresh, inside, loadedBy, moduleName, sources


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
        """
        Importing the plugin for pytest, which every run of pytest does, loads nothing of Twisted, and of C{udpecho} nothing
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


PUBLIC = [
    "ClientClosed",
    "Counters",
    "DatagramAddress",
    "DatagramPort",
    "EchoClient",
    "EchoError",
    "EchoServer",
    "EchoService",
    "FaultPlan",
    "FaultProxy",
    "Guard",
    "GuardPolicy",
    "HostUnreachable",
    "MemoryNetwork",
    "MessageTooLong",
    "NetworkUnreachable",
    "Plan",
    "PortUnreachable",
    "ProbeService",
    "Prober",
    "Reply",
    "ResponseTimeout",
    "RunningServer",
    "Statistics",
    "Target",
    "__version__",
    "connect",
    "echo",
    "listen",
    "parseNetwork",
]


class ExportTests:
    """The public names."""

    def test_names(self) -> None:
        """They are these, and no name comes or goes by accident."""
        assert udpecho.__all__ == PUBLIC

    @pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
    def test_documented(self, name: str) -> None:
        """Each loads, is what it is called, and says what it is."""
        value = getattr(udpecho, name)
        assert value.__name__ == name
        assert value.__doc__
        assert value.__doc__.strip()
        assert inside(value.__module__, "udpecho")

    def test_dir(self) -> None:
        """C{dir()} lists them before they are loaded."""
        assert set(PUBLIC) <= fresh("import udpecho", "dir(udpecho)")

    def test_star(self) -> None:
        """C{from udpecho import *} gives them all."""
        names: dict[str, object] = {}
        exec("from udpecho import *", names)
        assert set(PUBLIC) <= set(names)

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

    def test_typed(self) -> None:
        """The package says that it is annotated (PEP 561)."""
        assert (ROOT / "udpecho" / "py.typed").exists()
