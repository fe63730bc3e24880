"""What makes children share as much memory with their parent as they can; done once, before the first fork.

After a fork every page is shared until somebody writes to it. A child writes where it allocates and where it counts
references; so the parent makes beforehand what all children would make for themselves, leaves them no holes in pages
that are full of old objects, and keeps the garbage collector away from those. It changes nothing that code can
see: where the allocator is another one than CPython's, it saves less.
"""

from __future__ import annotations

import codecs
import ctypes
import gc
import sys

from pgvigil.heartbeat.packet import Heartbeat
from pgvigil.ipc import codec, frames
from pgvigil.watchdog.core import messages, record
from pgvigil.watchdog.supervisor.rehearsal import rehearse
from pgvigil.watchdog.transport import envelope

# getaddrinfo and netlink look these up at their first use: every child would have copies of its own (1.1 MiB for IDNA).
ENCODINGS = ("ascii", "idna")

# Objects/obmalloc.c of CPython 3.10 and newer: blocks of one size lie in pools of 16 KiB behind a header.
STEP = 16
LARGEST = 512
POOL_BYTES = 16 * 1024
POOL_HEADER_BYTES = 48
BYTES_OVERHEAD = 33  # of a bytes object beside its content
ROW = 4
"""So many blocks in a row at the start of a pool: it is a new one, and no hole is left in the old ones."""
MAX_FILL_BYTES = 128 * 1024

LARGEST_PIECE = 64 * 1024 - 8  # of the heap; 8 bytes are malloc's own, and it gives out multiples of 16 with them
MAX_HEAP_FILL_BYTES = 8 * 1024 * 1024

_fillings: list[list[object]] = []


def freeze() -> None:
    """Get everything that exists ready to be shared."""
    for name in ENCODINGS:
        codecs.lookup(name)  # imports it, and remembers what it found
    codec.prepare((*frames.KINDS.values(), frames.Envelope))
    codec.prepare((*messages.KINDS.values(), envelope.Envelope, record.Record, Heartbeat))
    forget_lookups()
    rehearse()
    gc.collect()
    fill_holes()
    gc.freeze()
    fill_heap()


def forget_lookups() -> None:
    """Empty CPython's cache of looked-up attributes; what is warm fills it again.

    The cache counts a reference to each name, so a child that replaces an entry also writes to the name of something
    that only the parent ever looked up, somewhere in the heap. From 3.12 on names are immortal and nothing is written.
    """
    if sys.version_info < (3, 12):
        sys._clear_type_cache()


def fill_holes() -> int:
    """Occupy the free blocks of used pools, so that children allocate in new pages instead of copying old ones.

    Costs nothing: those pages exist. Returns the number of bytes.
    """
    return sum(_fill(size) for size in range(STEP, LARGEST + 1, STEP))


def _fill(size: int) -> int:
    filling: list[object] = []
    first = row = 0
    while row < ROW and len(filling) * size < MAX_FILL_BYTES:
        block = _block(size, len(filling))
        filling.append(block)
        address = id(block)
        if address % POOL_BYTES == POOL_HEADER_BYTES:
            first, row = address, 1
        else:
            row = row + 1 if row and address == first + row * size else 0
    _fillings.append(filling)
    return len(filling) * size


def _block(size: int, number: int) -> object:
    """An object of exactly this size class that is nothing but memory."""
    if size == STEP:
        return object()
    return float(number) if size == 2 * STEP else bytes(size - BYTES_OVERHEAD)


def fill_heap() -> int:
    """The same for what malloc serves: occupy the free pieces below the end of the heap. Returns their bytes.

    Whole free pages among them are given back first, and stay so: nobody writes to what is only occupied.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        return 0  # not the GNU C library: nothing is known about its heap
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.free.argtypes = (ctypes.c_size_t,), (ctypes.c_void_p,)
    libc.malloc_trim(0)
    end = libc.sbrk(0)
    filled, size = 0, LARGEST_PIECE
    while size > 0:
        piece = libc.malloc(size)
        if piece is not None and piece + size <= end and filled < MAX_HEAP_FILL_BYTES:
            filled += size
            continue
        libc.free(piece)  # it came from new memory: no free piece is this large any more
        size -= max(STEP, size // STEP // STEP * STEP)
    libc.malloc_trim(0)
    return filled
