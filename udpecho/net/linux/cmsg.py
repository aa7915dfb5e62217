"""Control messages (C{cmsg(3)})."""

from __future__ import annotations

import socket
import struct
import sys
from typing import NamedTuple

from udpecho.net.linux import sockopt


def lowest(size: int, width: int) -> int:
    """Where the lowest C{size} bytes of a number of C{width} bytes are."""
    return 0 if sys.byteorder == "little" else width - size


# The levels and types of control messages.
_PKTINFO4 = (socket.IPPROTO_IP, sockopt.IP_PKTINFO)
_PKTINFO6 = (socket.IPPROTO_IPV6, sockopt.IPV6_PKTINFO)
_TTL = (socket.IPPROTO_IP, sockopt.IP_TTL)
_HOPLIMIT = (socket.IPPROTO_IPV6, sockopt.IPV6_HOPLIMIT)
_GRO = (sockopt.SOL_UDP, sockopt.UDP_GRO)
_SEGMENT = (sockopt.SOL_UDP, sockopt.UDP_SEGMENT)
_TIMESTAMPING = (socket.SOL_SOCKET, sockopt.SO_TIMESTAMPING)
RECVERR = ((socket.IPPROTO_IP, sockopt.IP_RECVERR), (socket.IPPROTO_IPV6, sockopt.IPV6_RECVERR))

#: C{struct in_pktinfo}: C{ipi_ifindex}, C{ipi_spec_dst} (the source of a reply), C{ipi_addr} (the header's destination).
_pktinfo4 = struct.Struct("@I4s4s")
#: C{struct in6_pktinfo}: C{ipi6_addr}, C{ipi6_ifindex}.
_pktinfo6 = struct.Struct("@16sI")
#: The C{int} of C{IP_TTL}, C{IPV6_HOPLIMIT} and C{UDP_GRO}; C{UDP_SEGMENT} has half as many bits.
_int = struct.Struct("@i")
_segmentSize = struct.Struct("@H")
#: C{struct cmsghdr}: C{cmsg_len} (header included), C{cmsg_level}, C{cmsg_type}. Data are aligned like the first, a C{size_t}.
_cmsghdr = struct.Struct("@Nii")
_alignment = struct.calcsize("@N")
#: Where in it are the lowest 32 bits of the length, the level and the type, and where the data begin behind it.
LENGTH_AT = lowest(4, _alignment)
KIND_AT = _alignment
DATA_AT = _cmsghdr.size
#: A whole control message C{UDP_SEGMENT}: L{SEGMENT_HEADER}, and then the length of each datagram; and its C{CMSG_SPACE}.
segmentControl = struct.Struct("@NiiH0N")
SEGMENT_HEADER = (_cmsghdr.size + _segmentSize.size, *_SEGMENT)
SEGMENT_SPACE = segmentControl.size
#: C{cmsg_len} of the control message of a GRO batch, and its level and type as one number; and of that which sends a GSO batch.
GRO_LENGTH = _cmsghdr.size + _int.size
GRO_KIND, SEGMENT_KIND = (int.from_bytes(struct.pack("@ii", *kind), sys.byteorder) for kind in (_GRO, _SEGMENT))
SEGMENT_LENGTH = SEGMENT_HEADER[0]
#: The beginning of C{struct sock_extended_err}: C{ee_errno}, C{ee_origin}, C{ee_type}, C{ee_code}, C{ee_pad}, C{ee_info},
#: C{ee_data}.
extendedError = struct.Struct("@IBBBxII")
#: C{struct scm_timestamping} of 64 bits is three C{struct __kernel_timespec}. The first one is the timestamp made in software.
_timespec = struct.Struct("@qq")
TIMESTAMPS_SIZE = 3 * _timespec.size

#: Bytes for one C{in_pktinfo} and one C{in6_pktinfo}, since a dual-stack socket may send both, and for two C{int}.
ANCILLARY_SIZE = sum(map(socket.CMSG_SPACE, (_pktinfo4.size, _pktinfo6.size, _int.size, _int.size))) if sockopt.available else 0

Ancillary = list[tuple[int, int, bytes]]


class Controls(NamedTuple):
    """What the control messages of a datagram report.

    @ivar local: the address that a reply should come from, C{None} if not reported.
    @ivar unicast: whether the datagram was sent to this host alone.
    @ivar hopLimit: what was left of its IPv4 time to live or IPv6 hop limit, C{None} if not reported.
    @ivar segment: of a GRO batch the length of each datagram but the last, in bytes, else 0.
    """

    local: str | None = None
    unicast: bool = True
    hopLimit: int | None = None
    segment: int = 0


#: Bytes of the data that are read of a control message, by its level and type.
_sizes = {
    _PKTINFO4: _pktinfo4.size,
    _PKTINFO6: _pktinfo6.size,
    **dict.fromkeys((_TTL, _HOPLIMIT, _GRO), _int.size),
    **dict.fromkeys(RECVERR, extendedError.size),
    _TIMESTAMPING: _timespec.size,
}


