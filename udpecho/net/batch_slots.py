"""The slots of an unconnected socket: names, the usual control messages, and those of a GRO batch before them."""

from __future__ import annotations

import socket
import sys
from array import array
from typing import NamedTuple

from udpecho.addresses import DatagramAddress
from udpecho.net.linux import cmsg
from udpecho.net.linux.mmsg import SLOTS, Slots

#: Bytes of a payload: longer than any datagram, and than any GRO batch.
SLOT_SIZE = 65535

_noInterfaces = memoryview(bytes(4 * SLOTS)).cast("I")


class ControlFields(NamedTuple):
    """Members of the usual control messages, where they are in each slot.

    @ivar interfaces: the interface index.
    @ivar locals4: the local IPv4 address.
    @ivar destinations4: the destination of the IPv4 header.
    @ivar hopLimits: the hop limit.
    """

    interfaces: memoryview
    locals4: memoryview
    destinations4: memoryview
    hopLimits: memoryview


class Fields(NamedTuple):
    """What is read and written in the plain case, of the first so many slots. The fields C{all...}, C{usual...} and C{no...}
    have what to write to others: the whole length of each slot, the length of just the usual control messages, interface 0.

    @see: L{Slots}, L{BatchSlots} and L{ControlFields} for the others.
    """

    lengths: memoryview
    iovLengths: memoryview
    allIovLengths: memoryview
    controlLengths: memoryview
    allControlLengths: memoryview
    usualControlLengths: memoryview
    hosts4: memoryview
    ports: memoryview
    interfaces: memoryview
    noInterfaces: memoryview
    locals4: memoryview
    destinations4: memoryview
    hopLimits: memoryview


class BatchSlots(Slots):
    """L{Slots} with names. Hosts and ports are as they are on the wire: the bytes of a number in network order.

    @ivar size: the bytes of the usual control messages.
    @ivar ports: the ports of the names.
    @ivar flows: of IPv4 names the family, the port and the host; of IPv6 names the family, the port and the flow.
    @ivar hosts4: the hosts of IPv4 names.
    @ivar hosts6: the halves of the hosts of IPv6 names.
    @ivar scopes: the scopes of IPv6 names.
    @ivar usual: the members of the usual control messages.
    @ivar gro: the same, where the control message of a GRO batch stands before them.
    @ivar locals6: the halves of the local IPv6 address in the usual control messages.
    @ivar prefixes6: the first byte of it.
    @ivar cmsgLengths: the length of the first control message, with its header.
    @ivar cmsgKinds: its level and type, as one number.
    @ivar segmentSizes: the number in it, if it has one.
    """

    def __init__(self, isIPv6: bool, layout: cmsg.ControlLayout, controls: bool) -> None:
        """@param isIPv6: the family of the names.
        @param layout: of the usual control messages.
        @param controls: whether there may be control messages at all.
        """
        super().__init__(SLOT_SIZE, nameLength=28 if isIPv6 else 16, controls=controls, spares=SLOTS)
        self._isIPv6 = isIPv6
        self.size = layout.size
        self.ports = self.nameField("H", 2)
        self.flows = self.nameField("Q", 0)
        self.hosts4 = self.nameField("I", 4)
        self.hosts6 = [self.nameField("Q", at) for at in (8, 16)]
        self.scopes = self.nameField("I", 24)
        self.usual, self.gro = (
            ControlFields(
                self.controlField("I", shift + layout.interfaceAt),
                self.controlField("I", shift + layout.localAt),
                self.controlField("I", shift + layout.destinationAt),
                self.controlField("B", shift + layout.hopLimitAt),
            )
            for shift in (0, cmsg.SEGMENT_SPACE)
        )
        self.locals6 = [self.controlField("Q", layout.localAt + at) for at in (0, 8)] if isIPv6 else []
        self.prefixes6 = self.controlField("B", layout.localAt)
        self.cmsgLengths = self.controlField("Q", 0)
        self.cmsgKinds = self.controlField("Q", 8)
        self.segmentSizes = self.controlField("I", 16)
        self._allIovLengths = memoryview(array("Q", [SLOT_SIZE] * SLOTS))
        self._usualControlLengths = memoryview(array("Q", [layout.size] * SLOTS))
        self._fields: list[Fields | None] = [None] * (SLOTS + 1)

    def fields(self, count: int) -> Fields:
        """The fields of the first C{count} slots. They are kept: making slices takes longer than using them."""
        fields = self._fields[count]
        if fields is None:
            usual = self.usual
            fields = self._fields[count] = Fields(
                self.lengths[:count],
                self.iovLengths[:count],
                self._allIovLengths[:count],
                self.controlLengths[:count],
                self._allControlLengths[:count],
                self._usualControlLengths[:count],
                self.hosts4[:count],
                self.ports[:count],
                usual.interfaces[:count],
                _noInterfaces[:count],
                usual.locals4[:count],
                usual.destinations4[:count],
                usual.hopLimits[:count],
            )
        return fields

    def address(self, slot: int) -> DatagramAddress:
        """Read a name."""
        name = self.name(slot)
        port = int.from_bytes(name[2:4], "big")
        if not self._isIPv6:
            return DatagramAddress((socket.inet_ntop(socket.AF_INET, name[4:8]), port))
        address = DatagramAddress((socket.inet_ntop(socket.AF_INET6, name[8:24]), port))
        address.flowInfo, address.scopeID = int.from_bytes(name[4:8], "big"), int.from_bytes(name[24:28], sys.byteorder)
        return address
