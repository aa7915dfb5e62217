"""Send a batch back with one C{sendmmsg(2)}, from the slots in which it came; datagrams of one flow as a GSO batch."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby

from twisted.logger import Logger

from udpecho.addresses import DatagramAddress
from udpecho.interfaces import BatchSendCallback, SendCallback
from udpecho.net.batch import BatchOptions, Fields, MessageBatch
from udpecho.net.linux import cmsg, sockopt
from udpecho.net.linux.gso import MAX_SEGMENTS, REFUSALS, SegmentLimits
from udpecho.net.linux.mmsg import HEADER_SIZE
from udpecho.net.sockets import TRY_AGAIN

#: The most bytes that one send can carry, headers taken off.
_maxJoined = 65535 - 48
#: From so many entries on it is worth while to look for datagrams that can be joined.
_minToJoin = 4

#: Sends a single datagram, or keeps it until the send queue has space, and reports the outcome.
SendOne = Callable[[bytes, DatagramAddress, SendCallback], object]

_oneLess = bytes(max(0, number - 1) for number in range(256))

_log = Logger()


class BatchSender:
    """Sends the batches of one socket back, and reports the outcome of each datagram."""

    def __init__(
        self,
        options: BatchOptions,
        sendOne: SendOne,
        failures: Counter[str],
        beforeSending: Callable[[], object] | None = None,
    ) -> None:
        """@param failures: where to count what the system rejects, in addition to the report.
        @param beforeSending: called before each batch.
        """
        self._destinations = options.destinations
        self._hopLimits = options.hopLimits
        self._limits = options.segments
        self._sendOne = sendOne
        self._failures = failures
        self._beforeSending = beforeSending

    def send(self, batch: MessageBatch, callback: BatchSendCallback) -> None:
        """Send a batch, as L{IDatagramBatch.send <udpecho.interfaces.IDatagramBatch.send>} does."""
        self._prepare(batch)
        if self._beforeSending is not None:
            self._beforeSending()
        segmented = bool(batch.segmentSizes)
        if batch.dropped or batch.taken or batch.irregular or (segmented and (self._limits is None or self._limits.refusedAny)):
            self._sendSome(batch, callback)
            return
        count = batch.entries
        if count >= _minToJoin and not segmented and self._limits is not None:
            groups = self._groups(batch, self._limits)
            if len(groups) <= count // 2:
                self._sendGroups(batch, groups, callback)
                return
        address = batch.slots.headersAddress
        sent = batch.calls.sendmmsg(batch.descriptor, address, count, sockopt.MSG_DONTWAIT)
        if sent == count:
            callback(None, batch.datagrams, batch.size)
        else:
            self._sendRest(batch, [range(entry, entry + 1) for entry in range(count)], address, sent, callback)

    def _prepare(self, batch: MessageBatch) -> None:
        """Turn what the headers received into what they are to send."""
        fields = batch.fields
        if fields is None:
            return
        fields.iovLengths[:] = fields.lengths
        onLink = batch.onLink() if self._destinations else ()
        if batch.segmentSizes or onLink:
            self._prepareEach(batch, onLink)
        else:
            if self._destinations:
                # The routing table chooses the interface.
                fields.interfaces[:] = fields.noInterfaces
                if not batch.isIPv6 and fields.locals4 != fields.destinations4:
                    self._completeLocals(batch, fields)
            if self._hopLimits:
                fields.hopLimits[:] = fields.hopLimits.tobytes().translate(_oneLess)
        for entry, controls in batch.irregular.items():
            hopLimit = controls.hopLimit - 1 if self._hopLimits and controls.hopLimit is not None else None
            interface = cmsg.replyInterface(controls.local, batch.address(entry).host, controls.interface)
            packed = cmsg.packControls(cmsg.replyControls(batch.isIPv6, controls.local, hopLimit, controls.segment, interface))
            batch.slots.writeControls(entry, packed)
            batch.slots.controlLengths[entry] = len(packed)
        batch.prepared = True

    def _prepareEach(self, batch: MessageBatch, onLink: Sequence[int]) -> None:
        """Prepare the control messages of a batch with GRO batches, where they do not stand at the same place everywhere, or
        with entries that do not all have interface 0.
        """
        slots = batch.slots
        for entry in range(batch.entries):
            controls = slots.gro if entry in batch.segmentSizes else slots.usual
            if self._destinations:
                if entry not in onLink:
                    controls.interfaces[entry] = 0
                if not batch.isIPv6 and not controls.locals4[entry]:
                    controls.locals4[entry] = controls.destinations4[entry]
            if self._hopLimits:
                controls.hopLimits[entry] = max(0, controls.hopLimits[entry] - 1)
        for entry, segment in batch.segmentSizes.items():
            slots.cmsgLengths[entry], slots.cmsgKinds[entry] = cmsg.SEGMENT_LENGTH, cmsg.SEGMENT_KIND
            slots.sentSegmentSizes[entry] = segment

    def _completeLocals(self, batch: MessageBatch, fields: Fields) -> None:
        """What was queued before IP_PKTINFO was set has the destination of the header only."""
        for entry in range(batch.entries):
            if not fields.locals4[entry] and entry not in batch.irregular:
                fields.locals4[entry] = fields.destinations4[entry]

    def _groups(self, batch: MessageBatch, limits: SegmentLimits) -> list[range]:
        """Find datagrams of one flow and one length that follow each other: they can go back as a GSO batch even if they did
        not come as a GRO batch. If only few can be joined, each entry is a group.
        """
        count, slots = batch.entries, batch.slots
        flows = slots.flows[:count].tolist()
        if len(set(flows)) > count // 2:
            return [range(entry, entry + 1) for entry in range(count)]
        fields = [*slots.hosts6, slots.scopes] if batch.isIPv6 else []
        if self._destinations:
            fields += [slots.usual.interfaces, *(slots.locals6 if batch.isIPv6 else [slots.usual.locals4])]
        if self._hopLimits:
            fields.append(slots.usual.hopLimits)
        columns = [batch.sizes(), flows, *(field[:count].tolist() for field in fields)]
        groups: list[range] = []
        start = 0
        for (size, *_), same in groupby(zip(*columns, strict=True)):
            end = start + len(list(same))
            step = max(1, min(MAX_SEGMENTS, _maxJoined // size)) if size and limits.allow(size, end - start) else 1
            groups += [range(at, min(at + step, end)) for at in range(start, end, step)]
            start = end
        return groups

    def _sendSome(self, batch: MessageBatch, callback: BatchSendCallback) -> None:
        groups: list[range] = []
        refused: list[int] = []
        for entry, count in enumerate(batch.counts()):
            if entry not in batch.dropped and entry not in batch.taken:
                segment = batch.segmentSize(entry)
                if segment and (self._limits is None or not self._limits.allow(segment, count)):
                    refused.append(entry)
                else:
                    groups.append(range(entry, entry + 1))
        for reason in set(batch.dropped.values()):
            _report(batch, [entry for entry, why in batch.dropped.items() if why == reason], reason, callback)
        if groups:
            self._sendGroups(batch, groups, callback)
        for entry in refused:
            self._sendSeparately(batch, entry, callback)

    def _sendGroups(self, batch: MessageBatch, groups: Sequence[range], callback: BatchSendCallback) -> None:
        """Send each group of entries as one."""
        slots, usual = batch.slots, batch.slots.size
        for index, group in enumerate(groups):
            if len(group) == 1:
                slots.copyHeader(index, group.start)
            else:
                segment = batch.sizes()[group.start]
                slots.writeControls(group.start, cmsg.segmentControl.pack(*cmsg.SEGMENT_HEADER, segment), usual)
                slots.joinHeader(index, group, usual + cmsg.SEGMENT_SPACE)
        sent = batch.calls.sendmmsg(batch.descriptor, slots.sparesAddress, len(groups), sockopt.MSG_DONTWAIT)
        if sent == len(groups) and not batch.dropped and not batch.taken and batch.datagrams == batch.entries:
            callback(None, batch.entries, batch.size)
            return
        self._sendRest(batch, groups, slots.sparesAddress, sent, callback)

    def _sendRest(
        self, batch: MessageBatch, groups: Sequence[range], address: int, sent: int, callback: BatchSendCallback
    ) -> None:
        """Go on after a call for the headers at an address, one for each group, that has perhaps not sent everything.

        @param sent: what the call returned.
        """
        first = 0
        while True:
            if sent > 0:
                _report(batch, [entry for group in groups[first : first + sent] for entry in group], None, callback)
                first += sent
            elif sent == 0 or (number := batch.calls.lastError()) in TRY_AGAIN:
                for group in groups[first:]:
                    for entry in group:
                        self._sendSeparately(batch, entry, callback)
                return
            elif number != errno.EINTR:
                self._refused(batch, groups[first], number, callback)
                first += 1
            if first == len(groups):
                return
            # A short count has no reason with it. A call that begins there returns the reason.
            sent = batch.calls.sendmmsg(
                batch.descriptor, address + first * HEADER_SIZE, len(groups) - first, sockopt.MSG_DONTWAIT
            )

    def _refused(self, batch: MessageBatch, group: range, number: int, callback: BatchSendCallback) -> None:
        first, joined = group.start, len(group) > 1
        segment = batch.sizes()[first] if joined else batch.segmentSize(first)
        count = len(group) if joined else batch.count(first)
        if self._limits is None or count == 1 or batch.descriptor < 0 or not (joined or number in REFUSALS):
            self._failures["send_failed"] += count
            _report(batch, group, "send_failed", callback)
            return
        taken = [self._sendSeparately(batch, entry, callback) for entry in group]
        if any(taken) and number in REFUSALS:
            # The GSO batch was refused, and not what is in it.
            cause = self._limits.refused(number, segment, count)
            if cause is not None:
                _log.info("a GSO batch was refused, so that such batches are sent as single datagrams: {cause}", cause=cause)

    def _sendSeparately(self, batch: MessageBatch, entry: int, callback: BatchSendCallback) -> bool:
        """Send the datagrams of an entry one by one.

        @return: whether the system took one of them.
        """
        address = batch.address(entry)
        taken = False
        for payload in batch.payloads(entry):
            size = len(payload)

            def reportOne(reason: str | None, size: int = size) -> None:
                nonlocal taken
                taken = taken or reason is None
                callback(reason, 1, size)

            self._sendOne(payload, address, reportOne)
        return taken


def _report(batch: MessageBatch, entries: Sequence[int], reason: str | None, callback: BatchSendCallback) -> None:
    count = sum(map(batch.count, entries)) if batch.datagrams != batch.entries else len(entries)
    callback(reason, count, sum(map(batch.sizes().__getitem__, entries)))
