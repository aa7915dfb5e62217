"""
Many datagrams with one system call: C{recvmmsg(2)} into fixed slots, C{sendmmsg(2)} from the same ones.

No Python runs for the single datagram: what is done to a batch is done to one field of all its headers at once.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from twisted.logger import Logger
from zope.interface import implementer

from udpecho.addresses import DatagramAddress
from udpecho.interfaces import DROP_REASONS, BatchSendCallback, IDatagramBatch, SendCallback
from udpecho.net.linux import cmsg, sockopt
from udpecho.net.linux.gso import MAX_SEGMENTS, REFUSALS, SegmentLimits, countSegments
from udpecho.net.linux.mmsg import HEADER_SIZE, SLOT_SIZE, SLOTS, Fields, Slots, SystemCalls, systemCalls

#: What one send can carry, with room for the headers.
_mostJoined = 65535 - 48
#: With bursts like those of the batch before, a batch has about so many datagrams at the most.
_mostDatagrams = 512
#: From so many on it is worth while to look for datagrams that can go as one.
_fewest = 4

_receivedLess = bytes(max(0, number - 1) for number in range(256))
_tryAgain = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
_dontWait = socket.MSG_DONTWAIT if sockopt.available else 0

_log = Logger()


class BatchOptions(NamedTuple):
    """
    What a batch has to do with.

    @ivar isIPv6: whether the socket's family is IPv6; it has no IPv4 datagrams then.
    @ivar boundHost: the local address that all datagrams are sent to, C{None} if that differs.
    @ivar destinations: whether the kernel tells the local address of each datagram.
    @ivar hopLimits: whether the kernel tells the hop limit of each datagram; a reply has one less.
    @ivar segments: what is known of sending bursts as one; C{None} if the kernel keeps none together, and none is to be sent.
    """

    isIPv6: bool
    boundHost: str | None = None
    destinations: bool = False
    hopLimits: bool = False
    segments: SegmentLimits | None = None


@implementer(IDatagramBatch)
class MessageBatch:
    """
    The slots of one socket, and what the last receive call put there.

    @ivar dropped: the reason for each entry that is not to be sent back.
    @ivar asked: how many entries the last receive call would have taken: as many as there are slots, or, where bursts come,
        fewer, so that a batch has not many times as many datagrams. Whoever takes them one by one keeps timers waiting.
    @ivar calls: the system calls.
    """

    def __init__(
        self,
        options: BatchOptions,
        sendOne: Callable[[bytes, DatagramAddress, SendCallback], object],
        failures: Counter[str],
        calls: SystemCalls | None = None,
    ) -> None:
        """
        @param sendOne: sends a single datagram, or keeps it until the send queue has room, and tells what became of it.
        @param failures: where to count what the system refuses, beside telling.
        @param calls: the system calls.

        @raise OSError: if this system has none.
        """
        self.entries = 0
        self.datagrams = 0
        self.size = 0
        self.isIPv6 = options.isIPv6
        self.dropped: dict[int, str] = {}
        self.calls = systemCalls() if calls is None else calls
        self._options = options
        self._sendOne = sendOne
        self._failures = failures
        self._boundHost = options.boundHost
        self._hearsDestinations = options.destinations
        self._hearsHopLimits = options.hopLimits
        self._limits = options.segments
        self.asked = self._fitting = SLOTS
        self._descriptor = -1
        self._sizes: list[int] = []
        # The length of the datagrams of each burst; and what came with control messages that are not expected.
        self._bursts: dict[int, int] = {}
        self._odd: dict[int, cmsg.Controls] = {}
        self._prepared = False
        layout = cmsg.ControlLayout(options.isIPv6, options.destinations, options.hopLimits)
        self._slots = Slots(options.isIPv6, layout, bool(layout.size) or options.segments is not None)
        self._fields: Fields | None = None

    # Receiving

    def receive(self, descriptor: int) -> int:
        """
        Take a batch from a socket; what was in the slots is gone.

        @return: how many entries it has; fewer than were L{asked} for if no more were there.

        @raise OSError: if there is none.
        """
        fields = self._fields
        if fields is not None:
            fields.iovLengths[:] = fields.wholeVectors
            fields.controlLengths[:] = fields.wholeControls
            self._fields = None
            self.entries = self.datagrams = self.size = 0
        self.asked = self._fitting
        count = self.calls.recvmmsg(descriptor, self._slots.headersAddress, self.asked, _dontWait, None)
        if count < 0:
            number = self.calls.lastError()
            raise OSError(number, os.strerror(number))
        self._descriptor = descriptor
        self._prepared = False
        self._fields = fields = self._slots.fields(count)
        self._sizes = sizes = fields.lengths.tolist()
        self.entries = self.datagrams = count
        self.size = sum(sizes)
        if self.dropped:
            self.dropped = {}
        if self._bursts:
            self._bursts = {}
        if self._odd:
            self._odd = {}
        if fields.controlLengths != fields.plainControls:
            self._readOdd(fields)
            self._fitting = max(1, min(SLOTS, _mostDatagrams * count // self.datagrams))
        elif self._fitting != SLOTS:
            self._fitting = SLOTS
        return count

    def _readOdd(self, fields: Fields) -> None:
        """Read the control messages of the entries that do not have just the usual ones."""
        slots, usual = self._slots, self._slots.size
        kinds, lengths, segments = slots.kinds, slots.lengths, slots.segments
        for entry, size in enumerate(fields.controlLengths.tolist()):
            if size == usual:
                continue
            expected = size == usual + cmsg.SEGMENT_ROOM and kinds[entry] == cmsg.BURST_KIND
            if expected and lengths[entry] == cmsg.BURST_LENGTH and segments[entry]:
                segment = self._bursts[entry] = segments[entry]
                self.datagrams += countSegments(self._sizes[entry], segment) - 1
            else:
                self._odd[entry] = controls = self._slots.controls(entry, size)
                if controls.segment:
                    self.datagrams += countSegments(self._sizes[entry], controls.segment) - 1

    def another(self) -> MessageBatch:
        """Make a batch for the same socket, with slots of its own."""
        return MessageBatch(self._options, self._sendOne, self._failures, self.calls)

    def close(self) -> None:
        """The socket is closed: nothing of this batch can be sent any more."""
        self._descriptor = -1

    # Looking

    def sizes(self) -> list[int]:
        """@see: L{IDatagramBatch.sizes}"""
        return self._sizes

    def counts(self) -> list[int]:
        """@see: L{IDatagramBatch.counts}"""
        counts = [1] * self.entries
        if self.datagrams != self.entries:
            for entry in (*self._bursts, *self._odd):
                counts[entry] = self._count(entry)
        return counts

    def longest(self) -> list[int]:
        """@see: L{IDatagramBatch.longest}"""
        if self.datagrams == self.entries:
            return self._sizes
        return [min(size, self._segment(entry) or size) for entry, size in enumerate(self._sizes)]

    def _segment(self, entry: int) -> int:
        segment = self._bursts.get(entry, 0)
        return segment or (self._odd[entry].segment if entry in self._odd else 0)

    def _count(self, entry: int) -> int:
        segment = self._segment(entry)
        return countSegments(self._sizes[entry], segment) if segment else 1

    def hosts(self) -> list[int]:
        """@see: L{IDatagramBatch.hosts}"""
        count, fields = self.entries, self._fields
        if fields is None:
            return []
        if not self.isIPv6:
            return list(struct.unpack(f">{count}I", fields.hosts4.tobytes()))
        halves = [struct.unpack(f">{count}Q", half[:count].tobytes()) for half in self._slots.hosts6]
        return [(high << 64) | low for high, low in zip(*halves, strict=True)]

    def ports(self) -> list[int]:
        """@see: L{IDatagramBatch.ports}"""
        return [] if self._fields is None else list(struct.unpack(f">{self.entries}H", self._fields.ports.tobytes()))

    def scopes(self) -> list[int]:
        """@see: L{IDatagramBatch.scopes}"""
        return self._slots.scopes[: self.entries].tolist() if self.isIPv6 else [0] * self.entries

    def address(self, entry: int) -> DatagramAddress:
        """@see: L{IDatagramBatch.address}"""
        address, controls = self._slots.address(entry), self._controls(entry)
        address.localHost = controls.local or self._boundHost
        address.unicast = controls.unicast
        address.hopLimit = controls.hopLimit
        return address

    def _controls(self, entry: int) -> cmsg.Controls:
        controls = self._odd.get(entry)
        if controls is None:
            segment = self._bursts.get(entry, 0)
            size = self._slots.size + (cmsg.SEGMENT_ROOM if segment else 0)
            controls = self._slots.controls(entry, size)._replace(segment=segment)
            if self._prepared and controls.hopLimit is not None:
                controls = controls._replace(hopLimit=controls.hopLimit + 1)
        return controls

    def payloads(self, entry: int) -> list[bytes]:
        """@see: L{IDatagramBatch.payloads}"""
        size, segment, payload = self._sizes[entry], self._segment(entry), self._slots.payload
        if not segment:
            return [payload(entry, 0, size)]
        return [payload(entry, at, min(at + segment, size)) for at in range(0, size, segment)]

    def nonUnicast(self) -> Sequence[int]:
        """@see: L{IDatagramBatch.groups}"""
        fields, count = self._fields, self.entries
        if not self._hearsDestinations or fields is None:
            return ()
        if not self._odd and not self._bursts:
            if self.isIPv6:
                if b"\xff" not in self._slots.groups6[:count].tobytes():
                    return ()
            elif fields.locals4 == fields.destinations4:
                return ()
        return [entry for entry in range(count) if not self._controls(entry).unicast]

    def truncated(self) -> Sequence[int]:
        """The entries that were longer than their slot."""
        if self.size < SLOT_SIZE:
            return ()
        flags = self._slots.flags[: self.entries].tolist()
        return [entry for entry, flag in enumerate(flags) if flag & socket.MSG_TRUNC]

    def hopLimitExpired(self) -> Sequence[int]:
        """The entries whose hop limit leaves none for a reply."""
        if not self._hearsHopLimits or self._fields is None:
            return ()
        if not self._odd:
            if not self._bursts and min(self._fields.hopLimits.tobytes()) > 1:
                return ()
            plain, groFields = self._fields.hopLimits, self._slots.groFields[3]
            return [entry for entry in range(self.entries) if (groFields if entry in self._bursts else plain)[entry] < 2]
        limits = (self._controls(entry).hopLimit for entry in range(self.entries))
        return [entry for entry, limit in enumerate(limits) if limit is not None and limit < 2]

    # Sending

    def drop(self, entry: int, reason: str) -> None:
        """@see: L{IDatagramBatch.drop}"""
        if reason not in DROP_REASONS:
            raise ValueError(f"{reason!r} is not a reason to drop: one of {', '.join(DROP_REASONS)} is")
        self.dropped.setdefault(entry, reason)

    def send(self, callback: BatchSendCallback) -> None:
        """@see: L{IDatagramBatch.send}"""
        self._prepare()
        bursts = bool(self._bursts)
        if self.dropped or self._odd or (bursts and (self._limits is None or self._limits.refusedAny)):
            self._sendSome(callback)
            return
        count = self.entries
        if count >= _fewest and not bursts and self._limits is not None:
            groups = self._flows(self._limits)
            if len(groups) <= count // 2:
                self._sendGroups(groups, callback)
                return
        sent = self.calls.sendmmsg(self._descriptor, self._slots.headersAddress, count, _dontWait)
        if sent == count:
            callback(None, self.datagrams, self.size)
        else:
            self._sendRest([range(entry, entry + 1) for entry in range(count)], self._slots.headersAddress, sent, callback)

    def _prepare(self) -> None:
        """Make the headers say what goes out instead of what came in."""
        fields = self._fields
        if fields is None:
            return
        fields.iovLengths[:] = fields.lengths
        if self._bursts:
            self._prepareEach(fields)
        elif self._hearsDestinations:
            # The routing table chooses the interface.
            fields.interfaces[:] = fields.noInterfaces
            if not self.isIPv6 and fields.locals4 != fields.destinations4:
                self._completeLocals()
        if self._hearsHopLimits and not self._bursts:
            fields.hopLimits[:] = fields.hopLimits.tobytes().translate(_receivedLess)
        for entry, controls in self._odd.items():
            hopLimit = None if controls.hopLimit is None else controls.hopLimit - 1
            self._slots.writeControls(entry, cmsg.replyControls(self.isIPv6, controls.local, hopLimit, controls.segment))
        self._prepared = True

    def _prepareEach(self, fields: Fields) -> None:
        """Prepare the control messages of a batch with bursts, where they do not stand at the same place everywhere."""
        slots = self._slots
        plain = (fields.interfaces, fields.locals4, fields.destinations4, fields.hopLimits)
        for entry in range(self.entries):
            interfaces, locals4, destinations4, hopLimits = slots.groFields if entry in self._bursts else plain
            if self._hearsDestinations:
                interfaces[entry] = 0
                if not self.isIPv6 and not locals4[entry]:
                    locals4[entry] = destinations4[entry]
            if self._hearsHopLimits:
                hopLimits[entry] = max(0, hopLimits[entry] - 1)
        for entry in self._bursts:
            slots.lengths[entry], slots.kinds[entry] = cmsg.SEGMENT_LENGTH, cmsg.SEGMENT_KIND

    def _completeLocals(self) -> None:
        """What was queued before the kernel was asked for destinations has that of the header only."""
        slots = self._slots
        for entry in range(self.entries):
            if not slots.locals4[entry] and entry not in self._odd:
                slots.locals4[entry] = slots.destinations4[entry]

    def _flows(self, limits: SegmentLimits) -> list[range]:
        """
        Find datagrams of one flow and one length that stand beside each other: they can go back as one burst even if they did
        not come as one.

        @return: all entries, in order; if few can be joined, each for itself.
        """
        count, slots = self.entries, self._slots
        flows = slots.flows[:count].tolist()
        if len(set(flows)) > count // 2:
            return [range(entry, entry + 1) for entry in range(count)]
        fields = [*slots.hosts6, slots.scopes] if self.isIPv6 else []
        if self._hearsDestinations:
            fields += slots.locals6 if self.isIPv6 else [slots.locals4]
        if self._hearsHopLimits:
            fields.append(slots.hopLimits)
        columns = [self._sizes, flows, *(field[:count].tolist() for field in fields)]
        groups: list[range] = []
        start = 0
        for (size, *_), same in groupby(zip(*columns, strict=True)):
            end = start + len(list(same))
            step = max(1, min(MAX_SEGMENTS, _mostJoined // size)) if size and limits.allow(size, end - start) else 1
            groups += [range(at, min(at + step, end)) for at in range(start, end, step)]
            start = end
        return groups

    def _sendSome(self, callback: BatchSendCallback) -> None:
        """Send what is not dropped of a batch."""
        groups: list[range] = []
        apart: list[int] = []
        for entry, count in enumerate(self.counts()):
            if entry not in self.dropped:
                segment = self._segment(entry)
                if segment and self._limits is not None and not self._limits.allow(segment, count):
                    apart.append(entry)
                else:
                    groups.append(range(entry, entry + 1))
        for reason in set(self.dropped.values()):
            self._settle([entry for entry, why in self.dropped.items() if why == reason], reason, callback)
        if groups:
            self._sendGroups(groups, callback)
        for entry in apart:
            self._sendApart(entry, callback)

    def _sendGroups(self, groups: Sequence[range], callback: BatchSendCallback) -> None:
        """Send each group as one."""
        slots = self._slots
        for index, group in enumerate(groups):
            if len(group) == 1:
                slots.copyHeader(index, group.start)
            else:
                slots.joinHeader(index, group, self._sizes[group.start])
        sent = self.calls.sendmmsg(self._descriptor, slots.othersAddress, len(groups), _dontWait)
        if sent == len(groups) and not self.dropped and self.datagrams == self.entries:
            callback(None, self.entries, self.size)
            return
        self._sendRest(groups, slots.othersAddress, sent, callback)

    def _sendRest(self, groups: Sequence[range], address: int, sent: int, callback: BatchSendCallback) -> None:
        """
        Go on after a call that has perhaps not sent everything.

        @param groups: what each header sends.
        @param address: of the headers.
        @param sent: what the call returned.
        """
        first = 0
        while True:
            if sent > 0:
                self._settle([entry for group in groups[first : first + sent] for entry in group], None, callback)
                first += sent
            elif sent == 0 or (number := self.calls.lastError()) in _tryAgain:
                for group in groups[first:]:
                    for entry in group:
                        self._sendApart(entry, callback)
                return
            elif number != errno.EINTR:
                self._refused(groups[first], number, callback)
                first += 1
            if first == len(groups):
                return
            # A short count does not say why: the call that begins there does.
            sent = self.calls.sendmmsg(self._descriptor, address + first * HEADER_SIZE, len(groups) - first, _dontWait)

    def _refused(self, group: range, number: int, callback: BatchSendCallback) -> None:
        """The system does not send a group."""
        first, joined = group.start, len(group) > 1
        segment = self._sizes[first] if joined else self._segment(first)
        count = len(group) if joined else self._count(first)
        if self._limits is None or count == 1 or self._descriptor < 0 or not (joined or number in REFUSALS):
            self._failures["send_failed"] += count
            self._settle(group, "send_failed", callback)
            return
        taken = [self._sendApart(entry, callback) for entry in group]
        if any(taken) and number in REFUSALS:
            # It is the burst that was refused, and not what is in it.
            cause = self._limits.refused(number, segment, count)
            _log.info("a burst is sent one by one, and so are others like it: {cause}", cause=cause)

    def _sendApart(self, entry: int, callback: BatchSendCallback) -> bool:
        """
        Send the datagrams of an entry one by one.

        @return: whether the system took one of them.
        """
        address = self.address(entry)
        taken = False

        for payload in self.payloads(entry):
            size = len(payload)

            def settledOne(reason: str | None, size: int = size) -> None:
                nonlocal taken
                taken = taken or reason is None
                callback(reason, 1, size)

            self._sendOne(payload, address, settledOne)
        return taken

    def _settle(self, entries: Sequence[int], reason: str | None, callback: BatchSendCallback) -> None:
        count = sum(map(self._count, entries)) if self.datagrams != self.entries else len(entries)
        callback(reason, count, sum(map(self._sizes.__getitem__, entries)))
