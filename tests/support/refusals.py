"""A kernel that refuses single features, for the processes that a test starts: a preloaded library in front of the C library's
system calls. So do older kernels, imitations of Linux, and filters (C{seccomp(2)}) of containers.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

# $REFUSE has "KEY=NUMBER" items between spaces. set.LEVEL.OPTION, get.LEVEL.OPTION, cmsg.LEVEL.TYPE and call.NAME fail with
# that error number. "full" makes so many sends in succession fail with ENOBUFS, as the BSDs and macOS do while the queue of an
# interface is full. "largest" makes those fail with EMSGSIZE that are longer, until SO_SNDBUF is set to more, as there.
_source = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

static int largest[4096], refusedSends;

static int numberOf(const char *key) {
    static char all[1024];
    char item[64];
    if (!*all)
        snprintf(all, sizeof all, " %s", getenv("REFUSE") ? getenv("REFUSE") : "");
    snprintf(item, sizeof item, " %s=", key);
    const char *found = strstr(all, item);
    return found ? atoi(found + strlen(item)) : 0;
}

static int refuses(const char *kind, int level, int option) {
    char key[64];
    snprintf(key, sizeof key, "%s.%d.%d", kind, level, option);
    return numberOf(key);
}

static int failed(int number) {
    if (number)
        errno = number;
    return number;
}

static int cannotSend(int fd, size_t size) {
    int most = fd < 4096 && largest[fd] ? largest[fd] : numberOf("largest");
    if (most && size > (size_t)most)
        return EMSGSIZE;
    if (refusedSends < numberOf("full") && ++refusedSends)
        return ENOBUFS;
    return 0;
}

static int cannotSendMessage(int fd, const struct msghdr *message) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR((struct msghdr *)message, c)) {
        int number = refuses("cmsg", c->cmsg_level, c->cmsg_type);
        if (number)
            return number;
    }
    size_t size = 0;
    for (size_t i = 0; i < message->msg_iovlen; i++)
        size += message->msg_iov[i].iov_len;
    return cannotSend(fd, size);
}

#define NEXT(result, name, ...) ((result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

int setsockopt(int fd, int level, int option, const void *value, socklen_t size) {
    if (failed(refuses("set", level, option)))
        return -1;
    if (level == SOL_SOCKET && option == SO_SNDBUF && fd < 4096)
        largest[fd] = *(const int *)value;
    return NEXT(int, "setsockopt", int, int, int, const void *, socklen_t)(fd, level, option, value, size);
}

int getsockopt(int fd, int level, int option, void *value, socklen_t *size) {
    if (failed(refuses("get", level, option)))
        return -1;
    int result = NEXT(int, "getsockopt", int, int, int, void *, socklen_t *)(fd, level, option, value, size);
    if (level == SOL_SOCKET && option == SO_SNDBUF && numberOf("largest"))
        *(int *)value = fd < 4096 && largest[fd] ? largest[fd] : numberOf("largest");
    return result;
}

int recvmmsg(int fd, struct mmsghdr *headers, unsigned int count, int flags, struct timespec *timeout) {
    if (failed(numberOf("call.recvmmsg")))
        return -1;
    return NEXT(int, "recvmmsg", int, void *, unsigned int, int, void *)(fd, headers, count, flags, timeout);
}

int sendmmsg(int fd, struct mmsghdr *headers, unsigned int count, int flags) {
    if (failed(numberOf("call.sendmmsg")))
        return -1;
    unsigned int good = 0;
    int number = 0;
    while (good < count && !(number = cannotSendMessage(fd, &headers[good].msg_hdr)))
        good++;
    if (!good && failed(number))
        return -1;
    return NEXT(int, "sendmmsg", int, void *, unsigned int, int)(fd, headers, good, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    if (failed(numberOf("call.sendmsg")) || failed(cannotSendMessage(fd, message)))
        return -1;
    return NEXT(ssize_t, "sendmsg", int, const void *, int)(fd, message, flags);
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *name, socklen_t length) {
    if (failed(cannotSend(fd, size)))
        return -1;
    ssize_t (*next)(int, const void *, size_t, int, const void *, socklen_t) = dlsym(RTLD_NEXT, "sendto");
    return next(fd, data, size, flags, name, length);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
    int type = 0;
    socklen_t length = sizeof type;
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
    if (type == SOCK_DGRAM && failed(cannotSend(fd, size)))
        return -1;
    return NEXT(ssize_t, "send", int, const void *, size_t, int)(fd, data, size, flags);
}

int memfd_create(const char *name, unsigned int flags) {
    return failed(numberOf("call.memfd_create")) ? -1 : NEXT(int, "memfd_create", const char *, unsigned int)(name, flags);
}

int timerfd_create(int clock, int flags) {
    return failed(numberOf("call.timerfd_create")) ? -1 : NEXT(int, "timerfd_create", int, int)(clock, flags);
}

int timerfd_settime(int fd, int flags, const struct itimerspec *new, struct itimerspec *old) {
    if (failed(numberOf("call.timerfd_settime")))
        return -1;
    return NEXT(int, "timerfd_settime", int, int, const void *, void *)(fd, flags, new, old);
}

int epoll_create1(int flags) {
    return failed(numberOf("call.epoll_create1")) ? -1 : NEXT(int, "epoll_create1", int)(flags);
}

int madvise(void *memory, size_t size, int advice) {
    return failed(numberOf("call.madvise")) ? -1 : NEXT(int, "madvise", void *, size_t, int)(memory, size, advice);
}
"""

