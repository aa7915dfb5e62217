"""Tests of the distributions: what is in them, and that they install in every way."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

import udpecho
from tests.support.processes import Processes, Server
from tests.support.running import udpSocket
from tests.support.source import ROOT, run

#: What C{pyproject.toml} builds with.
BACKEND = ".ci/build_backend.py"
#: Files at the top of the source distribution.
TOP = {BACKEND, "LICENSE", "MANIFEST.in", "NEWS.rst", "README.md", "pyproject.toml", "setup.cfg"}
#: Directories that are whole in it.
WHOLE = ("docs", "tests", "twisted", "udpecho")
#: A time for builds: 2023-11-14 22:13:20 UTC.
EPOCH = 1_700_000_000
_generated = ("__pycache__", "_build", "_trial_temp*", "build", "dist", "*.egg-info", "dropin.cache", "twistd.*")


def copyTree(destination: Path) -> Path:
    """Copy what a release is made from, without what tools leave behind."""
    shutil.copytree(ROOT, destination, ignore=shutil.ignore_patterns(".*", *_generated))
    (destination / BACKEND).parent.mkdir()
    shutil.copy(ROOT / BACKEND, destination / BACKEND)
    return destination


# What is built


class Built:
    """The two distributions, read.

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
        """The wheel's metadata."""
        return message_from_string(self.wheelFiles[f"udpecho-{udpecho.__version__}.dist-info/METADATA"])


def build(tree: Path, destination: Path, *options: str) -> str:
    """Build distributions of a tree.

    @return: what that wrote.
    """
    pytest.importorskip("build", reason="build is not installed here")
    try:
        suffices = int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        suffices = False
    how = ["--no-isolation"] if suffices else []
    return run([sys.executable, "-m", "build", *how, *options, "--outdir", destination, tree], tree)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The source distribution, and the wheel built from it."""
    directory = tmp_path_factory.mktemp("build")
    log = build(copyTree(directory / "tree"), directory / "dist")
    return Built(directory / "dist", log)


class BuildTests:
    """The wheel and the source distribution."""

    def test_wheel(self, built: Built) -> None:
        """In the wheel are all modules of C{udpecho}, C{py.typed}, the plugin, and nothing else: no tests, and no
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
        """One wheel is for every system and every Python 3."""
        assert built.wheel.name == f"udpecho-{udpecho.__version__}-py3-none-any.whl"

    def test_sdist(self, built: Built, tmp_path: Path) -> None:
        """In the source distribution are the code, its tests and documentation, what the build needs, and nothing else."""
        tree = copyTree(tmp_path / "tree")
        wanted = {path.relative_to(tree).as_posix() for top in WHOLE for path in (tree / top).rglob("*") if path.is_file()}
        found = {name for name in built.sdistFiles if not name.startswith("udpecho.egg-info/")}
        assert found == {*TOP, *wanted, "PKG-INFO"}

    def test_namespace(self, built: Built) -> None:
        """C{twisted} and C{twisted.plugins} have no C{__init__.py} of ours, here and as built: uninstalling it would delete
        Twisted's own.
        """
        ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "twisted").rglob("*.py")}
        for names in (ours, built.wheelFiles, built.sdistFiles):
            assert {name for name in names if name.startswith("twisted/")} == {"twisted/plugins/udpecho_plugin.py"}

    def test_metadata(self, built: Built) -> None:
        """Name, version, Python, what is required and the long description are those of the tree, in both distributions."""
        for metadata in (built.metadata, message_from_string(built.sdistFiles["PKG-INFO"])):
            assert metadata["Name"] == "udpecho"
            assert metadata["Version"] == udpecho.__version__
            assert metadata["Requires-Python"] == ">=3.10"
            assert metadata["License-Expression"] == "MIT"
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
        """The extra C{test} names what the tests import beyond the package itself."""
        lines = [str(line) for line in built.metadata.get_all("Requires-Dist", []) if 'extra == "test"' in str(line)]
        required = {re.split(r"[^\w.-]", line)[0] for line in lines}
        assert required >= {"build", "hypothesis", "jsonschema", "matplotlib", "prometheus-client", "pytest", "pytest-twisted"}
        assert required >= {"rich", "setuptools"}

    def test_entryPoints(self, built: Built) -> None:
        """There is one command, C{udpecho}, which is one that can be called, and one plugin for pytest."""
        parser = ConfigParser()
        parser.read_string(built.wheelFiles[f"udpecho-{udpecho.__version__}.dist-info/entry_points.txt"])
        assert {section: dict(parser[section]) for section in parser.sections()} == {
            "console_scripts": {"udpecho": "udpecho.cli.main:main"},
            "pytest11": {"udpecho": "udpecho.testing.pytest_plugin"},
        }
        from udpecho.cli.main import main

        assert callable(main)

    def test_versionInOnePlace(self) -> None:
        """The version is written in C{udpecho/_version.py} alone."""
        for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "udpecho/__init__.py"):
            assert f'"{udpecho.__version__}"' not in (ROOT / name).read_text(), name
            assert not re.search(rf"version\s*=\s*{re.escape(udpecho.__version__)}", (ROOT / name).read_text()), name

    @pytest.mark.slow
    def test_reproducible(self, built: Built, tmp_path: Path) -> None:
        """With C{SOURCE_DATE_EPOCH} the source distribution has the same bytes wherever it is built: in a tree with other times
        and permissions too. Every time in it is that one.
        """
        digests = []
        for number, umask in enumerate((0o022, 0o077)):
            tree = copyTree(tmp_path / str(number))
            for path in tree.rglob("*"):
                os.utime(path, (number, number))
                path.chmod((0o755 if path.is_dir() else 0o644) & ~umask)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
                build(tree, tmp_path / f"dist{number}", "--sdist")
            (sdist,) = (tmp_path / f"dist{number}").iterdir()
            digests.append(hashlib.sha256(sdist.read_bytes()).hexdigest())
            with tarfile.open(sdist) as tarball:
                assert {member.mtime for member in tarball.getmembers()} == {EPOCH}
                assert {member.name for member in tarball.getmembers() if member.isfile()} == {
                    f"udpecho-{udpecho.__version__}/{name}" for name in built.sdistFiles
                }
        assert digests[0] == digests[1]

    def test_noWarnings(self, built: Built) -> None:
        """Building uses nothing that setuptools is about to drop."""
        assert "DeprecationWarning" not in built.log


