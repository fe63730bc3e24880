"""A library that is loaded before the C library and makes the disk slow or the wall clock wrong, while a node runs.

Delays and offsets are read from a shared file at every call, so the same running process is healthy, slow and healthy
again. Only fsync and fdatasync are slowed, only the wall clock is moved: CLOCK_REALTIME as clock_gettime, gettimeofday
and time show it. CLOCK_BOOTTIME is left alone, because no kernel steps it for a running process either (a time
namespace shifts it for processes that are born into it).
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S
from pgvigil.watchdog.demo.lab import require_tools
from pgvigil.watchdog.demo.run import run

VARIABLE = "PGVLAB_SHIM"
_FIELDS = struct.Struct("=qqqq")
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control { int64_t fsync_ns, wall_ns, fsyncs, wall_reads; };
static struct control none;
static volatile struct control *control = &none;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("PGVLAB_SHIM");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(0, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) control = page;
    close(fd);
}

static void be_slow(void) {
    int64_t ns = control->fsync_ns;
    __atomic_add_fetch(&control->fsyncs, 1, __ATOMIC_RELAXED);
    struct timespec pause = {ns / 1000000000, ns % 1000000000};
    if (ns > 0) nanosleep(&pause, 0);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    be_slow();
    return real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    be_slow();
    return real(fd);
}

static void shift(struct timespec *at) {
    int64_t ns = (int64_t)at->tv_sec * 1000000000 + at->tv_nsec + control->wall_ns;
    __atomic_add_fetch(&control->wall_reads, 1, __ATOMIC_RELAXED);
    at->tv_sec = ns / 1000000000;
    at->tv_nsec = ns % 1000000000;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, at);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) shift(at);
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


def build(folder: Path) -> Path:
    """Compile the library; `CommandError` that names the packages if there is no compiler."""
    require_tools({"cc": "gcc libc6-dev"})
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text(_SOURCE, encoding="ascii")
    run(("cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"), limit_s=60).checked()
    return library


@dataclass(frozen=True, slots=True)
class Reading:
    """What a node's processes have asked for since they were started."""

    fsyncs: int
    wall_reads: int


class Shim:
    """The controls of one node's processes."""

    def __init__(self, library: Path, control: Path) -> None:
        self._library = library
        self._path = control
        control.write_bytes(bytes(_FIELDS.size))
        with open(control, "r+b") as file:
            self._page = mmap.mmap(file.fileno(), _FIELDS.size)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to load the library and find these controls."""
        return {"LD_PRELOAD": str(self._library), VARIABLE: str(self._path)}

    def delay_fsync(self, delay_ms: int) -> None:
        """From now on every fsync takes so much longer; 0 ends it."""
        struct.pack_into("=q", self._page, 0, delay_ms * NS_PER_MS)

    def step_wall_clock(self, offset_s: int) -> None:
        """From now on the wall clock is off by so much; 0 ends it."""
        struct.pack_into("=q", self._page, 8, offset_s * NS_PER_S)

    def read(self) -> Reading:
        _, _, fsyncs, wall_reads = _FIELDS.unpack_from(self._page, 0)
        return Reading(fsyncs, wall_reads)
