"""Tests of L{udpecho.processors}."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from udpecho.processors import availableProcessors


@pytest.fixture(autouse=True)
def _eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may run on eight processors."""
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)


def machine(root: Path, groups: str, mounts: str, **files: str) -> int:
    """Lay out the files of a machine.

    @param groups: C{/proc/self/cgroup}.
    @param mounts: C{/proc/self/mountinfo}.
    @param files: the contents of files below C{/sys/fs/cgroup}, by their paths with C{__} for a slash and C{DOT} for a dot.
    @return: how many processors that machine has for the process.
    """
    process = root / "proc/self"
    process.mkdir(parents=True)
    (process / "cgroup").write_text(groups)
    (process / "mountinfo").write_text(mounts)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return availableProcessors(str(root))


V2 = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "33 32 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "34 32 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
)


class AvailableProcessorsTests:
    """L{availableProcessors}."""

    @pytest.mark.parametrize(
        ("own", "above", "number"),
        [
            ("max 100000", "max 100000", 8),
            ("400000 100000", "max 100000", 4),
            ("150000 100000", "max 100000", 2),
            ("10000 100000", "max 100000", 1),
            ("max 100000", "300000 100000", 3),
            ("500000 100000", "100000 50000", 2),
            ("9900000 100000", "max 100000", 8),
            ("nonsense", "", 8),
        ],
    )
    def test_quota(self, tmp_path: Path, own: str, above: str, number: int) -> None:
        """The least quota of the group and of those above it counts; a part of a processor counts as one."""
        assert machine(tmp_path, "0::/a/b\n", V2, a__b__cpuDOTmax=own, a__cpuDOTmax=above) == number

    def test_container(self, tmp_path: Path) -> None:
        """In a container its group is the root of what it sees."""
        assert machine(tmp_path, "0::/\n", V2, cpuDOTmax="200000 100000") == 2

    @pytest.mark.parametrize("group", ["/docker/abc", "/", "/../other"])
    def test_containerOfVersion1(self, tmp_path: Path, group: str) -> None:
        """Without a namespace for control groups it sees the name that its group has outside."""
        mounts = V1.replace("0:29 / ", "0:29 /docker/abc ").replace("cpu,cpuacct rw", "my\\040cpu rw")
        files = {"my cpu__cpuDOTcfs_quota_us": "300000", "my cpu__cpuDOTcfs_period_us": "100000"}
        assert machine(tmp_path, f"4:cpuset:/\n3:cpu,cpuacct:{group}\n", mounts, **files) == 3

    @pytest.mark.parametrize(("quota", "number"), [("-1", 8), ("250000", 3)])
    def test_version1(self, tmp_path: Path, quota: str, number: int) -> None:
        """The older hierarchy, beside an empty newer one."""
        files = {"cpu,cpuacct__a__cpuDOTcfs_quota_us": quota, "cpu,cpuacct__a__cpuDOTcfs_period_us": "100000"}
        newer = V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
        assert machine(tmp_path, "3:cpu,cpuacct:/a/b\n0::/\n", V1 + newer, **files) == number

    def test_nothing(self, tmp_path: Path) -> None:
        """Without control groups, or where they cannot be read, it is the processors alone."""
        assert availableProcessors(str(tmp_path)) == 8

    def test_real(self) -> None:
        """A quota of a real group."""
        groups = Path("/sys/fs/cgroup") / ("cpu" if os.path.isdir("/sys/fs/cgroup/cpu") else "")
        group = groups / f"udpecho-{os.getpid()}"
        try:
            group.mkdir()
        except OSError as e:
            pytest.skip(f"no control group can be made here: {e}")
        try:
            try:
                if (group / "cpu.max").exists():
                    (group / "cpu.max").write_text("50000 100000")
                else:
                    (group / "cpu.cfs_quota_us").write_text("50000")
            except OSError as e:
                pytest.skip(f"no quota can be set here: {e}")
            code = (
                "import sys; open(sys.argv[1], 'w').write('0');"
                " from udpecho.processors import availableProcessors; print(availableProcessors())"
            )
            command = [sys.executable, "-c", code, str(group / "cgroup.procs")]
            assert subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout == b"1\n"
        finally:
            group.rmdir()
