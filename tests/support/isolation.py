"""A pytest plugin: tests that run in a network of their own.

  - C{isolated}: the test has the loopback interface, and every port of it, to itself; it may open raw sockets and bind port 7.
  - C{namespaces}: the test makes network namespaces, L{tests.support.namespaces}.

Such a test runs in a forked process that is in new namespaces, network_namespaces(7). An ordinary user is root in a new user
namespace there, user_namespaces(7), where the system allows it. Root needs no fork for C{namespaces}.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import pickle
import shutil
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from _pytest.runner import runtestprotocol

from tests.support import namespaces

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000

_isRoot = hasattr(os, "geteuid") and os.geteuid() == 0


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", "isolated: runs alone on a loopback interface, as root of it, where the system allows")
    config.addinivalue_line("markers", "namespaces: makes network namespaces; skipped where the system does not allow it")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here."""
    if item.get_closest_marker("namespaces"):
        reason = whyNoNamespaces()
        if reason is not None:
            pytest.skip(reason)


def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Run a marked test in a process of its own, and report what it reports."""
    if item.get_closest_marker("namespaces"):
        forks = whyNoNamespaces() is None and not _isRoot
    else:
        forks = bool(item.get_closest_marker("isolated")) and whyNotIsolated() is None
    if not forks or item.config.getoption("usepdb"):
        return None
    # The process would end what fixtures of other tests have begun.
    item.session._setupstate.teardown_exact(None)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _run(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _run(item: pytest.Item) -> list[pytest.TestReport]:
    hook = item.config.hook
    try:
        found = _isolated(lambda: _reports(item))
    except ChildFailed as e:
        return [pytest.TestReport(item.nodeid, item.location, {}, "failed", f"the test's process {e}", "call")]
    return [hook.pytest_report_from_serializable(config=item.config, data=data) for data in found]


def _reports(item: pytest.Item) -> list[dict[str, Any]]:
    # Without a next test: all fixtures are torn down before the process ends.
    found = runtestprotocol(item, log=False, nextitem=None)
    return [item.config.hook.pytest_report_to_serializable(config=item.config, report=report) for report in found]


@functools.cache
def whyNotIsolated() -> str | None:
    """@return: why this machine cannot isolate a test; L{None} if it can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if shutil.which("ip") is None:
        return "there is no ip(8) here, to make network namespaces with: iproute2 has it"
    try:
        _isolated(lambda: None)
    except ChildFailed as e:
        return f"network namespaces do not work here: {e}"
    return None


@functools.cache
def whyNoNamespaces() -> str | None:
    """@return: why this machine cannot make networks for tests; L{None} if it can."""
    if _isRoot:
        return namespaces.whyNot()
    reason = whyNotIsolated()
    if reason is None:
        reason = _isolated(namespaces.whyNot)
    return reason


class ChildFailed(Exception):
    """A forked process did not do its work; the message is what it raised."""


def _isolated(function: Callable[[], Any]) -> Any:
    """Call a function in a forked process, in namespaces of its own.

    @return: what it returned; it must be picklable.
    @raise ChildFailed: if it raised something, or the process died.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(function, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        written = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not written:
        raise ChildFailed(f"ended with status {os.waitstatus_to_exitcode(status)}")
    result, failure = pickle.loads(written)
    if failure is not None:
        raise ChildFailed(failure)
    return result


def _child(function: Callable[[], Any], writing: int) -> NoReturn:
    try:
        # What the parent no longer uses must not be collected, and closed, in here.
        gc.freeze()
        try:
            _enterNamespaces()
            outcome: tuple[Any, str | None] = function(), None
        except OSError as e:
            outcome = None, str(e)
        except BaseException:
            outcome = None, traceback.format_exc()
        with open(writing, "wb") as pipe:
            pipe.write(pickle.dumps(outcome))
    finally:
        # The parent's exit handlers are the parent's.
        os._exit(0)


def _enterNamespaces() -> None:
    """Move into a network namespace with a loopback interface, as root."""
    user, group = os.geteuid(), os.getegid()
    _call("unshare", _CLONE_NEWNET | _CLONE_NEWNS | (0 if _isRoot else _CLONE_NEWUSER))
    if not _isRoot:
        # Without the right to change groups an ordinary user may map its own.
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    # ip(8) keeps the names of namespaces in /run/netns.
    _call("mount", b"tmpfs", b"/run", b"tmpfs", 0, None)
    namespaces.run(["ip", "link", "set", "lo", "up"])


def _call(name: str, *arguments: Any) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