def complete(ancillary: Ancillary) -> Ancillary:
    """Leave out a message that the kernel truncated for want of space (C{MSG_CTRUNC} in C{recvmsg(2)})."""
    return [message for message in ancillary if len(message[2]) >= _sizes.get(message[:2], 0)]


def readTimestamp(ancillary: Ancillary) -> int:
    """Read the timestamp made in software (C{SO_TIMESTAMPING}): ns of the wall clock, 0 if there is none."""
    for level, kind, data in complete(ancillary):
        if (level, kind) == _TIMESTAMPING:
            seconds, nanoseconds = _timespec.unpack_from(data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return 0


def readControls(ancillary: Ancillary) -> Controls:
    """Read control messages."""
    local: str | None = None
    unicast = True
    hopLimit: int | None = None
    segment = 0
    for level, kind, data in complete(ancillary):
        option = level, kind
        if option == _PKTINFO4:
            # For broadcast and multicast the two differ: the second is the group, the first is ours.
            _, own, destination = _pktinfo4.unpack_from(data)
            if own == bytes(4) and destination[0] < 224:
                # Queued before IP_PKTINFO was set: only the header's destination is known. The kernel rejects a reply from a
                # subnet's broadcast address.
                own = destination
            if local is None:
                local = socket.inet_ntop(socket.AF_INET, own)
            unicast = unicast and own == destination
        elif option == _PKTINFO6:
            own, _ = _pktinfo6.unpack_from(data)
            local = socket.inet_ntop(socket.AF_INET6, own)
            unicast = unicast and own[0] != 0xFF
        elif option in (_TTL, _HOPLIMIT):
            (hopLimit,) = _int.unpack_from(data)
        elif option == _GRO:
            segment = max(0, _int.unpack_from(data)[0])
    return Controls(local, unicast, hopLimit, segment)


def replyControls(isIPv6: bool, local: str | None, hopLimit: int | None, segment: int = 0) -> Ancillary:
    """Make the control messages that a reply is sent with.

    @param isIPv6: whether the socket's family is IPv6.
    @param local: the address to send from, C{None} for the system's choice; the routing table still chooses the interface.
    @param hopLimit: the time to live or hop limit, C{None} for the system's.
    @param segment: the bytes of each datagram of a GSO batch, 0 for a single datagram.
    """
    ancillary: Ancillary = []
    if segment:
        ancillary.append((*_SEGMENT, _segmentSize.pack(segment)))
    if local is not None and ":" in local:
        ancillary.append((*_PKTINFO6, _pktinfo6.pack(socket.inet_pton(socket.AF_INET6, local), 0)))
    elif local is not None:
        ancillary.append((*_PKTINFO4, _pktinfo4.pack(0, socket.inet_pton(socket.AF_INET, local), bytes(4))))
    if hopLimit is not None:
        ancillary.append((*(_HOPLIMIT if isIPv6 else _TTL), _int.pack(hopLimit)))
    return ancillary


class ControlLayout(NamedTuple):
    """Where the kernel writes the usual control messages: the destination first, then the hop limit (C{ip_cmsg_recv_offset} and
    C{ip6_datagram_recv_ctl} in Linux), each after a C{struct cmsghdr}. In bytes: the length of all, and the offsets of the
    interface index, the local address, the IPv4 header's destination, and the lowest byte of the hop limit.
    """

    size: int
    interfaceAt: int
    localAt: int
    destinationAt: int
    hopLimitAt: int


def controlLayout(isIPv6: bool, destinations: bool, hopLimits: bool) -> ControlLayout:
    """The layout for a family, with C{IP_PKTINFO} enabled or not, and with C{IP_RECVTTL} or not."""
    pktinfoSpace = space(_pktinfo6.size if isIPv6 else _pktinfo4.size) if destinations else 0
    size = pktinfoSpace + (space(_int.size) if hopLimits else 0)
    interfaceAt, localAt = (DATA_AT + 16, DATA_AT) if isIPv6 else (DATA_AT, DATA_AT + 4)
    return ControlLayout(size, interfaceAt, localAt, DATA_AT + 8, pktinfoSpace + DATA_AT + lowest(1, _int.size))


def unpackControls(data: bytes) -> Ancillary:
    """Split control messages as C{recvmmsg} writes them (C{cmsg(3)})."""
    ancillary: Ancillary = []
    at = 0
    while at + _cmsghdr.size <= len(data):
        length, level, kind = _cmsghdr.unpack_from(data, at)
        if not _cmsghdr.size <= length <= len(data) - at:
            break
        ancillary.append((level, kind, data[at + _cmsghdr.size : at + length]))
        at += space(length - _cmsghdr.size)
    return ancillary


def packControls(ancillary: Ancillary) -> bytes:
    """Join control messages as C{sendmmsg} takes them."""
    packed = b""
    for level, kind, data in ancillary:
        packed += _cmsghdr.pack(_cmsghdr.size + len(data), level, kind) + data
        packed += bytes(-len(packed) % _alignment)
    return packed


def space(size: int) -> int:
    """C{CMSG_SPACE}."""
    return _cmsghdr.size + -(-size // _alignment) * _alignment
