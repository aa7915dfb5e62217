"""The HTTP pages of a daemon, as a client sees them."""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.request


def unusedTCPPort() -> int:
    """A TCP port where nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def fetch(port: int, path: str) -> tuple[int, str]:
    """@return: the status and the text of a page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def values(port: int) -> dict[str, float]:
    """The metrics, by name and labels."""
    status, text = fetch(port, "/metrics")
    assert status == 200
    return {name: float(value) for name, value in re.findall(r"^(udpecho_\S+) (\S+)$", text, re.MULTILINE)}
