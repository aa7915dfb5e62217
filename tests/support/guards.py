"""What a test needs of the machine: each need once, with the reason that a skipped test shows."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from tests.support.running import PATIENCE, hasIPv6
from udpecho.net import reuseport
from udpecho.net.linux import library, sockopt
from udpecho.net.selftest import unsupportedReason
from udpecho.probe.io.timestamps import noTimestampsReason

needsIPv6 = pytest.mark.skipif(not hasIPv6(), reason="this machine has no ::1")
#: For a test that runs once for each family.
loopbacks = pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needsIPv6)], ids=["IPv4", "IPv6"])
onlyLinux = pytest.mark.skipif(not sockopt.available, reason="the socket options are Linux's")
needsSharing = pytest.mark.skipif(not reuseport.canShare, reason="only Linux distributes datagrams among sockets of one port")
needsCtypes = pytest.mark.skipif(library.ctypes is None, reason="this Python was built without ctypes")
needsBatches = pytest.mark.skipif(unsupportedReason() is not None, reason=f"no batches here: {unsupportedReason()}")
_noStamps = unsupportedReason() or noTimestampsReason()
needsStamps = pytest.mark.skipif(_noStamps is not None, reason=f"no timestamps here: {_noStamps}")
needsRoot = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may do this")
needsFIFOs = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
needsQuit = pytest.mark.skipif(not hasattr(signal, "SIGQUIT"), reason="this system has no SIGQUIT")
needsCompiler = pytest.mark.skipif(shutil.which("cc") is None, reason="cc is not installed here")


def tool(name: str) -> str:
    """Find a program that other machines may not have, beside this Python or elsewhere; skip the test where it is missing."""
    path = shutil.which(name, path=os.path.dirname(sys.executable)) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed here")
    return path


def without(*capabilities: str) -> list[str]:
    """How to run a command without some of root's privileges; an ordinary user has none anyway.

    @param capabilities: as C{setpriv(1)} names them.
    """
    if os.geteuid() != 0:
        return []
    names = ",".join(f"-{name}" for name in capabilities)
    prefix = [tool("setpriv"), f"--bounding-set={names}", f"--inh-caps={names}"]
    left = subprocess.run([*prefix, prefix[0], "--dump"], capture_output=True, text=True, timeout=PATIENCE)
    has = re.search(r"^Capability bounding set: (.*)$", left.stdout, re.MULTILINE)
    if has is None or set(capabilities) & set(has[1].split(",")):
        pytest.skip("setpriv cannot take privileges away here")
    return prefix
