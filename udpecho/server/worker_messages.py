"""The messages between a worker and its parent, over pipes: JSON objects of one item, C{{kind: value}}, each in a line.

===========  ===============================================  ==========================================================
kind         value                                            meaning
===========  ===============================================  ==========================================================
serve        slot, memory, sockets                            to the worker: its number, from 0, and its descriptors
settings     an object with a number                          to the worker: serve with these settings from now on
applied      the number                                       from the worker: it serves with these settings
guard        an object                                        from the worker: statistics of its guard, each second
received     size, host, port, scope                          a datagram came in, and gets a line in the log
written      size, host, port, scope                          a datagram went back, and gets a line in the log
unlogged     received, bytes, written, bytes                  the sum of the datagrams that got no line
log          level, text                                      a warning or an error
lacks        feature, reason                                  the system refuses a feature
===========  ===============================================  ==========================================================
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogLevel, eventAsText
from twisted.protocols.basic import LineOnlyReceiver
from zope.interface import implementer

from udpecho.addresses import DatagramAddress
from udpecho.guard.policy import GuardPolicy
from udpecho.interfaces import IDatagramLog
from udpecho.pieces import Work
from udpecho.server.datagram_log import DatagramLog
from udpecho.server.settings import ServiceOptions, toWorkerSettings

_numbers = count(1)
#: How many characters of one log event are passed on.
MAX_TEXT = 8192
#: How many datagrams of a worker may have a line in the log while their replies do not have theirs yet.
_maxUnanswered = 1024


def encode(kind: str, value: object) -> bytes:
    """The line of a message."""
    return json.dumps({kind: value}, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> tuple[str, Any]:
    """The kind and the value of a message.

    @raise ValueError: if the line is none.
    """
    found = json.loads(line)
    if not isinstance(found, dict) or len(found) != 1:
        raise ValueError(f"a message must be a JSON object of one item, got {line[:80]!r}")
    ((kind, value),) = found.items()
    return kind, value


class WorkerSettings:
    """What workers serve with, as a message that all of them get.

    @ivar number: different from that of others.
    @ivar logsAll: whether all datagrams get their lines.
    @ivar message: the message.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """@param settings: the result of L{toWorkerSettings}."""
        self.number = next(_numbers)
        self.logsAll = settings["options"]["logDatagrams"] is None
        self.message = encode("settings", {"number": self.number, **settings})

    @classmethod
    def make(cls, options: ServiceOptions, policy: GuardPolicy) -> Work[WorkerSettings]:
        """Make them, which takes long with many networks."""
        return cls((yield from toWorkerSettings(options, policy)))


class MessageReceiver(LineOnlyReceiver):
    """Calls the handler of each message."""

    delimiter = b"\n"
    #: Bytes of the longest message: all the networks that fit into a configuration file do.
    MAX_LENGTH = 2**22

    def __init__(self, handlers: Mapping[str, Callable[[Any], object]], failed: Callable[[bytes], object]) -> None:
        """@param handlers: called with the value of a message, by its kind.
        @param failed: called, while an exception is handled, with a line that is no message or that the handler failed on.
        """
        self._handlers = handlers
        self._failed = failed

    def lineReceived(self, line: bytes) -> None:
        """Call the handler."""
        try:
            kind, value = decode(line)
            self._handlers[kind](value)
        except Exception:
            self._failed(line)


class SentDatagramLog(DatagramLog):
    """Sends the lines of a worker's datagrams to its parent."""

    def __init__(self, rate: int | None, clock: IReactorTime, write: Callable[[bytes], object]) -> None:
        """@param write: takes the messages."""
        super().__init__(rate, clock)
        self._write = write

    def _logReceived(self, size: int, address: tuple[str, int]) -> None:
        self._write(encode("received", [size, *address, getattr(address, "scopeID", 0)]))

    def _logWritten(self, size: int, address: tuple[str, int]) -> None:
        self._write(encode("written", [size, *address, getattr(address, "scopeID", 0)]))

    def _logSums(self, *sums: int) -> None:
        self._write(encode("unlogged", sums))


class LogForwarder:
    """Forwards the lines of one worker to the log of all.

    A reply gets its line if a datagram of its peer and size did. Of many datagrams without a reply the oldest are forgotten.

    @ivar logsAll: whether all datagrams get their lines.
    """

    def __init__(self, log: IDatagramLog, logsAll: bool) -> None:
        self.logsAll = logsAll
        self._log = log
        self._unanswered: OrderedDict[tuple[int, DatagramAddress], int] = OrderedDict()

    def received(self, value: Sequence[Any]) -> None:
        """A datagram came in: size, host, port and scope."""
        size, address = self._read(value)
        if self._log.received(size, address) and not self.logsAll:
            self._unanswered[size, address] = self._unanswered.pop((size, address), 0) + 1
            if len(self._unanswered) > _maxUnanswered:
                self._unanswered.popitem(last=False)

    def written(self, value: Sequence[Any]) -> None:
        """A datagram went back: size, host, port and scope."""
        size, address = self._read(value)
        number = self._unanswered.pop((size, address), 0)
        if number > 1:
            self._unanswered[size, address] = number - 1
        self._log.written(size, address, number > 0 or self.logsAll)

    def unlogged(self, value: Sequence[int]) -> None:
        """Datagrams got no line: the arguments of L{IDatagramLog.addUnlogged}."""
        self._log.addUnlogged(*value)

    @staticmethod
    def _read(value: Sequence[Any]) -> tuple[int, DatagramAddress]:
        size, host, port, scopeID = value
        address = DatagramAddress((host, port))
        address.scopeID = scopeID
        return size, address


@implementer(ILogObserver)
class SentLog:
    """Sends a worker's warnings and errors to its parent, which itself logs that a worker starts and ends."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        """@param write: takes the messages."""
        self._write = write

    def __call__(self, event: dict[str, Any]) -> None:
        """Send an event, if it is a warning or an error, or what the system refuses: each worker meets that."""
        if "feature" in event:
            self._write(encode("lacks", [event["feature"], event["reason"]]))
            return
        level = event.get("log_level", LogLevel.info)
        if level >= LogLevel.warn:
            text = eventAsText(event, includeTimestamp=False, includeSystem=False)
            self._write(encode("log", [level.name, text[-MAX_TEXT:]]))
