"""
What Linux can do with a datagram socket that Python's C{socket} module does not name: constants and layouts.

Sources: C{ip(7)}, C{ipv6(7)}, C{linux/in.h}, C{linux/in6.h}, C{linux/errqueue.h}, C{asm-generic/socket.h}.
"""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

#: Whether this is Linux; everything here works there only.
available = sys.platform == "linux"

IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
IP_PMTUDISC_DO = 2
IP_PMTUDISC_OMIT = 5
IP_RECVERR = 11
IPV6_MTU_DISCOVER = 23
IPV6_RECVERR = 25
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
MSG_ERRQUEUE = 0x2000
SO_RCVBUFFORCE = 33
SO_TIMESTAMPING = 37
SO_MEMINFO = 55

IP_TTL = 2
IP_RECVTTL = 12
IPV6_RECVHOPLIMIT = 51
IPV6_HOPLIMIT = 52
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104

SO_EE_ORIGIN_ICMP = 2
SO_EE_ORIGIN_ICMP6 = 3
SO_EE_ORIGIN_TIMESTAMPING = 4

# What SO_TIMESTAMPING is given (C{linux/net_tstamp.h}): stamps in software of what is sent and received, told; those of what is
# sent numbered, and without the datagram.
SOF_TIMESTAMPING_TX_SOFTWARE = 1 << 1
SOF_TIMESTAMPING_RX_SOFTWARE = 1 << 3
SOF_TIMESTAMPING_SOFTWARE = 1 << 4
SOF_TIMESTAMPING_OPT_ID = 1 << 7
SOF_TIMESTAMPING_OPT_TSONLY = 1 << 11

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
_ERROR_ANCILLARY_SIZE = 512

Ancillary = list[tuple[int, int, bytes]]


@dataclass(frozen=True)
class QueuedError:
    """
    One entry of a socket's error queue.

    @ivar errno: what happened.
    @ivar info: for C{EMSGSIZE} the MTU of the path, in bytes, IP header included.
    @ivar quoted: the beginning of the datagram that it happened to, as far as whoever said so has quoted it.
    """

    errno: int
    info: int
    quoted: bytes = b""


class QueuedStamp(NamedTuple):
    """
    What the error queue says of a datagram that was sent.

    @ivar id: its number: 0 for the first one since numbers were asked for, of 32 bits.
    @ivar time: when the kernel handed it to the device, in ns of the wall clock.
    """

    id: int
    time: int


def askForDestination(sock: socket.socket, wanted: bool = True) -> bool:
    """
    Have the kernel tell, with each datagram, the local address it was sent to, or tell it no more.

    @return: whether it will: what imitates Linux may not.
    """
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, int(wanted))
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, int(wanted))
    except OSError:
        return False
    return wanted


def askForHopLimits(sock: socket.socket, wanted: bool = True) -> bool:
    """
    Have the kernel tell, with each datagram, what was left of its time to live (RFC 791) or hop limit (RFC 8200), or tell it no
    more.

    @return: whether it will.
    """
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, int(wanted))
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVHOPLIMIT, int(wanted))
    except OSError:
        return False
    return wanted


def keepBurstsTogether(sock: socket.socket, wanted: bool) -> bool:
    """
    Have the kernel hand over datagrams of one flow that came together as one (C{UDP_GRO} in C{udp(7)}), or each for itself
    again; those that are queued already stay as they are.

    @return: whether it will: kernels older than 5.0 do not know it.
    """
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, int(wanted))
    except OSError:
        return False
    return wanted


def isForSeveral(host: str) -> bool:
    """
    Whether a local address is that of a group, or of all hosts of a network, instead of one of this host's own: C{connect(2)}
    tells, and sends nothing.
    """
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    except OSError:
        # Nobody can tell, and whoever takes it for several only asks for more than is needed.
        return True
    with sock:
        try:
            sock.connect((host.partition("%")[0], 9))
        except PermissionError:
            return True
        except OSError:
            pass
    return ip_address(host.partition("%")[0]).is_multicast


def askForErrors(sock: socket.socket) -> None:
    """
    Have the kernel queue what the network says of datagrams that were sent: also host and network unreachable, which it
    keeps to itself otherwise (RFC 1122 section 4.1.3.3 asks for all). Where it will not, refusals still come.
    """
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)


