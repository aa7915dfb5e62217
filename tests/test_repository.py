"""Tests of what stands around the code: the workflow, the metadata and the pages about the repository agree with each other."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.source import ROOT

PACKAGE = ROOT / "udpecho"
DOCS = ROOT / "docs"


def read(path: str) -> Any:
    """Read a YAML file of the repository, which a source distribution does not have."""
    if not (ROOT / path).exists():
        pytest.skip("this is not a clone")
    return yaml.safe_load((ROOT / path).read_text())


@pytest.fixture
def jobs() -> dict[str, Any]:
    """The jobs of the workflow."""
    found: dict[str, Any] = read(".github/workflows/ci.yml")["jobs"]
    return found


@pytest.fixture
def metadata() -> ConfigParser:
    """What C{setup.cfg} has."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


class WorkflowTests:
    """C{.github/workflows/ci.yml}."""

    def test_pythons(self, jobs: dict[str, Any], metadata: ConfigParser) -> None:
        """Tests run on each Python that the classifiers name."""
        named = re.findall(r"Programming Language :: Python :: (3\.\d+)", metadata["metadata"]["classifiers"])
        assert jobs["tests"]["strategy"]["matrix"]["python"] == named
        assert metadata["options"]["python_requires"] == f">={named[0]}"

    def test_lowest(self, jobs: dict[str, Any], metadata: ConfigParser) -> None:
        """The lowest requirements that are tested are those that C{setup.cfg} allows on that Python."""
        required = metadata["options"]["install_requires"]
        (twisted,) = re.findall(r"^twisted >=(.*)$", required, re.MULTILINE)
        assert jobs["lowest"]["steps"][-2]["run"].endswith(f"'twisted=={twisted}.0' 'zope.interface==${{{{ matrix.zope }}}}'")
        bounds = dict(re.findall(r'^zope\.interface >=(\S+); python_version \S+ "(.*)"$', required, re.MULTILINE))
        tested = {str(job["python"]): str(job["zope"]) for job in jobs["lowest"]["strategy"]["matrix"]["include"]}
        assert tested == {"3.10": "6.0", "3.12": "6.1", "3.13": "6.4.post2"}
        # The first bound is for all Pythons before 3.12; a Python newer than that Twisted needs a newer zope.interface, too.
        assert bounds == {"6": "3.12", "6.1": "3.12", "6.4.post2": "3.13", "8.1": "3.14"}

    def test_actions(self, jobs: dict[str, Any]) -> None:
        """All jobs come to an end, and use the actions of GitHub alone."""
        for job in jobs.values():
            assert job["timeout-minutes"] <= 45
            used = [step["uses"] for step in job["steps"] if "uses" in step]
            assert all(re.match(r"actions/[a-z-]+@v\d+$", name) for name in used)


class PageTests:
    """C{docs/internals.rst}, C{docs/contributing.rst} and C{docs/security.rst}."""

    def test_layers(self) -> None:
        """The table of layers has every package and every module of C{udpecho}, in their layers."""
        _, _, rest = (DOCS / "internals.rst").read_text().partition(".. layers\n")
        table = rest.partition(".. end of layers\n")[0]
        names = re.findall(r"``(\w+(?:/|\.py))``", "\n".join(line[7:50] for line in table.splitlines()))
        public = {"__init__.py", "__main__.py"}
        packages = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
        assert sorted(names) == sorted(packages | {path.name for path in PACKAGE.glob("*.py")} - public)

    @pytest.mark.parametrize("page", sorted(DOCS.glob("*.rst")), ids=lambda path: path.name)
    def test_files(self, page: Path) -> None:
        """The files that a page names are in the repository or in the package."""
        named = set(re.findall(r"``((?:[\w.-]+/)+(?:[\w-]+\.(?:py|rst|toml|yml|json))?)``", page.read_text()))
        assert not [name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()]

    def test_lead(self) -> None:
        """The short files for GitHub lead to these pages."""
        for name, page in (("CONTRIBUTING.md", "contributing.rst"), ("SECURITY.md", "security.rst")):
            path = ROOT / ".github" / name
            if not path.exists():
                pytest.skip("this is not a clone")
            assert f"https://github.com/udpecho/udpecho/blob/main/docs/{page}" in path.read_text()
            assert (DOCS / page).exists()
