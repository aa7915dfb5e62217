"""What a check of a daemon finds: the states of its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet import defer

#: Checks a daemon. Fires with a mapping of each part of it (an address, a target) to C{None}, or a L{Works}, if it works, else
#: to the reason why not.
Health = Callable[[], "defer.Deferred[dict[str, str | None]]"]


class Works(str):
    """The state of a part that works, as in C{"ok (rate limited)"}. Any other text is the reason why a part does not work."""


def failures(reasons: Mapping[str, str | None]) -> dict[str, str]:
    """The parts that do not work, with the reasons, of what a check found."""
    return {part: reason for part, reason in reasons.items() if reason is not None and not isinstance(reason, Works)}