# Runs a command for which the system calls in $DENY, numbers between spaces, fail with EPERM, by a filter of the kernel.
_filter = r"""
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int count, char **arguments) {
    struct sock_filter program[64] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    unsigned short size = 1;
    char *rest = getenv("DENY");
    while (*rest && size < 60) {
        unsigned int number = strtoul(rest, &rest, 10);
        program[size++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
        program[size++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    }
    program[size++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog whole = {size, program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &whole)) {
        perror("seccomp");
        return 77;
    }
    execv(arguments[1], arguments + 1);
    perror(arguments[count - 1]);
    return 1;
}
"""
#: Numbers of system calls (C{asm/unistd_64.h} of x86-64, C{asm-generic/unistd.h} of the other).
_numbers = {
    "x86_64": {"recvmmsg": 299, "sendmmsg": 307, "timerfd_create": 283, "memfd_create": 319},
    "aarch64": {"recvmmsg": 243, "sendmmsg": 269, "timerfd_create": 85, "memfd_create": 279},
}


class Refusals:
    """Kernels without some features."""

    def __init__(self, directory: Path) -> None:
        """@param directory: an empty directory, for the preloaded library."""
        compiler = shutil.which("cc")
        if compiler is None or not os.path.isdir("/proc/self"):
            pytest.skip("needs Linux and a C compiler, for a library that refuses features to one process")
        self._compiler, self._directory = compiler, directory
        self._library = self._build("refuse.so", _source, "-shared", "-fPIC")

    def _build(self, name: str, text: str, *options: str) -> Path:
        source = (self._directory / name).with_suffix(".c")
        source.write_text(text)
        output = self._directory / name
        subprocess.run([self._compiler, *options, "-O", "-Wall", "-Werror", "-o", output, source], check=True)
        return output

    def denied(self, *calls: str) -> tuple[str, dict[str, str]]:
        """A program that runs a command for which the kernel denies system calls (C{seccomp(2)}), and its environment."""
        if platform.machine() not in _numbers:
            pytest.skip(f"the numbers of the system calls of {platform.machine()} are not known here")
        program = str(self._build("deny", _filter))
        if subprocess.run([program, shutil.which("true") or "true"], env={"DENY": ""}, check=False).returncode:
            pytest.skip("no filters of system calls here")
        return program, {"DENY": " ".join(str(_numbers[platform.machine()][call]) for call in calls)}

    def environment(self, items: Mapping[str, int]) -> dict[str, str]:
        """The environment of a process for which the items are refused, each with an error number."""
        return {"LD_PRELOAD": str(self._library), "REFUSE": " ".join(f"{key}={number}" for key, number in items.items())}
