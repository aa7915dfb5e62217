"""A wall clock that a test sets, for the processes that it starts. The machine's own clock is not touched."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

# What Python and the C library read the wall clock by. Other clocks, and the kernel's timers, are the machine's.
_source = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long seconds(void) {
    static volatile long *shift;
    if (!shift) {
        int file = open(getenv("WALL_CLOCK_SHIFT"), O_RDONLY);
        shift = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        close(file);
    }
    return *shift;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += seconds();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    now->tv_sec = wall.tv_sec;
    now->tv_usec = wall.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    if (now)
        *now = wall.tv_sec;
    return wall.tv_sec;
}
"""


class WallClock:
    """The wall clock of processes that start with L{environment}; it is ahead of the machine's by what L{shift} was given."""

    def __init__(self, directory: Path) -> None:
        """@param directory: an empty directory, for the preloaded library and the file by which it knows the shift."""
        compiler = shutil.which("cc")
        if compiler is None or not os.path.isdir("/proc/self"):
            pytest.skip("needs Linux and a C compiler, for a library that shifts the clock of one process")
        source, library, shift = (directory / name for name in ("clock.c", "clock.so", "shift"))
        source.write_text(_source)
        subprocess.run([compiler, "-shared", "-fPIC", "-O", "-o", library, source], check=True)
        shift.write_bytes(bytes(struct.calcsize("l")))
        with open(shift, "r+b") as file:
            self._shift = mmap.mmap(file.fileno(), 0)
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK_SHIFT": str(shift)}

    def shift(self, seconds: int) -> None:
        """Set the clock so many seconds ahead of the machine's."""
        struct.pack_into("l", self._shift, 0, seconds)
