"""Codebases from the package index, each in a folder of its own: pinned, without their dependencies' own choice of versions.

Some are older than Python 3. What that needs is mended in the copy, by the expressions below and by nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

#: How long the package index may take for one codebase, in seconds.
_INSTALL_LIMIT = 300


@dataclass(frozen=True)
class Mend:
    """What a codebase needs to be imported by this Python.

    @ivar files: a pattern of paths in its folder.
    @ivar old: a regular expression.
    @ivar new: what takes its place.
    """

    files: str
    old: str
    new: str


@dataclass(frozen=True)
class Codebase:
    """A codebase, and how it is installed.

    @ivar pins: requirements with their versions.
    @ivar mends: its own porting faults.
    @ivar before: the first version of Python that it does not run on.
    """

    name: str
    pins: tuple[str, ...]
    mends: tuple[Mend, ...] = ()
    before: tuple[int, int] | None = None


_kademlia = (
    Mend("kademlia/*.py", r"from itertools import i\w+\n|from zope.interface import implements\n|    implements\(.*\)\n", ""),
    Mend("kademlia/*.py", r"\bi(zip|map)\(", r"\1("),
    Mend("kademlia/*.py", r"\.iter(keys|values)\(\)", r".\1()"),
    Mend("kademlia/**/*.py", r"\blong\((\w+)\.encode\('hex'\), 16\)", r"int(\1.hex(), 16)"),
    Mend("kademlia/**/*.py", r"\blong\(", "int("),
    Mend("kademlia/**/*.py", r"return map\((.*)\)\n", r"return list(map(\1))\n"),
    Mend("kademlia/*.py", r"(?<!zip\()(\b(?:self\.nodes|d)\.(?:keys|values)\(\))", r"list(\1)"),
    Mend("kademlia/*.py", r"\bnext\(self\)", "__next__(self)"),
    Mend("kademlia/*.py", r"self\.next\(\)", "next(self)"),
    Mend("kademlia/*.py", r"(self\.range\[1\]\)) / 2", r"\1 // 2"),
    Mend("kademlia/utils.py", r"s, str\)", "s, (str, bytes))"),
    Mend("kademlia/utils.py", r"sha1\(s\)", "sha1(s if isinstance(s, bytes) else s.encode())"),
    Mend("kademlia/tests/*.py", r"sha1\((str\(.*?\)\)|'\w+')\)", r"sha1(\1.encode())"),
)

_txrudp = (
    Mend("**/*.py", r"collections\.(MutableMapping|Container|Sized)", r"collections.abc.\1"),
    Mend("**/*.py", r"import collections\n", "import collections.abc\n"),
    Mend("txrudp/*.py", r"(iter\(self\._sending_window\))\.next\(\)", r"next(\1)"),
    Mend("txrudp/*.py", r"''\.join\(f", "b''.join(f"),
    Mend("txrudp/packet.py", r"payload=''", "payload=b''"),
    Mend("txrudp/packet_pb2.py", r"unicode\((\S+), .*?\)", r"\1"),
    Mend("txrudp/packet_pb2.py", r"(serialized_pb=|Options\(\), )'", r"\1b'"),
    Mend("txrudp/packet_pb2.py", r"\(_message\.Message\):\n  __metaclass__ = ", "(_message.Message, metaclass="),
    Mend("txrudp/packet_pb2.py", r"(metaclass=\S+)\n", r"\1):\n"),
)

_cohen3 = (
    Mend("eventdispatcher/*.py", r"collections\.Mutable", "collections.abc.Mutable"),
    Mend("eventdispatcher/*.py", r"import collections\n", "import collections.abc\n"),
    # What it derives its HTTP client from has left Twisted; SSDP does without.
    Mend("coherence/upnp/core/utils.py", r"client\.HTTP(PageGetter|ClientFactory|Downloader)\b", "object"),
)

CODEBASES = {
    codebase.name: codebase
    for codebase in (
        Codebase("rpcudp", ("rpcudp==2.1", "u-msgpack-python==2.8.0", "future==1.0.0")),
        Codebase("kademlia", ("kademlia==0.6", "rpcudp==2.1", "u-msgpack-python==2.8.0", "future==1.0.0"), _kademlia),
        Codebase("txthings", ("txThings==0.3.0", "six==1.17.0")),
        Codebase("txrudp", ("txrudp==0.5.2", "protobuf==3.20.3", "mock==5.2.0", "six==1.17.0"), _txrudp, (3, 12)),
        Codebase(
            "pysnmp",
            ("pysnmp==4.4.12", "pysmi==0.3.4", "ply==3.11", "pyasn1==0.4.8", "pycryptodomex==3.24.2"),
            before=(3, 12),
        ),
        Codebase(
            "cohen3",
            (
                "Cohen3==0.9.3",
                "eventdispatcher==1.9.4",
                "future==1.0.0",
                "lxml==6.1.3",
                "python-dateutil==2.9.0",
                "six==1.17.0",
            ),
            _cohen3,
        ),
        Codebase("opencanary", ("opencanary==0.9.10", "passlib==1.7.1")),
        Codebase("carbon", ("carbon==1.1.10", "six==1.17.0", "cachetools==5.5.2"), before=(3, 12)),
    )
}


class Shelf:
    """Where codebases are installed, once for all runs of the tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folderOf(self, name: str) -> Path:
        """@return: the folder that a codebase can be imported from; the test is skipped where there is none."""
        codebase = CODEBASES[name]
        if codebase.before is not None and sys.version_info >= codebase.before:
            pytest.skip(f"{name} does not run on Python {'.'.join(map(str, codebase.before))} or later")
        version = hashlib.sha256(repr((codebase, sys.version_info[:2])).encode()).hexdigest()[:12]
        folder = self._folder / f"{name}-{version}"
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / f"{name}.lock", "w") as lock:
            # Several workers may want it at the same time.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                _install(codebase, folder)
        return folder

    @contextmanager
    def opened(self, name: str) -> Iterator[None]:
        """Let a codebase be imported; afterwards it is as if it had never been."""
        folder = str(self.folderOf(name))
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(folder)
            for module, loaded in list(sys.modules.items()):
                origin = getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", ())), "")
                if str(origin).startswith(folder + os.sep):
                    del sys.modules[module]


def _install(codebase: Codebase, folder: Path) -> None:
    """Install a codebase, all of it or nothing."""
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-compile"]
    # By default carbon installs into /opt, whatever it is asked for.
    environment = {**os.environ, "GRAPHITE_NO_PREFIX": "True"}
    try:
        installed = subprocess.run(
            [*pip, "--target", str(unfinished), *codebase.pins],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_INSTALL_LIMIT,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"the package index did not send {codebase.name} within {_INSTALL_LIMIT} s")
    if installed.returncode:
        pytest.skip(f"{codebase.name} cannot be installed: {installed.stderr.strip().splitlines()[-1:]}")
    for mend in codebase.mends:
        changes = 0
        for path in unfinished.glob(mend.files):
            text, count = re.subn(mend.old, mend.new, path.read_text())
            if count:
                path.write_text(text)
            changes += count
        assert changes, f"{mend} must fit something in {codebase.name}"
    unfinished.rename(folder)
