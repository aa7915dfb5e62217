"""Memory in which several connected sockets receive batches: for each alone it would take megabytes."""

from __future__ import annotations

from udpecho.net.batch import BatchOptions, MessageBatch
from udpecho.net.batch_sender import BatchSender


class _LentBatch(MessageBatch):
    """A batch for the sockets of one family, one after the other."""

    def lend(self, options: BatchOptions, send: BatchSender) -> None:
        """The next batch is of the socket that has these."""
        self._options = options
        self._send = send.send


class PeerMemory:
    """The memory in which several connected ports receive: it is the one's until its protocol has handled the batch.

    @ivar handled: the batches that are being handled: several if a program runs the reactor inside of a callback.
    """

    def __init__(self) -> None:
        self.handled: list[MessageBatch] = []
        self._batches: dict[tuple[bool, bool], list[_LentBatch]] = {}

    def lend(self, options: BatchOptions, sender: BatchSender) -> MessageBatch:
        """A batch that nobody is handling."""
        batches = self._batches.setdefault((options.isIPv6, options.hopLimits), [])
        for batch in batches:
            if batch not in self.handled:
                batch.lend(options, sender)
                return batch
        batches.append(_LentBatch(options, sender.send))
        return batches[-1]
