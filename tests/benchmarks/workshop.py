"""What the benchmarks are made with: compilers, interpreters and processors, as far as this machine has them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Where the do-nothing plugin is found.
BARE = HERE / "bare"

#: Seconds that a compiler may take: Go's first run builds its library.
_patience = 300


class Missing(Exception):
    """This machine has not got what is needed; the message says what."""


class Workshop:
    """Finds and builds programs.

    @ivar directory: where to, and where servers run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._built: dict[Path, Path] = {}
        # Nothing of this machine's users: this tree's udpecho, and the bare plugin, which each twistd finds.
        path = [str(BARE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "GO111MODULE": "off"}

    def compile(self, source: str) -> str:
        """Compile a C program.

        @param source: its path below this directory.
        @return: the path of the program.
        @raise Missing: if there is no compiler, or not for this program.
        """
        return self._build(HERE / source, [self.tool("cc"), "-O2", "-Wall", "-Wextra", "-o"])

    def buildGo(self, source: str) -> str:
        """The same for Go.

        @raise Missing: if there is no compiler, or not for this program.
        """
        return self._build(HERE / source, [self.tool("go"), "build", "-o"])

    def tool(self, name: str) -> str:
        """Find a program.

        @raise Missing: if it is not installed.
        """
        path = shutil.which(name)
        if path is None:
            raise Missing(f"{name} is not installed")
        return path

    def twistd(self, *arguments: str) -> list[str]:
        """How to run C{twistd -n}: by the script beside this Python, or without it."""
        script = Path(sys.executable).with_name("twistd")
        code = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
        twistd = [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-c", code]
        return [*twistd, "-n", "--pidfile=", *arguments]

    def udpecho(self, host: str, port: int, *options: str) -> list[str]:
        """How to run C{twistd -n udpecho}.

        @raise Missing: if it does not have one of the options.
        """
        for option in options:
            name = option.partition("=")[0]
            if name.startswith("--") and name not in self._options:
                raise Missing(f"this udpecho has no option {name}")
        return self.twistd("udpecho", "--interface", host, "--port", str(port), *options)

    @cached_property
    def _options(self) -> set[str]:
        told = subprocess.run(
            self.twistd("udpecho", "--help"),
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        return {word.rstrip("=,") for word in told.stdout.split() if word.startswith("--")}

    def _build(self, source: Path, command: Sequence[str]) -> str:
        if source not in self._built:
            program = self.directory / f"{source.stem}-{source.suffix[1:]}"
            done = subprocess.run(
                [*command, str(program), str(source)],
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=_patience,
                check=False,
            )
            if done.returncode:
                last = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
                raise Missing(f"{source.name} cannot be built here: {last}")
            self._built[source] = program
        return str(self._built[source])


class Processors:
    """Which processors the servers have, and which one the load has.

    @ivar shared: whether there is only one for both.
    """

    def __init__(self) -> None:
        """@raise Missing: where a process cannot choose its processors."""
        if sys.platform != "linux":
            raise Missing("the benchmarks read /proc and choose processors: they run on Linux only")
        self._all = sorted(os.sched_getaffinity(0))
        self.shared = len(self._all) == 1

    @property
    def load(self) -> set[int]:
        """Those of the load."""
        return {self._all[-1]}

    def server(self, wanted: int) -> set[int]:
        """Those of a server.

        @param wanted: how many it would use; where there are not so many beside that of the load, it has one.
        """
        return set(self._all[:wanted]) if len(self._all) > wanted else {self._all[0]}


@contextmanager
def on(processors: set[int]) -> Iterator[None]:
    """What is started meanwhile runs on these processors, and so does this process."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
