"""The reactor of a command."""

from __future__ import annotations

from typing import Any

from udpecho.net import features


def installedReactor() -> Any:
    """The reactor that is installed. If there is none, Twisted's default becomes it: C{epoll(7)}'s on Linux, and C{poll(2)}'s
    where the system refuses that.
    """
    try:
        from twisted.internet import reactor
    except OSError as e:
        from twisted.internet import pollreactor

        if e.errno not in features.REFUSALS:
            raise
        features.missed(features.EPOLL, e)
        pollreactor.install()
        from twisted.internet import reactor
    return reactor
