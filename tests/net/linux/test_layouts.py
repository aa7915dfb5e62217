"""Tests of the memory layouts and of the numbers, against the C compiler's. A machine of another kind has others."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.guards import needsCompiler, onlyLinux
from tests.support.running import PATIENCE
from udpecho.net.linux import cmsg, mmsg, sockopt, timerfd
from udpecho.probe.io import stamp_slots

_program = """
#define _GNU_SOURCE
#include <time.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#define PRINT(expression) printf("%ld\\n", (long) (expression))

/* Where the lowest byte of a number is. */
#define LOWEST(type, size) (one.bytes[0] ? 0 : sizeof(type) - (size))

union { int number; char bytes[sizeof(int)]; } one = { 1 };

int main(void) {
"""

#: What C says, and what Python does.
_layouts = {
    "sizeof(struct mmsghdr)": mmsg.HEADER_SIZE,
    "offsetof(struct mmsghdr, msg_len)": mmsg._lengthAt,
    "offsetof(struct msghdr, msg_flags)": mmsg._flagsAt,
    "offsetof(struct msghdr, msg_controllen) + LOWEST(size_t, 4)": mmsg._controlLengthAt,
    "sizeof(struct iovec)": mmsg._iov.size,
    "offsetof(struct iovec, iov_len) + LOWEST(size_t, 4)": mmsg._iovLengthAt,
    "sizeof(struct cmsghdr)": cmsg._cmsghdr.size,
    "LOWEST(size_t, 4)": cmsg.LENGTH_AT,
    "offsetof(struct cmsghdr, cmsg_level)": cmsg.KIND_AT,
    "CMSG_LEN(0)": cmsg.DATA_AT,
    "CMSG_LEN(sizeof(int))": cmsg.GRO_LENGTH,
    "CMSG_LEN(sizeof(__u16))": cmsg.SEGMENT_LENGTH,
    "CMSG_SPACE(sizeof(__u16))": cmsg.SEGMENT_SPACE,
    "CMSG_SPACE(sizeof(int))": cmsg.space(4),
    "sizeof(struct in_pktinfo)": cmsg._pktinfo4.size,
    "sizeof(struct in6_pktinfo)": cmsg._pktinfo6.size,
    "CMSG_SPACE(sizeof(struct in_pktinfo)) + CMSG_SPACE(sizeof(int))": cmsg.controlLayout(False, True, True).size,
    "CMSG_LEN(offsetof(struct in_pktinfo, ipi_ifindex))": cmsg.controlLayout(False, True, True).interfaceAt,
    "CMSG_LEN(offsetof(struct in_pktinfo, ipi_spec_dst))": cmsg.controlLayout(False, True, True).localAt,
    "CMSG_LEN(offsetof(struct in_pktinfo, ipi_addr))": cmsg.controlLayout(False, True, True).destinationAt,
    "CMSG_SPACE(sizeof(struct in_pktinfo)) + CMSG_LEN(LOWEST(int, 1))": cmsg.controlLayout(False, True, True).hopLimitAt,
    "CMSG_LEN(offsetof(struct in6_pktinfo, ipi6_ifindex))": cmsg.controlLayout(True, True, True).interfaceAt,
    "CMSG_LEN(offsetof(struct in6_pktinfo, ipi6_addr))": cmsg.controlLayout(True, True, True).localAt,
    "CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_LEN(LOWEST(int, 1))": cmsg.controlLayout(True, True, True).hopLimitAt,
    "CMSG_LEN(LOWEST(int, 1))": cmsg.controlLayout(True, False, True).hopLimitAt,
    "sizeof(struct sock_extended_err)": cmsg.extendedError.size,
    "sizeof(struct scm_timestamping64)": cmsg.TIMESTAMPS_SIZE,
    "CMSG_SPACE(sizeof(struct scm_timestamping64))": stamp_slots._stampSize,
    "CMSG_SPACE(48) + CMSG_SPACE(16 + sizeof(struct sockaddr_in))": stamp_slots._errorSizes[0],
    "CMSG_SPACE(48) + CMSG_SPACE(16 + sizeof(struct sockaddr_in6))": stamp_slots._errorSizes[1],
    "sizeof(struct itimerspec)": timerfd._itimerspec.size,
    "TFD_TIMER_ABSTIME": timerfd._TFD_TIMER_ABSTIME,
    "sizeof(long) == 8 ? SO_TIMESTAMPING : SO_TIMESTAMPING_NEW": sockopt.SO_TIMESTAMPING,
    "SO_EE_ORIGIN_ICMP": sockopt.SO_EE_ORIGIN_ICMP,
    "SO_EE_ORIGIN_ICMP6": sockopt.SO_EE_ORIGIN_ICMP6,
    "SO_EE_ORIGIN_TIMESTAMPING": sockopt.SO_EE_ORIGIN_TIMESTAMPING,
    **{
        name: value
        for name, value in vars(sockopt).items()
        if name.startswith(("IP_", "IPV6_", "MSG_", "SO_RCV", "SO_MEM", "SO_NETNS", "SOL_", "UDP_", "SOF_"))
    },
}


@onlyLinux
@needsCompiler
def test_layouts(tmp_path: Path) -> None:
    """Sizes, offsets and numbers are those of C."""
    lines = [f"PRINT({expression});" for expression in _layouts]
    (tmp_path / "layouts.c").write_text("\n".join([_program, *lines, "return 0;\n}\n"]))
    build = ["cc", "-Wall", "-Werror", "-o", "layouts", "layouts.c"]
    built = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert built.returncode == 0, built.stderr
    printed = subprocess.run([tmp_path / "layouts"], capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    found = list(map(int, printed.split()))
    assert dict(zip(_layouts, found, strict=True)) == _layouts
