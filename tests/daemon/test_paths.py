"""Tests of L{udpecho.daemon.paths}."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.python import usage

from udpecho.daemon.paths import endpointLater, fileLater, later


def options(chroot: str | None) -> usage.Options:
    """The options of a command, after those of C{twistd}."""
    found, twistd = usage.Options(), usage.Options()
    twistd["chroot"] = chroot
    found.parent = twistd
    return found


class LaterTests:
    """L{later}, L{fileLater} and L{endpointLater}."""

    @pytest.mark.parametrize(
        ("chroot", "path", "found"),
        [
            (None, "a.toml", "{here}/a.toml"),
            (None, "/etc/a.toml", "/etc/a.toml"),
            ("jail", "jail/etc/a.toml", "/etc/a.toml"),
            ("{here}/jail/", "jail/a.toml", "/a.toml"),
            ("jail", "{here}/jail/../jail/b", "/b"),
            ("jail", "/etc/a.toml", "/etc/a.toml"),
            ("jail", "{here}/jailed/a", "{here}/jailed/a"),
            ("/", "/etc/a.toml", "/etc/a.toml"),
        ],
    )
    def test_later(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chroot: str | None, path: str, found: str) -> None:
        """A path is absolute, and in the new root directory if there is one around it."""
        monkeypatch.chdir(tmp_path)
        root = None if chroot is None else chroot.format(here=tmp_path)
        assert later(path.format(here=tmp_path), options(root)) == found.format(here=tmp_path)

    def test_withoutTwistd(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Options that were read without twistd have no new root directory."""
        monkeypatch.chdir(tmp_path)
        assert fileLater("a", usage.Options()) == str(tmp_path / "a")

    @pytest.mark.parametrize(
        ("given", "found"),
        [
            ("tcp:9107:interface=127.0.0.1", "tcp:9107:interface=127.0.0.1"),
            ("unix:/run/a", "unix:/run/a"),
            ("unix:a", "unix:address={here}/a:mode=666:backlog=50:lockfile=1"),
            (r"unix:address=x\:y\=z:mode=600:lockfile=0", r"unix:address={here}/x\:y=z:mode=600:backlog=50:lockfile=0"),
            (None, None),
        ],
    )
    def test_endpoint(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, found: str | None) -> None:
        """The path of a UNIX socket is one too; other endpoints, and absolute paths, are left as they are."""
        monkeypatch.chdir(tmp_path)
        assert endpointLater(given, options(None)) == (None if found is None else found.format(here=tmp_path))
