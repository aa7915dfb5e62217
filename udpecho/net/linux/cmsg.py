"""Control messages (C{cmsg(3)})."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any, NamedTuple

from udpecho.addresses import DatagramAddress, isLinkLocal
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
#: The beginning of an IPv4 address as an IPv6 one (RFC 4291 section 2.5.5.2).
_mappedPrefix = bytes(10) + b"\xff\xff"
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
GRO_KIND, SEGMENT_KIND, *_usualKinds = (
    int.from_bytes(struct.pack("@ii", *kind), sys.byteorder) for kind in (_GRO, _SEGMENT, _PKTINFO4, _PKTINFO6, _TTL, _HOPLIMIT)
)
SEGMENT_LENGTH = SEGMENT_HEADER[0]
#: The beginning of C{struct sock_extended_err}: C{ee_errno}, C{ee_origin}, C{ee_type}, C{ee_code}, C{ee_pad}, C{ee_info},
#: C{ee_data}.
extendedError = struct.Struct("@IBBBxII")
#: C{struct scm_timestamping} of 64 bits is three C{struct __kernel_timespec}. The first one is the timestamp made in software.
_timespec = struct.Struct("@qq")
TIMESTAMPS_SIZE = 3 * _timespec.size

#: Bytes for the control messages of a datagram. All that Linux puts before the last one that is read here take 304, if somebody
#: has turned everything on (C{sock_recv_cmsgs}, C{udp_cmsg_recv} and C{ip_cmsg_recv_offset}), and all together 560 for IPv4.
CONTROL_SIZE = 576

Ancillary = list[tuple[int, int, bytes]]
#: Control messages, and the C{msg_flags} that they came with (C{recvmsg(2)}).
ReceivedControls = tuple[Ancillary, int]


class Controls(NamedTuple):
    """What the control messages of a datagram report.

    @ivar local: the address that a reply should come from, C{None} if not reported.
    @ivar unicast: whether the datagram was sent to this host alone.
    @ivar hopLimit: what was left of its IPv4 time to live or IPv6 hop limit, C{None} if not reported.
    @ivar segment: of a GRO batch the length of each datagram but the last, in bytes, else 0.
    @ivar interface: the index of the interface that it came by, 0 if not reported.
    @ivar truncated: whether there were more control messages than space (C{MSG_CTRUNC}): what is not reported is unknown.
    @ivar expected: whether there were only such as are read here, and all of them.
    """

    local: str | None = None
    unicast: bool = True
    hopLimit: int | None = None
    segment: int = 0
    interface: int = 0
    truncated: bool = False
    expected: bool = True

    def isKnown(self, destinations: bool, hopLimits: bool) -> bool:
        """Whether what a reply needs is known.

        @param destinations: whether it needs the local address.
        @param hopLimits: whether it needs the hop limit.
        """
        unknown = self.truncated or (destinations and self.local is None) or (hopLimits and self.hopLimit is None)
        return not unknown

    def describe(self, address: DatagramAddress, boundHost: str | None, destinations: bool, hopLimits: bool) -> None:
        """Add to the source of a datagram what a reply needs.

        @param boundHost: the local address that all datagrams are sent to, C{None} if that differs.
        """
        address.localHost = self.local or boundHost
        address.unicast = self.unicast
        address.hopLimit = self.hopLimit if hopLimits else None
        address.interface = self.interface
        address.answerable = self.isKnown(destinations, hopLimits)


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


def receive(sock: socket.socket, buffer: Any) -> tuple[int, ReceivedControls, Any]:
    """Receive a datagram with its control messages into memory, without blocking: another program may have the socket, and have
    made it block.

    @return: the size of the datagram, the control messages, and the source as Python's C{socket} module has it.
    @raise OSError: if there is none.
    """
    size, ancillary, received, source = sock.recvmsg_into([buffer], CONTROL_SIZE, sockopt.MSG_DONTWAIT)
    return size, (ancillary, received), source


def readControls(received: ReceivedControls) -> Controls:
    """Read control messages."""
    local: str | None = None
    unicast = expected = True
    mapped = False
    hopLimit: int | None = None
    segment = interface = 0
    ancillary, flags = received
    whole = complete(ancillary)
    truncated = bool(flags & sockopt.MSG_CTRUNC) or len(whole) < len(ancillary)
    for level, kind, data in whole:
        option = level, kind
        if option == _PKTINFO4:
            # For broadcast and multicast the two differ: the second is the group, the first is ours.
            interface, own, destination = _pktinfo4.unpack_from(data)
            if own == bytes(4) and destination[0] < 224:
                # Queued before IP_PKTINFO was set: only the header's destination is known. The kernel rejects a reply from a
                # subnet's broadcast address.
                own = destination
            local = socket.inet_ntop(socket.AF_INET, own)
            unicast = own == destination
        elif option == _PKTINFO6:
            own, interface = _pktinfo6.unpack_from(data)
            # Of IPv4 it has the header's destination, which may be a broadcast address.
            mapped = own.startswith(_mappedPrefix)
            if not mapped:
                local = socket.inet_ntop(socket.AF_INET6, own)
                unicast = own[0] != 0xFF
        elif option in (_TTL, _HOPLIMIT):
            (hopLimit,) = _int.unpack_from(data)
        elif option == _GRO:
            segment = max(0, _int.unpack_from(data)[0])
        else:
            expected = False
    if mapped and local is not None:
        local = f"::ffff:{local}"
    return Controls(local, unicast, hopLimit, segment, interface, truncated, expected and not truncated)


def replyInterface(local: str | None, peer: str, interface: int) -> int:
    """The interface that a reply leaves by, 0 if the routing table chooses it.

    A link-local IPv6 address means something on one link only, whichever of the two has it (RFC 4007 section 9). Of IPv4
    addresses those of the peer do (RFC 3927 section 2.6.2). A host may have a link-local IPv4 address on any interface, for
    peers behind others.

    @param local: the source of the reply, C{None} for the system's choice.
    @param peer: its destination.
    @param interface: the index of the interface that the datagram came by.
    """
    if isLinkLocal(peer) or (local is not None and ":" in local and isLinkLocal(local)):
        return interface
    return 0


def replyControls(isIPv6: bool, local: str | None, hopLimit: int | None, segment: int = 0, interface: int = 0) -> Ancillary:
    """Make the control messages that a reply is sent with.

    @param isIPv6: whether the socket's family is IPv6.
    @param local: the address to send from, C{None} for the system's choice.
    @param hopLimit: the time to live or hop limit, C{None} for the system's.
    @param segment: the bytes of each datagram of a GSO batch, 0 for a single datagram.
    @param interface: the index of the interface to send by, 0 for the choice of the routing table.
    """
    ancillary: Ancillary = []
    if segment:
        ancillary.append((*_SEGMENT, _segmentSize.pack(segment)))
    if local is not None and ":" in local:
        ancillary.append((*_PKTINFO6, _pktinfo6.pack(socket.inet_pton(socket.AF_INET6, local), interface)))
    elif local is not None:
        ancillary.append((*_PKTINFO4, _pktinfo4.pack(interface, socket.inet_pton(socket.AF_INET, local), bytes(4))))
    if hopLimit is not None:
        ancillary.append((*(_HOPLIMIT if isIPv6 else _TTL), _int.pack(hopLimit)))
    return ancillary


class ControlLayout(NamedTuple):
    """Where the kernel writes the usual control messages: the destination first, then the hop limit (C{ip_cmsg_recv_offset} and
    C{ip6_datagram_recv_ctl} in Linux), each after a C{struct cmsghdr}. In bytes: the length of all, and the offsets of the
    interface index, the local address, the IPv4 header's destination, and the lowest byte of the hop limit; and for each
    message that of its level and type, with these as one number.
    """

    size: int
    interfaceAt: int
    localAt: int
    destinationAt: int
    hopLimitAt: int
    kinds: tuple[tuple[int, int], ...]


def controlLayout(isIPv6: bool, destinations: bool, hopLimits: bool) -> ControlLayout:
    """The layout for a family, with C{IP_PKTINFO} enabled or not, and with C{IP_RECVTTL} or not."""
    pktinfoSpace = space(_pktinfo6.size if isIPv6 else _pktinfo4.size) if destinations else 0
    size = pktinfoSpace + (space(_int.size) if hopLimits else 0)
    interfaceAt, localAt = (DATA_AT + 16, DATA_AT) if isIPv6 else (DATA_AT, DATA_AT + 4)
    pktinfo4, pktinfo6, ttl, hopLimit = _usualKinds
    kinds = [(KIND_AT, pktinfo6 if isIPv6 else pktinfo4)] if destinations else []
    kinds += [(pktinfoSpace + KIND_AT, hopLimit if isIPv6 else ttl)] if hopLimits else []
    hopLimitAt = pktinfoSpace + DATA_AT + lowest(1, _int.size)
    return ControlLayout(size, interfaceAt, localAt, DATA_AT + 8, hopLimitAt, tuple(kinds))


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
