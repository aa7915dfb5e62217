"""Where files will be when a daemon needs them: C{twistd} changes its working directory after it has read its options, and with
C{--chroot} its root directory.
"""

from __future__ import annotations

import os

from twisted.logger import Logger
from twisted.python import usage

_log = Logger()


def later(path: str, options: usage.Options) -> str:
    """@param path: as it was given; a relative one is from the working directory of the start.
    @param options: those of a command of C{twistd}.
    @return: an absolute path; in the new root directory, if there will be one and the file is in it now.
    """
    path, root = os.path.abspath(path), newRoot(options)
    if root is not None and os.path.commonpath([path, root]) == root:
        return os.path.join("/", os.path.relpath(path, root))
    return path


def newRoot(options: usage.Options) -> str | None:
    """The directory of C{twistd --chroot}, if there is one."""
    root = None if options.parent is None else options.parent.get("chroot")
    return None if root is None else os.path.abspath(root)


def fileLater(path: str, options: usage.Options) -> str:
    """The L{later} path of a file that is there now, and will be read again: it warns if it will not be found."""
    found, root = later(path, options), newRoot(options)
    if root is not None and not os.path.exists(root + found):
        _log.warn("SIGHUP cannot read {path} again: {root} must have it, too", path=found, root=root)
    return found


def endpointLater(description: str | None, options: usage.Options) -> str | None:
    """The description of an endpoint, for C{serverFromString}, with the L{later} path of a UNIX socket."""
    # Making another endpoint may need a socket that systemd has not passed, which is the start's to report.
    if description is None or not description.startswith("unix:"):
        return description
    # Twisted's endpoints take a while to import.
    from twisted.internet.endpoints import UNIXServerEndpoint, quoteStringArgument, serverFromString

    endpoint = serverFromString(object(), description)
    assert isinstance(endpoint, UNIXServerEndpoint)
    path = os.fsdecode(endpoint._address)
    found = later(path, options)
    # A name in Linux's abstract namespace has a NUL.
    if found == path or "\0" in path:
        return description
    more = f"mode={endpoint._mode:o}:backlog={endpoint._backlog}:lockfile={int(endpoint._wantPID)}"
    # Without a name, what stands before an equals sign would be one.
    return f"unix:address={quoteStringArgument(found)}:{more}"