# What is imported


# Installed


class Environment:
    """A fresh virtual environment, with Twisted and setuptools in it.

    @ivar directory: an empty directory to work in.
    @ivar plugins: the commands that C{twistd} lists there, without ours.
    """

    def __init__(self, root: Path) -> None:
        self._root = root / "environment"
        self.directory = root / "elsewhere"
        self.directory.mkdir()
        run([sys.executable, "-m", "venv", self._root], self.directory)
        twisted = f"twisted=={importlib.metadata.version('twisted')}"
        self.pip("install", "--no-compile", twisted, "zope.interface", "setuptools>=77")
        self.plugins = self.listed(self.directory)
        self._files = self._installed()

    def script(self, name: str) -> Path:
        """A command of the environment."""
        return self._root / "bin" / name

    def pip(self, *arguments: str | Path) -> str:
        """Run pip in it."""
        return run([self.script("python"), "-m", "pip", "--disable-pip-version-check", *arguments], self.directory)

    def listed(self, directory: Path) -> list[str]:
        """The commands that C{twistd --help} lists when it is run in a directory."""
        _, _, commands = run([self.script("twistd"), "--help"], directory).partition("\nCommands:\n")
        return sorted(re.findall(r"^    (\S+) ", commands, re.MULTILINE))

    def changes(self) -> set[str]:
        """Which files have come or gone since it was made."""
        return self._files ^ self._installed()

    def _installed(self) -> set[str]:
        return {
            path.relative_to(self._root).as_posix()
            for path in self._root.rglob("*")
            if path.is_file() and path.suffix != ".pyc" and path.name != "dropin.cache"
        }


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """One environment for all ways to install: each is uninstalled again, without a trace."""
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
    """Installed in a virtual environment in each of the ways that people install."""

    @pytest.mark.parametrize("way", WAYS)
    def test_install(self, way: str, environment: Environment, built: Built, tmp_path: Path) -> None:
        """C{twistd --help} lists each of the three plugins once, from the directory of the sources too; the server runs and
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
        """The environment of these tests has no C{udpecho} of its own that they could find by mistake."""
        assert "udpecho" not in environment.plugins
        assert "web" in environment.plugins
        code = "import importlib.util as u; print(u.find_spec('udpecho'))"
        assert run([environment.script("python"), "-c", code], environment.directory) == "None\n"
