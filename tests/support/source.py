"""The source tree, as tests look at it: its modules, their imports, and commands run in it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Seconds in which an installer must be done, on a slow network too.
LONG = 300


def run(arguments: Sequence[str | Path], directory: Path) -> str:
    """Run a command that must succeed, as if from a shell: this test's own Python environment is not its own.

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
    """Run a statement in a fresh Python.

    @param names: an expression for the names to look at then.
    @return: those names.
    """
    code = f"import sys, json; sys.path.insert(0, {str(ROOT)!r}); {statement}; print(json.dumps(list({names})))"
    return set(json.loads(run([sys.executable, "-c", code], ROOT)))


def loadedBy(statement: str) -> set[str]:
    """The modules that a fresh Python has loaded after a statement."""
    return fresh(statement, "sys.modules")


def inside(name: str, package: str) -> bool:
    """Whether a module is a package, or in it."""
    return name == package or name.startswith(f"{package}.")


def sources() -> list[Path]:
    """All modules of the package."""
    return sorted((ROOT / "udpecho").rglob("*.py"))


def moduleName(path: Path) -> str:
    """The name by which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """The full names of everything that a piece of code imports, wherever in it: C{a.b} for C{from a import b}.

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
    """The statements that run when a module is imported."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        yield from outsideFunctions(child)