def letRoutersFragment(sock: socket.socket) -> None:
    """
    Have IPv4 datagrams sent without "do not fragment", and whatever is said about the path's MTU ignored: nobody hears of a
    reply that was too long for the way back, and what is said may be forged.
    """
    # The kernels that do not know it are older than 3.15.
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT)


def kernelDrops(sock: socket.socket) -> int | None:
    """
    How many datagrams the kernel has dropped because the receive queue was full (C{sk_drops}, the ninth of the numbers of
    C{SO_MEMINFO}, C{linux/sock_diag.h}).

    @return: C{None} if the kernel does not tell.
    """
    try:
        numbers = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 9 * 4)
    except OSError:
        return None
    drops: int = struct.unpack("@9I", numbers)[8] if len(numbers) == 9 * 4 else 0
    return drops


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
    """
    Read control messages.
    """
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
        """
        The bytes of all.
        """
        return self._infoRoom + (_space(_number.size) if self.hopLimits else 0)

    @property
    def localAt(self) -> int:
        """
        Where the local address begins.
        """
        return _controlHeader.size + (0 if self.isIPv6 else 4)

    @property
    def destinationAt(self) -> int:
        """
        Where the destination of the IPv4 header is.
        """
        return _controlHeader.size + 8

    @property
    def interfaceAt(self) -> int:
        """
        Where the interface index is.
        """
        return _controlHeader.size + (16 if self.isIPv6 else 0)

    @property
    def hopLimitAt(self) -> int:
        """
        Where the lowest byte of the hop limit is.
        """
        return self._infoRoom + _controlHeader.size


def unpackControls(data: bytes) -> Ancillary:
    """
    Take the control messages that C{recvmmsg} has written apart (C{cmsg(3)}).
    """
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
    """
    Write control messages as C{sendmmsg} takes them.
    """
    packed = b""
    for level, kind, data in ancillary:
        packed += _controlHeader.pack(_controlHeader.size + len(data), level, kind) + data
        packed += bytes(-len(packed) % _alignment)
    return packed


def _space(size: int) -> int:
    """
    What a control message takes with C{size} bytes of data (C{CMSG_SPACE}).
    """
    return _controlHeader.size + -(-size // _alignment) * _alignment


def readQueued(ancillary: Ancillary, quoted: bytes = b"") -> QueuedError | QueuedStamp | None:
    """
    Read an entry of the error queue.

    @param quoted: the payload that it came with.

    @return: C{None} if it is of a kind that is not known here.
    """
    time = 0
    ancillary = _whole(ancillary)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPING:
            whole, rest = timespec.unpack_from(data)
            time = whole * 1_000_000_000 + rest
    for level, kind, data in ancillary:
        if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
            number, origin, _, _, info, datum = _extendedError.unpack_from(data)
            if origin in (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6):
                return QueuedError(number, info, quoted)
            if origin == SO_EE_ORIGIN_TIMESTAMPING and time:
                return QueuedStamp(datum, time)
    return None


def readErrors(sock: socket.socket, limit: int) -> list[QueuedError]:
    """
    Empty a socket's error queue.

    @param limit: how many entries to take at the most.

    @return: what the network said, oldest first; what the machine itself said about a send is left out, since that send
        has failed with the same error.
    """
    errors: list[QueuedError] = []
    for _ in range(limit):
        try:
            ancillary = sock.recvmsg(0, _ERROR_ANCILLARY_SIZE, MSG_ERRQUEUE | socket.MSG_DONTWAIT)[1]
        except OSError:
            break
        for level, kind, data in _whole(ancillary):
            if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
                number, origin, _, _, info, _ = _extendedError.unpack_from(data)
                if origin in (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6):
                    errors.append(QueuedError(number, info))
    return errors


__all__ = [
    "ANCILLARY_SIZE",
    "BURST_KIND",
    "BURST_LENGTH",
    "SEGMENT_CONTROL",
    "SEGMENT_KIND",
    "SEGMENT_LENGTH",
    "SEGMENT_ROOM",
    "Ancillary",
    "ControlLayout",
    "Controls",
    "QueuedError",
    "QueuedStamp",
    "askForDestination",
    "askForErrors",
    "askForHopLimits",
    "available",
    "isForSeveral",
    "keepBurstsTogether",
    "kernelDrops",
    "packControls",
    "readControls",
    "readErrors",
    "readQueued",
    "replyControls",
    "segmentControl",
    "timespec",
    "unpackControls",
]
