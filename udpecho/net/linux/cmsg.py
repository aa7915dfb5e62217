"""Control messages (C{cmsg(3)})."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import NamedTuple

from udpecho.net.linux.sockopt import (
    IP_PKTINFO,
    IP_RECVERR,
    IP_TTL,
    IPV6_HOPLIMIT,
    IPV6_PKTINFO,
    IPV6_RECVERR,
    SO_TIMESTAMPING,
    SOL_UDP,
    UDP_GRO,
    UDP_SEGMENT,
    available,
)

#: C{struct in_pktinfo}: interface index, the local address (what a reply should come from), the header's destination.
_pktinfo4 = struct.Struct("@I4s4s")
#: C{struct in6_pktinfo}: address, interface index.
_pktinfo6 = struct.Struct("@16sI")
#: A hop limit, and the length of the datagrams of a burst that came; the length for one that goes is half as wide.
_number = struct.Struct("@i")
_segmentSize = struct.Struct("@H")
#: C{struct cmsghdr} where a C{size_t} has 64 bits: length with header, level, type. Its data are aligned like it.
_controlHeader = struct.Struct("@Qii")
_alignment = 8
#: The whole control message that cuts a payload into datagrams: L{SEGMENT_CONTROL}, and then the length of each.
segmentControl = struct.Struct("@QiiHxxxxxx")
SEGMENT_CONTROL = (_controlHeader.size + _segmentSize.size, SOL_UDP, UDP_SEGMENT)
#: The room that it takes.
SEGMENT_ROOM = segmentControl.size
#: The length of the control message that tells of a burst, and its level and type as one number; of that which sends one too.
BURST_LENGTH = _controlHeader.size + _number.size
BURST_KIND = SOL_UDP | UDP_GRO << 32
SEGMENT_LENGTH = SEGMENT_CONTROL[0]
SEGMENT_KIND = SOL_UDP | UDP_SEGMENT << 32
#: C{struct sock_extended_err}, the first 16 bytes: errno, origin, type, code, pad, info, data.
_extendedError = struct.Struct("@IBBBxII")

#: C{struct scm_timestamping} begins with the stamp in software, a C{struct timespec}.
timespec = struct.Struct("@qq")

#: Room for one C{in_pktinfo} and one C{in6_pktinfo}, since a dual-stack socket may send both, and for a number each.
ANCILLARY_SIZE = sum(map(socket.CMSG_SPACE, (_pktinfo4.size, _pktinfo6.size, _number.size, _number.size))) if available else 0

Ancillary = list[tuple[int, int, bytes]]


class Controls(NamedTuple):
    """
    What the control messages of a datagram say.

    @ivar local: the address that a reply should come from, C{None} if the kernel did not say.
    @ivar unicast: whether the datagram was sent to this host alone.
    @ivar hopLimit: what was left of its IPv4 time to live or IPv6 hop limit, C{None} if the kernel did not say.
    @ivar segment: of a burst that the kernel kept together, the length of each datagram but the last, else 0.
    """

    local: str | None = None
    unicast: bool = True
    hopLimit: int | None = None
    segment: int = 0


#: How long the data are that are read of a control message, by its level and type.
_sizes = {
    (socket.IPPROTO_IP, IP_PKTINFO): _pktinfo4.size,
    (socket.IPPROTO_IPV6, IPV6_PKTINFO): _pktinfo6.size,
    (socket.IPPROTO_IP, IP_TTL): _number.size,
    (socket.IPPROTO_IPV6, IPV6_HOPLIMIT): _number.size,
    (SOL_UDP, UDP_GRO): _number.size,
    (socket.IPPROTO_IP, IP_RECVERR): _extendedError.size,
    (socket.IPPROTO_IPV6, IPV6_RECVERR): _extendedError.size,
    (socket.SOL_SOCKET, SO_TIMESTAMPING): timespec.size,
}


def _whole(ancillary: Ancillary) -> Ancillary:
    """
    Leave out the messages that are shorter than their kind is: the kernel cuts the last one where it has no room for it
    (C{MSG_CTRUNC} in C{recvmsg(2)}).
    """
    return [message for message in ancillary if len(message[2]) >= _sizes.get(message[:2], 0)]


def readControls(ancillary: Ancillary) -> Controls:
    """Read control messages."""
    local: str | None = None
    unicast = True
    hopLimit: int | None = None
    segment = 0
    for level, kind, data in _whole(ancillary):
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            # For broadcast and multicast the two differ: the second is the group, the first is ours.
            _, own, destination = _pktinfo4.unpack_from(data)
            if own == bytes(4) and destination[0] < 224:
                # Queued before the kernel was asked to tell: it has the header only. A reply from a subnet's broadcast address
                # is refused.
                own = destination
            if local is None:
                local = socket.inet_ntop(socket.AF_INET, own)
            unicast = unicast and own == destination
        elif level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
            own, _ = _pktinfo6.unpack_from(data)
            local = socket.inet_ntop(socket.AF_INET6, own)
            unicast = unicast and own[0] != 0xFF
        elif (level, kind) in ((socket.IPPROTO_IP, IP_TTL), (socket.IPPROTO_IPV6, IPV6_HOPLIMIT)):
            (hopLimit,) = _number.unpack_from(data)
        elif level == SOL_UDP and kind == UDP_GRO:
            segment = max(0, _number.unpack_from(data)[0])
    return Controls(local, unicast, hopLimit, segment)


def replyControls(isIPv6: bool, local: str | None, hopLimit: int | None, segment: int = 0) -> Ancillary:
    """
    Make the control messages that a reply is sent with.

    @param isIPv6: whether the socket's family is IPv6.
    @param local: the address to send from, C{None} for the system's choice; the routing table still chooses the interface.
    @param hopLimit: the time to live or hop limit, C{None} for the system's.
    @param segment: into datagrams of which length to cut the payload, 0 not to cut it.
    """
    ancillary: Ancillary = []
    if segment:
        ancillary.append((SOL_UDP, UDP_SEGMENT, _segmentSize.pack(segment)))
    if local is not None and ":" in local:
        packed = socket.inet_pton(socket.AF_INET6, local)
        ancillary.append((socket.IPPROTO_IPV6, IPV6_PKTINFO, _pktinfo6.pack(packed, 0)))
    elif local is not None:
        packed = socket.inet_pton(socket.AF_INET, local)
        ancillary.append((socket.IPPROTO_IP, IP_PKTINFO, _pktinfo4.pack(0, packed, bytes(4))))
    if hopLimit is not None:
        level, kind = (socket.IPPROTO_IPV6, IPV6_HOPLIMIT) if isIPv6 else (socket.IPPROTO_IP, IP_TTL)
        ancillary.append((level, kind, _number.pack(hopLimit)))
    return ancillary


@dataclass(frozen=True)
class ControlLayout:
    """
    Where the kernel writes what a socket asks for, when it writes nothing else: the destination first, then the hop limit
    (C{ip_cmsg_recv_offset} and C{ip6_datagram_recv_ctl} in Linux), each after a C{struct cmsghdr} of 16 bytes (C{cmsg(3)}).

    @ivar isIPv6: whether the socket's family is IPv6.
    @ivar destinations: whether it asks for destinations.
    @ivar hopLimits: whether it asks for hop limits.
    """

    isIPv6: bool
    destinations: bool
    hopLimits: bool

    @property
    def _infoRoom(self) -> int:
        return _space(_pktinfo6.size if self.isIPv6 else _pktinfo4.size) if self.destinations else 0

    @property
    def size(self) -> int:
        """The bytes of all."""
        return self._infoRoom + (_space(_number.size) if self.hopLimits else 0)

    @property
    def localAt(self) -> int:
        """Where the local address begins."""
        return _controlHeader.size + (0 if self.isIPv6 else 4)

    @property
    def destinationAt(self) -> int:
        """Where the destination of the IPv4 header is."""
        return _controlHeader.size + 8

    @property
    def interfaceAt(self) -> int:
        """Where the interface index is."""
        return _controlHeader.size + (16 if self.isIPv6 else 0)

    @property
    def hopLimitAt(self) -> int:
        """Where the lowest byte of the hop limit is."""
        return self._infoRoom + _controlHeader.size


def unpackControls(data: bytes) -> Ancillary:
    """Take the control messages that C{recvmmsg} has written apart (C{cmsg(3)})."""
    ancillary: Ancillary = []
    at = 0
    while at + _controlHeader.size <= len(data):
        length, level, kind = _controlHeader.unpack_from(data, at)
        if not _controlHeader.size <= length <= len(data) - at:
            break
        ancillary.append((level, kind, data[at + _controlHeader.size : at + length]))
        at += _space(length - _controlHeader.size)
    return ancillary


def packControls(ancillary: Ancillary) -> bytes:
    """Write control messages as C{sendmmsg} takes them."""
    packed = b""
    for level, kind, data in ancillary:
        packed += _controlHeader.pack(_controlHeader.size + len(data), level, kind) + data
        packed += bytes(-len(packed) % _alignment)
    return packed


def _space(size: int) -> int:
    """What a control message takes with C{size} bytes of data (C{CMSG_SPACE})."""
    return _controlHeader.size + -(-size // _alignment) * _alignment
